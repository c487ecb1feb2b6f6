//! What the kernel, the limits and the disk can do. Each probe tries the thing itself and keeps the reason for a no;
//! the files it reads besides are below a root, so that tests can put others there.

mod disk;
mod host;
mod uring;

pub use disk::{DIRECT_ALIGN_MAX, Direct, Disk, FileSystem, WriteCache, probe_disk};
pub use host::{Host, Irq, Limit, probe_host};
pub use uring::{Features, Uring, probe_uring};

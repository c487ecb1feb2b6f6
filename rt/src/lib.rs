//! One core's runtime: tasks, operations, time, memory and mail. Knows nothing of Kafka.
//!
//! `start` runs one thread per core; what runs there gets a [`Core`] and does all its I/O through it. Buffers belong
//! to operations, never to futures; cores share nothing and talk through [`Mesh`] ports. Above the driver everything
//! is the same under `ring` and under the simulator ([`sim`]).

mod buf;
#[cfg(test)]
mod conformance;
mod core;
mod driver;
mod executor;
mod file;
mod mailbox;
mod offload;
mod op;
mod ready;
pub mod record;
mod say;
mod socket;
mod spin;
mod spsc;
mod start;
mod stats;
pub mod sync;
mod task;
mod time;
mod timer;

pub use crate::core::{Core, CoreId, Sleep};
pub use buf::{Arena, BufMut, PAGE, Reservation, Slice, Take};
pub use driver::sim;
pub use file::{DIRECT_ALIGNMENT, DirEntry, File, LockGuard, Open, Sync, ZEROS_BYTES_MAX, zeros};
pub use mailbox::{Mesh, Port};
#[doc(hidden)]
pub use say::say_line;
pub use socket::{Listener, Stream};
pub use start::{Config, CoreConfig, DriverKind, Runtime, block_on_one, start};
pub use stats::{STALL_BUCKETS, Stats};
pub use task::{Class, Panicked, Task};
pub use time::Instant;

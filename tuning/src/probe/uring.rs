//! Whether io_uring can be used, and why not.
//!
//! A no has four causes with four different cures, so they are told apart: the kernel has none (ENOSYS), a sysctl
//! turned it off, a filter such as a container's seccomp profile refuses it (EPERM while the sysctl allows it), or the
//! locked-memory limit is too small (ENOMEM).

use std::io;
use std::path::Path;

use io_uring::{Builder, IoUring, Probe, cqueue, opcode, squeue};
use rustix::io::Errno;
use serde::Serialize;

use crate::machine::number;

/// Entries of the rings made for the probe: the least that every flag accepts.
const PROBE_ENTRIES: u32 = 8;

/// What the ring driver builds on; each was tried, not inferred from the kernel's version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Features {
    /// Since 5.19.
    pub coop_taskrun: bool,
    /// Since 6.0.
    pub single_issuer: bool,
    /// Since 6.1.
    pub defer_taskrun: bool,
    /// Since 5.18.
    pub submit_all: bool,
    /// Timeouts as an argument of the wait, since 5.11.
    pub ext_arg: bool,
    /// Completions are never dropped, since 5.5.
    pub no_drop: bool,
    /// Send without a copy, since 6.0.
    pub send_zc: bool,
}

impl Features {
    /// What the ring driver cannot do without and this kernel lacks; empty when it can run.
    pub fn lacking(&self) -> Vec<&'static str> {
        missing(&[(self.ext_arg, "EXT_ARG (5.11)"), (self.no_drop, "NODROP (5.5)")])
    }

    /// What makes the driver cheaper and this kernel lacks.
    pub fn foregone(&self) -> Vec<&'static str> {
        missing(&[
            (self.single_issuer, "SINGLE_ISSUER (6.0)"),
            (self.defer_taskrun, "DEFER_TASKRUN (6.1)"),
            (self.coop_taskrun, "COOP_TASKRUN (5.19)"),
        ])
    }
}

fn missing(wanted: &[(bool, &'static str)]) -> Vec<&'static str> {
    wanted.iter().filter(|(has, _)| !has).map(|(_, name)| *name).collect()
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Uring {
    Ready {
        features: Features,
    },
    /// It works, but the kernel is too old for the driver.
    TooOld {
        features: Features,
    },
    Missing,
    Disabled {
        sysctl: usize,
    },
    Filtered,
    NoMemory,
    Failed {
        error: String,
    },
}

impl Uring {
    pub fn is_ready(&self) -> bool {
        matches!(self, Uring::Ready { .. })
    }

    /// One clause for the banner.
    pub fn reason(&self) -> String {
        match self {
            Uring::Ready { features } if features.foregone().is_empty() => {
                "the kernel offers io_uring with everything the driver wants".to_string()
            }
            Uring::Ready { features } => {
                format!("the kernel offers io_uring, but not {}", features.foregone().join(", "))
            }

            Uring::TooOld { features } => {
                format!("this kernel's io_uring lacks {}", features.lacking().join(", "))
            }
            Uring::Missing => "this kernel has no io_uring".to_string(),
            Uring::Disabled { sysctl } => {
                format!("io_uring is turned off (kernel.io_uring_disabled = {sysctl})")
            }
            Uring::Filtered => {
                "io_uring is refused to this process (seccomp filter or security module)".to_string()
            }
            Uring::NoMemory => "the locked-memory limit leaves no room for a ring".to_string(),
            Uring::Failed { error } => format!("io_uring setup failed: {error}"),
        }
    }
}

/// Makes small rings with the flags the driver uses and tells what came of it.
pub fn probe_uring(root: &Path) -> Uring {
    let sysctl = number(root, "proc/sys/kernel/io_uring_disabled").unwrap_or(0);
    match IoUring::new(PROBE_ENTRIES) {
        Ok(ring) => {
            let features = features(&ring);
            if features.lacking().is_empty() { Uring::Ready { features } } else { Uring::TooOld { features } }
        }
        Err(error) => refusal(&error, sysctl),
    }
}

/// Why a ring could not be made.
fn refusal(error: &io::Error, sysctl: usize) -> Uring {
    match Errno::from_io_error(error) {
        Some(Errno::NOSYS) => Uring::Missing,
        Some(Errno::PERM | Errno::ACCESS) if sysctl > 0 => Uring::Disabled { sysctl },
        Some(Errno::PERM | Errno::ACCESS) => Uring::Filtered,
        Some(Errno::NOMEM) => Uring::NoMemory,
        Some(_) | None => Uring::Failed { error: error.to_string() },
    }
}

fn features(ring: &IoUring) -> Features {
    let mut operations = Probe::new();
    let known = ring.submitter().register_probe(&mut operations).is_ok();
    Features {
        coop_taskrun: works(|ring| ring.setup_coop_taskrun()),
        single_issuer: works(|ring| ring.setup_single_issuer()),
        defer_taskrun: works(|ring| ring.setup_single_issuer().setup_defer_taskrun()),
        submit_all: works(|ring| ring.setup_submit_all()),
        ext_arg: ring.params().is_feature_ext_arg(),
        no_drop: ring.params().is_feature_nodrop(),
        send_zc: known && operations.is_supported(opcode::SendZc::CODE),
    }
}

type RingBuilder = Builder<squeue::Entry, cqueue::Entry>;

fn works(set: impl FnOnce(&mut RingBuilder) -> &mut RingBuilder) -> bool {
    let mut builder = IoUring::builder();
    set(&mut builder).build(PROBE_ENTRIES).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_own_cause() {
        let check = |errno: Errno, sysctl, expect: Uring| {
            assert_eq!(refusal(&io::Error::from(errno), sysctl), expect, "{errno:?}");
        };
        check(Errno::NOSYS, 0, Uring::Missing);
        check(Errno::PERM, 2, Uring::Disabled { sysctl: 2 });
        check(Errno::PERM, 0, Uring::Filtered);
        check(Errno::ACCESS, 0, Uring::Filtered);
        check(Errno::NOMEM, 0, Uring::NoMemory);
        assert!(matches!(refusal(&io::Error::from(Errno::MFILE), 0), Uring::Failed { .. }));
    }

    #[test]
    fn an_old_kernel_is_told_what_it_lacks() {
        let features = Features { coop_taskrun: true, ext_arg: true, no_drop: true, ..Features::default() };
        assert!(features.lacking().is_empty());
        assert_eq!(features.foregone(), ["SINGLE_ISSUER (6.0)", "DEFER_TASKRUN (6.1)"]);
        assert_eq!(Features { no_drop: false, ..features }.lacking(), ["NODROP (5.5)"]);
    }

    #[test]
    fn the_probe_answers_on_any_host() {
        assert!(!probe_uring(Path::new("/")).reason().is_empty());
    }
}

//! Making the ring: with every flag the kernel knows, with fewer otherwise, and with words to act on when the host
//! does not allow io_uring at all.

use io_uring::IoUring;
use std::io;

/// Kernel threads for what cannot be done without blocking (XFS sends it writes that touch the mtime).
const WORKERS_MAX: u32 = 8;

/// Which flags a ring is made with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flags {
    /// All that the kernel knows.
    AsKnown,
    None,
}

struct Attempt {
    name: &'static str,
    single_issuer: bool,
    defer: bool,
    coop: bool,
}

const ATTEMPTS: [Attempt; 3] = [
    Attempt {
        name: "SINGLE_ISSUER|DEFER_TASKRUN|COOP_TASKRUN",
        single_issuer: true,
        defer: true,
        coop: true,
    },
    Attempt {
        name: "COOP_TASKRUN only, as kernels before 6.1",
        single_issuer: false,
        defer: false,
        coop: true,
    },
    Attempt { name: "no flags, as kernels before 5.19", single_issuer: false, defer: false, coop: false },
];

/// The ring, and which flags it runs with.
pub(super) fn build(entries: u32, flags: Flags) -> io::Result<(IoUring, String)> {
    let mut refused = None;
    for attempt in ATTEMPTS.iter().filter(|attempt| flags == Flags::AsKnown || !attempt.coop) {
        match build_one(entries, attempt) {
            Ok(ring) => {
                check_features(&ring)?;
                // Best effort: kernels before 5.15 choose by themselves.
                let _ = ring.submitter().register_iowq_max_workers(&mut [WORKERS_MAX, WORKERS_MAX]);
                bind_workers(&ring);
                return Ok((ring, attempt.name.to_string()));
            }
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => refused = Some(e),
            Err(e) => return Err(explain(e)),
        }
    }
    Err(explain(refused.unwrap_or_else(|| io::ErrorKind::Unsupported.into())))
}

/// The kernel's threads run where this one may, so that a pinned core's work stays on its CPU. Best effort, as above.
fn bind_workers(ring: &IoUring) {
    // SAFETY: a CPU set is plain bits, and all of them clear is a valid one.
    let mut cpus: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes at most the given size into the set, which lives until the call returns.
    let got = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut cpus) };
    if got == 0 {
        let _ = ring.submitter().register_iowq_aff(&cpus);
    }
}

fn build_one(entries: u32, attempt: &Attempt) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_clamp().setup_cqsize(entries.saturating_mul(4));
    if attempt.single_issuer {
        builder.setup_single_issuer();
    }
    if attempt.defer {
        builder.setup_defer_taskrun();
    }
    if attempt.coop {
        builder.setup_coop_taskrun().setup_taskrun_flag();
    }
    builder.build(entries)
}

fn check_features(ring: &IoUring) -> io::Result<()> {
    let params = ring.params();
    if params.is_feature_ext_arg() && params.is_feature_nodrop() {
        return Ok(());
    }
    let text = "io_uring on this kernel lacks EXT_ARG or NODROP (both are there from 5.11 on); \
                set [runtime] driver = \"posix\", or use a newer kernel";
    Err(io::Error::new(io::ErrorKind::Unsupported, text))
}

fn explain(e: io::Error) -> io::Error {
    let advice = match e.raw_os_error() {
        Some(libc::ENOSYS) => {
            "this kernel has no io_uring, or a sandbox hides it; \
             set [runtime] driver = \"posix\", or run a kernel from 5.11 on"
        }
        Some(libc::EPERM | libc::EACCES) => {
            "io_uring is forbidden here: by a container's seccomp profile (run with a profile that allows \
             io_uring_setup, io_uring_enter and io_uring_register) or by sysctl kernel.io_uring_disabled (set it to \
             0); or set [runtime] driver = \"posix\""
        }
        Some(libc::ENOMEM) => {
            "the memory for the ring was refused: RLIMIT_MEMLOCK is too small on this kernel; raise it (ulimit -l, \
             LimitMEMLOCK= in systemd) or set [runtime] driver = \"posix\""
        }
        Some(libc::EMFILE | libc::ENFILE) => "no file descriptor is left: raise RLIMIT_NOFILE (ulimit -n)",
        _ => "set [runtime] driver = \"posix\" to run without io_uring",
    };
    io::Error::new(e.kind(), format!("io_uring could not be set up: {e}; {advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_to_do() {
        let check = |errno, word: &str| {
            let text = explain(io::Error::from_raw_os_error(errno)).to_string();
            assert!(text.contains(word), "{text}");
        };
        check(libc::ENOSYS, "kernel from 5.11");
        check(libc::EPERM, "seccomp");
        check(libc::ENOMEM, "MEMLOCK");
        check(libc::EMFILE, "NOFILE");
    }
}

//! Doing what the plan says.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Pins the calling thread to one logical CPU. False when the kernel refuses, as it does for a CPU that went offline
/// or left the cgroup's set since the plan was made; the thread then runs on, unpinned.
pub fn pin_this_thread(cpu: usize) -> bool {
    core_affinity::set_for_current(core_affinity::CoreId { id: cpu })
}

/// Raises the soft limit of open files to the hard one, as every server with many connections does: the soft limit is
/// low only for the sake of programs that use `select`. Returns the limit in force; `None` is unlimited.
pub fn raise_open_files() -> Option<u64> {
    let before = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: before.maximum, maximum: before.maximum };
    // A refusal leaves what was; the caller sees it in the value.
    let _ = setrlimit(Resource::Nofile, wanted);
    getrlimit(Resource::Nofile).current
}

#[cfg(test)]
mod tests {
    use crate::Machine;

    #[test]
    fn the_limit_of_open_files_is_the_hard_one_afterwards() {
        let hard = super::getrlimit(super::Resource::Nofile).maximum;
        assert_eq!(super::raise_open_files(), hard);
    }

    #[test]
    fn a_thread_can_be_pinned_to_an_allowed_cpu_and_to_no_other() {
        let cpu = Machine::here().allowed().next().map(|cpu| cpu.id).expect("one CPU is allowed");
        let pinned = std::thread::spawn(move || super::pin_this_thread(cpu)).join();
        assert!(pinned.expect("pinning does not panic"));
        let refused = std::thread::spawn(|| super::pin_this_thread(1023)).join();
        assert!(!refused.expect("pinning does not panic"));
    }
}

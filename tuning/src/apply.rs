//! Doing what the plan says.

/// Pins the calling thread to one logical CPU. False when the kernel refuses, as it does for a CPU that went offline
/// or left the cgroup's set since the plan was made; the thread then runs on, unpinned.
pub fn pin_this_thread(cpu: usize) -> bool {
    core_affinity::set_for_current(core_affinity::CoreId { id: cpu })
}

#[cfg(test)]
mod tests {
    use crate::Machine;

    #[test]
    fn a_thread_can_be_pinned_to_an_allowed_cpu_and_to_no_other() {
        let cpu = Machine::here().allowed().next().map(|cpu| cpu.id).expect("one CPU is allowed");
        let pinned = std::thread::spawn(move || super::pin_this_thread(cpu)).join();
        assert!(pinned.expect("pinning does not panic"));
        let refused = std::thread::spawn(|| super::pin_this_thread(1023)).join();
        assert!(!refused.expect("pinning does not panic"));
    }
}

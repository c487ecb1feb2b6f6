//! Unloading: what a host held is dropped in bounded steps, between which the core's other tasks run.

use std::rc::Rc;

use super::host::Host;

/// Sends everybody away who waits at a host that has ended, and drops what it held.
pub async fn unload(host: Rc<Host>) {
    while host.unload() {
        host.core().yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Future, poll_fn};
    use std::pin::pin;

    use coord::group::settings::UNLOADED_PER_STEP_MAX;
    use rt::sim::SimDisk;

    use super::*;
    use crate::groups::load::tests::{another, committed, load_and};
    use crate::shard::tests::live;

    #[test]
    fn between_two_yields_a_bounded_number_of_offsets_is_dropped() {
        live(&SimDisk::new(), |core, _| async move {
            let (shard, partition) = committed(&core, 800, "").await;
            let host = another(&shard, partition);
            assert_eq!(load_and(&host, || {}).await, Ok(()));
            let held = usize::try_from(host.counts().offsets).expect("it fits");
            assert!(held > 2 * UNLOADED_PER_STEP_MAX, "{held}");
            assert!(host.end());
            assert!(!host.end(), "it ends once");
            assert_eq!(host.counts().offsets, held as u64, "nothing yet");
            let mut unloading = pin!(unload(host.clone()));
            let (mut most, mut before) = (0, held);
            poll_fn(|context| {
                let polled = unloading.as_mut().poll(context);
                let now = usize::try_from(host.counts().offsets).expect("it fits");
                most = most.max(before - now);
                before = now;
                polled
            })
            .await;
            assert_eq!(host.counts(), crate::groups::Counts::default());
            assert!(most <= UNLOADED_PER_STEP_MAX, "{most}");
        });
    }
}

//! Which log of a core is compacted next: what is due, the dirtiest first, one at a time; what failed, later and later.
//!
//! A round looks at each log once, and some at a time. What becomes due while it compacts is the next round's.

use super::Store;
use crate::ids::PartitionId;
use crate::log::{CompactionError, Log};
use rt::Instant;
use std::collections::BTreeMap;
use std::mem::{Discriminant, discriminant};
use std::time::Duration;

/// A compaction that failed reads and writes as much again when it is tried again, and mostly fails again: the pause before
/// that is two rounds' at first, doubles with each failure, and is never longer than this.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(15 * 60);
/// Logs that are looked at between two yields.
const LOGS_PER_TURN: usize = 64;

/// The logs whose last compaction failed.
#[derive(Default)]
struct Failures(BTreeMap<PartitionId, Failure>);

struct Failure {
    pause: Duration,
    retry_at: Instant,
    /// What was said of it since it last went well: a kind of failure is said once.
    told: Vec<Discriminant<CompactionError>>,
}

impl Store {
    /// Compacts what is due, every so often, until the store is closed. Spawn it once, where it may wait for all else.
    pub async fn compact_when_due(&self, every: Duration) {
        let mut failures = Failures::default();
        loop {
            self.shared.core.sleep(every).await;
            if self.shared.closed.get() {
                return;
            }
            for log in self.due(&failures).await {
                if self.shared.closed.get() {
                    return;
                }
                let done = self.compact_log(&log).await;
                failures.note(&log, done, every, self.shared.core.now());
            }
            failures.0.retain(|id, _| self.shared.logs.borrow().contains_key(id));
        }
    }

    /// The dirtiest first.
    async fn due(&self, failures: &Failures) -> Vec<Log> {
        let mut due = Vec::new();
        for (at, log) in self.all().into_iter().enumerate() {
            if (at + 1).is_multiple_of(LOGS_PER_TURN) {
                self.shared.core.yield_now().await;
            }
            // A log that cannot roll has failed, and said so, or is full: what is sealed may be compacted all the same.
            drop(log.roll_overdue().await);
            if failures.is_waiting(log.id(), self.shared.core.now()) {
                continue;
            }
            let plan = log.compaction_plan().filter(|plan| plan.is_due(&log.config().compaction));
            due.extend(plan.map(|plan| (plan.ratio(), log)));
        }
        due.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        due.into_iter().map(|(_, log)| log).collect()
    }

    /// A start finds its way by the checkpoint of the active segment. Were that segment rewritten, the start would have to
    /// read the whole log: so it is made to know a later one first.
    async fn compact_log(&self, log: &Log) -> Result<(), CompactionError> {
        let Some(plan) = log.compaction_plan() else { return Ok(()) };
        let known = self.shared.checkpointed.borrow().get(&log.id()).copied();
        if known.is_none_or(|segment| segment < plan.dirty.end) {
            self.checkpoint().await?;
        }
        log.compact().await.map(drop)
    }
}

impl Failures {
    fn is_waiting(&self, log: PartitionId, now: Instant) -> bool {
        self.0.get(&log).is_some_and(|failure| now < failure.retry_at)
    }

    fn note(&mut self, log: &Log, done: Result<(), CompactionError>, every: Duration, now: Instant) {
        let dir = log.dir().display();
        match done {
            Ok(()) => {
                if self.0.remove(&log.id()).is_some() {
                    rt::say!("corelog: compaction of {dir} works again");
                }
            }
            // What ends a compaction in order is no failure: the next one begins anew.
            Err(CompactionError::Interrupted(_)) => {}
            Err(why) => {
                let first = Failure { pause: every, retry_at: now, told: Vec::new() };
                let failure = self.0.entry(log.id()).or_insert(first);
                failure.pause = (failure.pause * 2).min(RETRY_PAUSE_MAX.max(every));
                failure.retry_at = now + failure.pause;
                if !failure.told.contains(&discriminant(&why)) {
                    failure.told.push(discriminant(&why));
                    rt::say!("corelog: compaction of {dir} failed, and is tried again in a while: {why}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Codec;
    use crate::batch::build::BatchBuilder;
    use crate::folder::Folder;
    use crate::ids::{LeaderEpoch, TopicId};
    use crate::log::{AppendKind, Counters, Faults, Limits, LogConfig};
    use crate::store::OpenPartition;
    use rt::sim::{Sim, SimConfig, SimDisk};
    use rt::{Class, Core, Slice};
    use std::path::Path;
    use std::sync::Arc;

    const EVERY: Duration = Duration::from_secs(15);

    async fn filled(core: &Core) -> (Store, Log) {
        let (folder, _lock) = Folder::open(core, Path::new("/data"), 1).await.expect("opens");
        let store = Store::with_faults(core, Arc::new(folder), Limits::default(), Faults::default());
        let config =
            LogConfig { segment_bytes: 200_000, compacted: true, deletes: false, ..LogConfig::default() };
        let partition = OpenPartition {
            id: PartitionId { topic: TopicId([7; 16]), index: 0 },
            topic_name: "changelog".into(),
            config,
            epoch: LeaderEpoch(1),
        };
        let log = store.open_log(partition).await.expect("opens");
        append(&log).await;
        (store, log)
    }

    /// Some segments, each full of one key.
    async fn append(log: &Log) {
        for _ in 0..20 {
            let mut builder = BatchBuilder::new(Codec::None);
            builder.append(1000, Some(b"key"), Some(&[7; 50_000]), &[]);
            let appended =
                log.append(Slice::from(builder.finish()), AppendKind::Client).await.expect("appends");
            log.committed(appended.last_offset).await.expect("is durable");
        }
    }

    #[test]
    fn what_fails_is_tried_again_later_and_later_and_what_works_again_as_before() {
        let disk = SimDisk::new();
        let sim = Sim::with_disk(1, SimConfig::default(), disk.clone());
        let ran = sim.run(move |core| {
            let disk = disk.clone();
            async move {
                let (store, log) = filled(&core).await;
                let compacting = store.clone();
                core.spawn(Class::Background, async move { compacting.compact_when_due(EVERY).await })
                    .detach();
                // Until the last segment but one is sealed, in virtual time.
                core.sleep(Duration::from_secs(1)).await;
                // Enough for a checkpoint, not for a segment.
                disk.set_free_bytes(64 << 10);
                let failed = |counters: Counters| counters.compactions_failed;
                let mut tried = Vec::new();
                for _ in 0..24 {
                    core.sleep(Duration::from_secs(600)).await;
                    tried.push(failed(log.counters()));
                }
                let at_most_every = RETRY_PAUSE_MAX.as_secs() / 600 + 1;
                assert!((4..=8).contains(&tried[0]), "{tried:?}");
                let later: Vec<u64> = tried.windows(2).map(|pair| pair[1] - pair[0]).collect();
                assert!(later[2..].iter().all(|count| *count <= 1), "{tried:?}");
                assert!(tried[23] > tried[0] + 24 / at_most_every - 2, "it is not given up: {tried:?}");

                disk.set_free_bytes(1 << 40);
                core.sleep(RETRY_PAUSE_MAX + EVERY).await;
                let counters = log.counters();
                assert_eq!(counters.compactions, 1);
                append(&log).await;
                core.sleep(EVERY + Duration::from_secs(1)).await;
                assert_eq!(log.counters().compactions, 2, "one that worked is not put off");
            }
        });
        ran.expect("the test runs to its end");
    }
}

//! Which log of a core is compacted next: one at a time, the dirtiest that is due first.

use super::{Store, Troubles};
use crate::ids::PartitionId;
use crate::log::{CompactionError, Log};
use std::collections::BTreeSet;
use std::time::Duration;

impl Store {
    /// Compacts what is due, every so often, until the store is closed. Spawn it once, where it may wait for all else.
    pub async fn compact_when_due(&self, every: Duration) {
        let mut troubles = Troubles::default();
        loop {
            self.shared.core.sleep(every).await;
            if self.shared.closed.get() {
                return;
            }
            for (log, done) in self.compact_due().await {
                // What ends a compaction in order is no trouble: the next one begins anew.
                let trouble = done.err().filter(|error| !matches!(error, CompactionError::Interrupted(_)));
                let trouble = trouble.map(|error| error.to_string());
                troubles.note(format!("compaction of {}", log.dir().display()), trouble.as_ref());
            }
        }
    }

    /// Compacts every log that is due once, and says how that went.
    pub async fn compact_due(&self) -> Vec<(Log, Result<(), CompactionError>)> {
        let mut done = Vec::new();
        for log in self.all() {
            if let Err(error) = log.roll_overdue().await {
                done.push((log, Err(error.into())));
            }
        }
        let mut tried = BTreeSet::new();
        while !self.shared.closed.get()
            && let Some(log) = self.dirtiest(&tried)
        {
            tried.insert(log.id());
            let compacted = self.compact_log(&log).await;
            done.push((log, compacted));
        }
        done
    }

    fn dirtiest(&self, tried: &BTreeSet<PartitionId>) -> Option<Log> {
        let due = self.all().into_iter().filter(|log| !tried.contains(&log.id())).filter_map(|log| {
            let plan = log.compaction_plan()?;
            plan.is_due(&log.config().compaction).then(|| (plan.ratio(), log))
        });
        due.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, log)| log)
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

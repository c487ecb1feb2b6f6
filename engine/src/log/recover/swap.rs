//! A swap of segments that a crash interrupted (names.rs): what was written beside them takes its place, once more.
//!
//! The new segment and its index were on stable media, under names that were, before the swap was durably intended. So
//! a name that is missing here was renamed already, and whatever order the device kept of renames and unlinks, doing all
//! of it again gives the same. Nothing is unlinked before the new segment was seen to hold the offsets of the old ones.

use super::{Found, OpenError, Recovery};
use crate::index::SealedIndex;
use crate::names::{self, PartitionFile, Swap};
use rt::Open;
use std::io;

impl Recovery<'_> {
    /// Finishes what was intended and drops what was not. Gives the segments that there are then.
    pub(super) async fn finish_swap(
        &self,
        partition: &mut PartitionFile,
        found: Vec<Found>,
    ) -> Result<Vec<Found>, OpenError> {
        let Some(swap) = partition.current.compaction.swap else {
            self.drop_cleaned().await?;
            return Ok(found);
        };
        self.rename(names::cleaned(swap.base), names::segment(swap.base)).await?;
        self.rename(names::cleaned_index(swap.base), names::index(swap.base)).await?;
        self.check_swapped(swap).await?;
        let inside: Vec<Found> =
            found.into_iter().filter(|found| found.base > swap.base && found.base < swap.end).collect();
        self.drop_segments(&inside).await?;
        if inside.is_empty() && !self.faults().skip_dir_sync {
            let synced = self.core.sync_dir(self.how.dir.clone()).await;
            synced.map_err(|error| OpenError::Io { path: self.how.dir.clone(), error })?;
        }
        let stored = partition.store(self.core, |partition| partition.compaction.swap = None).await;
        stored.map_err(|error| OpenError::Io { path: self.how.dir.join(names::PARTITION_FILE), error })?;
        self.segments().await
    }

    /// What a compaction had not finished writing.
    async fn drop_cleaned(&self) -> Result<(), OpenError> {
        let listed = self.core.list_dir(self.how.dir.clone()).await;
        let listed = listed.map_err(|error| OpenError::Io { path: self.how.dir.clone(), error })?;
        for name in listed.iter().filter_map(|entry| entry.name.to_str()) {
            if names::is_cleaned(name) {
                self.unlink(name.to_owned()).await?;
            }
        }
        Ok(())
    }

    async fn rename(&self, from: String, to: String) -> Result<(), OpenError> {
        let path = self.how.dir.join(from);
        match self.core.rename(path.clone(), self.how.dir.join(to)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(OpenError::Io { path, error }),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The segment that took the place of others must hold what they held.
    async fn check_swapped(&self, swap: Swap) -> Result<(), OpenError> {
        let path = self.how.dir.join(names::segment(swap.base));
        let damaged = |why: String| OpenError::Damaged { path: path.clone(), position: 0, why };
        let failed = |error| OpenError::Io { path: path.clone(), error };
        let file = self.core.open(path.clone(), Open::read()).await.map_err(failed)?;
        let length = file.len().await.map_err(failed)?;
        let index_path = self.how.dir.join(names::index(swap.base));
        let index = async {
            let file = self.core.open(index_path, Open::read()).await?;
            let bytes = usize::try_from(file.len().await?).map_err(|_| io::ErrorKind::FileTooLarge)?;
            names::read_all(&file, bytes).await
        };
        let index = match index.await {
            Ok(content) => SealedIndex::decode(&content).map_err(|damage| damage.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let index = index.map_err(|why| damaged(format!("the index of a compacted segment: {why}")))?;
        let is_it = index.base() == swap.base && index.end() == swap.end && index.segment_bytes() <= length;
        if is_it {
            return Ok(());
        }
        Err(damaged(format!(
            "it took the place of offsets {} to {}, but holds {} to {} in {length} bytes",
            swap.base,
            swap.end,
            index.base(),
            index.end()
        )))
    }
}

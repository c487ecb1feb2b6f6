//! Loading: from the log's start to its end in bounded steps, between which the core's other tasks run.

use std::rc::Rc;

use coord::group::{Damaged, Input};
use engine::batch::walk::{Records, decompress_records};
use engine::batch::{self, Batch, Codec};

use super::host::Host;

/// Read, checked and copied at a time.
const READ_BYTES_MAX: usize = 64 << 10;
/// Records between two yields, and their bytes, of which the last record may be the larger part: well below a millisecond.
const RECORDS_PER_TURN: usize = 64;
const BYTES_PER_TURN: usize = 32 << 10;
/// What a compressed batch may unpack to. We write none, but the topic's config may have asked for it.
const UNPACKED_BYTES_MAX: usize = 64 << 20;

/// Replays the log; not to its end where the host ends before.
///
/// # Errors
/// The log cannot be read, or holds what is no record of groups: the partition must not be served as if it were empty.
pub async fn load(host: &Rc<Host>) -> Result<(), String> {
    let (mut from, end) = (host.log.log_start_offset(), host.log.log_end_offset());
    let (mut turn, mut bytes) = (Turn::default(), Vec::new());
    while from < end {
        let read = host.log.read(from, READ_BYTES_MAX, true, end).await;
        if host.is_over() {
            return Ok(());
        }
        let read = read.map_err(|why| format!("the log cannot be read at offset {}: {why:?}", from.0))?;
        if read.next <= from {
            // Batches follow each other without a gap up to the end, compacted or not.
            return Err(format!("the log has nothing at offset {}, and ends at {}", from.0, end.0));
        }
        // A batch may lie across two slices.
        bytes.clear();
        read.slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
        let next = read.next;
        drop(read);
        for batch in batch::batches(&bytes) {
            let batch = batch.map_err(|why| format!("no batch at offset {}: {why:?}", from.0))?;
            if batch.is_control() {
                continue;
            }
            let unpacked = unpack(host, &batch).await?;
            if host.is_over() {
                return Ok(());
            }
            let records = unpacked.as_deref().unwrap_or(batch.records_bytes());
            for record in Records::new(&batch, records) {
                let record = record.map_err(|why| format!("a record behind {}: {why:?}", from.0))?;
                let key = record.key.unwrap_or_default();
                let loaded = host.load(Input::Load { key, value: record.value });
                loaded.map_err(|Damaged(why)| format!("the record at offset {}: {why}", record.offset.0))?;
                if turn.is_over_with(key.len() + record.value.map_or(0, <[u8]>::len)) {
                    host.core().yield_now().await;
                    if host.is_over() {
                        return Ok(());
                    }
                }
            }
        }
        from = next;
        // What was read may have been in memory, and without a record of interest.
        host.core().yield_now().await;
    }
    host.step(Input::Loaded);
    Ok(())
}

/// The records of a compressed batch, unpacked on a helper thread; None for a plain one.
async fn unpack(host: &Rc<Host>, batch: &Batch<'_>) -> Result<Option<Vec<u8>>, String> {
    if batch.compression() == Some(Codec::None) {
        return Ok(None);
    }
    let bytes = batch.bytes().to_vec();
    let unpacked = host.core().offload(move || match Batch::parse(&bytes) {
        Ok((batch, _)) => decompress_records(&batch, UNPACKED_BYTES_MAX).map_err(|why| format!("{why:?}")),
        Err(why) => Err(format!("{why:?}")),
    });
    let unpacked = unpacked.await.map_err(|panicked| panicked.to_string())?;
    let base = batch.base_offset().0;
    unpacked.map(Some).map_err(|why| format!("the batch at offset {base} cannot be unpacked: {why}"))
}

/// What was done since the core was last let go.
#[derive(Default)]
struct Turn {
    records: usize,
    bytes: usize,
}

impl Turn {
    /// Counts a record of so many bytes; whether others are to run now.
    fn is_over_with(&mut self, bytes: usize) -> bool {
        self.records += 1;
        self.bytes += bytes;
        let is_over = self.records == RECORDS_PER_TURN || self.bytes >= BYTES_PER_TURN;
        if is_over {
            *self = Turn::default();
        }
        is_over
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::future::{Future, poll_fn};
    use std::pin::pin;

    use engine::ids::PartitionId;
    use rt::Core;
    use rt::sim::SimDisk;

    use super::*;
    use crate::groups::locate;
    use crate::groups::tests::{GROUP, begin, commit_for};
    use crate::shard::Shard;
    use crate::shard::tests::live;

    /// A broker where offsets were committed for many groups; the partition that is looked at.
    pub(in crate::groups) async fn committed(
        core: &Core,
        groups: usize,
        metadata: &str,
    ) -> (Rc<Shard>, PartitionId) {
        let shard = begin(core, &["groups.offset.metadata.max.bytes=100000"]).await;
        for number in 0..groups {
            let codes = commit_for(&shard, &format!("{GROUP}-{number}"), ("", -1), 1, metadata).await;
            assert_eq!((codes[1], codes[3]), (0, 0));
        }
        let (partition, _) = locate(&shard, GROUP).expect("the topic is there");
        (shard, partition)
    }

    /// A further host of the partition, which has loaded nothing yet.
    pub(in crate::groups) fn another(shard: &Shard, partition: PartitionId) -> Rc<Host> {
        let hosted = shard.hosted(partition).expect("it is hosted");
        let log = shard.groups.hosts.borrow()[&partition].log.clone();
        Host::new(shard, &hosted, &log)
    }

    /// Loads, and looks at the host after every poll.
    pub(in crate::groups) async fn load_and(
        host: &Rc<Host>,
        mut after_poll: impl FnMut(),
    ) -> Result<(), String> {
        let mut loading = pin!(load(host));
        poll_fn(|context| {
            let polled = loading.as_mut().poll(context);
            after_poll();
            polled
        })
        .await
    }

    /// How many offsets are loaded at most in one poll.
    fn check(groups: usize, metadata: &'static str, expect: usize) {
        live(&SimDisk::new(), move |core, _| async move {
            let (shard, partition) = committed(&core, groups, metadata).await;
            let host = another(&shard, partition);
            let (mut most, mut before) = (0, 0);
            let done = load_and(&host, || {
                let now = host.counts().offsets;
                most = most.max(now - before);
                before = now;
            });
            assert_eq!(done.await, Ok(()));
            assert_eq!(host.counts().offsets, shard.groups.hosts.borrow()[&partition].counts().offsets);
            assert!(host.counts().offsets > 3 * expect as u64, "{}", host.counts().offsets);
            assert_eq!(most, expect as u64);
        });
    }

    #[test]
    fn between_two_yields_a_bounded_number_of_records_is_loaded() {
        check(400, "", RECORDS_PER_TURN);
    }

    #[test]
    fn a_record_of_a_turns_bytes_is_a_turn() {
        // The longest that a request can say, with what else the record holds.
        check(20, "x".repeat(BYTES_PER_TURN - 1).leak(), 1);
    }

    #[test]
    fn a_host_that_ends_at_any_moment_of_loading_loads_no_further() {
        live(&SimDisk::new(), |core, _| async move {
            let (shard, partition) = committed(&core, 200, "").await;
            for end_after in 1.. {
                let host = another(&shard, partition);
                let mut polls = 0;
                let done = load_and(&host, || {
                    polls += 1;
                    if polls == end_after {
                        host.end();
                    }
                });
                assert_eq!(done.await, Ok(()));
                if polls < end_after {
                    assert!(end_after > 3, "loading takes some polls");
                    break;
                }
            }
        });
    }
}

//! Which leader epoch wrote which offsets of a log.
//!
//! An entry says that an epoch begins at an offset; both rise strictly from entry to entry. A new leader records its
//! epoch at the log's end before it serves anything, even without data, or its answers to OffsetForLeaderEpoch lie. Two
//! epochs never begin at one offset: the older of them wrote nothing and is forgotten.
//!
//! Encoded as a frame (see `docs/internals/disk-format.md`), magic `CLEP`, version 1:
//!
//! ```text
//!  | count u32 | count times: epoch i32 | start offset i64 |
//! ```

use crate::fields::{Damage, Fields, open, put_count, seal};
use crate::ids::{LeaderEpoch, Offset};

const MAGIC: [u8; 4] = *b"CLEP";
const VERSION: u16 = 1;
const ENTRY_BYTES: usize = 12;

/// An epoch and the first offset it wrote, or would write next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochStart {
    pub epoch: LeaderEpoch,
    pub start: Offset,
}

/// The epochs of one log, oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EpochCache {
    entries: Vec<EpochStart>,
}

impl EpochCache {
    pub fn new() -> EpochCache {
        EpochCache::default()
    }

    pub fn entries(&self) -> &[EpochStart] {
        &self.entries
    }

    /// The newest epoch and where it begins.
    pub fn latest(&self) -> Option<(LeaderEpoch, Offset)> {
        self.entries.last().map(|entry| (entry.epoch, entry.start))
    }

    /// Records that `epoch` begins at `start`. Entries that it contradicts (a later or equal epoch, or one that begins at
    /// or after `start`) go. Says whether anything changed: the epoch that is the latest already keeps its start.
    pub fn assign(&mut self, epoch: LeaderEpoch, start: Offset) -> bool {
        if epoch.0 < 0 || start.0 < 0 {
            return false;
        }
        if self.latest().is_some_and(|(latest, begins)| latest == epoch && begins <= start) {
            return false;
        }
        let kept = self.entries.partition_point(|entry| entry.epoch < epoch && entry.start < start);
        self.entries.truncate(kept);
        self.entries.push(EpochStart { epoch, start });
        true
    }

    /// The answer to OffsetForLeaderEpoch: the largest epoch that is not later than `epoch`, and where it ends. `None`
    /// where the epoch is unknown (-1/-1 on the wire).
    pub fn end_offset_for(&self, epoch: LeaderEpoch, log_end: Offset) -> Option<(LeaderEpoch, Offset)> {
        let (latest, _) = self.latest()?;
        if epoch == LeaderEpoch::UNKNOWN || epoch > latest {
            return None;
        }
        if epoch == latest {
            return Some((epoch, log_end));
        }
        let later = self.entries.partition_point(|entry| entry.epoch <= epoch);
        let end = self.entries.get(later)?.start;
        match later.checked_sub(1).and_then(|index| self.entries.get(index)) {
            Some(floor) => Some((floor.epoch, end)),
            // Below the oldest known epoch: everything that is left came later.
            None => Some((epoch, end)),
        }
    }

    /// The epoch that wrote `offset`, or would write it next.
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.entries.partition_point(|entry| entry.start <= offset);
        after.checked_sub(1).and_then(|index| self.entries.get(index)).map(|entry| entry.epoch)
    }

    /// The log now ends at `end`: epochs that begin there or later go. A leader assigns its own again.
    pub fn truncate_end(&mut self, end: Offset) {
        self.entries.retain(|entry| entry.start < end);
    }

    /// The log now begins at `log_start`: the entry that covers it begins there, earlier ones go.
    pub fn truncate_start(&mut self, log_start: Offset) {
        let after = self.entries.partition_point(|entry| entry.start <= log_start);
        let Some(covering) = after.checked_sub(1) else { return };
        self.entries.drain(..covering);
        if let Some(first) = self.entries.first_mut() {
            first.start = log_start;
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(4 + self.entries.len() * ENTRY_BYTES);
        put_count(&mut body, self.entries.len());
        for entry in &self.entries {
            body.extend_from_slice(&entry.epoch.0.to_le_bytes());
            body.extend_from_slice(&entry.start.0.to_le_bytes());
        }
        seal(MAGIC, VERSION, &body)
    }

    pub fn decode(bytes: &[u8]) -> Result<EpochCache, Damage> {
        let (body, after) = open(MAGIC, VERSION, bytes)?;
        if !after.is_empty() {
            return Err(Damage::Content("bytes follow the epochs"));
        }
        let mut fields = Fields::new(body);
        let count = fields.count(ENTRY_BYTES)?;
        let mut cache = EpochCache { entries: Vec::with_capacity(count) };
        for _ in 0..count {
            let entry = EpochStart { epoch: LeaderEpoch(fields.i32()?), start: Offset(fields.i64()?) };
            let rises = match cache.latest() {
                Some((epoch, start)) => entry.epoch > epoch && entry.start > start,
                None => entry.epoch.0 >= 0 && entry.start.0 >= 0,
            };
            if !rises {
                return Err(Damage::Content("the epochs do not rise"));
            }
            cache.entries.push(entry);
        }
        fields.finish()?;
        Ok(cache)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(entries: &[(i32, i64)]) -> EpochCache {
        let mut cache = EpochCache::new();
        for (epoch, start) in entries {
            assert!(cache.assign(LeaderEpoch(*epoch), Offset(*start)));
        }
        cache
    }

    fn shape(cache: &EpochCache) -> Vec<(i32, i64)> {
        cache.entries().iter().map(|entry| (entry.epoch.0, entry.start.0)).collect()
    }

    #[test]
    fn a_new_entry_evicts_what_it_contradicts() {
        let check = |epoch, start, expect: &[(i32, i64)]| {
            let mut cache = cache(&[(1, 0), (3, 10), (5, 20)]);
            let changed = cache.assign(LeaderEpoch(epoch), Offset(start));
            assert_eq!((shape(&cache).as_slice(), changed), (expect, expect != [(1, 0), (3, 10), (5, 20)]));
        };
        check(6, 30, &[(1, 0), (3, 10), (5, 20), (6, 30)]);
        check(6, 20, &[(1, 0), (3, 10), (6, 20)]);
        check(6, 5, &[(1, 0), (6, 5)]);
        check(4, 30, &[(1, 0), (3, 10), (4, 30)]);
        check(5, 25, &[(1, 0), (3, 10), (5, 20)]);
        check(5, 15, &[(1, 0), (3, 10), (5, 15)]);
        check(0, 0, &[(0, 0)]);
        check(-1, 50, &[(1, 0), (3, 10), (5, 20)]);
        check(7, -1, &[(1, 0), (3, 10), (5, 20)]);
    }

    #[test]
    fn end_offsets_are_kafkas() {
        let check = |epoch, expect: Option<(i32, i64)>| {
            let found = cache(&[(1, 2), (3, 10), (5, 20)]).end_offset_for(LeaderEpoch(epoch), Offset(33));
            assert_eq!(found, expect.map(|(epoch, end)| (LeaderEpoch(epoch), Offset(end))), "epoch {epoch}");
        };
        check(-1, None);
        check(-2, Some((-2, 2)));
        check(0, Some((0, 2)));
        check(1, Some((1, 10)));
        check(2, Some((1, 10)));
        check(4, Some((3, 20)));
        check(5, Some((5, 33)));
        check(6, None);
        assert_eq!(EpochCache::new().end_offset_for(LeaderEpoch(0), Offset(0)), None);
    }

    #[test]
    fn offsets_find_their_epoch_and_both_ends_are_cut() {
        let mut cache = cache(&[(1, 2), (3, 10), (5, 20)]);
        let epochs: Vec<_> =
            [1, 2, 9, 10, 99].map(|at| cache.epoch_at(Offset(at)).map(|epoch| epoch.0)).into();
        assert_eq!(epochs, [None, Some(1), Some(1), Some(3), Some(5)]);
        cache.truncate_end(Offset(20));
        assert_eq!(shape(&cache), [(1, 2), (3, 10)]);
        cache.truncate_start(Offset(1));
        assert_eq!(shape(&cache), [(1, 2), (3, 10)]);
        cache.truncate_start(Offset(15));
        assert_eq!(shape(&cache), [(3, 15)]);
        cache.truncate_end(Offset(15));
        assert_eq!(shape(&cache), []);
    }

    #[test]
    fn the_format_is_fixed_and_refuses_what_does_not_rise() {
        let whole = cache(&[(1, 2), (3, 10)]);
        let bytes = whole.encode();
        let golden = "434c4550010000001c000000";
        assert_eq!(bytes[..12].iter().map(|byte| format!("{byte:02x}")).collect::<String>(), golden);
        assert_eq!(EpochCache::decode(&bytes), Ok(whole));
        for entries in [[(3, 10), (3, 11)], [(3, 10), (4, 10)], [(-1, 0), (0, 1)]] {
            let entries =
                entries.map(|(epoch, start)| EpochStart { epoch: LeaderEpoch(epoch), start: Offset(start) });
            let lying = EpochCache { entries: entries.into() };
            assert_eq!(EpochCache::decode(&lying.encode()), Err(Damage::Content("the epochs do not rise")));
        }
    }
}

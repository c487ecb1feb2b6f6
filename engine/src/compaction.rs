//! What a compaction takes on: which part of a log is dirty, whether it is time, and which segments become one. Pure.
//!
//! Kafka's rules. A log is clean up to where its last compaction got (or its start), dirty from there to the first
//! segment that may not be touched: the active one, one that is not sealed yet, one that holds a record younger than
//! `min.compaction.lag.ms`, or one that may not be gone when the process dies (see the log's `compact`). It is due when
//! more than `min.cleanable.dirty.ratio` of it is dirty, or its oldest dirty record is older than
//! `max.compaction.lag.ms`. All segments up to the end of what was learned are written anew, because an older record of
//! a dirty key may lie in any of them; neighbours that fit into `segment.bytes` together become one.
//!
//! `keys` is the memory of a run, `clean` what it does to batches; the log's own `compact` reads, writes and swaps.

pub mod clean;
pub mod keys;

use crate::ids::Offset;
use std::ops::Range;

/// What is known of one segment, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    pub base: Offset,
    pub end: Offset,
    pub bytes: u64,
    /// The first batch's largest time, -1 if it has none.
    pub first_timestamp: i64,
    /// The largest record time; when the file was made if no record has one.
    pub max_timestamp: i64,
    pub is_sealed: bool,
}

/// What the topic says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    pub min_dirty_ratio: f64,
    pub min_lag_ms: i64,
    pub max_lag_ms: i64,
}

/// What a compaction would have to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Where the dirty part begins, perhaps inside a segment, and where it ends, between two.
    pub dirty: Range<Offset>,
    pub clean_bytes: u64,
    pub dirty_bytes: u64,
    /// Its oldest dirty record is older than the topic allows.
    pub is_overdue: bool,
}

impl Plan {
    /// How much of it is dirty.
    pub fn ratio(&self) -> f64 {
        self.dirty_bytes as f64 / (self.clean_bytes + self.dirty_bytes).max(1) as f64
    }

    pub fn is_due(&self, policy: &Policy) -> bool {
        self.is_overdue || self.ratio() > policy.min_dirty_ratio
    }
}

/// What there is to do below `reach`, if there is anything. The last segment is the active one.
pub fn plan(
    segments: &[Facts],
    clean_to: Offset,
    log_start: Offset,
    reach: Offset,
    policy: &Policy,
    now_ms: i64,
) -> Option<Plan> {
    let (_active, closed) = segments.split_last()?;
    let start = clean_to.max(log_start);
    let first_dirty = closed.partition_point(|segment| segment.end <= start);
    let (clean, maybe) = closed.split_at(first_dirty);
    let is_young = |segment: &Facts| {
        policy.min_lag_ms > 0 && segment.max_timestamp > now_ms.saturating_sub(policy.min_lag_ms)
    };
    let untouchable = |segment: &Facts| !segment.is_sealed || segment.end > reach || is_young(segment);
    let dirty = &maybe[..maybe.iter().position(untouchable).unwrap_or(maybe.len())];
    // An older record may lie in any segment before, so all of them must be sealed too.
    if clean.iter().any(|segment| !segment.is_sealed) {
        return None;
    }
    let end = dirty.last()?.end;
    let oldest = dirty.iter().map(|segment| segment.first_timestamp).filter(|time| *time >= 0).min();
    let bytes = |segments: &[Facts]| segments.iter().map(|segment| segment.bytes).sum();
    Some(Plan {
        dirty: start..end,
        clean_bytes: bytes(clean),
        dirty_bytes: bytes(dirty),
        is_overdue: oldest.is_some_and(|oldest| now_ms.saturating_sub(oldest) > policy.max_lag_ms),
    })
}

/// The segments that begin below `end`, as runs of neighbours that become one segment each.
pub fn groups(segments: &[Facts], end: Offset, segment_bytes: u64) -> Vec<Range<usize>> {
    let count = segments.partition_point(|segment| segment.base < end);
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0_u64;
    for (at, segment) in segments[..count].iter().enumerate() {
        bytes = bytes.saturating_add(segment.bytes);
        if let Some(group) = groups.last_mut() {
            let offsets = segment.end.distance_from(segments[group.start].base);
            if bytes <= segment_bytes && i32::try_from(offsets).is_ok() {
                group.end = at + 1;
                continue;
            }
        }
        groups.push(at..at + 1);
        bytes = segment.bytes;
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy { min_dirty_ratio: 0.5, min_lag_ms: 0, max_lag_ms: i64::MAX };

    /// Segments of ten offsets and 100 bytes, one a second; the last is active.
    fn segments(count: i64) -> Vec<Facts> {
        let segment = |index| Facts {
            base: Offset(index * 10),
            end: Offset(index * 10 + 10),
            bytes: 100,
            first_timestamp: index * 1000,
            max_timestamp: index * 1000 + 500,
            is_sealed: index + 1 < count,
        };
        (0..count).map(segment).collect()
    }

    #[test]
    fn the_dirty_part_is_what_lies_between_the_clean_one_and_what_must_stay() {
        let lag = |min_lag_ms, max_lag_ms| Policy { min_lag_ms, max_lag_ms, ..POLICY };
        let never = i64::MAX;
        let cases = [
            // clean to, log start, reach, policy, now; dirty range, dirty bytes, clean bytes, due
            (0, 0, 1000, POLICY, 9000, Some((0..40, 400, 0, true))),
            (20, 0, 1000, POLICY, 9000, Some((20..40, 200, 200, false))),
            (15, 0, 1000, POLICY, 9000, Some((15..40, 300, 100, true))),
            (5, 25, 1000, POLICY, 9000, Some((25..40, 200, 200, false))),
            (40, 0, 1000, POLICY, 9000, None),
            (0, 0, 39, POLICY, 9000, Some((0..30, 300, 0, true))),
            (0, 0, 9, POLICY, 9000, None),
            (0, 0, 1000, lag(1000, never), 3000, Some((0..20, 200, 0, true))),
            (0, 0, 1000, lag(9000, never), 3000, None),
            (20, 0, 1000, lag(0, 999), 3000, Some((20..40, 200, 200, true))),
            (20, 0, 1000, lag(0, 1000), 3000, Some((20..40, 200, 200, false))),
        ];
        for (clean_to, log_start, reach, policy, now, expect) in cases {
            let all = segments(5);
            let found = plan(&all, Offset(clean_to), Offset(log_start), Offset(reach), &policy, now);
            let found = found.map(|plan| {
                let range = plan.dirty.start.0..plan.dirty.end.0;
                (range, plan.dirty_bytes, plan.clean_bytes, plan.is_due(&policy))
            });
            assert_eq!(found, expect, "{clean_to} {log_start} {reach} {policy:?} {now}");
        }
        let mut unsealed = segments(5);
        unsealed[2].is_sealed = false;
        let plan_at = |clean_to| plan(&unsealed, Offset(clean_to), Offset(0), Offset(99), &POLICY, 0);
        assert_eq!(plan_at(0).map(|plan| plan.dirty), Some(Offset(0)..Offset(20)));
        assert_eq!(plan_at(30), None);
        assert_eq!(plan(&[], Offset(0), Offset(0), Offset(0), &POLICY, 0), None);
    }

    #[test]
    fn neighbours_that_fit_together_become_one() {
        let cases = [
            // end, segment bytes; where each group ends
            (40, 1000, vec![4]),
            (40, 200, vec![2, 4]),
            (35, 300, vec![3, 4]),
            (40, 50, vec![1, 2, 3, 4]),
            (11, 1000, vec![2]),
        ];
        for (end, segment_bytes, expect) in cases {
            let groups = groups(&segments(5), Offset(end), segment_bytes);
            assert_eq!(groups.first().map(|first| first.start), Some(0));
            assert!(groups.windows(2).all(|pair| pair[0].end == pair[1].start));
            let ends: Vec<usize> = groups.iter().map(|group| group.end).collect();
            assert_eq!(ends, expect, "{end} {segment_bytes}");
        }
        let mut wide = segments(3);
        wide[1].end = Offset(i64::from(i32::MAX) + 1);
        wide[2].base = wide[1].end;
        assert_eq!(groups(&wide, wide[1].end, 1000), [0..1, 1..2]);
    }
}

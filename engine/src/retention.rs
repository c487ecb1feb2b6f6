//! Which segments may go, by time and size. Pure: the log does the unlinking, log start first.
//!
//! Kafka's order: oldest first, stop at the first segment that is kept, and never past the high watermark. The active
//! segment goes too once it expired; its log is rolled first, so it is reported like any other.

use crate::ids::Offset;

/// What retention knows of one segment, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aged {
    pub base_offset: Offset,
    pub end_offset: Offset,
    pub bytes: u64,
    /// The largest record time; what the file was created at if no record has a time.
    pub max_timestamp: i64,
}

/// The limits in force; negative means unlimited, as in Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub retention_ms: i64,
    pub retention_bytes: i64,
    /// False for `cleanup.policy=compact`: then only what lies below the log start goes.
    pub deletes: bool,
}

/// How many of the oldest segments may go.
pub fn expired(
    segments: &[Aged],
    limits: Limits,
    log_start: Offset,
    high_watermark: Offset,
    now_ms: i64,
) -> usize {
    let total: u64 = segments.iter().map(|segment| segment.bytes).sum();
    let mut excess = match u64::try_from(limits.retention_bytes) {
        Ok(limit) => total.saturating_sub(limit),
        Err(_) => 0,
    };
    let mut count = 0;
    for segment in segments {
        if segment.end_offset > high_watermark || segment.end_offset == segment.base_offset {
            break;
        }
        let below_start = segment.end_offset <= log_start;
        let too_much = limits.deletes && segment.bytes > 0 && excess >= segment.bytes;
        let age_ms = now_ms.saturating_sub(segment.max_timestamp);
        let too_old = limits.deletes && limits.retention_ms >= 0 && age_ms > limits.retention_ms;
        if !below_start && !too_much && !too_old {
            break;
        }
        excess = excess.saturating_sub(segment.bytes);
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments() -> Vec<Aged> {
        (0..4)
            .map(|index| Aged {
                base_offset: Offset(index * 10),
                end_offset: Offset(index * 10 + 10),
                bytes: 100,
                max_timestamp: index * 1000,
            })
            .collect()
    }

    #[test]
    fn oldest_first_and_never_past_the_high_watermark() {
        let keep = Limits { retention_ms: -1, retention_bytes: -1, deletes: true };
        let cases = [
            // limits, log start, high watermark, now, gone
            (keep, 0, 40, 1_000_000, 0),
            (keep, 20, 40, 0, 2),
            (Limits { retention_ms: 1500, ..keep }, 0, 40, 3000, 2),
            (Limits { retention_ms: 1500, ..keep }, 0, 15, 3000, 1),
            (Limits { retention_ms: 0, ..keep }, 0, 40, 1_000_000, 4),
            (Limits { retention_bytes: 250, ..keep }, 0, 40, 0, 1),
            (Limits { retention_bytes: 200, ..keep }, 0, 40, 0, 2),
            (Limits { retention_bytes: 0, deletes: false, ..keep }, 0, 40, 0, 0),
            (Limits { retention_bytes: 0, deletes: false, ..keep }, 10, 40, 0, 1),
        ];
        for (limits, start, watermark, now, expected) in cases {
            let gone = expired(&segments(), limits, Offset(start), Offset(watermark), now);
            assert_eq!(gone, expected, "{limits:?} start {start} hw {watermark} now {now}");
        }
    }

    #[test]
    fn an_empty_active_segment_stays() {
        let empty = Aged { base_offset: Offset(40), end_offset: Offset(40), bytes: 0, max_timestamp: 0 };
        let limits = Limits { retention_ms: 0, retention_bytes: -1, deletes: true };
        let mut all = segments();
        all.push(empty);
        assert_eq!(expired(&all, limits, Offset(0), Offset(40), 1_000_000), 4);
    }
}

//! Durations of one kind of event on one core: an HDR histogram in nanoseconds, and their exact sum.
//!
//! Recording is a table look-up and an addition. Two significant digits bound the table to some 30 KiB. What is told of
//! it are counts below fixed limits, ten to a factor of ten, because those add up over cores, brokers and time; a value
//! is told as above a limit when its place in the table reaches past it, so a count may be low by what lies within one
//! percent of its limit.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Shorter ones count as this.
const LOWEST_NS: u64 = 64;
/// Longer ones count as this.
const HIGHEST_NS: u64 = 60_000_000_000;
const SIGNIFICANT_DIGITS: u8 = 2;

/// The Renard series R10, in hundredths.
const SERIES: [u64; 10] = [100, 125, 160, 200, 250, 315, 400, 500, 630, 800];
/// From a microsecond to ten seconds.
const DECADES: usize = 7;
const FIRST_NS: u64 = 1_000;
pub const LIMITS: usize = SERIES.len() * DECADES + 1;

/// The limits in nanoseconds, rising.
pub fn limits_ns() -> [u64; LIMITS] {
    std::array::from_fn(|at| {
        let decade = u32::try_from(at / SERIES.len()).expect("there are few decades");
        SERIES[at % SERIES.len()] * FIRST_NS / SERIES[0] * 10_u64.pow(decade)
    })
}

#[derive(Clone)]
pub struct Durations {
    histogram: Histogram<u64>,
    nanos: u64,
}

impl Default for Durations {
    fn default() -> Durations {
        let histogram = Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, SIGNIFICANT_DIGITS);
        Durations { histogram: histogram.expect("the bounds are constants"), nanos: 0 }
    }
}

impl Durations {
    pub fn record(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(HIGHEST_NS).min(HIGHEST_NS);
        self.histogram.saturating_record(nanos);
        self.nanos += nanos;
    }

    /// Takes in what another core has recorded.
    pub fn merge(&mut self, other: &Durations) {
        self.histogram.add(&other.histogram).expect("all have the same bounds");
        self.nanos += other.nanos;
    }

    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The sum of all.
    pub fn nanos(&self) -> u64 {
        self.nanos
    }

    /// How many are at most each of the limits.
    pub fn at_most(&self) -> [u64; LIMITS] {
        let mut counts = [0; LIMITS];
        let limits = limits_ns();
        for bin in self.histogram.iter_recorded() {
            let place = limits.partition_point(|limit| *limit < bin.value_iterated_to());
            if let Some(count) = counts.get_mut(place) {
                *count += bin.count_at_value();
            }
        }
        let mut sum = 0;
        counts.map(|count| {
            sum += count;
            sum
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(micros: &[u64]) -> Durations {
        let mut durations = Durations::default();
        micros.iter().for_each(|micros| durations.record(Duration::from_micros(*micros)));
        durations
    }

    #[test]
    fn limits_rise_from_a_microsecond_to_ten_seconds() {
        let limits = limits_ns();
        assert_eq!((limits[0], limits[1], limits[10]), (1_000, 1_250, 10_000));
        assert_eq!(limits[LIMITS - 1], 10_000_000_000);
        assert!(limits.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn a_merge_is_what_one_core_would_have_recorded() {
        let mut merged = of(&[3, 90, 5_000]);
        merged.merge(&of(&[3, 700_000, 90_000_000]));
        let whole = of(&[3, 90, 5_000, 3, 700_000, 90_000_000]);
        assert_eq!(merged.at_most(), whole.at_most());
        assert_eq!((merged.count(), merged.nanos()), (whole.count(), whole.nanos()));
        // An empty one changes nothing.
        merged.merge(&Durations::default());
        assert_eq!(merged.at_most(), whole.at_most());
    }

    #[test]
    fn counts_are_cumulative_and_true_to_a_percent() {
        let check = |micros: u64, limit_ns: u64, expect: u64| {
            let place = limits_ns().iter().position(|limit| *limit == limit_ns).expect("it is a limit");
            assert_eq!(of(&[micros]).at_most()[place], expect, "{micros} µs at most {limit_ns} ns");
        };
        check(99, 100_000, 1);
        check(102, 100_000, 0);
        check(102, 125_000, 1);
        check(0, 1_000, 1);
        check(9_800_000, 10_000_000_000, 1);
        // Longer than the last limit: only in the whole count.
        check(11_000_000, 10_000_000_000, 0);
        assert_eq!(of(&[11_000_000]).count(), 1);
    }
}

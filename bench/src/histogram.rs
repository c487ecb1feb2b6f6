//! Latencies in nanoseconds, three significant digits, from one nanosecond to an hour; and the file they are kept in.
//!
//! The file is an HdrHistogram interval log (version 1.3): the usual tools plot and merge it. Values in it are nanoseconds;
//! its column for the maximum is in milliseconds.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use serde::Serialize;

use crate::link::about;

const HIGHEST_NS: u64 = 3_600_000_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;
const NS_PER_MS: f64 = 1e6;

pub struct Latencies(Histogram<u64>);

/// The figures that go into every report, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quantiles {
    pub count: u64,
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p99_9_ms: f64,
    pub p99_99_ms: f64,
    pub max_ms: f64,
}

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies(
            Histogram::new_with_bounds(1, HIGHEST_NS, SIGNIFICANT_DIGITS).expect("the bounds are constants"),
        )
    }
}

impl Latencies {
    pub fn record(&mut self, nanos: u64) {
        self.0.saturating_record(nanos.max(1));
    }

    pub fn record_many(&mut self, nanos: u64, count: u64) {
        self.0.saturating_record_n(nanos.max(1), count);
    }

    pub fn p99_ms(&self) -> f64 {
        self.at(0.99)
    }

    pub fn quantiles(&self) -> Quantiles {
        Quantiles {
            count: self.0.len(),
            mean_ms: self.0.mean() / NS_PER_MS,
            p50_ms: self.at(0.5),
            p90_ms: self.at(0.9),
            p99_ms: self.at(0.99),
            p99_9_ms: self.at(0.999),
            p99_99_ms: self.at(0.9999),
            max_ms: self.0.max() as f64 / NS_PER_MS,
        }
    }

    fn at(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / NS_PER_MS
    }
}

/// One histogram of the file: its tag, when its measuring began (unix) and how long it went on.
pub struct Entry<'a> {
    pub tag: &'a str,
    pub latencies: &'a Latencies,
    pub began: Duration,
    pub lasted: Duration,
}

/// Writes all histograms of a run to `path`, with the run's conditions as a comment.
pub fn write_file(path: &Path, comment: &str, entries: &[Entry<'_>]) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(path).map_err(|error| about(path.display(), &error))?);
    let mut serializer = V2DeflateSerializer::new();
    let began = entries.first().map_or(Duration::ZERO, |entry| entry.began);
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment(comment)
        .with_start_time(UNIX_EPOCH + began)
        .with_base_time(UNIX_EPOCH + began)
        .with_max_value_divisor(NS_PER_MS)
        .begin_log_with(&mut out, &mut serializer)?;
    for entry in entries {
        let after = entry.began.saturating_sub(began);
        log.write_histogram(&entry.latencies.0, after, entry.lasted, Tag::new(entry.tag))
            .map_err(|error| io::Error::other(format!("{error:?}")))?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_keep_three_digits() {
        let mut latencies = Latencies::default();
        for ms in 1..=1_000u64 {
            latencies.record(ms * 1_000_000);
        }
        let quantiles = latencies.quantiles();
        assert_eq!(quantiles.count, 1_000);
        for (got, want) in [
            (quantiles.p50_ms, 500.0),
            (quantiles.p99_ms, 990.0),
            (quantiles.max_ms, 1_000.0),
            (quantiles.mean_ms, 500.5),
        ] {
            assert!((got - want).abs() / want < 0.002, "{got} is not {want}");
        }
    }

    #[test]
    fn the_file_is_an_interval_log_that_reads_back() {
        use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
        let mut latencies = Latencies::default();
        latencies.record_many(2_000_000, 3);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("run.hlog");
        let lasted = Duration::from_secs(2);
        let entry = Entry { tag: "ack", latencies: &latencies, began: Duration::from_secs(1_000), lasted };
        write_file(&path, "a run", &[entry]).expect("written");
        let text = std::fs::read(&path).expect("read");
        let intervals = IntervalLogIterator::new(&text)
            .filter(|entry| matches!(entry, Ok(LogEntry::Interval(_))))
            .count();
        assert_eq!(intervals, 1);
        assert!(String::from_utf8_lossy(&text).contains("#a run"));
    }
}

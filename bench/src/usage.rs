//! What a process used: CPU seconds, resident memory, bytes written to devices, from /proc.

use std::fs;

use serde::Serialize;

/// The kernel's USER_HZ: what /proc counts in, the same on every architecture we run on.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    cpu_s: f64,
    rss_bytes: u64,
    device_written_bytes: Option<u64>,
}

/// Between two samples; memory as at the second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Usage {
    pub cpu_s: f64,
    pub rss_bytes: u64,
    pub device_written_bytes: Option<u64>,
}

/// Samples of several processes (the brokers of a cluster), added up. None when one of them is not there any more.
pub fn sample_all(pids: &[u32]) -> Option<Sample> {
    pids.iter().map(|pid| sample(*pid)).reduce(|a, b| {
        let (a, b) = (a?, b?);
        Some(Sample {
            cpu_s: a.cpu_s + b.cpu_s,
            rss_bytes: a.rss_bytes + b.rss_bytes,
            device_written_bytes: a.device_written_bytes.zip(b.device_written_bytes).map(|(a, b)| a + b),
        })
    })?
}

pub fn between(before: Sample, after: Sample) -> Usage {
    Usage {
        cpu_s: after.cpu_s - before.cpu_s,
        rss_bytes: after.rss_bytes,
        device_written_bytes: before
            .device_written_bytes
            .zip(after.device_written_bytes)
            .map(|(before, after)| after.saturating_sub(before)),
    }
}

fn sample(pid: u32) -> Option<Sample> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let io = fs::read_to_string(format!("/proc/{pid}/io")).ok();
    Some(Sample {
        cpu_s: cpu_ticks(&stat)? as f64 / TICKS_PER_SECOND,
        rss_bytes: field(&status, "VmRSS:")? * 1024,
        device_written_bytes: io.and_then(|io| field(&io, "write_bytes:")),
    })
}

/// utime + stime: the 14th and 15th fields, counted behind the name, which may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut words = rest.split(' ').skip(11);
    let user: u64 = words.next()?.parse().ok()?;
    let system: u64 = words.next()?.parse().ok()?;
    Some(user + system)
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let stat = "12 (a ) name) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(field("VmPeak:\t 9 kB\nVmRSS:\t 123 kB\n", "VmRSS:"), Some(123));
    }

    #[test]
    fn this_process_can_be_sampled() {
        let sample = sample_all(&[std::process::id()]).expect("this process is there");
        assert!(sample.rss_bytes > 0);
        assert!(sample_all(&[u32::MAX]).is_none());
        assert!(sample_all(&[]).is_none());
    }
}

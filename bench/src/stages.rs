//! What the broker says of itself while a run lasts: its Prometheus page before and after, and the difference.
//!
//! Only Corelog's own names are looked for. A broker without them brings an error, not zeros.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::Serialize;

use crate::link::Error;

const TIME_MAX: Duration = Duration::from_secs(5);
const PAGE_BYTES_MAX: u64 = 16 << 20;
const MS_PER_S: f64 = 1e3;

/// Kind of request, stage and metric, in the order they are told.
const STAGES: [(&str, &str, &[&str]); 2] = [
    ("produce", "corelog_produce_stage_seconds", &["parse", "hop", "queue", "disk", "reply", "whole"]),
    ("fetch", "corelog_fetch_stage_seconds", &["parse", "hop", "read", "wait", "reply", "whole"]),
];

/// One page.
pub struct Scrape {
    samples: BTreeMap<(String, Labels), f64>,
}

type Labels = BTreeMap<String, String>;

/// What the broker did between two pages.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stages {
    pub stages: Vec<Stage>,
    pub appended_bytes: u64,
    /// Copies in user space of each byte appended, from the receive buffer to the disk.
    pub copies_per_byte_appended: Option<f64>,
    /// Apart from those: of partly filled blocks, and of requests' heads between receive buffers.
    pub tail_copies_per_byte_appended: Option<f64>,
    pub head_copies_per_byte_appended: Option<f64>,
    pub fetched_bytes: u64,
    /// Copies of each byte that a fetch answered with.
    pub copies_per_byte_fetched: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stage {
    pub request: &'static str,
    pub stage: &'static str,
    pub count: u64,
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stage { stage, p50_ms, p99_ms, .. } = self;
        write!(f, "{stage} {p50_ms:.3}/{p99_ms:.3}")
    }
}

/// Reads a page beside the load, so that this core goes on sending.
pub struct Scraping(JoinHandle<io::Result<Scrape>>);

impl Scraping {
    pub fn start(address: &str) -> Scraping {
        let address = address.to_owned();
        Scraping(thread::spawn(move || scrape(&address)))
    }

    pub fn end(self) -> Result<Scrape, Error> {
        let ended = self.0.join().map_err(|_| io::Error::other("reading the broker's metrics panicked"))?;
        Ok(ended?)
    }
}

fn scrape(address: &str) -> io::Result<Scrape> {
    let told = |error: io::Error| {
        io::Error::new(error.kind(), format!("the broker's metrics at {address}: {error}"))
    };
    let resolved = address.to_socket_addrs().map_err(told)?.next();
    let resolved = resolved.ok_or_else(|| told(io::ErrorKind::NotFound.into()))?;
    let page = get(resolved, address).map_err(told)?;
    parse(&page)
        .ok_or_else(|| told(io::Error::new(io::ErrorKind::InvalidData, "this is no page of Corelog's")))
}

fn get(resolved: std::net::SocketAddr, host: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&resolved, TIME_MAX)?;
    stream.set_read_timeout(Some(TIME_MAX))?;
    write!(stream, "GET /metrics HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(PAGE_BYTES_MAX).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(io::Error::other(status.to_owned()));
    }
    Ok(body.to_owned())
}

/// `None` for what is no such page.
fn parse(page: &str) -> Option<Scrape> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let samples: BTreeMap<_, _> = lines.map(sample).collect::<Option<_>>()?;
    let scrape = Scrape { samples };
    scrape.samples.keys().any(|(name, _)| name.starts_with(STAGES[0].1)).then_some(scrape)
}

/// No value of a label we read holds a comma or an escape.
fn sample(line: &str) -> Option<((String, Labels), f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let pairs = labels.strip_suffix('}')?.split(',').filter(|pair| !pair.is_empty());
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        Some((name.to_owned(), value.trim_matches('"').to_owned()))
    };
    Some(((name.to_owned(), pairs.map(pair).collect::<Option<_>>()?), value.parse().ok()?))
}

impl Scrape {
    fn sum(&self, name: &str) -> f64 {
        self.samples.iter().filter(|((of, _), _)| of == name).map(|(_, value)| value).sum()
    }

    fn stage(&self, name: &str, stage: &str) -> f64 {
        let fits = |((of, labels), _): &(&(String, Labels), &f64)| {
            of == name && labels.get("stage").is_some_and(|have| have == stage)
        };
        self.samples.iter().filter(fits).map(|(_, value)| value).sum()
    }

    /// (limit in seconds, how many are at most that), rising.
    fn buckets(&self, family: &str, stage: &str) -> Vec<(f64, f64)> {
        let name = format!("{family}_bucket");
        let of_stage = self
            .samples
            .iter()
            .filter(|((of, labels), _)| *of == name && labels.get("stage").is_some_and(|have| have == stage));
        let limit = |labels: &Labels| match labels.get("le").map(String::as_str) {
            Some("+Inf") => Some(f64::INFINITY),
            Some(limit) => limit.parse().ok(),
            None => None,
        };
        let mut buckets: Vec<(f64, f64)> =
            of_stage.filter_map(|((_, labels), value)| Some((limit(labels)?, *value))).collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        buckets
    }
}

/// What happened after `before` and until `after`.
pub fn between(before: &Scrape, after: &Scrape) -> Stages {
    let grown = |name: &str| (after.sum(name) - before.sum(name)).max(0.0);
    let (appended, fetched) = (grown("corelog_appended_bytes_total"), grown("corelog_fetched_bytes_total"));
    let per = |name: &str, bytes: f64| (bytes > 0.0).then(|| grown(name) / bytes);
    let mut stages = Vec::new();
    for (request, family, names) in STAGES {
        stages.extend(names.iter().filter_map(|stage| stage_between(before, after, request, family, stage)));
    }
    Stages {
        stages,
        appended_bytes: appended as u64,
        copies_per_byte_appended: per("corelog_append_copied_bytes_total", appended),
        tail_copies_per_byte_appended: per("corelog_append_tail_copied_bytes_total", appended),
        head_copies_per_byte_appended: per("corelog_receive_moved_bytes_total", appended),
        fetched_bytes: fetched as u64,
        copies_per_byte_fetched: per("corelog_fetch_copied_bytes_total", fetched),
    }
}

/// `None` where nothing was recorded.
fn stage_between(
    before: &Scrape,
    after: &Scrape,
    request: &'static str,
    family: &str,
    stage: &'static str,
) -> Option<Stage> {
    let (old, new) = (before.buckets(family, stage), after.buckets(family, stage));
    if old.len() != new.len() {
        return None;
    }
    let counts: Vec<(f64, f64)> =
        old.iter().zip(&new).map(|((_, old), (limit, new))| (*limit, new - old)).collect();
    let count = counts.last().map(|(_, count)| *count).filter(|count| *count > 0.0)?;
    let sum = format!("{family}_sum");
    Some(Stage {
        request,
        stage,
        count: count as u64,
        mean_ms: (after.stage(&sum, stage) - before.stage(&sum, stage)) / count * MS_PER_S,
        p50_ms: quantile(&counts, 0.5) * MS_PER_S,
        p99_ms: quantile(&counts, 0.99) * MS_PER_S,
    })
}

/// Within its bucket a value is taken to lie where its rank says. Above the last limit nothing is known but that.
fn quantile(cumulative: &[(f64, f64)], quantile: f64) -> f64 {
    let Some((_, count)) = cumulative.last() else { return 0.0 };
    let rank = count * quantile;
    let place = cumulative.partition_point(|(_, at_most)| *at_most < rank);
    let (lower, below) = if place == 0 { (0.0, 0.0) } else { cumulative[place - 1] };
    match cumulative.get(place) {
        Some((limit, at_most)) if limit.is_finite() && *at_most > below => {
            lower + (limit - lower) * (rank - below) / (at_most - below)
        }
        Some(_) | None => lower,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(fast: u64, slow: u64, copied: u64) -> Scrape {
        let page = format!(
            "# HELP corelog_produce_stage_seconds h\n# TYPE corelog_produce_stage_seconds histogram\n\
             corelog_produce_stage_seconds_bucket{{stage=\"disk\",le=\"0.001\"}} {fast}\n\
             corelog_produce_stage_seconds_bucket{{stage=\"disk\",le=\"0.002\"}} {all}\n\
             corelog_produce_stage_seconds_bucket{{stage=\"disk\",le=\"+Inf\"}} {all}\n\
             corelog_produce_stage_seconds_sum{{stage=\"disk\"}} {sum}\n\
             corelog_produce_stage_seconds_count{{stage=\"disk\"}} {all}\n\
             corelog_appended_bytes_total{{core=\"0\"}} {copied}\n\
             corelog_appended_bytes_total{{core=\"1\"}} {copied}\n\
             corelog_append_copied_bytes_total{{core=\"0\"}} {copied}\n\
             corelog_append_copied_bytes_total{{core=\"1\"}} {copied}\n",
            all = fast + slow,
            sum = fast as f64 * 0.0005 + slow as f64 * 0.0015,
        );
        parse(&page).expect("a page")
    }

    #[test]
    fn what_happened_in_between_counts_and_nothing_else() {
        let stages = between(&page(1_000, 1_000, 500), &page(1_100, 1_100, 700));
        assert_eq!(stages.stages.len(), 1);
        let disk = &stages.stages[0];
        assert_eq!((disk.request, disk.stage, disk.count), ("produce", "disk", 200));
        assert!((disk.p50_ms - 1.0).abs() < 1e-6 && (disk.p99_ms - 1.98).abs() < 1e-6, "{disk:?}");
        assert!((disk.mean_ms - 1.0).abs() < 1e-6, "{disk:?}");
        assert_eq!((stages.appended_bytes, stages.copies_per_byte_appended), (400, Some(1.0)));
        assert_eq!((stages.fetched_bytes, stages.copies_per_byte_fetched), (0, None));
        assert_eq!(disk.to_string(), "disk 1.000/1.980");
    }

    #[test]
    fn quantiles_lie_inside_their_bucket() {
        let buckets = [(1.0, 10.0), (2.0, 20.0), (f64::INFINITY, 21.0)];
        let check = |at, expect: f64| assert_eq!(quantile(&buckets, at), expect, "{at}");
        check(10.0 / 21.0, 1.0);
        check(15.0 / 21.0, 1.5);
        check(1.0, 2.0);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }

    #[test]
    fn another_page_is_not_taken_for_ours() {
        assert!(parse("<html></html>").is_none());
        assert!(parse("go_goroutines 9\n").is_none());
    }
}

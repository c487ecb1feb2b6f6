//! The Prometheus text format (version 0.0.4) of the list, and the list as a page for people.

use std::fmt::Write;

use super::CoreMetrics;
use super::durations::{Durations, LIMITS, limits_ns};
use super::list::{FAMILIES, Family, Kind, Samples};

pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One view over all cores.
pub fn prometheus(cores: &[CoreMetrics]) -> String {
    let mut out = String::new();
    for family in FAMILIES {
        write_family(&mut out, family, cores).expect("writing to a String cannot fail");
    }
    out
}

fn write_family(out: &mut String, family: &Family, cores: &[CoreMetrics]) -> std::fmt::Result {
    let Family { name, kind, help, samples } = family;
    writeln!(out, "# HELP {name} {}", help.replace('\\', "\\\\").replace('\n', "\\n"))?;
    writeln!(out, "# TYPE {name} {}", kind.name())?;
    match samples {
        Samples::Info(labels) => writeln!(out, "{name}{} 1", braced(labels)),
        Samples::PerCore(value) => cores.iter().try_for_each(|core| {
            let label = core.core.to_string();
            writeln!(out, "{name}{} {}", braced(&[("core", &label)]), value(core))
        }),
        Samples::PerCoreBy(label, values) => {
            for core in cores {
                let id = core.core.to_string();
                for (of, value) in values(core) {
                    writeln!(out, "{name}{} {value}", braced(&[("core", &id), (label, of)]))?;
                }
            }
            Ok(())
        }
        Samples::MergedBy(labels, values) => {
            let mut merged = std::collections::BTreeMap::<Vec<String>, u64>::new();
            for (of, value) in cores.iter().flat_map(values) {
                *merged.entry(of).or_default() += value;
            }
            for (of, value) in merged {
                let pairs: Vec<(&str, &str)> =
                    labels.iter().copied().zip(of.iter().map(String::as_str)).collect();
                writeln!(out, "{name}{} {value}", braced(&pairs))?;
            }
            Ok(())
        }
        Samples::Stages(stages) => {
            for stage in *stages {
                let mut merged = Durations::default();
                cores.iter().for_each(|core| merged.merge(core.recorded.stage(*stage)));
                let cumulative =
                    Cumulative { at_most: merged.at_most(), count: merged.count(), nanos: merged.nanos() };
                write_histogram(out, name, &[("stage", stage.name())], &cumulative)?;
            }
            Ok(())
        }
    }
}

struct Cumulative {
    at_most: [u64; LIMITS],
    count: u64,
    nanos: u64,
}

fn write_histogram(
    out: &mut String,
    name: &str,
    labels: &[(&str, &str)],
    values: &Cumulative,
) -> std::fmt::Result {
    let with_limit = |limit: &str| {
        let mut all = labels.to_vec();
        all.push(("le", limit));
        braced(&all)
    };
    for (limit, count) in limits_ns().into_iter().zip(values.at_most) {
        writeln!(out, "{name}_bucket{} {count}", with_limit(&seconds(limit)))?;
    }
    writeln!(out, "{name}_bucket{} {}", with_limit("+Inf"), values.count)?;
    writeln!(out, "{name}_sum{} {}", braced(labels), seconds(values.nanos))?;
    writeln!(out, "{name}_count{} {}", braced(labels), values.count)
}

fn braced(labels: &[(&str, &str)]) -> String {
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let pairs: Vec<String> =
        labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    format!("{{{}}}", pairs.join(","))
}

/// Nanoseconds as a decimal number of seconds, exactly.
fn seconds(nanos: u64) -> String {
    let text = format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The body of docs/operations/metrics.md that is made from the list.
pub fn page() -> String {
    let mut out = String::from("| metric | type | unit | labels | meaning |\n|---|---|---|---|---|\n");
    for Family { name, kind, help, samples } in FAMILIES {
        let labels = samples.labels().join(", ");
        let unit = unit(name, *kind);
        writeln!(out, "| `{name}` | {} | {unit} | {labels} | {help} |", kind.name())
            .expect("writing to a String cannot fail");
    }
    out
}

/// The unit is the name's last word, as Prometheus asks for, or a count of what the name says.
fn unit(name: &str, kind: Kind) -> &'static str {
    let name = name.strip_suffix("_total").unwrap_or(name);
    match name.rsplit_once('_').map_or(name, |(_, last)| last) {
        "bytes" => "bytes",
        "seconds" => "seconds",
        "info" => "none",
        _ if kind == Kind::Histogram => "seconds",
        _ => "count",
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Metrics, Stage};
    use super::*;
    use rt::Instant;
    use std::path::PathBuf;

    fn core(core: u16, micros: &[u64]) -> CoreMetrics {
        let metrics = Metrics::default();
        for micros in micros {
            let until = Instant::from_nanos(micros * 1_000);
            metrics.stage(Stage::ProduceDisk, Instant::START, until);
        }
        metrics.request(net::api::ApiKey::Produce);
        metrics.errors(net::api::ApiKey::Produce, &[3]);
        let recorded = metrics.0.borrow().clone();
        CoreMetrics { core, recorded, memory_bytes: vec![1, 2, 3, 4, 5], ..CoreMetrics::default() }
    }

    #[test]
    fn cores_are_told_apart_or_added_up() {
        let text = prometheus(&[core(0, &[150]), core(1, &[150, 3_000])]);
        for line in [
            "# TYPE corelog_produce_stage_seconds histogram",
            "corelog_produce_stage_seconds_bucket{stage=\"disk\",le=\"0.000125\"} 0",
            "corelog_produce_stage_seconds_bucket{stage=\"disk\",le=\"0.00016\"} 2",
            "corelog_produce_stage_seconds_bucket{stage=\"disk\",le=\"10\"} 3",
            "corelog_produce_stage_seconds_bucket{stage=\"disk\",le=\"+Inf\"} 3",
            "corelog_produce_stage_seconds_sum{stage=\"disk\"} 0.0033",
            "corelog_produce_stage_seconds_count{stage=\"disk\"} 3",
            "corelog_requests_total{api=\"Produce\"} 2",
            "corelog_errors_total{api=\"Produce\",error=\"UNKNOWN_TOPIC_OR_PARTITION\"} 2",
            "corelog_memory_used_bytes{core=\"1\",reservation=\"fetch\"} 4",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn seconds_are_exact() {
        let check = |nanos, expect: &str| assert_eq!(seconds(nanos), expect);
        check(0, "0");
        check(1_250, "0.00000125");
        check(10_000_000_000, "10");
        check(u64::MAX, "18446744073.709551615");
    }

    #[test]
    fn label_values_are_escaped() {
        assert_eq!(braced(&[("a", "x\"y\\z\n")]), r#"{a="x\"y\\z\n"}"#);
        assert_eq!(braced(&[]), "{}");
    }

    #[test]
    fn names_say_kind_and_unit_and_stand_once() {
        for (at, family) in FAMILIES.iter().enumerate() {
            let Family { name, kind, help, .. } = family;
            assert!(name.starts_with("corelog_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert!(!help.contains('|') && help.ends_with('.'), "{name}: {help}");
            assert!(!FAMILIES[..at].iter().any(|other| other.name == *name), "{name} stands twice");
        }
    }

    /// `BLESS=1` accepts changes.
    #[test]
    fn the_page_holds_the_list() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/operations/metrics.md");
        let text = std::fs::read_to_string(&path).expect("the page is there");
        let head = text.split("| metric |").next().unwrap_or_default();
        let expect = format!("{head}{}", page());
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&path, &expect).expect("the page is written");
        } else {
            assert!(text == expect, "BLESS=1 accepts this:\n{}", page());
        }
    }
}

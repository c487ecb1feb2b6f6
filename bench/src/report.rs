//! The result of a run: a table for people, one JSON object for programs.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use crate::histogram::Quantiles;
use crate::stages::Stages;
use crate::usage::Usage;
use crate::verdict::Verdict;

/// An open-loop run that achieves less than this part of its target is saturated.
const SATURATED_BELOW: f64 = 0.99;
/// A result above this part of the null broker's is bound by this tool.
const CLIENT_BOUND_ABOVE: f64 = 0.5;
/// Figures below this are shown with decimals.
const DECIMALS_BELOW: f64 = 10_000.0;
const MB: f64 = 1e6;
const GB: f64 = 1e9;
const MIB: f64 = 1_048_576.0;

#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub command: &'static str,
    pub run: Option<String>,
    pub conditions: BTreeMap<&'static str, String>,
    /// Length of what was measured.
    pub seconds: f64,
    pub records: u64,
    pub records_per_s: f64,
    /// Bytes of the records' values, and of whole batches as they go over the wire.
    pub value_mb_per_s: f64,
    pub wire_mb_per_s: f64,
    pub wire_bytes: u64,
    pub batches: u64,
    pub target_per_s: Option<u64>,
    pub saturated: Option<bool>,
    pub ceiling_records_per_s: Option<f64>,
    pub client_bound: Option<bool>,
    /// Name and figures of every latency that was measured.
    pub latencies: BTreeMap<&'static str, Quantiles>,
    pub client: Option<Usage>,
    pub brokers: Option<Usage>,
    pub broker_cpu_s_per_gb: Option<f64>,
    pub client_cpu_s_per_gb: Option<f64>,
    /// Bytes that reached devices for each byte of batches acknowledged.
    pub device_write_amplification: Option<f64>,
    /// What the broker says of the time and the copies of the window.
    pub broker_stages: Option<Stages>,
    /// What a command measures besides records; the names end with the units.
    pub figures: BTreeMap<&'static str, f64>,
    pub total_sent: u64,
    pub total_acknowledged: u64,
    pub total_failed: u64,
    pub verdict: Option<Verdict>,
    pub errors: BTreeMap<String, u64>,
    pub notes: Vec<String>,
}

impl Report {
    pub fn set_rates(&mut self, records: u64, batches: u64, value_bytes: u64, wire_bytes: u64, seconds: f64) {
        let seconds = seconds.max(1e-9);
        self.seconds = seconds;
        self.records = records;
        self.batches = batches;
        self.wire_bytes = wire_bytes;
        self.records_per_s = records as f64 / seconds;
        self.value_mb_per_s = value_bytes as f64 / seconds / MB;
        self.wire_mb_per_s = wire_bytes as f64 / seconds / MB;
    }

    pub fn set_target(&mut self, rate: u64) {
        self.target_per_s = Some(rate);
        self.saturated = Some(is_saturated(self.records_per_s, rate as f64));
    }

    pub fn set_ceiling(&mut self, records_per_s: f64) {
        self.ceiling_records_per_s = Some(records_per_s);
        self.client_bound = Some(is_client_bound(self.records_per_s, records_per_s));
    }

    /// `gb_bytes` is what passed between the two samples.
    pub fn set_usage(&mut self, client: Option<Usage>, brokers: Option<Usage>, gb_bytes: u64) {
        let per_gb = |usage: Usage| (gb_bytes > 0).then(|| usage.cpu_s / (gb_bytes as f64 / GB));
        self.client_cpu_s_per_gb = client.and_then(per_gb);
        self.broker_cpu_s_per_gb = brokers.and_then(per_gb);
        let written = brokers.and_then(|usage| usage.device_written_bytes).filter(|_| gb_bytes > 0);
        self.device_write_amplification = written.map(|bytes| bytes as f64 / gb_bytes as f64);
        (self.client, self.brokers) = (client, brokers);
    }

    pub fn is_good(&self) -> bool {
        self.errors.is_empty() && self.total_failed == 0 && self.verdict.as_ref().is_none_or(Verdict::is_good)
    }

    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("plain structs with text keys")
    }

    pub fn table(&self) -> String {
        let mut table = Table::default();
        let conditions: Vec<String> =
            self.conditions.iter().map(|(key, value)| format!("{key} {value}")).collect();
        table.title(&format!("bench {}", self.command));
        table.wrapped("conditions", &conditions);
        if let Some(run) = &self.run {
            table.line("run", run);
        }
        if self.seconds > 0.0 {
            self.rates(&mut table);
        }
        for (name, value) in &self.figures {
            table.line(&name.replace('_', " "), &shown(*value));
        }
        for (name, quantiles) in &self.latencies {
            table.latency(name, quantiles);
        }
        self.costs(&mut table);
        if let Some(stages) = &self.broker_stages {
            told(&mut table, stages);
        }
        if let Some(verdict) = &self.verdict {
            judged(&mut table, verdict);
        }
        if self.total_failed > 0 {
            table.line(
                "failed",
                &format!("{} records of {} sent", grouped(self.total_failed), grouped(self.total_sent)),
            );
        }
        for (what, count) in &self.errors {
            table.line("error", &format!("{what} ({count} times)"));
        }
        for note in &self.notes {
            table.line("note", note);
        }
        table.0
    }

    fn rates(&self, table: &mut Table) {
        let mut records = format!("{} in {:.2} s", grouped(self.records), self.seconds);
        if self.batches > 0 {
            records += &format!(", {} batches", grouped(self.batches));
        }
        table.line("records", &records);
        table.line(
            "rate",
            &format!(
                "{} records/s   {:.1} MB/s of values   {:.1} MB/s on the wire",
                grouped(self.records_per_s as u64),
                self.value_mb_per_s,
                self.wire_mb_per_s
            ),
        );
        if let (Some(target), Some(saturated)) = (self.target_per_s, self.saturated) {
            let share = self.records_per_s / target as f64 * 100.0;
            let mark = if saturated { "   SATURATED: the latencies are those of a queue" } else { "" };
            table.line("target", &format!("{} records/s, {share:.1} % achieved{mark}", grouped(target)));
        }
        if let (Some(ceiling), Some(bound)) = (self.ceiling_records_per_s, self.client_bound) {
            let share = self.records_per_s / ceiling * 100.0;
            let mark = if bound { "   CLIENT-BOUND: this tool is part of the limit" } else { "" };
            let text = format!(
                "{} records/s with a null broker, {share:.0} % of it reached{mark}",
                grouped(ceiling as u64)
            );
            table.line("ceiling", &text);
        }
    }

    fn costs(&self, table: &mut Table) {
        for (name, usage, per_gb) in [
            ("broker", self.brokers, self.broker_cpu_s_per_gb),
            ("client", self.client, self.client_cpu_s_per_gb),
        ] {
            let Some(usage) = usage else { continue };
            let mut text = format!("{:.2} CPU s", usage.cpu_s);
            if let Some(per_gb) = per_gb {
                text += &format!(" ({per_gb:.2} per GB)");
            }
            text += &format!("   {:.0} MiB resident", usage.rss_bytes as f64 / MIB);
            if let Some(bytes) = usage.device_written_bytes.filter(|bytes| *bytes > 0) {
                text += &format!("   {:.1} MB to devices", bytes as f64 / MB);
                if let Some(times) = self.device_write_amplification.filter(|_| name == "broker") {
                    text += &format!(" ({times:.2} for each byte)");
                }
            }
            table.line(name, &text);
        }
    }
}

pub fn is_saturated(achieved: f64, target: f64) -> bool {
    achieved < target * SATURATED_BELOW
}

pub fn is_client_bound(achieved: f64, ceiling: f64) -> bool {
    achieved > ceiling * CLIENT_BOUND_ABOVE
}

fn told(table: &mut Table, told: &Stages) {
    for request in ["produce", "fetch"] {
        let of_request = told.stages.iter().filter(|stage| stage.request == request);
        let stages: Vec<String> = of_request.map(ToString::to_string).collect();
        if !stages.is_empty() {
            table.line(&format!("in {request}"), &format!("{} ms (p50/p99)", stages.join("   ")));
        }
    }
    let times = |times: Option<f64>| times.map_or("no".to_owned(), |times| format!("{times:.3}"));
    if told.appended_bytes > 0 {
        let text = format!(
            "{} copies of each byte appended; apart from that {} of tail blocks, {} of requests' heads",
            times(told.copies_per_byte_appended),
            times(told.tail_copies_per_byte_appended),
            times(told.head_copies_per_byte_appended)
        );
        table.line("copies in", &text);
    }
    if told.fetched_bytes > 0 {
        let text = format!("{} copies of each byte fetched", times(told.copies_per_byte_fetched));
        table.line("copies out", &text);
    }
}

fn judged(table: &mut Table, verdict: &Verdict) {
    let good = match (verdict.is_good(), verdict.is_empty()) {
        (true, _) => "every record is there, once, in order, whole",
        (false, true) => "nothing to verify: the topic holds no record that bench wrote",
        (false, false) => "FAULTS WERE FOUND",
    };
    table.line("verdict", good);
    table.line(
        "read back",
        &format!(
            "{} records, {:.1} MB, {} partitions, {} streams",
            grouped(verdict.records),
            verdict.bytes as f64 / MB,
            verdict.partitions,
            verdict.streams
        ),
    );
    if let Some(acknowledged) = verdict.acknowledged {
        table.line(
            "ledger",
            &format!(
                "{} acknowledged, {} of them missing; {} stored without an answer seen, {} neither",
                grouped(acknowledged),
                grouped(verdict.acknowledged_missing),
                grouped(verdict.unacknowledged_stored),
                grouped(verdict.missing)
            ),
        );
    }
    for (name, count) in [
        ("missing", if verdict.acknowledged.is_some() { 0 } else { verdict.missing }),
        ("too few", verdict.expected_missing),
        ("duplicated", verdict.duplicated),
        ("reordered", verdict.reordered),
        ("corrupt", verdict.corrupt),
        ("offset gaps", verdict.offset_holes),
        ("not ours", verdict.foreign),
    ] {
        if count > 0 {
            table.line(name, &grouped(count));
        }
    }
    for example in &verdict.examples {
        table.line("found", example);
    }
}

#[derive(Default)]
struct Table(String);

impl Table {
    const NAME_WIDTH: usize = 12;
    const LINE_WIDTH: usize = 110;

    fn title(&mut self, title: &str) {
        self.push(format_args!("{title}\n"));
    }

    fn line(&mut self, name: &str, text: &str) {
        self.push(format_args!("  {name:<width$} {text}\n", width = Table::NAME_WIDTH));
    }

    fn wrapped(&mut self, name: &str, parts: &[String]) {
        let (mut name, mut line) = (name, String::new());
        for part in parts {
            if !line.is_empty() && line.len() + part.len() + 2 > Table::LINE_WIDTH - Table::NAME_WIDTH {
                self.line(name, &line);
                (name, line) = ("", String::new());
            }
            if !line.is_empty() {
                line += ", ";
            }
            line += part;
        }
        self.line(name, &line);
    }

    fn latency(&mut self, name: &str, q: &Quantiles) {
        if q.count == 0 {
            return self.line(name, "never");
        }
        let text = format!(
            "p50 {:.3}   p90 {:.3}   p99 {:.3}   p99.9 {:.3}   p99.99 {:.3}   max {:.3} ms   ({} values)",
            q.p50_ms,
            q.p90_ms,
            q.p99_ms,
            q.p99_9_ms,
            q.p99_99_ms,
            q.max_ms,
            grouped(q.count)
        );
        self.line(name, &text);
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        self.0.write_fmt(text).expect("writing to a String cannot fail");
    }
}

/// Large numbers without decimals, small ones with three.
fn shown(value: f64) -> String {
    if value.abs() < DECIMALS_BELOW { format!("{value:.3}") } else { grouped(value.round() as u64) }
}

/// 1234567 as 1,234,567.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::Stage;

    #[test]
    fn marks() {
        assert!(is_saturated(989.0, 1_000.0));
        assert!(!is_saturated(990.0, 1_000.0));
        assert!(is_client_bound(51.0, 100.0));
        assert!(!is_client_bound(50.0, 100.0));
    }

    #[test]
    fn a_report_says_what_it_has() {
        let mut report = Report { command: "produce", ..Report::default() };
        report.set_rates(2_000_000, 20_000, 2_048_000_000, 2_100_000_000, 2.0);
        report.set_target(1_500_000);
        report.set_ceiling(1_800_000.0);
        let usage = Usage { cpu_s: 4.2, rss_bytes: 1 << 20, device_written_bytes: Some(2_205_000_000) };
        report.set_usage(None, Some(usage), 2_100_000_000);
        let table = report.table();
        for part in ["1,000,000 records/s", "SATURATED", "CLIENT-BOUND", "2.00 per GB", "1.05 for each byte"]
        {
            assert!(table.contains(part), "{part} is not in\n{table}");
        }
        let json: serde_json::Value = serde_json::from_str(&report.json()).expect("JSON");
        assert_eq!(json["records_per_s"], 1_000_000.0);
        assert_eq!(json["saturated"], true);
        assert!(report.is_good());
    }

    #[test]
    fn what_the_broker_tells_is_told() {
        let stage =
            Stage { request: "produce", stage: "disk", count: 9, mean_ms: 0.5, p50_ms: 0.4, p99_ms: 2.0 };
        let stages = Stages {
            stages: vec![stage],
            appended_bytes: 10,
            copies_per_byte_appended: Some(1.0),
            fetched_bytes: 10,
            copies_per_byte_fetched: Some(0.0),
            ..Stages::default()
        };
        let report = Report { broker_stages: Some(stages), ..Report::default() };
        let table = report.table();
        for part in
            ["disk 0.400/2.000 ms", "1.000 copies of each byte appended", "0.000 copies of each byte fetched"]
        {
            assert!(table.contains(part), "{part} is not in\n{table}");
        }
        let json: serde_json::Value = serde_json::from_str(&report.json()).expect("JSON");
        assert_eq!(json["broker_stages"]["stages"][0]["p99_ms"], 2.0);
    }

    #[test]
    fn digits_in_groups() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(12_345_678), "12,345,678");
    }
}

//! Reads `tests/golden/golden.tsv`.

use net::api::ApiKey;
use serde_json::Value;
use std::fmt;

pub struct Row {
    pub key: ApiKey,
    pub is_request: bool,
    pub version: i16,
    pub body: Vec<u8>,
    pub json: Value,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_request { "request" } else { "response" };
        write!(f, "{} {kind} {} {}", self.key.name(), self.version, self.json)
    }
}

pub fn rows() -> Vec<Row> {
    let table = include_str!("../../../tests/golden/golden.tsv");
    let rows: Vec<Row> = table.lines().skip(1).map(row).collect();
    assert!(rows.len() > 1600);
    rows
}

fn row(line: &str) -> Row {
    let cells: Vec<&str> = line.split('\t').collect();
    let [key, kind, _, version, hex, json] = cells[..] else { panic!("six cells: {line}") };
    Row {
        key: ApiKey::from_i16(key.parse().unwrap()).unwrap(),
        is_request: kind == "request",
        version: version.parse().unwrap(),
        body: unhex(hex),
        json: serde_json::from_str(json).unwrap(),
    }
}

pub fn unhex(text: &str) -> Vec<u8> {
    assert_eq!(text.len() % 2, 0);
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

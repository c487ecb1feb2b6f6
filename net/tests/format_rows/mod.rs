//! Reads `tests/golden/formats.tsv`: what travels inside of records and fields.

use serde_json::Value;
use std::fmt;

use super::golden_rows::unhex;

pub struct FormatRow {
    pub name: String,
    pub version: i16,
    pub body: Vec<u8>,
    pub json: Value,
}

impl fmt::Display for FormatRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.name, self.version, self.json)
    }
}

pub fn format_rows() -> Vec<FormatRow> {
    let table = include_str!("../../../tests/golden/formats.tsv");
    let rows: Vec<FormatRow> = table.lines().skip(1).map(row).collect();
    assert_eq!(rows.len(), 180);
    rows
}

fn row(line: &str) -> FormatRow {
    let cells: Vec<&str> = line.split('\t').collect();
    let [_, _, name, version, hex, json] = cells[..] else { panic!("six cells: {line}") };
    FormatRow {
        name: name.to_owned(),
        version: version.parse().unwrap(),
        body: unhex(hex),
        json: serde_json::from_str(json).unwrap(),
    }
}

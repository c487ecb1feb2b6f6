//! Every row that Kafka's own encoder wrote must decode to the content it was made from, and encode to the
//! same bytes.

mod format_rows;
mod golden_rows;
mod json;
mod view;

use format_rows::{FormatRow, format_rows};
use golden_rows::{Row, rows};
use net::api::{Api, Data, DataVisitor, Visitor};
use net::messages;
use net::wire::{Decode, Encode, Reader, Writer};
use serde_json::Value;

/// Decodes and encodes again.
struct RoundTrip<'r>(&'r Row);

impl Visitor for RoundTrip<'_> {
    type Output = Vec<u8>;

    fn visit<A: Api>(self) -> Vec<u8> {
        if self.0.is_request { again::<A::Request<'_>>(self.0) } else { again::<A::Response<'_>>(self.0) }
    }
}

fn again<'a, M: Decode<'a> + Encode>(row: &'a Row) -> Vec<u8> {
    let mut r = Reader::new(&row.body);
    let message = M::decode(&mut r, row.version).unwrap_or_else(|why| panic!("{row}: {why}"));
    assert!(r.is_empty(), "{row}: {} bytes left", r.remaining());
    let mut w = Writer::new();
    message.encode(&mut w, row.version).unwrap_or_else(|why| panic!("{row}: {why}"));
    w.into_body().unwrap()
}

#[test]
fn rows_encode_to_the_same_bytes() {
    for row in rows() {
        let got = messages::visit(row.key, RoundTrip(&row)).expect("every key in the file has a schema");
        assert_eq!(got, row.body, "{row}");
    }
}

#[test]
fn rows_hold_the_content_they_were_made_from() {
    for row in rows() {
        let view = if row.is_request { json::request } else { json::response };
        let got = view(row.key, row.version, &row.body).unwrap().unwrap();
        assert!(covers(&got, &row.json), "{row}: {got}");
    }
}

/// Equal, but for tagged fields that Kafka's JSON leaves out where they have their default.
fn covers(got: &Value, expect: &Value) -> bool {
    match (got, expect) {
        (Value::Object(got), Value::Object(expect)) => {
            expect.iter().all(|(name, value)| got.get(name).is_some_and(|got| covers(got, value)))
        }
        (Value::Array(got), Value::Array(expect)) => {
            got.len() == expect.len() && got.iter().zip(expect).all(|(got, expect)| covers(got, expect))
        }
        _ => got == expect,
    }
}

#[test]
fn every_version_of_every_message_has_a_row() {
    let rows = rows();
    struct Versions;
    impl Visitor for Versions {
        type Output = std::ops::RangeInclusive<i16>;
        fn visit<A: Api>(self) -> Self::Output {
            A::VERSIONS
        }
    }
    for &key in net::api::ApiKey::ALL {
        for version in messages::visit(key, Versions).into_iter().flatten() {
            for is_request in [true, false] {
                let found =
                    rows.iter().any(|r| r.key == key && r.version == version && r.is_request == is_request);
                assert!(found, "{} {version} request: {is_request}", key.name());
            }
        }
    }
}

/// Decodes and encodes a format again.
struct FormatRoundTrip<'r>(&'r FormatRow);

impl DataVisitor for FormatRoundTrip<'_> {
    type Output = Vec<u8>;

    fn visit<D: Data>(self) -> Vec<u8> {
        let row = self.0;
        let mut r = Reader::new(&row.body);
        let content = D::Content::decode(&mut r, row.version).unwrap_or_else(|why| panic!("{row}: {why}"));
        assert!(r.is_empty(), "{row}: {} bytes left", r.remaining());
        let mut w = Writer::new();
        content.encode(&mut w, row.version).unwrap_or_else(|why| panic!("{row}: {why}"));
        w.into_body().unwrap()
    }
}

#[test]
fn formats_inside_of_records_and_fields_keep_their_bytes_and_their_content() {
    for row in format_rows() {
        let got = messages::visit_data(&row.name, FormatRoundTrip(&row)).expect("it has a schema");
        assert_eq!(got, row.body, "{row}");
        let got = json::data(&row.name, row.version, &row.body).unwrap().unwrap();
        assert!(covers(&got, &row.json), "{row}: {got}");
    }
}

#[test]
fn every_version_of_every_format_has_a_row() {
    struct Versions;
    impl DataVisitor for Versions {
        type Output = std::ops::RangeInclusive<i16>;
        fn visit<D: Data>(self) -> Self::Output {
            D::VERSIONS
        }
    }
    let rows = format_rows();
    for name in messages::FORMATS {
        for version in messages::visit_data(name, Versions).unwrap() {
            assert!(rows.iter().any(|r| r.name == *name && r.version == version), "{name} {version}");
        }
    }
}

//! How Kafka's JSON shows what JSON has no type for: base64 for bytes and records, URL-safe base64 for UUIDs.

use net::wire::{Records, Uuid};
use serde_json::Value;

/// A message as Kafka's JSON.
pub trait View {
    fn view(&self, version: i16) -> Value;
}

pub fn uuid(id: &Uuid) -> Value {
    let text = encode(id, b"-_");
    Value::String(text.trim_end_matches('=').to_owned())
}

pub fn base64(bytes: &[u8]) -> Value {
    Value::String(encode(bytes, b"+/"))
}

pub fn records(records: &Records<'_>) -> Value {
    if records.is_null() { Value::Null } else { base64(&records.to_vec()) }
}

fn encode(bytes: &[u8], last_two: &[u8; 2]) -> String {
    let letters: Vec<u8> = (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').chain(*last_two).collect();
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits =
            group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let letter = letters[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place > group.len() { '=' } else { char::from(letter) });
        }
    }
    text
}

#[test]
fn base64_of_every_length() {
    for (bytes, text) in
        [(&b""[..], ""), (b"f", "Zg=="), (b"fo", "Zm8="), (b"foo", "Zm9v"), (b"foob", "Zm9vYg==")]
    {
        assert_eq!(base64(bytes), Value::String(text.to_owned()));
    }
}

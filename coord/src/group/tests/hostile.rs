//! Requests that no honest client sends, read from bytes as the broker reads them.

use super::*;

/// Kafka's own bytes of every group request, behind a header of its own.
fn frames() -> Vec<Vec<u8>> {
    let table = include_str!("../../../../tests/golden/golden.tsv");
    let mut frames = Vec::new();
    for line in table.lines().skip(1) {
        let cells: Vec<&str> = line.split('\t').collect();
        let (key, version): (i16, i16) = (cells[0].parse().unwrap(), cells[3].parse().unwrap());
        let is_ours = matches!(key, 8 | 9 | 11..=16 | 42 | 47 | 68 | 69);
        if cells[1] != "request" || !is_ours {
            continue;
        }
        let api = net::api::ApiKey::from_i16(key).unwrap();
        let mut frame = Vec::new();
        frame.extend(key.to_be_bytes());
        frame.extend(version.to_be_bytes());
        frame.extend(7i32.to_be_bytes());
        frame.extend(1i16.to_be_bytes());
        frame.push(b'c');
        if net::api::request_header_version(api, version) == 2 {
            frame.push(0);
        }
        let hex = cells[4];
        frame.extend((0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()));
        frames.push(frame);
    }
    assert!(frames.len() > 250, "{}", frames.len());
    frames
}

fn input(frames: &[&Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in frames {
        bytes.extend(u16::try_from(frame.len()).unwrap().to_be_bytes());
        bytes.extend(*frame);
    }
    bytes
}

#[test]
fn kafkas_own_requests_with_bits_turned_over_are_all_answered() {
    let frames: Vec<Vec<u8>> = frames().into_iter().filter(|frame| frame.len() < 60_000).collect();
    let mut random = super::random::Random(11);
    for _ in 0..400 {
        let chosen: Vec<&Vec<u8>> = (0..20).map(|_| &frames[random.below(frames.len())]).collect();
        let mut bytes = input(&chosen);
        for _ in 0..random.below(30) {
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
        }
        fuzz::requests(&bytes);
    }
}

fn replay(name: &str, target: impl Fn(&[u8])) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        target(&std::fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count >= 5, "{name}: {count} inputs");
}

#[test]
fn the_fuzz_corpora() {
    replay("groups", fuzz::requests);
    replay("embedded", fuzz::embedded);
}

#[test]
fn what_members_say_to_each_other_with_bits_turned_over_is_survived() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/embedded");
    let mut random = super::random::Random(5);
    for entry in std::fs::read_dir(folder).unwrap() {
        let honest = std::fs::read(entry.unwrap().path()).unwrap();
        for _ in 0..40 {
            let mut bytes = honest.clone();
            for _ in 0..=random.below(4) {
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
            }
            fuzz::embedded(&bytes);
        }
    }
}

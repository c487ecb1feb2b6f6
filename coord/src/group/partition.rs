//! Which partition of `__consumer_offsets` a group's coordinator leads: Kafka's own rule, since clients' logs move.

/// The partition of a group, or of a transactional id, among `count`; that number must never change.
pub fn partition_for(id: &str, count: i32) -> i32 {
    assert!(count > 0);
    // Java's String.hashCode, over UTF-16 units, and Kafka's abs, whose smallest number is 0.
    let hash = id.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    hash.checked_abs().unwrap_or(0) % count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_javas() {
        let cases = [
            ("", 0),
            ("a", 97),
            ("hello", 99_162_322),
            // The hash of this one is the smallest number there is.
            ("polygenelubricants", 0),
            ("The quick brown fox jumps over the lazy dog", 609_428_141),
            ("😀", 1_772_899),
        ];
        for (id, expect) in cases {
            assert_eq!(partition_for(id, i32::MAX), expect, "{id}");
        }
        assert_eq!(partition_for("hello", 50), 22);
    }
}

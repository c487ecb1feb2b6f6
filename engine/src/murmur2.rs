//! The hash of Kafka's default partitioner: equal keys go to equal partitions, whatever client sent them.

/// Kafka's murmur2 of `key`, as Java's signed number.
pub fn murmur2(key: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    // Kafka hashes `int` lengths; what is longer than 4 GiB is no key.
    let length = u32::try_from(key.len()).unwrap_or(u32::MAX);
    let mut hash = SEED ^ length;
    let (words, tail) = key.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (index, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    (hash ^ (hash >> 15)).cast_signed()
}

/// The partition of `key` among `partition_count`, which must be at least 1.
pub fn partition_of(key: &[u8], partition_count: i32) -> i32 {
    assert!(partition_count >= 1);
    // Kafka clears the sign instead of taking the absolute value.
    (murmur2(key) & i32::MAX) % partition_count
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_value_of_kafkas_own_test() {
        assert_eq!(super::murmur2(b"21"), -973_932_308);
        assert_eq!(super::murmur2(b"foobar"), -790_332_482);
    }
}

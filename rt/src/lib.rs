//! One core's runtime: tasks, operations, time, memory and mail. Knows nothing of Kafka.

#[cfg(test)]
mod tests {
    #[test]
    fn alignment_is_a_page() {
        assert_eq!(4096_usize.count_ones(), 1);
    }
}

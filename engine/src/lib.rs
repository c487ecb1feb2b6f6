//! One shard's storage: record batches, logs, indexes and recovery.

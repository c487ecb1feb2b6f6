//! One shard's storage: record batches, logs, indexes and recovery.

pub mod batch;
pub mod ids;
pub mod varint;

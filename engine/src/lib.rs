//! One shard's storage: record batches, logs, indexes and recovery.

pub mod batch;
pub mod ids;
pub mod murmur2;
pub mod varint;

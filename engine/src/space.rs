//! Where the next bytes of a log come from: allocation steps, zeros carried ahead, block arithmetic. Pure.
//!
//! Writing into blocks that were only fallocated costs twice an overwrite, and syncing a growing file costs a journal
//! commit. So a segment grows in steps ([`step_bytes`]), the next one is allocated before it is needed, and a small
//! flush that reaches the end of the written region carries zeros for the appends behind it ([`zeros_ahead`]).
//! Nothing here recycles files: every byte past the end of a log is zero on media (hazard A2).

use std::ops::Range;

/// The unit of direct I/O: every write starts and ends on it.
pub const BLOCK_BYTES: u64 = 4096;
/// The first allocation of a segment; the smallest there is.
pub const STEP_BYTES_MIN: u64 = 64 * 1024;
/// The largest allocation step of one partition.
pub const STEP_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Zeros carried behind a small flush that reached the end of the written region.
pub const ZEROS_AHEAD_BYTES: u64 = 60 * 1024;
/// Flushes of this size and more carry no zeros themselves: the write would take twice as long.
pub const ZEROS_FLUSH_BYTES_MAX: u64 = 32 * 1024;
/// Flushes of this size and more get no zeros written before them where each one is synced: where the disk is the limit,
/// flushes grow, and nothing is to be written twice there.
pub const AHEAD_SYNCED_FLUSH_BYTES_MAX: u64 = 128 * 1024;
/// The same where flushes are not synced: only small ones gain.
pub const AHEAD_FLUSH_BYTES_MAX: u64 = 32 * 1024;
/// The most zeros written at a time ahead of one log; at most two such runs lie behind its end. Longer runs would hold
/// up the flushes that share the device with them.
pub const AHEAD_STEP_BYTES_MAX: u64 = 256 * 1024;
/// What all logs together should have of such zeros: a start after a crash looks at them.
pub const AHEAD_BYTES_OF_ALL: u64 = 256 * 1024 * 1024;
/// How many flushes one run of zeros is to serve.
const AHEAD_FLUSHES: u64 = 16;

const _: () = assert!(STEP_BYTES_MIN.is_multiple_of(BLOCK_BYTES));
const _: () = assert!(ZEROS_AHEAD_BYTES.is_multiple_of(BLOCK_BYTES));

/// The start of the block that holds `pos`.
pub fn block_floor(pos: u64) -> u64 {
    pos - pos % BLOCK_BYTES
}

/// The first block boundary at or behind `pos`.
pub fn block_ceil(pos: u64) -> u64 {
    pos.next_multiple_of(BLOCK_BYTES)
}

/// How far a segment may be allocated at a time: doubles with what is there, bounded by this partition's part of half
/// of the free space, never below one minimal step.
pub fn step_bytes(allocated: u64, free_bytes: u64, partitions: u64) -> u64 {
    let share = free_bytes / (2 * partitions.max(1));
    let doubled = allocated.clamp(STEP_BYTES_MIN, STEP_BYTES_MAX);
    let bounded = doubled.min(share - share % STEP_BYTES_MIN);
    bounded.max(STEP_BYTES_MIN)
}

/// The allocated end that lets a segment hold `need_end` bytes.
pub fn grow_to(allocated: u64, need_end: u64, step: u64) -> u64 {
    if need_end <= allocated {
        return allocated;
    }
    let grown = (allocated + step).max(need_end.next_multiple_of(STEP_BYTES_MIN));
    assert!(grown >= need_end);
    grown
}

/// Whether the next step should be allocated now, in the background.
pub fn wants_next_step(position: u64, allocated: u64, step: u64, limit: u64) -> bool {
    allocated < limit && allocated.saturating_sub(position) < step / 2
}

/// How many zero bytes the flush of `start..end` (block aligned) carries behind it.
pub fn zeros_ahead(start: u64, end: u64, written: u64, allocated: u64) -> u64 {
    assert!(start <= end);
    assert!(end.is_multiple_of(BLOCK_BYTES));
    if end - start >= ZEROS_FLUSH_BYTES_MAX || end <= written {
        return 0;
    }
    let until = (end + ZEROS_AHEAD_BYTES).min(block_floor(allocated));
    until.saturating_sub(end)
}

/// The zeros to write in the background after a flush of `flush_bytes` ended at or before `written`: about sixteen
/// flushes ahead, always one run of them in store, within `allocated`.
pub fn zeros_behind(
    flush_bytes: u64,
    synced: bool,
    position: u64,
    written: u64,
    allocated: u64,
    partitions: u64,
) -> Option<Range<u64>> {
    let flush_bytes_max = if synced { AHEAD_SYNCED_FLUSH_BYTES_MAX } else { AHEAD_FLUSH_BYTES_MAX };
    if flush_bytes >= flush_bytes_max {
        return None;
    }
    let share = (AHEAD_BYTES_OF_ALL / (2 * partitions.max(1))).clamp(STEP_BYTES_MIN, AHEAD_STEP_BYTES_MAX);
    let step = (flush_bytes * AHEAD_FLUSHES).clamp(STEP_BYTES_MIN, share);
    let step = step - step % STEP_BYTES_MIN;
    let start = written.max(block_ceil(position));
    if start - position.min(start) >= step {
        return None;
    }
    let end = (start + step).min(block_floor(allocated));
    (end > start).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_flushes_get_zeros_written_before_them() {
        const K: u64 = 1024;
        let cases = [
            // flush, synced, position, written, allocated, partitions, expected
            (64 * K, true, 64 * K, 64 * K, 32768 * K, 1, Some(64 * K..320 * K)),
            (64 * K, true, 128 * K, 320 * K, 32768 * K, 1, Some(320 * K..576 * K)),
            (64 * K, true, 64 * K, 320 * K, 32768 * K, 1, None),
            (64 * K, true, 64 * K, 64 * K, 32768 * K, 2000, Some(64 * K..128 * K)),
            (64 * K, true, 64 * K, 64 * K, 128 * K, 1, Some(64 * K..128 * K)),
            (64 * K, false, 64 * K, 64 * K, 32768 * K, 1, None),
            (4 * K, false, 1, 64 * K, 64 * K, 1, None),
            (4 * K, false, 1, 64 * K, 128 * K, 1, Some(64 * K..128 * K)),
            (4 * K, true, 1, 128 * K, 256 * K, 1, None),
            (128 * K, true, 128 * K, 128 * K, 32768 * K, 1, None),
        ];
        for (flush, synced, position, written, allocated, partitions, expected) in cases {
            let planned = zeros_behind(flush, synced, position, written, allocated, partitions);
            assert_eq!(planned, expected, "{flush} {synced} {position} {written} {allocated} {partitions}");
        }
    }

    #[test]
    fn steps_double_and_respect_the_free_space() {
        let free = 1 << 40;
        let cases = [
            // allocated, free, partitions, expected step
            (0, free, 1, STEP_BYTES_MIN),
            (64 << 10, free, 1, 64 << 10),
            (1 << 20, free, 1, 1 << 20),
            (1 << 30, free, 1, STEP_BYTES_MAX),
            (1 << 30, 64 << 20, 8, 4 << 20),
            (1 << 30, 0, 8, STEP_BYTES_MIN),
            (1 << 30, 100_000, 0, STEP_BYTES_MIN),
        ];
        for (allocated, free, partitions, expected) in cases {
            assert_eq!(step_bytes(allocated, free, partitions), expected, "{allocated} {free} {partitions}");
        }
    }

    #[test]
    fn a_batch_larger_than_the_step_fits() {
        assert_eq!(grow_to(0, 100, STEP_BYTES_MIN), STEP_BYTES_MIN);
        assert_eq!(grow_to(65536, 65536, STEP_BYTES_MIN), 65536);
        assert_eq!(grow_to(65536, 1_000_000, STEP_BYTES_MIN), 1_048_576);
    }

    #[test]
    fn only_a_small_flush_at_the_end_of_the_written_region_carries_zeros() {
        let cases = [
            // start, end, written, allocated, zeros
            (0, 4096, 0, 1 << 20, ZEROS_AHEAD_BYTES),
            (4096, 8192, 65536, 1 << 20, 0),
            (65536 - 4096, 65536, 65536, 1 << 20, 0),
            (65536, 69632, 65536, 1 << 20, ZEROS_AHEAD_BYTES),
            (0, 32768, 0, 1 << 20, 0),
            (0, 28672, 0, 1 << 20, ZEROS_AHEAD_BYTES),
            (0, 4096, 0, 16384, 12288),
            (0, 4096, 0, 4096, 0),
        ];
        for (start, end, written, allocated, expected) in cases {
            assert_eq!(zeros_ahead(start, end, written, allocated), expected, "{start}..{end}");
        }
    }

    #[test]
    fn the_next_step_is_asked_for_before_it_is_needed() {
        assert!(!wants_next_step(0, 65536, 65536, 1 << 30));
        assert!(wants_next_step(40_000, 65536, 65536, 1 << 30));
        assert!(!wants_next_step(40_000, 65536, 65536, 65536));
    }
}

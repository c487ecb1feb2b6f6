//! What the fuzz targets (`fuzz/`) do with bytes, as functions, so that tests replay their corpus on any toolchain.
//!
//! Each takes anything, must not panic and must not allocate beyond its limits, and asserts what holds of whatever was
//! accepted. Frames are also built around the bytes: random input would not get past a checksum in a lifetime.

use crate::batch::build::recompress;
use crate::batch::compress::decompress;
use crate::batch::rewrite::{Opened, emptied};
use crate::batch::walk::{Checks, Record, Records, TimestampBounds, decompress_records, walk};
use crate::batch::{Batch, Codec, batches, reseal};
use crate::checkpoint;
use crate::epochs::EpochCache;
use crate::fields::seal;
use crate::ids::Offset;
use crate::index::{CHUNK_BYTES, SealedIndex};
use crate::journal::format;
use crate::producers::{Check, ProducerStates};

mod files;

pub use files::{raft_log, recovery};

const UNPACKED_MAX: usize = 256 * 1024;
const BATCHES_MAX: usize = 64;

/// A run of batches, as it comes from a socket or a disk.
pub fn batch(bytes: &[u8]) {
    let mut states = ProducerStates::new();
    let mut taken = 0;
    for found in batches(bytes).take(BATCHES_MAX) {
        let Ok(batch) = found else { break };
        taken += batch.length_bytes();
        one_batch(&batch, &mut states);
    }
    assert!(taken <= bytes.len());
    // Behind a valid checksum more is believed.
    let mut sealed = bytes.to_vec();
    let end = Batch::parse(&sealed).map(|(_, total)| total);
    if let Some(whole) = end.ok().and_then(|end| sealed.get_mut(..end)) {
        reseal(whole);
        let (batch, _) = Batch::parse(whole).expect("only its checksum changed");
        assert!(batch.crc_is_valid());
        one_batch(&batch, &mut states);
    }
    for codec in Codec::ALL {
        let unpacked = decompress(codec, bytes, UNPACKED_MAX);
        assert!(unpacked.map_or(0, |unpacked| unpacked.len()) <= UNPACKED_MAX);
    }
}

fn one_batch(batch: &Batch<'_>, states: &mut ProducerStates) {
    let checks = Checks {
        compacted: true,
        timestamps: Some(TimestampBounds { now_ms: 0, before_max_ms: i64::MAX, after_max_ms: 1 << 60 }),
        decompressed_bytes_max: UNPACKED_MAX,
    };
    let header_is_good = batch.check_client_header().is_ok();
    let walked = walk(batch, &checks);
    if let Ok(records) = decompress_records(batch, UNPACKED_MAX) {
        let mut count = 0;
        for record in Records::new(batch, &records).filter_map(Result::ok) {
            // Headers were checked when the record was read: none is lost.
            assert_eq!(usize::try_from(record.headers.left()), Ok(record.headers.count()));
            count += 1;
        }
        if walked.is_ok() {
            assert_eq!(batch.record_count().max(0), count);
        }
    }
    if let Ok(opened) = Opened::of(*batch, UNPACKED_MAX) {
        rewrite(batch, &opened);
    }
    if header_is_good && walked.is_ok() {
        let packed = recompress(batch, Codec::Lz4, None, UNPACKED_MAX).expect("it was walked");
        let packed = Batch::parse(&packed).expect("it was just built").0;
        let again = walk(&packed, &checks).expect("the records are the same");
        assert!(again.offsets_are_dense);
    }
    if !header_is_good || states.check(batch) == Ok(Check::InSequence) {
        states.apply(batch);
        assert!(states.covered_end() >= batch.next_offset());
    }
    // It may be refused, because hostile offsets need not rise; it may not panic.
    let _ = ProducerStates::decode(&states.encode(), Offset(i64::MAX));
    let _ = states.clone().truncate(batch.base_offset());
}

/// What compaction makes of a batch that it believes: one that it believes again, with what it kept.
fn rewrite(batch: &Batch<'_>, opened: &Opened<'_>) {
    let keep = |record: &Record<'_>| record.offset.0 & 1 == 0;
    let kept = opened.records().filter(|(record, _)| keep(record)).count();
    if kept == 0 {
        let empty = emptied(batch);
        let (empty, _) = Batch::parse(&empty).expect("it was just built");
        assert_eq!((empty.next_offset(), empty.record_count()), (batch.next_offset(), 0));
        return;
    }
    for horizon_ms in [None, Some(i64::MAX)] {
        let rewritten = opened.rewritten(keep, horizon_ms);
        let (rewritten, _) = Batch::parse(&rewritten).expect("it was just built");
        assert!(rewritten.crc_is_valid());
        // Times that are counted from far away take more bytes.
        let again = Opened::of(rewritten, 2 * UNPACKED_MAX + 16 * kept).expect("it is sound");
        let seen = |opened: &Opened<'_>| -> Vec<_> {
            let records = opened.records().filter(|(record, _)| keep(record));
            records.map(|(r, _)| (r.offset, r.timestamp, r.key.map(<[u8]>::len))).collect()
        };
        assert_eq!(seen(&again), seen(opened));
    }
}

/// An index file, and a body that an index file could have.
pub fn index(bytes: &[u8]) {
    for bytes in [bytes, &seal(*b"CLIX", 1, bytes)] {
        let Ok(index) = SealedIndex::decode(bytes) else { continue };
        for at in [i64::MIN, -1, 0, index.base().0, index.end().0, i64::MAX] {
            assert!(index.lookup(Offset(at)).0 <= index.segment_bytes());
            assert!(index.lookup_time(at).0 <= index.segment_bytes());
        }
        let _ = index.chunk_is_valid(index.segment_bytes() / CHUNK_BYTES, bytes);
        assert!(!index.chunk_is_valid(u64::MAX, bytes));
    }
}

/// A journal file, and the body of an entry of one.
pub fn journal(bytes: &[u8]) {
    const KEY: [u8; 16] = [7; 16];
    let head = seal(*b"CLJF", 1, &[&KEY[..], &[0; 8]].concat());
    let mut file = vec![0; 4096];
    file[..head.len()].copy_from_slice(&head);
    file.extend(seal(*b"CLJN", 1, &[&KEY, bytes].concat()));
    for file in [bytes, &file] {
        for (_, _, flush) in format::read(file).flushes {
            assert_eq!(format::offsets(&flush.batches), Ok((flush.base, flush.end)));
        }
    }
}

/// A checkpoint slot, and the bodies of everything in one.
pub fn checkpoint(bytes: &[u8]) {
    let framed = seal(*b"CLCP", 1, bytes);
    for slot in [bytes, &framed] {
        let chosen = checkpoint::choose(slot, &framed);
        let Some((_, checkpoint)) = chosen.newest else { continue };
        let again = checkpoint::encode(checkpoint.sequence, &checkpoint.logs);
        assert_eq!(checkpoint::decode(&again), Ok(checkpoint));
    }
    for bytes in [bytes, &seal(*b"CLEP", 1, bytes)] {
        if let Ok(epochs) = EpochCache::decode(bytes) {
            assert_eq!(EpochCache::decode(&epochs.encode()), Ok(epochs));
        }
    }
    for bytes in [bytes, &seal(*b"CLPS", 1, bytes)] {
        if let Ok(states) = ProducerStates::decode(bytes, Offset(i64::MAX)) {
            assert_eq!(ProducerStates::decode(&states.encode(), Offset(i64::MAX)), Ok(states));
        }
    }
}

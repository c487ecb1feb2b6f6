//! What lies behind the last batch that continues a log: nothing, a torn flush, or damage. Pure.
//!
//! Every byte behind the end was zero before the flush in flight (rule 9), and a device loses whole sectors. So a torn
//! flush shows zero sectors where something is missing, and it ends within one flush. Bytes that fail without a missing
//! sector, a batch that goes on behind an intact stretch, or anything further away than one flush is damage to what was
//! acknowledged, and is never cut (A4).

use crate::batch::{self, Batch};
use crate::ids::{LeaderEpoch, Offset};

/// The smallest unit that a device writes or loses.
const SECTOR_BYTES: u64 = 512;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Behind {
    /// Zeros.
    Clean,
    /// What is left of the flush that was in flight.
    Torn,
    Damaged {
        position: u64,
        why: String,
    },
}

/// What is known where the search stopped.
pub(crate) struct Stop {
    /// The file position behind the last good batch; `bytes` begin here.
    pub pos: u64,
    pub end: Offset,
    pub epoch: LeaderEpoch,
    /// How far one flush can reach; `None` where a host crash may lose any unsynced part.
    pub torn_bytes_max: Option<u64>,
}

pub(crate) fn judge(bytes: &[u8], stop: &Stop) -> Behind {
    let Some(last) = bytes.iter().rposition(|&byte| byte != 0) else { return Behind::Clean };
    let damaged =
        |at: usize, why: &str| Behind::Damaged { position: stop.pos + at as u64, why: why.to_owned() };
    if let Some(max) = stop.torn_bytes_max
        && last as u64 >= max
    {
        return damaged(0, "data goes on further behind the end than one flush reaches");
    }
    if let Some(next) = find_continuation(&bytes[..=last], stop)
        && !misses_a_sector(&bytes[..next], stop)
    {
        return damaged(0, "a batch that continues the log lies behind bytes of which nothing is missing");
    }
    match Batch::parse(bytes) {
        Ok((_, total)) if !misses_a_sector(&bytes[..total], stop) => {
            damaged(0, "a whole batch fails its checks and none of it is missing")
        }
        Err(batch::Error::Length(_) | batch::Error::OldMagic(_) | batch::Error::Magic(_))
            if bytes.get(..batch::HEADER_BYTES).is_some_and(|header| !misses_a_sector(header, stop)) =>
        {
            damaged(0, "a header is not one, and none of it is missing")
        }
        Ok(_) | Err(_) => Behind::Torn,
    }
}

/// Whether all bytes are zero, by pieces that the compiler turns into vector instructions.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(64).all(|piece| piece.iter().fold(0, |seen, byte| seen | byte) == 0)
}

/// Whether a sector's part of `bytes`, which begin at the stop, is zero from end to end. The first part may be no more
/// than the leading zeros of the base offset that belongs there; then it says nothing.
fn misses_a_sector(bytes: &[u8], stop: &Stop) -> bool {
    let first = (SECTOR_BYTES - stop.pos % SECTOR_BYTES) as usize;
    let (head, rest) = bytes.split_at(first.min(bytes.len()));
    let lawful = stop.end.0.leading_zeros() as usize / 8;
    (head.len() > lawful && is_zero(head)) || rest.chunks(SECTOR_BYTES as usize).any(is_zero)
}

/// Where the next whole, valid batch of this log begins, after the first byte.
fn find_continuation(bytes: &[u8], stop: &Stop) -> Option<usize> {
    let limit = stop.end.0.saturating_add(i64::from(i32::MAX));
    (1..bytes.len()).find(|&at| {
        let Some(header) = bytes[at..].first_chunk::<17>() else { return false };
        let base = i64::from_be_bytes(std::array::from_fn(|index| header[index]));
        if header[16] != 2 || base <= stop.end.0 || base > limit {
            return false;
        }
        Batch::parse(&bytes[at..])
            .is_ok_and(|(batch, _)| batch.leader_epoch() >= stop.epoch && batch.crc_is_valid())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::tests::batch_of;

    const POS: u64 = 1000;

    fn written(count: i64) -> (Vec<u8>, usize) {
        let mut bytes = Vec::new();
        let mut len = 0;
        for offset in 0..count {
            let batch = batch_of(Offset(offset), LeaderEpoch(3), 900);
            len = batch.len();
            bytes.extend(batch);
        }
        bytes.resize(bytes.len() + 8192, 0);
        (bytes, len)
    }

    fn stop(end: i64) -> Stop {
        Stop { pos: POS, end: Offset(end), epoch: LeaderEpoch(3), torn_bytes_max: Some(1 << 20) }
    }

    #[test]
    fn zeros_are_clean_and_a_missing_sector_is_a_tear() {
        assert_eq!(judge(&[0; 5000], &stop(0)), Behind::Clean);
        let (bytes, len) = written(5);
        let mut sector = (SECTOR_BYTES - POS % SECTOR_BYTES) as usize;
        while sector + 512 < len {
            let mut torn = bytes.clone();
            torn[sector..sector + 512].fill(0);
            assert_eq!(judge(&torn, &stop(0)), Behind::Torn, "sector at {sector}");
            sector += 512;
        }
    }

    #[test]
    fn a_flipped_bit_is_damage_wherever_it_is() {
        let (bytes, len) = written(3);
        for at in (0..len).step_by(7) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            assert!(matches!(judge(&flipped, &stop(0)), Behind::Damaged { .. }), "byte {at}");
        }
        let (mut last, len) = written(1);
        last[len - 1] ^= 1;
        assert!(matches!(judge(&last, &stop(0)), Behind::Damaged { .. }));
    }

    #[test]
    fn what_is_further_away_than_a_flush_is_damage() {
        let (mut bytes, _) = written(5);
        bytes[0..1000].fill(0);
        assert_eq!(judge(&bytes, &stop(0)), Behind::Torn);
        let near = Stop { torn_bytes_max: Some(2000), ..stop(0) };
        assert!(matches!(judge(&bytes, &near), Behind::Damaged { .. }));
        assert_eq!(judge(&bytes, &Stop { torn_bytes_max: None, ..stop(0) }), Behind::Torn);
    }
}

//! How the bytes of one answer are divided between the cores that own its partitions. Pure.
//!
//! On one core a fetch takes its partitions in their order until the bytes are used up, and the first that has data gives
//! a batch however large it is (KIP-74). Several cores read at the same time, so each gets a part of the bytes: all that
//! its partitions may take where that fits together, else in proportion. What one leaves unused is not given to another;
//! it is there for the next fetch, and the order of a session turns, so no partition starves. Only where the first
//! partition with data got nothing, because its core's part is too small for its batch, it is asked again, alone.

use crate::shard::mail::Fetched;

/// The parts of `max_bytes` for owners that may take at most `wants` each.
pub fn divide(wants: &[usize], max_bytes: usize) -> Vec<usize> {
    let total = wants.iter().fold(0_u128, |total, want| total + *want as u128);
    if total <= max_bytes as u128 {
        return wants.to_vec();
    }
    let part = |want: &usize| *want as u128 * max_bytes as u128 / total;
    wants.iter().map(|want| usize::try_from(part(want)).unwrap_or(max_bytes)).collect()
}

/// The place of the first partition that has data, if it gave none of it.
pub fn starved(found: &[Fetched]) -> Option<usize> {
    let first = found.iter().position(|one| one.available > 0)?;
    (found[first].bytes == 0).then_some(first)
}

/// After a batch larger than its part was added: drops what does not fit beside it, in order.
pub fn keep_within(found: &mut [Fetched], max_bytes: usize) {
    let mut total = 0_usize;
    for one in found.iter_mut().filter(|one| one.bytes > 0) {
        if total > 0 && total.saturating_add(one.bytes) > max_bytes {
            one.records.clear();
            one.bytes = 0;
        }
        total = total.saturating_add(one.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use net::error_code::ErrorCode;

    #[test]
    fn everybody_gets_what_it_wants_or_its_part() {
        let check = |wants: &[usize], max_bytes, expect: &[usize]| {
            assert_eq!(divide(wants, max_bytes), expect, "{wants:?} of {max_bytes}");
        };
        check(&[], 100, &[]);
        check(&[100], 50, &[50]);
        check(&[10, 20], 100, &[10, 20]);
        check(&[10, 20], 30, &[10, 20]);
        check(&[10, 30], 20, &[5, 15]);
        check(&[1, 1, 1], 1, &[0, 0, 0]);
        check(&[usize::MAX, usize::MAX], usize::MAX, &[usize::MAX / 2, usize::MAX / 2]);
        check(&[10, 20], 0, &[0, 0]);
    }

    /// Pairs of (available, given).
    fn found(parts: &[(usize, usize)]) -> Vec<Fetched> {
        let one = |&(available, bytes): &(usize, usize)| Fetched {
            available,
            bytes,
            ..Fetched::failed(0, ErrorCode::None)
        };
        parts.iter().map(one).collect()
    }

    #[test]
    fn the_first_with_data_gives_some() {
        let check =
            |parts: &[(usize, usize)], expect| assert_eq!(starved(&found(parts)), expect, "{parts:?}");
        check(&[], None);
        check(&[(0, 0), (0, 0)], None);
        check(&[(0, 0), (9, 9), (9, 0)], None);
        check(&[(0, 0), (9, 0), (5, 5)], Some(1));
        check(&[(9, 0)], Some(0));
    }

    #[test]
    fn what_does_not_fit_beside_the_first_is_left_out() {
        let check = |given: &[usize], max_bytes, expect: &[usize]| {
            let mut found = found(&given.iter().map(|&bytes| (bytes, bytes)).collect::<Vec<_>>());
            keep_within(&mut found, max_bytes);
            let kept: Vec<usize> = found.iter().map(|one| one.bytes).collect();
            assert_eq!(kept, expect, "{given:?} within {max_bytes}");
        };
        check(&[5, 5], 10, &[5, 5]);
        check(&[0, 50, 5], 10, &[0, 50, 0]);
        check(&[4, 0, 7, 6], 10, &[4, 0, 0, 6]);
    }
}

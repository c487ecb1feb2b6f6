//! Record values that say who they are: eight bytes of a number that no other record of the run has, and bytes that follow
//! from it. A value that was altered, cut or mixed with another does not follow.

use crate::random::Random;

const SMALL_BYTES_MAX: u64 = 1200;
/// Beyond what a flush carries zeros behind, and over several pages.
const LARGE_BYTES_MAX: u64 = 40_000;
const LARGE_ONE_IN: u64 = 24;
/// Few, so that a compacted topic has much to remove.
const KEYS: u64 = 5;

/// The key of a number's record.
pub fn key(number: u64) -> [u8; 1] {
    [b'a' + u8::try_from(number % KEYS).expect("a few keys")]
}

/// The value of a number.
pub fn of(number: u64) -> Vec<u8> {
    let mut random = Random::new(number);
    let most = if random.one_in(LARGE_ONE_IN) { LARGE_BYTES_MAX } else { SMALL_BYTES_MAX };
    let bytes = usize::try_from(random.between(8, most)).expect("a length fits");
    let mut value = number.to_be_bytes().to_vec();
    while value.len() < bytes {
        value.extend_from_slice(&random.draw().to_be_bytes());
    }
    value
}

/// The number of a value, if it is one.
pub fn number(value: &[u8]) -> Option<u64> {
    let number = u64::from_be_bytes(*value.first_chunk()?);
    (of(number) == value).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_known_and_an_altered_one_is_not() {
        for wanted in 0..200 {
            let mut value = of(wanted);
            assert_eq!(number(&value), Some(wanted));
            let last = value.len() - 1;
            value[last] ^= 1;
            assert_eq!(number(&value), None);
            assert_eq!(number(&value[..last]), None);
        }
    }
}

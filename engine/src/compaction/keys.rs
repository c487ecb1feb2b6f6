//! The newest offset of every key of a stretch of log, in memory that is bounded.
//!
//! A key is known by 128 bits of SipHash-2-4 under a secret of this run. Two keys with the same hash would cost the older
//! one its newest record; among 2^20 keys that happens with a chance of 2^-89, and nobody who chooses keys can aim for
//! it, because the secret is drawn anew for each run. A 64-bit hash would not do: 2^-25 a run.
//!
//! An open table, 24 bytes a place, at most three quarters full. It doubles until it has as many places as it may; then
//! it takes no further key, and the run covers only what it has learned.

/// How many places a run's table has at most: 24 MiB, and room for 786,432 keys.
pub const PLACES_MAX: usize = 1 << 20;
const PLACES_FIRST: usize = 1 << 10;
const _: () = assert!(size_of::<Place>() == 24);

/// What makes a run's hashes its own.
#[derive(Clone, Copy, Debug)]
pub struct Secret(pub u64, pub u64);

#[derive(Clone, Copy)]
struct Place {
    hash: [u64; 2],
    /// -1: nothing is here.
    offset: i64,
}

const FREE: Place = Place { hash: [0; 2], offset: -1 };

pub struct KeyMap {
    secret: Secret,
    places: Vec<Place>,
    places_max: usize,
    count: usize,
}

impl KeyMap {
    /// With at most `places_max` places, rounded down to a power of two.
    pub fn new(secret: Secret, places_max: usize) -> KeyMap {
        let places_max = 1 << places_max.max(4).ilog2();
        KeyMap { secret, places: vec![FREE; PLACES_FIRST.min(places_max)], places_max, count: 0 }
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// Takes note that `key` was written at `offset`, which is not below any before it. False if there is no room for a
    /// further key.
    #[must_use = "a key that is not in the map must not be taken for one that is"]
    pub fn put(&mut self, key: &[u8], offset: i64) -> bool {
        assert!(offset >= 0);
        let hash = hash(self.secret, key);
        let mut at = self.find(&hash);
        if self.places[at].offset < 0 {
            if (self.count + 1) * 4 > self.places.len() * 3 {
                if self.places.len() == self.places_max {
                    return false;
                }
                self.double();
                at = self.find(&hash);
            }
            self.count += 1;
        }
        assert!(self.places[at].offset <= offset);
        self.places[at] = Place { hash, offset };
        true
    }

    /// The newest offset of `key`, if it was seen.
    pub fn get(&self, key: &[u8]) -> Option<i64> {
        let place = self.places[self.find(&hash(self.secret, key))];
        (place.offset >= 0).then_some(place.offset)
    }

    /// Where the hash is, or would be.
    fn find(&self, hash: &[u64; 2]) -> usize {
        let mask = self.places.len() - 1;
        // The table is never full, so this ends.
        let mut at = hash[0] as usize & mask;
        while self.places[at].offset >= 0 && self.places[at].hash != *hash {
            at = (at + 1) & mask;
        }
        at
    }

    fn double(&mut self) {
        let wider = vec![FREE; self.places.len() * 2];
        for place in std::mem::replace(&mut self.places, wider) {
            if place.offset >= 0 {
                let at = self.find(&place.hash);
                self.places[at] = place;
            }
        }
    }
}

/// SipHash-2-4 with 128 bits of output.
fn hash(Secret(k0, k1): Secret, bytes: &[u8]) -> [u64; 2] {
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        absorb(&mut v, u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    // The length's low byte ends the last word.
    last[7] = bytes.len() as u8;
    absorb(&mut v, u64::from_le_bytes(last));
    v[2] ^= 0xee;
    (0..4).for_each(|_| round(&mut v));
    let first = v[0] ^ v[1] ^ v[2] ^ v[3];
    v[1] ^= 0xdd;
    (0..4).for_each(|_| round(&mut v));
    [first, v[0] ^ v[1] ^ v[2] ^ v[3]]
}

fn absorb(v: &mut [u64; 4], word: u64) {
    v[3] ^= word;
    round(v);
    round(v);
    v[0] ^= word;
}

fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_siphash_of_128_bits() {
        let secret = Secret(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
        // From the reference implementation's vectors: the input is 0, 1, 2, ...
        let cases = [
            (0, "a3817f04ba25a8e66df67214c7550293"),
            (1, "da87c1d86b99af44347659119b22fc45"),
            (2, "8177228da4a45dc7fca38bdef60affe4"),
        ];
        for (length, expect) in cases {
            let input: Vec<u8> = (0..length).collect();
            let bytes = hash(secret, &input).map(u64::to_le_bytes).concat();
            let found: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(found, expect, "{length}");
        }
    }

    #[test]
    fn it_holds_the_newest_offset_of_each_key_and_refuses_what_it_has_no_room_for() {
        let mut map = KeyMap::new(Secret(1, 2), 4096);
        let key = |n: i64| format!("key-{n}").into_bytes();
        let mut taken = 0;
        for n in 0..5000 {
            assert_eq!(map.get(&key(n)), None);
            if !map.put(&key(n), n) {
                break;
            }
            taken += 1;
        }
        assert_eq!(taken, 3072);
        for n in 0..taken {
            assert!(map.put(&key(n), n + 10_000), "a key that is there has room");
        }
        assert!((0..taken).all(|n| map.get(&key(n)) == Some(n + 10_000)));
        assert!(!map.put(b"another", 20_000));
        assert_eq!((map.count() as i64, map.get(b"another")), (taken, None));
    }
}

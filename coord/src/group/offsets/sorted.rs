//! A map that is read far more often than it grows, and mostly grows at its end: entries in order, in pieces of bounded
//! size that are nearly full.
//!
//! `BTreeMap` leaves its nodes half empty when keys come in order, as partitions do when a group commits for the first
//! time; with forty bytes an entry that was most of what an offset took. An insertion moves at most one piece and the list
//! of pieces.
//!
//! Invariants: no piece is empty; keys ascend within pieces and from piece to piece.

use std::ops::Bound;

/// Entries of a piece.
const PIECE_MAX: usize = 64;
/// A piece grows by so many at a time: what a group with few entries wastes.
const PIECE_STEP: usize = 4;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sorted<K, V> {
    pieces: Vec<Vec<(K, V)>>,
}

impl<K, V> Default for Sorted<K, V> {
    fn default() -> Self {
        Sorted { pieces: Vec::new() }
    }
}

impl<K: Ord + Copy, V> Sorted<K, V> {
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        let piece = self.pieces.get(self.piece_of(key))?;
        let at = piece.binary_search_by(|(other, _)| other.cmp(key)).ok()?;
        Some(&piece[at].1)
    }

    /// What was there before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        // Behind everything there is, it goes to the last piece.
        let index = self.piece_of(&key).min(self.pieces.len().saturating_sub(1));
        let is_last = index + 1 == self.pieces.len();
        let Some(piece) = self.pieces.get_mut(index) else {
            self.pieces.push(piece_with(key, value));
            return None;
        };
        match piece.binary_search_by(|(other, _)| other.cmp(&key)) {
            Ok(at) => Some(std::mem::replace(&mut piece[at].1, value)),
            Err(at) if piece.len() < PIECE_MAX => {
                grow(piece);
                piece.insert(at, (key, value));
                None
            }
            Err(PIECE_MAX) if is_last => {
                self.pieces.push(piece_with(key, value));
                None
            }
            Err(_) => {
                let upper = piece.split_off(PIECE_MAX / 2);
                piece.shrink_to_fit();
                self.pieces.insert(index + 1, upper);
                self.insert(key, value)
            }
        }
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        let index = self.piece_of(key);
        let piece = self.pieces.get_mut(index)?;
        let at = piece.binary_search_by(|(other, _)| other.cmp(key)).ok()?;
        let (_, value) = piece.remove(at);
        if piece.is_empty() {
            self.pieces.remove(index);
        }
        Some(value)
    }

    /// Drops entries from the end, in whole pieces; how many.
    pub fn shed(&mut self, count: usize) -> usize {
        let mut dropped = 0;
        while dropped < count
            && let Some(piece) = self.pieces.pop()
        {
            dropped += piece.len();
        }
        dropped
    }

    /// The entries from there on, in order.
    pub fn from(&self, from: Bound<K>) -> impl Iterator<Item = (&K, &V)> {
        let is_before = move |key: &K| match &from {
            Bound::Unbounded => false,
            Bound::Included(from) => key < from,
            Bound::Excluded(from) => key <= from,
        };
        let first =
            self.pieces.partition_point(|piece| piece.last().is_some_and(|(last, _)| is_before(last)));
        let skipped =
            self.pieces.get(first).map_or(0, |piece| piece.partition_point(|(key, _)| is_before(key)));
        self.pieces[first..].iter().flatten().skip(skipped).map(|(key, value)| (key, value))
    }

    /// The first piece that ends at the key or behind it.
    fn piece_of(&self, key: &K) -> usize {
        self.pieces.partition_point(|piece| piece.last().is_some_and(|(last, _)| last < key))
    }
}

fn piece_with<K, V>(key: K, value: V) -> Vec<(K, V)> {
    let mut piece = Vec::new();
    grow(&mut piece);
    piece.push((key, value));
    piece
}

fn grow<T>(piece: &mut Vec<T>) {
    if piece.len() == piece.capacity() {
        piece.reserve_exact(PIECE_STEP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn check(sorted: &Sorted<u32, u64>, model: &BTreeMap<u32, u64>) {
        assert!(sorted.from(Bound::Unbounded).eq(model.iter()));
        assert_eq!(sorted.is_empty(), model.is_empty());
        for piece in &sorted.pieces {
            assert!(!piece.is_empty());
            assert!(piece.len() <= PIECE_MAX);
        }
    }

    #[test]
    fn it_is_a_map_whatever_the_order() {
        let (mut sorted, mut model, mut state) = (Sorted::default(), BTreeMap::new(), 1u64);
        for step in 0..20_000u64 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let key = (state >> 33) as u32 % 700;
            // Grows, then shrinks to nothing, and grows again.
            let removes = (state >> 20) % 4 < if step % 10_000 < 5_000 { 1 } else { 3 };
            let (found, expected) = match removes {
                true => (sorted.remove(&key), model.remove(&key)),
                false => (sorted.insert(key, step), model.insert(key, step)),
            };
            assert_eq!(found, expected);
            assert_eq!(sorted.get(&key), model.get(&key));
            if step % 97 == 0 {
                check(&sorted, &model);
                for from in [Bound::Included(key), Bound::Excluded(key)] {
                    assert!(sorted.from(from).eq(model.range((from, Bound::Unbounded))));
                }
            }
        }
        for key in 0..700 {
            assert_eq!(sorted.remove(&key), model.remove(&key));
        }
        check(&sorted, &model);
    }

    #[test]
    fn keys_in_order_fill_their_pieces() {
        let mut sorted = Sorted::default();
        for key in 0..1_000u32 {
            assert_eq!(sorted.insert(key, u64::from(key)), None);
        }
        let room: usize = sorted.pieces.iter().map(Vec::capacity).sum();
        assert!(room <= 1_000 + PIECE_STEP, "{room}");
    }
}

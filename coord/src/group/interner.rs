//! Numbers for values that are mentioned often: a committed offset holds two of four bytes instead of a name and an id.

use std::collections::BTreeMap;

use super::unload::shed;

#[derive(Debug)]
pub struct Interner<T> {
    numbers: BTreeMap<T, u32>,
    /// Each value with how often it is in use; free numbers have none.
    values: Vec<Option<(T, u32)>>,
    free: Vec<u32>,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Interner { numbers: BTreeMap::new(), values: Vec::new(), free: Vec::new() }
    }
}

impl<T: Ord + Clone> Interner<T> {
    /// The number of a value, in use once more.
    pub fn take<Q: Ord + ?Sized>(&mut self, value: &Q, make: impl FnOnce() -> T) -> u32
    where
        T: std::borrow::Borrow<Q>,
    {
        if let Some(number) = self.numbers.get(value).copied() {
            if let Some((_, count)) = self.slot(number) {
                *count += 1;
            }
            return number;
        }
        let value = make();
        let number = self.free.pop().unwrap_or_else(|| {
            self.values.push(None);
            u32::try_from(self.values.len() - 1).expect("a shard has fewer names than that")
        });
        self.numbers.insert(value.clone(), number);
        self.values[number as usize] = Some((value, 1));
        number
    }

    /// In use once less.
    pub fn give_back(&mut self, number: u32) {
        let Some((value, count)) = self.slot(number) else { panic!("{number} is not in use") };
        *count -= 1;
        if *count == 0 {
            let value = value.clone();
            self.numbers.remove(&value);
            self.values[number as usize] = None;
            self.free.push(number);
        }
    }

    pub fn find<Q: Ord + ?Sized>(&self, value: &Q) -> Option<u32>
    where
        T: std::borrow::Borrow<Q>,
    {
        self.numbers.get(value).copied()
    }

    pub fn value(&self, number: u32) -> &T {
        let slot = self.values.get(number as usize).and_then(Option::as_ref);
        &slot.expect("who holds a number keeps it in use").0
    }

    /// Drops values in use, so many at most. Nobody may hold a number any more.
    pub fn shed(&mut self, left: &mut usize) {
        shed(&mut self.numbers, left);
        while *left > 0 && self.values.pop().is_some() {
            *left -= 1;
        }
        self.free.clear();
    }

    fn slot(&mut self, number: u32) -> Option<&mut (T, u32)> {
        self.values.get_mut(number as usize).and_then(Option::as_mut)
    }
}

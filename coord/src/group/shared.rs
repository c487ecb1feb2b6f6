//! What many members say alike is held once: client ids, hosts, names of topics, subscriptions. What nobody says any more
//! is forgotten when as much again has come, and from time to time.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::{Bytes, Text};

/// Below this many they are not looked through when another comes.
const KEPT_MIN: usize = 64;
/// What is larger than this is everybody's own: it would be kept for long after the last who said it.
const SHARED_BYTES_MAX: usize = 4096;

#[derive(Debug, Default)]
pub struct Shared {
    texts: Known<str>,
    bytes: Known<[u8]>,
    lists: Known<[Text]>,
}

#[derive(Debug)]
struct Known<T: ?Sized> {
    values: BTreeSet<Rc<T>>,
    /// How many there may be before they are looked through.
    count_max: usize,
}

impl Shared {
    pub fn text(&mut self, text: &str) -> Text {
        self.texts.find(text)
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> Bytes {
        self.bytes.find(bytes)
    }

    pub fn list(&mut self, texts: &[Text]) -> Rc<[Text]> {
        if let Some(known) = self.lists.values.get(texts) {
            return known.clone();
        }
        let texts: Vec<Text> = texts.iter().map(|text| self.texts.find(text)).collect();
        self.lists.find(&texts)
    }

    /// Drops what is known, so much at most.
    pub fn shed(&mut self, left: &mut usize) {
        self.lists.shed(left);
        self.texts.shed(left);
        self.bytes.shed(left);
    }

    /// Lets go of what nobody says any more.
    pub fn forget_unused(&mut self) {
        // Lists hold texts.
        self.lists.forget_unused();
        self.texts.forget_unused();
        self.bytes.forget_unused();
    }
}

impl<T: ?Sized> Default for Known<T> {
    fn default() -> Self {
        Known { values: BTreeSet::new(), count_max: KEPT_MIN }
    }
}

impl<T: Ord + ?Sized> Known<T>
where
    Rc<T>: for<'v> From<&'v T>,
{
    fn find(&mut self, value: &T) -> Rc<T> {
        if let Some(known) = self.values.get(value) {
            return known.clone();
        }
        let new: Rc<T> = value.into();
        if size_of_val(value) <= SHARED_BYTES_MAX {
            if self.values.len() >= self.count_max {
                self.forget_unused();
            }
            self.values.insert(new.clone());
        }
        new
    }

    fn shed(&mut self, left: &mut usize) {
        while *left > 0 && self.values.pop_first().is_some() {
            *left -= 1;
        }
    }

    fn forget_unused(&mut self) {
        self.values.retain(|known| Rc::strong_count(known) > 1);
        self.count_max = KEPT_MIN.max(self.values.len() * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_again_is_the_same() {
        let mut shared = Shared::default();
        let first = shared.text("a");
        assert!(Rc::ptr_eq(&first, &shared.text("a")));
        assert!(Rc::ptr_eq(&shared.bytes(b"m"), &shared.bytes(b"m")));
        let list = shared.list(&["a".into(), "b".into()]);
        assert!(Rc::ptr_eq(&list, &shared.list(&["a".into(), "b".into()])));
        assert!(Rc::ptr_eq(&list[0], &first));
    }

    #[test]
    fn what_nobody_says_any_more_is_forgotten() {
        let mut shared = Shared::default();
        let held: Vec<Text> = (0..10).map(|number| shared.text(&format!("held {number}"))).collect();
        for number in 0..1_000 {
            shared.text(&format!("let go {number}"));
            assert!(shared.texts.values.len() <= KEPT_MIN, "after {number}");
        }
        for (number, text) in held.iter().enumerate() {
            assert!(Rc::ptr_eq(text, &shared.text(&format!("held {number}"))));
        }
        shared.list(&["in a list".into()]);
        shared.forget_unused();
        assert_eq!((shared.texts.values.len(), shared.lists.values.len()), (held.len(), 0));
        shared.bytes(&[7; SHARED_BYTES_MAX + 1]);
        assert_eq!(shared.bytes.values.len(), 0, "what is large is nobody else's");
    }
}

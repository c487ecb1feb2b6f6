//! Choices of a plan and of a workload, drawn from the seed.

/// splitmix64: one number of state, so a seed is all there is to know.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In `low..high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low < high);
        low + self.draw() % (high - low)
    }

    pub fn one_in(&mut self, count: u64) -> bool {
        self.draw().is_multiple_of(count)
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let last = u64::try_from(from.len()).expect("a count fits");
        from[usize::try_from(self.between(0, last)).expect("an index fits")]
    }
}

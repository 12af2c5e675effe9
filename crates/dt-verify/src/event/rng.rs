//! A seeded generator of pseudo-random numbers, for samples and simulations.

/// A seeded generator of pseudo-random numbers (SplitMix64). Not for secrets.
///
/// The same seed always returns the same numbers, also in later versions, so that samples stay the same. A library for random
/// numbers does not guarantee that.
///
/// # Examples
///
/// ```
/// use dt_verify::event::simulation::Rng;
///
/// let (mut one, mut other) = (Rng::new(7), Rng::new(7));
/// assert_eq!(one.next_u64(), other.next_u64());
/// ```
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// Creates a generator with this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next random number.
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a random number from 0 to `count` - 1; 0 if `count` is 0.
    pub fn below(&mut self, count: u32) -> u32 {
        let number = self.next_u64().checked_rem(u64::from(count)).unwrap_or(0);
        u32::try_from(number).unwrap_or(0)
    }

    /// Returns a random number from `first` to `first + count - 1`; `first` if `count` is 0.
    pub fn from(&mut self, first: i64, count: u32) -> i64 {
        first.saturating_add(i64::from(self.below(count)))
    }

    /// Returns a random multiple of 0.1: one of `count` values that start at `first` tenths. `tenths(-10, 21)` returns numbers
    /// from -1.0 to 1.0.
    pub fn tenths(&mut self, first: i32, count: u32) -> f64 {
        (f64::from(first) + f64::from(self.below(count))) / 10.0
    }

    /// Returns `true` with the given probability, from 0 to 1.
    pub fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && f64::from(self.below(1 << 24)) < probability * f64::from(1 << 24)
    }

    /// Returns `first` or one of the `others`, at random.
    pub(crate) fn pick<T: Clone>(&mut self, first: T, others: &[T]) -> T {
        let count = u32::try_from(others.len()).unwrap_or(0).saturating_add(1);
        let chosen = usize::try_from(self.below(count)).unwrap_or(0);
        chosen.checked_sub(1).and_then(|at| others.get(at)).cloned().unwrap_or(first)
    }
}

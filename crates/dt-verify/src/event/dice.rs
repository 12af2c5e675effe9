//! Numbers for made-up values.

/// Numbers that look random and are the same every time: SplitMix64.
#[derive(Debug, Clone)]
pub struct Dice(pub u64);

impl Dice {
    /// Returns the next 64 bits.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `count` numbers from 0.
    pub fn below(&mut self, count: u32) -> u32 {
        let roll = self.next().checked_rem(u64::from(count)).unwrap_or(0);
        u32::try_from(roll).unwrap_or(0)
    }

    /// One of `count` numbers from `first`.
    pub fn from(&mut self, first: i64, count: u32) -> i64 {
        first.saturating_add(i64::from(self.below(count)))
    }

    /// One of `count` tenths from `first` tenths.
    pub fn tenths(&mut self, first: i32, count: u32) -> f64 {
        (f64::from(first) + f64::from(self.below(count))) / 10.0
    }

    /// Whether something of this probability, from 0 to 1, happens.
    pub fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && f64::from(self.below(1 << 24)) < probability * f64::from(1 << 24)
    }

    /// Returns one of several texts.
    pub fn pick<'a>(&mut self, first: &'a str, others: &[&'a str]) -> &'a str {
        let count = u32::try_from(others.len()).unwrap_or(0).saturating_add(1);
        let chosen = usize::try_from(self.below(count)).unwrap_or(0);
        chosen.checked_sub(1).and_then(|at| others.get(at)).copied().unwrap_or(first)
    }
}

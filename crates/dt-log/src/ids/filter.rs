//! A Bloom filter over keys. Checking an unknown key reads little more than one cache line.
//!
//! The filter is an array of lines of 512 bits. A key has five lines, and two bits in each: an unknown key is nearly always
//! recognised in the first or second line. Readers share the filter with one writer without a lock: bits are only ever set,
//! and a caller that learns that a key was stored sees its bits by then.

use std::sync::atomic::{AtomicU64, Ordering};

use super::key::Key;

/// The number of bits for each key. A key sets ten of them, so for 0.076 % of unknown keys the filter reports a match.
const BITS_PER_ID: u64 = 15;
const LINES_PER_KEY: u64 = 5;
const BITS_PER_LINE: u64 = 512;
const WORDS: usize = 8;

/// One cache line of the filter.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([AtomicU64; WORDS]);

/// The Bloom filter of one period.
#[derive(Debug)]
pub struct BloomFilter {
    lines: Box<[Line]>,
    /// The number of keys that the filter is designed for.
    capacity: u64,
}

impl BloomFilter {
    /// Returns an empty filter for `capacity` keys.
    pub fn new(capacity: u64) -> Self {
        let lines = capacity.saturating_mul(BITS_PER_ID).div_ceil(BITS_PER_LINE).max(1);
        Self { lines: (0..lines).map(|_| Line::default()).collect(), capacity }
    }

    /// Reads a filter from its stored form; `None` if the length is invalid.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (lines, rest) = bytes.as_chunks::<{ WORDS * 8 }>();
        if lines.is_empty() || !rest.is_empty() {
            return None;
        }
        let line = |bytes: &[u8; WORDS * 8]| {
            let line = Line::default();
            for (word, bytes) in line.0.iter().zip(bytes.as_chunks().0) {
                word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
            }
            line
        };
        let lines: Box<[Line]> = lines.iter().map(line).collect();
        let bits = u64::try_from(lines.len()).ok()?.saturating_mul(BITS_PER_LINE);
        Some(Self { lines, capacity: bits / BITS_PER_ID })
    }

    /// Returns the filter in its stored form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let words = self.lines.iter().flat_map(|line| &line.0);
        words.flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect()
    }

    /// Returns the number of keys that the filter is designed for. With more keys, the filter reports a match for more unknown
    /// keys.
    pub const fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Adds a key. Only one thread may add: of two concurrent additions, one can be lost.
    pub fn add(&self, key: Key) {
        for (words, hash) in self.lines_of(key) {
            for (word, bit) in bits(hash) {
                if let Some(word) = words.0.get(word) {
                    // Only one thread writes.
                    word.store(word.load(Ordering::Relaxed) | bit, Ordering::Relaxed);
                }
            }
        }
    }

    /// Returns whether the filter may contain a key. If the result is `false`, the key is certainly absent.
    pub fn may_contain(&self, key: Key) -> bool {
        self.lines_of(key).all(|(words, hash)| {
            bits(hash).all(|(word, bit)| {
                words.0.get(word).is_none_or(|word| word.load(Ordering::Relaxed) & bit != 0)
            })
        })
    }

    /// Returns the lines of a key, each with the hash that determines its bits.
    fn lines_of(&self, key: Key) -> impl Iterator<Item = (&Line, u64)> {
        let count = u64::try_from(self.lines.len()).unwrap_or(u64::MAX);
        (0..LINES_PER_KEY).filter_map(move |line| {
            let hash = mixed(key.low(), line);
            // The upper half of the hash, scaled to the number of lines, which is below 2^32.
            let at = (hash >> 32).wrapping_mul(count) >> 32;
            Some((self.lines.get(usize::try_from(at).ok()?)?, hash))
        })
    }
}

/// Returns the two bits of a hash within a line: each is determined by nine bits of the hash.
fn bits(hash: u64) -> impl Iterator<Item = (usize, u64)> {
    [0, 9].into_iter().map(move |shift| {
        let place = hash >> shift;
        (usize::try_from((place >> 6) & 7).unwrap_or(0), 1_u64 << (place & 63))
    })
}

/// Returns a different hash of the key for each line (SplitMix64).
const fn mixed(key: u64, line: u64) -> u64 {
    let z = key.wrapping_add(line.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        Key::new("default", &number.to_string())
    }

    #[test]
    fn every_added_key_is_found_and_few_others_are() {
        let filter = BloomFilter::new(100_000);
        (0..100_000).for_each(|number| filter.add(key(number)));
        let read_back = BloomFilter::from_bytes(&filter.to_bytes()).expect("a filter");
        for filter in [&filter, &read_back] {
            assert!((0..100_000).all(|number| filter.may_contain(key(number))));
            let wrong = (100_000..500_000).filter(|number| filter.may_contain(key(*number))).count();
            // 12 of them have to stay below 1 % together.
            assert!((200..333).contains(&wrong), "{wrong} of 400,000");
        }
        assert!(read_back.capacity() >= 100_000);
    }

    #[test]
    fn bytes_of_a_wrong_length_are_no_filter() {
        assert!(BloomFilter::from_bytes(&[]).is_none());
        assert!(BloomFilter::from_bytes(&[0; 65]).is_none());
        assert!(!BloomFilter::from_bytes(&[0; 64]).expect("a filter").may_contain(key(1)));
    }
}

//! Ids for made-up events and tokens: xids, as DT's, all different.

use dt_verify::xid;

/// Gives ids that differ from each other, and from those of every other run.
#[derive(Debug)]
pub(super) struct Ids {
    /// Starts at random, so that two runs in one second do not meet, and counts up, so that one run never repeats.
    next: u64,
}

impl Ids {
    /// Starts at a random place.
    pub(super) fn new() -> anyhow::Result<Self> {
        let next = getrandom::u64()
            .map_err(|error| anyhow::anyhow!("the system gives no random numbers: {error}"))?;
        Ok(Self { next })
    }

    /// An id of that second.
    pub(super) fn next(&mut self, unix_seconds: i64) -> String {
        self.next = self.next.wrapping_add(1);
        xid(unix_seconds, self.next.to_be_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_even_where_the_counter_wraps() {
        let mut ids = Ids { next: u64::MAX - 500 };
        let made: std::collections::BTreeSet<_> = (0..1000).map(|_| ids.next(1_700_000_000)).collect();
        assert_eq!(made.len(), 1000);
        assert!(made.iter().all(|id| id.len() == 20));
    }
}

//! Permits that bound a load. Nobody waits for one: whoever gets none is answered so at once. So a counter is enough, where a
//! semaphore takes a lock to give one back.

use std::sync::atomic::{AtomicUsize, Ordering};

/// So many of something, for all.
#[derive(Debug)]
pub(super) struct Permits {
    max: usize,
    taken: AtomicUsize,
}

/// Some of them; they are back when this is dropped.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    permits: &'a Permits,
    count: usize,
}

impl Permits {
    pub(super) const fn new(max: usize) -> Self {
        Self { max, taken: AtomicUsize::new(0) }
    }

    /// Takes `count` of them, or none if there are not so many.
    pub(super) fn take(&self, count: usize) -> Option<Permit<'_>> {
        // Only the number counts; nothing is handed over with it.
        let taken = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
            taken.checked_add(count).filter(|taken| *taken <= self.max)
        });
        taken.is_ok().then(|| Permit { permits: self, count })
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.permits.taken.fetch_sub(self.count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_and_they_come_back() {
        let permits = Permits::new(10);
        let some = permits.take(7).expect("there are 10");
        assert!(permits.take(4).is_none() && permits.take(usize::MAX).is_none());
        let rest = permits.take(3).expect("there are 3");
        assert!(permits.take(1).is_none() && permits.take(0).is_some());
        assert_eq!(permits.taken(), 10);
        drop(some);
        assert_eq!(permits.taken(), 3);
        assert!(permits.take(7).is_some());
        drop(rest);
        assert_eq!(permits.taken(), 0);
    }
}

//! The places for connections of the whole process: taken at the accept, given back when a connection has ended.
//!
//! Shared by all shards, whose threads each add and subtract; exact, because no place is taken that is not free. How full
//! it is is told once per crossing, not per connection. Not here: which addresses and users may have how many.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// From this share of the places on the log warns, percent; down at the other one it may warn again.
const CROWDED_PERCENT: usize = 80;
const EASED_PERCENT: usize = 70;

/// How many connections there are, against how many there may be.
pub struct Places {
    taken: AtomicUsize,
    max: AtomicUsize,
    /// Memory is so short that nobody is let in.
    refusing: AtomicBool,
    /// It was told, and has not eased since, that few are left, and that none is.
    is_crowded: AtomicBool,
    is_full: AtomicBool,
}

/// Why there is no place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoPlace {
    Full,
    MemoryShort,
}

impl Places {
    /// So many places, all free.
    pub fn new(max: usize) -> Self {
        Self {
            taken: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
            refusing: AtomicBool::new(false),
            is_crowded: AtomicBool::new(false),
            is_full: AtomicBool::new(false),
        }
    }

    /// Takes a place. Whoever has one gives it back once, by [`Places::give_back`].
    ///
    /// # Errors
    /// Why there is none.
    pub fn take(&self) -> Result<(), NoPlace> {
        if self.is_refusing() {
            return Err(NoPlace::MemoryShort);
        }
        let max = self.max();
        let taken = self
            .taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| (taken < max).then_some(taken + 1))
            .map_err(|_| {
                self.tell_full();
                NoPlace::Full
            })?;
        if taken + 1 == (max * CROWDED_PERCENT).div_ceil(100) && !self.is_crowded.swap(true, Ordering::Relaxed) {
            let (open, limit) = (taken + 1, max);
            tracing::warn!(open, limit, "{CROWDED_PERCENT} % of --connections-max are open");
        }
        Ok(())
    }

    /// Gives a place back.
    pub fn give_back(&self) {
        let taken = self.taken.fetch_sub(1, Ordering::Relaxed);
        assert!(taken > 0, "a place is given back once");
        let max = self.max();
        if taken - 1 == max * EASED_PERCENT / 100 && self.is_crowded.swap(false, Ordering::Relaxed) {
            self.is_full.store(false, Ordering::Relaxed);
            tracing::info!(limit = max, "no more than {EASED_PERCENT} % of --connections-max are open");
        }
    }

    /// Places that there are, taken or not.
    pub fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }

    /// Changes that. Whoever has a place keeps it: with fewer places than are taken nobody is let in for a while.
    pub fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// Places that are taken.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Lets nobody in while `refusing`.
    pub fn refuse(&self, refusing: bool) {
        self.refusing.store(refusing, Ordering::Relaxed);
    }

    /// Whether nobody is let in for want of memory.
    pub fn is_refusing(&self) -> bool {
        self.refusing.load(Ordering::Relaxed)
    }

    fn tell_full(&self) {
        if !self.is_full.swap(true, Ordering::Relaxed) {
            tracing::warn!(limit = self.max(), "--connections-max are open: new connections are answered 503");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn exactly_the_limit_is_let_in_whoever_comes_and_goes_meanwhile() {
        const MAX: usize = 100;
        let places = Places::new(MAX);
        let crowd = || (0..MAX).filter(|_| places.take().is_ok()).count();
        let admitted: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(crowd)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((admitted, places.taken()), (MAX, MAX));
        // Each gives a place back and takes one: there is always one for whoever has given back.
        let restless = || (0..1_000).all(|_| (places.give_back(), places.take()).1.is_ok());
        thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(restless)).collect();
            assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
        });
        assert_eq!(places.take(), Err(NoPlace::Full));
        (0..MAX).for_each(|_| places.give_back());
        assert_eq!(places.taken(), 0);
    }

    #[test]
    fn it_is_told_once_that_it_is_crowded_until_it_has_eased() {
        let places = Places::new(10);
        let crowded = || places.is_crowded.load(Ordering::Relaxed);
        (0..7).for_each(|_| places.take().unwrap());
        assert!(!crowded());
        places.take().unwrap();
        assert!(crowded());
        (0..2).for_each(|_| places.take().unwrap());
        assert!(places.take().is_err() && places.is_full.load(Ordering::Relaxed));
        (0..2).for_each(|_| places.give_back());
        assert!(crowded(), "eight are open");
        places.give_back();
        assert!(!crowded() && !places.is_full.load(Ordering::Relaxed));
    }

    #[test]
    fn with_fewer_places_nobody_loses_his() {
        let places = Places::new(3);
        (0..3).for_each(|_| places.take().unwrap());
        places.set_max(2);
        places.give_back();
        assert_eq!((places.take(), places.taken()), (Err(NoPlace::Full), 2));
        places.set_max(3);
        assert_eq!((places.take(), places.taken()), (Ok(()), 3));
    }

    #[test]
    fn nobody_is_let_in_while_memory_is_short() {
        let places = Places::new(10);
        places.refuse(true);
        assert_eq!(places.take(), Err(NoPlace::MemoryShort));
        places.refuse(false);
        assert_eq!((places.take(), places.taken()), (Ok(()), 1));
    }
}

//! Reads of the store under way: who misses the same row meanwhile waits for the first read instead of asking again.
//!
//! A read under which its row is forgotten is outdated: nobody joins it any more, who had joined reads anew, and its own
//! reader learns of it. Bound: an entry per read, a waiter per request that is being served. Keys are peers' choice (the
//! users that tokens claim): no hash map.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use tokio::sync::oneshot;

/// What came of a read: whether it is still current, and the value.
pub(super) struct Landed<V> {
    pub is_current: bool,
    pub value: V,
}

/// The reads under way of one kind of row.
pub(super) struct Flights<K, V> {
    by_key: RefCell<BTreeMap<K, Flight<V>>>,
    last_number: Cell<u64>,
}

struct Flight<V> {
    number: u64,
    waiting: Vec<oneshot::Sender<V>>,
}

/// A read's place, given up when dropped.
struct Seat<'a, K: Ord, V> {
    flights: &'a Flights<K, V>,
    key: K,
    number: u64,
}

impl<K, V> Default for Flights<K, V> {
    fn default() -> Self {
        Self { by_key: RefCell::default(), last_number: Cell::new(0) }
    }
}

impl<K: Ord + Clone, V: Clone> Flights<K, V> {
    /// The value of `key`: what a read under way brings, else what `read` brings. `landed` is called by the one who has
    /// read, before anybody else goes on.
    pub async fn share(&self, key: K, read: impl AsyncFnOnce() -> V, landed: impl FnOnce(&Landed<V>)) -> Landed<V> {
        while let Some(joined) = self.join(&key) {
            if let Ok(value) = joined.await {
                return Landed { is_current: true, value };
            }
        }
        let seat = self.begin(key);
        let value = read().await;
        let waiting = seat.leave();
        let result = Landed { is_current: waiting.is_some(), value };
        landed(&result);
        for waiter in waiting.into_iter().flatten() {
            // Who does not wait any more needs no answer.
            let _ = waiter.send(result.value.clone());
        }
        result
    }

    /// What is under way of these rows is outdated.
    pub fn forget(&self, keys: RangeInclusive<K>) {
        let mut by_key = self.by_key.borrow_mut();
        while let Some(key) = by_key.range(keys.clone()).next().map(|(key, _)| key.clone()) {
            by_key.remove(&key);
        }
    }

    fn join(&self, key: &K) -> Option<oneshot::Receiver<V>> {
        let mut by_key = self.by_key.borrow_mut();
        let flight = by_key.get_mut(key)?;
        let (sender, receiver) = oneshot::channel();
        flight.waiting.push(sender);
        Some(receiver)
    }

    fn begin(&self, key: K) -> Seat<'_, K, V> {
        let number = self.last_number.get() + 1;
        self.last_number.set(number);
        self.by_key.borrow_mut().insert(key.clone(), Flight { number, waiting: Vec::new() });
        Seat { flights: self, key, number }
    }
}

impl<K: Ord, V> Seat<'_, K, V> {
    /// Ends the read, and gives who waits for it; `None` when it is outdated.
    fn leave(&self) -> Option<Vec<oneshot::Sender<V>>> {
        let mut by_key = self.flights.by_key.borrow_mut();
        let is_mine = by_key.get(&self.key).is_some_and(|flight| flight.number == self.number);
        if is_mine { by_key.remove(&self.key).map(|flight| flight.waiting) } else { None }
    }
}

impl<K: Ord, V> Drop for Seat<'_, K, V> {
    fn drop(&mut self) {
        self.leave();
    }
}

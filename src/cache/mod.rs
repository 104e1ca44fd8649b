//! A bounded map whose entries expire; the least recently used one makes room for a new one.
//!
//! Each shard owns its caches. The bound is given when a cache is made, and memory grows only with what is stored.
//! Deliberately absent: a clock (`now` is passed in), loading of what is missing, and negative entries.

use std::hash::Hash;

use lru::LruCache;
use rustc_hash::FxBuildHasher;

use crate::base::Time;

/// At most `max` entries, each valid until a time of its own.
pub struct Cache<K, V> {
    // Unbounded inside: `LruCache::new` would reserve room for `max` entries at once, on every shard.
    entries: LruCache<K, Entry<V>, FxBuildHasher>,
    max: usize,
    hits: u64,
    misses: u64,
    evictions: u64,
}

struct Entry<V> {
    value: V,
    expires_at: Time,
}

impl<K: Hash + Eq, V> Cache<K, V> {
    /// An empty cache of at most `max` entries; one of 0 stores nothing.
    pub fn new(max: usize) -> Self {
        Self { entries: LruCache::unbounded_with_hasher(FxBuildHasher), max, hits: 0, misses: 0, evictions: 0 }
    }

    /// The value of `key`, unless it has expired; counted as a hit or a miss.
    pub fn get(&mut self, now: Time, key: &K) -> Option<&V> {
        let value = self.entries.get(key).filter(|entry| entry.expires_at > now).map(|entry| &entry.value);
        *if value.is_some() { &mut self.hits } else { &mut self.misses } += 1;
        value
    }

    /// The value of `key`, expired or not; not counted.
    pub fn stale(&self, key: &K) -> Option<&V> {
        self.entries.peek(key).map(|entry| &entry.value)
    }

    /// Stores `value` until `expires_at`, in place of what `key` had before.
    pub fn put(&mut self, key: K, value: V, expires_at: Time) {
        if self.max == 0 {
            return;
        }
        self.entries.put(key, Entry { value, expires_at });
        if self.entries.len() > self.max {
            self.entries.pop_lru();
            self.evictions += 1;
        }
        assert!(self.entries.len() <= self.max, "one put adds one entry");
    }

    /// Takes out the value of `key`, expired or not.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.entries.pop(key).map(|entry| entry.value)
    }

    /// Drops all that has expired. Walks every entry, so it is for a slow timer.
    pub fn sweep(&mut self, now: Time) {
        self.entries.retain(|_, entry| entry.expires_at > now);
    }

    /// Gives up the least recently used half, and tells how many entries that was.
    pub fn shrink(&mut self) -> usize {
        let evicted = self.entries.len().div_ceil(2);
        (0..evicted).for_each(|_| drop(self.entries.pop_lru()));
        self.evictions += evicted as u64;
        evicted
    }

    /// How many entries there are, expired ones included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The bound.
    pub fn max(&self) -> usize {
        self.max
    }

    /// How often [`Cache::get`] found what was asked.
    pub fn hits(&self) -> u64 {
        self.hits
    }

    /// How often it did not.
    pub fn misses(&self) -> u64 {
        self.misses
    }

    /// How many entries had to make room.
    pub fn evictions(&self) -> u64 {
        self.evictions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Time = Time(1000);

    #[test]
    fn the_least_recently_used_makes_room() {
        let mut cache = Cache::new(2);
        cache.put('a', 1, LATER);
        cache.put('b', 2, LATER);
        assert_eq!(cache.get(Time(0), &'a'), Some(&1));
        cache.put('c', 3, LATER);
        assert_eq!(cache.get(Time(0), &'b'), None);
        assert_eq!(cache.get(Time(0), &'a'), Some(&1));
        assert_eq!(cache.len(), 2);
    }

    #[test]
    fn shrinking_gives_up_the_older_half() {
        let mut cache = Cache::new(5);
        (0..5).for_each(|key| cache.put(key, key, LATER));
        assert_eq!((cache.shrink(), cache.len(), cache.get(Time(0), &4)), (3, 2, Some(&4)));
        assert_eq!((cache.shrink(), cache.shrink(), cache.shrink(), cache.len()), (1, 1, 0, 0));
    }

    #[test]
    fn an_entry_ends_with_its_time() {
        let mut cache = Cache::new(2);
        cache.put('a', 1, LATER);
        assert_eq!(cache.get(Time(999), &'a'), Some(&1));
        assert_eq!(cache.get(LATER, &'a'), None);
        assert_eq!((cache.stale(&'a'), cache.hits(), cache.misses()), (Some(&1), 1, 1));
        cache.sweep(LATER);
        assert_eq!((cache.stale(&'a'), cache.len()), (None, 0));
    }

    #[test]
    fn a_later_put_replaces_value_and_time() {
        let mut cache = Cache::new(2);
        cache.put('a', 1, LATER);
        cache.put('a', 2, LATER + 1);
        assert_eq!(cache.get(LATER, &'a'), Some(&2));
        assert_eq!(cache.len(), 1);
        assert_eq!((cache.remove(&'a'), cache.is_empty()), (Some(2), true));
    }

    #[test]
    fn a_sweep_drops_what_has_expired_and_nothing_else() {
        let mut cache = Cache::new(10);
        (0..10).for_each(|n| cache.put(n, n, Time(n)));
        cache.sweep(Time(6));
        assert_eq!(cache.len(), 3);
        assert_eq!(cache.get(Time(6), &7), Some(&7));
    }

    #[test]
    fn a_cache_of_none_stores_nothing() {
        let mut cache = Cache::new(0);
        cache.put('a', 1, LATER);
        assert_eq!(cache.get(Time(0), &'a'), None);
        assert_eq!((cache.len(), cache.max()), (0, 0));
    }
}

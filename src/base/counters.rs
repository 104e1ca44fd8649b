//! Numbers that go up: plain cells of the one thread that counts. A clone is a snapshot, which may go to another thread.
//!
//! Bound: every size is part of a type, so that nothing grows with what is counted. Not here: names, units, who reads it.

use std::array;
use std::cell::Cell;

/// One number that only goes up.
#[derive(Clone, Default, Debug)]
pub struct Counter(Cell<u64>);

impl Counter {
    /// Counts one more.
    pub fn add_one(&self) {
        self.add(1);
    }

    /// Counts so many more.
    pub fn add(&self, more: u64) {
        self.0.set(self.0.get().wrapping_add(more));
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

/// One number for each of `N` names, which are the owner's.
#[derive(Clone, Debug)]
pub struct Tally<const N: usize>([Counter; N]);

impl<const N: usize> Default for Tally<N> {
    fn default() -> Self {
        Self(array::from_fn(|_| Counter::default()))
    }
}

impl<const N: usize> Tally<N> {
    /// Counts one more under the name at `index`.
    pub fn add_one(&self, index: usize) {
        self.add(index, 1);
    }

    /// Counts so many more under it.
    pub fn add(&self, index: usize, more: u64) {
        self.0[index].add(more);
    }

    /// The numbers, in the order of the names.
    pub fn get(&self) -> [u64; N] {
        array::from_fn(|index| self.0[index].get())
    }

    /// Adds what another thread counted.
    pub fn merge(&self, other: &Self) {
        self.0.iter().zip(&other.0).for_each(|(own, other)| own.add(other.get()));
    }
}

/// How many there are now under each of `N` names.
#[derive(Clone, Debug)]
pub struct Levels<const N: usize>([Cell<u64>; N]);

impl<const N: usize> Default for Levels<N> {
    fn default() -> Self {
        Self(array::from_fn(|_| Cell::default()))
    }
}

impl<const N: usize> Levels<N> {
    /// One more under the name at `index`.
    pub fn raise(&self, index: usize) {
        self.0[index].set(self.0[index].get() + 1);
    }

    /// One less.
    pub fn lower(&self, index: usize) {
        assert!(self.0[index].get() > 0, "what goes was counted when it came");
        self.0[index].set(self.0[index].get() - 1);
    }

    /// The numbers, in the order of the names.
    pub fn get(&self) -> [u64; N] {
        array::from_fn(|index| self.0[index].get())
    }
}

/// How many values were at most each of `N` bounds, and their sum.
#[derive(Clone, Debug)]
pub struct Histogram<const N: usize> {
    /// Ascending.
    bounds: &'static [u64; N],
    /// By the first bound that holds the value.
    held: Tally<N>,
    all: Counter,
    sum: Counter,
}

impl<const N: usize> Histogram<N> {
    /// No value yet.
    pub fn new(bounds: &'static [u64; N]) -> Self {
        Self { bounds, held: Tally::default(), all: Counter::default(), sum: Counter::default() }
    }

    /// Counts one value.
    pub fn observe(&self, value: u64) {
        if let Some(index) = self.bounds.iter().position(|bound| value <= *bound) {
            self.held.add_one(index);
        }
        self.all.add_one();
        self.sum.add(value);
    }

    /// Each bound with the number of values up to it.
    pub fn up_to(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut below = 0;
        self.bounds.iter().zip(self.held.get()).map(move |(bound, held)| {
            below += held;
            (*bound, below)
        })
    }

    /// All values, the largest too.
    pub fn count(&self) -> u64 {
        self.all.get()
    }

    /// Of all values.
    pub fn sum(&self) -> u64 {
        self.sum.get()
    }

    /// Adds what another thread counted, by the same bounds.
    pub fn merge(&self, other: &Self) {
        self.held.merge(&other.held);
        self.all.add(other.count());
        self.sum.add(other.sum());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: [u64; 3] = [1, 10, 100];

    #[test]
    fn a_value_counts_for_every_bound_that_holds_it() {
        let histogram = Histogram::new(&BOUNDS);
        [0, 1, 2, 100, 101].into_iter().for_each(|value| histogram.observe(value));
        assert_eq!(histogram.up_to().collect::<Vec<_>>(), [(1, 2), (10, 3), (100, 4)]);
        assert_eq!((histogram.count(), histogram.sum()), (5, 204));
        histogram.merge(&histogram.clone());
        assert_eq!(histogram.up_to().collect::<Vec<_>>(), [(1, 4), (10, 6), (100, 8)]);
        assert_eq!((histogram.count(), histogram.sum()), (10, 408));
    }

    #[test]
    fn a_clone_is_a_snapshot() {
        let tally = Tally::<2>::default();
        tally.add_one(1);
        let before = tally.clone();
        tally.add(1, 4);
        assert_eq!((before.get(), tally.get()), ([0, 1], [0, 5]));
    }
}

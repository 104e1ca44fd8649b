//! What was meant to happen in a window, how much of it did in time, how long that took, and why the rest did not.

use std::collections::BTreeMap;
use std::ops::Range;

use hdrhistogram::Histogram;

use crate::clock::{Nanos, SECOND};
use crate::latency::histogram;

/// What takes longer has failed.
pub const DEADLINE: Nanos = 2 * SECOND;
/// Kinds of failure that are told of, the most frequent first.
const KINDS_TOLD: usize = 8;

/// The count of one kind of thing.
pub struct Tally {
    /// What was meant to happen within counts.
    window: Range<Nanos>,
    /// What was meant to happen.
    pub due: u64,
    /// What happened in time.
    pub fine: u64,
    /// From the intention, ns. What failed counts as `DEADLINE`.
    pub latency: Histogram<u64>,
    /// By kind; remarks among them, so they need not add up to what failed.
    failures: BTreeMap<String, u64>,
}

impl Tally {
    /// Of what is meant to happen within.
    pub fn new(window: Range<Nanos>) -> Self {
        Self { window, due: 0, fine: 0, latency: histogram(), failures: BTreeMap::new() }
    }

    /// Whether something that was meant to happen then counts.
    pub fn counts(&self, intended: Nanos) -> bool {
        self.window.contains(&intended)
    }

    /// It happened, so long after it was meant to. Says whether that was in time.
    pub fn happened(&mut self, latency: Nanos, what: &str) -> bool {
        if latency > DEADLINE {
            self.failed(&format!("{what} came late"), 1);
            return false;
        }
        self.due += 1;
        self.fine += 1;
        self.latency.saturating_record(latency);
        true
    }

    /// So many did not.
    pub fn failed(&mut self, why: &str, count: u64) {
        self.due += count;
        self.latency.saturating_record_n(DEADLINE, count);
        self.remark(why, count);
    }

    /// Something that explains failures that are counted elsewhere.
    pub fn remark(&mut self, what: &str, count: u64) {
        if count > 0 {
            *self.failures.entry(what.to_owned()).or_default() += count;
        }
    }

    /// Failures by kind.
    pub fn told(&self) -> Vec<String> {
        let mut kinds: Vec<_> = self.failures.iter().collect();
        kinds.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        kinds.into_iter().take(KINDS_TOLD).map(|(kind, count)| format!("{kind}: {count}")).collect()
    }
}

/// Percent of all that were fine; all of nothing.
pub fn success(tallies: &[&Tally]) -> f64 {
    let (fine, due) = tallies.iter().fold((0, 0), |(fine, due), tally| (fine + tally.fine, due + tally.due));
    if due == 0 { 100.0 } else { 100.0 * fine as f64 / due as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::percentile_ms;

    #[test]
    fn what_is_late_or_never_comes_has_failed_and_counts_as_the_deadline() {
        let mut tally = Tally::new(10..20);
        assert!(tally.counts(10) && !tally.counts(20));
        assert!(tally.happened(DEADLINE, "it") && !tally.happened(DEADLINE + 1, "it"));
        tally.failed("lost", 2);
        tally.remark("a word", 7);
        assert_eq!((tally.due, tally.fine, tally.latency.len()), (4, 1, 4));
        assert_eq!(tally.told(), ["a word: 7", "lost: 2", "it came late: 1"]);
        assert_eq!((success(&[&tally]), success(&[])), (25.0, 100.0));
        assert!(percentile_ms(&tally.latency, 100.0) >= 2_000.0);
    }
}

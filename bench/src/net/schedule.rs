//! The open loop's schedule: when each message is meant to be sent, whatever the server or the generator does.
//!
//! A stall moves no later intention: what was due meanwhile is due at once, and is measured from when it was meant to go.

use crate::clock::{Nanos, SECOND};

/// So many intentions per second, evenly spaced from a start, numbered from 0.
#[derive(Debug, Clone)]
pub struct Schedule {
    start: Nanos,
    per_second: f64,
    next: u64,
}

impl Schedule {
    pub fn new(start: Nanos, per_second: f64) -> Self {
        assert!(per_second > 0.0, "a schedule has a rate");
        Self { start, per_second, next: 0 }
    }

    /// When the next one is meant to be sent.
    pub fn next(&self) -> Nanos {
        self.start + (self.next as f64 * SECOND as f64 / self.per_second) as Nanos
    }

    /// The number and the intended time of one that is due, each once.
    pub fn due(&mut self, now: Nanos) -> Option<(u64, Nanos)> {
        let intended = self.next();
        (intended <= now).then(|| {
            self.next += 1;
            (self.next - 1, intended)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intentions_are_evenly_spaced_and_each_is_due_once() {
        let mut schedule = Schedule::new(5 * SECOND, 4.0);
        assert_eq!(schedule.due(5 * SECOND - 1), None);
        assert_eq!(schedule.due(5 * SECOND), Some((0, 5 * SECOND)));
        assert_eq!(schedule.due(5 * SECOND), None);
        assert_eq!(schedule.next(), 5 * SECOND + SECOND / 4);
    }

    #[test]
    fn a_stall_leaves_every_intention_where_it_was() {
        let mut schedule = Schedule::new(0, 1_000.0);
        let due: Vec<_> = std::iter::from_fn(|| schedule.due(SECOND)).collect();
        assert_eq!(due.len(), 1_001);
        assert_eq!(due[500], (500, SECOND / 2));
    }
}

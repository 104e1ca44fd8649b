//! How fast a shard accepts: a token bucket, so that all who reconnect at once are let in one after the other and those who
//! are here already are still served. Who has to wait does so in the kernel's backlog.
//!
//! Owned by the shard's accept task. Not here: the wait itself.

use std::time::Duration;

use crate::base::Time;

/// A shard's part of what the process may accept: as much as the other shards have.
pub struct Pace {
    /// Of the whole process; 0: any number.
    per_second: u64,
    /// What one connection costs: a millisecond earns `per_second`.
    cost: u64,
    credit: u64,
    refilled_at: Time,
}

impl Pace {
    /// A full bucket: the shard's part of a second.
    pub fn new(now: Time, per_second: u32, shards: u16) -> Self {
        let (per_second, cost) = (u64::from(per_second), 1_000 * u64::from(shards));
        Self { per_second, cost, credit: Self::full(per_second, cost), refilled_at: now }
    }

    /// Spends one connection, or says how long to wait before it is asked again.
    ///
    /// # Errors
    /// The pause.
    pub fn spend(&mut self, now: Time) -> Result<(), Duration> {
        if self.per_second == 0 {
            return Ok(());
        }
        let earned = (now - self.refilled_at) * self.per_second;
        self.credit = (self.credit + earned).min(Self::full(self.per_second, self.cost));
        self.refilled_at = now;
        match self.credit.checked_sub(self.cost) {
            Some(rest) => {
                self.credit = rest;
                Ok(())
            }
            None => Err(Duration::from_millis((self.cost - self.credit).div_ceil(self.per_second))),
        }
    }

    /// What a second earns, but at least one connection.
    fn full(per_second: u64, cost: u64) -> u64 {
        (per_second * 1_000).max(cost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many a shard accepts until `ms` have passed, if there are always more.
    fn accepted(per_second: u32, shards: u16, ms: u64) -> u64 {
        let mut pace = Pace::new(Time(0), per_second, shards);
        let (mut now, mut count) = (Time(0), 0);
        while now <= Time(ms) {
            match pace.spend(now) {
                Ok(()) => count += 1,
                Err(pause) => now = now + pause.as_millis() as u64,
            }
        }
        count
    }

    #[test]
    fn a_second_is_let_in_at_once_and_then_as_many_per_second() {
        assert_eq!(accepted(100, 1, 0), 100);
        assert_eq!(accepted(100, 1, 10_000), 1_100);
        assert_eq!(accepted(10_000, 1, 3_000), 40_000);
    }

    #[test]
    fn shards_have_equal_parts_and_even_the_least_rate_lets_somebody_in() {
        assert_eq!(accepted(100, 4, 0), 25);
        assert_eq!(accepted(100, 4, 10_000), 275);
        assert_eq!(accepted(1, 4, 0), 1);
        assert_eq!(accepted(1, 4, 12_000), 4);
    }

    #[test]
    fn who_comes_after_a_rest_waits_for_nobody() {
        let mut pace = Pace::new(Time(0), 10, 2);
        let at_once = |pace: &mut Pace, now| (0..100).filter(|_| pace.spend(Time(now)).is_ok()).count();
        assert_eq!(at_once(&mut pace, 0), 5);
        assert_eq!(pace.spend(Time(0)), Err(Duration::from_millis(200)));
        assert_eq!(at_once(&mut pace, 60_000), 5);
    }
}

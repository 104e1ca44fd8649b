//! How many events a client may send, by class: a token bucket for each, so that a flood of one leaves the others alone
//! (contract 8, D39).
//!
//! Owned by the connection and moves with it; 24 bytes. Goes by the time at which bytes were received. Not here: what is
//! said to whom is refused.

use crate::base::Time;
use crate::message::ClientEvent;

/// Refused events of one class, without a rest in which its bucket fills, after which the connection is closed.
const REFUSED_MAX: u8 = 200;
/// Credit for one event.
const EVENT: u32 = 1_000;

/// What is budgeted on its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventClass {
    /// What sets picture and sound up.
    Signal,
    Chat,
    /// All about invites.
    Invite,
    /// All else, also what is no known event.
    Other,
}

impl EventClass {
    /// A name for each, in the order of the variants.
    pub const NAMES: [&'static str; 4] = ["signal", "chat", "invite", "other"];

    /// The class of `event`.
    pub fn of(event: &ClientEvent) -> Self {
        match event {
            ClientEvent::Signal { .. } => Self::Signal,
            ClientEvent::Chat { .. } | ClientEvent::GiveSocial { .. } => Self::Chat,
            ClientEvent::Invite { .. }
            | ClientEvent::Accept { .. }
            | ClientEvent::Decline { .. }
            | ClientEvent::ExtendWait { .. }
            | ClientEvent::Rescind { .. } => Self::Invite,
            ClientEvent::Auth { .. }
            | ClientEvent::PresenceJoin
            | ClientEvent::PresenceLeave
            | ClientEvent::QueueJoin
            | ClientEvent::QueueLeave
            | ClientEvent::RoomJoin { .. }
            | ClientEvent::End { .. } => Self::Other,
        }
    }
}

/// What of one class a connection may send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Allowance {
    /// In the long run; 0: any number.
    pub per_second: u32,
    /// At once; a million at most.
    pub burst: u32,
}

/// One for each [`EventClass`], in their order.
pub type Allowances = [Allowance; EventClass::NAMES.len()];

impl Allowance {
    fn full(self) -> u32 {
        self.burst.saturating_mul(EVENT)
    }
}

/// What a connection has left.
pub(super) struct Budget {
    /// Milliseconds, their low bits: after 49 days of silence a bucket may be less full than it should.
    refilled_at: u32,
    credit: [u32; EventClass::NAMES.len()],
    refused: [u8; EventClass::NAMES.len()],
}

/// What becomes of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Granted,
    Refused,
    /// Refused, and it has gone on for too long: the last that is answered.
    Exhausted,
    /// After that.
    Ignored,
}

impl Budget {
    /// A full one.
    pub fn new(now: Time, allowances: &Allowances) -> Self {
        let (credit, refused) = (allowances.map(Allowance::full), Default::default());
        Self { refilled_at: now.0 as u32, credit, refused }
    }

    /// Spends one event of `class`, if there is credit.
    pub fn spend(&mut self, now: Time, class: EventClass, allowances: &Allowances) -> Verdict {
        let now = now.0 as u32;
        let elapsed = u64::from(now.wrapping_sub(self.refilled_at));
        self.refilled_at = now;
        for (credit, allowance) in self.credit.iter_mut().zip(allowances) {
            let earned = elapsed * u64::from(allowance.per_second);
            *credit = (u64::from(*credit) + earned).min(u64::from(allowance.full())) as u32;
        }
        let allowance = allowances[class as usize];
        let (credit, refused) = (&mut self.credit[class as usize], &mut self.refused[class as usize]);
        if allowance.per_second == 0 {
            return Verdict::Granted;
        }
        if *credit == allowance.full() {
            *refused = 0;
        }
        if let Some(rest) = credit.checked_sub(EVENT) {
            *credit = rest;
            return Verdict::Granted;
        }
        if *refused == REFUSED_MAX {
            return Verdict::Ignored;
        }
        *refused += 1;
        if *refused == REFUSED_MAX { Verdict::Exhausted } else { Verdict::Refused }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWANCES: Allowances = [Allowance { per_second: 2, burst: 3 }; 4];

    fn granted(budget: &mut Budget, now: u64, class: EventClass, count: usize) -> usize {
        (0..count).filter(|_| budget.spend(Time(now), class, &ALLOWANCES) == Verdict::Granted).count()
    }

    #[test]
    fn a_class_has_its_burst_and_then_its_rate() {
        let mut budget = Budget::new(Time(0), &ALLOWANCES);
        assert_eq!(granted(&mut budget, 0, EventClass::Chat, 5), 3);
        assert_eq!(granted(&mut budget, 1_000, EventClass::Chat, 5), 2);
        assert_eq!(granted(&mut budget, 1_499, EventClass::Chat, 5), 0);
        assert_eq!(granted(&mut budget, 60_000, EventClass::Chat, 5), 3);
    }

    #[test]
    fn a_flood_of_one_class_leaves_the_others_alone() {
        let mut budget = Budget::new(Time(0), &ALLOWANCES);
        assert_eq!(granted(&mut budget, 0, EventClass::Signal, 100), 3);
        for class in [EventClass::Chat, EventClass::Invite, EventClass::Other] {
            assert_eq!(granted(&mut budget, 0, class, 100), 3, "{class:?}");
        }
    }

    #[test]
    fn who_goes_on_without_a_rest_is_exhausted_and_who_rests_is_not() {
        let exhausts = |pause_ms: u64| {
            let mut budget = Budget::new(Time(0), &ALLOWANCES);
            let mut spend = |n: u64| budget.spend(Time(n / 10 * pause_ms), EventClass::Other, &ALLOWANCES);
            (0..1_000).any(|n| spend(n) == Verdict::Exhausted)
        };
        assert!(exhausts(0));
        assert!(exhausts(1_000), "two of ten are granted each second, and eight refused");
        assert!(!exhausts(1_500), "three are granted each time, as the bucket is full again");
    }

    #[test]
    fn a_clock_whose_low_bits_begin_anew_earns_as_before() {
        let late = Time(u64::from(u32::MAX));
        let mut budget = Budget::new(late, &ALLOWANCES);
        assert_eq!(granted(&mut budget, late.0, EventClass::Chat, 5), 3);
        assert_eq!(granted(&mut budget, late.0 + 1_000, EventClass::Chat, 5), 2);
    }

    #[test]
    fn a_budget_is_small_because_every_connection_has_one() {
        assert_eq!(size_of::<Budget>(), 24);
    }
}

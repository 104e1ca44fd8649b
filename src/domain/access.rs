//! Who may do what, and how often: bans, the paywall, and the budget of events per connection (D18, D28, D39).

use crate::base::{ConnId, Time, UserId};
use crate::message::PaidStatus;
use crate::message::model::Login;

use super::{Dismissal, Domain, Effect, Effects};

/// How a session stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    Valid,
    /// Unknown or past its time.
    Expired,
    /// Replaced by a newer login.
    Invalidated,
    Banned,
}

/// Judges what the store knows of a token.
pub fn standing(now: Time, login: Option<&Login>) -> Standing {
    match login {
        None => Standing::Expired,
        Some(login) if !login.active => Standing::Invalidated,
        Some(login) if login.expires_at <= now => Standing::Expired,
        Some(login) if login.banned => Standing::Banned,
        Some(_) => Standing::Valid,
    }
}

/// Refused events in a row after which a connection is closed.
const OVERSPENT_MAX: u32 = 200;

/// A token bucket: `event_burst` events at once, `event_rate` a second in the long run.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Thousandths of an event.
    credit: u64,
    refilled_at: Time,
    overspent: u32,
}

impl Budget {
    /// A full budget.
    pub fn new(now: Time, burst: u32) -> Self {
        Self { credit: u64::from(burst) * 1000, refilled_at: now, overspent: 0 }
    }

    /// Spends one event if there is credit.
    fn spend(&mut self, now: Time, rate: u32, burst: u32) -> bool {
        let earned = (now - self.refilled_at) * u64::from(rate);
        self.credit = (self.credit + earned).min(u64::from(burst) * 1000);
        self.refilled_at = now;
        let affordable = self.credit >= 1000;
        if affordable {
            self.credit -= 1000;
            self.overspent = 0;
        } else {
            self.overspent += 1;
        }
        affordable
    }
}

impl Domain {
    /// Takes one event from the connection's budget; refuses it, and at last the connection, when there is none left.
    pub(super) fn spend(&mut self, now: Time, user: UserId, conn: ConnId, out: &mut Effects) -> bool {
        let (rate, burst) = (self.settings.event_rate, self.settings.event_burst);
        let Some(socket) = self.users.get_mut(&user).and_then(|user| user.socket(conn)) else { return false };
        if rate == 0 || socket.budget.spend(now, rate, burst) {
            return true;
        }
        self.counts.events_over_budget.add_one();
        out.error(conn, "Too many events");
        if socket.budget.overspent == OVERSPENT_MAX {
            out.push(Effect::Dismiss { conn, why: Dismissal::TooManyEvents });
        }
        false
    }

    /// Whether the paywall lets this user queue and call.
    pub(super) fn may_call(&self, user: UserId) -> bool {
        let unpaid = || self.users.get(&user).is_none_or(|user| user.paid == PaidStatus::Unpaid);
        !(self.settings.paywall && unpaid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_allows_its_burst_and_then_its_rate() {
        let mut budget = Budget::new(Time(0), 3);
        let spent = |budget: &mut Budget, now| (0..5).filter(|_| budget.spend(Time(now), 2, 3)).count();
        assert_eq!(spent(&mut budget, 0), 3);
        assert_eq!(spent(&mut budget, 1000), 2);
        assert_eq!(spent(&mut budget, 1499), 0);
        assert_eq!(spent(&mut budget, 60_000), 3);
    }
}

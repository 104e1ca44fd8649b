//! Rate limits of contract 2.3 with D27: fixed windows per bucket and key, counted at the key's home shard.
//!
//! The table is bounded by [`RATE_COUNTERS_MAX`]; when it is full the window that ends first is forgotten.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::base::limits::RATE_COUNTERS_MAX;
use crate::base::{Time, UserId};

/// What is limited.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Bucket {
    /// Failed log-ins, per account and address.
    LoginFailure,
    /// Other failures under `/auth`, per address.
    AuthFailure,
    /// Guests made, per address.
    SignUp,
    /// Sessions made by log-in, per address.
    LogIn,
    /// `/room` and `/user`, per address.
    Api,
    /// `/turn/credentials`, per user (D35).
    Turn,
}

impl Bucket {
    /// A name for each, in the order of the variants.
    pub const NAMES: [&'static str; 6] = ["login_failure", "auth_failure", "sign_up", "log_in", "api", "turn"];
}

/// Who is counted. IPv6 addresses count by their /64.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Key {
    Address(IpAddr),
    /// An address and a normalised e-mail.
    Account(IpAddr, String),
    User(UserId),
}

/// How many per window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    /// 0: no limit.
    pub max: u32,
    pub window_ms: u64,
}

/// Whether to count one more, to take one back, or only to look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    Look,
    Count,
    Uncount,
}

/// Where a key stands in its window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    pub limit: Limit,
    /// Counted in this window, this one included; may exceed `limit.max`.
    pub used: u32,
    pub resets_at: Time,
}

impl Standing {
    /// How many are left.
    pub fn remaining(&self) -> u32 {
        self.limit.max.saturating_sub(self.used)
    }
}

/// The counters of one shard.
#[derive(Default)]
pub struct Rates {
    windows: BTreeMap<(Bucket, Key), Window>,
    ends: BTreeMap<(Time, u64), (Bucket, Key)>,
    made: u64,
}

struct Window {
    used: u32,
    end: (Time, u64),
}

impl Rates {
    /// Looks at, or counts in, the window of `key`.
    pub fn handle(&mut self, now: Time, bucket: Bucket, key: Key, limit: Limit, action: Action) -> Standing {
        self.forget_ended(now);
        let id = (bucket, subscriber(key));
        if let Some(window) = self.windows.get_mut(&id) {
            window.used = match action {
                Action::Look => window.used,
                Action::Count => window.used.saturating_add(1),
                Action::Uncount => window.used.saturating_sub(1),
            };
            return Standing { limit, used: window.used, resets_at: window.end.0 };
        }
        let resets_at = now + limit.window_ms;
        if action != Action::Count || limit.max == 0 {
            return Standing { limit, used: 0, resets_at };
        }
        if self.windows.len() >= RATE_COUNTERS_MAX
            && let Some((_, first)) = self.ends.pop_first()
        {
            self.windows.remove(&first);
        }
        self.made += 1;
        let end = (resets_at, self.made);
        self.ends.insert(end, id.clone());
        self.windows.insert(id, Window { used: 1, end });
        Standing { limit, used: 1, resets_at }
    }

    /// Forgets windows that have ended.
    pub fn forget_ended(&mut self, now: Time) {
        while let Some(entry) = self.ends.first_entry()
            && entry.key().0 <= now
        {
            self.windows.remove(&entry.remove());
        }
    }
}

/// What a subscriber is known by: an IPv4 address, or the /64 of an IPv6 one.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
    }
}

fn subscriber(key: Key) -> Key {
    match key {
        Key::Address(address) => Key::Address(network(address)),
        Key::Account(address, email) => Key::Account(network(address), email),
        Key::User(_) => key,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit { max: 2, window_ms: 1000 };

    fn used(rates: &mut Rates, now: u64, key: &str, action: Action) -> u32 {
        let key = Key::Address(key.parse().unwrap());
        rates.handle(Time(now), Bucket::Api, key, LIMIT, action).used
    }

    #[test]
    fn a_window_counts_and_ends() {
        let mut rates = Rates::default();
        assert_eq!(used(&mut rates, 0, "1.1.1.1", Action::Look), 0);
        assert_eq!(used(&mut rates, 1, "1.1.1.1", Action::Count), 1);
        assert_eq!(used(&mut rates, 2, "1.1.1.1", Action::Count), 2);
        assert_eq!(used(&mut rates, 3, "1.1.1.2", Action::Count), 1);
        assert_eq!(used(&mut rates, 1000, "1.1.1.1", Action::Look), 2);
        assert_eq!(used(&mut rates, 1000, "1.1.1.1", Action::Uncount), 1);
        assert_eq!(used(&mut rates, 1000, "1.1.1.1", Action::Count), 2);
        assert_eq!(used(&mut rates, 1001, "1.1.1.1", Action::Uncount), 0);
        assert_eq!(used(&mut rates, 1001, "1.1.1.1", Action::Count), 1);
    }

    #[test]
    fn an_ipv6_subscriber_is_one_key() {
        let mut rates = Rates::default();
        used(&mut rates, 0, "2001:db8::1", Action::Count);
        assert_eq!(used(&mut rates, 0, "2001:db8::2", Action::Count), 2);
        assert_eq!(used(&mut rates, 0, "2001:db8:0:1::2", Action::Count), 1);
    }

    #[test]
    fn what_has_ended_is_forgotten_without_being_asked_for() {
        let mut rates = Rates::default();
        used(&mut rates, 0, "1.1.1.1", Action::Count);
        used(&mut rates, 1, "1.1.1.2", Action::Count);
        rates.forget_ended(Time(1000));
        assert_eq!((rates.windows.len(), rates.ends.len()), (1, 1));
    }

    #[test]
    fn a_full_table_forgets_the_window_that_ends_first() {
        let mut rates = Rates::default();
        for n in 0..=RATE_COUNTERS_MAX as u32 {
            let key = Key::Address(IpAddr::from(n.to_be_bytes()));
            rates.handle(Time(u64::from(n) / 1000), Bucket::Api, key, LIMIT, Action::Count);
        }
        assert_eq!(rates.windows.len(), RATE_COUNTERS_MAX);
        assert_eq!(rates.ends.len(), RATE_COUNTERS_MAX);
    }
}

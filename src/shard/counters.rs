//! What a shard counts of its connections, events and requests, for operators: plain cells, an addition each.
//!
//! Owned by the shard; a clone goes to who asks ([`super::sample`]). Bound: one number per name, and the names are fixed.
//! Not here: what the rules count (`domain/counts.rs`), how it is written (`super::describe`).

use crate::api::counted;
use crate::base::counters::{Counter, Histogram, Levels, Tally};
use crate::conn::{EventClass, Transport};
use crate::domain::rate::Bucket;
use crate::message::store::Request;
use crate::message::{ClientEvent, ServerEvent};

use super::places::NoPlace;

/// Bounds of [`Counters::fan_outs`], connections.
const FAN_OUT: [u64; 8] = [1, 5, 10, 50, 100, 500, 1_000, 5_000];
/// Bounds of [`Counters::store`], microseconds: from a read in memory to the time limit of a database.
const STORE_US: [u64; 13] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 10_000_000];

/// What has happened on one shard since the start.
#[derive(Clone, Debug)]
pub(super) struct Counters {
    /// By [`Opened`].
    pub opened: Tally<2>,
    /// Sessions by polling that went on over a WebSocket: two connections became one.
    pub upgraded: Counter,
    /// Waits before the next accept, as the rate is reached.
    pub accept_pauses: Counter,
    /// By [`Refused`].
    pub refused: Tally<4>,
    /// Open now, by [`Transport`].
    pub transports: Levels<{ Transport::NAMES.len() }>,
    pub received: Tally<{ ClientEvent::NAMES.len() }>,
    /// Known events with a payload that they do not take.
    pub malformed: Counter,
    /// Events that their connection had no credit for.
    pub over_budget: Tally<{ EventClass::NAMES.len() }>,
    /// To one connection each.
    pub sent: Tally<{ ServerEvent::NAMES.len() }>,
    /// Connections that one change of presence or queue goes to.
    pub fan_outs: Histogram<8>,
    /// Changes that a slow reader was spared.
    pub spared: Counter,
    /// By [`counted::place`].
    pub requests: Tally<{ counted::PLACES }>,
    pub limited: Tally<{ Bucket::NAMES.len() }>,
    /// Passwords that were not hashed, since too many wait.
    pub hashing_busy: Counter,
    /// From asking to the answer, microseconds, by the kind of request.
    pub store: [Histogram<13>; Request::NAMES.len()],
    /// By [`StoreFault`].
    pub store_faults: Tally<4>,
}

/// What kind of connection was opened.
#[derive(Clone, Copy)]
pub(super) enum Opened {
    /// Accepted from the listener.
    Socket,
    /// An Engine.IO session by polling, which has no socket of its own.
    Polling,
}

impl Opened {
    pub const NAMES: [&'static str; 2] = ["socket", "polling_session"];
}

/// Why a connection was turned away.
#[derive(Clone, Copy)]
pub(super) enum Refused {
    Full,
    MemoryShort,
    /// Its address has all that it may have.
    Address,
    /// No proxy of ours, where only those may connect.
    Stranger,
}

impl Refused {
    pub const NAMES: [&'static str; 4] = ["full", "memory_short", "address", "stranger"];
}

impl From<NoPlace> for Refused {
    fn from(why: NoPlace) -> Self {
        match why {
            NoPlace::Full => Self::Full,
            NoPlace::MemoryShort => Self::MemoryShort,
        }
    }
}

/// Why the store gave no answer that can be used.
#[derive(Clone, Copy)]
pub(super) enum StoreFault {
    Failed,
    /// The database is away.
    Away,
    /// The queue to the store is full.
    QueueFull,
    /// The store's thread has ended.
    Closed,
}

impl StoreFault {
    pub const NAMES: [&'static str; 4] = ["failed", "away", "queue_full", "closed"];
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            opened: Tally::default(),
            upgraded: Counter::default(),
            accept_pauses: Counter::default(),
            refused: Tally::default(),
            transports: Levels::default(),
            received: Tally::default(),
            malformed: Counter::default(),
            over_budget: Tally::default(),
            sent: Tally::default(),
            fan_outs: Histogram::new(&FAN_OUT),
            spared: Counter::default(),
            requests: Tally::default(),
            limited: Tally::default(),
            hashing_busy: Counter::default(),
            store: std::array::from_fn(|_| Histogram::new(&STORE_US)),
            store_faults: Tally::default(),
        }
    }
}

impl Counters {
    /// Adds what another shard counted; but for what is told by shard.
    pub fn merge(&self, other: &Self) {
        self.accept_pauses.add(other.accept_pauses.get());
        self.refused.merge(&other.refused);
        self.received.merge(&other.received);
        self.malformed.add(other.malformed.get());
        self.over_budget.merge(&other.over_budget);
        self.sent.merge(&other.sent);
        self.fan_outs.merge(&other.fan_outs);
        self.spared.add(other.spared.get());
        self.requests.merge(&other.requests);
        self.limited.merge(&other.limited);
        self.hashing_busy.add(other.hashing_busy.get());
        self.store.iter().zip(&other.store).for_each(|(own, other)| own.merge(other));
        self.store_faults.merge(&other.store_faults);
    }
}

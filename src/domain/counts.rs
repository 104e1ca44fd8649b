//! What the rules count of themselves, for operators: calls, invites, relays, refusals. Nobody decides by it.
//!
//! Owned by the [`super::Domain`] that counts; one number per name, whatever happens. Not here: what there is at this
//! moment, which [`super::Sizes`] tells.

use crate::base::counters::{Counter, Histogram, Tally};
use crate::message::server::DeclineReason;
use crate::message::shard::EndCause;

/// Bounds of [`Counts::call_seconds`]. History begins at 5 s, a completed call at 30, the longest agreed time is 1800.
const CALL_SECONDS: [u64; 9] = [5, 30, 60, 120, 300, 600, 900, 1200, 1920];

/// What has happened since the start.
#[derive(Clone, Debug)]
pub struct Counts {
    /// Counted, like all of calls, at the caller's home.
    pub calls_started: Counter,
    pub calls_ended: Tally<4>,
    pub call_seconds: Histogram<9>,
    /// Those that were asked for, and are made, or refused before that.
    pub invites_made: Counter,
    pub invites_ended: Tally<7>,
    pub invites_refused: Tally<9>,
    pub relays: Tally<3>,
}

/// How an invite that was made has ended, at the caller's home.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InviteEnd {
    Accepted,
    Declined,
    /// The callee is not available.
    Offline,
    /// Too many ring at the callee, or he is in a call.
    Busy,
    Timeout,
    /// Taken back by the caller, or because he has gone.
    Rescinded,
    /// The caller is in another call.
    Superseded,
}

/// Why no invite was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InviteRefusal {
    PaymentRequired,
    InvalidTarget,
    UserNotFound,
    InvalidDuration,
    /// Banned, or one has reported the other.
    Offline,
    Cooldown,
    InCall,
    TooMany,
    StoreUnavailable,
}

/// What became of an event for the peer in a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Relay {
    /// To at least one connection.
    Delivered,
    /// Kept until the peer is in the room.
    Held,
    /// There was no room to keep it, or the call is over.
    Dropped,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            calls_started: Counter::default(),
            calls_ended: Tally::default(),
            call_seconds: Histogram::new(&CALL_SECONDS),
            invites_made: Counter::default(),
            invites_ended: Tally::default(),
            invites_refused: Tally::default(),
            relays: Tally::default(),
        }
    }
}

impl Counts {
    /// Adds what another shard counted.
    pub fn merge(&self, other: &Self) {
        self.calls_started.add(other.calls_started.get());
        self.calls_ended.merge(&other.calls_ended);
        self.call_seconds.merge(&other.call_seconds);
        self.invites_made.add(other.invites_made.get());
        self.invites_ended.merge(&other.invites_ended);
        self.invites_refused.merge(&other.invites_refused);
        self.relays.merge(&other.relays);
    }
}

/// A name for each [`EndCause`], in their order.
pub const END_CAUSES: [&str; 4] = ["hung_up", "disconnected", "not_resumed", "time_up"];

impl InviteEnd {
    /// A name for each, in the order of the variants.
    pub const NAMES: [&'static str; 7] =
        ["accepted", "declined", "offline", "busy", "timeout", "rescinded", "superseded"];
}

impl From<DeclineReason> for InviteEnd {
    fn from(reason: DeclineReason) -> Self {
        match reason {
            DeclineReason::UserDeclined => Self::Declined,
            DeclineReason::Busy => Self::Busy,
            DeclineReason::Timeout => Self::Timeout,
            DeclineReason::InvalidTarget
            | DeclineReason::UserNotFound
            | DeclineReason::InvalidDuration
            | DeclineReason::Offline
            | DeclineReason::Cooldown => Self::Offline,
        }
    }
}

impl InviteRefusal {
    /// A name for each, in the order of the variants.
    pub const NAMES: [&'static str; 9] = [
        "payment_required",
        "invalid_target",
        "user_not_found",
        "invalid_duration",
        "offline",
        "cooldown",
        "in_call",
        "too_many",
        "store_unavailable",
    ];
}

impl Relay {
    /// A name for each, in the order of the variants.
    pub const NAMES: [&'static str; 3] = ["delivered", "held", "dropped"];
}

const _: () = assert!(EndCause::TimeUp as usize + 1 == END_CAUSES.len());
const _: () = assert!(InviteEnd::Superseded as usize + 1 == InviteEnd::NAMES.len());
const _: () = assert!(InviteRefusal::StoreUnavailable as usize + 1 == InviteRefusal::NAMES.len());
const _: () = assert!(Relay::Dropped as usize + 1 == Relay::NAMES.len());

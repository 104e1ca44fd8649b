//! What the homes of users tell each other, and what every shard hears of presence.
//!
//! A [`UserMessage`] is addressed to a user; placement finds the home. Messages between one pair of shards keep
//! their order. Each names the invite or call it concerns, so one that comes too late finds nothing and is dropped.

use std::sync::Arc;

use super::client::Seconds;
use super::model::{Card, Metrics, Socials};
use super::server::{DeclineReason, ServerEvent};
use super::store::Participant;
use crate::base::{CallId, InviteId, TokenHash, UserId};

/// A change of one user's presence, for the directory that every shard keeps.
#[derive(Clone, PartialEq, Debug)]
pub struct Delta {
    pub card: Arc<Card>,
    pub online: bool,
    pub available: bool,
    /// When the user became available; the queue's order.
    pub since: crate::base::Time,
}

/// One message to the home of a user, called `you` in the comments.
#[derive(Clone, PartialEq, Debug)]
pub enum UserMessage {
    /// Somebody invites you.
    Invited { invite: InviteId, from: Arc<Card>, seconds: Seconds },
    /// Your invite is over: refused, declined, timed out.
    InviteEnded { invite: InviteId, reason: DeclineReason },
    /// The caller took the invite to you back, or can no longer be called.
    Rescinded { invite: InviteId },
    /// The caller wants to keep waiting.
    Extended { invite: InviteId },
    /// `callee` accepted your invite: take part in this call if you are still free (the first half of accept).
    Propose { invite: InviteId, call: CallId, callee: Arc<Card>, seconds: Seconds },
    /// You are in the call (the second half of accept).
    Agreed { invite: InviteId, call: CallId, caller: UserId, agreed_seconds: u32 },
    /// The accept came to nothing; `over` says that the invite is, too.
    NotAgreed { invite: InviteId, call: CallId, over: bool },
    /// You are in this call, which another process had until now: the caller's home has taken it up.
    Resumed(Box<ResumedHalf>),
    /// An event of your call, to be heard once you are in the room.
    Relay { call: CallId, event: ServerEvent },
    /// Your peer wrote or shared this: you, the caller, keep the log of the call.
    Say { call: CallId, line: Saying },
    /// Your peer ends the call: you, the caller, keep its record.
    End { call: CallId, cause: EndCause },
    /// Your call is over.
    Ended { call: CallId, cause: EndCause, by: UserId },
    /// Your ended call is stored.
    Finalized { call: CallId, session: Arc<str>, metrics: Option<Arc<Metrics>> },
    /// A newer login replaced all your sessions but this one.
    SessionsEnded { except: TokenHash },
}

/// What the callee's home needs of a call that goes on here.
#[derive(Clone, PartialEq, Debug)]
pub struct ResumedHalf {
    pub call: CallId,
    pub caller: Arc<Card>,
    pub callee: Participant,
    pub agreed_seconds: u32,
}

/// What a participant adds to the log of a call.
#[derive(Clone, PartialEq, Debug)]
pub enum Saying {
    Text(Arc<str>),
    Socials(Arc<Socials>),
}

/// Why a call ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EndCause {
    /// `call:end`.
    HungUp,
    /// A participant has no connection any more.
    Disconnected,
    /// A participant did not come back after a restart.
    NotResumed,
    /// The agreed time and its allowance have passed (D38).
    TimeUp,
}

impl EndCause {
    /// Whether a participant was lost.
    pub fn is_loss(self) -> bool {
        matches!(self, Self::Disconnected | Self::NotResumed)
    }
}

//! What the shards ask of the store, and what it answers. Every store speaks exactly this.
//!
//! A write is durable when its reply is sent, be it in a journal. Repeating a write with the same ids changes nothing (a
//! retry after a lost reply is safe). `Reply::Failed` and `Reply::Away` mean that nothing of the request was stored; no
//! reply at all means that nobody knows.
//! Requests that name the same user, e-mail or invite code are served in the order of asking; others may overlap.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::model::{AccountType, Card, ChatLine, Gender, Login, Metrics, PaidStatus, Socials};
use crate::base::{CallId, Time, TokenHash, UserId};

/// One request; the comment names its reply.
#[derive(Clone, Debug)]
pub enum Request {
    /// Makes a guest with a session: `SignedUp`, or `InviteCode` when the code was refused and nothing was made.
    SignUp(Box<SignUp>),
    /// Who a token belongs to, expired or not: `Session`. `user` is whom the token claims; caches go by it.
    Session { user: UserId, token: TokenHash },
    /// Turns the guest into a permanent account and prolongs that session: `Linked` or `EmailTaken`.
    /// For an account that is permanent already it only prolongs (the caller has checked the password, D26).
    Link { user: UserId, token: TokenHash, email: String, password_hash: String, expires_at: Time, now: Time },
    /// The account behind a normalised e-mail: `Account`.
    AccountByEmail { email: String },
    /// The account of a user: `Account`.
    AccountByUser { user: UserId },
    /// Starts a session and ends all others of the user: `LoggedIn`.
    LogIn { user: UserId, session: NewSession, now: Time },
    /// All that `/user/me` shows: `Profile`.
    Profile { user: UserId },
    /// Replaces the socials object: `Done`.
    SetSocials { user: UserId, socials: Socials, now: Time },
    /// Who this user must not or cannot meet: `Relations`.
    Relations { user: UserId, now: Time },
    /// Whether `caller` may invite `callee`: `Pair`.
    Pair { caller: UserId, callee: UserId, now: Time },
    /// Sets the cooldown of an unordered pair; a later one overwrites (contract 4.2): `Done`.
    SetCooldown { pair: (UserId, UserId), until: Time },
    /// Stores a call that is about to begin: `Done`.
    StartCall(Box<StartedCall>),
    /// Keeps what has happened in running calls; what is of ended ones is passed over: `Done`.
    KeepCalls(Box<CallProgress>),
    /// Which other processes live, or have calls that run: `CallOwners`.
    CallOwners,
    /// Takes over the calls that nobody has, and those of `missed` as far as they are gone, as this process's round of
    /// that number: `Done`. Repeated until it is answered, or the calls were this process's without its knowing.
    TakeCalls { round: i32, missed: Vec<InstanceId> },
    /// So many of the calls that were taken over in a round, from the one that follows `after`: `RunningCalls`. Round 0
    /// are those that began in this process; in a store that one process has for itself all are of every round.
    RunningCalls { round: i32, after: Option<CallId>, limit: usize },
    /// Whether this user is in a call that runs, whoever has it: `HasCall`.
    HasCall { user: UserId },
    /// Stores an ended call for both, once per call id, and forgets that it ran, in one transaction: `Finished`.
    FinishCall(Box<FinishedCall>),
    /// The user's calls, newest first, without what is archived: `History`.
    History { user: UserId, limit: usize },
    /// Removes sessions and cooldowns that ended before `now`: `Done`.
    Sweep { now: Time },
    /// Moves calls that ended before `before` out of the users' history into the archive, longest ago first and a
    /// bounded number at a time: `Archived`.
    Archive { before: Time },
    /// Whether the database answers: `Done`.
    Ping,
    /// How the store is, answered without its database: `Standing`.
    Standing,
}

impl Request {
    /// A name for each kind, at its [`Request::index`].
    pub const NAMES: [&'static str; 23] = [
        "sign_up",
        "session",
        "link",
        "account_by_email",
        "account_by_user",
        "log_in",
        "profile",
        "set_socials",
        "relations",
        "pair",
        "set_cooldown",
        "start_call",
        "keep_calls",
        "call_owners",
        "take_calls",
        "running_calls",
        "has_call",
        "finish_call",
        "history",
        "sweep",
        "archive",
        "ping",
        "standing",
    ];

    /// Where the name of its kind stands, for what is counted by kind.
    pub fn index(&self) -> usize {
        match self {
            Self::SignUp(_) => 0,
            Self::Session { .. } => 1,
            Self::Link { .. } => 2,
            Self::AccountByEmail { .. } => 3,
            Self::AccountByUser { .. } => 4,
            Self::LogIn { .. } => 5,
            Self::Profile { .. } => 6,
            Self::SetSocials { .. } => 7,
            Self::Relations { .. } => 8,
            Self::Pair { .. } => 9,
            Self::SetCooldown { .. } => 10,
            Self::StartCall(_) => 11,
            Self::KeepCalls(_) => 12,
            Self::CallOwners => 13,
            Self::TakeCalls { .. } => 14,
            Self::RunningCalls { .. } => 15,
            Self::HasCall { .. } => 16,
            Self::FinishCall(_) => 17,
            Self::History { .. } => 18,
            Self::Sweep { .. } => 19,
            Self::Archive { .. } => 20,
            Self::Ping => 21,
            Self::Standing => 22,
        }
    }

    /// Whether it may change anything.
    pub fn is_write(&self) -> bool {
        match self {
            Self::SignUp(_)
            | Self::Link { .. }
            | Self::LogIn { .. }
            | Self::SetSocials { .. }
            | Self::SetCooldown { .. }
            | Self::StartCall(_)
            | Self::KeepCalls(_)
            | Self::TakeCalls { .. }
            | Self::FinishCall(_)
            | Self::Sweep { .. }
            | Self::Archive { .. } => true,
            Self::Session { .. }
            | Self::AccountByEmail { .. }
            | Self::AccountByUser { .. }
            | Self::Profile { .. }
            | Self::Relations { .. }
            | Self::Pair { .. }
            | Self::CallOwners
            | Self::RunningCalls { .. }
            | Self::HasCall { .. }
            | Self::History { .. }
            | Self::Ping
            | Self::Standing => false,
        }
    }

    /// Whether it may wait in a journal: a write whose asker needs nothing of what the database would say.
    pub fn may_wait(&self) -> bool {
        matches!(self, Self::FinishCall(_) | Self::SetCooldown { .. })
    }

    /// Of whom it changes what shards cache, when an endpoint asks for it.
    pub fn changes(&self) -> Option<UserId> {
        match self {
            Self::Link { user, .. } | Self::LogIn { user, .. } | Self::SetSocials { user, .. } => Some(*user),
            _ => None,
        }
    }
}

/// The answer to one request.
#[derive(Clone, Debug)]
pub enum Reply {
    Done,
    SignedUp(Box<SignedUp>),
    InviteCode(InviteCodeRefusal),
    Session(Option<Box<Login>>),
    Linked,
    EmailTaken,
    Account(Option<Box<Account>>),
    /// How many sessions it ended.
    LoggedIn {
        invalidated: u32,
    },
    Profile(Option<Box<Profile>>),
    Relations(Box<Relations>),
    /// `None`: there is no such callee.
    Pair(Option<Pair>),
    /// Totals of the caller and of the callee after the call.
    Finished {
        caller: Metrics,
        callee: Metrics,
    },
    /// `None`: no other process may have this store.
    CallOwners(Option<Vec<CallOwner>>),
    HasCall(bool),
    /// In the order of their ids.
    RunningCalls {
        /// When a process with running calls was last known to be alive.
        alive_at: Time,
        calls: Vec<RunningCall>,
        /// After which call to go on; `None`: these were the last.
        next: Option<CallId>,
    },
    History(Vec<HistoryEntry>),
    /// How many rows of history were moved; a call has one for each of the two.
    Archived {
        rows: u64,
    },
    /// The database is away; the write is durable in the journal, and it will be done before anything asked later.
    Journaled,
    Standing(Standing),
    /// The database is away, which the store has logged; nothing was changed.
    Away,
    /// The store could not do it; nothing was changed. The text is for the log, never for a client.
    Failed(String),
}

/// How a store is.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Whether its last attempt to reach or write the database succeeded.
    pub reachable: bool,
    /// Since when that is so.
    pub since: Time,
    /// `None` for a store that needs no journal, or has none.
    pub journal: Option<JournalStanding>,
}

/// How full a journal is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JournalStanding {
    /// Writes that wait for the database.
    pub waiting: usize,
    /// Writes that the database would not take; they are kept for the operator.
    pub refused: usize,
}

/// A session to be stored.
#[derive(Clone, Debug)]
pub struct NewSession {
    pub token: TokenHash,
    pub expires_at: Time,
    pub address: IpAddr,
    /// User-Agent, cut to [`crate::base::limits::DEVICE_BYTES_MAX`].
    pub device: String,
}

/// A guest to be made.
#[derive(Clone, Debug)]
pub struct SignUp {
    pub user: UserId,
    pub name: String,
    pub gender: Gender,
    pub session: NewSession,
    /// Unknown ones are ignored (contract 2.5).
    pub referral_code: Option<String>,
    /// Checked for form already. A good one costs a use and gives the new user an own code.
    pub invite_code: Option<String>,
    /// The code the new user gets as his own if `invite_code` is redeemed.
    pub own_code: String,
    pub now: Time,
}

/// A guest that was made.
#[derive(Clone, Debug)]
pub struct SignedUp {
    pub login: Login,
    /// The person the guest was introduced to, when the referral code was known.
    pub target: Option<Card>,
}

/// Why an invite code was refused (contract 2.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InviteCodeRefusal {
    Unknown,
    Deactivated,
    AlreadyUsed,
    UsedUp,
}

/// What logging in needs to know.
#[derive(Clone, Debug)]
pub struct Account {
    pub card: Card,
    pub account: AccountType,
    pub email: Option<String>,
    /// PHC string (argon2id); `None` for a guest.
    pub password_hash: Option<String>,
    /// `none`, `temporary`, `permanent` or `vindicated`; the middle two are banned.
    pub ban_status: String,
    pub review_status: Option<String>,
}

impl Account {
    /// Whether this account is suspended.
    pub fn banned(&self) -> bool {
        matches!(self.ban_status.as_str(), "temporary" | "permanent")
    }
}

/// The own profile of a user.
#[derive(Clone, Debug)]
pub struct Profile {
    pub card: Card,
    pub account: AccountType,
    pub email: Option<String>,
    pub socials: Option<Socials>,
    pub paid: PaidStatus,
    pub metrics: Metrics,
    pub created_at: Time,
}

/// Pairs that concern one user.
#[derive(Clone, Debug, Default)]
pub struct Relations {
    /// The other user and when the cooldown ends; only those still running.
    pub cooldowns: Vec<(UserId, Time)>,
    /// Users this one reported or who reported this one (D40).
    pub hidden: Vec<UserId>,
}

/// What an invite depends on.
#[derive(Clone, Debug)]
pub struct Pair {
    /// End of a running cooldown.
    pub cooldown_until: Option<Time>,
    /// One of the two reported the other (D40).
    pub hidden: bool,
    /// The callee is banned: unreachable.
    pub banned: bool,
}

/// A process among those that share a store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct InstanceId(pub i32);

/// Another process that lives or has calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallOwner {
    /// `None`: of calls that nobody has.
    pub instance: Option<InstanceId>,
    pub is_alive: bool,
}

/// A call that begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StartedCall {
    pub call: CallId,
    pub caller: UserId,
    pub callee: UserId,
    pub agreed_seconds: u32,
    pub started_at: Time,
}

/// What has happened in the running calls of one shard since it was last kept.
#[derive(Clone, Debug, Default)]
pub struct CallProgress {
    /// The process is alive at this time.
    pub alive_at: Time,
    /// Who has been in the room.
    pub joined: Vec<(CallId, UserId)>,
    /// Lines of chat, each with its number in its call, from 0.
    pub lines: Vec<(CallId, u32, ChatLine)>,
}

/// A call that has begun and not ended.
#[derive(Clone, Debug)]
pub struct RunningCall {
    pub call: CallId,
    pub caller: Participant,
    pub callee: Participant,
    pub agreed_seconds: u32,
    pub started_at: Time,
    pub messages: Vec<ChatLine>,
}

/// One of the two in a running call.
#[derive(Clone, PartialEq, Debug)]
pub struct Participant {
    pub card: Arc<Card>,
    pub paid: PaidStatus,
    /// Whether this one has been in the room.
    pub joined: bool,
}

impl Participant {
    /// Who it is.
    pub fn user(&self) -> UserId {
        self.card.user_id
    }
}

/// A call that has ended. A journal keeps it as JSON, also for a later version: a new field needs a default.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FinishedCall {
    /// Unique; makes a repeated write harmless.
    pub call: CallId,
    /// `sessionId` on the wire (contract 3.5, D11).
    pub session: String,
    pub caller: UserId,
    pub caller_name: String,
    pub callee: UserId,
    pub callee_name: String,
    pub started_at: Time,
    pub ended_at: Time,
    /// Whole seconds from accept to end.
    pub duration: u64,
    pub messages: Vec<ChatLine>,
    /// Whether both get a history entry and totals (contract 4.3).
    pub recorded: bool,
    /// Whether it counts as a completion for both.
    pub completed: bool,
    /// Until when the two may not call again.
    pub cooldown_until: Option<Time>,
}

/// One entry of `/room/history`.
#[derive(Clone, Debug)]
pub struct HistoryEntry {
    pub session: String,
    pub room: CallId,
    pub partner: UserId,
    pub partner_name: String,
    pub started_at: Time,
    /// Seconds.
    pub duration: u64,
    /// A JSON array of [`ChatLine`], passed on as it was stored.
    pub messages: String,
}

//! Nouns that several messages share: the card of a user, what is known of a login, a line of chat.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::base::{Time, TokenHash, UserId};

/// Gender as the wire names it (contract 2.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gender {
    Female,
    Male,
    Nonbinary,
    Unspecified,
}

impl Gender {
    /// The gender named `text`.
    pub fn decode(text: &str) -> Option<Self> {
        Some(match text {
            "female" => Self::Female,
            "male" => Self::Male,
            "nonbinary" => Self::Nonbinary,
            "unspecified" => Self::Unspecified,
            _ => return None,
        })
    }

    /// Its wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Female => "female",
            Self::Male => "male",
            Self::Nonbinary => "nonbinary",
            Self::Unspecified => "unspecified",
        }
    }
}

/// Where a user stands with the paywall (contract 1). All but `Unpaid` have access.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaidStatus {
    Unpaid,
    Paid,
    QrGracePeriod,
    QrVerified,
}

impl PaidStatus {
    /// The status stored as `text`; anything unknown has no access.
    pub fn decode(text: &str) -> Self {
        match text {
            "paid" => Self::Paid,
            "qr_grace_period" => Self::QrGracePeriod,
            "qr_verified" => Self::QrVerified,
            _ => Self::Unpaid,
        }
    }

    /// Its wire and stored name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unpaid => "unpaid",
            Self::Paid => "paid",
            Self::QrGracePeriod => "qr_grace_period",
            Self::QrVerified => "qr_verified",
        }
    }
}

/// Guest (no e-mail) or permanent (contract 1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccountType {
    Guest,
    Permanent,
}

/// The light public card of a user: all that others see of a person, serialized as the contract's `fromUser`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Card {
    pub user_id: UserId,
    pub name: String,
    pub gender: Gender,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selfie_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video_url: Option<String>,
    /// To whom this user was introduced, and by whom (name); only the target's queue shows it.
    #[serde(skip)]
    pub introduction: Option<Introduction>,
}

impl Card {
    /// Its JSON but for the brace that closes it: what differs from viewer to viewer follows in the queue's list.
    pub fn encode_open(&self) -> Box<[u8]> {
        let mut json = serde_json::to_vec(self).expect("memory takes it, and a card has no key but text");
        json.pop();
        json.into()
    }
}

/// "Introduced to `target` by `introducer`" (contract 4.4).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Introduction {
    pub target: UserId,
    /// The introducer's name at sign-up.
    pub introducer: String,
}

/// A user's account as far as every request needs it; what the session cache holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Login {
    pub card: Arc<Card>,
    pub token: TokenHash,
    pub account: AccountType,
    pub paid: PaidStatus,
    pub banned: bool,
    /// False once a newer login replaced it (contract 2.2, `Session invalidated`).
    pub active: bool,
    pub expires_at: Time,
}

impl Login {
    /// The user it belongs to.
    pub fn user(&self) -> UserId {
        self.card.user_id
    }
}

/// Platform -> handle (contract 2.6); checked for count and lengths where it enters (D34).
pub type Socials = BTreeMap<String, String>;

/// One line of a call's log, in the wire form of `/room/history` (contract 2.6).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChatLine {
    /// The author's user id, or `system`.
    pub from: String,
    /// Always there: a social message carries its socials as text too (W14).
    pub text: String,
    pub timestamp: Time,
    #[serde(rename = "type")]
    pub kind: ChatKind,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub socials: Option<Socials>,
}

/// What a line of chat is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChatKind {
    Message,
    Social,
}

/// Totals of a user's calls, as `metrics:update` and `/user/me` show them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metrics {
    pub timer_total_seconds: u64,
    pub session_count: u64,
    /// Newest last, at most [`crate::base::limits::LAST_SESSIONS_MAX`].
    pub last_sessions: Vec<LastSession>,
}

/// One of the last calls of a user.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LastSession {
    pub at: Time,
    /// Seconds.
    pub duration: u64,
}

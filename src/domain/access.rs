//! Who may do what: sessions, bans and the paywall (D18, D28).

use crate::base::{Time, UserId};
use crate::message::PaidStatus;
use crate::message::model::Login;

use super::Domain;

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

impl Domain {
    /// Whether the paywall lets this user queue and call.
    pub(super) fn may_call(&self, user: UserId) -> bool {
        let unpaid = || self.users.get(&user).is_none_or(|user| user.paid == PaidStatus::Unpaid);
        !(self.settings.paywall && unpaid())
    }
}

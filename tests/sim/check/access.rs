//! Access: the banned are not let in, the unpaid neither ring nor are rung nor queue, replaced sessions do not live on.

use duet::base::{ConnId, Time, UserId};
use duet::domain::Domain;

use super::Oracle;
use crate::shell::Shard;
use crate::store::Store;

/// For how long a connection of a replaced session may go on.
const CLOSING_MS: u64 = 10_000;

impl Oracle {
    /// Whether the paywall keeps this user out of the queue.
    pub fn is_paywalled(&self, user: UserId) -> bool {
        self.paywall && self.people[&user].unpaid
    }

    pub(super) fn bound(&mut self, now: Time, conn: ConnId, domain: &Domain) {
        let Some(user) = domain.user_of(conn) else { return };
        self.owner.insert(conn, user);
        let person = self.people.get_mut(&user).expect("only people bind");
        person.bound.insert(conn, now);
        person.crashed = false;
        if person.banned {
            self.complain("bans", format!("{user} is banned and was bound"));
        }
    }

    pub(super) fn check_paywall(&mut self, callee: UserId, caller: UserId) {
        if self.is_paywalled(callee) || self.is_paywalled(caller) {
            self.complain("paywall", format!("an invite of {caller} rings at {callee}"));
        }
    }

    /// A connection whose session was replaced must be closed; nobody unpaid is listed.
    pub(super) fn inspect_access(&mut self, now: Time, shards: &[Shard], store: &Store) {
        let old = self.owner.iter().find(|(conn, _)| {
            let replaced_at = self.tokens.get(*conn).and_then(|token| store.replaced.get(token));
            replaced_at.is_some_and(|at| now > *at + CLOSING_MS)
        });
        if let Some((conn, user)) = old.map(|(conn, user)| (*conn, *user)) {
            self.complain("replaced sessions end", format!("{conn:?} of {user} lives on a replaced session"));
        }
        let listed = self.people.keys().find(|user| {
            self.is_paywalled(**user) && shards.iter().any(|shard| shard.domain.directory().is_available(**user))
        });
        if let Some(user) = listed.copied() {
            self.complain("paywall", format!("{user} is in the queue"));
        }
    }
}

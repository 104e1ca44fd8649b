//! Invites: each ends exactly once for its caller, none stays open for ever, and none rings during a cooldown that was
//! told.

use std::collections::{BTreeMap, BTreeSet};

use duet::base::limits::{COOLDOWN_LONG_MS, INVITE_EXTENSIONS_MAX, INVITE_SLACK_MS, INVITE_TTL_MS};
use duet::base::{InviteId, Time, UserId};
use duet::domain::Effect;
use duet::message::server::DeclineReason;
use duet::message::store::Request;
use duet::message::{ClientEvent, ServerEvent, UserMessage};

use super::{Oracle, Seen};
use crate::plan::Mutant;
use crate::store::{Store, unordered};

/// The longest an invite may be open: with all extensions, and what the caller's home adds for the callee's.
const OPEN_MS_MAX: u64 = INVITE_TTL_MS * (1 + INVITE_EXTENSIONS_MAX as u64) + INVITE_SLACK_MS + 15_000;

#[derive(Default)]
pub struct Invites {
    /// Open invites as the caller's home must see them.
    open: BTreeMap<(UserId, UserId), Open>,
    /// Caller and callee of every invite that rang.
    rang: BTreeMap<InviteId, (UserId, UserId)>,
    over: BTreeSet<InviteId>,
    /// When the store last read a pair for a caller's invite.
    read: BTreeMap<(UserId, UserId), Time>,
    /// Cooldowns that somebody was told of: when, and their end.
    cooldowns: BTreeMap<(UserId, UserId), (Time, Time)>,
    /// Cooldowns that were asked to be stored, by shard and ticket: a write that is repeated decides nothing anew.
    written: BTreeSet<(usize, u64)>,
    /// Declines that browsers heard.
    heard: BTreeSet<(usize, InviteId)>,
    count: u64,
    counts: BTreeMap<&'static str, u64>,
}

struct Open {
    since: Time,
    /// When the store said that the pair has no cooldown.
    read_at: Time,
    /// The caller was without a connection, so that the end may have found nobody to be told.
    was_away: bool,
    /// Whether it was seen to ring, or on its way to another shard.
    rang: bool,
}

impl Oracle {
    pub fn pair_read(&mut self, caller: UserId, callee: UserId, at: Time) {
        self.invites.read.insert((caller, callee), at);
    }

    /// Before the effects are looked at: an invite that was not refused is open.
    pub(super) fn invites_asked(&mut self, now: Time, asker: Option<UserId>, seen: &Seen, effects: &[Effect]) {
        let (Seen::Client(conn, ClientEvent::Invite { callee: Some(callee), .. }), Some(caller)) = (seen, asker) else {
            return;
        };
        let is_refusal = |effect: &Effect| match effect {
            Effect::Send {
                conn: to,
                event: ServerEvent::Declined { invite: None, .. } | ServerEvent::Error { .. },
            } => to == conn,
            _ => false,
        };
        if !effects.iter().any(is_refusal) {
            let read_at = self.invites.read.get(&(caller, *callee)).copied().unwrap_or(now);
            self.invites.count += 1;
            let open = self.invites.open.entry((caller, *callee)).or_insert(Open {
                since: now,
                read_at,
                was_away: false,
                rang: false,
            });
            if std::mem::take(&mut open.was_away) {
                // It may be the old one, still open, or a new one.
                (open.since, open.read_at) = (now, read_at);
            }
        }
    }

    /// After the effects: what else ends an invite.
    pub(super) fn invites_answered(&mut self, at: usize, asker: Option<UserId>, seen: &Seen, effects: &[Effect]) {
        let is_rescind = matches!(seen, Seen::Client(_, ClientEvent::Rescind { .. }));
        for effect in effects {
            let Effect::Write { ticket, request } = effect else { continue };
            let Request::SetCooldown { pair: (caller, callee), .. } = **request else { continue };
            if !self.invites.written.insert((at, *ticket)) {
                continue;
            }
            if (is_rescind && asker == Some(caller)) || self.people[&caller].bound.is_empty() {
                self.invites.open.remove(&(caller, callee));
            }
        }
    }

    /// An invite is on its way to another shard.
    pub(super) fn told(&mut self, user: UserId, message: &UserMessage) {
        if let UserMessage::Invited { invite, from, .. } = message {
            self.invites.rang.insert(*invite, (from.user_id, user));
            if let Some(open) = self.invites.open.get_mut(&(from.user_id, user)) {
                open.rang = true;
            }
        }
    }

    pub(super) fn notified(&mut self, now: Time, callee: UserId, invite: InviteId, caller: UserId) {
        self.check_paywall(callee, caller);
        let is_new = self.invites.rang.insert(invite, (caller, callee)).is_none();
        let Some(open) = self.invites.open.get_mut(&(caller, callee)) else { return };
        open.rang = true;
        if !is_new {
            return;
        }
        let pair = unordered((caller, callee));
        if let Some((told_at, until)) = self.invites.cooldowns.get(&pair)
            && open.read_at > *told_at
            && now < *until
        {
            self.complain(
                "cooldowns",
                format!("{caller} rings at {callee} although told of a cooldown at {told_at:?}"),
            );
        }
    }

    pub(super) fn declined(
        &mut self,
        now: Time,
        caller: UserId,
        invite: InviteId,
        reason: DeclineReason,
        store: &Store,
    ) {
        *self.invites.counts.entry(name(reason)).or_default() += 1;
        if !self.invites.over.insert(invite) {
            return self.complain("an invite ends once", format!("{invite} of {caller} was declined again"));
        }
        // One that never rang where it could be seen: refused at once, or its callee was away for a moment.
        let Some((_, callee)) = self.invites.rang.get(&invite).copied() else {
            let unseen = |((from, _), open): &(&(UserId, UserId), &Open)| *from == caller && !open.rang;
            let newest =
                self.invites.open.iter().filter(unseen).max_by_key(|(_, open)| (open.since == now, open.since));
            if let Some(pair) = newest.map(|(pair, _)| *pair) {
                self.invites.open.remove(&pair);
            }
            return;
        };
        if self.invites.open.remove(&(caller, callee)).is_none() {
            self.complain("an invite ends once", format!("{invite} of {caller} to {callee} was over already"));
        }
        if reason == DeclineReason::UserDeclined {
            self.cooldown_told(now, (caller, callee), now + COOLDOWN_LONG_MS, store);
        }
    }

    pub(super) fn refused(&mut self, reason: DeclineReason) {
        *self.invites.counts.entry(name(reason)).or_default() += 1;
    }

    /// Somebody learns that a pair has a cooldown: it must be durable.
    pub(super) fn cooldown_told(&mut self, now: Time, pair: (UserId, UserId), until: Time, store: &Store) {
        let pair = unordered(pair);
        let is_lost = store.mutant == Some(Mutant::CooldownLost);
        if !is_lost && !store.cooled.contains(&pair) {
            return self.complain("durable before visible", format!("no cooldown is stored for {pair:?}"));
        }
        if !is_lost && !store.cooldowns.contains_key(&pair) {
            return;
        }
        // The exact end depends on when the write was decided; an hour less keeps clear of that.
        self.invites.cooldowns.insert(pair, (now, Time(until.0 - 3_600_000)));
    }

    /// All invites of a caller are over: his call begins; but the one to `peer` may yet be declined.
    pub(super) fn invites_over(&mut self, caller: UserId, peer: Option<UserId>) {
        self.invites.open.retain(|(from, to), _| *from != caller || Some(*to) == peer);
    }

    /// Who made an invite that rang.
    pub fn caller_of(&self, invite: InviteId) -> Option<UserId> {
        self.invites.rang.get(&invite).map(|(caller, _)| *caller)
    }

    /// A browser heard that an invite is over.
    pub(super) fn heard_declined(&mut self, pipe: usize, invite: InviteId) {
        if !self.invites.heard.insert((pipe, invite)) {
            self.complain("an invite ends once", format!("pipe {pipe} heard the end of {invite} twice"));
        }
    }

    pub(super) fn inspect_invites(&mut self, now: Time) {
        let old = self.invites.open.iter().find(|(_, open)| !open.was_away && now - open.since > OPEN_MS_MAX);
        if let Some((pair, since)) = old.map(|(pair, open)| (*pair, open.since)) {
            self.complain("no invite stays open", format!("{pair:?} since {since:?}"));
        }
    }

    pub(super) fn invites_crashed(&mut self) {
        self.invites.open.clear();
        self.invites.written.clear();
    }

    /// All cooldowns were taken away.
    pub fn cooldowns_lifted(&mut self) {
        self.invites.cooldowns.clear();
    }

    /// A caller has no connection any more.
    pub(super) fn caller_away(&mut self, caller: UserId) {
        self.invites
            .open
            .iter_mut()
            .filter(|((from, _), _)| *from == caller)
            .for_each(|(_, open)| open.was_away = true);
    }

    pub(super) fn invites_quiet(&mut self) {
        let open = self.invites.open.iter().find(|(_, open)| !open.was_away);
        if let Some(pair) = open.map(|(pair, _)| *pair) {
            self.complain("no invite stays open", format!("{pair:?} at the end"));
        }
    }

    pub(super) fn invite_facts(&self) -> Vec<(&'static str, u64)> {
        let mut facts = vec![("invites", self.invites.count)];
        facts.extend(self.invites.counts.iter().map(|(reason, count)| (*reason, *count)));
        facts
    }
}

fn name(reason: DeclineReason) -> &'static str {
    match reason {
        DeclineReason::InvalidTarget => "declined invalid target",
        DeclineReason::UserNotFound => "declined user not found",
        DeclineReason::InvalidDuration => "declined invalid duration",
        DeclineReason::Offline => "declined offline",
        DeclineReason::Cooldown => "declined cooldown",
        DeclineReason::UserDeclined => "declined by the user",
        DeclineReason::Busy => "declined busy",
        DeclineReason::Timeout => "declined timeout",
    }
}

//! Invites: made at the caller's home, ringing at the callee's (contract 3.3, 4.1, 4.2, D4, D5, D39, Decided 1-2).
//!
//! Each invite ends exactly once, and its end is told after its cooldown is stored. The callee's home decides whether
//! it still rings; the caller's home whether it may still be accepted.

use std::sync::Arc;

use crate::base::limits::{
    COOLDOWN_LONG_MS, COOLDOWN_SHORT_MS, INVITE_EXTENSIONS_MAX, INVITE_SLACK_MS, INVITE_TTL_MS, INVITES_INCOMING_MAX,
    INVITES_OUTGOING_MAX,
};
use crate::base::{ConnId, InviteId, Time, UserId};
use crate::message::client::Seconds;
use crate::message::server::DeclineReason;
use crate::message::store::{Reply, Request};
use crate::message::{Card, ServerEvent, UserMessage};

use super::counts::{InviteEnd, InviteRefusal};
use super::user::{Incoming, Outgoing, User};
use super::writes::Then;
use super::{Domain, Effects, Timer};

/// How long the caller's home waits beyond the callee's before it ends an invite of which it hears nothing.
const OUTGOING_SLACK_MS: u64 = 10_000;

impl Domain {
    /// `call:invite`, checked in the contract's order.
    pub(super) fn invite(
        &mut self,
        now: Time,
        id: UserId,
        conn: ConnId,
        (callee, seconds): (Option<UserId>, Option<Seconds>),
        fact: Option<Reply>,
        out: &mut Effects,
    ) {
        if !self.may_call(id) {
            return self.refuse(conn, InviteRefusal::PaymentRequired, out);
        }
        if callee == Some(id) {
            return self.refuse(conn, InviteRefusal::InvalidTarget, out);
        }
        let (callee, pair) = match (callee, fact) {
            (Some(callee), Some(Reply::Pair(Some(pair)))) => (callee, pair),
            (None, _) | (_, Some(Reply::Pair(None))) => {
                return self.refuse(conn, InviteRefusal::UserNotFound, out);
            }
            _ => return self.refuse(conn, InviteRefusal::StoreUnavailable, out),
        };
        let Some(seconds) = seconds else { return self.refuse(conn, InviteRefusal::InvalidDuration, out) };
        if pair.hidden || pair.banned || self.draining {
            return self.refuse(conn, InviteRefusal::Offline, out);
        }
        if pair.cooldown_until.is_some() {
            return self.refuse(conn, InviteRefusal::Cooldown, out);
        }
        let user = self.users.get_mut(&id).expect("a bound connection has a user");
        if !user.is_free() {
            return self.refuse(conn, InviteRefusal::InCall, out);
        }
        if user.outgoing.iter().any(|outgoing| outgoing.callee == callee) {
            return;
        }
        if user.outgoing.len() >= INVITES_OUTGOING_MAX {
            return self.refuse(conn, InviteRefusal::TooMany, out);
        }
        let invite = InviteId::draw(&mut self.random);
        let until = now + INVITE_TTL_MS + INVITE_SLACK_MS + OUTGOING_SLACK_MS;
        user.outgoing.push(Outgoing { invite, callee, seconds, conn, extensions: 0, until });
        self.timers.insert((until, Timer::Outgoing(id, invite)));
        let from = user.card.clone();
        self.counts.invites_made.add_one();
        self.tell(callee, UserMessage::Invited { invite, from, seconds }, out);
    }

    /// No invite is made, and the caller hears why.
    fn refuse(&self, conn: ConnId, why: InviteRefusal, out: &mut Effects) {
        self.counts.invites_refused.add_one(why as usize);
        let reason = match why {
            InviteRefusal::InvalidTarget => DeclineReason::InvalidTarget,
            InviteRefusal::UserNotFound => DeclineReason::UserNotFound,
            InviteRefusal::InvalidDuration => DeclineReason::InvalidDuration,
            InviteRefusal::Offline => DeclineReason::Offline,
            InviteRefusal::Cooldown => DeclineReason::Cooldown,
            InviteRefusal::PaymentRequired => return out.error(conn, "Payment required"),
            InviteRefusal::InCall => return out.error(conn, "You are in a call"),
            InviteRefusal::TooMany => return out.error(conn, "Too many open invites"),
            InviteRefusal::StoreUnavailable => return out.error(conn, "The service is busy, try again"),
        };
        out.send(conn, ServerEvent::Declined { invite: None, reason });
    }

    /// At the callee: rings if the callee is available now.
    pub(super) fn invited(
        &mut self,
        now: Time,
        id: UserId,
        invite: InviteId,
        from: Arc<Card>,
        seconds: Seconds,
        out: &mut Effects,
    ) {
        let is_open = |user: &&mut Box<User>| !self.draining && user.is_free() && user.is_available();
        let user = self.users.get_mut(&id).filter(is_open);
        let refusal = match &user {
            None => Some(DeclineReason::Offline),
            Some(user) if user.incoming.len() >= INVITES_INCOMING_MAX => Some(DeclineReason::Busy),
            Some(_) => None,
        };
        let Some(user) = user.filter(|_| refusal.is_none()) else {
            let reason = refusal.unwrap_or(DeclineReason::Offline);
            return self.tell(from.user_id, UserMessage::InviteEnded { invite, reason }, out);
        };
        let until = now + INVITE_TTL_MS + INVITE_SLACK_MS;
        user.incoming.push(Incoming { invite, from: from.clone(), seconds, until });
        self.timers.insert((until, Timer::Incoming(id, invite)));
        self.send_all(id, &ServerEvent::CallNotify { invite, from, seconds: seconds.get() }, out);
    }

    /// At the caller: the invite came to nothing.
    pub(super) fn invite_ended(&mut self, id: UserId, invite: InviteId, reason: DeclineReason, out: &mut Effects) {
        if let Some(outgoing) = self.take_outgoing(id, reason.into(), |outgoing| outgoing.invite == invite) {
            self.send_first(id, outgoing.conn, &ServerEvent::Declined { invite: Some(invite), reason }, out);
            self.forget_idle(id);
        }
    }

    /// `call:decline`; an invite that is gone is ignored (W1).
    pub(super) fn decline(&mut self, now: Time, id: UserId, invite: Option<InviteId>, out: &mut Effects) {
        let Some(incoming) = invite.and_then(|invite| self.take_incoming(id, invite)) else { return };
        let reason = DeclineReason::UserDeclined;
        let told = vec![(incoming.from.user_id, UserMessage::InviteEnded { invite: incoming.invite, reason })];
        self.cool_down((id, incoming.from.user_id), now + COOLDOWN_LONG_MS, told, out);
    }

    /// `call:extend-wait`: for my own pending invite, a few times.
    pub(super) fn extend_wait(
        &mut self,
        now: Time,
        id: UserId,
        conn: ConnId,
        callee: Option<UserId>,
        out: &mut Effects,
    ) {
        let user = self.users.get_mut(&id).expect("a bound connection has a user");
        let outgoing = user.outgoing.iter_mut().find(|outgoing| Some(outgoing.callee) == callee);
        let Some(outgoing) = outgoing.filter(|outgoing| outgoing.extensions < INVITE_EXTENSIONS_MAX) else {
            return out.error(conn, "There is no invite to extend");
        };
        outgoing.extensions += 1;
        outgoing.until = outgoing.until.max(now) + INVITE_TTL_MS;
        let (callee, invite, until) = (outgoing.callee, outgoing.invite, outgoing.until);
        self.timers.insert((until, Timer::Outgoing(id, invite)));
        self.tell(callee, UserMessage::Extended { invite }, out);
    }

    /// At the callee: rings longer.
    pub(super) fn extended(&mut self, id: UserId, invite: InviteId, out: &mut Effects) {
        let Some(user) = self.users.get_mut(&id) else { return };
        let Some(incoming) = user.incoming.iter_mut().find(|incoming| incoming.invite == invite) else { return };
        incoming.until = incoming.until + INVITE_TTL_MS;
        self.timers.insert((incoming.until, Timer::Incoming(id, invite)));
        self.send_all(id, &ServerEvent::WaitExtended, out);
    }

    /// `call:rescind`; without such an invite it is ignored.
    pub(super) fn rescind(&mut self, now: Time, id: UserId, callee: Option<UserId>, out: &mut Effects) {
        let to_callee = |outgoing: &Outgoing| Some(outgoing.callee) == callee;
        if let Some(outgoing) = self.take_outgoing(id, InviteEnd::Rescinded, to_callee) {
            self.take_back(now, id, &outgoing, out);
        }
    }

    /// The caller is gone: all his invites are taken back (contract 3.5).
    pub(super) fn rescind_all(&mut self, now: Time, id: UserId, out: &mut Effects) {
        while let Some(outgoing) = self.take_outgoing(id, InviteEnd::Rescinded, |_| true) {
            self.take_back(now, id, &outgoing, out);
        }
    }

    fn take_back(&mut self, now: Time, id: UserId, outgoing: &Outgoing, out: &mut Effects) {
        let told = vec![(outgoing.callee, UserMessage::Rescinded { invite: outgoing.invite })];
        self.cool_down((id, outgoing.callee), now + COOLDOWN_SHORT_MS, told, out);
    }

    /// At the callee: it stops ringing.
    pub(super) fn rescinded(&mut self, id: UserId, invite: InviteId, out: &mut Effects) {
        if self.take_incoming(id, invite).is_some() {
            self.send_all(id, &ServerEvent::Rescinded { invite }, out);
            self.forget_idle(id);
        }
    }

    /// The callee can no longer be called: what rings at him ends, with `reason` for the callers.
    pub(super) fn unavailable(&mut self, id: UserId, reason: DeclineReason, out: &mut Effects) {
        let Some(user) = self.users.get_mut(&id).filter(|user| !user.is_available()) else { return };
        let accepting = user.accepting.as_ref().map(|accepting| accepting.invite);
        let (kept, ended) = user.incoming.drain(..).partition(|incoming| Some(incoming.invite) == accepting);
        user.incoming = kept;
        let ended: Vec<Incoming> = ended;
        for incoming in ended {
            let invite = incoming.invite;
            self.send_all(id, &ServerEvent::Rescinded { invite }, out);
            self.tell(incoming.from.user_id, UserMessage::InviteEnded { invite, reason }, out);
        }
    }

    /// A call of this user begins: his other invites end, both ways (D4).
    pub(super) fn end_other_invites(&mut self, id: UserId, out: &mut Effects) {
        self.unavailable(id, DeclineReason::Busy, out);
        while let Some(outgoing) = self.take_outgoing(id, InviteEnd::Superseded, |_| true) {
            self.tell(outgoing.callee, UserMessage::Rescinded { invite: outgoing.invite }, out);
        }
    }

    /// Nobody answered: a short cooldown, then both are told (Decided 1).
    pub(super) fn incoming_expired(&mut self, now: Time, id: UserId, invite: InviteId, out: &mut Effects) {
        let incoming = self.users.get(&id).into_iter().flat_map(|user| &user.incoming);
        let due = incoming.into_iter().any(|incoming| incoming.invite == invite && incoming.until <= now);
        let Some(incoming) = due.then(|| self.take_incoming(id, invite)).flatten() else { return };
        self.send_all(id, &ServerEvent::Rescinded { invite }, out);
        let caller = incoming.from.user_id;
        let told = vec![(caller, UserMessage::InviteEnded { invite, reason: DeclineReason::Timeout })];
        self.cool_down((id, caller), now + COOLDOWN_SHORT_MS, told, out);
    }

    /// The callee's home never answered: the caller need not wait for ever.
    pub(super) fn outgoing_expired(&mut self, now: Time, id: UserId, invite: InviteId, out: &mut Effects) {
        let due = |outgoing: &Outgoing| outgoing.invite == invite && outgoing.until <= now;
        if let Some(outgoing) = self.take_outgoing(id, InviteEnd::Timeout, due) {
            let event = ServerEvent::Declined { invite: Some(invite), reason: DeclineReason::Timeout };
            self.send_first(id, outgoing.conn, &event, out);
            self.tell(outgoing.callee, UserMessage::Rescinded { invite }, out);
            self.forget_idle(id);
        }
    }

    /// Stores a cooldown, then tells whom it concerns.
    fn cool_down(&mut self, pair: (UserId, UserId), until: Time, told: Vec<(UserId, UserMessage)>, out: &mut Effects) {
        self.write(Request::SetCooldown { pair, until }, Then::Tell(told), out);
    }

    /// Removes an invite that rings, unless it is being accepted at this moment.
    pub(super) fn take_incoming(&mut self, id: UserId, invite: InviteId) -> Option<Incoming> {
        let user = self.users.get_mut(&id)?;
        if user.accepting.as_ref().is_some_and(|accepting| accepting.invite == invite) {
            return None;
        }
        let position = user.incoming.iter().position(|incoming| incoming.invite == invite)?;
        Some(user.incoming.remove(position))
    }

    pub(super) fn take_outgoing(
        &mut self,
        id: UserId,
        end: InviteEnd,
        which: impl Fn(&Outgoing) -> bool,
    ) -> Option<Outgoing> {
        let user = self.users.get_mut(&id)?;
        let position = user.outgoing.iter().position(which)?;
        self.counts.invites_ended.add_one(end as usize);
        Some(user.outgoing.remove(position))
    }
}

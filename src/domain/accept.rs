//! Accepting, in two steps between two homes, so that nobody is ever in two calls (D4).
//!
//! The callee's home marks its user as accepting (the first compare-and-set) and proposes the call to the caller's
//! home; that one checks that the invite stands and its user is free, enters him into the call (the second) and
//! agrees. Either refusal undoes the mark. A mark is dropped after [`ACCEPT_TIMEOUT_MS`]; an agreement that comes
//! later still finds no mark and ends the call. Two who accept each other's invites at once: the smaller callee wins.

use std::sync::Arc;

use crate::base::limits::{ACCEPT_TIMEOUT_MS, CALL_ALLOWANCE_MS};
use crate::base::{CallId, ConnId, InviteId, Time, UserId};
use crate::message::client::Seconds;
use crate::message::server::DeclineReason;
use crate::message::shard::EndCause;
use crate::message::{Card, ServerEvent, UserMessage};

use super::call::Call;
use super::counts::InviteEnd;
use super::user::{Accepting, Engagement, Role, User};
use super::{Domain, Effects, Timer};

impl Domain {
    /// `call:accept`, at the callee.
    pub(super) fn accept(
        &mut self,
        now: Time,
        id: UserId,
        conn: ConnId,
        invite: Option<InviteId>,
        seconds: Option<Seconds>,
        out: &mut Effects,
    ) {
        if !self.may_call(id) {
            return out.error(conn, "Payment required");
        }
        let user = self.users.get_mut(&id).expect("a bound connection has a user");
        let Some(incoming) = user.incoming.iter().find(|incoming| Some(incoming.invite) == invite) else {
            return out.error(conn, "This invite is no longer open");
        };
        let Some(seconds) = seconds else {
            return out.error(conn, "requestedSeconds must be an integer from 60 to 1800");
        };
        if !user.is_free() {
            return out.error(conn, "You are in a call");
        }
        let (invite, caller) = (incoming.invite, incoming.from.user_id);
        let call = CallId::draw(&mut self.random);
        let callee = user.card.clone();
        user.accepting = Some(Box::new(Accepting { invite, call, caller, conn }));
        self.timers.insert((now + ACCEPT_TIMEOUT_MS, Timer::Accepting(id, invite)));
        self.tell(caller, UserMessage::Propose { invite, call, callee, seconds }, out);
    }

    /// At the caller: takes part if the invite stands and he is free.
    pub(super) fn propose(
        &mut self,
        now: Time,
        id: UserId,
        invite: InviteId,
        (call, callee, wanted): (CallId, Arc<Card>, Seconds),
        out: &mut Effects,
    ) {
        let user = self.users.get_mut(&id).filter(|user| user.is_present() && user.engaged.is_none());
        let position = |user: &User| user.outgoing.iter().position(|outgoing| outgoing.invite == invite);
        let Some((user, position)) = user.and_then(|user| position(user).map(|position| (user, position))) else {
            return self.tell(callee.user_id, UserMessage::NotAgreed { invite, call, over: true }, out);
        };
        if user.accepting.as_ref().is_some_and(|mine| mine.caller != callee.user_id || id < callee.user_id) {
            return self.tell(callee.user_id, UserMessage::NotAgreed { invite, call, over: false }, out);
        }
        let outgoing = user.outgoing.remove(position);
        self.counts.invites_ended.add_one(InviteEnd::Accepted as usize);
        self.counts.calls_started.add_one();
        let agreed_seconds = (outgoing.seconds.get() + wanted.get()) / 2;
        let caller_card = user.card.clone();
        user.accepting = None;
        self.engage(now, id, Engagement::new(call, &callee, Role::Caller, agreed_seconds), out);
        self.calls.insert(call, Call::new(call, caller_card, callee.clone(), now));
        let time_up = now + u64::from(agreed_seconds) * 1000 + CALL_ALLOWANCE_MS;
        self.timers.insert((time_up, Timer::CallTime(call)));
        self.tell(callee.user_id, UserMessage::Agreed { invite, call, caller: id, agreed_seconds }, out);
        self.call_start(id, outgoing.conn, out);
    }

    /// At the callee: the call stands, if the mark still does.
    pub(super) fn agreed(
        &mut self,
        now: Time,
        id: UserId,
        invite: InviteId,
        (call, caller, agreed_seconds): (CallId, UserId, u32),
        out: &mut Effects,
    ) {
        let user = self.users.get_mut(&id);
        let accepting = user.and_then(|user| {
            let accepting = user.accepting.take_if(|accepting| accepting.call == call)?;
            let position = user.incoming.iter().position(|incoming| incoming.invite == invite)?;
            Some((accepting, user.incoming.remove(position)))
        });
        let Some((accepting, incoming)) = accepting else {
            return self.tell(caller, UserMessage::End { call, cause: EndCause::Disconnected }, out);
        };
        self.engage(now, id, Engagement::new(call, &incoming.from, Role::Callee, agreed_seconds), out);
        self.call_start(id, accepting.conn, out);
        if self.users.get(&id).is_some_and(|user| !user.is_present()) {
            self.end_by(now, id, EndCause::Disconnected, out);
        }
    }

    /// At the callee: the accept came to nothing.
    pub(super) fn not_agreed(&mut self, id: UserId, invite: InviteId, call: CallId, over: bool, out: &mut Effects) {
        let Some(user) = self.users.get_mut(&id) else { return };
        let Some(accepting) = user.accepting.take_if(|accepting| accepting.call == call) else { return };
        if over {
            user.incoming.retain(|incoming| incoming.invite != invite);
            self.send_all(id, &ServerEvent::Rescinded { invite }, out);
        }
        let error = ServerEvent::Error { message: "The caller cannot take the call now" };
        self.send_first(id, accepting.conn, &error, out);
        self.after_accept_failed(id, out);
    }

    /// At the callee: the caller's home does not answer.
    pub(super) fn accept_expired(&mut self, id: UserId, invite: InviteId, out: &mut Effects) {
        let Some(user) = self.users.get_mut(&id) else { return };
        let Some(accepting) = user.accepting.take_if(|accepting| accepting.invite == invite) else { return };
        user.incoming.retain(|incoming| incoming.invite != invite);
        let error = ServerEvent::Error { message: "The caller cannot be reached" };
        self.send_first(id, accepting.conn, &error, out);
        self.tell(accepting.caller, UserMessage::End { call: accepting.call, cause: EndCause::Disconnected }, out);
        self.after_accept_failed(id, out);
    }

    /// The callee may have left while he was accepting; that was put off until now.
    fn after_accept_failed(&mut self, id: UserId, out: &mut Effects) {
        self.unavailable(id, DeclineReason::Offline, out);
        self.forget_idle(id);
    }

    fn engage(&mut self, now: Time, id: UserId, engagement: Engagement, out: &mut Effects) {
        let peer = engagement.peer;
        let user = self.users.get_mut(&id).expect("who accepts is there");
        assert!(user.engaged.is_none(), "nobody is in two calls");
        user.engaged = Some(Box::new(engagement));
        user.incoming.retain(|incoming| incoming.from.user_id != peer);
        let superseded = user.outgoing.extract_if(.., |outgoing| outgoing.callee == peer).count();
        self.counts.invites_ended.add(InviteEnd::Superseded as usize, superseded as u64);
        self.leave_queue(now, id);
        self.end_other_invites(id, out);
    }

    /// Order of contract 3.4: both left the queue, then the call starts.
    fn call_start(&self, id: UserId, conn: ConnId, out: &mut Effects) {
        let Some(engaged) = self.users.get(&id).and_then(|user| user.engaged.as_ref()) else { return };
        let (caller, callee) = if engaged.role == Role::Caller { (id, engaged.peer) } else { (engaged.peer, id) };
        for event in [
            ServerEvent::QueueUpdate { user: caller, available: false },
            ServerEvent::QueueUpdate { user: callee, available: false },
            engaged.start(),
        ] {
            self.send_first(id, conn, &event, out);
        }
    }
}

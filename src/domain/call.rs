//! A running call's record and its end (contract 4.3, D9-D12, D38).
//!
//! The record lives at the caller's home; taking it out is what ends a call, so it ends once, however many want it.
//! What must be stored is stored for both in one write; `session:finalized` follows when that is durable.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::base::limits::{
    CALL_ALLOWANCE_MS, CALL_COMPLETED_SECONDS_MIN, CALL_RECORDED_SECONDS_MIN, CHAT_LOG_MAX, COOLDOWN_LONG_MS,
    RECENT_CALL_MS, RECENT_CALLS_MAX,
};
use crate::base::{CallId, ConnId, InviteId, Map, Time, UserId};
use crate::message::model::{ChatKind, ChatLine, Metrics};
use crate::message::shard::EndCause;
use crate::message::store::{FinishedCall, Reply, Request};
use crate::message::{Card, ServerEvent, UserMessage};

use super::user::Role;
use super::writes::Then;
use super::{Domain, Effect, Effects};

/// The record of a running call.
pub(super) struct Call {
    id: CallId,
    pub caller: Arc<Card>,
    pub callee: Arc<Card>,
    started_at: Time,
    log: Vec<ChatLine>,
    /// Lines of the log that have been given to the store.
    kept: usize,
    /// Until its start is durable.
    pub starting: Option<Starting>,
    /// When it was last known to be alive in an earlier process.
    alive_at: Option<Time>,
}

/// What is needed once the start of a call is durable, or not to be.
pub(super) struct Starting {
    pub invite: InviteId,
    /// The connection that made the invite.
    pub conn: ConnId,
    /// The write.
    pub ticket: u64,
}

/// What is known of a call that has ended and is being stored.
#[derive(Clone, Debug)]
pub(super) struct Finishing {
    call: CallId,
    session: Arc<str>,
    caller: UserId,
    callee: UserId,
    /// Too short for a loss to leave a trace (contract 3.5).
    is_traceless: bool,
}

impl Call {
    /// A call that starts as soon as that is durable.
    pub fn new((id, started_at): (CallId, Time), (caller, callee): (Arc<Card>, Arc<Card>), starting: Starting) -> Self {
        let (log, kept, starting, alive_at) = (Vec::new(), 0, Some(starting), None);
        Self { id, caller, callee, started_at, log, kept, starting, alive_at }
    }

    /// A call that an earlier process has left behind, with what was kept of its log.
    pub fn resumed(
        (id, started_at): (CallId, Time),
        (caller, callee): (Arc<Card>, Arc<Card>),
        log: Vec<ChatLine>,
        alive_at: Time,
    ) -> Self {
        let (kept, starting, alive_at) = (log.len(), None, Some(alive_at));
        Self { id, caller, callee, started_at, log, kept, starting, alive_at }
    }

    /// Adds a line to the log; false when it is full.
    pub fn log(&mut self, line: ChatLine) -> bool {
        let room = self.log.len() < CHAT_LOG_MAX;
        if room {
            self.log.push(line);
        }
        room
    }

    /// Takes up to `count` lines, with their numbers, that have not been given to the store.
    pub fn take_unkept(&mut self, count: usize) -> impl Iterator<Item = (u32, ChatLine)> + '_ {
        let from = self.kept;
        self.kept = self.log.len().min(from + count);
        (from..).zip(&self.log[from..self.kept]).map(|(number, line)| (number as u32, line.clone()))
    }

    /// Whether there are more.
    pub fn has_unkept(&self) -> bool {
        self.kept < self.log.len()
    }

    /// When it ended, if that is found out `now`: when it was last known to be alive, if somebody never came back.
    fn ended_at(&self, now: Time, is_missed: bool) -> Time {
        let last_said = self.log.last().map(|line| line.timestamp);
        let known = self.alive_at.filter(|_| is_missed).map(|alive_at| alive_at.max(last_said.unwrap_or(alive_at)));
        known.unwrap_or(now).min(now)
    }

    /// What the store is to keep of it.
    fn finish(mut self, now: Time, session: &str, cause: EndCause) -> FinishedCall {
        let duration = now.seconds_since(self.started_at);
        let recorded = duration >= CALL_RECORDED_SECONDS_MIN;
        let is_traceless = cause.is_loss() && !recorded;
        if cause.is_loss() {
            let text = "The call ended because a participant disconnected".to_owned();
            let from = "system".to_owned();
            self.log.push(ChatLine { from, text, timestamp: now, kind: ChatKind::Message, socials: None });
        }
        FinishedCall {
            call: self.id,
            session: session.to_owned(),
            caller: self.caller.user_id,
            caller_name: self.caller.name.clone(),
            callee: self.callee.user_id,
            callee_name: self.callee.name.clone(),
            started_at: self.started_at,
            ended_at: now,
            duration,
            messages: self.log,
            recorded,
            completed: duration >= CALL_COMPLETED_SECONDS_MIN,
            cooldown_until: (!is_traceless).then(|| now + COOLDOWN_LONG_MS),
        }
    }

    /// The same of a call that never began: only that it does not run.
    fn nothing(self, now: Time) -> FinishedCall {
        let session = self.id.to_string();
        let finished = self.finish(now, &session, EndCause::HungUp);
        FinishedCall { recorded: false, completed: false, cooldown_until: None, ..finished }
    }
}

/// When the server ends a call itself (D38).
pub(super) fn time_up(started_at: Time, agreed_seconds: u32) -> Time {
    started_at + u64::from(agreed_seconds) * 1000 + CALL_ALLOWANCE_MS
}

impl Domain {
    /// `call:end`. A room that ended lately answers its participant again (D9); an unknown one is ignored.
    pub(super) fn call_end(&mut self, now: Time, id: UserId, conn: ConnId, room: Option<CallId>, out: &mut Effects) {
        let Some(room) = room else { return };
        if self.users.get_mut(&id).is_some_and(|user| user.engaged_in(room).is_some()) {
            self.end_by(now, id, EndCause::HungUp, out);
        } else if let Some(session) = self.recent.session(now, id, room) {
            out.send(conn, ServerEvent::Finalized { session });
        }
    }

    /// Ends the call that `id` is in, on his behalf.
    pub(super) fn end_by(&mut self, now: Time, id: UserId, cause: EndCause, out: &mut Effects) {
        let Some(engaged) = self.users.get(&id).and_then(|user| user.engaged.as_ref()) else { return };
        let (call, peer, role) = (engaged.call, engaged.peer, engaged.role);
        match role {
            Role::Caller => self.end_record(now, call, cause, id, out),
            Role::Callee => {
                self.disengage(now, id, call);
                self.tell(peer, UserMessage::End { call, cause }, out);
            }
        }
    }

    /// The callee's home ends the call.
    pub(super) fn end_by_peer(&mut self, now: Time, call: CallId, cause: EndCause, out: &mut Effects) {
        if let Some(by) = self.calls.get(&call).map(|record| record.callee.user_id) {
            self.end_record(now, call, cause, by, out);
        }
    }

    /// The agreed time and its allowance are over (D38).
    pub(super) fn call_time_up(&mut self, now: Time, call: CallId, out: &mut Effects) {
        if let Some(by) = self.calls.get(&call).map(|record| record.caller.user_id) {
            self.end_record(now, call, EndCause::TimeUp, by, out);
        }
    }

    /// Takes the record out; whoever comes second finds none.
    pub(super) fn end_record(&mut self, now: Time, call: CallId, cause: EndCause, by: UserId, out: &mut Effects) {
        let Some(mut record) = self.calls.remove(&call) else { return };
        if let Some(starting) = record.starting.take() {
            self.disengage(now, record.caller.user_id, call);
            return self.abandon(record.nothing(now), &starting, out);
        }
        let suffix = if cause.is_loss() { "-disconnected" } else { "" };
        let session: Arc<str> = format!("{call}{suffix}").into();
        let (caller, callee) = (record.caller.user_id, record.callee.user_id);
        let half = self.users.get_mut(&caller).and_then(|user| user.engaged_in(call));
        let is_awaited = half.is_some_and(|engaged| engaged.awaited);
        let is_missed = cause == EndCause::NotResumed || (cause == EndCause::TimeUp && is_awaited);
        self.ended(now, caller, call, cause, by, out);
        self.tell(callee, UserMessage::Ended { call, cause, by }, out);
        let ended_at = record.ended_at(now, is_missed);
        let finished = record.finish(ended_at, &session, cause);
        self.counts.calls_ended.add_one(cause as usize);
        self.counts.call_seconds.observe(finished.duration);
        let is_traceless = finished.cooldown_until.is_none();
        let finishing = Finishing { call, session, caller, callee, is_traceless };
        self.write(Request::FinishCall(Box::new(finished)), Then::Finalize(finishing), out);
    }

    /// At either home: the user is free again, and learns it if his peer vanished.
    pub(super) fn ended(
        &mut self,
        now: Time,
        id: UserId,
        call: CallId,
        cause: EndCause,
        by: UserId,
        out: &mut Effects,
    ) {
        if self.disengage(now, id, call) && cause.is_loss() && by != id {
            self.send_all(id, &ServerEvent::PeerDisconnected, out);
        }
    }

    fn disengage(&mut self, now: Time, id: UserId, call: CallId) -> bool {
        let Some(user) = self.users.get_mut(&id) else { return false };
        if user.engaged_in(call).is_none() {
            return false;
        }
        user.engaged = None;
        user.sockets.iter_mut().for_each(|socket| (socket.in_room, socket.entered) = (false, false));
        self.keep_no_more(call, id);
        self.dirtied(now, id);
        true
    }

    /// The store has the call.
    pub(super) fn call_stored(&mut self, finishing: Finishing, reply: Reply, out: &mut Effects) {
        let metrics = match reply {
            Reply::Finished { caller, callee } if !finishing.is_traceless => Some((Arc::new(caller), Arc::new(callee))),
            _ => None,
        };
        self.tell_finalized(&finishing, metrics, out);
    }

    fn tell_finalized(
        &mut self,
        finishing: &Finishing,
        metrics: Option<(Arc<Metrics>, Arc<Metrics>)>,
        out: &mut Effects,
    ) {
        let (of_caller, of_callee) = metrics.unzip();
        for (user, metrics) in [(finishing.caller, of_caller), (finishing.callee, of_callee)] {
            let (call, session) = (finishing.call, finishing.session.clone());
            self.tell(user, UserMessage::Finalized { call, session, metrics }, out);
        }
    }

    /// At either home: the user is told, and can ask again for a while.
    pub(super) fn finalized(
        &mut self,
        now: Time,
        id: UserId,
        call: CallId,
        session: Arc<str>,
        metrics: Option<Arc<Metrics>>,
        out: &mut Effects,
    ) {
        let user = self.users.get(&id);
        // The event does not name the call: a frontend would take it for the end of the one it shows.
        let elsewhere = user.is_some_and(|user| user.engaged.as_ref().is_some_and(|engaged| engaged.call != call));
        let here = user.is_some_and(|user| !user.sockets.is_empty()) && !elsewhere;
        self.recent.add(now, id, call, session.clone(), here);
        if let Some(metrics) = metrics {
            out.push(Effect::Forget { user: id });
            self.send_all(id, &ServerEvent::MetricsUpdate(metrics), out);
        } else {
            // In a journal at most: the database will have them, and until then his login must stay cached.
            out.push(Effect::ForgetTotals { user: id });
        }
        if !elsewhere {
            self.send_all(id, &ServerEvent::Finalized { session }, out);
        }
    }
}

/// Calls that ended lately, by participant; the oldest is forgotten first.
#[derive(Default)]
pub(super) struct RecentCalls {
    sessions: Map<(UserId, CallId), Arc<str>>,
    /// The last call that ended while its participant was away.
    untold: Map<UserId, CallId>,
    order: VecDeque<(Time, UserId, CallId)>,
}

impl RecentCalls {
    fn add(&mut self, now: Time, user: UserId, call: CallId, session: Arc<str>, told: bool) {
        if self.sessions.insert((user, call), session).is_none() {
            self.order.push_back((now + RECENT_CALL_MS, user, call));
        }
        if !told {
            self.untold.insert(user, call);
        }
        self.forget(now);
    }

    /// The session id of a call of `user` that ended lately.
    pub fn session(&mut self, now: Time, user: UserId, call: CallId) -> Option<Arc<str>> {
        self.forget(now);
        self.sessions.get(&(user, call)).cloned()
    }

    /// The end that `user` was not there to hear; said once.
    pub fn untold(&mut self, user: UserId) -> Option<Arc<str>> {
        let call = self.untold.remove(&user)?;
        self.sessions.get(&(user, call)).cloned()
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Forgets what is too long ago, or too much.
    pub fn forget(&mut self, now: Time) {
        while let Some(&(until, user, call)) = self.order.front()
            && (until <= now || self.order.len() > RECENT_CALLS_MAX)
        {
            self.order.pop_front();
            self.sessions.remove(&(user, call));
            if self.untold.get(&user) == Some(&call) {
                self.untold.remove(&user);
            }
        }
    }
}

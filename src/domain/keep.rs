//! What happens in running calls is kept for the next process: chat, who was in the room, and that we are alive.
//!
//! Written behind, in one batch per shard: at once when somebody joins, [`CALL_KEEP_MS`] after the first new line, and
//! [`CALL_ALIVE_MS`] after the last batch while there is nothing but life. One batch is under way at a time, of at most
//! [`KEEP_ENTRIES_MAX`] lines and as many joins; what comes meanwhile waits in the calls' logs for the next. So a process
//! that is killed leaves out what was said in its last moments only; an end in order stores the whole log anyway.

use std::collections::BTreeSet;

use crate::base::limits::{CALL_ALIVE_MS, CALL_KEEP_MS, KEEP_ENTRIES_MAX};
use crate::base::{CallId, Time, UserId};
use crate::message::model::ChatLine;
use crate::message::store::{CallProgress, Request};

use super::writes::Then;
use super::{Domain, Effects, Timer};

/// What is still to be kept.
#[derive(Default)]
pub(super) struct Keeping {
    joined: BTreeSet<(CallId, UserId)>,
    /// Calls with lines that no batch had yet.
    spoken: BTreeSet<CallId>,
    /// The batch under way.
    ticket: Option<u64>,
    at: Option<Time>,
}

impl Domain {
    /// A user of this shard is in the room for the first time. Frontends say so once: the next process must know.
    pub(super) fn keep_joined(&mut self, now: Time, call: CallId, user: UserId) {
        self.keeping.joined.insert((call, user));
        self.keep_by(now);
    }

    /// The log of a call of this shard has one more line.
    pub(super) fn keep_line(&mut self, now: Time, call: CallId) {
        self.keeping.spoken.insert(call);
        self.keep_by(now + CALL_KEEP_MS);
    }

    /// A user's half of a call is over.
    pub(super) fn keep_no_more(&mut self, call: CallId, user: UserId) {
        self.keeping.joined.remove(&(call, user));
    }

    /// Has a batch written at that time or before.
    pub(super) fn keep_by(&mut self, at: Time) {
        if self.keeping.at.is_none_or(|earlier| earlier > at) {
            self.keeping.at = Some(at);
            self.timers.insert((at, Timer::Keep));
        }
    }

    /// The time of a batch has come, if it is not one that was brought forward.
    pub(super) fn keep_due(&mut self, now: Time, out: &mut Effects) {
        if self.keeping.at.is_some_and(|at| at <= now) {
            self.keep(now, out);
        }
    }

    /// Writes a batch, unless one is under way: its answer sees to the next.
    pub(super) fn keep(&mut self, now: Time, out: &mut Effects) {
        self.keeping.at = None;
        if self.keeping.ticket.is_some_and(|ticket| self.writes.owes(ticket)) {
            return;
        }
        let (joined, lines) = (self.take_joined(), self.take_lines());
        if joined.is_empty() && lines.is_empty() && self.calls.is_empty() {
            return;
        }
        let progress = Box::new(CallProgress { alive_at: now, joined, lines });
        self.keeping.ticket = Some(self.write(Request::KeepCalls(progress), Then::Keep, out));
    }

    /// The store has the batch.
    pub(super) fn kept(&mut self, now: Time, out: &mut Effects) {
        self.keeping.ticket = None;
        let is_behind = !self.keeping.joined.is_empty() || !self.keeping.spoken.is_empty();
        match (is_behind, self.draining) {
            (true, true) => self.keep(now, out),
            (true, false) => self.keep_by(now + if self.keeping.joined.is_empty() { CALL_KEEP_MS } else { 0 }),
            (false, false) if !self.calls.is_empty() => self.keep_by(now + CALL_ALIVE_MS),
            (false, _) => {}
        }
    }

    fn take_joined(&mut self) -> Vec<(CallId, UserId)> {
        let taken = std::iter::from_fn(|| self.keeping.joined.pop_first());
        taken.take(KEEP_ENTRIES_MAX).collect()
    }

    fn take_lines(&mut self) -> Vec<(CallId, u32, ChatLine)> {
        let mut lines = Vec::new();
        while let Some(call) = self.keeping.spoken.first().copied() {
            let Some(record) = self.calls.get_mut(&call) else {
                self.keeping.spoken.remove(&call);
                continue;
            };
            let room = KEEP_ENTRIES_MAX - lines.len();
            lines.extend(record.take_unkept(room).map(|(number, line)| (call, number, line)));
            if record.has_unkept() {
                break;
            }
            self.keeping.spoken.remove(&call);
        }
        lines
    }
}

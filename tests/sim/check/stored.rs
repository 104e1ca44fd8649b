//! Ended calls: stored once, as they were, before anybody is told; both are told, and of the same session.

use std::collections::{BTreeMap, BTreeSet};

use duet::base::limits::{CALL_COMPLETED_SECONDS_MIN, CALL_RECORDED_SECONDS_MIN, COOLDOWN_LONG_MS, RESUME_MS};
use duet::base::{CallId, ConnId, Time, UserId};
use duet::message::ClientEvent;
use duet::message::store::{FinishedCall, Request};

use super::calls::Fact;
use super::{Oracle, Seen};
use crate::relay_text::call_of;
use crate::store::Store;

#[derive(Default)]
pub struct Stored {
    /// Which write stores a call.
    writes: BTreeMap<CallId, (usize, u64)>,
    /// How often a connection was told of a call's end, and how often it asked.
    told: BTreeMap<(ConnId, UserId, CallId), (u32, u32)>,
    count: u64,
}

impl Oracle {
    pub(super) fn written(&mut self, now: Time, at: usize, ticket: u64, request: &Request) {
        let Request::FinishCall(finished) = request else { return };
        let before = self.stored.writes.insert(finished.call, (at, ticket));
        if before.is_some_and(|before| before != (at, ticket)) {
            return self.complain("a call is stored once", format!("{} is written by two tickets", finished.call));
        }
        if before.is_none() {
            self.check_finished(now, finished);
        }
    }

    fn check_finished(&mut self, now: Time, finished: &FinishedCall) {
        let Some(fact) = self.calls.book.get(&finished.call) else {
            // Began and ended in one step; the book has only what was there after a step.
            return;
        };
        let duration = finished.ended_at.seconds_since(fact.started);
        let recorded = duration >= CALL_RECORDED_SECONDS_MIN;
        let is_loss = finished.session.ends_with("-disconnected");
        let leaves_nothing = fact.agreed_seconds.is_none()
            && (finished.recorded, finished.completed, finished.cooldown_until) == (false, false, None);
        let is_as_long = finished.recorded == recorded
            && finished.completed == (duration >= CALL_COMPLETED_SECONDS_MIN)
            && finished.cooldown_until == (recorded || !is_loss).then(|| finished.ended_at + COOLDOWN_LONG_MS);
        let is_right = (finished.caller, finished.callee) == (fact.caller, fact.callee)
            && finished.started_at == fact.started
            && finished.duration == duration
            && self.is_its_end(now, finished, fact)
            && (is_as_long || leaves_nothing);
        if !is_right {
            self.complain("a call is stored as it was", format!("{finished:?} at {now:?}"));
        }
    }

    /// Counts what asks for a `session:finalized`.
    pub(super) fn finalized_asked(&mut self, asker: Option<UserId>, seen: &Seen) {
        if let (
            Some(user),
            Seen::Client(conn, ClientEvent::End { room: Some(call) } | ClientEvent::RoomJoin { room: Some(call) }),
        ) = (asker, seen)
        {
            self.stored.told.entry((*conn, user, *call)).or_default().1 += 1;
        }
    }

    pub(super) fn finalized(
        &mut self,
        now: Time,
        (conn, user): (ConnId, UserId),
        session: &str,
        store: &Store,
        seen: &Seen,
    ) {
        let Some(call) = call_of(session) else {
            return self.complain("same session for both", format!("{session} names no call"));
        };
        self.stored.count += 1;
        let (told, asked) = self.stored.told.entry((conn, user, call)).or_default();
        *told += 1;
        if *told > 1 + *asked {
            return self.complain("an end is told once", format!("{conn:?} hears again that {call} is over"));
        }
        let engaged = self.people[&user].engaged.filter(|(current, _)| *current != call);
        let is_answer = matches!(seen, Seen::Client(_, ClientEvent::End { .. } | ClientEvent::RoomJoin { .. }));
        if let Some((current, _)) = engaged.filter(|_| !is_answer) {
            return self.complain("no end of another call", format!("{user} in {current} is told that {call} is over"));
        }
        let Some(fact) = self.calls.book.get_mut(&call) else { return };
        let first = fact.session.get_or_insert_with(|| session.to_owned());
        let (same, pair) = (first == session, (fact.caller, fact.callee));
        if !same || (user != pair.0 && user != pair.1) {
            return self.complain("same session for both", format!("{user} is told {session} of {call}"));
        }
        match store.finished.get(&call) {
            Some(finished) if finished.session == session => {
                if finished.cooldown_until.is_some() {
                    self.cooldown_told(now, pair, finished.ended_at + COOLDOWN_LONG_MS, store);
                }
            }
            _ => self.complain("durable before visible", format!("{session} is told, and not stored")),
        }
    }

    /// Whether a call ended when it says: now, or, if one of the two did not come back after a crash, not later than that,
    /// but for what the other said since.
    fn is_its_end(&self, now: Time, finished: &FinishedCall, fact: &Fact) -> bool {
        let is_away = |user| {
            let person = &self.people[user];
            person.crashed && person.left.is_some_and(|(at, _)| now - at >= RESUME_MS)
        };
        let is_missed = is_away(&fact.caller) || is_away(&fact.callee);
        let last_said = finished.messages.iter().rev().find(|line| line.from != "system").map(|line| line.timestamp);
        let is_before = |at: Time| finished.ended_at <= at.max(last_said.unwrap_or(at));
        match fact.crashed_at.filter(|_| is_missed && finished.session.ends_with("-disconnected")) {
            Some(crashed_at) => finished.ended_at >= fact.started && is_before(crashed_at),
            None => finished.ended_at == now || fact.crashed_at.is_some_and(is_before),
        }
    }

    /// What the dead process was about to store, the next stores anew.
    pub(super) fn stored_crashed(&mut self) {
        self.stored.writes.clear();
    }

    /// At the end every call that ended is stored, once for each of the two, unless there was nothing to store.
    pub(super) fn stored_quiet(&mut self, store: &Store) {
        let mut rows: BTreeMap<CallId, Vec<UserId>> = BTreeMap::new();
        for (user, call) in &store.history {
            rows.entry(*call).or_default().push(*user);
        }
        let mut complaints = Vec::new();
        for (call, fact) in &self.calls.book {
            let mut owners = rows.get(call).cloned().unwrap_or_default();
            owners.sort();
            let unique: BTreeSet<UserId> = owners.iter().copied().collect();
            if unique.len() < owners.len() {
                complaints
                    .push(("a call is stored once", format!("{call} is in the histories {} times", owners.len())));
            }
            let both = BTreeSet::from([fact.caller, fact.callee]);
            match store.finished.get(call) {
                Some(finished) if finished.recorded && unique != both => {
                    complaints.push(("a call is stored once", format!("{call} is in the histories of {unique:?}")));
                }
                Some(_) => {}
                None if fact.excused => {}
                None => complaints.push(("a call is stored once", format!("{call} is not stored"))),
            }
        }
        for (checker, detail) in complaints {
            self.complain(checker, detail);
        }
    }

    pub(super) fn stored_facts(&self) -> Vec<(&'static str, u64)> {
        vec![("calls written", self.stored.writes.len() as u64), ("ends told", self.stored.count)]
    }
}

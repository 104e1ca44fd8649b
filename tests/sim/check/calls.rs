//! Calls: nobody in two, both ends agree, every end has a reason, who is in one knows it, none outlasts its time.

use std::collections::{BTreeMap, BTreeSet};

use duet::base::limits::{CALL_ALLOWANCE_MS, GRACE_MS, RESUME_MS};
use duet::base::{CallId, Time, UserId};
use duet::domain::Domain;
use duet::message::{ClientEvent, Leave, UserMessage};

use super::{Oracle, Seen};
use crate::pipe::Pipe;
use crate::store::Store;

/// For how long the two homes may disagree while messages are under way and an accept may time out.
const IN_FLIGHT_MS: u64 = 30_000;
/// For how long somebody who is connected may not know of his call.
const UNTOLD_MS: u64 = 12_000;

#[derive(Default)]
pub struct Calls {
    pub book: BTreeMap<CallId, Fact>,
    /// Halves without their other half.
    alone: BTreeMap<(CallId, UserId), Time>,
    /// People whom the halves of two calls name.
    claimed_twice: BTreeMap<UserId, Time>,
}

/// What is known of one call.
pub struct Fact {
    pub caller: UserId,
    pub callee: UserId,
    pub started: Time,
    pub agreed_seconds: Option<u32>,
    callee_was_in: bool,
    /// When the caller's half, and with it the record, went.
    pub ended: Option<Time>,
    /// Who left it by hanging up.
    pub hung_up_by: BTreeSet<UserId>,
    pub session: Option<String>,
    /// The process crashed before anybody was told of it.
    pub excused: bool,
    /// When the process crashed under it last.
    pub crashed_at: Option<Time>,
    /// Whose browser was told of it.
    pub knows: BTreeSet<UserId>,
    bound_at_start: BTreeMap<UserId, usize>,
}

impl Oracle {
    /// The caller and the callee.
    pub fn participants(&self, call: CallId) -> Option<(UserId, UserId)> {
        self.calls.book.get(&call).map(|fact| (fact.caller, fact.callee))
    }

    /// Compares the engagements of a shard's people with those of before.
    pub(super) fn engagements(&mut self, now: Time, at: usize, domain: &Domain, seen: &Seen, asker: Option<UserId>) {
        let mut changes = Vec::new();
        for user in &self.homes[at] {
            let after = domain.engagement(*user);
            let person = self.people.get_mut(user).expect("homes list people");
            if person.engaged != after {
                changes.push((*user, person.engaged, after));
                person.engaged = after;
                person.engaged_at = now;
            }
        }
        // When both halves begin in one step, who asked is the callee, accepting: the caller's half came first.
        changes.sort_by_key(|(user, ..)| Some(*user) == asker);
        for (user, before, after) in &changes {
            match (before, after) {
                (None, Some((call, peer))) => self.begins(now, *user, *call, *peer),
                (Some((call, peer)), None) => self.ends_for(now, (*user, *peer), *call, seen, asker),
                _ => self.complain("two calls", format!("{user} went from {before:?} to {after:?} without an end")),
            }
        }
        if !changes.is_empty() {
            self.find_disagreements(now);
        }
    }

    fn begins(&mut self, now: Time, user: UserId, call: CallId, peer: UserId) {
        let fact = self.calls.book.entry(call).or_insert_with(|| Fact {
            caller: user,
            callee: peer,
            started: now,
            agreed_seconds: None,
            callee_was_in: false,
            ended: None,
            hung_up_by: BTreeSet::new(),
            session: None,
            excused: false,
            crashed_at: None,
            knows: BTreeSet::new(),
            bound_at_start: BTreeMap::new(),
        });
        fact.callee_was_in |= fact.callee == user;
        // Its end was not stored when the process crashed, and so it was none.
        fact.ended = None;
        fact.bound_at_start.insert(user, self.people[&user].bound.len());
        let expected = if fact.caller == user { fact.callee } else { fact.caller };
        if peer != expected || (user != fact.caller && user != fact.callee) {
            self.complain("both ends agree", format!("{user} is in {call} with {peer}, not {expected}"));
        }
        let is_caller = self.calls.book[&call].caller == user;
        self.invites_over(user, is_caller.then_some(peer));
    }

    fn ends_for(
        &mut self,
        now: Time,
        (user, peer): (UserId, UserId),
        call: CallId,
        seen: &Seen,
        asker: Option<UserId>,
    ) {
        let Some(fact) = self.calls.book.get(&call) else { return };
        let peer_was_in = fact.caller == peer || fact.callee_was_in;
        let time_up = fact
            .agreed_seconds
            .is_none_or(|seconds| now >= fact.started + u64::from(seconds) * 1_000 + CALL_ALLOWANCE_MS);
        let gone = |user: UserId| {
            let person = &self.people[&user];
            let grace_ms = if person.crashed { RESUME_MS } else { GRACE_MS };
            person.bound.is_empty() && person.left.is_none_or(|(at, _)| now - at >= grace_ms)
        };
        let left = |user: UserId| {
            let person = &self.people[&user];
            person.bound.is_empty() && person.left.is_some_and(|(at, leave)| at == now && leave == Leave::Deliberate)
        };
        let is_reason = match seen {
            Seen::Client(_, ClientEvent::End { .. }) => asker == Some(user) || asker == Some(peer),
            Seen::Client(_, ClientEvent::Auth { .. }) => left(user) || left(peer),
            Seen::Client(..) | Seen::Connect(_) | Seen::Other => false,
            Seen::User(message) => matches!(
                message,
                UserMessage::End { .. } | UserMessage::Ended { .. } | UserMessage::SessionsEnded { .. }
            ),
            Seen::Tick => time_up || gone(user) || gone(peer) || !peer_was_in,
            Seen::Left => left(user) || left(peer),
            // It could begin now, and the callee had gone.
            Seen::Stored => !peer_was_in,
        };
        if !is_reason {
            self.complain("every end has a reason", format!("{call} ended for {user} at {now:?}"));
        }
        let fact = self.calls.book.get_mut(&call).expect("it was there");
        if let Seen::Client(_, ClientEvent::End { .. }) = seen {
            fact.hung_up_by.extend(asker);
        }
        if fact.caller == user {
            fact.ended = Some(now);
        }
    }

    pub(super) fn call_starts(&mut self, user: UserId, room: CallId, agreed_seconds: u32, peer: UserId, store: &Store) {
        self.invites_over(user, None);
        if !store.running.contains_key(&room) && !store.finished.contains_key(&room) {
            self.complain("durable before visible", format!("{room} is told to begin, and not stored"));
        }
        if self.people[&user].engaged.is_some_and(|(call, _)| call != room) {
            self.complain("two calls", format!("{user} was told of {room} with {peer} while in another call"));
        }
        if let Some(fact) = self.calls.book.get_mut(&room) {
            fact.agreed_seconds = Some(agreed_seconds);
        }
    }

    fn find_disagreements(&mut self, now: Time) {
        let mut claims: BTreeMap<UserId, BTreeSet<CallId>> = BTreeMap::new();
        let mut alone = BTreeMap::new();
        for (user, person) in &self.people {
            let Some((call, peer)) = person.engaged else { continue };
            claims.entry(*user).or_default().insert(call);
            claims.entry(peer).or_default().insert(call);
            if self.people[&peer].engaged != Some((call, *user)) {
                let since = self.calls.alone.get(&(call, *user)).copied().unwrap_or(now);
                alone.insert((call, *user), since);
            }
        }
        let twice = claims
            .into_iter()
            .filter(|(_, calls)| calls.len() > 1)
            .map(|(user, _)| (user, self.calls.claimed_twice.get(&user).copied().unwrap_or(now)));
        self.calls.claimed_twice = twice.collect();
        self.calls.alone = alone;
    }

    pub(super) fn inspect_calls(&mut self, now: Time, pipes: &[Pipe]) {
        let twice = self.calls.claimed_twice.iter().find(|(_, since)| now - **since > IN_FLIGHT_MS);
        if let Some((user, since)) = twice.map(|(user, since)| (*user, *since)) {
            self.complain("two calls", format!("halves of two calls name {user} since {since:?}"));
        }
        let alone = self.calls.alone.iter().find(|(_, since)| now - **since > IN_FLIGHT_MS);
        if let Some(((call, user), since)) = alone.map(|(key, since)| (*key, *since)) {
            self.complain("both ends agree", format!("{user} is alone in {call} since {since:?}"));
        }
        for (user, person) in &self.people {
            let Some((call, _)) = person.engaged else { continue };
            let fact = &self.calls.book[&call];
            let outlasts = fact.agreed_seconds.is_some_and(|seconds| {
                now > fact.started + u64::from(seconds) * 1_000 + CALL_ALLOWANCE_MS + IN_FLIGHT_MS
            });
            let (user, since) = (*user, person.engaged_at);
            if outlasts {
                return self.complain("time limit", format!("{user} is still in {call}"));
            }
            if !fact.knows.contains(&user) && now > since + UNTOLD_MS && self.should_know(now, user, call, pipes) {
                return self.complain("who is in a call knows it", format!("{user} was never told of {call}"));
            }
        }
    }

    /// Whether the only connection of a user works and either was there when the call began or came later.
    fn should_know(&self, now: Time, user: UserId, call: CallId, pipes: &[Pipe]) -> bool {
        let person = &self.people[&user];
        let [(conn, bound_at)] = person.bound.iter().collect::<Vec<_>>()[..] else { return false };
        let Some(pipe) = pipes.iter().find(|pipe| pipe.server == Some(*conn)) else { return false };
        let alone_at_start = self.calls.book[&call].bound_at_start.get(&user).is_some_and(|count| *count == 1);
        let works = pipe.healthy && pipe.client_open && now > *bound_at + UNTOLD_MS;
        works && (alone_at_start || *bound_at > person.engaged_at)
    }

    pub(super) fn calls_crashed(&mut self, now: Time, store: &Store) {
        self.calls.alone.clear();
        self.calls.claimed_twice.clear();
        let mut lost = Vec::new();
        for (call, fact) in &mut self.calls.book {
            if !store.finished.contains_key(call) {
                fact.crashed_at = Some(now);
                fact.excused = fact.agreed_seconds.is_none() && !store.running.contains_key(call);
                if !fact.excused && !store.running.contains_key(call) {
                    lost.push(*call);
                }
            }
        }
        for call in lost {
            self.complain("no call is lost by a restart", format!("{call} is neither running nor stored"));
        }
    }

    pub(super) fn call_facts(&self) -> Vec<(&'static str, u64)> {
        let excused = self.calls.book.values().filter(|fact| fact.excused).count();
        vec![("calls", self.calls.book.len() as u64), ("calls cut off by a crash", excused as u64)]
    }
}

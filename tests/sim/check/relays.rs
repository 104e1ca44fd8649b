//! What is said in calls: heard by the other participant alone, unchanged, in order, once, without gaps while both
//! stayed; what is stored of it is what was heard.

use std::collections::{BTreeMap, BTreeSet};

use duet::base::{CallId, Time, UserId};
use duet::message::ClientEvent;
use duet::message::model::ChatLine;

use super::{Oracle, Seen};
use crate::codec::Heard;
use crate::relay_text::{Mark, call_of, read_line, read_payload};
use crate::store::Store;

/// A `call:start` heard later than this is one that was repeated.
const START_HEARD_MS: u64 = 100;

#[derive(Default)]
pub struct Relays {
    /// Participants whose one connection has lasted since the call began, without any trouble.
    steady: BTreeMap<(CallId, UserId), usize>,
    /// The number of the next signal on a way from one connection to another.
    next: BTreeMap<(CallId, usize, usize), u64>,
    /// Signals said and heard in a call, by the author.
    said: BTreeMap<(CallId, UserId), u64>,
    heard: BTreeMap<(CallId, UserId), u64>,
    /// Lines heard by steady participants: call, listener, author.
    lines: BTreeMap<(CallId, UserId, UserId), Vec<(String, u64)>>,
    /// Who was in the room before the call ended.
    in_room: BTreeSet<(CallId, UserId)>,
    /// Who was told of the end.
    finalized: BTreeSet<(CallId, UserId)>,
    ended_by: BTreeMap<CallId, UserId>,
    /// Connections on which a client changed who it is: it may think so before the server does, or in vain.
    masked: BTreeSet<usize>,
    count: u64,
    gapless: u64,
}

impl Oracle {
    /// From the start of the call this connection is the only one of the user and works.
    pub fn steady_begins(&mut self, now: Time, call: CallId, user: UserId, pipe: usize) {
        let person = &self.people[&user];
        if person.bound.len() == 1 && now - person.engaged_at < START_HEARD_MS {
            self.relays.steady.insert((call, user), pipe);
        }
    }

    /// Something happened to a connection of the user.
    pub fn steady_lost(&mut self, user: UserId) {
        let finalized = &self.relays.finalized;
        self.relays.steady.retain(|key, _| key.1 != user || finalized.contains(key));
    }

    /// A client becomes somebody else on this connection, if the server agrees.
    pub fn masks(&mut self, pipe: usize) {
        self.relays.masked.insert(pipe);
    }

    pub fn signalled(&mut self, call: CallId, user: UserId, pipe: usize) {
        if self.relays.steady.get(&(call, user)) == Some(&pipe) && !self.relays.ended_by.contains_key(&call) {
            *self.relays.said.entry((call, user)).or_default() += 1;
        }
    }

    /// A client ends the call; what it said before must reach the other one.
    pub fn ends(&mut self, call: CallId, user: UserId, _pipe: usize) {
        self.relays.ended_by.entry(call).or_insert(user);
    }

    pub(super) fn entered(&mut self, asker: Option<UserId>, seen: &Seen) {
        if let (Some(user), Seen::Client(_, ClientEvent::RoomJoin { room: Some(call) })) = (asker, seen)
            && self.people[&user].engaged.is_some_and(|(current, _)| current == *call)
        {
            self.relays.in_room.insert((*call, user));
        }
    }

    /// A browser hears an event, on a connection on which it was these people, one after the other.
    pub fn hears(&mut self, users: &[UserId], pipe: usize, heard: &Heard) {
        let fields = &heard.fields;
        let room = fields.session_id.as_deref().and_then(call_of).or(fields.room_id).or_else(|| said_in(heard));
        let pair = room.and_then(|call| self.participants(call));
        let concerned =
            users.iter().rev().find(|user| pair.is_some_and(|(one, other)| **user == one || **user == other));
        let user = concerned.or(users.last()).copied().expect("a client is somebody");
        match heard.name.as_str() {
            "rtc:offer" | "rtc:answer" | "rtc:ice" => {
                let payload = fields.offer.as_ref().or(fields.answer.as_ref()).or(fields.candidate.as_ref());
                match payload.and_then(|payload| read_payload(payload.get())) {
                    Some(mark) => self.hears_signal((user, users), pipe, &mark, fields.from),
                    None => self.complain("relays are unchanged", format!("{payload:?}")),
                }
            }
            "room:chat" => self.hears_line(user, pipe, fields.text.as_deref(), fields.from, fields.timestamp),
            "room:socialShared" => {
                let text = fields.socials.as_ref().and_then(|socials| socials.get("x"));
                self.hears_line(user, pipe, text.map(String::as_str), fields.from, fields.timestamp);
            }
            "call:start" => {
                if let Some(fact) = fields.room_id.and_then(|call| self.calls.book.get_mut(&call)) {
                    fact.knows.extend(users);
                }
            }
            "call:declined" => {
                if let Some(invite) = fields.invite_id {
                    self.heard_declined(pipe, invite);
                }
            }
            "session:finalized" => {
                if let Some(call) = fields.session_id.as_deref().and_then(call_of) {
                    self.relays.finalized.insert((call, user));
                }
            }
            _ => {}
        }
    }

    fn is_from_peer(&self, user: UserId, mark: &Mark, from: Option<UserId>) -> bool {
        let pair = self.participants(mark.call);
        from == Some(mark.user) && (pair == Some((user, mark.user)) || pair == Some((mark.user, user)))
    }

    fn hears_signal(&mut self, (user, users): (UserId, &[UserId]), pipe: usize, mark: &Mark, from: Option<UserId>) {
        self.relays.count += 1;
        // One connection may have been both participants, one after the other.
        let was_both = users.contains(&mark.user)
            && self.participants(mark.call).is_some_and(|(one, other)| users.contains(&one) && users.contains(&other));
        let is_masked = self.relays.masked.contains(&mark.pipe);
        if !is_masked && !was_both && !self.is_from_peer(user, mark, from) {
            return self.complain("relays reach participants only", format!("{user} hears {mark:?}"));
        }
        let steady = |relays: &Relays, user, pipe| relays.steady.get(&(mark.call, user)) == Some(&pipe);
        let both = steady(&self.relays, user, pipe) && steady(&self.relays, mark.user, mark.pipe);
        let next = self.relays.next.entry((mark.call, mark.pipe, pipe)).or_default();
        let expected = std::mem::replace(next, mark.number + 1);
        if mark.number < expected {
            self.complain("relays keep their order", format!("{mark:?} at pipe {pipe}, expected {expected}"));
        } else if both && mark.number > expected {
            self.complain("no relay is lost", format!("{mark:?} at pipe {pipe}, expected {expected}"));
        } else if both {
            self.relays.gapless += 1;
            *self.relays.heard.entry((mark.call, mark.user)).or_default() += 1;
        }
    }

    fn hears_line(&mut self, user: UserId, pipe: usize, text: Option<&str>, from: Option<UserId>, at: Option<u64>) {
        self.relays.count += 1;
        let (Some(text), Some(at)) = (text, at) else {
            return self.complain("relays are unchanged", format!("a line without text or time: {text:?}"));
        };
        let Some(mark) = read_line(text) else {
            return self.complain("relays are unchanged", format!("line {text}"));
        };
        let is_own = mark.user == user
            && from == Some(user)
            && self.participants(mark.call).is_some_and(|(caller, callee)| user == caller || user == callee);
        let is_masked = self.relays.masked.contains(&mark.pipe);
        if !is_masked && !is_own && !self.is_from_peer(user, &mark, from) {
            return self.complain("relays reach participants only", format!("{user} hears {mark:?}"));
        }
        if self.relays.steady.get(&(mark.call, user)) == Some(&pipe) {
            let lines = self.relays.lines.entry((mark.call, user, from.unwrap_or(mark.user))).or_default();
            lines.push((text.to_owned(), at));
        }
    }

    pub(super) fn relays_crashed(&mut self) {
        self.relays.steady.clear();
    }

    /// Whether `user` alone ended the call by hanging up.
    fn ended_it(&self, call: CallId, user: UserId) -> bool {
        let hung_up_by = &self.calls.book[&call].hung_up_by;
        hung_up_by.len() == 1 && hung_up_by.contains(&user)
    }

    /// At the end: the log against what was heard, and what was said last before the own `call:end`.
    pub(super) fn relays_quiet(&mut self, store: &Store) {
        let mut complaints = Vec::new();
        for ((call, listener), pipe) in &self.relays.steady {
            let Some(fact) = self.calls.book.get(call).filter(|fact| !fact.excused) else { continue };
            if !self.relays.finalized.contains(&(*call, *listener)) {
                complaints.push((
                    "both are told of the end",
                    format!("{listener} on pipe {pipe} never heard that {call} is over"),
                ));
            }
            let author = if fact.caller == *listener { fact.callee } else { fact.caller };
            let reaches = self.relays.in_room.contains(&(*call, *listener));
            let is_author_steady = self.relays.steady.contains_key(&(*call, author));
            if reaches && is_author_steady && self.ended_it(*call, author) {
                let count = |counts: &BTreeMap<_, u64>| counts.get(&(*call, author)).copied().unwrap_or_default();
                let (said, heard) = (count(&self.relays.said), count(&self.relays.heard));
                if self.relays.ended_by.get(call) == Some(&author) && heard < said {
                    complaints.push((
                        "no relay is lost",
                        format!("{listener} heard {heard} of {said} of {author} in {call}"),
                    ));
                }
            }
            let Some(finished) = store.finished.get(call) else { continue };
            for from in [*listener, author] {
                let log: Vec<(String, u64)> = lines_of(&finished.messages, from);
                let heard = self.relays.lines.get(&(*call, *listener, from)).cloned().unwrap_or_default();
                let whole = reaches && (fact.caller == *listener || self.ended_it(*call, fact.caller));
                if !log.starts_with(&heard) || (whole && heard.len() < log.len()) {
                    let detail =
                        format!("{call}: {listener} heard {} lines of {from}, stored are {}", heard.len(), log.len());
                    complaints.push(("the log is what was heard", detail));
                }
            }
        }
        for (checker, detail) in complaints {
            self.complain(checker, detail);
        }
    }

    pub(super) fn relay_facts(&self) -> Vec<(&'static str, u64)> {
        vec![("relays heard", self.relays.count), ("relays without a gap", self.relays.gapless)]
    }
}

/// The call in which this was said.
fn said_in(heard: &Heard) -> Option<CallId> {
    let fields = &heard.fields;
    let payload = fields.offer.as_ref().or(fields.answer.as_ref()).or(fields.candidate.as_ref());
    let line = fields.text.as_ref().or_else(|| fields.socials.as_ref()?.get("x"));
    let mark = payload.and_then(|payload| read_payload(payload.get())).or_else(|| read_line(line?));
    mark.map(|mark| mark.call)
}

/// The lines that one author has in a stored log.
fn lines_of(messages: &[ChatLine], author: UserId) -> Vec<(String, u64)> {
    let author = author.to_string();
    let mine = messages.iter().filter(|line| line.from == author);
    mine.map(|line| {
        let text = line.socials.as_ref().and_then(|socials| socials.get("x")).unwrap_or(&line.text);
        (text.clone(), line.timestamp.0)
    })
    .collect()
}

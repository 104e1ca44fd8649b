//! Everybody's life on a site: who is there, who calls whom, what each does next, and what has arrived of it.
//!
//! `script.rs` has the steps of a call. Whoever is not in a call polls the queue; a quarter is in calls.
//! Sockets have their person's place as tag, browsers follow (`browser.rs`). Callers are the first half of the people,
//! callees the second. A call that has not ended when it should have is given up.

mod script;

use std::ops::Range;

use serde_json::json;

use crate::browser::{Browsers, Page};
use crate::clock::{Nanos, SECOND, now};
use crate::crowd::{self, Account, event_name, event_payload};
use crate::net::{Failure, Handler, Id, Net, Response, Schedule, stamp_after};
use crate::process::Server;
use crate::sample::resident;
use crate::tally::{DEADLINE, Tally};
pub use script::Pace;
use script::{CONTROLS, MARK, RELAYS, Step};

const TRY_AGAIN: Nanos = SECOND;
/// Doublings of that.
const TRIES_SLOWED_MAX: u32 = 2;
/// What a call may take besides its length: an invite, a start and an end in time, and some more.
pub const CALL_PATIENCE: Nanos = 4 * DEADLINE;
const SAMPLE_EVERY: Nanos = SECOND;
/// Of all people, one in so many begins a call in a call's length: with both sides a quarter is in calls.
const USERS_PER_CALL: Nanos = 8;

/// Our timers: a kind above this, a number below. `browser.rs` has the top bit.
const KIND_SHIFT: u32 = 56;
const SAMPLE: u64 = 1;
const BEGIN: u64 = 2;
const STEP: u64 = 3;
const GIVE_UP: u64 = 4;
const RECONNECT: u64 = 5;

/// One person.
#[derive(Debug)]
struct Person {
    socket: Option<Id>,
    /// Has said who he is.
    is_bound: bool,
    /// In vain, since he was there last.
    tries: u32,
    /// The number of the call he is in, or is asked for.
    call: Option<usize>,
    /// Was without a connection within the window.
    was_lost: bool,
}

/// How far a call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The callee has been invited.
    Ringing,
    /// He has said yes; not both have heard of the start.
    Accepted,
    /// Both have; steps are taken.
    Talking,
    Over,
}

/// One call, from its intention on.
struct Call {
    stage: Stage,
    /// Meant to begin then.
    due: Nanos,
    /// When the callee accepted; once both have heard of the start, that.
    since: Nanos,
    /// Places of caller and callee.
    sides: [usize; 2],
    /// As the server names it; empty before the start.
    room: String,
    /// Sides that have heard of the start, then of the end.
    heard: usize,
    /// Of the script.
    next_step: usize,
    /// What has not arrived yet.
    relays_missing: u64,
    controls_missing: u64,
}

impl Call {
    fn new(due: Nanos, sides: [usize; 2]) -> Self {
        Self {
            stage: Stage::Ringing,
            due,
            since: due,
            sides,
            room: String::new(),
            heard: 0,
            next_step: 0,
            relays_missing: RELAYS,
            controls_missing: CONTROLS,
        }
    }
}

/// Everybody.
pub struct Life<'a> {
    port: u16,
    pid: u32,
    accounts: &'a [Account],
    offers_deflate: bool,
    pace: Pace,
    window: Range<Nanos>,
    /// The first person joins and polls then.
    start: Nanos,
    people: Vec<Person>,
    calls: Vec<Call>,
    steps: Vec<Step>,
    /// The server's resident memory, once a second of the window, bytes.
    residents: Vec<u64>,
    pub browsers: Browsers<'a>,
    /// Offers, answers, candidates, lines.
    pub relays: Tally,
    /// Invites, starts, ends.
    pub control: Tally,
    /// One for each person.
    pub connections: Tally,
    /// Calls of the window.
    pub begun: u64,
}

impl<'a> Life<'a> {
    /// Everybody is connected and has said who he is; nothing goes on yet.
    pub fn new(
        server: &Server,
        accounts: &'a [Account],
        sockets: Vec<Id>,
        offers_deflate: bool,
        pace: Pace,
        window: Range<Nanos>,
    ) -> Self {
        let person = |id| Person { socket: Some(id), is_bound: true, tries: 0, call: None, was_lost: false };
        let tally = || Tally::new(window.clone());
        Self {
            port: server.port,
            pid: server.pid(),
            accounts,
            offers_deflate,
            pace,
            start: now(),
            people: sockets.into_iter().map(person).collect(),
            calls: Vec::new(),
            steps: script::steps(pace.call),
            residents: Vec::new(),
            browsers: Browsers::new(server.port, accounts, accounts.len(), tally()),
            relays: tally(),
            control: tally(),
            connections: tally(),
            begun: 0,
            window,
        }
    }

    /// Sets everything going: people join and look one after the other, and when all have, calls begin.
    pub fn begin(&mut self, net: &mut Net) {
        let per_second = self.people.len() as f64 * SECOND as f64 / self.pace.poll as f64;
        net.schedule = Some(Schedule::new(self.start, per_second));
        at(net, self.call_due(0), BEGIN, 0);
        at(net, self.window.start, SAMPLE, 0);
    }

    /// Counts anew, what is meant to happen within. Nobody has been without a connection yet.
    pub fn measure(&mut self, window: Range<Nanos>) {
        self.browsers.measure(Tally::new(window.clone()));
        for tally in [&mut self.relays, &mut self.control, &mut self.connections] {
            *tally = Tally::new(window.clone());
        }
        self.people.iter_mut().for_each(|person| person.was_lost = false);
        self.residents.clear();
        (self.begun, self.window) = (0, window);
    }

    /// All that is counted.
    pub fn tallies(&self) -> [&Tally; 4] {
        [&self.browsers.tally, &self.relays, &self.control, &self.connections]
    }

    /// Tags of connections that belong to this life are below.
    pub fn tags(&self) -> usize {
        2 * self.people.len()
    }

    /// People who were without a connection within the window.
    pub fn lost(&self) -> u64 {
        self.people.iter().filter(|person| person.was_lost).count() as u64
    }

    /// Counts what the window still lacks when nothing more is awaited.
    pub fn end(&mut self) {
        (0..self.calls.len()).for_each(|number| self.over(number));
        let lost = self.lost();
        self.connections.failed("a connection was lost or not made", lost);
        self.connections.due += self.people.len() as u64 - lost;
        self.connections.fine = self.connections.due - lost;
    }

    /// Resident memory in the window, bytes.
    pub fn resident_median(&self) -> f64 {
        let mut sorted = self.residents.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default() as f64
    }

    /// When the call of this number is meant to begin.
    fn call_due(&self, number: usize) -> Nanos {
        let apart = USERS_PER_CALL * self.pace.call / self.people.len() as Nanos;
        self.start + self.pace.poll + number as Nanos * apart
    }

    /// The call of this number is due, and the next one's timer is set.
    fn begin_call(&mut self, net: &mut Net, number: usize) {
        let (due, sides) = (self.call_due(number), sides(self.people.len(), number));
        self.begun += u64::from(self.window.contains(&due));
        at(net, self.call_due(number + 1), BEGIN, number + 1);
        self.calls.push(Call::new(due, sides));
        let are_free = sides.iter().all(|place| self.people[*place].is_bound && self.people[*place].call.is_none());
        let [Some(caller), Some(_)] = sides.map(|place| self.people[place].socket.filter(|_| are_free)) else {
            return self.fail(number, "a call did not begin: somebody was not there or not free");
        };
        sides.iter().for_each(|place| self.people[*place].call = Some(number));
        let invite = json!({ "toUserId": self.accounts[sides[1]].id, "requestedSeconds": 300 });
        net.emit(caller, "call:invite", &invite.to_string());
        net.lateness.saturating_record(now() - due);
        at(net, due + self.pace.call + CALL_PATIENCE, GIVE_UP, number);
    }

    /// Does what is due in a call and sets the timer for what follows.
    fn step(&mut self, net: &mut Net, number: usize) {
        let call = &mut self.calls[number];
        if call.stage != Stage::Talking {
            return;
        }
        let Some(Step { after, side, act }) = self.steps.get(call.next_step).copied() else { return };
        call.next_step += 1;
        let intended = call.since + after;
        let (event, payload) = script::event(act, &call.room, intended);
        if let Some(id) = self.people[call.sides[side as usize]].socket {
            net.emit(id, event, &payload);
            net.lateness.saturating_record(now() - intended);
        }
        if let Some(next) = self.steps.get(self.calls[number].next_step) {
            at(net, self.calls[number].since + next.after, STEP, number);
        }
    }

    /// An invite, a start, an end.
    fn told(&mut self, number: usize, intended: Nanos, what: &str) {
        let call = &mut self.calls[number];
        call.controls_missing = call.controls_missing.saturating_sub(1);
        if self.window.contains(&call.due) {
            self.control.happened(now().saturating_sub(intended), what);
        }
    }

    /// A call fails for a reason of its own.
    fn fail(&mut self, number: usize, why: &str) {
        if self.window.contains(&self.calls[number].due) {
            self.control.remark(why, 1);
        }
        self.over(number);
    }

    /// Nothing more is expected of a call.
    fn over(&mut self, number: usize) {
        let call = &mut self.calls[number];
        if call.stage == Stage::Over {
            return;
        }
        call.stage = Stage::Over;
        if self.window.contains(&call.due) {
            self.relays.failed("a relayed event did not arrive", call.relays_missing);
            self.control.failed("an invite, a start or an end did not arrive", call.controls_missing);
        }
        for place in call.sides {
            let person = &mut self.people[place];
            person.call = person.call.filter(|own| *own != number);
        }
    }

    /// A call has had its time: who is in its room leaves it.
    fn give_up(&mut self, net: &mut Net, number: usize) {
        if self.calls[number].stage == Stage::Over {
            return;
        }
        let sides = self.calls[number].sides;
        let room = &self.calls[number].room;
        for id in sides.iter().filter_map(|place| self.people[*place].socket) {
            if !room.is_empty() {
                net.emit(id, "call:end", &json!({ "roomId": room }).to_string());
            }
            net.emit(id, "queue:join", "");
        }
        self.fail(number, "a call did not come to its end");
    }

    /// The callee is asked, and accepts.
    fn notified(&mut self, net: &mut Net, id: Id, number: usize, message: &[u8]) {
        let payload = event_payload(message);
        let call = &mut self.calls[number];
        let [caller, callee] = call.sides;
        let is_ours = payload["fromUser"]["userId"] == self.accounts[caller].id.as_str();
        if call.stage != Stage::Ringing || callee != id.tag as usize || !is_ours {
            return;
        }
        (call.stage, call.since) = (Stage::Accepted, now());
        let due = call.due;
        self.told(number, due, "an invite");
        let accept = json!({ "inviteId": payload["inviteId"], "requestedSeconds": 300 });
        net.emit(id, "call:accept", &accept.to_string());
    }

    /// One side hears that it starts.
    fn started(&mut self, net: &mut Net, id: Id, number: usize, message: &[u8]) {
        let call = &mut self.calls[number];
        if call.stage != Stage::Accepted {
            return;
        }
        let payload = event_payload(message);
        call.room = payload["roomId"].as_str().unwrap_or_default().to_owned();
        call.heard += 1;
        let (accepted, room, is_complete) = (call.since, json!({ "roomId": call.room }), call.heard == 2);
        self.told(number, accepted, "a start");
        net.emit(id, "queue:leave", "");
        net.emit(id, "room:join", &room.to_string());
        if is_complete {
            let call = &mut self.calls[number];
            (call.stage, call.since, call.heard) = (Stage::Talking, now(), 0);
            at(net, call.since + self.steps[0].after, STEP, number);
        }
    }

    /// One side hears that it has ended.
    fn finalized(&mut self, net: &mut Net, id: Id, number: usize) {
        let place = id.tag as usize;
        let call = &mut self.calls[number];
        call.heard += 1;
        let (ended, is_complete) = (call.since + self.pace.call, call.heard == 2);
        self.told(number, ended, "an end");
        self.people[place].call = None;
        for page in [Page::History, Page::Me] {
            self.browsers.ask(net, place, page, now());
        }
        net.emit(id, "queue:join", "");
        if is_complete {
            self.over(number);
        }
    }

    /// The partner's word; one's own lines come back too.
    fn relayed(&mut self, id: Id, number: usize, message: &[u8]) {
        let call = &self.calls[number];
        let [caller, callee] = call.sides;
        let partner = if id.tag as usize == caller { callee } else { caller };
        let from = self.accounts[partner].id.as_bytes();
        let is_partners = message.windows(from.len()).any(|window| window == from);
        if let Some(intended) = stamp_after(message, MARK.as_bytes()).filter(|_| is_partners) {
            let call = &mut self.calls[number];
            call.relays_missing = call.relays_missing.saturating_sub(1);
            if self.window.contains(&call.due) {
                self.relays.happened(now().saturating_sub(intended), "a relayed event");
            }
        }
    }

    /// Somebody who was away is back.
    fn bound(&mut self, net: &mut Net, id: Id) {
        let person = &mut self.people[id.tag as usize];
        (person.is_bound, person.tries) = (true, 0);
        net.emit(id, "presence:join", "");
        net.emit(id, "queue:join", "");
    }

    /// Somebody who is away tries to come back.
    fn connect(&mut self, net: &mut Net, place: usize) {
        let dial = crowd::dial(self.port, &self.accounts[place], self.offers_deflate, place);
        match net.open(dial) {
            Ok(id) => self.people[place].socket = Some(id),
            Err(error) => {
                self.connections.remark(&error.to_string(), 1);
                net.after(TRY_AGAIN, RECONNECT << KIND_SHIFT | place as u64);
            }
        }
    }

    /// Memory now, and who is without a connection.
    fn sample(&mut self, net: &mut Net) {
        self.residents.push(resident(self.pid));
        self.people.iter_mut().for_each(|person| person.was_lost |= !person.is_bound);
        if now() + SAMPLE_EVERY < self.window.end {
            net.after(SAMPLE_EVERY, SAMPLE << KIND_SHIFT);
        }
    }
}

impl Handler for Life<'_> {
    fn opened(&mut self, net: &mut Net, id: Id) {
        if self.browsers.has(id) {
            self.browsers.opened(net, id);
        }
    }

    fn response(&mut self, net: &mut Net, id: Id, response: &Response<'_>) {
        self.browsers.response(net, id, response);
    }

    fn message(&mut self, net: &mut Net, id: Id, message: &[u8]) {
        let call = self.people[id.tag as usize].call;
        match (event_name(message), call) {
            ("auth:success", _) if !self.people[id.tag as usize].is_bound => self.bound(net, id),
            ("call:notify", Some(number)) => self.notified(net, id, number, message),
            ("call:start", Some(number)) => self.started(net, id, number, message),
            ("rtc:offer" | "rtc:answer" | "rtc:ice" | "room:chat", Some(number)) => self.relayed(id, number, message),
            ("session:finalized", Some(number)) if self.calls[number].stage == Stage::Talking => {
                self.finalized(net, id, number);
            }
            ("call:declined", Some(number)) => {
                let reason = event_payload(message)["reason"].to_string();
                self.fail(number, &format!("a call was declined: {reason}"));
            }
            ("error" | "auth:failed", _) => self.control.remark(&String::from_utf8_lossy(message), 1),
            _ => {}
        }
    }

    fn closed(&mut self, net: &mut Net, id: Id, failure: Failure) {
        if self.browsers.has(id) {
            return self.browsers.closed(net, id, failure);
        }
        let place = id.tag as usize;
        let person = &mut self.people[place];
        (person.socket, person.is_bound) = (None, false);
        if self.window.contains(&now()) {
            person.was_lost = true;
            self.connections.remark(&format!("connection: {failure}"), 1);
        }
        net.after(TRY_AGAIN << person.tries, RECONNECT << KIND_SHIFT | place as u64);
        person.tries = (person.tries + 1).min(TRIES_SLOWED_MAX);
    }

    fn timer(&mut self, net: &mut Net, key: u64) {
        if Browsers::is_mine(key) {
            return self.browsers.timer(net, key);
        }
        let number = (key & ((1 << KIND_SHIFT) - 1)) as usize;
        match key >> KIND_SHIFT {
            SAMPLE => self.sample(net),
            BEGIN => self.begin_call(net, number),
            STEP => self.step(net, number),
            GIVE_UP => self.give_up(net, number),
            _ => self.connect(net, number),
        }
    }

    fn due(&mut self, net: &mut Net, number: u64, intended: Nanos) {
        let place = number as usize % self.people.len();
        if number < self.people.len() as u64
            && let Some(id) = self.people[place].socket
        {
            net.emit(id, "presence:join", "");
            net.emit(id, "queue:join", "");
        }
        if self.people[place].call.is_none() {
            self.browsers.ask(net, place, Page::Queue, intended);
        }
    }

    /// After the window: nothing of it is awaited any more.
    fn is_done(&self) -> bool {
        now() > self.window.end && self.browsers.outstanding() == 0 && self.are_calls_over()
    }
}

impl Life<'_> {
    /// Whether nothing more is awaited of the window's calls.
    fn are_calls_over(&self) -> bool {
        let mut counted = self.calls.iter().rev().filter(|call| self.window.contains(&call.due));
        counted.all(|call| call.stage == Stage::Over)
    }
}

/// Who is to be in the call of this number: all callers take turns, and go on by one callee each time round.
fn sides(people: usize, number: usize) -> [usize; 2] {
    let half = people / 2;
    [number % half, half + (number + number / half) % half]
}

/// Sets one of our timers for then.
fn at(net: &mut Net, time: Nanos, kind: u64, number: usize) {
    net.after(time.saturating_sub(now()), kind << KIND_SHIFT | number as u64);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn nobody_meets_anybody_twice_or_is_asked_twice_in_a_row() {
        const PEOPLE: usize = 20;
        const ALL: usize = PEOPLE * PEOPLE / 4;
        let calls: Vec<[usize; 2]> = (0..ALL).map(|number| sides(PEOPLE, number)).collect();
        assert_eq!(calls.iter().collect::<BTreeSet<_>>().len(), ALL);
        for some in calls.windows(PEOPLE / 2 - 1) {
            assert_eq!(some.iter().flatten().collect::<BTreeSet<_>>().len(), 2 * some.len());
        }
    }
}

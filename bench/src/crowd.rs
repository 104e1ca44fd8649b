//! People: accounts made, connected, authenticated and brought into calls, many at a time, before anything is measured.
//!
//! What takes longer than `PATIENCE` is an error that says how far it came.

use std::str;

use serde_json::{Value, json};

use crate::clock::{Nanos, SECOND, now};
use crate::net::{Dial, Failure, Handler, Id, Net, Request, Response, Speaks};

const PATIENCE: Nanos = 180 * SECOND;
const SIGN_UPS_AT_ONCE: usize = 32;
/// Fewer than the backlog of any server's listener.
const CONNECTIONS_AT_ONCE: usize = 64;
/// Calls that are being made at a time.
const CALLS_AT_ONCE: usize = 16;
/// People who join the queue before the next do.
const JOINS_AT_ONCE: usize = 64;

/// Somebody who has signed up.
#[derive(Debug, Clone)]
pub struct Account {
    pub id: String,
    pub token: String,
}

/// A call whose two sides are in its room. Tags are the places of their accounts.
#[derive(Debug, Clone)]
pub struct Call {
    pub caller: Id,
    pub callee: Id,
    pub room: String,
}

/// The name of an event, as `["name",payload]` has it.
pub fn event_name(event: &[u8]) -> &str {
    let name = event.strip_prefix(b"[\"").and_then(|rest| rest.split(|byte| *byte == b'"').next());
    name.and_then(|name| str::from_utf8(name).ok()).unwrap_or_default()
}

/// The payload of an event.
pub fn event_payload(event: &[u8]) -> Value {
    let mut parts = serde_json::from_slice::<Vec<Value>>(event).unwrap_or_default();
    if parts.len() > 1 { parts.swap_remove(1) } else { Value::Null }
}

/// A connection for the product's events that says who is there in its handshake.
pub fn dial(port: u16, account: &Account, offers_deflate: bool, tag: usize) -> Dial {
    Dial { port, speaks: Speaks::SocketIo(Some(account.token.clone())), offers_deflate, tag: tag as u32 }
}

/// Makes so many accounts, by the route that guests use.
pub fn sign_up(net: &mut Net, port: u16, count: usize) -> Result<Vec<Account>, String> {
    let mut signing = SignUps { wanted: count, asked: 0, accounts: Vec::with_capacity(count), failure: None };
    let mut ids = Vec::new();
    for tag in 0..SIGN_UPS_AT_ONCE.min(count) {
        let dial = Dial { port, speaks: Speaks::Http, offers_deflate: false, tag: tag as u32 };
        ids.push(net.open(dial).map_err(|error| error.to_string())?);
    }
    let outcome = patiently(net, &mut signing, |signing| {
        let done = format!("{} of {count} signed up", signing.accounts.len());
        (done, signing.failure.take())
    });
    ids.into_iter().for_each(|id| net.close(id));
    outcome.map(|()| signing.accounts)
}

/// Opens so many connections, `dial` giving each by its place.
pub fn open(net: &mut Net, count: usize, dial: impl Fn(usize) -> Dial) -> Result<Vec<Id>, String> {
    open_until(net, count, dial, None)
}

/// As many at a time as any server's backlog takes; a connection counts once it hears `awaited`, if that is given.
fn open_until(
    net: &mut Net,
    count: usize,
    dial: impl Fn(usize) -> Dial,
    awaited: Option<&'static str>,
) -> Result<Vec<Id>, String> {
    let mut opening = Opening { dial, awaited, dialled: 0, ids: vec![None; count], ready: 0, failure: None };
    for _ in 0..CONNECTIONS_AT_ONCE {
        opening.dial_next(net);
    }
    patiently(net, &mut opening, |opening| {
        (format!("{} of {count} connected", opening.ready), opening.failure.take())
    })?;
    Ok(opening.ids.into_iter().flatten().collect())
}

/// Connects and authenticates them, in their order. A connection's tag is its account's place.
pub fn connect(net: &mut Net, port: u16, accounts: &[Account], offers_deflate: bool) -> Result<Vec<Id>, String> {
    open_until(net, accounts.len(), |tag| dial(port, &accounts[tag], offers_deflate, tag), Some("auth:success"))
}

/// Connects them and has each even one call the next, for half an hour; both join the room, and have been told that the
/// server has handled that.
pub fn call(net: &mut Net, port: u16, accounts: &[Account], offers_deflate: bool) -> Result<Vec<Call>, String> {
    let pairs = (0..accounts.len() / 2).map(|_| Pair::default()).collect();
    let mut calls = Calls { port, accounts, offers_deflate, begun: 0, pairs, done: 0, failure: None };
    for _ in 0..CALLS_AT_ONCE {
        calls.begin_next(net);
    }
    patiently(net, &mut calls, |calls| {
        (format!("{} of {} calls made", calls.done, calls.pairs.len()), calls.failure.take())
    })?;
    let made = calls.pairs.into_iter().filter_map(|pair| {
        let [caller, callee] = pair.ids;
        Some(Call { caller: caller?, callee: callee?, room: pair.room })
    });
    Ok(made.collect())
}

/// Has them join the queue, and waits until the server has handled it.
pub fn join_queue(net: &mut Net, accounts: &[Account], ids: &[Id]) -> Result<(), String> {
    let mut joining = Joining { accounts, ids, joined: 0, settled: 0, failure: None };
    joining.join_next(net);
    patiently(net, &mut joining, |joining| {
        (format!("{} of {} joined the queue", joining.settled, ids.len()), joining.failure.take())
    })
}

/// Runs until it is done; `state` gives how far it has come and what has gone wrong.
fn patiently<H: Handler>(
    net: &mut Net,
    handler: &mut H,
    state: impl Fn(&mut H) -> (String, Option<String>),
) -> Result<(), String> {
    let is_done = net.run(handler, now() + PATIENCE).map_err(|error| error.to_string())?;
    match state(handler) {
        (done, Some(failure)) => Err(format!("{done}, then: {failure}")),
        (done, None) if !is_done => Err(format!("only {done} in {} s", PATIENCE / SECOND)),
        _ => Ok(()),
    }
}

/// Accounts that are being made, one request under way per connection.
struct SignUps {
    wanted: usize,
    asked: usize,
    accounts: Vec<Account>,
    failure: Option<String>,
}

impl SignUps {
    fn ask(&mut self, net: &mut Net, id: Id) {
        if self.asked < self.wanted {
            let body = json!({ "name": format!("Guest {}", self.asked), "gender": "unspecified" }).to_string();
            self.asked += 1;
            net.request(id, &Request::post("/auth/guest", &body));
        }
    }
}

impl Handler for SignUps {
    fn opened(&mut self, net: &mut Net, id: Id) {
        self.ask(net, id);
    }

    fn response(&mut self, net: &mut Net, id: Id, response: &Response<'_>) {
        let body: Value = serde_json::from_slice(response.body).unwrap_or_default();
        match (body["userId"].as_str(), body["sessionToken"].as_str()) {
            (Some(user), Some(token)) => self.accounts.push(Account { id: user.to_owned(), token: token.to_owned() }),
            _ => self.failure = Some(format!("a sign-up was answered {}: {body}", response.status)),
        }
        self.ask(net, id);
    }

    fn closed(&mut self, _net: &mut Net, _id: Id, failure: Failure) {
        self.failure = Some(failure.to_string());
    }

    fn is_done(&self) -> bool {
        self.accounts.len() == self.wanted || self.failure.is_some()
    }
}

/// Connections that are opened one after the other, so many at a time.
struct Opening<D> {
    dial: D,
    /// The event that makes a connection count; none: its being open does.
    awaited: Option<&'static str>,
    dialled: usize,
    ids: Vec<Option<Id>>,
    ready: usize,
    failure: Option<String>,
}

impl<D: Fn(usize) -> Dial> Opening<D> {
    fn dial_next(&mut self, net: &mut Net) {
        if self.dialled < self.ids.len() {
            if let Err(error) = net.open((self.dial)(self.dialled)) {
                self.failure = Some(error.to_string());
            }
            self.dialled += 1;
        }
    }

    fn ready(&mut self, net: &mut Net, id: Id) {
        let known = &mut self.ids[id.tag as usize];
        if known.is_none() {
            *known = Some(id);
            self.ready += 1;
            self.dial_next(net);
        }
    }
}

impl<D: Fn(usize) -> Dial> Handler for Opening<D> {
    fn opened(&mut self, net: &mut Net, id: Id) {
        if self.awaited.is_none() {
            self.ready(net, id);
        }
    }

    fn message(&mut self, net: &mut Net, id: Id, message: &[u8]) {
        if self.awaited == Some(event_name(message)) {
            self.ready(net, id);
        }
    }

    fn closed(&mut self, _net: &mut Net, _id: Id, failure: Failure) {
        self.failure = Some(failure.to_string());
    }

    fn is_done(&self) -> bool {
        self.ready == self.ids.len() || self.failure.is_some()
    }
}

/// People who join the queue, and say so by authenticating again.
struct Joining<'a> {
    accounts: &'a [Account],
    ids: &'a [Id],
    joined: usize,
    settled: usize,
    failure: Option<String>,
}

impl Joining<'_> {
    /// The next lot joins, when all before have.
    fn join_next(&mut self, net: &mut Net) {
        let end = (self.joined + JOINS_AT_ONCE).min(self.ids.len());
        for id in &self.ids[self.joined..end] {
            net.emit(*id, "queue:join", "");
            let token = json!({ "sessionToken": self.accounts[id.tag as usize].token });
            net.emit(*id, "auth", &token.to_string());
        }
        self.joined = end;
    }
}

impl Handler for Joining<'_> {
    fn message(&mut self, net: &mut Net, _id: Id, message: &[u8]) {
        if event_name(message) == "auth:success" {
            self.settled += 1;
            if self.settled == self.joined {
                self.join_next(net);
            }
        }
    }

    fn closed(&mut self, _net: &mut Net, _id: Id, failure: Failure) {
        self.failure = Some(failure.to_string());
    }

    fn is_done(&self) -> bool {
        self.settled == self.ids.len() || self.failure.is_some()
    }
}

/// How far a pair has come. Each step waits for both or for one word of the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Step {
    /// Both connect and authenticate.
    #[default]
    Arriving,
    /// The callee joins the queue, and says so by authenticating again.
    Queueing,
    Ringing,
    /// Both have heard that it starts, have joined the room and authenticate again.
    Entering,
    Talking,
}

#[derive(Debug, Default)]
struct Pair {
    step: Step,
    ids: [Option<Id>; 2],
    /// Of the two, how many have done what the step waits for.
    ready: usize,
    room: String,
}

/// Pairs that are being brought into calls. Neither side of a new pair is there before one of those under way talks, so
/// that a server which tells everybody everything has few to tell.
struct Calls<'a> {
    port: u16,
    accounts: &'a [Account],
    offers_deflate: bool,
    begun: usize,
    pairs: Vec<Pair>,
    done: usize,
    failure: Option<String>,
}

impl Calls<'_> {
    fn begin_next(&mut self, net: &mut Net) {
        if self.begun < self.pairs.len() {
            for tag in [2 * self.begun, 2 * self.begun + 1] {
                if let Err(error) = net.open(dial(self.port, &self.accounts[tag], self.offers_deflate, tag)) {
                    self.failure = Some(error.to_string());
                }
            }
            self.begun += 1;
        }
    }

    /// Asks for a word that comes only when all before it was handled.
    fn settle(&self, net: &mut Net, id: Id) {
        let token = json!({ "sessionToken": self.accounts[id.tag as usize].token });
        net.emit(id, "auth", &token.to_string());
    }

    fn bound(&mut self, net: &mut Net, id: Id) {
        let (place, side) = (id.tag as usize / 2, id.tag as usize % 2);
        let pair = &mut self.pairs[place];
        match pair.step {
            Step::Arriving if pair.ids[side].is_none() => {
                pair.ids[side] = Some(id);
                if let [Some(_), Some(callee)] = pair.ids {
                    pair.step = Step::Queueing;
                    net.emit(callee, "presence:join", "");
                    net.emit(callee, "queue:join", "");
                    self.settle(net, callee);
                }
            }
            Step::Queueing if side == 1 => {
                pair.step = Step::Ringing;
                let invite = json!({ "toUserId": self.accounts[id.tag as usize].id, "requestedSeconds": 1_800 });
                if let Some(caller) = pair.ids[0] {
                    net.emit(caller, "call:invite", &invite.to_string());
                }
            }
            Step::Entering => {
                pair.ready += 1;
                if pair.ready == 2 {
                    pair.step = Step::Talking;
                    self.done += 1;
                    self.begin_next(net);
                }
            }
            _ => {}
        }
    }
}

impl Handler for Calls<'_> {
    fn message(&mut self, net: &mut Net, id: Id, message: &[u8]) {
        match event_name(message) {
            "auth:success" => self.bound(net, id),
            "call:notify" => {
                let accept = json!({ "inviteId": event_payload(message)["inviteId"], "requestedSeconds": 1_800 });
                net.emit(id, "call:accept", &accept.to_string());
            }
            "call:start" => {
                let payload = event_payload(message);
                let pair = &mut self.pairs[id.tag as usize / 2];
                pair.step = Step::Entering;
                pair.room = payload["roomId"].as_str().unwrap_or_default().to_owned();
                net.emit(id, "room:join", &json!({ "roomId": pair.room }).to_string());
                self.settle(net, id);
            }
            "call:declined" | "error" | "auth:failed" => {
                self.failure = Some(String::from_utf8_lossy(message).into_owned());
            }
            _ => {}
        }
    }

    fn closed(&mut self, _net: &mut Net, _id: Id, failure: Failure) {
        self.failure = Some(failure.to_string());
    }

    fn is_done(&self) -> bool {
        self.done == self.pairs.len() || self.failure.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_events_name_and_payload_are_read() {
        let event = br#"["rtc:ice",{"from":"a"}]"#;
        assert_eq!(event_name(event), "rtc:ice");
        assert_eq!(event_payload(event)["from"], "a");
        assert_eq!(event_payload(br#"["auth:success"]"#), Value::Null);
        assert_eq!(event_name(b"nonsense"), "");
    }
}

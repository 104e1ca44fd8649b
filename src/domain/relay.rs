//! What participants say to each other in a call: signalling, chat, socials (contract 3.3, D2, D8, D34, D37).
//!
//! Routing is by the call a user is in, never by what a connection claims. What is for a user who has not been in the
//! room yet, or is away for a moment, is held: at most [`HELD_MAX`] events of [`HELD_BYTES_MAX`] bytes, then dropped.

use std::sync::Arc;

use bytes::Bytes;

use crate::base::limits::{HELD_BYTES_MAX, HELD_MAX};
use crate::base::{CallId, ConnId, Time, UserId};
use crate::message::client::SignalKind;
use crate::message::model::{ChatKind, ChatLine, Socials};
use crate::message::shard::Saying;
use crate::message::{Card, ServerEvent, UserMessage};

use super::counts::Relay;
use super::user::{Engagement, Role};
use super::{Domain, Effects};

const NOT_YOURS: &str = "You are not in this room";

impl Engagement {
    /// A half that has just begun; the callee's begins when the call is durable.
    pub fn new(call: CallId, peer: &Card, role: Role, agreed_seconds: u32) -> Self {
        let (peer, peer_name) = (peer.user_id, Arc::from(peer.name.as_str()));
        let (begun, awaited, joined) = (role == Role::Callee, false, false);
        Self { call, peer, peer_name, role, agreed_seconds, begun, awaited, joined, held: Vec::new(), held_bytes: 0 }
    }

    /// The `call:start` of this half.
    pub fn start(&self) -> ServerEvent {
        ServerEvent::CallStart {
            room: self.call,
            agreed_seconds: self.agreed_seconds,
            initiator: self.role == Role::Caller,
            peer: self.peer,
            peer_name: self.peer_name.clone(),
        }
    }

    /// Keeps an event for later, unless there is no room for it.
    fn hold(&mut self, event: ServerEvent) -> Relay {
        let bytes = self.held_bytes + event.weight();
        if self.held.len() >= HELD_MAX || bytes > HELD_BYTES_MAX {
            return Relay::Dropped;
        }
        self.held_bytes = bytes;
        self.held.push(event);
        Relay::Held
    }

    /// Sends what was held, in order.
    pub fn let_go(&mut self, conn: ConnId, out: &mut Effects) {
        self.held_bytes = 0;
        for event in self.held.drain(..) {
            out.send(conn, event);
        }
    }
}

impl Domain {
    /// `room:join`: from now on this connection hears the room, and what was held for it.
    pub(super) fn room_join(&mut self, now: Time, id: UserId, conn: ConnId, room: Option<CallId>, out: &mut Effects) {
        let user = self.users.get_mut(&id).expect("a bound connection has a user");
        let Some(engaged) = room.and_then(|room| user.engaged_in(room)) else {
            return match room.and_then(|room| self.recent.session(now, id, room)) {
                Some(session) => out.send(conn, ServerEvent::Finalized { session }),
                None => out.error(conn, NOT_YOURS),
            };
        };
        let (call, is_first) = (engaged.call, !std::mem::replace(&mut engaged.joined, true));
        engaged.let_go(conn, out);
        if let Some(socket) = user.socket(conn) {
            (socket.in_room, socket.entered) = (true, true);
        }
        if is_first {
            self.keep_joined(now, call, id);
        }
    }

    /// `rtc:*`: to the peer, byte for byte.
    pub(super) fn signal(
        &mut self,
        id: UserId,
        conn: ConnId,
        room: Option<CallId>,
        (kind, payload): (SignalKind, Bytes),
        out: &mut Effects,
    ) {
        let Some((call, peer, _)) = self.part_in(id, room) else { return out.error(conn, NOT_YOURS) };
        let event = ServerEvent::Signal { kind, payload, from: id };
        self.tell(peer, UserMessage::Relay { call, event }, out);
    }

    /// `room:chat`; what is empty after cleaning is dropped.
    pub(super) fn chat(
        &mut self,
        now: Time,
        id: UserId,
        conn: ConnId,
        room: Option<CallId>,
        text: Option<String>,
        out: &mut Effects,
    ) {
        if let Some(text) = text {
            self.add_to_log(now, id, conn, room, Saying::Text(text.into()), out);
        }
    }

    /// `room:giveSocial`.
    pub(super) fn give_social(
        &mut self,
        now: Time,
        id: UserId,
        conn: ConnId,
        room: Option<CallId>,
        socials: Socials,
        out: &mut Effects,
    ) {
        self.add_to_log(now, id, conn, room, Saying::Socials(Arc::new(socials)), out);
    }

    fn add_to_log(
        &mut self,
        now: Time,
        id: UserId,
        conn: ConnId,
        room: Option<CallId>,
        line: Saying,
        out: &mut Effects,
    ) {
        match self.part_in(id, room) {
            None => out.error(conn, NOT_YOURS),
            Some((call, _, Role::Caller)) => self.say(now, call, Some(conn), line, out),
            Some((call, caller, Role::Callee)) => self.tell(caller, UserMessage::Say { call, line }, out),
        }
    }

    /// At the caller's home, which keeps the log and so the order: both hear it. `conn` is the caller's if he said it.
    pub(super) fn say(&mut self, now: Time, call: CallId, conn: Option<ConnId>, line: Saying, out: &mut Effects) {
        let Some(record) = self.calls.get_mut(&call) else { return };
        let (caller, callee) = (record.caller.user_id, record.callee.user_id);
        let from = if conn.is_some() { caller } else { callee };
        let full = !record.log(logged(from, now, &line));
        if !full {
            self.keep_line(now, call);
        }
        let event = match line {
            _ if full => ServerEvent::Error { message: "The chat of this call is full" },
            Saying::Text(text) => ServerEvent::Chat { from, text, at: now },
            Saying::Socials(socials) => ServerEvent::SocialShared { from, at: now, socials },
        };
        if !full || from == caller {
            self.tell(caller, UserMessage::Relay { call, event: event.clone() }, out);
        }
        if !full || from == callee {
            self.tell(callee, UserMessage::Relay { call, event }, out);
        }
    }

    /// An event of the call this user is in: to his connections in the room, else held for the first that comes.
    pub(super) fn relayed(&mut self, id: UserId, call: CallId, event: ServerEvent, out: &mut Effects) {
        let dropped = || self.counts.relays.add_one(Relay::Dropped as usize);
        let Some(user) = self.users.get_mut(&id) else { return dropped() };
        let in_room = user.sockets.iter().any(|socket| socket.in_room);
        let away = user.sockets.is_empty();
        let Some(engaged) = user.engaged_in(call) else { return dropped() };
        let own = match &event {
            ServerEvent::Error { .. } => true,
            ServerEvent::Chat { from, .. } | ServerEvent::SocialShared { from, .. } => *from == id,
            _ => false,
        };
        if !own && (away || !engaged.joined) {
            let relay = engaged.hold(event);
            return self.counts.relays.add_one(relay as usize);
        }
        if !own {
            self.counts.relays.add_one(Relay::Delivered as usize);
        }
        for socket in user.sockets.iter().filter(|socket| socket.in_room || !in_room) {
            out.send(socket.conn, event.clone());
        }
    }

    /// The call, the peer and the role of `id`, if `room` is the call he is in.
    fn part_in(&mut self, id: UserId, room: Option<CallId>) -> Option<(CallId, UserId, Role)> {
        let engaged = self.users.get_mut(&id)?.engaged_in(room?)?;
        Some((engaged.call, engaged.peer, engaged.role))
    }
}

/// The line as the history shows it; socials carry a text too, which the history page prints (W14).
fn logged(from: UserId, now: Time, line: &Saying) -> ChatLine {
    let (kind, text, socials) = match line {
        Saying::Text(text) => (ChatKind::Message, text.to_string(), None),
        Saying::Socials(socials) => {
            let pairs: Vec<String> = socials.iter().map(|(platform, handle)| format!("{platform}: {handle}")).collect();
            (ChatKind::Social, pairs.join(", "), Some(Socials::clone(socials)))
        }
    };
    ChatLine { from: from.to_string(), text, timestamp: now, kind, socials }
}

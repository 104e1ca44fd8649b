//! What lives in memory: who is online, invites, calls. One lock; no method waits for anything else under it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use indexmap::IndexMap;
use serde_json::Value;
use socketioxide::socket::Sid;
use uuid::Uuid;

use crate::store::now_ms;

/// Who joins again and again is told to the others at most once in so long.
const PRESENCE_EVERY_MS: i64 = 1_000;
const INVITE_KEPT_MS: i64 = 5 * 60_000;
const CHAT_LINES_MAX: usize = 500;

#[derive(Default)]
pub struct World {
    state: RwLock<State>,
    pub connections: AtomicUsize,
}

#[derive(Default)]
pub struct State {
    /// In the order in which they came online.
    pub people: IndexMap<Uuid, Presence>,
    /// Each user's newest socket: what is addressed to him goes there.
    pub sockets: HashMap<Uuid, Sid>,
    pub invites: HashMap<Uuid, Invite>,
    pub calls: HashMap<Uuid, Call>,
    pub call_of: HashMap<Uuid, Uuid>,
}

#[derive(Clone, Copy, Default)]
pub struct Presence {
    available: bool,
    told_at: i64,
}

#[derive(Clone, Copy)]
pub struct Invite {
    pub from: Uuid,
    pub to: Uuid,
    pub seconds: i64,
    pub at: i64,
}

pub struct Call {
    pub participants: [(Uuid, String); 2],
    pub started_at: i64,
    pub chat: Vec<Value>,
}

impl World {
    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().expect("nobody panics under the lock")
    }

    pub fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().expect("nobody panics under the lock")
    }

    /// All in the queue but this user.
    pub fn available(&self, me: Uuid) -> Vec<Uuid> {
        let state = self.read();
        state.people.iter().filter(|(id, presence)| **id != me && presence.available).map(|(id, _)| *id).collect()
    }

    /// People online, and sockets.
    pub fn counts(&self) -> (usize, usize) {
        (self.read().people.len(), self.connections.load(Ordering::Relaxed))
    }
}

impl State {
    /// This socket is the user's newest; says whether it was not before.
    pub fn enter(&mut self, user: Uuid, socket: Sid) -> bool {
        self.people.entry(user).or_default();
        self.sockets.insert(user, socket) != Some(socket)
    }

    /// Takes a user offline whose newest socket this still is; says whether it was.
    pub fn leave(&mut self, user: Uuid, socket: Sid) -> bool {
        let newest = self.sockets.get(&user) == Some(&socket);
        if newest {
            self.sockets.remove(&user);
            self.people.shift_remove(&user);
        }
        newest
    }

    pub fn is_available(&self, user: Uuid) -> bool {
        self.people.get(&user).is_some_and(|presence| presence.available)
    }

    /// Online and not in the queue; says whether the others are to be told.
    pub fn join(&mut self, user: Uuid) -> bool {
        let presence = self.people.entry(user).or_default();
        presence.available = false;
        let due = now_ms() - presence.told_at >= PRESENCE_EVERY_MS;
        if due {
            presence.told_at = now_ms();
        }
        due
    }

    /// In or out of the queue; says whether the others are to be told.
    pub fn set_available(&mut self, user: Uuid, available: bool) -> bool {
        if !available && !self.people.contains_key(&user) {
            return false;
        }
        self.people.entry(user).or_default().available = available;
        true
    }

    pub fn invite_between(&self, from: Uuid, to: Uuid) -> Option<Uuid> {
        self.invites.iter().find(|(_, invite)| invite.from == from && invite.to == to).map(|(id, _)| *id)
    }

    pub fn take_invite(&mut self, invite_id: Uuid, may: impl FnOnce(&Invite) -> bool) -> Option<Invite> {
        self.invites.get(&invite_id).copied().filter(may)?;
        self.invites.remove(&invite_id)
    }

    /// Turns an invite into a call; nothing if it is gone or one of them is in another call by now.
    pub fn start(&mut self, invite_id: Uuid, call: Call) -> Option<Uuid> {
        self.invites.remove(&invite_id)?;
        let users = [call.participants[0].0, call.participants[1].0];
        if users.iter().any(|user| self.call_of.contains_key(user)) {
            return None;
        }
        let room = Uuid::new_v4();
        self.call_of.extend(users.map(|user| (user, room)));
        self.calls.insert(room, call);
        // Those that nobody answered go by the way.
        let oldest = now_ms() - INVITE_KEPT_MS;
        self.invites.retain(|_, invite| invite.at >= oldest);
        Some(room)
    }

    /// The call this user is in, and the invites that he made.
    pub fn entanglements(&self, user: Uuid) -> (Option<Uuid>, Vec<Uuid>) {
        let invites = self.invites.iter().filter(|(_, invite)| invite.from == user).map(|(id, _)| *id).collect();
        (self.call_of.get(&user).copied(), invites)
    }

    /// The other one in this call, if this user is in it.
    pub fn partner(&self, room: Uuid, me: Uuid) -> Option<Uuid> {
        let [(caller, _), (callee, _)] = &self.calls.get(&room)?.participants;
        match me {
            _ if me == *caller => Some(*callee),
            _ if me == *callee => Some(*caller),
            _ => None,
        }
    }

    /// Takes the call out: whoever gets it ends it.
    pub fn end(&mut self, room: Uuid) -> Option<Call> {
        let call = self.calls.remove(&room)?;
        for (user, _) in &call.participants {
            self.call_of.remove(user);
        }
        Some(call)
    }
}

impl Call {
    pub fn log(&mut self, line: Value) {
        if self.chat.len() < CHAT_LINES_MAX {
            self.chat.push(line);
        }
    }
}

//! What a shard knows of one of its users while that user is connected, awaited, ringing or in a call.

use std::sync::Arc;

use crate::base::{CallId, ConnId, InviteId, Time, TokenHash, UserId};
use crate::message::client::Seconds;
use crate::message::model::Login;
use crate::message::{Card, PaidStatus, ServerEvent};

/// A user with something going on; forgotten as soon as nothing is ([`User::is_idle`]).
pub struct User {
    pub card: Arc<Card>,
    pub paid: PaidStatus,
    /// Living connections, oldest first.
    pub sockets: Vec<Socket>,
    /// Lost connections that may still come back.
    pub ghosts: Vec<Ghost>,
    /// Boxed, as it is rare.
    pub engaged: Option<Box<Engagement>>,
    /// An accept that waits for the caller's home.
    pub accepting: Option<Box<Accepting>>,
    pub outgoing: Vec<Outgoing>,
    pub incoming: Vec<Incoming>,
    pub published: Published,
}

/// One living, authenticated connection.
pub struct Socket {
    pub conn: ConnId,
    pub token: TokenHash,
    pub stance: Stance,
    /// Whether it is in the room of the user's call.
    pub in_room: bool,
    /// Whether it went there itself: who is in a call when a connection of his begins is in the room with that one, too.
    pub entered: bool,
}

/// What a connection said of its presence.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stance {
    pub online: bool,
    pub queued: bool,
}

/// A lost connection in its grace.
pub struct Ghost {
    pub stance: Stance,
    pub until: Time,
}

/// A user's half of a call.
pub struct Engagement {
    pub call: CallId,
    pub peer: UserId,
    pub peer_name: Arc<str>,
    pub role: Role,
    pub agreed_seconds: u32,
    /// Whether its start is durable: until then nobody hears of it.
    pub begun: bool,
    /// A call that an earlier process left behind, into which the user has not come back yet.
    pub awaited: bool,
    /// Whether the user has been in the room.
    pub joined: bool,
    /// What the peer sent before that, or while the user was away (D37).
    pub held: Vec<ServerEvent>,
    pub held_bytes: usize,
}

/// The caller's home keeps the call's record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    Caller,
    Callee,
}

/// The first half of an accept, at the callee's home.
pub struct Accepting {
    pub invite: InviteId,
    pub call: CallId,
    pub caller: UserId,
    pub conn: ConnId,
}

/// An invite that this user made.
pub struct Outgoing {
    pub invite: InviteId,
    pub callee: UserId,
    pub seconds: Seconds,
    /// The connection that made it.
    pub conn: ConnId,
    pub extensions: u32,
    pub until: Time,
}

/// An invite that rings at this user.
pub struct Incoming {
    pub invite: InviteId,
    pub from: Arc<Card>,
    pub seconds: Seconds,
    pub until: Time,
}

/// What the directory was told last.
#[derive(Clone, Copy, Default)]
pub struct Published {
    pub online: bool,
    pub available: bool,
    /// When the user last became available.
    pub since: Option<Time>,
    /// When `online` was last announced.
    pub online_at: Option<Time>,
}

impl User {
    /// A user who was just authenticated and has no connection yet.
    pub fn new(login: &Login) -> Self {
        Self::of(login.card.clone(), login.paid)
    }

    /// A user who has no connection yet.
    pub fn of(card: Arc<Card>, paid: PaidStatus) -> Self {
        Self {
            card,
            paid,
            sockets: Vec::new(),
            ghosts: Vec::new(),
            engaged: None,
            accepting: None,
            outgoing: Vec::new(),
            incoming: Vec::new(),
            published: Published::default(),
        }
    }

    /// Connected, or lost so lately that it may come back.
    pub fn is_present(&self) -> bool {
        !self.sockets.is_empty() || !self.ghosts.is_empty()
    }

    /// Whether any connection says the user is here.
    pub fn is_online(&self) -> bool {
        self.stances().any(|stance| stance.online)
    }

    /// In the queue and free.
    pub fn is_available(&self) -> bool {
        self.engaged.is_none() && self.stances().any(|stance| stance.queued)
    }

    /// Free to take part in a call.
    pub fn is_free(&self) -> bool {
        self.engaged.is_none() && self.accepting.is_none()
    }

    /// Whether nothing about this user needs to be remembered.
    pub fn is_idle(&self) -> bool {
        !self.is_present()
            && self.is_free()
            && self.outgoing.is_empty()
            && self.incoming.is_empty()
            && !self.published.online
            && !self.published.available
    }

    /// The connection that must go if there are more than `max`: the oldest, but one that entered the room of the call only
    /// for want of others, and never the newest.
    pub fn surplus(&self, max: usize) -> Option<ConnId> {
        let (_newest, older) = self.sockets.split_last()?;
        let found = older.iter().find(|socket| !socket.entered).or(older.first());
        found.filter(|_| self.sockets.len() > max).map(|socket| socket.conn)
    }

    /// The connection `conn`.
    pub fn socket(&mut self, conn: ConnId) -> Option<&mut Socket> {
        self.sockets.iter_mut().find(|socket| socket.conn == conn)
    }

    /// The user's half of `call`, if that is the call he is in.
    pub fn engaged_in(&mut self, call: CallId) -> Option<&mut Engagement> {
        self.engaged.as_deref_mut().filter(|engaged| engaged.call == call)
    }

    /// Keeps a lost connection's place; of more than `most` the oldest is given up.
    pub fn haunt(&mut self, ghost: Ghost, most: usize) {
        if self.ghosts.len() >= most {
            self.ghosts.remove(0);
        }
        self.ghosts.push(ghost);
    }

    /// Takes the user out of the queue, whoever put him in.
    pub fn leave_queue(&mut self) {
        let sockets = self.sockets.iter_mut().map(|socket| &mut socket.stance);
        sockets.chain(self.ghosts.iter_mut().map(|ghost| &mut ghost.stance)).for_each(|stance| stance.queued = false);
    }

    fn stances(&self) -> impl Iterator<Item = Stance> + '_ {
        let sockets = self.sockets.iter().map(|socket| socket.stance);
        sockets.chain(self.ghosts.iter().map(|ghost| ghost.stance))
    }
}

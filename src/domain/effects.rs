//! What the rules want done. The shell performs each without deciding anything more.

use std::sync::Arc;

use crate::base::{ConnId, UserId};
use crate::message::store::Request;
use crate::message::{Delta, ServerEvent, UserMessage};

/// One thing to do.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Answer the Socket.IO CONNECT: the namespace is open.
    Accept { conn: ConnId },
    /// Answer the Socket.IO CONNECT with a connect error.
    Refuse { conn: ConnId, message: &'static str },
    /// The connection has authenticated: its time to do so no longer runs.
    Bind { conn: ConnId },
    /// The connection belongs to nobody again.
    Unbind { conn: ConnId },
    /// Send one event to one connection.
    Send { conn: ConnId, event: ServerEvent },
    /// Send one event about `user`, encoded once, to many connections. For a reader that is too slow it may be left out,
    /// if [`super::Directory::news`] of that user reaches it later.
    FanOut { conns: Arc<[ConnId]>, user: UserId, event: ServerEvent },
    /// Close the connection after what was sent to it.
    Dismiss { conn: ConnId, why: Dismissal },
    /// Deliver to the home of a user on another shard. Order between two shards is kept.
    Tell { user: UserId, message: UserMessage },
    /// Deliver to all other shards.
    Publish(Arc<[Delta]>),
    /// What is cached of the user is outdated.
    Forget { user: UserId },
    /// His totals are: what is cached of him but for his login.
    ForgetTotals { user: UserId },
    /// Ask the store for a write and hand its reply back as `Input::Stored`. Order is kept.
    Write { ticket: u64, request: Box<Request> },
}

/// Why a connection is told to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dismissal {
    /// A newer login took over (contract 6.8).
    SessionInvalidated,
    /// The account is suspended.
    Banned,
    /// The user opened more connections than allowed; this one makes room.
    TooManyConnections,
}

/// Effects in the order in which they must be performed.
#[derive(Default, Debug)]
pub struct Effects(Vec<Effect>);

impl Effects {
    /// Adds one.
    pub fn push(&mut self, effect: Effect) {
        self.0.push(effect);
    }

    /// Sends `event` to `conn`.
    pub fn send(&mut self, conn: ConnId, event: ServerEvent) {
        self.push(Effect::Send { conn, event });
    }

    /// Tells `conn` that what it asked for is refused.
    pub fn error(&mut self, conn: ConnId, message: &'static str) {
        self.send(conn, ServerEvent::Error { message });
    }

    /// Takes them all out, in order.
    pub fn drain(&mut self) -> std::vec::Drain<'_, Effect> {
        self.0.drain(..)
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

//! Performs what the rules decided, effect by effect. Nothing is decided here.

use std::rc::Rc;

use crate::base::{ConnId, Time};
use crate::conn::{CloseReason, Conn};
use crate::domain::{Dismissal, Effect, Effects, Input};
use crate::message::ServerEvent;
use crate::runtime::spawn_local;

use super::Shard;
use super::contained::shared;
use super::inbox::Envelope;
use super::slots::Entry;

impl Shard {
    /// Hands `input` to the rules and performs what follows.
    pub(super) fn handle(self: &Rc<Self>, input: Input) {
        let now = self.now();
        let mut effects = Effects::default();
        let deadline = shared(|| {
            let mut domain = self.domain.borrow_mut();
            domain.handle(now, input, &mut effects);
            domain.deadline()
        });
        if let Some(at) = deadline {
            self.timers.wake_before(at);
        }
        let mut has_news = false;
        for effect in effects.drain() {
            has_news |= matches!(effect, Effect::FanOut { .. });
            self.apply(now, effect);
        }
        if has_news {
            self.tell();
        }
    }

    /// Sends one event to one connection.
    pub(super) fn send(&self, now: Time, conn: ConnId, event: &ServerEvent) {
        self.counters.sent.add_one(event.index());
        self.on_conn(conn, |conn| conn.send(now, &event.encode()));
    }

    fn apply(self: &Rc<Self>, now: Time, effect: Effect) {
        match effect {
            Effect::Accept { conn } => self.on_conn(conn, |conn| conn.accept_connect(now)),
            Effect::Refuse { conn, message } => self.on_conn(conn, |conn| conn.refuse_connect(now, message)),
            Effect::Bind { conn } => self.on_conn(conn, Conn::bind),
            Effect::Unbind { conn } => self.on_conn(conn, |conn| conn.unbind(now)),
            Effect::Send { conn, event } => self.send(now, conn, &event),
            Effect::FanOut { conns, user, event } => self.note_for(conns, user, &event),
            Effect::Dismiss { conn, why } => self.on_conn(conn, |conn| conn.close(now, why.into())),
            Effect::Tell { user, message } => {
                self.mesh.send(self.placement.home(user), Envelope::User { user, message });
            }
            Effect::Publish(deltas) => {
                for shard in self.placement.all().filter(|shard| *shard != self.id) {
                    self.mesh.send(shard, Envelope::Published(deltas.clone()));
                }
            }
            Effect::Forget { user } => self.stores.forget(user),
            Effect::ForgetTotals { user } => self.stores.forget_profile(user),
            Effect::Write { ticket, request } => {
                let (reply, shard) = (self.stores.ask(*request), self.clone());
                spawn_local(async move {
                    let reply = reply.await.ok();
                    shard.handle(Input::Stored { ticket, reply });
                });
            }
        }
    }

    /// Does something to a connection, if it is still there, and lets its task see to the rest.
    pub(super) fn on_conn(&self, id: ConnId, work: impl FnOnce(&mut Conn)) {
        self.on_entry(id, |entry| work(&mut entry.conn));
    }

    pub(super) fn on_entry(&self, id: ConnId, work: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.slots.borrow_mut().get(id) {
            work(entry);
            entry.wake();
        }
    }
}

impl From<Dismissal> for CloseReason {
    fn from(why: Dismissal) -> Self {
        match why {
            Dismissal::SessionInvalidated => Self::SessionInvalidated,
            Dismissal::Banned => Self::Banned,
            Dismissal::TooManyConnections => Self::TooManyConnections,
        }
    }
}

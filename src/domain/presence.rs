//! Who is here and who is in the queue, and telling every shard of it (contract 3.3, D13, D15).
//!
//! Each connection has a stance of its own; the user's presence is what any of them says. Changes are gathered for
//! [`PUBLISH_TICK_MS`] and published once per user: the newest state always arrives, the steps between may not.

use crate::base::limits::{PRESENCE_INTERVAL_MS, PUBLISH_BATCH_MAX, PUBLISH_TICK_MS};
use crate::base::{ConnId, Time, UserId};
use crate::message::Delta;
use crate::message::server::DeclineReason;

use super::user::{Published, Stance, User};
use super::{Domain, Effect, Effects, Timer};

impl Domain {
    pub(super) fn presence_join(&mut self, now: Time, id: UserId, conn: ConnId) {
        self.set_stance(now, id, conn, Stance { online: true, queued: false });
    }

    pub(super) fn presence_leave(&mut self, now: Time, id: UserId, conn: ConnId, out: &mut Effects) {
        self.set_stance(now, id, conn, Stance::default());
        self.unavailable(id, DeclineReason::Offline, out);
    }

    pub(super) fn queue_join(&mut self, now: Time, id: UserId, conn: ConnId, out: &mut Effects) {
        if !self.may_call(id) {
            return out.error(conn, "Payment required");
        }
        if self.users.get(&id).is_some_and(|user| user.engaged.is_some()) {
            return out.error(conn, "You are in a call");
        }
        self.set_stance(now, id, conn, Stance { online: true, queued: true });
    }

    /// Touches the queue only: a call that has just started goes on (contract 6.6).
    pub(super) fn queue_leave(&mut self, now: Time, id: UserId, conn: ConnId, out: &mut Effects) {
        let Some(online) = self.users.get_mut(&id).and_then(|user| user.socket(conn)).map(|s| s.stance.online) else {
            return;
        };
        self.set_stance(now, id, conn, Stance { online, queued: false });
        self.unavailable(id, DeclineReason::Offline, out);
    }

    fn set_stance(&mut self, now: Time, id: UserId, conn: ConnId, stance: Stance) {
        let Some(socket) = self.users.get_mut(&id).and_then(|user| user.socket(conn)) else { return };
        socket.stance = stance;
        if stance.queued {
            self.directory.watch(conn);
        } else {
            self.directory.unwatch(conn);
        }
        self.dirtied(now, id);
    }

    /// Takes all connections of a user out of the queue: he is in a call now.
    pub(super) fn leave_queue(&mut self, now: Time, id: UserId) {
        let Some(user) = self.users.get_mut(&id) else { return };
        user.leave_queue();
        for socket in &user.sockets {
            self.directory.unwatch(socket.conn);
        }
        self.dirtied(now, id);
    }

    /// Notes that a user's presence may have changed.
    pub(super) fn dirtied(&mut self, now: Time, id: UserId) {
        self.dirty.insert(id);
        self.publish_by(now + PUBLISH_TICK_MS);
    }

    fn publish_by(&mut self, at: Time) {
        if self.publish_at.is_none_or(|earlier| earlier > at) {
            self.publish_at = Some(at);
            self.timers.insert((at, Timer::Publish));
        }
    }

    /// Publishes what has changed, in batches of [`PUBLISH_BATCH_MAX`]; what is throttled waits for its time.
    pub(super) fn publish(&mut self, now: Time, out: &mut Effects) {
        self.publish_at = None;
        let mut deltas = Vec::new();
        for id in std::mem::take(&mut self.dirty) {
            let Some(user) = self.users.get_mut(&id) else { continue };
            match change(now, user) {
                Change::None => {}
                Change::Wait(until) => {
                    self.dirty.insert(id);
                    self.publish_by(until);
                }
                Change::Publish(delta) => deltas.push(delta),
            }
            self.forget_idle(id);
        }
        for batch in deltas.chunks(PUBLISH_BATCH_MAX) {
            self.directory.apply(batch, out);
            if self.placement.count() > 1 {
                out.push(Effect::Publish(batch.into()));
            }
        }
    }
}

enum Change {
    None,
    Wait(Time),
    Publish(Delta),
}

/// What there is to publish of `user`; marks it as published.
fn change(now: Time, user: &mut User) -> Change {
    let (online, available) = (user.is_online(), user.is_available());
    let last = user.published;
    if (online, available) == (last.online, last.available) {
        return Change::None;
    }
    let comes_online = online && !last.online && available == last.available;
    if comes_online
        && let Some(before) = last.online_at
        && now < before + PRESENCE_INTERVAL_MS
    {
        return Change::Wait(before + PRESENCE_INTERVAL_MS);
    }
    let since = if available && !last.available { now } else { last.since };
    let online_at = if online && !last.online { Some(now) } else { last.online_at };
    user.published = Published { online, available, since, online_at };
    Change::Publish(Delta { card: user.card.clone(), online, available, since })
}

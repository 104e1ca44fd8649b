//! Who is here and who is in the queue, and telling every shard of it (contract 3.3, D13, D15).
//!
//! Each connection has a stance of its own; the user's presence is what any of them says. Changes are gathered for
//! [`PUBLISH_TICK_MS`], and longer where many look ([`PUBLISH_VIEWER_US`]), and published once per user: the newest state
//! always arrives, the steps between may not. Who comes again and again is announced at intervals; that he has gone is told at once.

use crate::base::limits::{
    PRESENCE_INTERVAL_MS, PUBLISH_BATCH_MAX, PUBLISH_PAUSE_MAX_MS, PUBLISH_TICK_MS, PUBLISH_VIEWER_US,
    QUEUE_INTERVAL_MS,
};
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

    /// The first change after a pause goes out at once; those that follow wait together, the longer the more people
    /// hear of them.
    fn publish_by(&mut self, at: Time) {
        let viewers = self.directory.viewers() * usize::from(self.placement.count());
        let pause = (viewers as u64 * PUBLISH_VIEWER_US / 1_000).min(PUBLISH_PAUSE_MAX_MS);
        let at = at.max(self.published_at + pause);
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
        if !deltas.is_empty() {
            self.published_at = now;
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
    let (comes_online, joins) = (online && !last.online, available && !last.available);
    let held_until = if joins {
        last.since.map(|before| before + QUEUE_INTERVAL_MS)
    } else if comes_online && available == last.available {
        last.online_at.map(|before| before + PRESENCE_INTERVAL_MS)
    } else {
        None
    };
    if let Some(until) = held_until.filter(|until| now < *until) {
        return Change::Wait(until);
    }
    let since = if joins { Some(now) } else { last.since };
    let online_at = if comes_online { Some(now) } else { last.online_at };
    user.published = Published { online, available, since, online_at };
    Change::Publish(Delta { card: user.card.clone(), online, available, since: since.unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::placement::Placement;
    use crate::base::{Random, ShardId, Token};
    use crate::domain::{Input, Settings};
    use crate::message::model::{AccountType, Login};
    use crate::message::store::Reply;
    use crate::message::{Card, ClientEvent, Gender, PaidStatus, ServerEvent};

    const NOW: Time = Time(1_761_000_000_000);

    /// One shard, and what its viewers heard.
    struct Stage {
        domain: Domain,
        random: Random,
        now: Time,
        conns: u32,
        heard: Vec<(usize, ServerEvent)>,
    }

    impl Stage {
        fn new() -> Self {
            let domain = Domain::new(ShardId(0), Placement::new(1), Settings::default(), Random::from_seed(2));
            Self { domain, random: Random::from_seed(1), now: NOW, conns: 0, heard: Vec::new() }
        }

        fn handle(&mut self, input: Input) {
            let mut out = Effects::default();
            self.domain.handle(self.now, input, &mut out);
            self.heard.extend(out.drain().filter_map(|effect| match effect {
                Effect::FanOut { conns, event, .. } => Some((conns.len(), event)),
                _ => None,
            }));
        }

        /// Somebody new, who is online.
        fn arrive(&mut self) -> (UserId, ConnId) {
            let user_id = UserId::draw(&mut self.random);
            let (name, gender) = ("Ann".to_owned(), Gender::Female);
            let card = Card { user_id, name, gender, selfie_url: None, video_url: None, introduction: None };
            let token = Token::draw(user_id, &mut self.random).hash();
            let (account, paid, expires_at) = (AccountType::Guest, PaidStatus::Paid, NOW + 1_000_000);
            let login = Login { card: card.into(), token, account, paid, banned: false, active: true, expires_at };
            let conn = ConnId { shard: ShardId(0), index: self.conns, generation: 0 };
            self.conns += 1;
            self.handle(Input::Connect { conn, fact: Some(Reply::Session(Some(Box::new(login)))) });
            (user_id, conn)
        }

        fn say(&mut self, conn: ConnId, event: ClientEvent) {
            self.handle(Input::Client { conn, event, fact: None });
        }

        /// Somebody new in the queue.
        fn queued(&mut self) -> (UserId, ConnId) {
            let (user, conn) = self.arrive();
            self.say(conn, ClientEvent::QueueJoin);
            (user, conn)
        }

        /// Lets time pass, and gives what was heard.
        fn pass(&mut self, ms: u64) -> Vec<(usize, ServerEvent)> {
            let until = self.now + ms;
            while let Some(at) = self.domain.deadline().filter(|at| *at <= until) {
                self.now = at;
                self.handle(Input::Tick);
            }
            self.now = until;
            std::mem::take(&mut self.heard)
        }
    }

    #[test]
    fn a_change_is_one_event_for_all_who_look_however_many_they_are() {
        let mut stage = Stage::new();
        let viewers: Vec<_> = (0..1_000).map(|_| stage.queued()).collect();
        for _ in 0..500 {
            stage.arrive();
        }
        stage.pass(200);
        let (user, conn) = stage.queued();
        let update = |available| ServerEvent::QueueUpdate { user, available };
        let (online, available) = (true, true);
        let comes = vec![(1_001, ServerEvent::PresenceUpdate { user, online, available }), (1_001, update(true))];
        assert_eq!(stage.pass(200), comes);
        stage.say(viewers[0].1, ClientEvent::QueueLeave);
        stage.say(conn, ClientEvent::QueueLeave);
        let heard = stage.pass(200);
        assert_eq!(heard.len(), 2);
        assert!(heard.contains(&(999, update(false))), "who has left the queue looks no more");
    }

    #[test]
    fn the_more_people_look_the_longer_changes_wait_for_each_other() {
        let mut stage = Stage::new();
        let viewers: Vec<_> = (0..500).map(|_| stage.queued()).collect();
        stage.pass(5_000);
        for (number, heard) in [(0, 1), (1, 0), (2, 0)] {
            stage.say(viewers[number].1, ClientEvent::QueueLeave);
            assert_eq!(stage.pass(PUBLISH_TICK_MS).len(), heard, "{number}");
        }
        assert_eq!(stage.pass(497 * PUBLISH_VIEWER_US / 1_000).len(), 2);
    }

    #[test]
    fn who_leaves_and_is_back_within_a_tick_is_not_heard_of() {
        let mut stage = Stage::new();
        let (_, conn) = stage.queued();
        stage.pass(5_000);
        for event in [ClientEvent::QueueLeave, ClientEvent::QueueJoin, ClientEvent::QueueLeave, ClientEvent::QueueJoin]
        {
            stage.say(conn, event);
        }
        assert_eq!(stage.pass(5_000), []);
        let (_, passer) = stage.arrive();
        stage.pass(5_000);
        stage.say(passer, ClientEvent::QueueJoin);
        stage.say(passer, ClientEvent::QueueLeave);
        assert_eq!(stage.pass(5_000), []);
    }

    #[test]
    fn who_flaps_is_heard_of_twice_a_second_and_at_last_as_he_is() {
        for (flaps, is_last) in [(1_000, false), (1_001, true)] {
            let mut stage = Stage::new();
            stage.queued();
            let (user, conn) = stage.arrive();
            stage.pass(5_000);
            let mut heard = Vec::new();
            for flap in 0..flaps {
                let event = if flap % 2 == 0 { ClientEvent::QueueJoin } else { ClientEvent::QueueLeave };
                stage.say(conn, event);
                heard.extend(stage.pass(20));
            }
            assert!((20..=42).contains(&heard.len()), "{} in 20 s", heard.len());
            heard.extend(stage.pass(1_000));
            assert_eq!(heard.last().unwrap().1, ServerEvent::QueueUpdate { user, available: is_last });
            assert_eq!(stage.domain.directory().is_available(user), is_last);
        }
    }

    #[test]
    fn that_somebody_has_gone_is_told_at_once() {
        let mut stage = Stage::new();
        stage.queued();
        let (user, conn) = stage.queued();
        stage.pass(PUBLISH_TICK_MS);
        stage.say(conn, ClientEvent::QueueLeave);
        let heard = stage.pass(PUBLISH_TICK_MS);
        assert_eq!(heard.last().unwrap().1, ServerEvent::QueueUpdate { user, available: false });
    }
}

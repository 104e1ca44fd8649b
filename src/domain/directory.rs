//! Everybody who is online, on any shard: a replica that each shard keeps from published changes.
//!
//! So the queue's listing and the fan-out of `presence:update` and `queue:update` never ask another shard. Bounded by
//! the users online. Fan-out reaches only connections that look at the queue themselves (D15, D16).

use std::sync::Arc;

use crate::base::{ConnId, Map, Set, UserId};
use crate::message::{Delta, ServerEvent};

use super::queue::Queue;
use super::{Effect, Effects};

/// The replica, and which local connections watch it.
#[derive(Default)]
pub struct Directory {
    entries: Map<UserId, Entry>,
    /// Of the entries.
    online: usize,
    queue: Queue,
    viewers: Set<ConnId>,
}

struct Entry {
    available: bool,
    online: bool,
}

impl Directory {
    /// Those who are available.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Whether `user` is available.
    pub fn is_available(&self, user: UserId) -> bool {
        self.entries.get(&user).is_some_and(|entry| entry.available)
    }

    /// Whether `user` is online.
    pub fn is_online(&self, user: UserId) -> bool {
        self.entries.get(&user).is_some_and(|entry| entry.online)
    }

    /// How many users are online.
    pub fn online_count(&self) -> usize {
        self.online
    }

    /// How many connections of this shard hear of changes.
    pub(super) fn viewers(&self) -> usize {
        self.viewers.len()
    }

    /// Lets `conn` hear of changes.
    pub fn watch(&mut self, conn: ConnId) {
        self.viewers.insert(conn);
    }

    /// Stops that.
    pub(super) fn unwatch(&mut self, conn: ConnId) {
        self.viewers.remove(&conn);
    }

    /// Whether `conn` hears of changes.
    pub fn is_watched_by(&self, conn: ConnId) -> bool {
        self.viewers.contains(&conn)
    }

    /// What a viewer has to hear who missed changes of `user`; `None` for who is no viewer any more.
    pub fn news(&self, viewer: ConnId, user: UserId) -> Option<ServerEvent> {
        let entry = self.entries.get(&user);
        let (online, available) = entry.map_or((false, false), |entry| (entry.online, entry.available));
        self.is_watched_by(viewer).then_some(ServerEvent::PresenceUpdate { user, online, available })
    }

    /// Takes over published changes and tells the viewers what is new in them.
    pub fn apply(&mut self, deltas: &[Delta], out: &mut Effects) {
        let mut viewers = None::<Arc<[ConnId]>>;
        for delta in deltas {
            let user = delta.card.user_id;
            let (was_online, was_available) = self.replace(delta);
            let mut announce = |event| {
                let conns = viewers.get_or_insert_with(|| self.viewers.iter().copied().collect()).clone();
                if !conns.is_empty() {
                    out.push(Effect::FanOut { conns, user, event });
                }
            };
            if was_online != delta.online {
                announce(ServerEvent::PresenceUpdate { user, online: delta.online, available: delta.available });
            }
            if was_available != delta.available && (delta.online || was_online == delta.online) {
                announce(ServerEvent::QueueUpdate { user, available: delta.available });
            }
        }
    }

    /// Stores the new state and returns the old.
    fn replace(&mut self, delta: &Delta) -> (bool, bool) {
        let user = delta.card.user_id;
        let old = self.entries.remove(&user);
        self.online -= usize::from(old.as_ref().is_some_and(|old| old.online));
        self.online += usize::from(delta.online);
        if delta.available {
            self.queue.put(delta.since, &delta.card);
        } else {
            self.queue.remove(user);
        }
        if delta.online || delta.available {
            let entry = Entry { available: delta.available, online: delta.online };
            self.entries.insert(user, entry);
        }
        old.map_or((false, false), |old| (old.online, old.available))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Random, ShardId, Time};
    use crate::message::{Card, Gender};

    fn card(random: &mut Random) -> Arc<Card> {
        let (user_id, name) = (UserId::draw(random), "Ann".to_owned());
        Arc::new(Card { user_id, name, gender: Gender::Female, selfie_url: None, video_url: None, introduction: None })
    }

    fn heard(directory: &mut Directory, card: &Arc<Card>, online: bool, available: bool) -> Vec<&'static str> {
        let mut out = Effects::default();
        directory.apply(&[Delta { card: card.clone(), online, available, since: Time(1) }], &mut out);
        let name = |effect| match effect {
            Effect::FanOut { event, .. } => event.name(),
            other => panic!("{other:?}"),
        };
        out.drain().map(name).collect()
    }

    #[test]
    fn viewers_hear_each_change_once() {
        let (mut directory, card) = (Directory::default(), card(&mut Random::from_seed(1)));
        directory.watch(ConnId { shard: ShardId(0), index: 0, generation: 0 });
        assert_eq!(heard(&mut directory, &card, true, false), ["presence:update"]);
        assert_eq!(heard(&mut directory, &card, true, true), ["queue:update"]);
        assert_eq!(heard(&mut directory, &card, true, true), [""; 0]);
        assert_eq!(heard(&mut directory, &card, false, false), ["presence:update"]);
        assert_eq!(heard(&mut directory, &card, true, true), ["presence:update", "queue:update"]);
        assert_eq!((directory.queue().people().count(), directory.online_count()), (1, 1));
        let conn = |index| ConnId { shard: ShardId(0), index, generation: 0 };
        let newest = ServerEvent::PresenceUpdate { user: card.user_id, online: true, available: true };
        assert_eq!(
            (directory.news(conn(0), card.user_id), directory.news(conn(1), card.user_id)),
            (Some(newest), None)
        );
        heard(&mut directory, &card, false, false);
        assert_eq!((directory.queue().people().count(), directory.entries.len()), (0, 0));
    }
}

//! Changes of presence and queue for clients that read slowly: left out while something waits for them, then the newest
//! state of everybody in turn, as fast as they read.
//!
//! A client owns a number, of the first change that it has not heard; the changes themselves are the shard's, once for
//! all. Bounds: [`DIFFS_BACKLOG_BYTES_MAX`] per client, [`CHANGES_KEPT`] changes per shard; who is further behind than that
//! does not hear the older ones, and finds in the queue's listing how things stand. What else is sent to a client is never
//! left out: it fills the outbox, up to its bound.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use bytes::Bytes;

use crate::base::limits::{CHANGES_KEPT, DIFFS_BACKLOG_BYTES_MAX};
use crate::base::{ConnId, Map, Time, UserId};
use crate::conn::Batch;
use crate::domain::directory::Directory;

use super::slots::Entry;

/// Whose presence changed last, in order.
pub struct Changes {
    users: VecDeque<UserId>,
    /// The number of the first of them; they are counted from 1.
    first: u64,
    /// The number of each one's newest.
    newest: Map<UserId, u64>,
}

/// How far a client has heard.
#[derive(Default)]
pub struct Heard {
    /// The number of the first change that it has not, among those that were for it.
    next: u64,
    /// That one was left out, and those that follow are.
    is_behind: bool,
}

/// What became of a change for one client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    Sent,
    /// Later, when it has read what waits.
    Spared,
    /// It has caught up with this one already.
    Before,
}

impl Default for Changes {
    fn default() -> Self {
        Self { users: VecDeque::new(), first: 1, newest: Map::default() }
    }
}

impl Changes {
    /// Notes one more, and gives its number.
    pub fn note(&mut self, user: UserId) -> u64 {
        if self.users.len() == CHANGES_KEPT
            && let Some(oldest) = self.users.pop_front()
        {
            if self.newest.get(&oldest) == Some(&self.first) {
                self.newest.remove(&oldest);
            }
            self.first += 1;
        }
        let number = self.end();
        self.users.push_back(user);
        self.newest.insert(user, number);
        number
    }

    fn end(&self) -> u64 {
        self.first + self.users.len() as u64
    }

    /// The user of this change, unless he has changed again since.
    fn newest(&self, number: u64) -> Option<UserId> {
        let user = *self.users.get(usize::try_from(number.checked_sub(self.first)?).ok()?)?;
        (self.newest.get(&user) == Some(&number)).then_some(user)
    }
}

impl Entry {
    /// Sends the change of this number, already encoded, unless much waits for the client.
    pub fn send_diff(&mut self, now: Time, number: u64, encoded: &Bytes) -> Told {
        if number < self.heard.next {
            return Told::Before;
        }
        if self.heard.is_behind || self.conn.waiting_bytes() >= DIFFS_BACKLOG_BYTES_MAX {
            self.miss(number);
            return Told::Spared;
        }
        self.conn.send(now, encoded);
        self.heard.next = number + 1;
        Told::Sent
    }

    /// Sends the changes of these numbers as one, if that is all the same to the client: it has heard none of them and
    /// everything before, and reads what it is sent. False if it has to be told one by one.
    pub fn send_diffs(&mut self, now: Time, numbers: RangeInclusive<u64>, batch: &Batch) -> bool {
        let waiting = self.conn.waiting_bytes();
        let fits = waiting == 0 || waiting + batch.bytes_max() <= DIFFS_BACKLOG_BYTES_MAX;
        let is_next = !self.heard.is_behind && self.heard.next <= *numbers.start();
        let is_sent = is_next && fits && self.conn.send_batch(now, batch);
        if is_sent {
            self.heard.next = numbers.end() + 1;
        }
        is_sent
    }

    /// Leaves out the change of this number and, until it has caught up, those after.
    pub fn miss(&mut self, number: u64) {
        if !self.heard.is_behind {
            self.heard = Heard { next: self.heard.next.max(number), is_behind: true };
        }
    }

    /// Sends of what was missed as much as may wait, once the client has read what had been waiting; tells how many events
    /// that were. When that is written at once there may be more.
    pub fn catch_up(&mut self, now: Time, id: ConnId, directory: &Directory, changes: &Changes) -> u64 {
        let mut sent = 0;
        if self.conn.waiting_bytes() > 0 {
            return sent;
        }
        let mut number = self.heard.next.max(changes.first);
        while number < changes.end() && self.conn.waiting_bytes() < DIFFS_BACKLOG_BYTES_MAX {
            if let Some(news) = changes.newest(number).and_then(|user| directory.news(id, user)) {
                self.conn.send(now, &news.encode());
                sent += 1;
            }
            number += 1;
        }
        self.heard = Heard { next: number, is_behind: number < changes.end() };
        sent
    }

    /// Whether there is something to catch up with.
    pub fn has_missed(&self) -> bool {
        self.heard.is_behind
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;

    use super::*;
    use crate::base::{Random, ShardId};
    use crate::conn::{Conn, Output, Settings};
    use crate::message::{Card, Delta, Gender, ServerEvent};
    use crate::shard::slots::Slots;

    const NOW: Time = Time(1);

    /// A client of `/ws` that has authenticated as far as its connection knows.
    fn connected() -> Conn {
        let mut conn = Conn::new(NOW, Arc::new(Settings::default()), IpAddr::V4(Ipv4Addr::LOCALHOST), [0; 16]);
        let mut head = *b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        conn.receive(NOW, &mut head);
        assert!(matches!(conn.poll(), Some(Output::Connect { token: None })));
        conn.accept_connect(NOW);
        read(&mut conn);
        conn
    }

    /// The client reads what waits; gives the number of frames.
    fn read(conn: &mut Conn) -> usize {
        let chunks = std::mem::take(conn.chunks());
        chunks.iter().for_each(|chunk| conn.written(chunk.len()));
        chunks.len()
    }

    /// A client who looks, and a directory in which somebody is online.
    fn stage(user_id: UserId) -> (Slots, ConnId, Directory) {
        let (mut slots, mut directory) = (Slots::new(ShardId(0)), Directory::default());
        let id = slots.insert(connected(), None, None);
        directory.watch(id);
        let name = "Ann".to_owned();
        let card =
            Card { user_id, name, gender: Gender::Female, selfie_url: None, video_url: None, introduction: None };
        let delta = Delta { card: Arc::new(card), online: true, available: true, since: NOW };
        directory.apply(&[delta], &mut Default::default());
        (slots, id, directory)
    }

    /// Catches up until nothing is left; gives the messages.
    fn catch_up(entry: &mut Entry, id: ConnId, directory: &Directory, changes: &Changes) -> Vec<Bytes> {
        let mut heard = Vec::new();
        while entry.has_missed() {
            entry.catch_up(NOW, id, directory, changes);
            assert!(entry.conn.waiting_bytes() < DIFFS_BACKLOG_BYTES_MAX + 200);
            heard.extend(entry.conn.chunks().iter().cloned());
            read(&mut entry.conn);
        }
        heard
    }

    #[test]
    fn a_slow_reader_hears_the_newest_state_of_everybody_once() {
        let mut random = Random::from_seed(1);
        let users: Vec<UserId> = (0..500).map(|_| UserId::draw(&mut random)).collect();
        let (mut slots, id, directory) = stage(users[0]);
        let (entry, mut changes) = (slots.get(id).unwrap(), Changes::default());
        for _ in 0..10 {
            for user in &users {
                let encoded = ServerEvent::QueueUpdate { user: *user, available: true }.encode();
                entry.send_diff(NOW, changes.note(*user), &encoded);
            }
        }
        assert!(entry.has_missed() && entry.conn.waiting_bytes() < DIFFS_BACKLOG_BYTES_MAX + 200);
        entry.catch_up(NOW, id, &directory, &changes);
        assert!(entry.has_missed(), "first it has to read");
        read(&mut entry.conn);
        let heard = catch_up(entry, id, &directory, &changes);
        let newest = |online| heard.iter().filter(|text| text.ends_with(online)).count();
        assert_eq!((newest(b"true,\"available\":true}]"), newest(b"false,\"available\":false}]")), (1, 499));
        let number = changes.note(users[0]);
        assert_eq!(entry.send_diff(NOW, number, &Bytes::from_static(b"[1]")), Told::Sent);
    }

    #[test]
    fn changes_are_told_together_to_who_reads_and_has_heard_all_before() {
        let mut random = Random::from_seed(3);
        let user = UserId::draw(&mut random);
        let mut batch = Batch::default();
        (0..3).for_each(|_| batch.push(ServerEvent::QueueUpdate { user, available: true }.encode()));
        let stage = || stage(user);
        let tell = |entry: &mut Entry, numbers, batch: &Batch| {
            let is_sent = entry.send_diffs(NOW, numbers, batch);
            assert_eq!(is_sent, read(&mut entry.conn) > 0);
            is_sent
        };
        let (mut slots, id, _) = stage();
        let entry = slots.get(id).unwrap();
        assert!(tell(entry, 1..=3, &batch) && tell(entry, 6..=8, &batch));
        assert!(!tell(entry, 8..=10, &batch), "it has heard the first of them");
        assert_eq!(entry.send_diff(NOW, 8, &batch.events()[0]), Told::Before);
        entry.miss(9);
        assert!(!tell(entry, 10..=12, &batch), "it is behind");

        let (mut slots, id, _) = stage();
        let entry = slots.get(id).unwrap();
        let rounds = (1..).step_by(3).take_while(|first| entry.send_diffs(NOW, *first..=first + 2, &batch)).count();
        assert!(rounds > 1 && !entry.has_missed());
        let room = DIFFS_BACKLOG_BYTES_MAX - entry.conn.waiting_bytes();
        assert!(room < batch.bytes_max(), "{room} bytes after {rounds} rounds");
        read(&mut entry.conn);
        let mut large = Batch::default();
        (0..10).for_each(|_| large.push(Bytes::from(vec![b' '; 1_000])));
        assert!(large.bytes_max() > DIFFS_BACKLOG_BYTES_MAX && tell(entry, 1_000..=1_009, &large), "nothing waits");
    }

    #[test]
    fn what_a_client_misses_costs_a_number_and_the_oldest_is_forgotten() {
        assert_eq!(size_of::<Heard>(), 16);
        let mut random = Random::from_seed(2);
        let (mut slots, id, directory) = stage(UserId::draw(&mut random));
        let (entry, mut changes) = (slots.get(id).unwrap(), Changes::default());
        let diff = Bytes::from(vec![b' '; 1_000]);
        for _ in 0..3 * CHANGES_KEPT {
            entry.send_diff(NOW, changes.note(UserId::draw(&mut random)), &diff);
        }
        assert!(entry.conn.is_socket(), "it is not closed for that");
        assert_eq!((changes.users.len(), changes.newest.len()), (CHANGES_KEPT, CHANGES_KEPT));
        read(&mut entry.conn);
        assert_eq!(catch_up(entry, id, &directory, &changes).len(), CHANGES_KEPT);
    }
}

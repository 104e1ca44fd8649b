//! Changes of presence and queue for clients that read slowly: left out while much waits for them, then the newest state.
//!
//! Bound: [`DIFFS_MISSED_MAX`] users per connection; who has missed more, and still does not read, is closed. What else
//! is sent to a client is never left out: it fills the outbox, up to its bound.

use bytes::Bytes;

use crate::base::limits::{DIFFS_BACKLOG_BYTES_MAX, DIFFS_MISSED_MAX};
use crate::base::{ConnId, Set, Time, UserId};
use crate::conn::CloseReason;
use crate::domain::directory::Directory;

use super::slots::Entry;

/// Users of whom a client has not heard the newest; owns nothing while there are none.
#[derive(Default)]
pub struct Missed(Option<Box<Set<UserId>>>);

impl Entry {
    /// Sends a change of `user`, already encoded; later, and then it is false, if too much waits for the client already.
    pub fn send_diff(&mut self, now: Time, user: UserId, encoded: &Bytes) -> bool {
        if self.conn.waiting_bytes() < DIFFS_BACKLOG_BYTES_MAX && !self.has_missed() {
            self.conn.send(now, encoded);
            return true;
        }
        let missed = self.missed.0.get_or_insert_default();
        missed.insert(user);
        if missed.len() > DIFFS_MISSED_MAX {
            self.conn.close(now, CloseReason::SlowReader);
        }
        false
    }

    /// Sends what was missed, once the client has read what had been waiting; tells how many events that were.
    pub fn catch_up(&mut self, now: Time, id: ConnId, directory: &Directory) -> u64 {
        let mut sent = 0;
        if self.conn.waiting_bytes() > 0 {
            return sent;
        }
        for user in self.missed.0.take().into_iter().flat_map(|users| *users) {
            if let Some(news) = directory.news(id, user) {
                self.conn.send(now, &news.encode());
                sent += 1;
            }
        }
        sent
    }

    /// Whether there is something to catch up with.
    pub fn has_missed(&self) -> bool {
        self.missed.0.is_some()
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

    #[test]
    fn a_slow_reader_hears_the_newest_state_of_everybody_once() {
        let mut random = Random::from_seed(1);
        let (mut slots, mut directory) = (Slots::new(ShardId(0)), Directory::default());
        let id = slots.insert(connected(), None, None);
        let entry = slots.get(id).unwrap();
        directory.watch(id);
        let users: Vec<UserId> = (0..50).map(|_| UserId::draw(&mut random)).collect();
        let diff = |user| ServerEvent::QueueUpdate { user, available: true }.encode();
        for _ in 0..200 {
            for user in &users {
                entry.send_diff(NOW, *user, &diff(*user));
            }
        }
        assert!(entry.has_missed() && entry.conn.waiting_bytes() < DIFFS_BACKLOG_BYTES_MAX + 200);
        entry.catch_up(NOW, id, &directory);
        assert!(entry.has_missed(), "first it has to read");
        let (user_id, name) = (users[0], "Ann".to_owned());
        let card =
            Card { user_id, name, gender: Gender::Female, selfie_url: None, video_url: None, introduction: None };
        let delta = Delta { card: Arc::new(card), online: true, available: true, since: NOW };
        directory.apply(&[delta], &mut Default::default());
        read(&mut entry.conn);
        entry.catch_up(NOW, id, &directory);
        let said: Vec<Bytes> = entry.conn.chunks().iter().cloned().collect();
        let newest = |online| said.iter().filter(|frame| frame.ends_with(online)).count();
        assert_eq!((newest(b"true,\"available\":true}]"), newest(b"false,\"available\":false}]")), (1, 49));
        assert_eq!((read(&mut entry.conn), entry.has_missed()), (50, false));
        entry.send_diff(NOW, users[0], &diff(users[0]));
        assert_eq!(read(&mut entry.conn), 1);
    }

    #[test]
    fn who_misses_too_many_is_closed() {
        let mut random = Random::from_seed(2);
        let mut slots = Slots::new(ShardId(0));
        let id = slots.insert(connected(), None, None);
        let entry = slots.get(id).unwrap();
        let diff = Bytes::from(vec![b' '; 1_000]);
        let mut sent = 0;
        while entry.conn.is_socket() {
            entry.send_diff(NOW, UserId::draw(&mut random), &diff);
            sent += 1;
        }
        assert_eq!(sent, DIFFS_MISSED_MAX + 1 + DIFFS_BACKLOG_BYTES_MAX.div_ceil(1_004));
        let last = std::iter::from_fn(|| entry.conn.poll()).last();
        assert!(matches!(last, Some(Output::Close(CloseReason::SlowReader))));
    }
}

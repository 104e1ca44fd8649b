//! The connections of a shard, found by [`ConnId`]. Bounded by the connection limit at accept.

use std::task::Waker;

use crate::base::{ConnId, ShardId, Time};
use crate::conn::{Conn, Transport};

use super::admission::Counted;
use super::diffs::Heard;
use super::polling::Session;

/// Slots in use and free ones; a freed slot's next connection has the next generation.
pub struct Slots {
    shard: ShardId,
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    entry: Option<Box<Entry>>,
}

/// One connection and what its task shares with the rest of the shard.
pub struct Entry {
    pub conn: Conn,
    /// Wakes the connection's task.
    pub waker: Option<Waker>,
    /// For when a timer is set.
    pub timer_at: Option<Time>,
    /// Of an Engine.IO session that began by polling.
    pub session: Option<Box<Session>>,
    pub heard: Heard,
    pub counted: Counted,
    /// As it was counted last.
    pub transport: Transport,
}

impl Slots {
    /// No connection yet.
    pub fn new(shard: ShardId) -> Self {
        Self { shard, slots: Vec::new(), free: Vec::new() }
    }

    /// Gives the connection a slot.
    pub fn insert(&mut self, conn: Conn, session: Option<Session>, counted: Counted) -> ConnId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("connections fit 32 bits")
        });
        let slot = &mut self.slots[index as usize];
        assert!(slot.entry.is_none(), "a free slot is empty");
        let transport = conn.transport().unwrap_or(Transport::Http);
        slot.entry = Some(Box::new(Entry {
            conn,
            transport,
            waker: None,
            timer_at: None,
            session: session.map(Box::new),
            heard: Heard::default(),
            counted,
        }));
        ConnId { shard: self.shard, index, generation: slot.generation }
    }

    /// The connection, unless it is gone.
    pub fn get(&mut self, id: ConnId) -> Option<&mut Entry> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if id.shard != self.shard || id.generation != slot.generation {
            return None;
        }
        slot.entry.as_deref_mut()
    }

    /// Takes the connection out and frees its slot.
    pub fn remove(&mut self, id: ConnId) -> Option<Box<Entry>> {
        self.get(id)?;
        let slot = &mut self.slots[id.index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.index);
        slot.entry.take()
    }

    /// Every connection.
    pub fn ids(&self) -> Vec<ConnId> {
        let id = |(index, slot): (usize, &Slot)| {
            let (shard, generation) = (self.shard, slot.generation);
            slot.entry.as_ref().map(|_| ConnId { shard, index: index as u32, generation })
        };
        self.slots.iter().enumerate().filter_map(id).collect()
    }

    /// Connections that speak a socket protocol.
    pub fn sockets(&self) -> usize {
        self.slots.iter().filter_map(|slot| slot.entry.as_ref()).filter(|entry| entry.conn.is_socket()).count()
    }

    /// All that have a slot.
    pub fn entries(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.slots.iter_mut().filter_map(|slot| slot.entry.as_deref_mut())
    }

    /// Every connection there is.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

impl Entry {
    /// Lets the connection's task look at what was done to it.
    pub fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

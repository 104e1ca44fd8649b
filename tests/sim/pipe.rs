//! The network between a client and the server: a stream of bytes each way, in order, cut at any point.
//!
//! It can be reset, fall silent (both ends think it lives), or carry nothing downwards for a while because the client
//! does not read.

use std::collections::VecDeque;

use duet::base::{ConnId, Time, UserId};

use crate::world::{Event, World};

/// What comes out of a stream.
pub enum Chunk {
    Bytes(Vec<u8>),
    End,
}

/// One transport connection.
pub struct Pipe {
    pub client: usize,
    /// The server's end; `None` while it moves between shards and after it closed.
    pub server: Option<ConnId>,
    /// Arrived at the server, not yet read.
    pub unread: VecDeque<Chunk>,
    pub client_open: bool,
    pub silent: bool,
    /// Whom the client claimed to be on it, the present one last.
    pub users: Vec<UserId>,
    /// Whether anything was ever wrong with it.
    pub healthy: bool,
    slow_until: Time,
    up_at: Time,
    down_at: Time,
}

impl World {
    /// Opens a connection to some shard.
    pub fn open(&mut self, client: usize) -> usize {
        let (pipe, now) = (self.pipes.len(), self.now);
        self.pipes.push(Pipe {
            client,
            server: None,
            unread: VecDeque::new(),
            client_open: true,
            silent: false,
            users: vec![self.clients[client].user],
            healthy: true,
            slow_until: now,
            up_at: now,
            down_at: now,
        });
        let at = self.random.below(self.shards.len() as u64) as usize;
        self.accept(at, pipe);
        self.oracle.steady_lost(self.clients[client].user);
        pipe
    }

    /// Bytes from the client, cut in pieces.
    pub fn send_up(&mut self, pipe: usize, bytes: &[u8]) {
        let mut rest = bytes;
        while rest.len() > 1 && self.random.one_in(4) {
            let cut = 1 + self.random.below(rest.len() as u64 - 1) as usize;
            self.counts.fault("read split");
            self.schedule_up(pipe, Chunk::Bytes(rest[..cut].to_vec()));
            rest = &rest[cut..];
        }
        self.schedule_up(pipe, Chunk::Bytes(rest.to_vec()));
    }

    fn schedule_up(&mut self, pipe: usize, chunk: Chunk) {
        let delay = 1 + self.random.below(40);
        let way = &mut self.pipes[pipe];
        way.up_at = way.up_at.max(self.now + delay);
        let at = way.up_at;
        self.schedule(at, Event::Up(pipe, chunk));
    }

    /// A chunk has reached the server.
    pub fn arrive_up(&mut self, pipe: usize, chunk: Chunk) {
        let way = &mut self.pipes[pipe];
        if way.silent {
            return;
        }
        way.unread.push_back(chunk);
        if let Some(id) = way.server {
            self.drive(id);
        }
    }

    /// Bytes from the server.
    pub fn send_down(&mut self, pipe: usize, chunk: Chunk) {
        let delay = 1 + self.random.below(40);
        let way = &mut self.pipes[pipe];
        way.down_at = way.down_at.max(self.now + delay).max(way.slow_until);
        let at = way.down_at;
        self.schedule(at, Event::Down(pipe, chunk));
    }

    /// A chunk has reached the client.
    pub fn arrive_down(&mut self, pipe: usize, chunk: Chunk) {
        if self.pipes[pipe].silent {
            return;
        }
        match chunk {
            Chunk::Bytes(bytes) => {
                if let Some(id) = self.pipes[pipe].server
                    && let Some(entry) = self.shards[usize::from(id.shard.0)].entry(id)
                {
                    entry.conn.written(bytes.len());
                }
                if self.pipes[pipe].client_open {
                    self.client_receives(pipe, &bytes);
                }
            }
            Chunk::End => self.client_ended(pipe),
        }
    }

    /// The client's end goes away; the server learns it, unless the line is silent.
    pub fn hang_up(&mut self, pipe: usize) {
        self.pipes[pipe].client_open = false;
        self.schedule_up(pipe, Chunk::End);
        let user = self.clients[self.pipes[pipe].client].user;
        self.oracle.steady_lost(user);
    }

    /// Nothing passes any more, and neither end is told.
    pub fn fall_silent(&mut self, pipe: usize) {
        self.pipes[pipe].silent = true;
        self.spoil(pipe);
    }

    /// The client does not read for a while.
    pub fn stop_reading(&mut self, pipe: usize) {
        self.pipes[pipe].slow_until = self.now + 1_000 + self.random.below(20_000);
        self.spoil(pipe);
    }

    fn spoil(&mut self, pipe: usize) {
        self.pipes[pipe].healthy = false;
        let user = self.clients[self.pipes[pipe].client].user;
        self.oracle.steady_lost(user);
    }
}

//! The floor on readiness: a TCP echo on one epoll and one thread, with no protocol at all.
//!
//! Level-triggered, so that a message costs one receive and one send. A client that does not read is not read from
//! until it does: its unsent rest is all that is kept of it.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send};
use slab::Slab;

const BUFFER: usize = 64 * 1024;
const EVENTS: usize = 1024;
const LISTENER: u64 = u64::MAX;

struct Connection {
    socket: OwnedFd,
    unsent: Vec<u8>,
}

struct Server {
    epoll: OwnedFd,
    listener: TcpListener,
    connections: Slab<Connection>,
    buffer: Box<[u8]>,
}

fn main() -> io::Result<()> {
    let server = Server {
        epoll: epoll::create(CreateFlags::CLOEXEC)?,
        listener: duet_peers::listen()?,
        connections: Slab::new(),
        buffer: vec![0; BUFFER].into_boxed_slice(),
    };
    server.run()
}

impl Server {
    fn run(mut self) -> io::Result<()> {
        epoll::add(&self.epoll, &self.listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                match event.data.u64() {
                    LISTENER => self.accept()?,
                    key => self.serve(key as usize),
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let socket = match accept_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::CONNABORTED | Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let entry = self.connections.vacant_entry();
            epoll::add(&self.epoll, &socket, EventData::new_u64(entry.key() as u64), EventFlags::IN)?;
            entry.insert(Connection { socket, unsent: Vec::new() });
        }
    }

    /// Echoes what there is; whatever goes wrong ends the connection, and closing it takes it off the epoll.
    fn serve(&mut self, key: usize) {
        let connection = &mut self.connections[key];
        let interest = match connection.echo(&mut self.buffer) {
            Ok(None) => return,
            Ok(Some(interest)) => interest,
            Err(_) => return drop(self.connections.remove(key)),
        };
        if epoll::modify(&self.epoll, &connection.socket, EventData::new_u64(key as u64), interest).is_err() {
            self.connections.remove(key);
        }
    }
}

impl Connection {
    /// What to wait for from now on, if that changes.
    fn echo(&mut self, buffer: &mut [u8]) -> Result<Option<EventFlags>, Errno> {
        if !self.unsent.is_empty() {
            let sent = tried(send(&self.socket, &self.unsent, SendFlags::NOSIGNAL))?;
            self.unsent.drain(..sent);
            return Ok(self.unsent.is_empty().then_some(EventFlags::IN));
        }
        let (received, _) = match recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
            Ok((0, _)) => return Err(Errno::PIPE),
            Err(Errno::AGAIN) => return Ok(None),
            received => received?,
        };
        let sent = tried(send(&self.socket, &buffer[..received], SendFlags::NOSIGNAL))?;
        self.unsent.extend_from_slice(&buffer[sent..received]);
        Ok((!self.unsent.is_empty()).then_some(EventFlags::OUT))
    }
}

/// A socket that takes nothing now has taken nothing.
fn tried(sent: Result<usize, Errno>) -> Result<usize, Errno> {
    if sent == Err(Errno::AGAIN) { Ok(0) } else { sent }
}

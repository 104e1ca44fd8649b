//! The load generator: thousands of clients on one thread, woken by one epoll.
//!
//! A scenario is a [`Handler`]: it is called with what happens and answers by calling [`Net`]. Everything it sends in one
//! call goes to the kernel in one write per connection. Connections share one read buffer; one costs its kernel objects
//! and less than 1 KiB. Where latency is measured the load is an open loop ([`Schedule`]); how late the generator itself
//! was is counted in [`Net::lateness`].
//!
//! Not here: what is sent and what it means; that is the scenarios'.

mod connection;
mod deflate;
mod frame;
mod http;
mod schedule;
mod socket;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::io;
use std::mem;
use std::net::Ipv4Addr;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};

use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::thread::set_current_timer_slack;

pub use connection::Speaks;
pub use deflate::{Deflater, STAMP_LENGTH, Template, stamp, stamp_after};
pub use http::{Request, Response};
pub use schedule::Schedule;

use crate::clock::{Nanos, now};
use crate::latency::histogram;
use connection::{Connection, Item, Scratch};
use frame::Masks;

/// The one buffer that everything is read into, bytes.
const READ_BYTES: usize = 256 * 1024;
/// Readiness taken from the kernel at a time.
const EVENTS_MAX: usize = 512;
/// Intentions that are sent before the next look at what has come.
const DUE_AT_ONCE: usize = 32;
/// Connections per source address: well below the 28,000 ports that Linux gives out.
const CONNECTIONS_PER_ADDRESS: u32 = 10_000;

/// Names one connection. A late use of one that is gone does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Id {
    slot: u32,
    generation: u32,
    /// The scenario's own number for it, as given to [`Net::open`].
    pub tag: u32,
}

/// A connection to be opened to 127.0.0.1. Its source is an address of 127.0.0.0/8 that the generator chooses.
#[derive(Debug, Clone)]
pub struct Dial {
    pub port: u16,
    pub speaks: Speaks,
    /// Whether permessage-deflate is offered as browsers do.
    pub offers_deflate: bool,
    pub tag: u32,
}

/// Why a connection is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The server answered no upgrade but this status.
    Status(u16),
    /// The server refused the Socket.IO handshake, or said goodbye.
    Refused,
    /// The server closed the WebSocket with this code.
    Closed(u16),
    /// The server ended the connection.
    Ended,
    /// The kernel said so.
    Io(Errno),
    /// This is not what the protocol allows.
    Protocol(&'static str),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "answered {status} instead of an upgrade"),
            Self::Refused => f.write_str("refused by Socket.IO"),
            Self::Closed(code) => write!(f, "closed with code {code}"),
            Self::Ended => f.write_str("ended by the server"),
            Self::Io(errno) => write!(f, "{errno}"),
            Self::Protocol(what) => write!(f, "not understood: {what}"),
        }
    }
}

/// A scenario's side of the load. What is not overridden is ignored.
pub trait Handler {
    /// The connection may be used: of Socket.IO the handshake is over, of HTTP the connection is made.
    fn opened(&mut self, _net: &mut Net, _id: Id) {}
    /// A message: of Socket.IO the JSON array of an event, of `Speaks::Records` one record.
    fn message(&mut self, _net: &mut Net, _id: Id, _message: &[u8]) {}
    fn response(&mut self, _net: &mut Net, _id: Id, _response: &Response<'_>) {}
    /// The connection is gone, and was not closed by the scenario.
    fn closed(&mut self, _net: &mut Net, _id: Id, _failure: Failure) {}
    /// What [`Net::after`] was told.
    fn timer(&mut self, _net: &mut Net, _key: u64) {}
    /// The schedule's next message is to be sent now; it was meant to be sent at `intended`.
    fn due(&mut self, _net: &mut Net, _number: u64, _intended: Nanos) {}
    /// [`Net::run`] returns when this is true.
    fn is_done(&self) -> bool {
        false
    }
}

/// What went through the generator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Heartbeats answered.
    pub heartbeats: u64,
}

impl Traffic {
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            bytes_in: self.bytes_in - earlier.bytes_in,
            bytes_out: self.bytes_out - earlier.bytes_out,
            heartbeats: self.heartbeats - earlier.heartbeats,
        }
    }
}

/// One slot: its generation, and the connection while there is one.
type Slot = (u32, Option<Connection>);

/// The connections and what they wait for.
///
/// `epoll` is edge-triggered: every connection is registered once, for everything.
pub struct Net {
    epoll: OwnedFd,
    slots: Vec<Slot>,
    free: Vec<u32>,
    events: Vec<epoll::Event>,
    /// Lent to whoever handles what was read.
    buffer: Vec<u8>,
    scratch: Scratch,
    masks: Masks,
    deflater: Deflater,
    dirty: Vec<u32>,
    /// Those that ended while something was written to them.
    broken: Vec<(Id, Failure)>,
    timers: BinaryHeap<Reverse<(Nanos, u64, u64)>>,
    timers_made: u64,
    dialled: u32,
    /// The open loop's, if there is one.
    pub schedule: Option<Schedule>,
    /// From the intention to the end of the write, ns.
    pub lateness: Histogram<u64>,
    pub traffic: Traffic,
}

impl Net {
    /// Fails without epoll or entropy.
    pub fn new() -> io::Result<Self> {
        // The default of 50 us would be most of the lateness.
        set_current_timer_slack(NonZeroU64::new(1))?;
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            slots: Vec::new(),
            free: Vec::new(),
            events: Vec::with_capacity(EVENTS_MAX),
            buffer: vec![0; READ_BYTES],
            scratch: Scratch::default(),
            masks: Masks::new().map_err(io::Error::other)?,
            deflater: Deflater::new(),
            dirty: Vec::new(),
            broken: Vec::new(),
            timers: BinaryHeap::new(),
            timers_made: 0,
            dialled: 0,
            schedule: None,
            lateness: histogram(),
            traffic: Traffic::default(),
        })
    }

    /// Begins to open a connection; `opened` or `closed` follows. Source addresses take turns, so that ports suffice.
    ///
    /// # Errors
    /// No descriptor or no port is left.
    pub fn open(&mut self, dial: Dial) -> io::Result<Id> {
        let network = self.dialled / CONNECTIONS_PER_ADDRESS;
        self.dialled += 1;
        let source = Ipv4Addr::new(127, 0, 1 + (network / 250 % 250) as u8, 1 + (network % 250) as u8);
        let fd = socket::connect(source, dial.port)?;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            (self.slots.len() - 1) as u32
        });
        let id = Id { slot, generation: self.slots[slot as usize].0, tag: dial.tag };
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        let key = u64::from(id.generation) << 32 | u64::from(slot);
        epoll::add(&self.epoll, fd.as_fd(), epoll::EventData::new_u64(key), flags)?;
        self.slots[slot as usize].1 = Some(Connection::new(fd, id, dial.speaks, dial.offers_deflate));
        Ok(id)
    }

    /// Sends one message. Where deflate was agreed on it is compressed, as browsers do with every message.
    pub fn send(&mut self, id: Id, message: &[u8]) {
        let Some(connection) = live(&mut self.slots, id) else { return };
        if connection.deflates_message(message.len()) {
            let payload = self.deflater.deflate(message);
            connection.encode(&mut self.masks, true, &[&payload]);
        } else {
            connection.encode(&mut self.masks, false, &[message]);
        }
        self.mark(id);
    }

    /// Emits an event of Socket.IO; `payload` is JSON, or empty.
    pub fn emit(&mut self, id: Id, event: &str, payload: &str) {
        let comma = if payload.is_empty() { "" } else { "," };
        let prefix = live(&mut self.slots, id).map_or(&b""[..], |connection| connection.event_prefix());
        let text = [prefix, b"[\"", event.as_bytes(), b"\"", comma.as_bytes(), payload.as_bytes(), b"]"].concat();
        self.send(id, &text);
    }

    /// Sends a prepared message with this stamp in it.
    pub fn send_stamped(&mut self, id: Id, template: &Template, stamp: u64) {
        let Some(connection) = live(&mut self.slots, id) else { return };
        let ([before, after], is_compressed) = template.parts(connection.deflates_message(template.len()));
        connection.encode(&mut self.masks, is_compressed, &[before, &deflate::stamp(stamp), after]);
        self.mark(id);
    }

    /// Sends a request; `response` follows.
    pub fn request(&mut self, id: Id, request: &Request<'_>) {
        let Some(connection) = live(&mut self.slots, id) else { return };
        connection.request(request);
        self.mark(id);
    }

    /// Ends a connection with a reset, as a lost network does: no port is left in TIME_WAIT.
    pub fn close(&mut self, id: Id) {
        if live(&mut self.slots, id).is_some() {
            self.remove(id);
        }
    }

    /// Connections that are open, or being opened.
    pub fn open_connections(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether permessage-deflate was agreed on.
    pub fn deflates(&mut self, id: Id) -> bool {
        live(&mut self.slots, id).is_some_and(|connection| connection.deflates)
    }

    /// Calls [`Handler::timer`] with `key` so much later.
    pub fn after(&mut self, delay: Nanos, key: u64) {
        self.timers_made += 1;
        self.timers.push(Reverse((now() + delay.max(1), self.timers_made, key)));
    }

    /// Hands everything that happens to the handler until it is done, or until then. Says whether it is done.
    ///
    /// # Errors
    /// epoll fails.
    pub fn run(&mut self, handler: &mut impl Handler, until: Nanos) -> io::Result<bool> {
        loop {
            self.fire(handler);
            self.send_due(handler);
            self.flush(handler);
            if handler.is_done() {
                return Ok(true);
            }
            let time = now();
            if time >= until {
                return Ok(false);
            }
            let wake = [self.timers.peek().map(|Reverse((due, ..))| *due), self.schedule.as_ref().map(Schedule::next)];
            let wake = wake.into_iter().flatten().fold(until, Nanos::min);
            self.wait(handler, wake.saturating_sub(time))?;
        }
    }

    /// What is due now; what is set for at once meanwhile comes after a look at the sockets.
    fn fire(&mut self, handler: &mut impl Handler) {
        let time = now();
        while let Some(Reverse((due, ..))) = self.timers.peek()
            && *due <= time
        {
            let Some(Reverse((.., key))) = self.timers.pop() else { break };
            handler.timer(self, key);
        }
    }

    /// Sends what is due, each in a write of its own, as clients would; more than `DUE_AT_ONCE` wait for the next turn.
    fn send_due(&mut self, handler: &mut impl Handler) {
        for _ in 0..DUE_AT_ONCE {
            let Some((number, intended)) = self.schedule.as_mut().and_then(|schedule| schedule.due(now())) else {
                break;
            };
            handler.due(self, number, intended);
            self.flush(handler);
            self.lateness.saturating_record(now() - intended);
        }
    }

    /// Waits for readiness, at most so long, and deals with it.
    fn wait(&mut self, handler: &mut impl Handler, nanos: Nanos) -> io::Result<()> {
        let timeout = Timespec { tv_sec: (nanos / 1_000_000_000) as i64, tv_nsec: (nanos % 1_000_000_000) as i64 };
        let mut events = mem::take(&mut self.events);
        events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        for event in &events {
            let (key, flags) = (event.data.u64(), event.flags);
            self.ready(handler, key as u32, (key >> 32) as u32, flags);
        }
        self.events = events;
        Ok(())
    }

    /// One connection is connected, readable, writable or at its end.
    fn ready(&mut self, handler: &mut impl Handler, slot: u32, generation: u32, flags: epoll::EventFlags) {
        let Some(connection) = at(&mut self.slots, slot, generation) else { return };
        let id = connection.id;
        if flags.contains(epoll::EventFlags::OUT) {
            if let Err(failure) = socket::error(&connection.fd) {
                return self.fail(handler, id, failure);
            }
            let is_open = connection.connected();
            self.mark(id);
            if is_open {
                handler.opened(self, id);
            }
        }
        let is_ending = flags.intersects(epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR);
        if flags.contains(epoll::EventFlags::IN) || is_ending {
            self.read(handler, id, is_ending);
        }
        self.flush(handler);
    }

    /// Reads until nothing is left: a short read says so, unless the end has been announced.
    fn read(&mut self, handler: &mut impl Handler, id: Id, is_ending: bool) {
        let mut buffer = mem::take(&mut self.buffer);
        while let Some(connection) = live(&mut self.slots, id) {
            let length = match socket::receive(&connection.fd, &mut buffer) {
                Ok(Some(length)) => length,
                Ok(None) => break,
                Err(failure) => {
                    self.fail(handler, id, failure);
                    break;
                }
            };
            self.traffic.bytes_in += length as u64;
            let partial = mem::take(&mut connection.partial);
            if partial.is_empty() {
                self.take(handler, id, &buffer[..length]);
            } else {
                self.take(handler, id, &[&partial, &buffer[..length]].concat());
            }
            if length < buffer.len() && !is_ending {
                break;
            }
        }
        self.buffer = buffer;
    }

    /// Hands on what `bytes` hold and keeps the rest.
    fn take(&mut self, handler: &mut impl Handler, id: Id, bytes: &[u8]) {
        let mut scratch = mem::take(&mut self.scratch);
        let mut rest = bytes;
        while let Some(connection) = live(&mut self.slots, id) {
            let item = match rest {
                [] => break,
                _ => connection.next(rest, &mut self.masks, &mut scratch),
            };
            match item {
                Ok(None) => {
                    connection.partial = rest.to_vec();
                    break;
                }
                Ok(Some((length, item))) => {
                    rest = &rest[length..];
                    self.hand(handler, id, &item);
                }
                Err(failure) => {
                    self.fail(handler, id, failure);
                    break;
                }
            }
        }
        self.scratch = scratch;
    }

    /// Hands one item on. Whatever the connection has answered by itself is written in the same go.
    fn hand(&mut self, handler: &mut impl Handler, id: Id, item: &Item<'_>) {
        match item {
            Item::Nothing => {}
            Item::Heartbeat => self.traffic.heartbeats += 1,
            Item::Opened => handler.opened(self, id),
            Item::Message(message) => handler.message(self, id, message),
            Item::Response(response) => handler.response(self, id, response),
        }
        self.mark(id);
    }

    /// Notes that there may be something to write.
    fn mark(&mut self, id: Id) {
        if let Some(connection) = live(&mut self.slots, id)
            && !connection.is_dirty
            && !connection.out.is_empty()
        {
            connection.is_dirty = true;
            self.dirty.push(id.slot);
        }
    }

    /// Writes what has been sent. What the kernel does not take waits for its word.
    ///
    /// Connections that break by that are told of last, when all others have been written to.
    fn flush(&mut self, handler: &mut impl Handler) {
        let mut dirty = mem::take(&mut self.dirty);
        for slot in dirty.drain(..) {
            let Some(connection) = self.slots[slot as usize].1.as_mut() else { continue };
            connection.is_dirty = false;
            match socket::send(&connection.fd, &mut connection.out) {
                Ok(length) => self.traffic.bytes_out += length as u64,
                Err(failure) => self.broken.push((connection.id, failure)),
            }
        }
        self.dirty = dirty;
        while let Some((id, failure)) = self.broken.pop() {
            self.fail(handler, id, failure);
        }
    }

    /// Forgets a connection and tells the scenario, unless the scenario has closed it meanwhile.
    fn fail(&mut self, handler: &mut impl Handler, id: Id, failure: Failure) {
        if live(&mut self.slots, id).is_some() {
            self.remove(id);
            handler.closed(self, id, failure);
        }
    }

    fn remove(&mut self, id: Id) {
        let (generation, connection) = &mut self.slots[id.slot as usize];
        *generation = generation.wrapping_add(1);
        *connection = None;
        self.free.push(id.slot);
    }
}

fn live(slots: &mut [Slot], id: Id) -> Option<&mut Connection> {
    at(slots, id.slot, id.generation)
}

fn at(slots: &mut [Slot], slot: u32, generation: u32) -> Option<&mut Connection> {
    let (current, connection) = &mut slots[slot as usize];
    connection.as_mut().filter(|_| *current == generation)
}

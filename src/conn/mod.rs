//! One client's protocol state, sans-IO: bytes and times go in, [`Output`]s come out.
//!
//! A [`Conn`] is plain owned data that the shard's connection task holds; it may move between shards at any moment.
//! It speaks HTTP, where proxies pass connections on after a PROXY header, until a request upgrades it, then WebSocket until the end. The caller promises: `poll` until `None`
//! after every call; `receive` only while [`Conn::wants_read`]; `timeout` once [`Conn::deadline`] has passed.
//!
//! Bounds: unread input is one unfinished head, line, frame or message and the read it came in; output is
//! `outbox_bytes_max`, over which the client is closed. It reads no clock, does no I/O and knows no user.

mod batch;
mod budget;
mod close;
mod deflation;
mod echo;
mod frames;
mod http;
mod outbox;
mod output;
mod packets;
mod preface;
mod probe;
mod settings;
mod socket;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use sha2::{Digest, Sha256};

pub use batch::Batch;
pub use budget::{Allowance, Allowances, EventClass};
pub use close::CloseReason;
pub use output::{Output, Transport};
pub use settings::Settings;

use crate::base::limits::PROXY_TIMEOUT_MS;
use crate::base::{EngineSid, Time};
use crate::wire::engineio;
use crate::wire::http::Response;
use http::Http;
use outbox::Outbox;
use preface::Preface;
use probe::Probe;
use socket::{Closing, Socket};

/// One client.
pub struct Conn {
    settings: Arc<Settings>,
    peer: IpAddr,
    address: IpAddr,
    sid_seed: [u8; 16],
    stage: Stage,
    /// Received, but not whole yet or not its turn; owns nothing while it is empty.
    rest: Vec<u8>,
    outbox: Outbox,
    /// The peer sends no more.
    is_ended: bool,
}

/// Where in its life a connection is.
enum Stage {
    /// Nothing has come yet from the proxy that passes it on.
    Preface(Preface),
    Http(Http),
    /// A WebSocket that is to take a session over.
    Probe(Probe),
    Socket(Socket),
    Closing(Closing),
    Closed,
}

/// What a stage made of the bytes it was shown.
enum Step {
    /// So many are done with; there may be more to do.
    Used(usize),
    /// Nothing can be done without more bytes or an answer.
    Wait,
    /// So many are done with, and the next stage has begun.
    Become(usize, Stage),
}

/// What a stage may use of its connection.
struct Context<'a> {
    now: Time,
    settings: &'a Settings,
    peer: &'a mut IpAddr,
    address: &'a mut IpAddr,
    sid_seed: &'a [u8; 16],
    outbox: &'a mut Outbox,
}

impl Context<'_> {
    /// The last word: what was written before it is flushed, then the socket is closed.
    fn closed(&mut self, reason: CloseReason) -> Stage {
        self.outbox.push(Output::Close(reason));
        Stage::Closed
    }

    /// An id that the client hears: 120 bits in 20 characters, unlike for each purpose, telling nothing of the seed.
    fn session_id(&self, purpose: &str) -> String {
        let digest = Sha256::new().chain_update(self.sid_seed).chain_update(purpose).finalize();
        URL_SAFE_NO_PAD.encode(&digest[..15])
    }
}

impl Conn {
    /// A connection accepted `now` from `peer`. The ids that the client will hear are derived from `sid_seed`, which
    /// must be drawn for this connection alone.
    pub fn new(now: Time, settings: Arc<Settings>, peer: IpAddr, sid_seed: [u8; 16]) -> Self {
        let peer = peer.to_canonical();
        let stage = if settings.proxy_protocol {
            Stage::Preface(Preface { until: now + PROXY_TIMEOUT_MS })
        } else {
            Stage::Http(Http::new(now + settings.head_timeout_ms, false))
        };
        Self {
            stage,
            outbox: Outbox::new(settings.outbox_bytes_max),
            settings,
            peer,
            address: peer,
            sid_seed,
            rest: Vec::new(),
            is_ended: false,
        }
    }

    /// A session by polling, which has no socket: requests of other connections bring it payloads ([`Conn::receive`], one
    /// at a time and whole, once [`Conn::is_drained`]) and fetch its own ([`Conn::take_payload`]). This one begins with
    /// a request to `path` that is with the caller of `carrier`; `None` when nothing of the kind is spoken there.
    pub fn polling(now: Time, carrier: &Conn, path: &str, sid_seed: [u8; 16], sid: EngineSid) -> Option<Self> {
        let settings = carrier.settings.clone();
        let dialect = settings.dialect(path).filter(|dialect| dialect.is_engine())?;
        let outbox = Outbox::of_payloads(settings.outbox_bytes_max);
        let mut conn = Self { outbox, ..Self::new(now, settings, carrier.address, sid_seed) };
        let (_, mut context) = conn.split(now);
        conn.stage = Stage::Socket(Socket::open_polling(&mut context, dialect, sid));
        Some(conn)
    }

    /// What the next poll is answered with; `None` while there is nothing to say. The last word of a session ends it.
    pub fn take_payload(&mut self, now: Time) -> Option<Bytes> {
        let payload = self.outbox.take_payload()?;
        let is_last = !self.outbox.has_bytes();
        let (stage, mut context) = self.split(now);
        if let Stage::Closing(closing) = stage
            && is_last
        {
            let reason = closing.reason;
            self.stage = context.closed(reason);
        }
        Some(payload)
    }

    /// Gives a poll that waits something to end with, so that the client may upgrade.
    pub fn release_poll(&mut self, now: Time) {
        let (Stage::Socket(socket), mut context) = self.split(now) else { return };
        if socket.is_polling() && !context.outbox.has_bytes() {
            socket.write_text(&mut context, &[engineio::NOOP]);
        }
    }

    /// Goes on over the WebSocket of `carrier`, which had [`Output::Upgraded`]; nothing that waits on either is lost.
    pub fn upgrade(&mut self, now: Time, carrier: Conn) {
        let (Stage::Socket(socket), Stage::Probe(probe)) = (&mut self.stage, carrier.stage) else { return };
        socket.upgrade(probe.into_frames());
        self.address = carrier.address;
        self.outbox.upgrade(carrier.outbox, engineio::encode_frame_of_payload);
        self.rest = carrier.rest;
        self.is_ended = carrier.is_ended;
        self.resume(now);
        self.settle(now);
    }

    /// Whether it is a session by polling, to its very end.
    pub fn is_polling(&self) -> bool {
        self.outbox.is_payload()
    }

    /// Whether it is one that has something to say.
    pub fn has_payload(&self) -> bool {
        self.is_polling() && self.outbox.has_bytes()
    }

    /// Whether more may be read while a request is answered: enough to notice the peer's end, no more.
    pub fn may_read_ahead(&self) -> bool {
        self.rest.is_empty() && !self.is_ended
    }

    /// Whether the peer sends no more.
    pub fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Whether all that was received is handed out and answered.
    pub fn is_drained(&self) -> bool {
        self.rest.is_empty() && !self.has_output() && !matches!(&self.stage, Stage::Socket(socket) if socket.is_asked())
    }

    /// Takes what was read. The bytes may be changed in place; what is unfinished is kept.
    pub fn receive(&mut self, now: Time, bytes: &mut [u8]) {
        if self.rest.is_empty() {
            let used = self.advance(now, bytes);
            self.rest = bytes[used..].to_vec();
        } else {
            self.rest.extend_from_slice(bytes);
            self.resume(now);
        }
        self.settle(now);
    }

    /// The peer closed its half, or the connection is gone. A request in flight is still answered.
    pub fn end_of_stream(&mut self, now: Time) {
        self.is_ended = true;
        self.settle(now);
    }

    /// Acts on whatever is due; harmless when nothing is.
    pub fn timeout(&mut self, now: Time) {
        let received = !self.rest.is_empty();
        let (stage, mut context) = self.split(now);
        let next = match stage {
            Stage::Preface(preface) => preface.timeout(&mut context),
            Stage::Http(http) => http.timeout(&mut context, received),
            Stage::Probe(probe) if probe.until <= now => Some(probe::close(&mut context, CloseReason::UpgradeTimeout)),
            Stage::Probe(_) => None,
            Stage::Socket(socket) => socket.timeout(&mut context),
            Stage::Closing(closing) if closing.until <= now => Some(context.closed(closing.reason)),
            Stage::Closing(_) | Stage::Closed => None,
        };
        self.become_next(next);
        self.settle(now);
    }

    /// When [`Conn::timeout`] is to be called; `None` while the peer is not what is waited for.
    pub fn deadline(&self) -> Option<Time> {
        match &self.stage {
            Stage::Preface(preface) => Some(preface.until),
            Stage::Http(http) => http.deadline(),
            Stage::Probe(probe) => Some(probe.until),
            Stage::Socket(socket) => Some(socket.deadline()),
            Stage::Closing(closing) => Some(closing.until),
            Stage::Closed => None,
        }
    }

    /// Answers the outstanding [`Output::Request`], then goes on with what was pipelined behind it.
    pub fn respond(&mut self, now: Time, response: Response) {
        let (Stage::Http(http), mut context) = self.split(now) else { return };
        let next = http.respond(&mut context, &response);
        self.become_next(next);
        self.resume(now);
        self.settle(now);
    }

    /// Accepts the outstanding [`Output::Connect`]; events may follow.
    pub fn accept_connect(&mut self, now: Time) {
        let (Stage::Socket(socket), mut context) = self.split(now) else { return };
        socket.accept_connect(&mut context);
        self.resume(now);
        self.settle(now);
    }

    /// Refuses the outstanding [`Output::Connect`]. A Socket.IO client may ask again until the unbound timeout; the
    /// other dialect has no such answer, and is closed.
    pub fn refuse_connect(&mut self, now: Time, message: &str) {
        let (Stage::Socket(socket), mut context) = self.split(now) else { return };
        let next = socket.refuse_connect(&mut context, message);
        self.become_next(next);
        self.resume(now);
        self.settle(now);
    }

    /// Answers an event that asked for it; nothing unless connected.
    pub fn acknowledge(&mut self, now: Time, id: &str) {
        let (Stage::Socket(socket), mut context) = self.split(now) else { return };
        socket.acknowledge(&mut context, id);
        self.settle(now);
    }

    /// Sends an encoded event; nothing unless connected. A long one is shared by reference, not copied.
    pub fn send(&mut self, now: Time, event_json: &Bytes) {
        let (Stage::Socket(socket), mut context) = self.split(now) else { return };
        socket.send(&mut context, event_json);
        self.settle(now);
    }

    /// [`Conn::send`] for each of these, where all can be shared with other connections; false, and nothing is sent, where not.
    pub fn send_batch(&mut self, now: Time, batch: &Batch) -> bool {
        let (Stage::Socket(socket), mut context) = self.split(now) else { return false };
        let is_sent = socket.send_batch(&mut context, batch);
        self.settle(now);
        is_sent
    }

    /// Goes by other settings from now on. What was agreed with the client must be the same in them.
    pub fn set(&mut self, settings: Arc<Settings>) {
        self.settings = settings;
    }

    /// The client has authenticated: the unbound timeout is over.
    pub fn bind(&mut self) {
        if let Stage::Socket(socket) = &mut self.stage {
            socket.unbound_until = None;
        }
    }

    /// The client is nobody again: the unbound timeout starts.
    pub fn unbind(&mut self, now: Time) {
        if let Stage::Socket(socket) = &mut self.stage {
            socket.unbound_until = Some(now + self.settings.unbound_timeout_ms);
        }
    }

    /// Ends the connection in order: a request in flight is answered first; a WebSocket peer is told why and has
    /// `close_timeout_ms` to answer. Where the reason says that the peer cannot be told, it is dropped at once.
    pub fn close(&mut self, now: Time, reason: CloseReason) {
        let (stage, mut context) = self.split(now);
        let next = match stage {
            Stage::Preface(_) => Some(context.closed(reason)),
            Stage::Http(http) => http.close(&mut context, reason),
            Stage::Probe(_) => Some(probe::close(&mut context, reason)),
            Stage::Socket(socket) => Some(socket.close(&mut context, reason)),
            Stage::Closing(_) | Stage::Closed => None,
        };
        self.become_next(next);
        self.settle(now);
    }

    /// Whether more bytes are of use now: not while an output waits to be polled or answered.
    pub fn wants_read(&self) -> bool {
        let is_open = match &self.stage {
            Stage::Preface(_) => true,
            Stage::Http(http) => !http.is_asked(),
            Stage::Probe(probe) => !probe.is_asked(),
            Stage::Socket(socket) => !socket.is_asked(),
            Stage::Closing(_) => true,
            Stage::Closed => false,
        };
        is_open && !self.is_ended && !self.outbox.has_output() && !self.is_backlogged()
    }

    /// Whether the peer has first to read what it caused: an echo must not fill the outbox.
    fn is_backlogged(&self) -> bool {
        matches!(&self.stage, Stage::Socket(socket) if socket.echoes()) && self.outbox.has_bytes()
    }

    /// The next output, in order.
    pub fn poll(&mut self) -> Option<Output> {
        self.outbox.poll()
    }

    /// Lets an output that was polled and could not be answered be the next one again.
    pub fn put_back(&mut self, output: Output) {
        self.outbox.put_back(output);
    }

    /// Whether an output waits to be polled.
    pub fn has_output(&self) -> bool {
        self.outbox.has_output()
    }

    /// What is to be written to the peer, in order, at any time. Who takes bytes out says so by [`Conn::written`].
    pub fn chunks(&mut self) -> &mut VecDeque<Bytes> {
        self.outbox.chunks()
    }

    /// So many written bytes have left for the peer.
    pub fn written(&mut self, bytes: usize) {
        self.outbox.written(bytes);
    }

    /// Bytes that wait to be written.
    pub fn waiting_bytes(&self) -> usize {
        self.outbox.waiting_bytes()
    }

    /// What is spoken over it; `None` once it is closing, which changes nothing.
    pub fn transport(&self) -> Option<Transport> {
        match &self.stage {
            _ if self.is_polling() => Some(Transport::Polling),
            Stage::Preface(_) | Stage::Http(_) | Stage::Probe(_) => Some(Transport::Http),
            Stage::Socket(socket) if socket.dialect.is_engine() => Some(Transport::Engine),
            Stage::Socket(_) => Some(Transport::Plain),
            Stage::Closing(_) | Stage::Closed => None,
        }
    }

    /// Whether it was upgraded to WebSocket and is open.
    pub fn is_socket(&self) -> bool {
        matches!(self.stage, Stage::Socket(_))
    }

    /// The client behind the trusted proxies, as of the latest request head (contract 8, D20); before one the peer, or whom
    /// its PROXY header named.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Memory that the connection holds besides itself, bytes: unfinished input and unpolled output.
    pub fn held_bytes(&self) -> usize {
        let unfinished = match &self.stage {
            Stage::Http(http) => http.held_bytes(),
            Stage::Probe(probe) => probe.held_bytes(),
            Stage::Socket(socket) => socket.held_bytes(),
            Stage::Preface(_) | Stage::Closing(_) | Stage::Closed => 0,
        };
        self.rest.capacity() + unfinished + self.outbox.held_bytes()
    }

    /// Lets the stages have their way with `bytes`; says how many are done with.
    fn advance(&mut self, now: Time, bytes: &mut [u8]) -> usize {
        let mut used = 0;
        loop {
            let (stage, mut context) = self.split(now);
            let step = match stage {
                Stage::Preface(preface) => preface.step(&mut context, &bytes[used..]),
                Stage::Http(http) => http.step(&mut context, &bytes[used..]),
                Stage::Probe(probe) => probe.step(&mut context, &mut bytes[used..]),
                Stage::Socket(socket) => socket.step(&mut context, &mut bytes[used..]),
                Stage::Closing(closing) => closing.step(&mut context, &mut bytes[used..]),
                Stage::Closed => return bytes.len(),
            };
            match step {
                Step::Wait => return used,
                Step::Used(count) => used += count,
                Step::Become(count, next) => {
                    used += count;
                    self.stage = next;
                }
            }
        }
    }

    /// Goes on with what was kept, and keeps what is left of it in no more memory than it needs.
    fn resume(&mut self, now: Time) {
        let mut rest = std::mem::take(&mut self.rest);
        let used = self.advance(now, &mut rest);
        self.rest = if used == 0 { rest } else { rest[used..].to_vec() };
    }

    /// What must hold after every call: an overfull outbox or the peer's end has had its consequence.
    fn settle(&mut self, now: Time) {
        let (is_full, is_ended) = (self.outbox.is_full(), self.is_ended);
        let (stage, mut context) = self.split(now);
        let next = match stage {
            Stage::Closed => None,
            Stage::Socket(socket) if is_full => Some(socket.abandon(&mut context, CloseReason::SlowReader)),
            Stage::Http(_) | Stage::Probe(_) if is_full => Some(context.closed(CloseReason::SlowReader)),
            Stage::Preface(_) if is_ended => Some(context.closed(CloseReason::PeerClosed)),
            Stage::Probe(_) if is_ended => Some(context.closed(CloseReason::PeerReset)),
            Stage::Http(http) if is_ended && !http.is_asked() => {
                http.lose_post(&mut context, CloseReason::PeerReset);
                Some(context.closed(CloseReason::PeerClosed))
            }
            Stage::Socket(socket) if is_ended => Some(socket.abandon(&mut context, CloseReason::PeerReset)),
            Stage::Closing(closing) if is_full || is_ended => Some(context.closed(closing.reason)),
            _ => None,
        };
        self.become_next(next);
        if matches!(self.stage, Stage::Closed) {
            self.rest = Vec::new();
        }
    }

    /// Enters the next stage, if there is one.
    fn become_next(&mut self, next: Option<Stage>) {
        if let Some(stage) = next {
            self.stage = stage;
        }
    }

    /// The stage, and apart from it all that it may use.
    fn split(&mut self, now: Time) -> (&mut Stage, Context<'_>) {
        let Self { settings, peer, address, sid_seed, stage, outbox, .. } = self;
        (stage, Context { now, settings, peer, address, sid_seed, outbox })
    }
}

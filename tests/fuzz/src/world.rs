//! One `Conn` and all that surrounds it: a caller who keeps the contract of `conn/mod.rs` and answers when he likes, a
//! clock, and a peer that reads what is written. Every step holds what must be true behind it.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::Bytes;
use duet::base::limits::HEAD_BYTES_MAX;
use duet::base::{EngineSid, Random, ShardId, Time};
use duet::conn::{Batch, CloseReason, Conn, Output, Settings};
use duet::wire::deflate::{InflateError, Inflater, Window};
use duet::wire::engineio::{Packet, SEPARATOR};
use duet::wire::http::{Method, Response};
use duet::wire::proxy::LOCAL;
use duet::wire::upgrade::EngineAsk;

use crate::client_frame;

/// Longest read, bytes; what is longer comes in several.
pub const READ_BYTES_MAX: usize = 4096;

/// What context takeover may cost: a compressor and a window.
const CONTEXTS_BYTES: usize = (312 + 32) * 1024;
const EXTENSIONS: &str = "Sec-WebSocket-Extensions";

/// The session that the fuzzer's requests speak of.
pub fn sid() -> EngineSid {
    EngineSid::draw(ShardId(0), &mut Random::from_seed(1))
}

/// A request to go on by WebSocket, with these extensions if there are any.
pub fn upgrade(target: &str, extensions: &str) -> Vec<u8> {
    let extensions = if extensions.is_empty() { String::new() } else { format!("{EXTENSIONS}: {extensions}\r\n") };
    format!(
        "GET {target} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{extensions}\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes()
}

/// The target by which a WebSocket takes the session over.
pub fn carrier_target() -> String {
    format!("/socket.io/?EIO=4&transport=websocket&sid={}", sid().encode())
}

/// A connection, its caller, its clock and its peer.
pub struct World {
    conn: Conn,
    now: Time,
    settings: Arc<Settings>,
    /// Said by the peer, not yet received.
    inbound: VecDeque<u8>,
    /// The request that is with the caller: whether it was HEAD, and whether 101 may answer it.
    asked: Option<(bool, bool)>,
    is_connecting: bool,
    /// The caller has heard of the client and not that it left.
    is_known: bool,
    acknowledgements: VecDeque<Box<str>>,
    closed: Option<CloseReason>,
    /// Taken out, but not yet said to be written.
    in_flight: usize,
    /// The longest that was written at once, and the most chunks that waited.
    longest: usize,
    chunks_max: usize,
    peer: Peer,
}

impl World {
    /// A connection, or a session by polling.
    pub fn new(settings: Settings, is_polling: bool) -> Self {
        let (now, address) = (Time(784_111_777_000), IpAddr::V4(Ipv4Addr::LOCALHOST));
        let settings = Arc::new(settings);
        let mut conn = Conn::new(now, settings.clone(), address, [7; 16]);
        if is_polling {
            conn = Conn::polling(now, &conn, "/socket.io/", [7; 16], sid()).expect("Engine.IO is spoken there");
        }
        Self {
            conn,
            now,
            settings,
            inbound: VecDeque::new(),
            asked: None,
            is_connecting: false,
            is_known: false,
            acknowledgements: VecDeque::new(),
            closed: None,
            in_flight: 0,
            longest: 1024,
            chunks_max: 4,
            peer: Peer::default(),
        }
    }

    /// The peer says this, some time.
    pub fn say(&mut self, bytes: &[u8]) {
        self.inbound.extend(bytes);
    }

    /// At most so many bytes of what was said are received, if the connection wants them; a session by polling gets
    /// all of them as one payload.
    pub fn receive(&mut self, bytes_max: usize) {
        let wanted = if self.conn.is_polling() { self.conn.is_drained() } else { self.conn.wants_read() };
        let most = if self.conn.is_polling() { self.settings.message_bytes_max } else { READ_BYTES_MAX };
        let count = self.inbound.len().min(bytes_max).min(most);
        if !wanted || count == 0 || self.closed.is_some() {
            return;
        }
        let mut bytes: Vec<u8> = self.inbound.drain(..count).collect();
        self.conn.receive(self.now, &mut bytes);
        self.check();
    }

    /// Receives all that is wanted.
    pub fn receive_all(&mut self) {
        loop {
            let before = self.inbound.len();
            self.receive(usize::MAX);
            if self.inbound.len() == before {
                return;
            }
        }
    }

    /// The peer says no more; what it had said and was not received is lost.
    pub fn end(&mut self) {
        self.inbound.clear();
        self.conn.end_of_stream(self.now);
        self.check();
    }

    /// Time passes, and every deadline in it.
    pub fn wait(&mut self, ms: u64) {
        let end = self.now + ms;
        while let Some(deadline) = self.conn.deadline().filter(|deadline| *deadline <= end) {
            self.now = deadline.max(self.now);
            self.conn.timeout(self.now);
            assert!(self.conn.deadline().is_none_or(|next| next > self.now), "a deadline stays behind");
            self.check();
        }
        self.now = end;
    }

    /// Nothing is due, so nothing happens.
    pub fn early_timeout(&mut self) {
        if self.conn.deadline().is_some_and(|deadline| deadline <= self.now) {
            return;
        }
        let (deadline, chunks) = (self.conn.deadline(), self.conn.chunks().len());
        self.conn.timeout(self.now);
        assert!(!self.conn.has_output() && self.conn.chunks().len() == chunks && self.conn.deadline() == deadline);
    }

    /// Until the next deadline, and a little more.
    pub fn wait_for_deadline(&mut self, more_ms: u64) {
        if let Some(deadline) = self.conn.deadline() {
            self.wait(deadline - self.now + more_ms);
        }
    }

    /// Answers the request, if one is outstanding; 101 only where that may go on.
    pub fn respond(&mut self, status: u16, body_length: usize) {
        let asked = self.asked.take();
        let status = if status == 101 && !asked.is_some_and(|(_, may_upgrade)| may_upgrade) { 200 } else { status };
        let response = match body_length {
            0 => Response::empty(status),
            length => Response::text(status, "text/plain", Bytes::from(vec![b'a'; length])),
        };
        if let Some((is_head, _)) = asked.filter(|_| self.closed.is_none()) {
            self.peer.answers.push_back(is_head);
        }
        self.longest = self.longest.max(body_length + 1024);
        self.conn.respond(self.now, response);
        self.check();
    }

    /// Takes the client in; nothing unless it asks.
    pub fn accept(&mut self) {
        self.is_connecting = false;
        self.conn.accept_connect(self.now);
        self.check();
    }

    /// Does not take the client in; nothing unless it asks.
    pub fn refuse(&mut self) {
        if std::mem::take(&mut self.is_connecting) {
            self.is_known = false;
        }
        self.conn.refuse_connect(self.now, "no \"room\"");
        self.check();
    }

    /// Another client's event, as long as told; where messages come back there are no others.
    pub fn send(&mut self, length: usize) {
        if self.settings.is_conformance_target {
            return;
        }
        let event = Bytes::from(format!("[\"{}\"]", "x".repeat(length)));
        self.longest = self.longest.max(event.len() + 16);
        self.conn.send(self.now, &event);
        self.check();
    }

    /// Two events for many, the longer as long as told, together or one after the other.
    pub fn send_batch(&mut self, length: usize) {
        if self.settings.is_conformance_target {
            return;
        }
        let events = [length, length / 2].map(|length| Bytes::from(format!("[\"{}\"]", "y".repeat(length))));
        let mut batch = Batch::default();
        events.iter().for_each(|event| batch.push(event.clone()));
        self.longest = self.longest.max(batch.bytes_max());
        if !self.conn.send_batch(self.now, &batch) {
            events.iter().for_each(|event| self.conn.send(self.now, event));
        }
        self.check();
    }

    /// Acknowledges the oldest event that asked for it; or one that never did.
    pub fn acknowledge(&mut self) {
        let id = self.acknowledgements.pop_front().unwrap_or_else(|| "7".into());
        self.conn.acknowledge(self.now, &id);
        self.check();
    }

    /// The caller ends the connection.
    pub fn close(&mut self, reason: CloseReason) {
        self.conn.close(self.now, reason);
        self.check();
    }

    /// The client has authenticated, or is nobody again.
    pub fn bind(&mut self, is_bound: bool) {
        if is_bound {
            self.conn.bind()
        } else {
            self.conn.unbind(self.now)
        }
        self.check();
    }

    /// So many chunks go to the peer, and so many of the bytes under way are said to be written.
    pub fn write(&mut self, chunks: usize, written: usize) {
        if self.conn.is_polling() {
            return;
        }
        for _ in 0..chunks {
            let Some(chunk) = self.conn.chunks().pop_front() else { break };
            assert!(!chunk.is_empty(), "an empty chunk looks like the end of all");
            self.in_flight += chunk.len();
            self.peer.hear(&chunk);
        }
        let written = written.min(self.in_flight);
        self.in_flight -= written;
        self.conn.written(written);
        self.check();
    }

    /// A poll of the session.
    pub fn poll(&mut self) {
        if !self.conn.is_polling() {
            return;
        }
        let has_payload = self.conn.has_payload();
        let payload = self.conn.take_payload(self.now);
        assert_eq!(payload.is_some(), has_payload);
        for packet in payload.iter().flat_map(|payload| payload.split(|byte| *byte == SEPARATOR)) {
            let text = std::str::from_utf8(packet).expect("a payload is text");
            assert!(Packet::decode_in_payload(text).is_some(), "no packet: {text:?}");
        }
        self.check();
    }

    /// A poll that waits is to end.
    pub fn release_poll(&mut self) {
        self.conn.release_poll(self.now);
        self.check();
        assert!(!self.conn.is_polling() || !self.conn.is_socket() || self.conn.has_payload());
    }

    /// A WebSocket takes the session over; what it says behind its decision is what was said and not received.
    ///
    /// One that is lost at the last moment leaves the session polling.
    pub fn upgrade(&mut self, is_ended: bool, is_written: bool, extensions: &str) {
        let is_open = self.conn.is_polling() && self.conn.is_socket() && self.closed.is_none();
        if !is_open {
            return;
        }
        let address = self.conn.address();
        let mut carrier = Conn::new(self.now, self.settings.clone(), address, [8; 16]);
        if self.settings.proxy_protocol {
            carrier.receive(self.now, &mut LOCAL.to_vec());
        }
        carrier.receive(self.now, &mut upgrade(&carrier_target(), extensions));
        assert!(matches!(carrier.poll(), Some(Output::Engine { ask: Ok(EngineAsk::Upgrade(_)), .. })));
        carrier.respond(self.now, Response::empty(101));
        carrier.receive(self.now, &mut client_frame(0x81, b"2probe", [1, 2, 3, 4]));
        assert!(matches!(carrier.poll(), Some(Output::Probed(_))));
        let mut peer = Peer { answers: VecDeque::from([false]), ..Peer::default() };
        if is_written {
            for chunk in std::mem::take(carrier.chunks()) {
                carrier.written(chunk.len());
                peer.hear(&chunk);
            }
        }
        let mut last = client_frame(0x81, b"5", [5, 6, 7, 8]);
        let count = self.inbound.len().min(READ_BYTES_MAX);
        last.extend(self.inbound.drain(..count));
        carrier.receive(self.now, &mut last);
        if is_ended {
            carrier.end_of_stream(self.now);
        }
        assert!(matches!(carrier.poll(), Some(Output::Upgraded(_))));
        self.conn.upgrade(self.now, carrier);
        if !is_ended {
            assert!(!self.conn.is_polling());
            (self.peer, self.in_flight) = (peer, 0);
        }
        self.check();
    }

    /// Everybody goes away: whatever was going on comes to its end.
    pub fn finish(mut self) {
        if !self.conn.is_polling() {
            self.end();
        }
        // One request at least in each turn, and no request is shorter than a byte.
        for _ in 0..READ_BYTES_MAX {
            if self.closed.is_some() {
                break;
            }
            if self.asked.is_some() {
                self.respond(200, 2);
            } else if self.is_connecting {
                self.accept();
            } else {
                self.wait(100_000);
            }
            self.write(usize::MAX, usize::MAX);
            self.poll();
        }
        let reason = self.closed.expect("it ends once nobody is there");
        // Each payload takes one packet at least.
        for _ in 0..self.conn.chunks().len() {
            self.poll();
        }
        self.write(usize::MAX, usize::MAX);
        assert!(self.peer.rest.is_empty() || reason.is_abrupt(), "{reason:?}: cut short: {:?}", self.peer.rest);
        assert!(self.conn.held_bytes() < 1024, "{} bytes of a closed connection", self.conn.held_bytes());
    }

    /// Polls it dry, and holds what must be true after every call.
    fn check(&mut self) {
        while let Some(output) = self.conn.poll() {
            assert!(self.closed.is_none(), "{output:?} behind the last");
            self.output(output);
        }
        if self.closed.is_some() {
            assert!(!self.conn.wants_read() && self.conn.deadline().is_none() && !self.conn.is_socket());
        }
        if self.asked.is_some() || self.is_connecting {
            assert!(!self.conn.wants_read());
        }
        let waiting: usize = self.conn.chunks().iter().map(Bytes::len).sum();
        self.chunks_max = self.chunks_max.max(self.conn.chunks().len());
        // The separator of a payload comes on top.
        let outbox_max = (self.settings.outbox_bytes_max + 1).max(self.longest);
        assert!(waiting <= outbox_max, "{waiting} bytes wait");
        let message_max = self.settings.message_bytes_max.max(self.settings.body_bytes_max);
        let unread_max = 2 * (HEAD_BYTES_MAX.max(message_max + 14) + READ_BYTES_MAX);
        let contexts_max = if self.settings.deflate.context_takeover { CONTEXTS_BYTES } else { 0 };
        let held_max = unread_max + 4 * message_max + waiting + 64 * self.chunks_max + 1024 + contexts_max;
        assert!(self.conn.held_bytes() <= held_max, "holds {} bytes", self.conn.held_bytes());
    }

    fn output(&mut self, output: Output) {
        match output {
            Output::Request(request) => self.ask(request.method == Method::Head, false),
            Output::Engine { ask, request } => {
                self.ask(request.method == Method::Head, matches!(ask, Ok(EngineAsk::Upgrade(_))));
            }
            Output::Connect { .. } => {
                assert!(!self.is_connecting && !self.is_known, "two connects");
                (self.is_connecting, self.is_known) = (true, true);
            }
            Output::Acknowledge(id) => {
                assert!(self.is_known && !self.is_connecting);
                self.acknowledgements.push_back(id);
            }
            Output::Event(_) | Output::Refused(_) | Output::OverBudget { .. } => {
                assert!(self.is_known && !self.is_connecting)
            }
            Output::Left(_) => {
                assert!(std::mem::take(&mut self.is_known), "left twice, or never came");
                self.is_connecting = false;
            }
            Output::PostFailed { .. } | Output::Probed(_) | Output::Upgraded(_) => {}
            Output::Close(reason) => {
                assert!(!self.is_known, "closed, but not left");
                self.closed = Some(reason);
            }
        }
    }

    fn ask(&mut self, is_head: bool, may_upgrade: bool) {
        assert!(self.asked.is_none(), "two requests");
        self.asked = Some((is_head, may_upgrade));
    }
}

/// What the peer inflates with.
#[derive(Default)]
struct Deflation {
    inflater: Inflater,
    window: Option<Window>,
    /// A message was longer than an inflater of ours takes: with it went the window.
    is_lost: bool,
}

/// The peer's ear: responses, then frames.
#[derive(Default)]
struct Peer {
    /// Heard, not whole yet.
    rest: Vec<u8>,
    /// For each response of the caller's that is to come, whether it answers HEAD.
    answers: VecDeque<bool>,
    is_socket: bool,
    /// If compression was agreed on.
    deflation: Option<Deflation>,
    /// The last response, or a close frame, was heard.
    is_last: bool,
}

impl Deflation {
    fn hear(&mut self, payload: &[u8], is_text: bool) {
        if self.is_lost {
            return;
        }
        match self.inflater.inflate(payload, self.window.as_mut(), 1 << 24) {
            Ok(message) => assert!(!is_text || std::str::from_utf8(&message).is_ok()),
            Err(InflateError::TooBig) => self.is_lost = self.window.is_some(),
            Err(InflateError::Corrupt) => panic!("what was deflated does not inflate"),
        }
    }
}

impl Peer {
    fn hear(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        while !self.rest.is_empty() {
            assert!(!self.is_last, "something is said behind the last word: {:?}", self.rest);
            let Some(length) = (if self.is_socket { self.frame() } else { self.response() }) else { return };
            self.rest.drain(..length);
        }
    }

    /// One response: lines that end in CRLF, a length where there is a body.
    fn response(&mut self) -> Option<usize> {
        let end = self.rest.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = std::str::from_utf8(&self.rest[..end]).expect("a head is text").to_owned();
        assert!(head.starts_with("HTTP/1.1 ") && head.matches('\n').count() == head.matches("\r\n").count(), "{head}");
        let status: u16 = head[9..12].parse().expect("a status has three digits");
        let lengths: Vec<&str> = head.split("\r\n").filter_map(|line| line.strip_prefix("Content-Length: ")).collect();
        let length: usize = lengths.first().map_or(0, |digits| digits.parse().expect("digits"));
        assert_eq!(lengths.len(), usize::from(!matches!(status, 100..=199 | 204 | 304)), "{head}");
        if status == 100 {
            return Some(end);
        }
        // What the connection answers by itself is its last, but for 101; whether it answered HEAD is not known here.
        let (is_own, is_bodiless) = self.answers.front().map_or((true, self.rest.len() == end), |head| (false, *head));
        let all = if is_bodiless { end } else { end + length };
        if self.rest.len() < all {
            return None;
        }
        self.answers.pop_front();
        self.is_socket = status == 101;
        self.deflation = head.split("\r\n").find_map(|line| line.strip_prefix(EXTENSIONS)).map(|agreed| Deflation {
            window: (!agreed.contains("server_no_context_takeover")).then(|| Window::new(15)),
            ..Deflation::default()
        });
        self.is_last = !self.is_socket && (is_own || head.contains("\r\nConnection: close\r\n"));
        assert!(!is_own || self.is_socket || self.is_last);
        Some(all)
    }

    /// One frame: whole, unmasked, its length in the shortest form, text in UTF-8.
    fn frame(&mut self) -> Option<usize> {
        let (first, second) = (self.rest[0], *self.rest.get(1)?);
        let (start, length) = match second {
            0..=125 => (2, usize::from(second)),
            126 => (4, usize::from(u16::from_be_bytes(self.rest.get(2..4)?.try_into().expect("two bytes")))),
            127 => (10, u64::from_be_bytes(self.rest.get(2..10)?.try_into().expect("eight bytes")) as usize),
            _ => panic!("a server does not mask"),
        };
        assert!(start == 2 || length > [125, 65_535][usize::from(start == 10)], "a length in a longer form");
        let payload = self.rest.get(start..start + length)?;
        match (first, &mut self.deflation) {
            (0xc1 | 0xc2, Some(deflation)) => deflation.hear(payload, first == 0xc1),
            (0x82, _) => {}
            (0x81, _) => assert!(std::str::from_utf8(payload).is_ok(), "text that is no text"),
            (0x88, _) => {
                assert!(length != 1 && length <= 125);
                self.is_last = true;
            }
            (0x89 | 0x8a, _) => assert!(length <= 125),
            (other, _) => panic!("a server sends no frame {other:x}"),
        }
        Some(start + length)
    }
}

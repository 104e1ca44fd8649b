//! A session over WebSocket or polling: its heartbeat, its beginning and end, and what is said in it.
//!
//! What the messages mean is in [`super::packets`], the frames that carry them in [`super::frames`]; by polling they
//! come as the packets of payloads. Where the protocols leave it open, the behaviour is engine.io 6's and socket.io 4's.

use bytes::Bytes;

use super::batch::Batch;
use super::budget::Budget;
use super::deflation::Deflation;
use super::frames::{Failure, Frames, MALFORMED, Message};
use super::packets::Attached;
use super::{CloseReason, Context, Output, Stage, Step};
use crate::base::{EngineSid, Time, Token};
use crate::message::Leave;
use crate::wire::upgrade::Dialect;
use crate::wire::websocket::{self, CloseCode, Control, Data, EncodedHeader, OpCode, decode_frame};
use crate::wire::{engineio, socketio};

/// Events shorter than this are copied behind their frame header; longer ones are shared.
const JOINED_BYTES_MAX: usize = 512;

/// An open session. Its heartbeat runs from the beginning on, whether or not a client is connected inside.
pub(super) struct Socket {
    pub dialect: Dialect,
    pub session: Session,
    /// The caller has heard of this client and not that it left.
    is_known: bool,
    pub transport: Transport,
    /// A packet whose attachments have not all come.
    pub attached: Option<Box<Attached>>,
    /// Of [`Dialect::SocketIoEcho`]: its second namespace is connected.
    pub is_custom_connected: bool,
    heartbeat: Heartbeat,
    /// When a client that is nobody is closed.
    pub unbound_until: Option<Time>,
    pub budget: Budget,
}

/// How far the session inside is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Session {
    /// Not connected: no CONNECT yet, or it was refused.
    Opened,
    /// A CONNECT is with the caller.
    Asked,
    Connected,
}

/// How messages come and go.
pub(super) enum Transport {
    WebSocket(Frames),
    /// Requests that belong to other connections bring and fetch payloads.
    Polling,
}

/// Ping, wait for the pong, pause, ping (Engine.IO v4, heartbeat).
struct Heartbeat {
    /// When to ping; while waiting, when to give up.
    at: Time,
    is_waiting: bool,
}

/// A connection that was told to close and waits for the peer to do so.
pub(super) struct Closing {
    pub until: Time,
    pub reason: CloseReason,
    /// What still comes is dropped unread.
    pub is_deaf: bool,
}

impl Socket {
    /// The session after the WebSocket handshake was answered.
    pub fn open(context: &mut Context, dialect: Dialect, deflation: Option<Deflation>) -> Self {
        let mut socket = Self::new(context, dialect, Transport::WebSocket(Frames::new(deflation)));
        match dialect {
            dialect if dialect.is_engine() => socket.write_open(context, &context.session_id("Engine.IO")),
            Dialect::Plain => socket.ask(context, None),
            _ => {}
        }
        socket
    }

    /// A session that is spoken to by polling.
    pub fn open_polling(context: &mut Context, dialect: Dialect, sid: EngineSid) -> Self {
        let mut socket = Self::new(context, dialect, Transport::Polling);
        socket.write_open(context, &sid.encode());
        socket
    }

    fn new(context: &Context, dialect: Dialect, transport: Transport) -> Self {
        let settings = context.settings;
        Self {
            dialect,
            session: Session::Opened,
            is_known: false,
            transport,
            attached: None,
            is_custom_connected: false,
            heartbeat: Heartbeat { at: context.now + settings.ping_interval_ms, is_waiting: false },
            // Who echoes needs no name; the CONNECT of Socket.IO is waited for all the same.
            unbound_until: (!matches!(dialect, Dialect::Echo | Dialect::EngineEcho))
                .then(|| context.now + settings.unbound_timeout_ms),
            budget: Budget::new(context.now, &settings.allowances),
        }
    }

    /// Whether what is said comes back.
    pub fn echoes(&self) -> bool {
        matches!(self.dialect, Dialect::Echo | Dialect::EngineEcho | Dialect::SocketIoEcho)
    }

    /// Whether a CONNECT is with the caller: what the client says behind it waits for the answer.
    pub fn is_asked(&self) -> bool {
        self.session == Session::Asked
    }

    /// Whether it is spoken to by polling.
    pub fn is_polling(&self) -> bool {
        matches!(self.transport, Transport::Polling)
    }

    /// When the next heartbeat, its answer, the client's identity or an attachment is due.
    pub fn deadline(&self) -> Time {
        let others = [self.unbound_until, self.attached.as_ref().map(|attached| attached.until)];
        others.into_iter().flatten().fold(self.heartbeat.at, Time::min)
    }

    /// Bytes held in memory of its own.
    pub fn held_bytes(&self) -> usize {
        let attached = self.attached.as_ref().map_or(0, |attached| attached.held_bytes());
        attached + if let Transport::WebSocket(frames) = &self.transport { frames.held_bytes() } else { 0 }
    }

    /// Takes the next frame or packet. One that breaks a rule fails the session: what follows is not read.
    pub fn step(&mut self, context: &mut Context, bytes: &mut [u8]) -> Step {
        if self.is_asked() {
            return Step::Wait;
        }
        let all = bytes.len();
        let message_bytes_max = context.settings.message_bytes_max;
        let taken = match &mut self.transport {
            Transport::Polling if bytes.is_empty() => Ok(None),
            // An empty packet behind the last separator.
            Transport::Polling if bytes.ends_with(&[engineio::SEPARATOR]) => Err(MALFORMED),
            Transport::Polling => {
                let (packet, used) = engineio::first_packet(bytes);
                self.payload_packet(context, packet).map(|stage| Some((used, stage)))
            }
            Transport::WebSocket(frames) => match frames.next(bytes, message_bytes_max) {
                Ok(None) => Ok(None),
                Ok(Some((used, message))) => self.receive(context, message).map(|stage| Some((used, stage))),
                Err(failure) => Err(failure),
            },
        };
        match taken {
            Ok(None) => Step::Wait,
            Ok(Some((length, None))) => Step::Used(length),
            Ok(Some((length, Some(stage)))) => Step::Become(length, stage),
            Err(failure) => Step::Become(all, self.close(context, failure)),
        }
    }

    /// Closes who stays nobody (contract 8, D16) or owes attachments, pings, and gives up on who does not answer.
    ///
    /// Socket.IO has a time of its own for the CONNECT (45 s); the unbound timeout is shorter and covers it.
    pub fn timeout(&mut self, context: &mut Context) -> Option<Stage> {
        if self.unbound_until.is_some_and(|until| until <= context.now) {
            let is_connected = self.session == Session::Connected;
            let reason = if is_connected { CloseReason::UnboundTimeout } else { CloseReason::ConnectTimeout };
            return Some(self.close(context, reason));
        }
        if self.attached.as_ref().is_some_and(|attached| attached.until <= context.now) {
            return Some(self.close(context, MALFORMED));
        }
        if self.heartbeat.at > context.now {
            return None;
        }
        if self.heartbeat.is_waiting {
            return Some(self.abandon(context, CloseReason::PingTimeout));
        }
        self.heartbeat = Heartbeat { at: context.now + context.settings.ping_timeout_ms, is_waiting: true };
        match self.dialect.is_engine() {
            true => self.write_text(context, &[engineio::PING]),
            false => context.outbox.write(websocket::encode_frame(OpCode::Control(Control::Ping), &[])),
        }
        None
    }

    /// The caller takes the client in; a stale answer is nothing.
    pub fn accept_connect(&mut self, context: &mut Context) {
        if !self.is_asked() {
            return;
        }
        self.session = Session::Connected;
        if self.dialect == Dialect::SocketIo {
            let sid = context.session_id("Socket.IO");
            self.write_packet(context, &socketio::encode_connected("/", &sid));
        }
    }

    /// The caller does not; to it, the client was never there.
    pub fn refuse_connect(&mut self, context: &mut Context, message: &str) -> Option<Stage> {
        if !self.is_asked() {
            return None;
        }
        self.session = Session::Opened;
        self.is_known = false;
        if self.dialect == Dialect::Plain {
            return Some(self.close(context, CloseReason::ConnectRefused));
        }
        self.write_packet(context, &socketio::encode_connect_error("/", message));
        None
    }

    /// Answers an event that asked for it; nothing unless connected.
    pub fn acknowledge(&mut self, context: &mut Context, id: &str) {
        if self.session == Session::Connected {
            self.write_packet(context, &socketio::encode_ack(id));
        }
    }

    /// Writes an event: one unfragmented text frame, or one packet of the next payload.
    pub fn send(&mut self, context: &mut Context, event_json: &Bytes) {
        if self.session != Session::Connected {
            return;
        }
        let prefix = self.event_prefix();
        if let Transport::WebSocket(Frames { deflation: Some(deflation), .. }) = &mut self.transport
            && let Some(frame) = deflation.event_frame(context.settings, prefix, event_json)
        {
            return context.outbox.write(frame);
        }
        let is_joined = event_json.len() < JOINED_BYTES_MAX;
        let joined: &[u8] = if is_joined { event_json } else { &[] };
        let mut head = Vec::with_capacity(10 + prefix.len() + joined.len());
        if !self.is_polling() {
            let header = EncodedHeader::new(OpCode::Data(Data::Text), prefix.len() + event_json.len());
            head.extend_from_slice(header.as_bytes());
        }
        head.extend_from_slice(prefix.as_bytes());
        head.extend_from_slice(joined);
        let body = if is_joined { Bytes::new() } else { event_json.clone() };
        context.outbox.write_pair(Bytes::from(head), body);
    }

    /// Writes the events as one chunk that all who are spoken to alike share; false if each has to be sent by itself: by
    /// polling, and where one may be compressed.
    pub fn send_batch(&self, context: &mut Context, batch: &Batch) -> bool {
        let Transport::WebSocket(frames) = &self.transport else { return false };
        let prefix = self.event_prefix();
        let length_max = prefix.len() + batch.longest();
        let is_compressed = frames.deflation.is_some() && length_max >= context.settings.deflate_bytes_min;
        let is_sent = self.session == Session::Connected && !is_compressed;
        if is_sent {
            context.outbox.write(batch.frames(prefix));
        }
        is_sent
    }

    /// What stands before an event in its message.
    fn event_prefix(&self) -> &'static str {
        if self.dialect == Dialect::SocketIo { socketio::MESSAGE_EVENT } else { "" }
    }

    /// Ends the session in order (RFC 6455 7.1.2; by polling, with a close packet), or at once when the peer cannot
    /// be told.
    pub fn close(&mut self, context: &mut Context, reason: CloseReason) -> Stage {
        if reason.is_abrupt() {
            return self.abandon(context, reason);
        }
        let is_connected = self.session == Session::Connected;
        if reason.disconnects() && is_connected && self.dialect == Dialect::SocketIo {
            self.write_packet(context, socketio::DISCONNECT);
        }
        match self.transport {
            Transport::Polling => self.write_text(context, &[engineio::CLOSE]),
            Transport::WebSocket(_) => context.outbox.write(websocket::encode_close(Some(reason.code()))),
        }
        self.leave(context, reason.leave());
        let until = context.now + context.settings.close_timeout_ms;
        Stage::Closing(Closing { until, reason, is_deaf: reason.is_failure() || self.is_polling() })
    }

    /// Ends the session without a word.
    pub fn abandon(&mut self, context: &mut Context, reason: CloseReason) -> Stage {
        context.outbox.discard_writes();
        if self.is_polling() {
            // For a poll that may wait; a WebSocket that is lost has nobody to tell.
            self.write_text(context, &[engineio::CLOSE]);
        }
        self.leave(context, reason.leave());
        context.closed(reason)
    }

    /// Goes on by WebSocket.
    pub fn upgrade(&mut self, frames: Frames) {
        self.transport = Transport::WebSocket(frames);
    }

    /// Hands a CONNECT to the caller, who answers it once.
    pub fn ask(&mut self, context: &mut Context, token: Option<Token>) {
        self.session = Session::Asked;
        self.is_known = true;
        context.outbox.push(Output::Connect { token });
    }

    /// The answer to a heartbeat: the next pause begins, and who is quiet keeps no room for what is not said.
    pub fn pong(&mut self, context: &mut Context) {
        context.outbox.shrink();
        self.heartbeat = Heartbeat { at: context.now + context.settings.ping_interval_ms, is_waiting: false };
    }

    /// Writes a text message whose parts these are.
    pub fn write_text(&mut self, context: &mut Context, parts: &[&str]) {
        match &mut self.transport {
            Transport::Polling => context.outbox.write(Bytes::from(parts.concat())),
            Transport::WebSocket(_) => {
                let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
                self.write_frame(context, Data::Text, &parts);
            }
        }
    }

    /// Writes a binary message.
    pub fn write_binary(&mut self, context: &mut Context, bytes: &[u8]) {
        match &mut self.transport {
            Transport::Polling => context.outbox.write(Bytes::from(engineio::encode_binary_in_payload(bytes))),
            Transport::WebSocket(_) => self.write_frame(context, Data::Binary, &[bytes]),
        }
    }

    fn write_frame(&mut self, context: &mut Context, kind: Data, parts: &[&[u8]]) {
        let compressed = match &mut self.transport {
            Transport::WebSocket(Frames { deflation: Some(deflation), .. }) => {
                deflation.frame(context.settings, kind, parts)
            }
            _ => None,
        };
        context.outbox.write(compressed.unwrap_or_else(|| websocket::encode_frame(OpCode::Data(kind), parts)));
    }

    /// Writes a Socket.IO packet.
    pub fn write_packet(&mut self, context: &mut Context, packet: &str) {
        self.write_text(context, &[engineio::MESSAGE, packet]);
    }

    fn write_open(&mut self, context: &mut Context, sid: &str) {
        let settings = context.settings;
        let (interval, timeout) = (settings.ping_interval_ms, settings.ping_timeout_ms);
        let open = engineio::encode_open(sid, self.is_polling(), interval, timeout, settings.message_bytes_max);
        self.write_text(context, &[&open]);
    }

    /// One message of the peer, or a frame between.
    fn receive(&mut self, context: &mut Context, message: Message) -> Result<Option<Stage>, Failure> {
        self.heard(context);
        match message {
            Message::Text(text) => self.text(context, &text),
            Message::Binary(bytes) => self.binary(context, &bytes),
            Message::Close(payload) => self.peer_closed(context, payload).map(Some),
            Message::Ping(payload) => {
                let pong = websocket::encode_frame(OpCode::Control(Control::Pong), &[payload]);
                context.outbox.write_pong(pong);
                Ok(None)
            }
            Message::Pong => {
                if !self.dialect.is_engine() {
                    self.pong(context);
                }
                Ok(None)
            }
            Message::Unfinished => Ok(None),
        }
    }

    /// One packet of a payload; it must be UTF-8, as a payload is text.
    fn payload_packet(&mut self, context: &mut Context, packet: &[u8]) -> Result<Option<Stage>, Failure> {
        self.heard(context);
        let text = std::str::from_utf8(packet).map_err(|_| MALFORMED)?;
        let packet = engineio::Packet::decode_in_payload(text).ok_or(MALFORMED)?;
        self.packet(context, packet)
    }

    /// Whatever comes is a sign of life, as any packet is to engine.io; only a pong ends the wait.
    fn heard(&mut self, context: &Context) {
        if self.heartbeat.is_waiting {
            self.heartbeat.at = context.now + context.settings.ping_timeout_ms;
        }
    }

    /// The peer closes: answer in kind (RFC 6455 5.5.1). On `/ws` a normal close is the client's goodbye.
    fn peer_closed(&mut self, context: &mut Context, payload: &[u8]) -> Result<Stage, Failure> {
        let code = websocket::decode_close(payload).map_err(|code| CloseReason::ProtocolError(code.into()))?;
        let is_goodbye = self.dialect == Dialect::Plain && matches!(code, None | Some(CloseCode::Normal));
        context.outbox.write(websocket::encode_close(code));
        self.leave(context, if is_goodbye { Leave::Deliberate } else { Leave::Lost });
        Ok(context.closed(CloseReason::PeerClosed))
    }

    /// Tells the caller that the client is gone, if it knows of the client and has not been told.
    fn leave(&mut self, context: &mut Context, leave: Leave) {
        if std::mem::take(&mut self.is_known) {
            context.outbox.push(Output::Left(leave));
        }
    }
}

impl Closing {
    /// Waits for the peer's close frame among what it had said before it knew (RFC 6455 5.5.1).
    pub fn step(&mut self, context: &mut Context, bytes: &mut [u8]) -> Step {
        if self.is_deaf {
            return if bytes.is_empty() { Step::Wait } else { Step::Used(bytes.len()) };
        }
        // Whether RSV1 may be set is not worth remembering now: nothing is inflated.
        match decode_frame(bytes, context.settings.message_bytes_max, true) {
            Ok(None) => Step::Wait,
            Ok(Some(frame)) if frame.opcode != OpCode::Control(Control::Close) => Step::Used(frame.length),
            _ => Step::Become(bytes.len(), context.closed(self.reason)),
        }
    }
}

//! The WebSocket stage of a connection: messages out of frames, heartbeats, the closing handshake, and what Engine.IO
//! and Socket.IO say in the messages.
//!
//! Bound: one message of `message_bytes_max`, fragments and the unfinished frame together. Which events exist and what
//! they do is not known here. Where the protocols leave it open, the behaviour is engine.io 6's and socket.io 4's.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{CloseReason, Context, Output, Stage, Step};
use crate::base::{Time, Token};
use crate::message::client::Refusal;
use crate::message::{ClientEvent, Leave};
use crate::wire::upgrade::Dialect;
use crate::wire::websocket::{self, CloseCode, Control, Data, EncodedHeader, Frame, OpCode, decode_frame};
use crate::wire::{engineio, socketio};

/// Events shorter than this are copied behind their frame header; longer ones are shared.
const JOINED_BYTES_MAX: usize = 512;

/// What the peer did that ends the connection.
type Failure = CloseReason;

const MALFORMED: Failure = CloseReason::ProtocolError(1002);
const UNSUPPORTED: Failure = CloseReason::ProtocolError(1003);
const NOT_UTF8: Failure = CloseReason::ProtocolError(1007);

/// An open WebSocket. Its heartbeat runs from the upgrade on, whether or not a session is connected inside.
pub(super) struct Socket {
    dialect: Dialect,
    session: Session,
    /// The caller has heard of this client and not that it left.
    is_known: bool,
    /// The fragments of an unfinished text message.
    fragments: Option<Vec<u8>>,
    heartbeat: Heartbeat,
    /// When a client that is nobody is closed.
    pub unbound_until: Option<Time>,
}

/// How far the session inside the WebSocket is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Session {
    /// Not connected: no CONNECT yet, or it was refused.
    Opened,
    /// A CONNECT is with the caller.
    Asked,
    Connected,
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
    /// The socket after the handshake was answered.
    pub fn open(context: &mut Context, dialect: Dialect) -> Self {
        let settings = context.settings;
        let mut socket = Self {
            dialect,
            session: Session::Opened,
            is_known: false,
            fragments: None,
            heartbeat: Heartbeat { at: context.now + settings.ping_interval_ms, is_waiting: false },
            unbound_until: Some(context.now + settings.unbound_timeout_ms),
        };
        match dialect {
            Dialect::SocketIo => {
                let sid = session_id(context.sid_seed, "Engine.IO");
                let (interval, timeout) = (settings.ping_interval_ms, settings.ping_timeout_ms);
                let open = engineio::encode_open(&sid, interval, timeout, settings.message_bytes_max);
                context.outbox.write(websocket::encode_text(&[open.as_bytes()]));
            }
            Dialect::Plain => socket.ask(context, None),
        }
        socket
    }

    /// Whether a CONNECT is with the caller: what the client says behind it waits for the answer.
    pub fn is_asked(&self) -> bool {
        self.session == Session::Asked
    }

    /// When the next heartbeat, its answer, or the client's identity is due.
    pub fn deadline(&self) -> Time {
        self.unbound_until.map_or(self.heartbeat.at, |until| until.min(self.heartbeat.at))
    }

    /// Bytes held in memory of its own.
    pub fn held_bytes(&self) -> usize {
        self.fragments.as_ref().map_or(0, Vec::capacity)
    }

    /// Takes the next frame. One that breaks a rule fails the connection (RFC 6455 7.1.7): what follows is not read.
    pub fn step(&mut self, context: &mut Context, bytes: &mut [u8]) -> Step {
        if self.is_asked() {
            return Step::Wait;
        }
        let held = self.fragments.as_ref().map_or(0, Vec::len);
        match decode_frame(bytes, context.settings.message_bytes_max - held) {
            Ok(None) => Step::Wait,
            Ok(Some(frame)) => {
                let length = frame.length;
                match self.receive(context, &frame) {
                    Ok(None) => Step::Used(length),
                    Ok(Some(stage)) => Step::Become(length, stage),
                    Err(failure) => Step::Become(length, self.close(context, failure)),
                }
            }
            Err(CloseCode::Size) => Step::Become(bytes.len(), self.close(context, CloseReason::MessageTooBig)),
            Err(code) => Step::Become(bytes.len(), self.close(context, CloseReason::ProtocolError(code.into()))),
        }
    }

    /// Closes who stays nobody (contract 8, D16), pings, and gives up on who does not answer.
    ///
    /// Socket.IO has a time of its own for the CONNECT (45 s); the unbound timeout is shorter and covers it.
    pub fn timeout(&mut self, context: &mut Context) -> Option<Stage> {
        if self.unbound_until.is_some_and(|until| until <= context.now) {
            let is_connected = self.session == Session::Connected;
            let reason = if is_connected { CloseReason::UnboundTimeout } else { CloseReason::ConnectTimeout };
            return Some(self.close(context, reason));
        }
        if self.heartbeat.at > context.now {
            return None;
        }
        if self.heartbeat.is_waiting {
            return Some(self.abandon(context, CloseReason::PingTimeout));
        }
        self.heartbeat = Heartbeat { at: context.now + context.settings.ping_timeout_ms, is_waiting: true };
        context.outbox.write(match self.dialect {
            Dialect::SocketIo => websocket::encode_text(&[engineio::PING.as_bytes()]),
            Dialect::Plain => websocket::encode_frame(OpCode::Control(Control::Ping), &[]),
        });
        None
    }

    /// The caller takes the client in; a stale answer is nothing.
    pub fn accept_connect(&mut self, context: &mut Context) {
        if !self.is_asked() {
            return;
        }
        self.session = Session::Connected;
        if self.dialect == Dialect::SocketIo {
            let sid = session_id(context.sid_seed, "Socket.IO");
            self.write_packet(context, &socketio::encode_connected(&sid));
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

    /// Writes an event as one unfragmented text frame.
    pub fn send(&mut self, context: &mut Context, event_json: &Bytes) {
        if self.session != Session::Connected {
            return;
        }
        let prefix: &[&str] = match self.dialect {
            Dialect::SocketIo => &[engineio::MESSAGE, socketio::EVENT],
            Dialect::Plain => &[],
        };
        let prefix_length: usize = prefix.iter().map(|part| part.len()).sum();
        let header = EncodedHeader::new(OpCode::Data(Data::Text), prefix_length + event_json.len());
        let is_joined = event_json.len() < JOINED_BYTES_MAX;
        let joined_length = if is_joined { event_json.len() } else { 0 };
        let mut head = Vec::with_capacity(header.as_bytes().len() + prefix_length + joined_length);
        head.extend_from_slice(header.as_bytes());
        prefix.iter().for_each(|part| head.extend_from_slice(part.as_bytes()));
        head.extend_from_slice(&event_json[..joined_length]);
        let body = if is_joined { Bytes::new() } else { event_json.clone() };
        context.outbox.write_pair(Bytes::from(head), body);
    }

    /// Ends the session in order (RFC 6455 7.1.2), or at once when the peer cannot be told.
    pub fn close(&mut self, context: &mut Context, reason: CloseReason) -> Stage {
        if reason.is_abrupt() {
            return self.abandon(context, reason);
        }
        let is_connected = self.session == Session::Connected;
        if reason.disconnects() && is_connected && self.dialect == Dialect::SocketIo {
            self.write_packet(context, socketio::DISCONNECT);
        }
        context.outbox.write(websocket::encode_close(Some(reason.code())));
        self.leave(context, reason.leave());
        let until = context.now + context.settings.close_timeout_ms;
        Stage::Closing(Closing { until, reason, is_deaf: reason.is_failure() })
    }

    /// Ends the session without a word.
    pub fn abandon(&mut self, context: &mut Context, reason: CloseReason) -> Stage {
        context.outbox.discard_writes();
        self.leave(context, reason.leave());
        context.closed(reason)
    }

    /// One frame of the peer: control frames may come between fragments (RFC 6455 5.4), data frames may not.
    fn receive(&mut self, context: &mut Context, frame: &Frame) -> Result<Option<Stage>, Failure> {
        // Any frame is a sign of life, as any packet is to engine.io; only a pong ends the wait.
        if self.heartbeat.is_waiting {
            self.heartbeat.at = context.now + context.settings.ping_timeout_ms;
        }
        match frame.opcode {
            OpCode::Control(Control::Close) => self.peer_closed(context, frame.payload).map(Some),
            OpCode::Control(Control::Ping) => {
                let pong = websocket::encode_frame(OpCode::Control(Control::Pong), &[frame.payload]);
                context.outbox.write_pong(pong);
                Ok(None)
            }
            OpCode::Control(_) => {
                if self.dialect == Dialect::Plain {
                    self.pong(context);
                }
                Ok(None)
            }
            OpCode::Data(Data::Continue) => self.continued(context, frame),
            OpCode::Data(_) if self.fragments.is_some() => Err(MALFORMED),
            OpCode::Data(Data::Text) if frame.is_final => self.text(context, frame.payload),
            OpCode::Data(Data::Text) => {
                self.fragments = Some(frame.payload.to_vec());
                Ok(None)
            }
            OpCode::Data(_) => Err(UNSUPPORTED),
        }
    }

    /// A further fragment (RFC 6455 5.4).
    fn continued(&mut self, context: &mut Context, frame: &Frame) -> Result<Option<Stage>, Failure> {
        let mut message = self.fragments.take().ok_or(MALFORMED)?;
        message.extend_from_slice(frame.payload);
        if frame.is_final {
            return self.text(context, &message);
        }
        self.fragments = Some(message);
        Ok(None)
    }

    /// A whole text message (RFC 6455 8.1: it must be UTF-8).
    fn text(&mut self, context: &mut Context, bytes: &[u8]) -> Result<Option<Stage>, Failure> {
        let text = std::str::from_utf8(bytes).map_err(|_| NOT_UTF8)?;
        if self.dialect == Dialect::Plain {
            return event(context, text).map(|()| None);
        }
        match engineio::Packet::decode(text).ok_or(MALFORMED)? {
            engineio::Packet::Message(text) => self.packet(context, text),
            engineio::Packet::Pong => {
                self.pong(context);
                Ok(None)
            }
            engineio::Packet::Close => Ok(Some(self.close(context, CloseReason::ClientDisconnect))),
            // In version 4 only the server pings; a probe belongs to an upgrade, which this is not.
            engineio::Packet::Ping => Err(MALFORMED),
            engineio::Packet::Open | engineio::Packet::Upgrade | engineio::Packet::Noop => Ok(None),
        }
    }

    /// A Socket.IO packet. One for a namespace that is not connected closes, but for CONNECT itself.
    fn packet(&mut self, context: &mut Context, text: &str) -> Result<Option<Stage>, Failure> {
        let packet = socketio::Packet::decode(text).ok_or(MALFORMED)?;
        let is_connected = packet.namespace == "/" && self.session == Session::Connected;
        match packet.kind {
            socketio::Kind::Connect if is_connected => Err(MALFORMED),
            socketio::Kind::Connect => {
                let token = socketio::decode_token(packet.data).ok_or(MALFORMED)?;
                if packet.namespace == "/" {
                    self.ask(context, token);
                } else {
                    let refusal = socketio::encode_connect_error(packet.namespace, "Invalid namespace");
                    self.write_packet(context, &refusal);
                }
                Ok(None)
            }
            socketio::Kind::Event if is_connected => event(context, packet.data).map(|()| None),
            socketio::Kind::Disconnect if is_connected => Ok(Some(self.close(context, CloseReason::ClientDisconnect))),
            socketio::Kind::Ack if is_connected => Ok(None),
            _ => Err(MALFORMED),
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

    /// Hands a CONNECT to the caller, who answers it once.
    fn ask(&mut self, context: &mut Context, token: Option<Token>) {
        self.session = Session::Asked;
        self.is_known = true;
        context.outbox.push(Output::Connect { token });
    }

    /// Tells the caller that the client is gone, if it knows of the client and has not been told.
    fn leave(&mut self, context: &mut Context, leave: Leave) {
        if std::mem::take(&mut self.is_known) {
            context.outbox.push(Output::Left(leave));
        }
    }

    /// The answer to a heartbeat: the next pause begins.
    fn pong(&mut self, context: &Context) {
        self.heartbeat = Heartbeat { at: context.now + context.settings.ping_interval_ms, is_waiting: false };
    }

    /// Writes a Socket.IO packet.
    fn write_packet(&self, context: &mut Context, packet: &str) {
        context.outbox.write(websocket::encode_text(&[engineio::MESSAGE.as_bytes(), packet.as_bytes()]));
    }
}

impl Closing {
    /// Waits for the peer's close frame among what it had said before it knew (RFC 6455 5.5.1).
    pub fn step(&mut self, context: &mut Context, bytes: &mut [u8]) -> Step {
        if self.is_deaf {
            return if bytes.is_empty() { Step::Wait } else { Step::Used(bytes.len()) };
        }
        match decode_frame(bytes, context.settings.message_bytes_max) {
            Ok(None) => Step::Wait,
            Ok(Some(frame)) if frame.opcode != OpCode::Control(Control::Close) => Step::Used(frame.length),
            _ => Step::Become(bytes.len(), context.closed(self.reason)),
        }
    }
}

/// Hands up the event in `json`; one that nobody listens to is ignored.
fn event(context: &mut Context, json: &str) -> Result<(), Failure> {
    match ClientEvent::decode(json.as_bytes()) {
        Ok(event) => context.outbox.push(Output::Event(event)),
        Err(Refusal::Malformed(text)) => context.outbox.push(Output::Refused(text)),
        Err(Refusal::Unknown) => {}
        Err(Refusal::NotAnEvent) => return Err(MALFORMED),
    }
    Ok(())
}

/// A session id: 120 bits in 20 characters, unlike for each purpose and telling nothing of the seed.
fn session_id(seed: &[u8; 16], purpose: &str) -> String {
    let digest = Sha256::new().chain_update(seed).chain_update(purpose).finalize();
    URL_SAFE_NO_PAD.encode(&digest[..15])
}

//! What the messages of a session say: Engine.IO packets, Socket.IO packets and their attachments, events.
//!
//! Bound: one packet that waits for attachments, of which there are [`ATTACHMENTS_MAX`](crate::base::limits) at most,
//! together within `message_bytes_max`. Which events exist and what they do is not known here.

use super::budget::Verdict;
use super::frames::{Failure, MALFORMED};
use super::socket::{Session, Socket};
use super::{CloseReason, Context, EventClass, Output, Stage};
use crate::base::Time;
use crate::base::limits::ATTACHMENTS_TIMEOUT_MS;
use crate::message::ClientEvent;
use crate::message::client::Refusal;
use crate::wire::upgrade::Dialect;
use crate::wire::{engineio, socketio};

const UNSUPPORTED: Failure = CloseReason::ProtocolError(1003);

/// No event of the contract carries binary data (contract 3.1).
const NO_BINARY: &str = "Binary data is not supported";

/// A Socket.IO packet of which attachments are missing.
pub(super) struct Attached {
    packet: String,
    missing: usize,
    bytes: usize,
    buffers: Vec<Vec<u8>>,
    pub until: Time,
}

impl Attached {
    /// Bytes held in memory of its own.
    pub fn held_bytes(&self) -> usize {
        self.packet.capacity() + self.buffers.iter().map(Vec::capacity).sum::<usize>()
    }
}

/// What comes of a message: the next stage, if it ends this one.
type Outcome = Result<Option<Stage>, Failure>;

impl Socket {
    /// A whole text message.
    pub(super) fn text(&mut self, context: &mut Context, text: &str) -> Outcome {
        match self.dialect {
            Dialect::Plain => self.event(context, ClientEvent::decode(text)).map(|()| None),
            Dialect::Echo => {
                self.write_text(context, &[text]);
                Ok(None)
            }
            _ => self.packet(context, engineio::Packet::decode(text).ok_or(MALFORMED)?),
        }
    }

    /// A whole binary message: an attachment, or nothing that is known here.
    pub(super) fn binary(&mut self, context: &mut Context, bytes: &[u8]) -> Outcome {
        if matches!(self.dialect, Dialect::Echo | Dialect::EngineEcho) {
            self.write_binary(context, bytes);
            return Ok(None);
        }
        let Some(attached) = &mut self.attached else { return Err(UNSUPPORTED) };
        attached.bytes += bytes.len();
        if attached.bytes > context.settings.message_bytes_max {
            return Err(CloseReason::MessageTooBig);
        }
        attached.missing -= 1;
        attached.buffers.push(bytes.to_vec());
        if attached.missing > 0 {
            return Ok(None);
        }
        let Some(attached) = self.attached.take() else { return Ok(None) };
        let packet = socketio::Packet::decode(&attached.packet).ok_or(MALFORMED)?;
        self.complete(context, packet, &attached.buffers)
    }

    /// An Engine.IO packet.
    pub(super) fn packet(&mut self, context: &mut Context, packet: engineio::Packet) -> Outcome {
        match packet {
            engineio::Packet::Message(text) if self.dialect == Dialect::EngineEcho => {
                self.write_packet(context, text);
                Ok(None)
            }
            engineio::Packet::Message(text) => self.message(context, text),
            engineio::Packet::Binary(bytes) => self.binary(context, &bytes),
            engineio::Packet::Pong => {
                self.pong(context);
                Ok(None)
            }
            // The transport closes; whoever leaves for good says so to Socket.IO first.
            engineio::Packet::Close => Ok(Some(self.close(context, CloseReason::PeerClosed))),
            // In version 4 only the server pings; a probe belongs to an upgrade, which this is not.
            engineio::Packet::Ping => Err(MALFORMED),
            engineio::Packet::Open | engineio::Packet::Upgrade | engineio::Packet::Noop => Ok(None),
        }
    }

    /// A Socket.IO packet, whose attachments may be yet to come. Until they are here no other may begin.
    fn message(&mut self, context: &mut Context, text: &str) -> Outcome {
        let packet = socketio::Packet::decode(text).ok_or(MALFORMED)?;
        if self.attached.is_some() {
            return Err(MALFORMED);
        }
        if packet.attachments > 0 {
            // Who is not connected has nothing to attach to.
            if !self.is_connected(packet.namespace) || !socketio::placeholders_fit(packet.data, packet.attachments) {
                return Err(MALFORMED);
            }
            let until = context.now + ATTACHMENTS_TIMEOUT_MS;
            let (packet, missing, bytes) = (text.to_owned(), packet.attachments, text.len());
            self.attached = Some(Box::new(Attached { packet, missing, bytes, buffers: Vec::new(), until }));
            return Ok(None);
        }
        self.complete(context, packet, &[])
    }

    /// Whether the client is connected to the namespace.
    pub(super) fn is_connected(&self, namespace: &str) -> bool {
        match namespace {
            "/" => self.session == Session::Connected,
            "/custom" => self.is_custom_connected,
            _ => false,
        }
    }

    /// A Socket.IO packet with all that belongs to it. One for a namespace that is not connected closes the session,
    /// but for CONNECT itself.
    fn complete(&mut self, context: &mut Context, packet: socketio::Packet, attachments: &[Vec<u8>]) -> Outcome {
        if self.dialect == Dialect::SocketIoEcho {
            return self.echo(context, packet, attachments).map(|()| None);
        }
        let is_connected = self.is_connected(packet.namespace);
        match packet.kind {
            socketio::Kind::Connect if is_connected => return Err(MALFORMED),
            socketio::Kind::Connect => {
                let token = socketio::decode_token(packet.data).ok_or(MALFORMED)?;
                if packet.namespace == "/" {
                    self.ask(context, token);
                } else {
                    let refusal = socketio::encode_connect_error(packet.namespace, "Invalid namespace");
                    self.write_packet(context, &refusal);
                }
            }
            socketio::Kind::Event if is_connected => {
                match packet.attachments {
                    0 => self.event(context, ClientEvent::decode(packet.data))?,
                    _ => self.event(context, Err(Refusal::Malformed(NO_BINARY)))?,
                }
                if let Some(id) = packet.ack {
                    context.outbox.push(Output::Acknowledge(id.into()));
                }
            }
            socketio::Kind::Disconnect if is_connected => {
                return Ok(Some(self.close(context, CloseReason::ClientDisconnect)));
            }
            socketio::Kind::Ack if is_connected => {}
            _ => return Err(MALFORMED),
        }
        Ok(None)
    }

    /// Hands up an event that is within the budget of its class; one that nobody listens to is ignored, but counts.
    fn event(&mut self, context: &mut Context, said: Result<ClientEvent, Refusal>) -> Result<(), Failure> {
        let class = said.as_ref().map_or(EventClass::Other, EventClass::of);
        let verdict = match said {
            Err(Refusal::NotAnEvent) => return Err(MALFORMED),
            _ => self.budget.spend(context.now, class, &context.settings.allowances),
        };
        match (verdict, said) {
            (Verdict::Granted, Ok(event)) => context.outbox.push(Output::Event(event)),
            (Verdict::Granted, Err(Refusal::Malformed(text))) => context.outbox.push(Output::Refused(text)),
            (Verdict::Granted, Err(_)) => {}
            (Verdict::Ignored, _) => {}
            (verdict, _) => context.outbox.push(Output::OverBudget { class, is_last: verdict == Verdict::Exhausted }),
        }
        Ok(())
    }
}

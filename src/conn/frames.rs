//! The messages of one WebSocket, put together from its frames (RFC 6455 5.4, 6.2).
//!
//! Bound: one message of `message_bytes_max`, in one buffer however many fragments it comes in.

use super::CloseReason;
use crate::wire::websocket::{CloseCode, Control, Data, Frame, OpCode, decode_frame};

/// What the peer did that ends the connection.
pub(super) type Failure = CloseReason;

pub(super) const MALFORMED: Failure = CloseReason::ProtocolError(1002);
const NOT_UTF8: Failure = CloseReason::ProtocolError(1007);

/// The unfinished message, if there is one.
#[derive(Default)]
pub(super) struct Frames {
    unfinished: Option<Box<Unfinished>>,
}

struct Unfinished {
    is_text: bool,
    bytes: Vec<u8>,
}

/// A whole message, or what came between its fragments.
pub(super) enum Message<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
    Ping(&'a [u8]),
    Pong,
    /// The payload of the close frame.
    Close(&'a [u8]),
    /// A fragment was taken; there is no message yet.
    Unfinished,
}

impl Frames {
    /// Bytes held in memory of its own.
    pub fn held_bytes(&self) -> usize {
        self.unfinished.as_ref().map_or(0, |message| message.bytes.capacity())
    }

    /// Takes the next frame and hands what it completes to `take`; gives the bytes used with what that gave, `None`
    /// while no frame is whole.
    ///
    /// # Errors
    /// The peer broke a rule (RFC 6455 7.1.7): what follows cannot be read.
    pub fn next<T>(
        &mut self,
        bytes: &mut [u8],
        message_bytes_max: usize,
        take: impl FnOnce(Message) -> Result<T, Failure>,
    ) -> Result<Option<(usize, T)>, Failure> {
        let held = self.unfinished.as_ref().map_or(0, |message| message.bytes.len());
        let frame = decode_frame(bytes, message_bytes_max - held).map_err(|code| match code {
            CloseCode::Size => CloseReason::MessageTooBig,
            code => CloseReason::ProtocolError(code.into()),
        })?;
        let Some(frame) = frame else { return Ok(None) };
        let taken = match frame.opcode {
            OpCode::Control(Control::Close) => take(Message::Close(frame.payload)),
            OpCode::Control(Control::Ping) => take(Message::Ping(frame.payload)),
            OpCode::Control(_) => take(Message::Pong),
            OpCode::Data(kind) => self.data(kind, &frame, take),
        };
        Ok(Some((frame.length, taken?)))
    }

    /// A data frame: a message, or a fragment of one. Fragments of two messages never mix (RFC 6455 5.4).
    fn data<T>(
        &mut self,
        kind: Data,
        frame: &Frame,
        take: impl FnOnce(Message) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let is_text = match (kind, self.unfinished.take()) {
            (Data::Continue, Some(mut message)) => {
                message.bytes.extend_from_slice(frame.payload);
                if frame.is_final {
                    return take(whole(message.is_text, &message.bytes)?);
                }
                self.unfinished = Some(message);
                return take(Message::Unfinished);
            }
            (Data::Text, None) => true,
            (Data::Binary, None) => false,
            _ => return Err(MALFORMED),
        };
        if frame.is_final {
            return take(whole(is_text, frame.payload)?);
        }
        self.unfinished = Some(Box::new(Unfinished { is_text, bytes: frame.payload.to_vec() }));
        take(Message::Unfinished)
    }
}

/// A whole message; text must be UTF-8 (RFC 6455 8.1).
fn whole(is_text: bool, bytes: &[u8]) -> Result<Message<'_>, Failure> {
    match is_text {
        true => std::str::from_utf8(bytes).map(Message::Text).map_err(|_| NOT_UTF8),
        false => Ok(Message::Binary(bytes)),
    }
}

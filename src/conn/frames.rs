//! The messages of one WebSocket, put together from its frames (RFC 6455 5.4, 6.2).
//!
//! Bound: one message of `message_bytes_max`, in one buffer however many fragments it comes in.

use std::borrow::Cow;

use super::CloseReason;
use super::deflation::Deflation;
use crate::wire::websocket::{CloseCode, Control, Data, Frame, OpCode, decode_frame};

/// What the peer did that ends the connection.
pub(super) type Failure = CloseReason;

pub(super) const MALFORMED: Failure = CloseReason::ProtocolError(1002);
const NOT_UTF8: Failure = CloseReason::ProtocolError(1007);

/// What is remembered from one frame to the next.
#[derive(Default)]
pub(super) struct Frames {
    unfinished: Option<Box<Unfinished>>,
    /// If compression was agreed on.
    pub deflation: Option<Deflation>,
}

/// A message of which frames are missing.
struct Unfinished {
    form: Form,
    bytes: Vec<u8>,
}

/// What the first frame says of a message.
#[derive(Clone, Copy)]
struct Form {
    is_text: bool,
    is_compressed: bool,
}

/// A whole message, or what came between its fragments.
pub(super) enum Message<'a> {
    Text(Cow<'a, str>),
    Binary(Cow<'a, [u8]>),
    Ping(&'a [u8]),
    Pong,
    /// The payload of the close frame.
    Close(&'a [u8]),
    /// A fragment was taken; there is no message yet.
    Unfinished,
}

impl Frames {
    /// Frames of a WebSocket whose handshake agreed on this.
    pub fn new(deflation: Option<Deflation>) -> Self {
        Self { unfinished: None, deflation }
    }

    /// Bytes held in memory of its own.
    pub fn held_bytes(&self) -> usize {
        let unfinished = self.unfinished.as_ref().map_or(0, |message| message.bytes.capacity());
        unfinished + self.deflation.as_ref().map_or(0, Deflation::held_bytes)
    }

    /// Takes the next frame; gives the bytes used and what it completes, `None` while no frame is whole.
    ///
    /// # Errors
    /// The peer broke a rule (RFC 6455 7.1.7): what follows cannot be read.
    pub fn next<'a>(
        &mut self,
        bytes: &'a mut [u8],
        message_bytes_max: usize,
    ) -> Result<Option<(usize, Message<'a>)>, Failure> {
        let held = self.unfinished.as_ref().map_or(0, |message| message.bytes.len());
        let frame = decode_frame(bytes, message_bytes_max - held, self.deflation.is_some());
        let frame = frame.map_err(|code| match code {
            CloseCode::Size => CloseReason::MessageTooBig,
            code => CloseReason::ProtocolError(code.into()),
        })?;
        let Some(frame) = frame else { return Ok(None) };
        let message = match frame.opcode {
            OpCode::Control(Control::Close) => Message::Close(frame.payload),
            OpCode::Control(Control::Ping) => Message::Ping(frame.payload),
            OpCode::Control(_) => Message::Pong,
            OpCode::Data(kind) => self.data(kind, &frame, message_bytes_max)?,
        };
        Ok(Some((frame.length, message)))
    }

    /// A data frame: a message, or a fragment of one. Fragments of two messages never mix (RFC 6455 5.4).
    fn data<'a>(&mut self, kind: Data, frame: &Frame<'a>, bytes_max: usize) -> Result<Message<'a>, Failure> {
        let is_compressed = frame.is_compressed;
        let form = match (kind, self.unfinished.take()) {
            (Data::Continue, Some(mut message)) => {
                message.bytes.extend_from_slice(frame.payload);
                if frame.is_final {
                    return self.whole(message.form, Cow::Owned(message.bytes), bytes_max);
                }
                self.unfinished = Some(message);
                return Ok(Message::Unfinished);
            }
            (Data::Text, None) => Form { is_text: true, is_compressed },
            (Data::Binary, None) => Form { is_text: false, is_compressed },
            _ => return Err(MALFORMED),
        };
        if frame.is_final {
            return self.whole(form, Cow::Borrowed(frame.payload), bytes_max);
        }
        self.unfinished = Some(Box::new(Unfinished { form, bytes: frame.payload.to_vec() }));
        Ok(Message::Unfinished)
    }

    /// A whole message, inflated if it has to be; text must be UTF-8 (RFC 6455 8.1).
    fn whole<'a>(&mut self, form: Form, payload: Cow<'a, [u8]>, bytes_max: usize) -> Result<Message<'a>, Failure> {
        let bytes = match &mut self.deflation {
            Some(deflation) if form.is_compressed => Cow::Owned(deflation.inflate(&payload, bytes_max)?),
            _ => payload,
        };
        if !form.is_text {
            return Ok(Message::Binary(bytes));
        }
        Ok(Message::Text(match bytes {
            Cow::Borrowed(bytes) => Cow::Borrowed(std::str::from_utf8(bytes).map_err(|_| NOT_UTF8)?),
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8(bytes).map_err(|_| NOT_UTF8)?),
        }))
    }
}

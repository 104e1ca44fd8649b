//! What a connection wants done, in order.

use bytes::Bytes;

use super::{CloseReason, Leave};
use crate::base::Token;
use crate::message::ClientEvent;
use crate::message::http::Request;

/// One thing to do for a connection.
#[derive(Debug)]
pub enum Output {
    /// Write these bytes; tell [`super::Conn::written`] as they leave.
    Write(Bytes),
    /// Answer this by [`super::Conn::respond`]. One is outstanding at a time.
    Request(Box<Request>),
    /// Answer this by [`super::Conn::accept_connect`] or [`super::Conn::refuse_connect`]. One is outstanding at a time.
    Connect {
        /// What the handshake offered (contract 3.2); always `None` on `/ws`.
        token: Option<Token>,
    },
    /// The client says this.
    Event(ClientEvent),
    /// The client said something with a payload that the event does not take: answer `error` with this text.
    Refused(&'static str),
    /// The client of a [`Output::Connect`] is gone, unless that was refused: exactly once, before the close.
    Left(Leave),
    /// The last output: once the writes before it are flushed, close the socket ([`CloseReason::is_abrupt`]: at once).
    Close(CloseReason),
}

//! What a connection wants done, in order.

use super::CloseReason;
use crate::base::Token;
use crate::message::{ClientEvent, Leave};
use crate::wire::http::Request;

/// One thing to do for a connection.
#[derive(Debug)]
pub enum Output {
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
    /// The last output: once the chunks are written, close the socket ([`CloseReason::is_abrupt`]: at once).
    Close(CloseReason),
}

//! What a connection wants done, in order.

use super::{CloseReason, EventClass};
use crate::base::{EngineSid, Token};
use crate::message::{ClientEvent, Leave};
use crate::wire::http::Request;
use crate::wire::upgrade::{EngineAsk, EngineRefusal};

/// What is spoken over a connection, as operators count it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// Requests, those that carry a session by polling too.
    Http,
    /// Events over WebSocket, without Engine.IO.
    Plain,
    /// Engine.IO over WebSocket.
    Engine,
    /// An Engine.IO session by polling.
    Polling,
}

impl Transport {
    /// A name for each, in the order of the variants.
    pub const NAMES: [&'static str; 4] = ["http", "websocket", "engineio_websocket", "engineio_polling"];
}

/// One thing to do for a connection.
#[derive(Debug)]
pub enum Output {
    /// Answer this by [`super::Conn::respond`]. One is outstanding at a time.
    Request(Box<Request>),
    /// A request on the Engine.IO path that concerns another [`super::Conn`], the session, or none: answer it by
    /// [`super::Conn::respond`]; a 101 only to an upgrade that goes on.
    Engine { ask: Result<EngineAsk, EngineRefusal>, request: Box<Request> },
    /// A payload for a session did not come whole, or is too long: the session cannot go on.
    PostFailed { sid: EngineSid, reason: CloseReason },
    /// The client tries the WebSocket to which the session is to be upgraded: end the poll that waits.
    Probed(EngineSid),
    /// The client goes on with the session here: hand this to it by [`super::Conn::upgrade`], with the socket.
    Upgraded(EngineSid),
    /// Answer this by [`super::Conn::accept_connect`] or [`super::Conn::refuse_connect`]. One is outstanding at a time.
    Connect {
        /// What the handshake offered (contract 3.2); always `None` on `/ws`.
        token: Option<Token>,
    },
    /// The client says this.
    Event(ClientEvent),
    /// The client said something with a payload that the event does not take: answer `error` with this text.
    Refused(&'static str),
    /// The client says more of this class than it may: answer `error`, [`Output::TOO_MANY_EVENTS`]. The event is dropped.
    OverBudget {
        class: EventClass,
        /// It has gone on for too long: close, once that is said.
        is_last: bool,
    },
    /// Once all before it is done, answer by [`super::Conn::acknowledge`].
    Acknowledge(Box<str>),
    /// The client of a [`Output::Connect`] is gone, unless that was refused: exactly once, before the close.
    Left(Leave),
    /// The last output: once the chunks are written, close the socket ([`CloseReason::is_abrupt`]: at once).
    Close(CloseReason),
}

impl Output {
    /// What [`Output::OverBudget`] is answered with.
    pub const TOO_MANY_EVENTS: &'static str = "Too many events";

    /// The Engine.IO session that it concerns, which another [`super::Conn`] is.
    pub fn session(&self) -> Option<EngineSid> {
        match self {
            Self::Engine { ask: Ok(EngineAsk::Poll(sid) | EngineAsk::Post(sid) | EngineAsk::Upgrade(sid)), .. } => {
                Some(*sid)
            }
            Self::PostFailed { sid, .. } | Self::Probed(sid) | Self::Upgraded(sid) => Some(*sid),
            _ => None,
        }
    }
}

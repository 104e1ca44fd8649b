//! The opening handshake of WebSocket (RFC 6455 4.2) and the checks of an Engine.IO v4 open.
//!
//! The one extension is permessage-deflate; subprotocols are not negotiated: an answer that names none has refused
//! them (RFC 6455 4.2.2).
//! `Origin` is deliberately unchecked (contract 3.1): no cookie speaks for a user, so a foreign page gains nothing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tungstenite::handshake::derive_accept_key;

use super::deflate::{self, Agreement};
use super::http::{Head, HttpError, values};
use crate::base::EngineSid;
use crate::wire::http::{Method, Request, Response};

const BAD_METHOD: HttpError = HttpError::new(400, "A WebSocket handshake must be a GET");
const BAD_VERSION: HttpError = HttpError::new(426, "WebSocket version 13 is required");
const NO_UPGRADE: HttpError = HttpError::new(426, "This path speaks WebSocket");
const BAD_KEY: HttpError = HttpError::new(400, "Malformed Sec-WebSocket-Key");

/// What is spoken over a WebSocket, or by polling.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    /// Socket.IO v5 in Engine.IO v4.
    SocketIo,
    /// Every text message is an event's JSON array.
    Plain,
    /// For protocol suites: messages come back.
    Echo,
    /// For protocol suites: the messages in Engine.IO v4 come back.
    EngineEcho,
    /// For protocol suites: Socket.IO v5 whose events come back, in namespaces `/` and `/custom`.
    SocketIoEcho,
}

impl Dialect {
    /// Whether it is framed as Engine.IO, and may be spoken by polling.
    pub fn is_engine(self) -> bool {
        matches!(self, Self::SocketIo | Self::EngineEcho | Self::SocketIoEcho)
    }
}

/// The answer to a handshake, 101 with what was agreed on, or the refusal; 426 names the version that would do
/// (RFC 6455 4.4).
pub fn answer_handshake(request: &Request, policy: deflate::Policy) -> (Response, Option<Agreement>) {
    let agreed = accept_key(request)
        .and_then(|key| Ok((key, deflate::negotiate(values(request, "sec-websocket-extensions"), policy)?)));
    match agreed {
        Ok((key, agreement)) => {
            let response = Response::empty(101).header("Upgrade", "websocket").header("Sec-WebSocket-Accept", key);
            let response = match &agreement {
                Some(agreement) => response.header("Sec-WebSocket-Extensions", agreement.encode()),
                None => response,
            };
            (response, agreement)
        }
        Err(BAD_VERSION) => (BAD_VERSION.response().header("Sec-WebSocket-Version", "13"), None),
        Err(refusal) => (refusal.response(), None),
    }
}

/// RFC 6455 4.2.1; `Host`, `Upgrade` and `Connection` were checked with the head.
fn accept_key(request: &Request) -> Result<String, HttpError> {
    if request.method != Method::Get {
        return Err(BAD_METHOD);
    }
    if request.header("sec-websocket-version") != Some("13") {
        return Err(BAD_VERSION);
    }
    let mut keys = values(request, "sec-websocket-key");
    match (keys.next(), keys.next()) {
        (Some(key), None) if STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16) => {
            Ok(derive_accept_key(key.as_bytes()))
        }
        _ => Err(BAD_KEY),
    }
}

/// The refusal of a request to `/ws` that does not ask for WebSocket (RFC 9110 15.5.22).
pub fn refuse_plain_open(head: &Head) -> Option<Response> {
    (!head.asks_for_websocket()).then(|| NO_UPGRADE.response().header("Upgrade", "websocket"))
}

/// What a request on the Engine.IO path wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EngineAsk {
    /// A session by polling.
    Open,
    /// A session by WebSocket at once.
    OpenSocket,
    /// What there is to hear in a session.
    Poll(EngineSid),
    /// To say something in a session.
    Post(EngineSid),
    /// To go on with a session by WebSocket.
    Upgrade(EngineSid),
}

/// Why Engine.IO refuses a request, in the words and codes of its own server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EngineRefusal {
    UnknownTransport,
    UnknownSid,
    BadHandshakeMethod,
    BadRequest,
    UnsupportedProtocol,
}

impl EngineRefusal {
    /// The refusal as a response, with the `error` that every refusal has (contract 2.1).
    pub fn response(self) -> Response {
        let (code, message) = match self {
            Self::UnknownTransport => (0, "Transport unknown"),
            Self::UnknownSid => (1, "Session ID unknown"),
            Self::BadHandshakeMethod => (2, "Bad handshake method"),
            Self::BadRequest => (3, "Bad request"),
            Self::UnsupportedProtocol => (5, "Unsupported protocol version"),
        };
        Response::json(400, &serde_json::json!({ "code": code, "message": message, "error": message }))
    }
}

/// What a request on the Engine.IO path wants, judged in the order in which Engine.IO's own server does.
///
/// Whether the session exists, and by which transport, is for who keeps the sessions to say.
///
/// # Errors
/// A refusal that needs no look at the sessions.
pub fn decode_engine_ask(head: &Head) -> Result<EngineAsk, EngineRefusal> {
    let (request, asks_for_websocket) = (&head.request, head.asks_for_websocket());
    let is_websocket = match query_value(request, "transport") {
        Some("websocket") => true,
        Some("polling") => false,
        _ => return Err(EngineRefusal::UnknownTransport),
    };
    if let Some(sid) = query_value(request, "sid").filter(|sid| !sid.is_empty()) {
        let sid = EngineSid::decode(sid).ok_or(EngineRefusal::UnknownSid)?;
        if query_value(request, "EIO") != Some("4") {
            return Err(EngineRefusal::BadRequest);
        }
        return match (is_websocket, request.method) {
            (true, _) if asks_for_websocket => Ok(EngineAsk::Upgrade(sid)),
            (false, Method::Get) => Ok(EngineAsk::Poll(sid)),
            (false, Method::Post) => Ok(EngineAsk::Post(sid)),
            _ => Err(EngineRefusal::BadRequest),
        };
    }
    if request.method != Method::Get {
        return Err(EngineRefusal::BadHandshakeMethod);
    }
    if is_websocket && !asks_for_websocket {
        return Err(EngineRefusal::BadRequest);
    }
    if query_value(request, "EIO") != Some("4") {
        return Err(EngineRefusal::UnsupportedProtocol);
    }
    Ok(if is_websocket { EngineAsk::OpenSocket } else { EngineAsk::Open })
}

/// The first value of `name` in the query, undecoded: the values that count here need no escapes.
fn query_value<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

//! The opening handshake of WebSocket (RFC 6455 4.2) and the checks of an Engine.IO v4 open.
//!
//! Extensions and subprotocols are not negotiated: an answer that names none has refused them (RFC 6455 4.2.2).
//! `Origin` is deliberately unchecked (contract 3.1): no cookie speaks for a user, so a foreign page gains nothing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tungstenite::handshake::derive_accept_key;

use super::http::{Head, HttpError, values};
use crate::wire::http::{Method, Request, Response};

const BAD_METHOD: HttpError = HttpError::new(400, "A WebSocket handshake must be a GET");
const BAD_VERSION: HttpError = HttpError::new(426, "WebSocket version 13 is required");
const NO_UPGRADE: HttpError = HttpError::new(426, "This path speaks WebSocket");
const BAD_KEY: HttpError = HttpError::new(400, "Malformed Sec-WebSocket-Key");

/// Which dialect a path speaks over WebSocket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    /// `/socket.io/`: Socket.IO v5 in Engine.IO v4.
    SocketIo,
    /// `/ws`: every text message is an event's JSON array.
    Plain,
}

impl Dialect {
    /// The dialect spoken at `path`, if it is not an ordinary resource.
    pub fn of(path: &str) -> Option<Self> {
        match path {
            "/socket.io/" | "/socket.io" => Some(Self::SocketIo),
            "/ws" => Some(Self::Plain),
            _ => None,
        }
    }
}

/// The answer to a handshake: 101, or the refusal; 426 names the version that would do (RFC 6455 4.4).
pub fn answer_handshake(request: &Request) -> Response {
    accept_key(request).map_or_else(
        |refusal| {
            let response = refusal.response();
            if refusal == BAD_VERSION { response.header("Sec-WebSocket-Version", "13") } else { response }
        },
        |key| Response::empty(101).header("Upgrade", "websocket").header("Sec-WebSocket-Accept", key),
    )
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

/// Why Engine.IO does not open a session for this request, in the words, codes and order of its own server
/// (and with the `error` that every refusal has, contract 2.1); `None`
/// when the handshake may go on. Polling is not spoken yet, and a session opened by WebSocket cannot be joined by `sid`.
pub fn refuse_engine_open(head: &Head) -> Option<Response> {
    let transport = query_value(&head.request, "transport");
    let (code, message) = if !matches!(transport, Some("websocket" | "polling")) {
        (0, "Transport unknown")
    } else if query_value(&head.request, "sid").is_some_and(|sid| !sid.is_empty()) {
        (1, "Session ID unknown")
    } else if head.request.method != Method::Get {
        (2, "Bad handshake method")
    } else if transport == Some("websocket") && !head.asks_for_websocket() {
        (3, "Bad request")
    } else if query_value(&head.request, "EIO") != Some("4") {
        (5, "Unsupported protocol version")
    } else if transport == Some("polling") {
        (0, "Transport unknown")
    } else {
        return None;
    };
    Some(Response::json(400, &serde_json::json!({ "code": code, "message": message, "error": message })))
}

/// The first value of `name` in the query, undecoded: the values that count here need no escapes.
fn query_value<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

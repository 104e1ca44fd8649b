//! Why connections end: the catalogue that is counted, and what the product needs to know of it.

use crate::message::Leave;
use crate::wire::websocket::CloseCode;

/// Why a connection was closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseReason {
    /// The peer closed in order: between two requests, or by a WebSocket close frame.
    PeerClosed,
    /// The stream ended in the middle of a WebSocket session.
    PeerReset,
    /// The last response that the client or its HTTP version wanted is written.
    Finished,
    /// No answer to a heartbeat.
    PingTimeout,
    /// Connected, but not authenticated in time (contract 8, D16).
    UnboundTimeout,
    /// Upgraded, but no Socket.IO CONNECT was accepted in time.
    ConnectTimeout,
    /// The product refused the connection, in a dialect that has no other way to say so, or for its address.
    ConnectRefused,
    /// A WebSocket that was to take a session over did not in time.
    UpgradeTimeout,
    /// Two polls, or two posts, of one session at the same time: nobody could say in which order they count.
    RequestsOverlap,
    /// It began with no PROXY header, or with one that is malformed or not believed.
    BadProxyHeader,
    /// The request head, or the PROXY header before it, did not come in time.
    HeadTimeout,
    /// The request body did not come in time.
    BodyTimeout,
    /// No further request.
    IdleTimeout,
    /// The peer does not read what it is sent.
    SlowReader,
    /// The peer broke a rule of WebSocket, Engine.IO or Socket.IO; the WebSocket close code says which kind.
    ProtocolError(u16),
    /// A request that cannot be answered by a route: malformed, unsupported, a failed handshake.
    BadRequest,
    /// A WebSocket message or request body over its limit.
    MessageTooBig,
    /// A newer login replaced the client's session.
    SessionInvalidated,
    /// The user is banned.
    Banned,
    /// The user has too many connections: this one makes room for a newer one.
    TooManyConnections,
    /// The server stops; the client may come back, to another.
    ServerShutdown,
    /// The client said goodbye: a Socket.IO DISCONNECT or an Engine.IO close packet.
    ClientDisconnect,
    /// It went on sending far above its budget of events (contract 8, D39).
    TooManyEvents,
    /// Handling this client's bytes panicked.
    HandlerPanicked,
}

impl CloseReason {
    /// Each of them, of protocol errors one.
    pub const ALL: [Self; 24] = [
        Self::PeerClosed,
        Self::PeerReset,
        Self::Finished,
        Self::PingTimeout,
        Self::UnboundTimeout,
        Self::ConnectTimeout,
        Self::ConnectRefused,
        Self::UpgradeTimeout,
        Self::RequestsOverlap,
        Self::BadProxyHeader,
        Self::HeadTimeout,
        Self::BodyTimeout,
        Self::IdleTimeout,
        Self::SlowReader,
        Self::ProtocolError(1002),
        Self::BadRequest,
        Self::MessageTooBig,
        Self::SessionInvalidated,
        Self::Banned,
        Self::TooManyConnections,
        Self::ServerShutdown,
        Self::ClientDisconnect,
        Self::TooManyEvents,
        Self::HandlerPanicked,
    ];

    /// The name under which it is counted.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PeerClosed => "peer_closed",
            Self::PeerReset => "peer_reset",
            Self::Finished => "finished",
            Self::PingTimeout => "ping_timeout",
            Self::UnboundTimeout => "unbound_timeout",
            Self::ConnectTimeout => "connect_timeout",
            Self::ConnectRefused => "connect_refused",
            Self::UpgradeTimeout => "upgrade_timeout",
            Self::RequestsOverlap => "requests_overlap",
            Self::BadProxyHeader => "bad_proxy_header",
            Self::HeadTimeout => "head_timeout",
            Self::BodyTimeout => "body_timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::SlowReader => "slow_reader",
            Self::ProtocolError(_) => "protocol_error",
            Self::BadRequest => "bad_request",
            Self::MessageTooBig => "message_too_big",
            Self::SessionInvalidated => "session_invalidated",
            Self::Banned => "banned",
            Self::TooManyConnections => "too_many_connections",
            Self::ServerShutdown => "server_shutdown",
            Self::ClientDisconnect => "client_disconnect",
            Self::TooManyEvents => "too_many_events",
            Self::HandlerPanicked => "handler_panicked",
        }
    }

    /// Whether the peer cannot be told: nothing that waits to be written is worth waiting for.
    pub fn is_abrupt(self) -> bool {
        matches!(self, Self::PeerReset | Self::PingTimeout | Self::SlowReader | Self::BadProxyHeader)
    }

    /// Whether the server sends the client away for good, so that socket.io-client must not reconnect by itself.
    pub(super) fn disconnects(self) -> bool {
        matches!(self, Self::SessionInvalidated | Self::Banned | Self::TooManyConnections | Self::TooManyEvents)
    }

    /// Whether the peer's bytes can no longer be made sense of.
    pub(super) fn is_failure(self) -> bool {
        matches!(self, Self::ProtocolError(_) | Self::MessageTooBig)
    }

    /// What the product makes of it when the connection ends for this reason.
    pub(super) fn leave(self) -> Leave {
        if self.disconnects() || self == Self::ClientDisconnect { Leave::Deliberate } else { Leave::Lost }
    }

    /// The code that tells a WebSocket peer (RFC 6455 7.4.1).
    pub(super) fn code(self) -> CloseCode {
        match self {
            Self::ProtocolError(code) => CloseCode::from(code),
            Self::MessageTooBig => CloseCode::Size,
            Self::BadRequest => CloseCode::Protocol,
            Self::SessionInvalidated | Self::Banned | Self::ConnectRefused => CloseCode::Policy,
            Self::TooManyConnections | Self::TooManyEvents => CloseCode::Policy,
            Self::UnboundTimeout | Self::ConnectTimeout | Self::UpgradeTimeout => CloseCode::Policy,
            Self::ServerShutdown => CloseCode::Away,
            Self::HandlerPanicked => CloseCode::Error,
            _ => CloseCode::Normal,
        }
    }
}

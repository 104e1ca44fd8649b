//! Engine.IO v4 packets in WebSocket text messages: one character of type, then the data.
//!
//! Binary packets are not spoken: the contract is JSON only (contract 3.1).

/// A packet from a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Packet<'a> {
    Open,
    Close,
    Ping,
    Pong,
    Message(&'a str),
    Upgrade,
    Noop,
}

/// The heartbeat that the server sends.
pub const PING: &str = "2";
/// What precedes a Socket.IO packet.
pub const MESSAGE: &str = "4";

impl<'a> Packet<'a> {
    /// The packet in a text message; `None` when it is none, or base64 binary (`b…`).
    pub fn decode(text: &'a str) -> Option<Self> {
        let kind = text.as_bytes().first()?;
        Some(match kind {
            b'0' => Self::Open,
            b'1' => Self::Close,
            b'2' => Self::Ping,
            b'3' => Self::Pong,
            b'4' => Self::Message(&text[1..]),
            b'5' => Self::Upgrade,
            b'6' => Self::Noop,
            _ => return None,
        })
    }
}

/// The open packet of a session that was opened by WebSocket, so that there is nothing to upgrade to. Times in ms.
pub fn encode_open(sid: &str, ping_interval_ms: u64, ping_timeout_ms: u64, max_payload: usize) -> String {
    format!(
        r#"0{{"sid":"{sid}","upgrades":[],"pingInterval":{ping_interval_ms},"pingTimeout":{ping_timeout_ms},"maxPayload":{max_payload}}}"#
    )
}

//! Engine.IO v4 packets: one character of type, then the data; and the payloads of polling, packets between separators.
//!
//! In a WebSocket each text message is one packet and each binary message is the data of one. In a payload binary data
//! is `b` and its base64. The probe is the only ping with data, and only an upgrade has it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::websocket::{self, Data, OpCode};

/// A packet from a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Packet<'a> {
    Open,
    Close,
    Ping,
    Pong,
    Message(&'a str),
    /// A message in binary.
    Binary(Vec<u8>),
    Upgrade,
    Noop,
}

/// The heartbeat that the server sends.
pub const PING: &str = "2";
/// What precedes a Socket.IO packet.
pub const MESSAGE: &str = "4";
/// The server closes the session (polling; a WebSocket has its own close).
pub const CLOSE: &str = "1";
/// An empty answer, for a poll that must end.
pub const NOOP: &str = "6";
/// What a client asks over the WebSocket before it upgrades to it, the answer, and its decision.
pub const PROBE: &str = "2probe";
/// The answer to [`PROBE`].
pub const PROBE_ANSWER: &str = "3probe";
/// The client has decided for the WebSocket.
pub const UPGRADE: &str = "5";
/// Stands between two packets of a payload.
pub const SEPARATOR: u8 = 0x1e;

impl<'a> Packet<'a> {
    /// The packet in a text message; `None` when it is none.
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

    /// The packet in one part of a payload: as [`Packet::decode`], or binary in base64.
    pub fn decode_in_payload(text: &'a str) -> Option<Self> {
        match text.strip_prefix('b') {
            Some(base64) => decode_base64(base64.as_bytes()).map(Self::Binary),
            None => Self::decode(text),
        }
    }
}

/// The first packet of a payload, and how many bytes of it are done with then.
pub fn first_packet(payload: &[u8]) -> (&[u8], usize) {
    match payload.iter().position(|byte| *byte == SEPARATOR) {
        Some(end) => (&payload[..end], end + 1),
        None => (payload, payload.len()),
    }
}

/// The data of a binary packet of a payload, without its `b`.
pub fn decode_base64(base64: &[u8]) -> Option<Vec<u8>> {
    STANDARD.decode(base64).ok()
}

/// The WebSocket frame of what is a packet of a payload.
pub fn encode_frame_of_payload(packet: &[u8]) -> Bytes {
    let binary = packet.strip_prefix(b"b").and_then(decode_base64);
    match binary {
        Some(bytes) => websocket::encode_frame(OpCode::Data(Data::Binary), &[&bytes]),
        None => websocket::encode_text(&[packet]),
    }
}

/// A message in binary, as a packet of a payload.
pub fn encode_binary_in_payload(data: &[u8]) -> String {
    let mut packet = String::from("b");
    STANDARD.encode_string(data, &mut packet);
    packet
}

/// The open packet. A session that was opened by WebSocket has nothing to upgrade to. Times in ms.
pub fn encode_open(
    sid: &str,
    is_polling: bool,
    ping_interval_ms: u64,
    ping_timeout_ms: u64,
    max_payload: usize,
) -> String {
    let upgrades = if is_polling { r#"["websocket"]"# } else { "[]" };
    format!(
        r#"0{{"sid":"{sid}","upgrades":{upgrades},"pingInterval":{ping_interval_ms},"pingTimeout":{ping_timeout_ms},"maxPayload":{max_payload}}}"#
    )
}

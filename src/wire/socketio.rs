//! Socket.IO v5 packets: type, namespace, acknowledgement id, JSON. Each is the data of one Engine.IO message.
//!
//! Attachments (types 5 and 6) are refused: the contract is JSON only (contract 3.1). The JSON of an event is not
//! looked at here; `message/client` decodes it in one pass.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::base::Token;

/// Longest namespace that is read, bytes; it is echoed in the refusal.
const NAMESPACE_BYTES_MAX: usize = 256;
/// Most digits of an acknowledgement id: what a JavaScript number holds exactly.
const ACK_DIGITS_MAX: usize = 15;

/// A packet from a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet<'a> {
    pub kind: Kind,
    /// `/` when the packet names none.
    pub namespace: &'a str,
    /// JSON; empty when there is none.
    pub data: &'a str,
}

/// The types without attachments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Connect,
    Disconnect,
    Event,
    Ack,
    ConnectError,
}

impl<'a> Packet<'a> {
    /// The packet in `text`; `None` when it is malformed, has attachments or data of the wrong shape. The id that
    /// asks for an acknowledgement is skipped: no event of the contract has one to give.
    pub fn decode(text: &'a str) -> Option<Self> {
        let kind = match text.as_bytes().first()? {
            b'0' => Kind::Connect,
            b'1' => Kind::Disconnect,
            b'2' => Kind::Event,
            b'3' => Kind::Ack,
            b'4' => Kind::ConnectError,
            _ => return None,
        };
        let rest = &text[1..];
        let (namespace, rest) = match rest.starts_with('/') {
            true => rest.split_once(',').unwrap_or((rest, "")),
            false => ("/", rest),
        };
        let data = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        if namespace.len() > NAMESPACE_BYTES_MAX || rest.len() - data.len() > ACK_DIGITS_MAX {
            return None;
        }
        let is_shaped = match kind {
            Kind::Connect => data.is_empty() || data.starts_with('{'),
            Kind::Disconnect => data.is_empty(),
            Kind::Event | Kind::Ack => data.starts_with('['),
            Kind::ConnectError => true,
        };
        is_shaped.then_some(Self { kind, namespace, data })
    }
}

/// The `token` in the data of a CONNECT (contract 3.2); `None` inside when it carries none of ours, outside when the
/// data is not JSON.
pub fn decode_token(data: &str) -> Option<Option<Token>> {
    #[derive(Deserialize)]
    struct Auth<'a> {
        #[serde(borrow, default)]
        token: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

    if data.is_empty() {
        return Some(None);
    }
    let auth: Auth = serde_json::from_str(data).ok()?;
    let text = auth.token.and_then(|raw| serde_json::from_str::<Text>(raw.get()).ok());
    Some(text.and_then(|text| Token::decode(&text.0)))
}

/// What precedes an event's JSON array, in namespace `/`.
pub const EVENT: &str = "2";
/// The packet by which the server disconnects a client for good: socket.io-client does not come back by itself.
pub const DISCONNECT: &str = "1";

/// The answer to a CONNECT of `/`.
pub fn encode_connected(sid: &str) -> String {
    format!(r#"0{{"sid":"{sid}"}}"#)
}

/// The refusal of a CONNECT of `namespace`.
pub fn encode_connect_error(namespace: &str, message: &str) -> String {
    let data = serde_json::json!({ "message": message });
    if namespace == "/" { format!("4{data}") } else { format!("4{namespace},{data}") }
}

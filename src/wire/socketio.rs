//! Socket.IO v5 packets: type, attachments, namespace, acknowledgement id, JSON. Each is the data of one Engine.IO
//! message; its attachments follow as binary messages.
//!
//! The JSON of an event is not looked at here; `message/client` decodes it in one pass.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::base::Token;
use crate::base::limits::ATTACHMENTS_MAX;

/// Longest namespace that is read, bytes; it is echoed in the refusal.
const NAMESPACE_BYTES_MAX: usize = 256;
/// Most digits of an acknowledgement id: what a JavaScript number holds exactly.
const ACK_DIGITS_MAX: usize = 15;

/// A packet from a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet<'a> {
    pub kind: Kind,
    /// Binary messages that follow and belong to it.
    pub attachments: usize,
    /// `/` when the packet names none.
    pub namespace: &'a str,
    /// The digits by which the sender knows the answer that it asks for, or answers.
    pub ack: Option<&'a str>,
    /// JSON; empty when there is none.
    pub data: &'a str,
}

/// The types; whether attachments belong to it is apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Connect,
    Disconnect,
    Event,
    Ack,
    ConnectError,
}

impl<'a> Packet<'a> {
    /// The packet in `text`; `None` when it is malformed, has more than [`ATTACHMENTS_MAX`] attachments or data of the
    /// wrong shape.
    pub fn decode(text: &'a str) -> Option<Self> {
        let (kind, is_binary) = match text.as_bytes().first()? {
            b'0' => (Kind::Connect, false),
            b'1' => (Kind::Disconnect, false),
            b'2' => (Kind::Event, false),
            b'3' => (Kind::Ack, false),
            b'4' => (Kind::ConnectError, false),
            b'5' => (Kind::Event, true),
            b'6' => (Kind::Ack, true),
            _ => return None,
        };
        let (attachments, rest) = if is_binary { split_attachments(&text[1..])? } else { (0, &text[1..]) };
        let (namespace, rest) = match rest.starts_with('/') {
            true => rest.split_once(',').unwrap_or((rest, "")),
            false => ("/", rest),
        };
        let data = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        let ack = &rest[..rest.len() - data.len()];
        if namespace.len() > NAMESPACE_BYTES_MAX || ack.len() > ACK_DIGITS_MAX {
            return None;
        }
        let is_shaped = match kind {
            Kind::Connect => data.is_empty() || data.starts_with('{'),
            Kind::Disconnect => data.is_empty(),
            Kind::Event | Kind::Ack => data.starts_with('['),

            Kind::ConnectError => true,
        };
        let ack = Some(ack).filter(|digits| !digits.is_empty());
        is_shaped.then_some(Self { kind, attachments, namespace, ack, data })
    }
}

/// `<count>-`: how many attachments follow.
fn split_attachments(text: &str) -> Option<(usize, &str)> {
    let (digits, rest) = text.split_once('-')?;
    let is_number = !digits.is_empty() && digits.len() <= 3 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let count = digits.parse().ok().filter(|count| is_number && *count <= ATTACHMENTS_MAX)?;
    Some((count, rest))
}

/// Whether every placeholder in `data` stands for one of so many attachments; one that does not could reach beyond
/// them, or be an object of the sender's making.
pub fn placeholders_fit(data: &str, attachments: usize) -> bool {
    fn fit(value: &Value, attachments: u64) -> bool {
        match value {
            Value::Array(items) => items.iter().all(|item| fit(item, attachments)),
            Value::Object(fields) if fields.get("_placeholder") == Some(&Value::Bool(true)) => {
                fields.get("num").and_then(Value::as_u64).is_some_and(|number| number < attachments)
            }
            Value::Object(fields) => fields.values().all(|field| fit(field, attachments)),
            _ => true,
        }
    }
    serde_json::from_str(data).is_ok_and(|value| fit(&value, attachments as u64))
}

/// The name of an event and its arguments, each as the JSON it came in; `None` when that is no array with a name.
pub fn split_event(data: &str) -> Option<(&str, Vec<&str>)> {
    let values: Vec<&RawValue> = serde_json::from_str(data).ok()?;
    let (name, arguments) = values.split_first()?;
    Some((name.get(), arguments.iter().map(|argument| argument.get()).collect()))
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

/// What precedes an event's JSON array, in namespace `/`, in the message of Engine.IO.
pub const MESSAGE_EVENT: &str = "42";
/// The packet by which the server disconnects a client for good: socket.io-client does not come back by itself.
pub const DISCONNECT: &str = "1";

/// The answer to a CONNECT of `namespace`.
pub fn encode_connected(namespace: &str, sid: &str) -> String {
    format!(r#"0{}{{"sid":"{sid}"}}"#, prefix(namespace))
}

/// The refusal of a CONNECT of `namespace`.
pub fn encode_connect_error(namespace: &str, message: &str) -> String {
    format!("4{}{}", prefix(namespace), serde_json::json!({ "message": message }))
}

/// An acknowledgement without arguments, in namespace `/`.
pub fn encode_ack(id: &str) -> String {
    format!("3{id}[]")
}

/// How a packet names its namespace; `/` goes without saying.
pub(crate) fn prefix(namespace: &str) -> String {
    if namespace == "/" { String::new() } else { format!("{namespace},") }
}

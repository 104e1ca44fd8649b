//! The client's half of the wire: masked WebSocket frames out, frames and events in, both dialects.
//!
//! Written from the contract and RFC 6455 alone, sharing nothing with `src/wire`, so that the two check each other.

use duet::base::{CallId, InviteId, Random, UserId};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Which of the two endpoints a client speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    SocketIo,
    Plain,
}

impl Dialect {
    /// The opening handshake.
    pub fn handshake(self) -> Vec<u8> {
        let path = match self {
            Self::SocketIo => "/socket.io/?EIO=4&transport=websocket",
            Self::Plain => "/ws",
        };
        format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        .into_bytes()
    }

    /// A frame that carries an event's JSON array.
    pub fn event(self, json: &str, random: &mut Random) -> Vec<u8> {
        match self {
            Self::SocketIo => text(&format!("42{json}"), random),
            Self::Plain => text(json, random),
        }
    }

    /// What the client says when it leaves of its own accord.
    pub fn goodbye(self, random: &mut Random) -> Vec<u8> {
        match self {
            Self::SocketIo => text("41", random),
            Self::Plain => frame(8, &1000_u16.to_be_bytes(), random),
        }
    }

    /// The answer to a heartbeat.
    pub fn pong(self, payload: &[u8], random: &mut Random) -> Vec<u8> {
        match self {
            Self::SocketIo => text("3", random),
            Self::Plain => frame(10, payload, random),
        }
    }
}

/// A masked text message, sometimes in two fragments.
pub fn text(message: &str, random: &mut Random) -> Vec<u8> {
    let bytes = message.as_bytes();
    if bytes.len() < 2 || !random.one_in(10) {
        return frame(1, bytes, random);
    }
    let middle = random.below(bytes.len() as u64) as usize;
    let mut out = frame(1, &bytes[..middle], random);
    out[0] &= 0x7f;
    out.extend(frame(0, &bytes[middle..], random));
    out
}

fn frame(opcode: u8, payload: &[u8], random: &mut Random) -> Vec<u8> {
    let mut out = vec![0x80 | opcode];
    match payload.len() {
        short @ ..126 => out.push(0x80 | short as u8),
        medium @ ..0x1_0000 => {
            out.push(0x80 | 126);
            out.extend((medium as u16).to_be_bytes());
        }
        long => {
            out.push(0x80 | 127);
            out.extend((long as u64).to_be_bytes());
        }
    }
    let mask: [u8; 4] = random.bytes();
    out.extend(mask);
    out.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]));
    out
}

/// What the server said.
#[derive(Debug)]
pub enum Said {
    /// The handshake was answered by 101.
    Upgraded,
    /// Engine.IO open: the client may connect.
    Open,
    Connected,
    Refused,
    Ping(Vec<u8>),
    /// Socket.IO disconnect.
    Disconnect,
    /// A WebSocket close frame.
    Close,
    Event(Heard),
}

/// An event as the client understands it.
#[derive(Debug)]
pub struct Heard {
    pub name: String,
    pub fields: Fields,
}

/// Every field that some event has.
#[derive(Deserialize, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Fields {
    pub invite_id: Option<InviteId>,
    pub room_id: Option<CallId>,
    pub is_initiator: Option<bool>,
    pub offer: Option<Box<RawValue>>,
    pub answer: Option<Box<RawValue>>,
    pub candidate: Option<Box<RawValue>>,
    pub from: Option<UserId>,
    /// Of a line of chat, or an `error`.
    #[serde(alias = "message")]
    pub text: Option<String>,
    pub timestamp: Option<u64>,
    pub socials: Option<std::collections::BTreeMap<String, String>>,
    pub session_id: Option<String>,
}

/// Puts the bytes that came in together to what was said; complains of what the contract does not allow.
#[derive(Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    upgraded: bool,
}

impl Decoder {
    /// Takes bytes and gives all that is whole now.
    pub fn receive(&mut self, dialect: Dialect, bytes: &[u8]) -> Result<Vec<Said>, String> {
        self.bytes.extend_from_slice(bytes);
        let mut said = Vec::new();
        if !self.upgraded {
            let Some(end) = self.bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(said) };
            if !self.bytes.starts_with(b"HTTP/1.1 101 ") {
                return Err(format!("handshake: {}", String::from_utf8_lossy(&self.bytes)));
            }
            self.bytes.drain(..end + 4);
            self.upgraded = true;
            said.push(Said::Upgraded);
        }
        while let Some((opcode, payload)) = self.frame()? {
            said.push(match opcode {
                1 => match message(dialect, &payload)? {
                    Some(message) => message,
                    None => continue,
                },
                8 => Said::Close,
                9 => Said::Ping(payload),
                10 => continue,
                other => return Err(format!("opcode {other}")),
            });
        }
        Ok(said)
    }

    fn frame(&mut self) -> Result<Option<(u8, Vec<u8>)>, String> {
        let &[first, second, ..] = self.bytes.as_slice() else { return Ok(None) };
        if first & 0x80 == 0 || second & 0x80 != 0 {
            return Err(format!("frame head {first:x} {second:x}"));
        }
        let (start, length) = match (second, self.bytes.get(2..4), self.bytes.get(2..10)) {
            (126, Some(length), _) => (4, usize::from(u16::from_be_bytes(length.try_into().unwrap()))),
            (127, _, Some(length)) => (10, u64::from_be_bytes(length.try_into().unwrap()) as usize),
            (126 | 127, ..) => return Ok(None),
            (short, ..) => (2, usize::from(short)),
        };
        if self.bytes.len() < start + length {
            return Ok(None);
        }
        let payload = self.bytes[start..start + length].to_vec();
        self.bytes.drain(..start + length);
        Ok(Some((first & 0xf, payload)))
    }
}

fn message(dialect: Dialect, payload: &[u8]) -> Result<Option<Said>, String> {
    let text = std::str::from_utf8(payload).map_err(|error| error.to_string())?;
    if dialect == Dialect::Plain {
        return event(text).map(Some);
    }
    Ok(Some(match text.as_bytes() {
        [b'0', ..] => Said::Open,
        [b'2', ..] => Said::Ping(Vec::new()),
        [b'4', b'0', ..] => Said::Connected,
        [b'4', b'1', ..] => Said::Disconnect,
        [b'4', b'2', ..] => return event(&text[2..]).map(Some),
        [b'4', b'4', ..] => Said::Refused,
        _ => return Err(format!("packet {text}")),
    }))
}

fn event(json: &str) -> Result<Said, String> {
    let parts: Vec<&RawValue> = serde_json::from_str(json).map_err(|error| format!("{error}: {json}"))?;
    let name = parts.first().and_then(|name| serde_json::from_str(name.get()).ok());
    let name: String = name.ok_or_else(|| format!("no name: {json}"))?;
    let fields = match parts.get(1) {
        None => Fields::default(),
        Some(fields) => serde_json::from_str(fields.get()).map_err(|error| format!("{error}: {json}"))?,
    };
    Ok(Said::Event(Heard { name, fields }))
}

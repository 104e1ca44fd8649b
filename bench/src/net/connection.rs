//! One client's connection: what it speaks, how far it has come, and what came in pieces.
//!
//! Turns bytes into items, and answers by itself what is no business of a scenario: upgrades, handshakes, heartbeats.
//! Owns no read buffer while nothing is cut off. Does no I/O.

use std::mem;
use std::os::fd::OwnedFd;

use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::deflate::{Inflater, OFFER};
use super::frame::{self, Masks, PONG, TEXT};
use super::http::{self, Request};
use super::{Failure, Id, Response};

/// What a connection speaks, and where.
#[derive(Debug, Clone)]
pub enum Speaks {
    /// Records of so many bytes.
    Records(usize),
    /// WebSocket messages at a path.
    WebSocket(String),
    /// Events of Socket.IO over WebSocket; the token goes with the handshake.
    SocketIo(Option<String>),
    /// Requests of HTTP/1.1, one at a time.
    Http,
}

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    /// The upgrade was asked for.
    Upgrading,
    /// The WebSocket is open; of Socket.IO the handshake is not over.
    Joining,
    Open,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub fd: OwnedFd,
    pub id: Id,
    /// What was encoded and is not written yet.
    pub out: Vec<u8>,
    /// It is in the list of those that have something to write.
    pub is_dirty: bool,
    /// The start of something whose end has not come.
    pub partial: Vec<u8>,
    /// Both ways.
    pub deflates: bool,
    /// The longest message that may be compressed: none refers back further than the agreed window, bytes.
    deflated_bytes_max: u32,
    phase: Phase,
    offers_deflate: bool,
    speaks: Speaks,
    inflater: Option<Box<Inflater>>,
    keeps_context: bool,
    fragments: Option<Box<Fragments>>,
}

/// A message whose last frame has not come.
#[derive(Debug, Default)]
struct Fragments {
    is_compressed: bool,
    payload: Vec<u8>,
}

/// Where what was inflated, or put together, lies for as long as it is handled.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    whole: Vec<u8>,
    inflated: Vec<u8>,
}

/// What the next bytes were.
#[derive(Debug)]
pub(super) enum Item<'a> {
    /// Dealt with here.
    Nothing,
    Opened,
    Heartbeat,
    Message(&'a [u8]),
    Response(Response<'a>),
}

impl Connection {
    pub fn new(fd: OwnedFd, id: Id, speaks: Speaks, offers_deflate: bool) -> Self {
        Self {
            fd,
            id,
            out: Vec::new(),
            is_dirty: false,
            partial: Vec::new(),
            deflates: false,
            deflated_bytes_max: 0,
            phase: Phase::Connecting,
            offers_deflate,
            speaks,
            inflater: None,
            keeps_context: false,
            fragments: None,
        }
    }

    /// TCP is connected. Says whether the connection is open by that.
    pub fn connected(&mut self) -> bool {
        if self.phase != Phase::Connecting {
            return false;
        }
        let path = match &self.speaks {
            Speaks::Records(_) | Speaks::Http => {
                self.phase = Phase::Open;
                return true;
            }
            Speaks::WebSocket(path) => path,
            Speaks::SocketIo(_) => "/socket.io/?EIO=4&transport=websocket",
        };
        http::encode_upgrade(&mut self.out, path, self.offers_deflate.then_some(OFFER));
        self.phase = Phase::Upgrading;
        false
    }

    /// What `bytes` start with, and how many of them that took; `None` while it is not whole.
    pub fn next<'a>(
        &mut self,
        bytes: &'a [u8],
        masks: &mut Masks,
        scratch: &'a mut Scratch,
    ) -> Result<Option<(usize, Item<'a>)>, Failure> {
        if self.phase == Phase::Upgrading {
            return self.upgrade(bytes);
        }
        match self.speaks {
            Speaks::Records(length) => Ok(bytes.get(..length).map(|record| (length, Item::Message(record)))),
            Speaks::Http => {
                let response = http::decode(bytes, &mut scratch.whole)?;
                Ok(response.map(|response| (response.length, Item::Response(response))))
            }
            Speaks::WebSocket(_) | Speaks::SocketIo(_) => self.frame(bytes, masks, scratch),
        }
    }

    /// The answer to the upgrade.
    fn upgrade<'a>(&mut self, bytes: &[u8]) -> Result<Option<(usize, Item<'a>)>, Failure> {
        let Some(agreed) = http::decode_upgrade(bytes)? else { return Ok(None) };
        self.deflates = agreed.deflates;
        self.deflated_bytes_max = 1 << agreed.client_window_bits;
        self.keeps_context = agreed.keeps_context;
        let is_open = matches!(self.speaks, Speaks::WebSocket(_));
        self.phase = if is_open { Phase::Open } else { Phase::Joining };
        Ok(Some((agreed.length, if is_open { Item::Opened } else { Item::Nothing })))
    }

    /// One frame: control frames are answered, messages in fragments gathered, compressed ones inflated.
    fn frame<'a>(
        &mut self,
        bytes: &'a [u8],
        masks: &mut Masks,
        scratch: &'a mut Scratch,
    ) -> Result<Option<(usize, Item<'a>)>, Failure> {
        let Some(frame) = frame::decode(bytes)? else { return Ok(None) };
        let length = frame.length;
        let Scratch { whole, inflated } = scratch;
        let (payload, is_compressed) = match frame.opcode {
            OpCode::Control(Control::Ping) => {
                frame::encode(&mut self.out, masks, PONG, false, &[frame.payload]);
                return Ok(Some((length, Item::Heartbeat)));
            }
            OpCode::Control(Control::Close) => return Err(Failure::Closed(close_code(frame.payload))),
            OpCode::Control(_) => return Ok(Some((length, Item::Nothing))),
            OpCode::Data(kind) if frame.is_final && kind != Data::Continue => (frame.payload, frame.is_compressed),
            OpCode::Data(_) => {
                let fragments = self.fragments.get_or_insert_default();
                fragments.is_compressed |= frame.is_compressed;
                fragments.payload.extend_from_slice(frame.payload);
                if !frame.is_final {
                    return Ok(Some((length, Item::Nothing)));
                }
                let Fragments { is_compressed, payload } = *self.fragments.take().unwrap_or_default();
                *whole = payload;
                (&whole[..], is_compressed)
            }
        };
        let payload = if is_compressed {
            let keeps_context = self.keeps_context;
            let inflater = self.inflater.get_or_insert_with(|| Box::new(Inflater::new(keeps_context)));
            inflater.inflate(payload, inflated)?;
            &inflated[..]
        } else {
            payload
        };
        Ok(Some((length, self.message(payload, masks)?)))
    }

    /// A WebSocket message; of Socket.IO's packets only events are left over.
    fn message<'a>(&mut self, payload: &'a [u8], masks: &mut Masks) -> Result<Item<'a>, Failure> {
        let Speaks::SocketIo(token) = &mut self.speaks else { return Ok(Item::Message(payload)) };
        match payload {
            [b'4', b'2', event @ ..] => Ok(Item::Message(event)),
            b"2" => {
                frame::encode(&mut self.out, masks, TEXT, false, &[b"3"]);
                Ok(Item::Heartbeat)
            }
            [b'0', ..] if self.phase == Phase::Joining => {
                let auth = mem::take(token).map(|token| serde_json::json!({ "token": token }).to_string());
                frame::encode(&mut self.out, masks, TEXT, false, &[b"40", auth.unwrap_or_default().as_bytes()]);
                Ok(Item::Nothing)
            }
            [b'4', b'0', ..] if self.phase == Phase::Joining => {
                self.phase = Phase::Open;
                Ok(Item::Opened)
            }
            [b'4', b'1' | b'4', ..] => Err(Failure::Refused),
            _ => Ok(Item::Nothing),
        }
    }

    /// Encodes a message of the given parts, as this connection speaks.
    pub fn encode(&mut self, masks: &mut Masks, is_compressed: bool, parts: &[&[u8]]) {
        match self.speaks {
            Speaks::Records(_) => parts.iter().for_each(|part| self.out.extend_from_slice(part)),
            Speaks::WebSocket(_) | Speaks::SocketIo(_) => {
                frame::encode(&mut self.out, masks, TEXT, is_compressed, parts);
            }
            Speaks::Http => unreachable!("requests are sent over HTTP"),
        }
    }

    /// Whether a message of so many bytes is sent compressed.
    pub fn deflates_message(&self, length: usize) -> bool {
        self.deflates && length <= self.deflated_bytes_max as usize
    }

    /// What Socket.IO puts before an event.
    pub fn event_prefix(&self) -> &'static [u8] {
        if matches!(self.speaks, Speaks::SocketIo(_)) { b"42" } else { b"" }
    }

    pub fn request(&mut self, request: &Request<'_>) {
        assert!(matches!(self.speaks, Speaks::Http), "requests go over HTTP");
        request.encode(&mut self.out);
    }
}

fn close_code(payload: &[u8]) -> u16 {
    payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code))
}

//! Events that go to many connections together, framed once for all that are spoken to alike.
//!
//! Owned by whoever tells them, who bounds them; each connection that is sent them shares the one chunk. Not here: what may
//! not be shared, because it is compressed or fetched by polling (`socket.rs`).

use std::cell::OnceCell;

use bytes::Bytes;

use crate::wire::socketio;
use crate::wire::websocket::encode_text;

/// A frame's header is at most so long, and the prefix behind it, bytes (RFC 6455 5.2; Socket.IO's `42`).
const HEAD_BYTES_MAX: usize = 12;

/// Events in the order in which they are told.
#[derive(Default)]
pub struct Batch {
    events: Vec<Bytes>,
    bytes_max: usize,
    longest: usize,
    /// One text frame for each event, one behind the other: for `/ws`, and for Socket.IO.
    plain: OnceCell<Bytes>,
    socket_io: OnceCell<Bytes>,
}

impl Batch {
    /// Adds an encoded event.
    pub fn push(&mut self, event_json: Bytes) {
        self.bytes_max += HEAD_BYTES_MAX + event_json.len();
        self.longest = self.longest.max(event_json.len());
        self.events.push(event_json);
        (self.plain, self.socket_io) = Default::default();
    }

    /// What was added.
    pub fn events(&self) -> &[Bytes] {
        &self.events
    }

    /// All frames together are no longer than this.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// The longest of the events, bytes.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// The frames, with what the dialect puts before an event.
    pub(super) fn frames(&self, prefix: &'static str) -> Bytes {
        let frames = if prefix == socketio::MESSAGE_EVENT { &self.socket_io } else { &self.plain };
        let frame = |event: &Bytes| encode_text(&[prefix.as_bytes(), event]);
        let frames = frames.get_or_init(|| Bytes::from(self.events.iter().map(frame).collect::<Vec<_>>().concat()));
        frames.clone()
    }
}

//! The queue of outputs of one connection, and the count of bytes that wait for its peer.
//!
//! Bound: bytes by `outbox_bytes_max`; over it nothing more is taken and the connection must be closed. The other
//! outputs are bounded by the read that caused them.

use std::collections::VecDeque;

use bytes::Bytes;

use super::Output;

/// An empty queue of more places than this gives its memory back.
const PLACES_KEPT: usize = 8;

pub(super) struct Outbox {
    queue: VecDeque<Output>,
    /// Queued or polled, but not yet [`Outbox::written`].
    bytes: usize,
    bytes_max: usize,
    is_full: bool,
    /// The last output is a pong that a newer one may replace.
    ends_in_pong: bool,
    /// Whether anything was written since [`Outbox::take_progress`].
    has_progress: bool,
}

impl Outbox {
    pub fn new(bytes_max: usize) -> Self {
        Self { queue: VecDeque::new(), bytes: 0, bytes_max, is_full: false, ends_in_pong: false, has_progress: false }
    }

    pub fn push(&mut self, output: Output) {
        self.ends_in_pong = false;
        self.queue.push_back(output);
    }

    pub fn write(&mut self, chunk: Bytes) {
        self.write_pair(chunk, Bytes::new());
    }

    /// Writes two chunks that belong together; an empty one is left out. An empty outbox takes any size.
    pub fn write_pair(&mut self, head: Bytes, body: Bytes) {
        let length = head.len() + body.len();
        if self.is_full || (self.bytes > 0 && self.bytes + length > self.bytes_max) {
            self.is_full = true;
            return;
        }
        self.bytes += length;
        for chunk in [head, body] {
            if !chunk.is_empty() {
                self.push(Output::Write(chunk));
            }
        }
    }

    /// Writes a pong; it takes the place of one that is next to leave (RFC 6455 5.5.3: the latest is enough).
    pub fn write_pong(&mut self, frame: Bytes) {
        if self.ends_in_pong
            && let Some(Output::Write(older)) = self.queue.pop_back()
        {
            self.bytes -= older.len();
        }
        self.write(frame);
        self.ends_in_pong = !self.is_full;
    }

    /// Forgets the writes that nobody will read.
    pub fn discard_writes(&mut self) {
        self.ends_in_pong = false;
        self.queue.retain(|output| !matches!(output, Output::Write(_)));
    }

    pub fn poll(&mut self) -> Option<Output> {
        let output = self.queue.pop_front();
        if self.queue.is_empty() {
            self.ends_in_pong = false;
            if self.queue.capacity() > PLACES_KEPT {
                self.queue = VecDeque::new();
            }
        }
        output
    }

    pub fn written(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.has_progress = true;
    }

    /// Whether bytes have left since this was last asked.
    pub fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.has_progress)
    }

    /// Whether every output was polled.
    pub fn is_drained(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether bytes wait to be written.
    pub fn has_bytes(&self) -> bool {
        self.bytes > 0
    }

    /// Whether something was refused for want of room.
    pub fn is_full(&self) -> bool {
        self.is_full
    }
}

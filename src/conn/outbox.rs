//! What waits to leave one connection: chunks for its peer, and outputs for its shard.
//!
//! Two queues, because what others send to a client must not wait behind an output that takes time to answer. Bound:
//! the chunks by `outbox_bytes_max`, over which nothing more is taken and the connection must be closed; the outputs by
//! the read that caused them.

use std::collections::VecDeque;

use bytes::Bytes;

use super::Output;
use crate::wire::engineio;

/// Packets in one payload: more than python-engineio takes (`max_decode_packets`) would end its session.
const PAYLOAD_PACKETS_MAX: usize = 16;

/// Chunks that may wait before a pong takes the place of another. The first may have left in part: more than 1.
const PONGS_KEPT: usize = 16;

/// An empty queue of more places than this gives its memory back at once.
const PLACES_KEPT: usize = 4;

pub(super) struct Outbox {
    chunks: VecDeque<Bytes>,
    outputs: VecDeque<Output>,
    /// Queued, but not yet [`Outbox::written`].
    bytes: usize,
    bytes_max: usize,
    is_full: bool,
    /// The last chunk is a whole pong that a newer one may replace.
    ends_in_pong: bool,
    /// Whether anything was written since [`Outbox::take_progress`].
    has_progress: bool,
    /// Polling: the chunks are packets, to leave as one payload, with [`SEPARATOR`] between them.
    is_payload: bool,
}

/// A chunk of its own between two packets. No packet is as short as this and as strange.
const SEPARATOR: Bytes = Bytes::from_static(&[engineio::SEPARATOR]);

impl Outbox {
    pub fn new(bytes_max: usize) -> Self {
        let (chunks, outputs) = (VecDeque::new(), VecDeque::new());
        Self {
            chunks,
            outputs,
            bytes: 0,
            bytes_max,
            is_full: false,
            ends_in_pong: false,
            has_progress: false,
            is_payload: false,
        }
    }

    /// For a session by polling.
    pub fn of_payloads(bytes_max: usize) -> Self {
        Self { is_payload: true, ..Self::new(bytes_max) }
    }

    /// Queues an output.
    pub fn push(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    /// Puts an output before all others.
    pub fn put_back(&mut self, output: Output) {
        self.outputs.push_front(output);
    }

    /// Writes one chunk.
    pub fn write(&mut self, chunk: Bytes) {
        self.write_pair(chunk, Bytes::new());
    }

    /// Writes two chunks that belong together; an empty one is left out. An empty outbox takes any size.
    pub fn write_pair(&mut self, head: Bytes, body: Bytes) {
        let is_behind_another = self.is_payload && self.bytes > 0;
        let length = head.len() + body.len() + usize::from(is_behind_another);
        if self.is_full || (self.bytes > 0 && self.bytes + length > self.bytes_max) {
            self.is_full = true;
            return;
        }
        if is_behind_another {
            self.chunks.push_back(SEPARATOR);
        }
        self.bytes += length;
        self.ends_in_pong = false;
        self.chunks.extend([head, body].into_iter().filter(|chunk| !chunk.is_empty()));
    }

    /// Writes a pong. When [`PONGS_KEPT`] chunks wait, it takes the place of a pong that is the last of them
    /// (RFC 6455 5.5.3: the latest is enough).
    pub fn write_pong(&mut self, frame: Bytes) {
        if self.ends_in_pong
            && self.chunks.len() > PONGS_KEPT
            && let Some(older) = self.chunks.pop_back()
        {
            self.bytes -= older.len();
        }
        self.write(frame);
        self.ends_in_pong = !self.is_full;
    }

    /// Whether it is that of a session by polling.
    pub fn is_payload(&self) -> bool {
        self.is_payload
    }

    /// The packets that wait, as one payload of at most [`PAYLOAD_PACKETS_MAX`]; `None` when there are none.
    ///
    /// A close packet comes in a payload of its own: socket.io-client forgets the events that came with it.
    pub fn take_payload(&mut self) -> Option<Bytes> {
        let ends = self.chunks.iter().enumerate().filter(|(_, chunk)| **chunk == SEPARATOR).map(|(index, _)| index);
        let closes = self.chunks.back().is_some_and(|chunk| chunk == engineio::CLOSE);
        let last = if closes { ends.clone().next_back() } else { None };
        let end = ends.clone().nth(PAYLOAD_PACKETS_MAX - 1).or(last).unwrap_or(self.chunks.len());
        let taken: Vec<Bytes> = self.chunks.drain(..end).collect();
        let payload = match taken.as_slice() {
            [] => return None,
            [whole] => whole.clone(),
            chunks => Bytes::from(concat(chunks)),
        };
        // With the separator behind the last packet.
        let separator = self.chunks.pop_front().map_or(0, |chunk| chunk.len());
        self.written(payload.len() + separator);
        Some(payload)
    }

    /// From now on the WebSocket of `carrier` is written to: first what it had still to say, then the packets that
    /// waited for a poll, each as `frame` makes it.
    pub fn upgrade(&mut self, carrier: Outbox, frame: impl Fn(&[u8]) -> Bytes) {
        let packets: Vec<Bytes> = Vec::from(std::mem::take(&mut self.chunks));
        let outputs = std::mem::take(&mut self.outputs);
        *self = Self { outputs, bytes_max: self.bytes_max, ..carrier };
        for packet in packets.split(|chunk| *chunk == SEPARATOR).filter(|packet| !packet.is_empty()) {
            self.write(frame(&concat(packet)));
        }
    }

    /// Forgets the chunks that nobody will read.
    pub fn discard_writes(&mut self) {
        self.chunks = VecDeque::new();
        (self.bytes, self.is_full) = (0, false);
        self.ends_in_pong = false;
    }

    /// The chunks in order; who takes some out says so by [`Outbox::written`].
    pub fn chunks(&mut self) -> &mut VecDeque<Bytes> {
        &mut self.chunks
    }

    /// Gives back the memory of queues that are empty.
    pub fn shrink(&mut self) {
        give_back(&mut self.chunks, 0);
        give_back(&mut self.outputs, 0);
    }

    /// The next output; the memory of a long queue goes with its last.
    pub fn poll(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front();
        give_back(&mut self.outputs, PLACES_KEPT);
        output
    }

    /// So many bytes have left.
    pub fn written(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.has_progress |= bytes > 0;
        give_back(&mut self.chunks, PLACES_KEPT);
    }

    /// Whether bytes have left since this was last asked.
    pub fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.has_progress)
    }

    /// Bytes of memory behind the queues and the chunks, the shared ones too.
    pub fn held_bytes(&self) -> usize {
        let places = self.outputs.capacity() * size_of::<Output>() + self.chunks.capacity() * size_of::<Bytes>();
        places + self.chunks.iter().map(Bytes::len).sum::<usize>()
    }

    /// Whether an output waits to be polled.
    pub fn has_output(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// How many bytes wait to be written.
    pub fn waiting_bytes(&self) -> usize {
        self.bytes
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

fn concat<'a>(chunks: impl IntoIterator<Item = &'a Bytes>) -> Vec<u8> {
    chunks.into_iter().fold(Vec::new(), |mut whole, chunk| {
        whole.extend_from_slice(chunk);
        whole
    })
}

fn give_back<T>(queue: &mut VecDeque<T>, places: usize) {
    if queue.is_empty() && queue.capacity() > places {
        *queue = VecDeque::new();
    }
}

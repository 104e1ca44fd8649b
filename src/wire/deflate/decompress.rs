//! Messages decompressed (RFC 7692 7.2.2), within a bound, whatever the peer sent.
//!
//! On `zlib-rs` itself: `flate2` cannot stop at the end of a block, and `miniz_oxide` builds its tables anew for each
//! message, which takes longer than to inflate a small one.

use zlib_rs::{Inflate, InflateFlush, Status};

use super::{TAIL, WINDOW_BITS_MAX};
use crate::base::limits::{INFLATE_BLOCK_BYTES_MIN, INFLATE_RATIO_MAX, INFLATE_UNRATED_BLOCKS, INFLATE_UNRATED_BYTES};

/// Room for output beside a multiple of the input, bytes; the decoder is slow in the last 260.
const ROOM_BYTES_MIN: usize = 512;
/// The tail, and a byte that is never decoded: a decoder that leaves it with room for output stands between blocks.
const TAIL_AND_NEXT: [u8; 5] = [TAIL[0], TAIL[1], TAIL[2], TAIL[3], 0];

/// Why a message cannot be decompressed. The connection is to be failed (RFC 7692 7.2.2, RFC 6455 7.1.7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InflateError {
    /// Longer than allowed, or more work than any honest message of its length: close with 1009.
    TooBig,
    /// Not DEFLATE, or cut short: close with 1007.
    Corrupt,
}

/// What a peer that keeps its context may refer back to: the last 2^bits bytes that it said, bits from 8 to 15.
///
/// One for each connection; it owns as much as was said, and at most those bytes.
#[derive(Debug)]
pub struct Window {
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl Window {
    /// The window before the first message.
    pub fn new(bits: u8) -> Self {
        Self { bytes: Vec::new(), bytes_max: 1 << bits.min(WINDOW_BITS_MAX) }
    }

    /// Bytes of memory that it owns.
    pub fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Keeps the end of what was said before and in the latest message.
    fn remember(&mut self, said: &[u8]) {
        let said = &said[said.len().saturating_sub(self.bytes_max)..];
        let kept_max = self.bytes_max - said.len();
        self.bytes.drain(..self.bytes.len().saturating_sub(kept_max));
        self.bytes.reserve_exact(said.len());
        self.bytes.extend_from_slice(said);
    }
}

/// One decompressor. It owns 47 KiB from its first message on, nothing before.
///
/// Between messages it remembers nothing, so one serves all connections of a shard, context takeover or not.
#[derive(Default)]
pub struct Inflater {
    stream: Option<Inflate>,
}

impl Inflater {
    /// The message whose payload this is, put together from its fragments. A peer that keeps its context has a window.
    ///
    /// At most `bytes_max` long, and beyond [`INFLATE_UNRATED_BYTES`] at most [`INFLATE_RATIO_MAX`] times the payload:
    /// so far its buffer may grow and no further. Beyond [`INFLATE_UNRATED_BLOCKS`], blocks hold
    /// [`INFLATE_BLOCK_BYTES_MIN`] on average. An error empties the window. Of a message that is both corrupt and too
    /// big, either is said.
    pub fn inflate(
        &mut self,
        payload: &[u8],
        window: Option<&mut Window>,
        bytes_max: usize,
    ) -> Result<Vec<u8>, InflateError> {
        let rated_max = payload.len().saturating_mul(INFLATE_RATIO_MAX).max(INFLATE_UNRATED_BYTES);
        let mut output = Output::new(payload.len(), bytes_max.min(rated_max));
        let Some(window) = window else {
            self.decode(payload, &[], &mut output)?;
            return Ok(output.into_bytes());
        };
        // Taken, so that nothing of a broken stream is left to refer to.
        let before = std::mem::take(&mut window.bytes);
        self.decode(payload, &before, &mut output)?;
        window.bytes = before;
        let said = output.into_bytes();
        window.remember(&said);
        Ok(said)
    }

    /// Bytes of memory that it owns.
    pub fn held_bytes(&self) -> usize {
        self.stream.as_ref().map_or(0, |_| STREAM_BYTES)
    }

    /// Decodes the payload and the tail that its sender left out.
    ///
    /// A payload may also end with a final block alone: RFC 7692 7.2.3.4 wants an empty block behind it, but zlib's
    /// users cannot tell. Otherwise the tail must end a block and be nothing else, or the payload was cut short.
    fn decode(&mut self, payload: &[u8], before: &[u8], output: &mut Output) -> Result<(), InflateError> {
        let stream = self.stream.get_or_insert_with(|| Inflate::new(false, WINDOW_BITS_MAX));
        start(stream, before, &[])?;
        let blocks_max = INFLATE_UNRATED_BLOCKS + payload.len() / INFLATE_BLOCK_BYTES_MIN;
        let mut input = payload;
        loop {
            match output.fill(stream, &mut input, blocks_max)? {
                Stop::Input => break,
                Stop::Block => {}
                Stop::Final if input.is_empty() => return output.check(),
                // RFC 7692 7.2.1: behind a final block, padded to a byte, further blocks may follow.
                Stop::Final => start(stream, before, output.bytes())?,
            }
        }
        output.check()?;
        let filled = output.filled;
        let mut rest = &TAIL_AND_NEXT[..];
        let stop = output.fill(stream, &mut rest, blocks_max)?;
        let is_whole = match stop {
            Stop::Input => false,
            Stop::Block => rest.len() == 1 && output.filled == filled,
            Stop::Final => rest.len() == TAIL_AND_NEXT.len(),
        };
        if is_whole { Ok(()) } else { Err(InflateError::Corrupt) }
    }
}

/// What a stream owns: its Huffman tables, and its own window of 32 KiB.
const STREAM_BYTES: usize = 47 * 1024;

/// Begins a stream that may refer back to what was said before this message, and now.
fn start(stream: &mut Inflate, before: &[u8], now: &[u8]) -> Result<(), InflateError> {
    stream.reset(false);
    for said in [before, now] {
        stream.set_dictionary(said).map_err(|_| InflateError::Corrupt)?;
    }
    Ok(())
}

/// Why decoding stopped.
enum Stop {
    /// All input is used, and all of its output is there.
    Input,
    /// A block has ended, and there is more input.
    Block,
    /// The block that had ended was a final one.
    Final,
}

/// The output of one message, in one buffer that grows as needed.
struct Output {
    /// Whole in length; what counts of it is `filled`.
    buffer: Vec<u8>,
    filled: usize,
    /// The longest buffer: one byte more than is allowed, which tells a message that fits from one that is cut.
    length_max: usize,
    /// Blocks that have ended.
    blocks: usize,
}

impl Output {
    /// With room enough for most small messages.
    fn new(payload_length: usize, bytes_max: usize) -> Self {
        let length_max = bytes_max.saturating_add(1);
        let length = payload_length.saturating_mul(4).saturating_add(ROOM_BYTES_MIN).min(length_max);
        Self { buffer: vec![0; length], filled: 0, length_max, blocks: 0 }
    }

    /// Decodes `input` to the end of a block or to its own. Besides `blocks_max`, the output itself entitles to blocks.
    fn fill(&mut self, stream: &mut Inflate, input: &mut &[u8], blocks_max: usize) -> Result<Stop, InflateError> {
        loop {
            let (used, made) = (stream.total_in(), stream.total_out());
            let status = stream.decompress(input, &mut self.buffer[self.filled..], InflateFlush::Block);
            *input = &input[(stream.total_in() - used) as usize..];
            self.filled += (stream.total_out() - made) as usize;
            match status {
                Err(_) => return Err(InflateError::Corrupt),
                Ok(Status::StreamEnd) => return Ok(Stop::Final),
                Ok(_) if self.filled == self.buffer.len() => self.grow()?,
                Ok(_) if input.is_empty() => return Ok(Stop::Input),
                Ok(_) => {
                    self.blocks += 1;
                    let blocks_max = blocks_max + self.filled / INFLATE_BLOCK_BYTES_MIN;
                    return if self.blocks > blocks_max { Err(InflateError::TooBig) } else { Ok(Stop::Block) };
                }
            }
        }
    }

    /// Twice the room, never beyond the longest.
    fn grow(&mut self) -> Result<(), InflateError> {
        self.check()?;
        let length = self.filled.saturating_mul(2).saturating_add(ROOM_BYTES_MIN).min(self.length_max);
        self.buffer.reserve_exact(length - self.buffer.len());
        self.buffer.resize(length, 0);
        Ok(())
    }

    /// Whether the message is as short as allowed.
    fn check(&self) -> Result<(), InflateError> {
        if self.filled == self.length_max { Err(InflateError::TooBig) } else { Ok(()) }
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }

    fn into_bytes(mut self) -> Vec<u8> {
        self.buffer.truncate(self.filled);
        self.buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::deflate::Deflater;

    #[test]
    fn a_bomb_is_allotted_no_more_than_one_byte_too_many() {
        let payload = Deflater::new(1, false).deflate(&[&vec![0; 10_000_000]], WINDOW_BITS_MAX);
        for bytes_max in [0, 65_535, 1_000_000] {
            let mut output = Output::new(payload.len(), bytes_max);
            assert_eq!(Inflater::default().decode(&payload, &[], &mut output), Err(InflateError::TooBig));
            assert_eq!(output.buffer.capacity(), bytes_max + 1);
        }
    }
}

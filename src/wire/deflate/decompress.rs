//! Messages decompressed (RFC 7692 7.2.2), within a bound, whatever the peer sent.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};

use super::{TAIL, WINDOW_BITS_MAX};
use crate::base::limits::{INFLATE_BLOCK_BYTES_MIN, INFLATE_RATIO_MAX, INFLATE_UNRATED_BLOCKS, INFLATE_UNRATED_BYTES};

/// The output is one buffer, so it is its own window; the end of a message is not the end of its stream; each block is
/// counted.
const FLAGS: u32 = inflate_flags::TINFL_FLAG_HAS_MORE_INPUT
    | inflate_flags::TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY
    | inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF
    | inflate_flags::TINFL_FLAG_IGNORE_ADLER32;
/// Room for output that the first guess adds to a multiple of the input, bytes; the decoder is slow in the last 259.
const ROOM_BYTES_MIN: usize = 512;

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
        let kept = &said[said.len().saturating_sub(self.bytes_max)..];
        self.bytes = kept.to_vec();
    }
}

/// One decompressor. It owns 10.3 KiB from its first message on, nothing before.
///
/// Between messages it remembers nothing, so one serves all connections of a shard, context takeover or not.
#[derive(Default)]
pub struct Inflater {
    decompressor: Option<Box<DecompressorOxide>>,
}

impl Inflater {
    /// The message whose payload this is, put together from its fragments. A peer that keeps its context has a window.
    ///
    /// At most `bytes_max` long, and beyond [`INFLATE_UNRATED_BYTES`] at most [`INFLATE_RATIO_MAX`] times the payload:
    /// so far, and by the window, its buffer may grow and no further. Beyond [`INFLATE_UNRATED_BLOCKS`], blocks hold
    /// [`INFLATE_BLOCK_BYTES_MIN`] on average. An error empties the window.
    pub fn inflate(
        &mut self,
        payload: &[u8],
        window: Option<&mut Window>,
        bytes_max: usize,
    ) -> Result<Vec<u8>, InflateError> {
        let rated_max = payload.len().saturating_mul(INFLATE_RATIO_MAX).max(INFLATE_UNRATED_BYTES);
        let bytes_max = bytes_max.min(rated_max);
        let Some(window) = window else {
            let mut output = Output::new(Vec::new(), bytes_max);
            self.decode(payload, &mut output)?;
            return Ok(output.into_bytes());
        };
        let before = window.bytes.len();
        // Taken, so that nothing of a broken stream is left to refer to.
        let mut output = Output::new(std::mem::take(&mut window.bytes), bytes_max);
        self.decode(payload, &mut output)?;
        let mut said = output.into_bytes();
        window.remember(&said);
        said.drain(..before);
        Ok(said)
    }

    /// Bytes of memory that it owns.
    pub fn held_bytes(&self) -> usize {
        self.decompressor.as_ref().map_or(0, |_| size_of::<DecompressorOxide>())
    }

    /// Decodes the payload and the tail that its sender left out.
    ///
    /// A payload may also end with a final block alone: RFC 7692 7.2.3.4 wants an empty block behind it, but zlib's
    /// users cannot tell. Otherwise the tail must end a block and be nothing else, or the payload was cut short.
    fn decode(&mut self, payload: &[u8], output: &mut Output) -> Result<(), InflateError> {
        let decompressor = self.decompressor.get_or_insert_default();
        decompressor.init();
        let blocks_max = INFLATE_UNRATED_BLOCKS + payload.len() / INFLATE_BLOCK_BYTES_MIN;
        let status = output.fill(decompressor, payload, blocks_max)?;
        output.check()?;
        if status == TINFLStatus::Done {
            return Ok(());
        }
        let filled = output.filled;
        let status = output.fill(decompressor, &TAIL, blocks_max)?;
        let is_ended = matches!(status, TINFLStatus::Done | TINFLStatus::BlockBoundary);
        if is_ended && output.filled == filled { Ok(()) } else { Err(InflateError::Corrupt) }
    }
}

/// The output of one message behind its window, in one buffer that grows as needed.
struct Output {
    /// Whole in length; what counts of it is `filled`.
    buffer: Vec<u8>,
    filled: usize,
    /// The longest buffer: one byte more than is allowed, which tells a message that fits from one that is cut.
    length_max: usize,
    before: usize,
    /// Blocks that have ended.
    blocks: usize,
}

impl Output {
    fn new(window: Vec<u8>, bytes_max: usize) -> Self {
        let before = window.len();
        Self { buffer: window, filled: before, length_max: (before + 1).saturating_add(bytes_max), before, blocks: 0 }
    }

    /// Decodes all of `input` and says how it ended: within a block, at the end of one, or at the end of a final one.
    /// Besides `blocks_max`, the output itself entitles to blocks.
    fn fill(
        &mut self,
        decompressor: &mut DecompressorOxide,
        mut input: &[u8],
        blocks_max: usize,
    ) -> Result<TINFLStatus, InflateError> {
        loop {
            let (status, used, made) = decompress(decompressor, input, &mut self.buffer, self.filled, FLAGS);
            input = &input[used..];
            self.filled += made;
            match status {
                TINFLStatus::HasMoreOutput => self.grow(input.len())?,
                TINFLStatus::NeedsMoreInput if input.is_empty() => return Ok(status),
                TINFLStatus::Done | TINFLStatus::BlockBoundary => {
                    self.blocks += 1;
                    if self.blocks > blocks_max + (self.filled - self.before) / INFLATE_BLOCK_BYTES_MIN {
                        return Err(InflateError::TooBig);
                    }
                    if input.is_empty() {
                        return Ok(status);
                    }
                    // RFC 7692 7.2.1: behind a final block, padded to a byte, further blocks may follow.
                    if status == TINFLStatus::Done {
                        decompressor.init();
                    }
                }
                _ => return Err(InflateError::Corrupt),
            }
        }
    }

    /// More room: at first for four times the input, then twice what was there, never beyond the longest.
    fn grow(&mut self, input_length: usize) -> Result<(), InflateError> {
        self.check()?;
        let guess = input_length.saturating_mul(4).max(self.filled - self.before).saturating_add(ROOM_BYTES_MIN);
        let length = self.filled.saturating_add(guess).min(self.length_max);
        self.buffer.reserve_exact(length - self.buffer.len());
        self.buffer.resize(length, 0);
        Ok(())
    }

    /// Whether the message is as short as allowed.
    fn check(&self) -> Result<(), InflateError> {
        if self.filled == self.length_max { Err(InflateError::TooBig) } else { Ok(()) }
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
        for (before, bytes_max) in [(0, 1_000_000), (0, 0), (0, 65_535), (32_768, 100_000)] {
            let mut output = Output::new(vec![0; before], bytes_max);
            assert_eq!(Inflater::default().decode(&payload, &mut output), Err(InflateError::TooBig));
            assert_eq!(output.buffer.capacity(), before + bytes_max + 1);
        }
    }
}

//! Messages compressed: raw DEFLATE (RFC 1951), flushed, less the flush's last four bytes (RFC 7692 7.2.1).

use miniz_oxide::DataFormat;
use miniz_oxide::deflate::core::{
    CompressorOxide, TDEFLFlush, TDEFLStatus, compress_to_output, create_comp_flags_from_zip_params,
};

use super::{TAIL, WINDOW_BITS_MAX, WINDOW_BITS_MIN};

/// The empty message: the header of an empty block without compression (RFC 7692 7.2.3.6).
const EMPTY: u8 = 0;

/// One compressor. It owns 312 KiB from its first message that is not empty, nothing before.
///
/// That is what context takeover costs for each connection; without it the whole shard needs one.
pub struct Deflater {
    level: u8,
    keeps_context: bool,
    compressor: Option<Box<CompressorOxide>>,
}

impl Deflater {
    /// A compressor of level 0 (stores) to 10 (slowest). One that keeps its context belongs to one connection, and
    /// gets all that this connection is sent, in order and with the same window bits; one that does not may serve any
    /// number.
    pub fn new(level: u8, keeps_context: bool) -> Self {
        Self { level, keeps_context, compressor: None }
    }

    /// The payload of one message that is made of these parts, for a peer whose window has so many bits (8 to 15).
    ///
    /// Its length is at most 9/8 of the message's, and 16 bytes for each started 2^`window_bits`: what does not get
    /// smaller is stored. `miniz_oxide` cannot shrink its window of 2^15 bytes, so for a smaller one it forgets all it
    /// has seen every 2^`window_bits` bytes. No distance reaches beyond that; context is then not kept either.
    pub fn deflate(&mut self, parts: &[&[u8]], window_bits: u8) -> Vec<u8> {
        assert!((WINDOW_BITS_MIN..=WINDOW_BITS_MAX).contains(&window_bits), "no window of {window_bits} bits");
        if parts.iter().all(|part| part.is_empty()) {
            return vec![EMPTY];
        }
        let is_whole_window = window_bits == WINDOW_BITS_MAX;
        let segment_bytes_max = if is_whole_window { usize::MAX } else { 1 << window_bits };
        let level = self.level;
        let compressor = self.compressor.get_or_insert_with(|| new_compressor(level));
        let mut payload = Vec::new();
        let mut room = segment_bytes_max;
        for part in parts {
            let mut rest = *part;
            while !rest.is_empty() {
                if room == 0 {
                    feed(compressor, &[], TDEFLFlush::Full, &mut payload);
                    room = segment_bytes_max;
                }
                let (now, later) = rest.split_at(rest.len().min(room));
                feed(compressor, now, TDEFLFlush::None, &mut payload);
                room -= now.len();
                rest = later;
            }
        }
        // A full flush is a sync flush that also forgets: cheaper than a reset, which clears all buffers as well.
        let is_kept = self.keeps_context && is_whole_window;
        feed(compressor, &[], if is_kept { TDEFLFlush::Sync } else { TDEFLFlush::Full }, &mut payload);
        assert!(payload.ends_with(&TAIL), "a flush ends with an empty block");
        payload.truncate(payload.len() - TAIL.len());
        payload
    }

    /// Bytes of memory that it owns.
    pub fn held_bytes(&self) -> usize {
        self.compressor.as_ref().map_or(0, |_| COMPRESSOR_BYTES)
    }
}

/// What a compressor owns: itself, its output buffer, its Huffman tables, and its window with two hash tables.
const COMPRESSOR_BYTES: usize = 312 * 1024;

fn new_compressor(level: u8) -> Box<CompressorOxide> {
    let flags = create_comp_flags_from_zip_params(level.into(), DataFormat::Raw.to_window_bits(), 0);
    Box::new(CompressorOxide::new(flags))
}

/// Compresses all of `input` onto `payload`.
fn feed(compressor: &mut CompressorOxide, input: &[u8], flush: TDEFLFlush, payload: &mut Vec<u8>) {
    let (status, used) = compress_to_output(compressor, input, flush, |bytes| {
        payload.extend_from_slice(bytes);
        true
    });
    assert!(status == TDEFLStatus::Okay && used == input.len(), "a sink that takes all cannot fail");
}

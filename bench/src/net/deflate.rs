//! permessage-deflate as browsers use it (RFC 7692): what is sent is compressed, whatever its length; what comes is
//! inflated, with the server's context where it keeps one.
//!
//! One compressor serves all connections: it starts afresh with each message, which every negotiated setting allows. A
//! connection owns a window of 32 KiB from its first compressed message on, unless the server takes no context over.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::Failure;

/// What Chromium and Firefox offer.
pub const OFFER: &str = "permessage-deflate; client_max_window_bits";
/// Browsers compress at zlib's default.
const LEVEL: u32 = 6;
/// What ends each message and is not sent (RFC 7692 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// Longest inflated message, bytes.
const INFLATED_BYTES_MAX: usize = 16 << 20;

/// The raw deflate stream of one message, sync-flushed, `TAIL` included.
fn compress(compressor: &mut Compress, plain: &[u8]) -> Vec<u8> {
    compressor.reset();
    let mut out = Vec::with_capacity(plain.len() + 64);
    let mut consumed = 0;
    loop {
        compressor.compress_vec(&plain[consumed..], &mut out, FlushCompress::Sync).expect("a fresh stream");
        consumed = compressor.total_in() as usize;
        if consumed == plain.len() && out.len() < out.capacity() {
            return out;
        }
        out.reserve(out.capacity());
    }
}

/// Compresses messages one by one.
pub struct Deflater(Compress);

impl Deflater {
    pub fn new() -> Self {
        Self(Compress::new(Compression::new(LEVEL), false))
    }

    /// The payload of a compressed message.
    pub fn deflate(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut out = compress(&mut self.0, plain);
        out.truncate(out.len() - TAIL.len());
        out
    }

    /// Blocks that may be followed by others.
    fn blocks(&mut self, plain: &[u8]) -> Vec<u8> {
        compress(&mut self.0, plain)
    }
}

/// Inflates what one connection's server sends.
#[derive(Debug)]
pub struct Inflater {
    stream: Decompress,
    keeps_context: bool,
}

impl Inflater {
    pub fn new(keeps_context: bool) -> Self {
        Self { stream: Decompress::new(false), keeps_context }
    }

    /// Puts the whole message into `out`.
    pub fn inflate(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Failure> {
        const BROKEN: Failure = Failure::Protocol("a compressed message");
        if !self.keeps_context {
            self.stream.reset(false);
        }
        out.clear();
        for part in [payload, &TAIL] {
            let mut rest = part;
            loop {
                out.reserve(payload.len() * 4 + 256);
                let before = self.stream.total_in();
                let status = self.stream.decompress_vec(rest, out, FlushDecompress::Sync).map_err(|_| BROKEN)?;
                rest = &rest[(self.stream.total_in() - before) as usize..];
                if out.len() > INFLATED_BYTES_MAX || status == Status::StreamEnd {
                    return Err(BROKEN);
                }
                if rest.is_empty() && out.len() < out.capacity() {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// A message that is the same each time but for 16 hexadecimal digits in its midst, ready to be sent either way.
///
/// Compressed, the digits are a stored block between two compressed ones, so that sending costs the generator a copy.
pub struct Template {
    plain: [Vec<u8>; 2],
    deflated: Option<[Vec<u8>; 2]>,
}

/// Digits of a stamp.
pub const STAMP_LENGTH: usize = 16;
/// A stored block of `STAMP_LENGTH` bytes, not the last (RFC 1951 3.2.4).
const STORED: [u8; 5] = [0, STAMP_LENGTH as u8, 0, !(STAMP_LENGTH as u8), 0xff];

impl Template {
    pub fn new(before: &str, after: &str) -> Self {
        Self { plain: [before.as_bytes().to_vec(), after.as_bytes().to_vec()], deflated: None }
    }

    /// Makes the compressed form too.
    pub fn with_deflate(mut self, deflater: &mut Deflater) -> Self {
        let mut before = deflater.blocks(&self.plain[0]);
        before.extend_from_slice(&STORED);
        self.deflated = Some([before, deflater.deflate(&self.plain[1])]);
        self
    }

    /// Bytes of the message, not compressed.
    pub fn len(&self) -> usize {
        self.plain[0].len() + STAMP_LENGTH + self.plain[1].len()
    }

    /// What comes before the stamp and after it, and whether that is compressed.
    pub(super) fn parts(&self, deflates: bool) -> ([&[u8]; 2], bool) {
        let (parts, is_compressed) = match &self.deflated {
            Some(deflated) if deflates => (deflated, true),
            _ => (&self.plain, false),
        };
        ([&parts[0], &parts[1]], is_compressed)
    }
}

/// The stamp as it is sent.
pub fn stamp(value: u64) -> [u8; STAMP_LENGTH] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    std::array::from_fn(|place| DIGITS[(value >> (60 - 4 * place)) as usize & 15])
}

/// The stamp that stands in `message` right after `mark`.
pub fn stamp_after(message: &[u8], mark: &[u8]) -> Option<u64> {
    let at = message.windows(mark.len()).position(|window| window == mark)? + mark.len();
    let digits = std::str::from_utf8(message.get(at..at + STAMP_LENGTH)?).ok()?;
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_deflated_inflates_to_the_same() {
        let (mut deflater, mut inflater, mut out) = (Deflater::new(), Inflater::new(false), Vec::new());
        for length in [0, 1, 400, 5_000, 300_000] {
            let plain: Vec<u8> = (0..length).map(|i: u32| (i.wrapping_mul(i) >> 3) as u8).collect();
            inflater.inflate(&deflater.deflate(&plain), &mut out).unwrap();
            assert_eq!(out, plain);
        }
    }

    #[test]
    fn a_servers_context_is_kept_from_message_to_message() {
        let mut server = Compress::new(Compression::new(6), false);
        let (mut inflater, mut out) = (Inflater::new(true), Vec::new());
        let text = "a sentence that the second message refers to".repeat(3);
        let mut lengths = Vec::new();
        for _ in 0..2 {
            let mut payload = Vec::with_capacity(1_000);
            server.compress_vec(text.as_bytes(), &mut payload, FlushCompress::Sync).unwrap();
            payload.truncate(payload.len() - TAIL.len());
            inflater.inflate(&payload, &mut out).unwrap();
            assert_eq!(out, text.as_bytes());
            lengths.push(payload.len());
        }
        assert!(lengths[1] < lengths[0]);
    }

    #[test]
    fn a_template_inflates_to_its_plain_form_with_any_stamp() {
        let mut deflater = Deflater::new();
        let template = Template::new("[\"rtc:ice\",{\"candidate\":\"t=", " udp 2122260223\"}]");
        let template = template.with_deflate(&mut deflater);
        for value in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
            let digits = stamp(value);
            let joined = |deflates| {
                let ([before, after], is_compressed) = template.parts(deflates);
                assert_eq!(is_compressed, deflates);
                [before, &digits, after].concat()
            };
            let (plain, mut out) = (joined(false), Vec::new());
            Inflater::new(false).inflate(&joined(true), &mut out).unwrap();
            assert_eq!(out, plain);
            assert_eq!(stamp_after(&out, b"t="), Some(value));
        }
    }

    #[test]
    fn what_is_cut_short_or_not_deflate_is_an_error_or_another_message() {
        let payload = Deflater::new().deflate(&[b'x'; 4_000]);
        let mut out = Vec::new();
        let cut = Inflater::new(false).inflate(&payload[..payload.len() / 2], &mut out);
        assert!(cut.is_err() || out != [b'x'; 4_000]);
        assert!(Inflater::new(false).inflate(&[0xff; 40], &mut out).is_err());
    }
}

//! The body of a request, taken out of its framing as the bytes come (RFC 9112 6.2, 7.1).
//!
//! The caller keeps the [`Body`] between reads. Bounds: the decoded bytes by the caller's limit; size lines, chunk
//! extensions and trailers together by [`EXTRA_BYTES_MAX`]. Extensions and trailers are dropped unread.

use bytes::Bytes;

use super::{Framing, HttpError};

/// Bytes of chunk extensions and trailers in one body; nobody needs them, so few are enough.
const EXTRA_BYTES_MAX: usize = 4096;
/// Digits of a chunk size; more could only be padding.
const SIZE_DIGITS_MAX: usize = 16;

const TOO_LARGE: HttpError = HttpError::new(413, "Request body too large");
const BAD_CHUNK: HttpError = HttpError::new(400, "Malformed chunk");
const TOO_MUCH_EXTRA: HttpError = HttpError::new(431, "Chunk extensions or trailers too large");

/// A body that is being received.
#[derive(Debug)]
pub struct Body {
    decoded: Vec<u8>,
    bytes_max: usize,
    extra_bytes: usize,
    state: State,
}

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// So many bytes are missing of a body of known length.
    Length(usize),
    ChunkSize,
    /// So many bytes are missing of this chunk.
    ChunkData(usize),
    ChunkEnd,
    Trailer,
    Complete,
}

impl Body {
    /// A body yet to come, at most `bytes_max` long: 413 now if its announced length is more.
    pub fn new(framing: Framing, bytes_max: usize) -> Result<Self, HttpError> {
        let state = match framing {
            Framing::Length(0) => State::Complete,
            Framing::Length(length) if length > bytes_max as u64 => return Err(TOO_LARGE),
            Framing::Length(length) => State::Length(length as usize),
            Framing::Chunked => State::ChunkSize,
        };
        Ok(Self { decoded: Vec::new(), bytes_max, extra_bytes: 0, state })
    }

    /// Takes what it can from `input` and says how much; an unfinished line is left for the next call.
    pub fn decode(&mut self, input: &[u8]) -> Result<usize, HttpError> {
        let mut used = 0;
        while self.state != State::Complete {
            match self.step(&input[used..])? {
                0 => break,
                count => used += count,
            }
        }
        Ok(used)
    }

    /// Whether nothing is missing.
    pub fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    /// Bytes of memory behind the decoded ones.
    pub fn held_bytes(&self) -> usize {
        self.decoded.capacity()
    }

    /// The decoded bytes.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from(self.decoded)
    }

    /// Takes one piece: data, or a line that is whole; 0 when there is none.
    fn step(&mut self, input: &[u8]) -> Result<usize, HttpError> {
        match self.state {
            State::Length(missing) => {
                let count = self.take(input, missing);
                self.state = if count == missing { State::Complete } else { State::Length(missing - count) };
                Ok(count)
            }
            State::ChunkData(missing) => {
                let count = self.take(input, missing);
                self.state = if count == missing { State::ChunkEnd } else { State::ChunkData(missing - count) };
                Ok(count)
            }
            State::ChunkSize => self.chunk_size(input),
            State::ChunkEnd => match input {
                [b'\r', b'\n', ..] => {
                    self.state = State::ChunkSize;
                    Ok(2)
                }
                [] | [b'\r'] => Ok(0),
                _ => Err(BAD_CHUNK),
            },
            State::Trailer => self.trailer(input),
            State::Complete => Ok(0),
        }
    }

    /// Takes as many of the `missing` bytes as `input` holds.
    fn take(&mut self, input: &[u8], missing: usize) -> usize {
        let count = missing.min(input.len());
        self.decoded.extend_from_slice(&input[..count]);
        count
    }

    /// `chunk-size [ chunk-ext ] CRLF`, without the whitespace that old grammars allowed (RFC 9112 7.1.1).
    fn chunk_size(&mut self, input: &[u8]) -> Result<usize, HttpError> {
        let digits = input.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let is_cut = digits == input.len();
        if digits > SIZE_DIGITS_MAX || (digits == 0 && !is_cut) {
            return Err(BAD_CHUNK);
        }
        if is_cut {
            return Ok(0);
        }
        if !matches!(input[digits], b'\r' | b';') {
            return Err(BAD_CHUNK);
        }
        let Some(rest) = self.line(&input[digits..])? else { return Ok(0) };
        self.extra_bytes += rest - 2;
        let size = std::str::from_utf8(&input[..digits]).ok().and_then(|text| u64::from_str_radix(text, 16).ok());
        let size = size.ok_or(BAD_CHUNK)?;
        if size > (self.bytes_max - self.decoded.len()) as u64 {
            return Err(TOO_LARGE);
        }
        self.state = if size == 0 { State::Trailer } else { State::ChunkData(size as usize) };
        Ok(digits + rest)
    }

    /// A trailer field, or the empty line behind the last (RFC 9112 7.1.2). A trailer may be merged into the headers
    /// or dropped; merging is how limits are passed by, so it is dropped.
    fn trailer(&mut self, input: &[u8]) -> Result<usize, HttpError> {
        let Some(length) = self.line(input)? else { return Ok(0) };
        self.extra_bytes += length - 2;
        if length == 2 {
            self.state = State::Complete;
        }
        Ok(length)
    }

    /// The length of the line that `input` starts with, its CRLF included; `None` while that has not come.
    fn line(&self, input: &[u8]) -> Result<Option<usize>, HttpError> {
        let Some(end) = input.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
            return if input.len() > EXTRA_BYTES_MAX - self.extra_bytes { Err(TOO_MUCH_EXTRA) } else { Ok(None) };
        };
        if end > EXTRA_BYTES_MAX - self.extra_bytes {
            return Err(TOO_MUCH_EXTRA);
        }
        match &input[end..] {
            [b'\r', b'\n', ..] => Ok(Some(end + 2)),
            [b'\r'] => Ok(None),
            _ => Err(BAD_CHUNK),
        }
    }
}

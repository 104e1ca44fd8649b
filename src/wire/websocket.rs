//! WebSocket frames (RFC 6455 5): decoded from a slice and unmasked in place, headers and control frames encoded.
//!
//! `tungstenite` knows the header's layout, the opcodes and the close codes; the rules for a server are here. Messages
//! are put together, and inflated, in `conn/`, not here.

use std::io::Cursor;

use bytes::Bytes;
use tungstenite::protocol::frame::FrameHeader;
pub use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

/// Longest payload of a control frame (RFC 6455 5.5).
const CONTROL_BYTES_MAX: u64 = 125;

/// One frame from a client.
#[derive(Debug)]
pub struct Frame<'a> {
    pub opcode: OpCode,
    /// The last frame of its message.
    pub is_final: bool,
    /// Of a compressed message, the first frame (RFC 7692 6).
    pub is_compressed: bool,
    /// Unmasked.
    pub payload: &'a [u8],
    /// Bytes that the frame took, header included.
    pub length: usize,
}

/// The frame that `bytes` start with, unmasked in place; `None` while it is not whole.
///
/// The header is judged as soon as it is there: a length beyond 63 bits (RFC 6455 5.2), and a data frame over `payload_bytes_max`, fail without being received.
/// `deflates` says that permessage-deflate was agreed on. The error is the code to close with.
pub fn decode_frame(
    bytes: &mut [u8],
    payload_bytes_max: usize,
    deflates: bool,
) -> Result<Option<Frame<'_>>, CloseCode> {
    if let [_, length, high, ..] = bytes
        && *length & 0x7f == 127
        && *high & 0x80 != 0
    {
        return Err(CloseCode::Protocol);
    }
    let mut cursor = Cursor::new(&*bytes);
    let parsed = FrameHeader::parse(&mut cursor).map_err(|_| CloseCode::Protocol)?;
    let Some((header, payload_length)) = parsed else { return Ok(None) };
    let header_length = cursor.position() as usize;
    let mask = check_header(&header, payload_length, header_length, deflates)?;
    if matches!(header.opcode, OpCode::Data(_)) && payload_length > payload_bytes_max as u64 {
        return Err(CloseCode::Size);
    }
    let length = header_length + payload_length as usize;
    let Some(payload) = bytes.get_mut(header_length..length) else { return Ok(None) };
    apply_mask(payload, mask);
    Ok(Some(Frame { opcode: header.opcode, is_final: header.is_final, is_compressed: header.rsv1, payload, length }))
}

/// RFC 6455 5.1 (clients mask), 5.2 (reserved bits, shortest length), 5.5 (control frames), RFC 7692 6 (RSV1 on the first
/// frame of a message only). Gives the mask.
fn check_header(
    header: &FrameHeader,
    payload_length: u64,
    header_length: usize,
    deflates: bool,
) -> Result<[u8; 4], CloseCode> {
    let may_compress = deflates && matches!(header.opcode, OpCode::Data(Data::Text | Data::Binary));
    let is_reserved = (header.rsv1 && !may_compress) || header.rsv2 || header.rsv3;
    let is_minimal = header.len(payload_length) == header_length;
    let is_long_control =
        matches!(header.opcode, OpCode::Control(_)) && (!header.is_final || payload_length > CONTROL_BYTES_MAX);
    match header.mask {
        Some(mask) if !is_reserved && is_minimal && !is_long_control => Ok(mask),
        _ => Err(CloseCode::Protocol),
    }
}

/// RFC 6455 5.3: masks or unmasks, eight bytes at a time.
pub fn apply_mask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

/// The code in a close frame's payload, `None` when it is empty; or the code to answer a malformed one with
/// (RFC 6455 5.5.1, 7.4).
pub fn decode_close(payload: &[u8]) -> Result<Option<CloseCode>, CloseCode> {
    match payload {
        [] => Ok(None),
        [high, low, reason @ ..] => {
            let code = CloseCode::from(u16::from_be_bytes([*high, *low]));
            if !code.is_allowed() {
                return Err(CloseCode::Protocol);
            }
            std::str::from_utf8(reason).map_or(Err(CloseCode::Invalid), |_| Ok(Some(code)))
        }
        [_] => Err(CloseCode::Protocol),
    }
}

/// The header of an unfragmented server frame: unmasked, its length in the shortest form (RFC 6455 5.1, 5.2).
#[derive(Clone, Copy, Debug)]
pub struct EncodedHeader {
    bytes: [u8; 10],
    length: usize,
}

impl EncodedHeader {
    /// The header for a payload of `payload_length` bytes.
    pub fn new(opcode: OpCode, payload_length: usize) -> Self {
        let mut bytes = [0; 10];
        bytes[0] = 0x80 | u8::from(opcode);
        let length = match payload_length {
            0..=125 => {
                bytes[1] = payload_length as u8;
                2
            }
            126..=0xffff => {
                bytes[1] = 126;
                bytes[2..4].copy_from_slice(&(payload_length as u16).to_be_bytes());
                4
            }
            _ => {
                bytes[1] = 127;
                bytes[2..].copy_from_slice(&(payload_length as u64).to_be_bytes());
                10
            }
        };
        Self { bytes, length }
    }

    /// The same, of a compressed message (RFC 7692 6: RSV1).
    pub fn compressed(mut self) -> Self {
        self.bytes[0] |= 0x40;
        self
    }

    /// Its 2, 4 or 10 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// A whole frame whose payload is these parts, one after the other.
pub fn encode_frame(opcode: OpCode, parts: &[&[u8]]) -> Bytes {
    let payload_length = parts.iter().map(|part| part.len()).sum();
    encode_behind(EncodedHeader::new(opcode, payload_length), parts)
}

/// The frame of a message whose payload was compressed.
pub fn encode_compressed(kind: Data, payload: &[u8]) -> Bytes {
    encode_behind(EncodedHeader::new(OpCode::Data(kind), payload.len()).compressed(), &[payload])
}

fn encode_behind(header: EncodedHeader, parts: &[&[u8]]) -> Bytes {
    let payload_length: usize = parts.iter().map(|part| part.len()).sum();
    let mut frame = Vec::with_capacity(header.length + payload_length);
    frame.extend_from_slice(header.as_bytes());
    parts.iter().for_each(|part| frame.extend_from_slice(part));
    Bytes::from(frame)
}

/// A text frame.
pub fn encode_text(parts: &[&[u8]]) -> Bytes {
    encode_frame(OpCode::Data(Data::Text), parts)
}

/// A close frame, without a reason; without a code when there is none to tell.
pub fn encode_close(code: Option<CloseCode>) -> Bytes {
    let code = code.map(|code| u16::from(code).to_be_bytes());
    encode_frame(OpCode::Control(Control::Close), &[code.as_ref().map_or(&[], |code| code)])
}

//! WebSocket frames of a client (RFC 6455 5): masked ones encoded, unmasked ones found in a slice.
//!
//! `tungstenite` knows the header's layout. Messages in fragments are put together in `connection.rs`, compressed ones
//! inflated in `deflate.rs`.

use std::io::Cursor;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::Failure;

/// Fresh masking keys that nobody can foresee (RFC 6455 5.3).
pub struct Masks(ChaCha8Rng);

impl Masks {
    /// Fails when the kernel gives no entropy.
    pub fn new() -> Result<Self, getrandom::Error> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)?;
        Ok(Self(ChaCha8Rng::from_seed(seed)))
    }

    fn next(&mut self) -> [u8; 4] {
        self.0.next_u32().to_ne_bytes()
    }
}

/// One frame from a server.
#[derive(Debug)]
pub struct Frame<'a> {
    pub opcode: OpCode,
    pub is_final: bool,
    pub is_compressed: bool,
    pub payload: &'a [u8],
    /// Bytes that the frame took, header included.
    pub length: usize,
}

/// The frame that `bytes` start with; `None` while it is not whole.
pub fn decode(bytes: &[u8]) -> Result<Option<Frame<'_>>, Failure> {
    let mut cursor = Cursor::new(bytes);
    let parsed = FrameHeader::parse(&mut cursor).map_err(|_| Failure::Protocol("a frame's header"))?;
    let Some((header, length)) = parsed else { return Ok(None) };
    if header.mask.is_some() {
        return Err(Failure::Protocol("a server masks"));
    }
    let start = cursor.position() as usize;
    let length = usize::try_from(length).map_err(|_| Failure::Protocol("a frame's length"))?;
    let Some(payload) = bytes.get(start..).and_then(|rest| rest.get(..length)) else { return Ok(None) };
    Ok(Some(Frame {
        opcode: header.opcode,
        is_final: header.is_final,
        is_compressed: header.rsv1,
        payload,
        length: start + length,
    }))
}

/// Appends one whole message of the given parts as a masked frame.
pub fn encode(out: &mut Vec<u8>, masks: &mut Masks, opcode: OpCode, is_compressed: bool, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mask = masks.next();
    let header =
        FrameHeader { is_final: true, rsv1: is_compressed, rsv2: false, rsv3: false, opcode, mask: Some(mask) };
    header.format(length as u64, out).expect("a Vec takes everything");
    let start = out.len();
    parts.iter().for_each(|part| out.extend_from_slice(part));
    apply_mask(&mut out[start..], mask);
}

pub const TEXT: OpCode = OpCode::Data(Data::Text);
pub const PONG: OpCode = OpCode::Control(Control::Pong);

/// RFC 6455 5.3; in words, so that the compiler makes vectors of it.
fn apply_mask(payload: &mut [u8], mask: [u8; 4]) {
    let mut words = payload.chunks_exact_mut(4);
    for word in &mut words {
        for (byte, key) in word.iter_mut().zip(mask) {
            *byte ^= key;
        }
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(mask) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read, Write};

    use tungstenite::protocol::{Message, Role, WebSocket};

    use super::*;

    /// A stream that gives what is put into it and keeps what is written.
    struct Pipe {
        incoming: Cursor<Vec<u8>>,
        written: Vec<u8>,
    }

    impl Read for Pipe {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.incoming.read(into)
        }
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.written.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn server(bytes: Vec<u8>) -> WebSocket<Pipe> {
        let pipe = Pipe { incoming: Cursor::new(bytes), written: Vec::new() };
        WebSocket::from_raw_socket(pipe, Role::Server, None)
    }

    #[test]
    fn a_server_reads_what_is_encoded_and_its_answer_is_decoded() {
        for length in [0, 1, 3, 125, 126, 400, 65_535, 65_536, 200_000] {
            let text: String = ('a'..='z').cycle().take(length).collect();
            let mut bytes = Vec::new();
            let parts: [&[u8]; 2] = [&text.as_bytes()[..length / 2], &text.as_bytes()[length / 2..]];
            encode(&mut bytes, &mut Masks::new().unwrap(), TEXT, false, &parts);
            let mut socket = server(bytes);
            assert_eq!(socket.read().unwrap(), Message::text(text.as_str()));
            socket.send(Message::text(text.as_str())).unwrap();
            let written = &socket.get_ref().written;
            let frame = decode(written).unwrap().unwrap();
            assert_eq!((frame.payload, frame.opcode, frame.length), (text.as_bytes(), TEXT, written.len()));
            assert!(decode(&written[..written.len() - 1]).unwrap().is_none());
        }
    }

    #[test]
    fn no_two_frames_are_masked_alike() {
        let mut masks = Masks::new().unwrap();
        let frames: Vec<Vec<u8>> = (0..2)
            .map(|_| {
                let mut bytes = Vec::new();
                encode(&mut bytes, &mut masks, TEXT, false, &[b"the same"]);
                bytes
            })
            .collect();
        assert_ne!(frames[0], frames[1]);
    }

    #[test]
    fn a_masked_frame_of_a_server_is_refused() {
        let mut bytes = Vec::new();
        encode(&mut bytes, &mut Masks::new().unwrap(), TEXT, false, &[b"x"]);
        assert!(decode(&bytes).is_err());
    }
}

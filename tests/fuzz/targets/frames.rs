//! WebSocket frames: nothing panics, no split changes what is decoded, masks undo themselves, and what is encoded
//! decodes to itself.
#![no_main]

use duet::base::Random;
use duet::wire::websocket::{
    CloseCode, Control, Data, OpCode, apply_mask, decode_close, decode_frame, encode_close, encode_frame,
};
use duet_fuzz::{chance, client_frame, pieces};
use libfuzzer_sys::fuzz_target;

/// Longest payload of a data frame, short enough to be passed.
const PAYLOAD_BYTES_MAX: usize = 700;

const OPCODES: [OpCode; 6] = [
    OpCode::Data(Data::Continue),
    OpCode::Data(Data::Text),
    OpCode::Data(Data::Binary),
    OpCode::Control(Control::Close),
    OpCode::Control(Control::Ping),
    OpCode::Control(Control::Pong),
];

/// One decoded frame, owned.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Decoded {
    opcode: OpCode,
    is_final: bool,
    is_compressed: bool,
    payload: Vec<u8>,
    length: usize,
}

fuzz_target!(|data: &[u8]| {
    let mut random = chance(data);
    for deflates in [false, true] {
        let whole = decode_all(&[data], deflates);
        assert_eq!(decode_all(&pieces(data, &mut random), deflates), whole, "a split changes the frames");
        for frame in &whole.0 {
            assert!(deflates || !frame.is_compressed);
            check_frame(frame, random.bytes());
        }
    }
    check_mask(data, random.bytes());
    check_encoded(data, &mut random);
    check_close(data);
});

/// All frames of these reads, and the error that ends them.
fn decode_all(reads: &[&[u8]], deflates: bool) -> (Vec<Decoded>, Option<CloseCode>) {
    let (mut frames, mut rest) = (Vec::new(), Vec::new());
    for read in reads {
        rest.extend_from_slice(read);
        loop {
            match decode(&mut rest, deflates) {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    rest.drain(..frame.length);
                    frames.push(frame);
                }
                Err(code) => return (frames, Some(code)),
            }
        }
    }
    (frames, None)
}

/// The first frame; without one, the bytes must stay as they are.
fn decode(bytes: &mut [u8], deflates: bool) -> Result<Option<Decoded>, CloseCode> {
    let before = bytes.to_vec();
    let decoded = decode_frame(bytes, PAYLOAD_BYTES_MAX, deflates).map(|frame| {
        frame.map(|frame| Decoded {
            opcode: frame.opcode,
            is_final: frame.is_final,
            is_compressed: frame.is_compressed,
            payload: frame.payload.to_vec(),
            length: frame.length,
        })
    });
    match &decoded {
        Ok(Some(frame)) => assert_eq!(bytes[frame.length..], before[frame.length..], "what follows is left alone"),
        _ => assert_eq!(bytes, before, "what is not whole is left alone"),
    }
    decoded
}

fn check_frame(frame: &Decoded, mask: [u8; 4]) {
    match frame.opcode {
        OpCode::Data(_) => assert!(frame.payload.len() <= PAYLOAD_BYTES_MAX),
        OpCode::Control(_) => assert!(frame.payload.len() <= 125 && frame.is_final && !frame.is_compressed),
    }
    let first = u8::from(frame.opcode) | u8::from(frame.is_final) << 7 | u8::from(frame.is_compressed) << 6;
    let mut again = client_frame(first, &frame.payload, mask);
    assert_eq!(decode(&mut again, true), Ok(Some(frame.clone())));
}

fn check_mask(data: &[u8], mask: [u8; 4]) {
    let mut masked = data.to_vec();
    apply_mask(&mut masked, mask);
    let by_bytes: Vec<u8> = data.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
    assert_eq!(masked, by_bytes);
    apply_mask(&mut masked, mask);
    assert_eq!(masked, data);
}

/// Server frames, masked as a client would send them, decode to what was encoded.
fn check_encoded(data: &[u8], random: &mut Random) {
    let opcode = OPCODES[random.below(OPCODES.len() as u64) as usize];
    let is_control = matches!(opcode, OpCode::Control(_));
    let payload = &data[..data.len().min(if is_control { 125 } else { PAYLOAD_BYTES_MAX })];
    let encoded = encode_frame(opcode, &pieces(payload, random));
    assert_eq!(encoded[0], 0x80 | u8::from(opcode));
    assert!(encoded[1] & 0x80 == 0 && encoded.ends_with(payload));
    let mut frame = client_frame(encoded[0], payload, random.bytes());
    assert_eq!(frame.len(), encoded.len() + 4, "both lengths are in the shortest form");
    let length = frame.len();
    let expected = Decoded { opcode, is_final: true, is_compressed: false, payload: payload.to_vec(), length };
    assert_eq!(decode(&mut frame, false), Ok(Some(expected)));
}

fn check_close(payload: &[u8]) {
    if let Ok(code) = decode_close(payload) {
        assert_eq!(decode_close(&encode_close(code)[2..]), Ok(code));
    }
}

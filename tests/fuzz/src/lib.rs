//! What the fuzz targets share: chance that comes out of the input, so that every run repeats, pieces of bytes, and
//! the frames of a client.
//!
//! A target takes bytes, so that its corpus is readable, and holds what must be true of them by asserting it.

pub mod split;
pub mod world;

use duet::base::Random;
use duet::wire::websocket::{EncodedHeader, OpCode, apply_mask};

/// Chance that depends on `data` alone (FNV-1a).
pub fn chance(data: &[u8]) -> Random {
    let hash = data
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    Random::from_seed(hash)
}

/// `bytes` cut into pieces: single bytes where they are few, else of any length, none of them empty.
pub fn pieces<'a>(bytes: &'a [u8], random: &mut Random) -> Vec<&'a [u8]> {
    let longest = if bytes.len() <= 256 && random.one_in(2) { 1 } else { bytes.len().div_ceil(4).max(1) as u64 };
    let (mut list, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let (piece, later) = rest.split_at((1 + random.below(longest) as usize).min(rest.len()));
        list.push(piece);
        rest = later;
    }
    list
}

/// A frame as a client sends it: masked, its length in the shortest form. `first` is the whole first byte.
pub fn client_frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut bytes = EncodedHeader::new(OpCode::from(first & 0x0f), payload.len()).as_bytes().to_vec();
    bytes[0] = first;
    bytes[1] |= 0x80;
    bytes.extend_from_slice(&mask);
    let start = bytes.len();
    bytes.extend_from_slice(payload);
    apply_mask(&mut bytes[start..], mask);
    bytes
}

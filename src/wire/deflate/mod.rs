//! permessage-deflate (RFC 7692): what handshakes agree on, whole messages out by `miniz_oxide` and in by `zlib-rs`.
//!
//! Without context takeover every message stands alone. One [`Deflater`] and one [`Inflater`] then serve all
//! connections of a shard, and what [`Deflater::deflate`] gave for one connection may be sent to every other with the
//! same window bits: a fan-out is compressed once per shard, not once per client. No message refers to what another user
//! was sent. Fragments and RSV1 are the caller's business.

mod compress;
mod decompress;
mod negotiate;

pub use compress::Deflater;
pub use decompress::{InflateError, Inflater, Window};
pub use negotiate::{Agreement, Policy, negotiate};

/// The largest window, and the one where none was agreed on (RFC 7692 7.1.2).
pub const WINDOW_BITS_MAX: u8 = 15;
/// The smallest window (RFC 7692 7.1.2).
pub const WINDOW_BITS_MIN: u8 = 8;

/// What a sync flush ends with: left out by the sender, put back by the receiver (RFC 7692 7.2.1, 7.2.2).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

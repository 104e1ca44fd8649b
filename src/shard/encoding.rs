//! The content coding of a response, in turns with everything else that the shard does.
//!
//! Bounds: one slice per turn, [`COMPRESSIONS_MAX`](crate::base::limits::COMPRESSIONS_MAX) long bodies at the same time;
//! further ones wait in the order they came. Which coding, and whether any, is decided by `wire/encoding.rs`.

use crate::runtime::yield_now;
use crate::wire::encoding::{Encoding, choose, slice_bytes};
use crate::wire::http::{Request, Response};

use super::Shard;

/// Encodes the body, if this client takes a coding and the response gains by it. A short body takes one turn and waits
/// for none.
pub async fn encode(shard: &Shard, request: &Request, response: &mut Response) {
    let settings = shard.settings().encoding;
    let Some(coding) = choose(&settings, request, response) else { return };
    let level = settings.level(response.effort);
    let is_long = response.body.len() > slice_bytes(level);
    let _leave = if is_long { shard.encodings.acquire().await.ok() } else { None };
    let mut encoding = Encoding::reusing(&mut shard.spare.borrow_mut(), coding, level, response.body.clone());
    while encoding.step() {
        yield_now().await;
    }
    shard.spare.borrow_mut().keep(encoding.finish(response));
}

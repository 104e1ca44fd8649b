//! The content coding of a response, in turns with everything else that the shard does.
//!
//! Bounds: in one turn of the shard's loop as much is encoded as one slice takes, of however many bodies, but for short
//! ones, which wait for nothing, and for those that come while [`COMPRESSIONS_WAITING_MAX`] wait, as a body that waits is
//! memory; and [`COMPRESSIONS_MAX`] long bodies at the same time. Further ones wait in the order they came. Which coding,
//! and whether any, is decided by `wire/encoding.rs`.

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::base::limits::{COMPRESSIONS_MAX, COMPRESSIONS_WAITING_MAX};
use crate::runtime::yield_now;
use crate::wire::encoding::{Encoding, choose, slice_bytes};
use crate::wire::http::{Request, Response};

use super::Shard;

/// Parts of a turn's encoding.
const TURN_PARTS: usize = 64;
/// What takes no more is short.
const SHORT_PARTS_MAX: u32 = 16;

/// Leave to encode.
pub(super) struct Encodings {
    long: Semaphore,
    turn: Semaphore,
    waiting: Semaphore,
}

impl Default for Encodings {
    fn default() -> Self {
        let [long, turn, waiting] = [COMPRESSIONS_MAX, TURN_PARTS, COMPRESSIONS_WAITING_MAX].map(Semaphore::new);
        Self { long, turn, waiting }
    }
}

impl Encodings {
    /// Waits for a turn that has time for a slice of a body of so many bytes; `None` for what does not wait.
    async fn part(&self, bytes: usize, level: u8) -> Option<SemaphorePermit<'_>> {
        let parts = (bytes * TURN_PARTS).div_ceil(slice_bytes(level)).min(TURN_PARTS) as u32;
        if parts <= SHORT_PARTS_MAX {
            return None;
        }
        let _place = self.waiting.try_acquire().ok()?;
        self.turn.acquire_many(parts).await.ok()
    }
}

/// Encodes the body, if this client takes a coding and the response gains by it.
pub(super) async fn encode(shard: &Shard, request: &Request, response: &mut Response) {
    let settings = shard.settings().encoding;
    let Some(coding) = choose(&settings, request, response) else { return };
    let (level, bytes) = (settings.level(response.effort), response.body.len());
    let is_long = bytes > slice_bytes(level);
    let _leave = if is_long { shard.encodings.long.acquire().await.ok() } else { None };
    let mut part = shard.encodings.part(bytes, level).await;
    let mut encoding = Encoding::reusing(&mut shard.spare.borrow_mut(), coding, level, response.body.clone());
    while encoding.step() {
        yield_now().await;
        drop(part);
        part = shard.encodings.part(bytes, level).await;
    }
    shard.spare.borrow_mut().keep(encoding.finish(response));
    if part.is_some() {
        // Given back any earlier, another would have it in this turn.
        yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    #[test]
    fn a_turn_has_time_for_one_slice_or_several_shorter_ones_and_short_ones_wait_for_nothing() {
        for level in [2, 6] {
            let (encodings, slice) = (Encodings::default(), slice_bytes(level));
            let part = |bytes| block_on(poll_once(encodings.part(bytes, level)));
            let (half, other) = (part(slice / 2), part(slice / 2));
            assert!(matches!((&half, &other), (Some(Some(_)), Some(Some(_)))));
            assert!(part(slice / 2).is_none(), "it waits");
            assert!(matches!(part(slice / 4), Some(None)), "it need not");
            drop((half, other));
            let whole = part(10 * slice);
            assert!(part(slice / 2).is_none());
            drop(whole);
            assert!(matches!(part(slice), Some(Some(_))));
        }
    }

    #[test]
    fn when_many_wait_the_next_does_not() {
        let encodings = Encodings::default();
        let slice = || Box::pin(encodings.part(slice_bytes(2), 2));
        let _turn = block_on(slice());
        let mut waiting: Vec<_> = (0..COMPRESSIONS_WAITING_MAX).map(|_| slice()).collect();
        assert!(waiting.iter_mut().all(|part| block_on(poll_once(part)).is_none()));
        assert!(matches!(block_on(poll_once(slice())), Some(None)));
        waiting.pop();
        assert!(block_on(poll_once(slice())).is_none());
    }
}

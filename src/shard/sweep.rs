//! What is swept now and then: what a shard keeps in memory for a time that is over, and rows of the store likewise.
//!
//! Each shard sweeps its own memory; the first asks the store, which removes or archives a bounded number of rows at a
//! time. Not here: what has a deadline of its own (invites, presence, calls), which `domain/` ends when that comes.

use std::rc::Rc;
use std::time::Duration;

use crate::base::limits::ARCHIVE_PAUSE_MS;
use crate::base::{ShardId, Time};
use crate::domain::Input;
use crate::message::store::{Reply, Request};
use crate::runtime::sleep;

use super::Shard;

/// Sweeps for ever.
pub async fn run(shard: Rc<Shard>) {
    loop {
        sleep(shard.settings().sweep).await;
        let now = shard.now();
        shard.stores.sweep(now);
        shard.rates.borrow_mut().forget_ended(now);
        shard.addresses.borrow_mut().sweep();
        shard.handle(Input::Sweep);
        if shard.id == ShardId(0) {
            // What could not be removed is found again by the next sweep; the failure is logged.
            let _ = shard.stores.request(Request::Sweep { now }).await;
            if let Some(keep_ms) = shard.settings().history_keep_ms {
                archive(&shard, Time(now.0.saturating_sub(keep_ms))).await;
            }
        }
    }
}

/// Archives all history of calls that ended before `before`, bit by bit, so that others are served in between.
async fn archive(shard: &Shard, before: Time) {
    let mut archived = 0;
    while let Ok(Reply::Archived { rows: rows @ 1.. }) = shard.stores.request(Request::Archive { before }).await {
        archived += rows;
        sleep(Duration::from_millis(ARCHIVE_PAUSE_MS)).await;
    }
    if archived > 0 {
        tracing::info!(rows = archived, "old history was archived");
    }
}

//! What is swept now and then: cached rows that are no longer fresh, and rows of the store whose time has passed.
//!
//! Each shard sweeps its own caches; the first asks the store, which removes a bounded number of rows each time.

use std::rc::Rc;

use crate::base::ShardId;
use crate::message::store::Request;
use crate::runtime::sleep;

use super::Shard;

/// Sweeps for ever.
pub async fn run(shard: Rc<Shard>) {
    loop {
        sleep(shard.settings.sweep).await;
        let now = shard.now();
        shard.stores.sweep(now);
        if shard.id == ShardId(0) {
            // What could not be removed is found again by the next sweep; the failure is logged.
            let _ = shard.stores.request(Request::Sweep { now }).await;
        }
    }
}

//! The calls that an earlier process left behind: read before the shards start, each for the homes of its two people.
//!
//! Once, on the main thread. Bound: a page at a time; all of them are what that process had in memory.

use futures_lite::future::block_on;

use crate::base::limits::RUNNING_PAGE;
use crate::base::placement::Placement;
use crate::domain::{Resumed, resumed};
use crate::link::Link;
use crate::message::store::{Reply, Request};

/// What each shard, in order, goes on with.
///
/// # Errors
/// The store does not tell.
pub(super) fn resume(store: &Link<Request, Reply>, placement: Placement) -> Result<Vec<Vec<Resumed>>, String> {
    let (mut running, mut after) = (Vec::new(), None);
    let alive_at = loop {
        let page = block_on(store.ask(Request::RunningCalls { after, limit: RUNNING_PAGE }));
        let Ok(Reply::RunningCalls { alive_at, calls, next }) = page else {
            return Err(format!("the running calls cannot be read: {page:?}"));
        };
        running.extend(calls);
        after = next;
        if next.is_none() {
            break alive_at;
        }
    };
    if !running.is_empty() {
        tracing::info!(calls = running.len(), "going on with the calls of an earlier process");
    }
    let mut homes = vec![Vec::new(); usize::from(placement.count())];
    for call in resumed(running, alive_at) {
        let users = [call.running.caller.user(), call.running.callee.user()];
        let [caller, callee] = users.map(|user| usize::from(placement.home(user).0));
        if callee != caller {
            homes[callee].push(call.clone());
        }
        homes[caller].push(call);
    }
    Ok(homes)
}

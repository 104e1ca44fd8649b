//! An orderly stop: connections are closed in turn, so that all clients do not come back in the same moment; then what the
//! rules have left to store is stored.
//!
//! They are closed by the transport, which makes clients reconnect. The two of a call are closed together wherever they
//! live, so that neither speaks to nobody. All within the time that the stop may take: a client that does not go in its
//! first three quarters is not waited for.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::base::{CallId, ConnId};
use crate::conn::CloseReason;
use crate::domain::Input;
use crate::runtime::sleep;

use super::Shard;

/// How often a stop looks whether it is done.
const POLL: Duration = Duration::from_millis(5);
/// Connections of the whole process that are closed in a millisecond, if there is time: few enough for the next process to
/// take them as they come back.
const CLOSED_PER_MS: u64 = 2;

/// First half: no new connections and invites, and the open ones closed.
pub(super) async fn run(shard: Rc<Shard>, reply: oneshot::Sender<()>) {
    shard.stopping.set(true);
    shard.stopped.notify_waiters();
    shard.handle(Input::Drain);
    let begun = shard.now();
    let drain_ms = shard.settings().drain_ms;
    let spread_ms = (shard.places.taken() as u64 / CLOSED_PER_MS).min(drain_ms / 2);
    for (turn, id) in turns(&shard, spread_ms) {
        let wait = (begun + turn) - shard.now();
        if wait > 0 {
            sleep(Duration::from_millis(wait)).await;
        }
        close(&shard, id);
    }
    while shard.slots.borrow().len() > 0 && shard.now() < begun + drain_ms / 4 * 3 {
        // Some have moved here meanwhile.
        let ids = shard.slots.borrow().ids();
        ids.into_iter().for_each(|id| close(&shard, id));
        sleep(POLL).await;
    }
    // Who asked may have given up.
    let _ = reply.send(());
}

/// Second half: nothing more happens, and what did is stored, as far as the time allows.
pub(super) async fn flush(shard: &Rc<Shard>) {
    shard.handle(Input::Flush);
    let deadline = shard.now() + shard.settings().drain_ms / 4;
    while shard.domain.borrow().sizes().writes > 0 && shard.now() < deadline {
        sleep(POLL).await;
    }
}

/// When each connection is closed, milliseconds from now, in that order.
fn turns(shard: &Shard, spread_ms: u64) -> Vec<(u64, ConnId)> {
    let (ids, domain) = (shard.slots.borrow().ids(), shard.domain.borrow());
    let call_of = |id| Some(domain.engagement(domain.user_of(id)?)?.0);
    let count = ids.len().max(1) as u64;
    let turn = |(place, id): (u64, ConnId)| match call_of(id) {
        Some(call) => (turn_of(call, spread_ms), id),
        None => (place * spread_ms / count, id),
    };
    let mut turns: Vec<_> = (0..).zip(ids).map(turn).collect();
    turns.sort_unstable();
    turns
}

/// The same on every shard: ids are random.
fn turn_of(call: CallId, spread_ms: u64) -> u64 {
    let [.., high, low] = *call.as_bytes();
    u64::from(u16::from_be_bytes([high, low])) * spread_ms / 0x1_0000
}

fn close(shard: &Shard, id: ConnId) {
    shard.on_conn(id, |conn| conn.close(shard.now(), CloseReason::ServerShutdown));
}

//! Measures how long what is ready waits on this shard: a task that sleeps, and sees how late it is woken.
//!
//! While one task computes, or the thread has no processor, no other runs; who sleeps is late by just that. A stall is seen with
//! the likelihood of a wake falling into it, so that the distribution is right and one that outlasts [`PERIOD`] is
//! never missed. Not here: whose fault it was.

use std::rc::Rc;
use std::time::Duration;

use crate::runtime::sleep;

use super::Shard;

/// Pause between two wakes.
const PERIOD: Duration = Duration::from_millis(100);

/// From this on a wake counts as a stall, microseconds: signalling that waits so long can be felt.
const STALL_US: u64 = 50_000;

/// Measures for ever.
pub async fn run(shard: Rc<Shard>) {
    loop {
        let due = shard.clock.micros() + PERIOD.as_micros() as u64;
        sleep(PERIOD).await;
        let late = shard.clock.micros().saturating_sub(due);
        shard.counters.lateness.observe(late);
        if late >= STALL_US {
            shard.counters.stalls.add_one();
        }
    }
}

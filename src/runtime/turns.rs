//! How long the turns of a shard's loop take: what becomes ready in one waits until it is over.
//!
//! Owned by: the shard's thread (a thread-local). Bound: one histogram. A turn begins when the thread comes back from the kernel, where
//! it slept or only looked, and ends when the tasks that were ready have run: on io_uring the driver says so, on epoll tokio does, which
//! parks after each round of a `LocalSet`. Nothing here wakes anybody: a thread that sleeps has no turns, and costs nothing.
//! Not here: how long the kernel took to wake the thread.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::timers::now;
use crate::base::counters::{Counter, Histogram};

/// Of the turns in such a time only the longest is observed.
const WINDOW: Duration = Duration::from_millis(100);
/// From this on a turn is a stall, microseconds: signalling that waits so long can be felt.
const STALL_US: u64 = 50_000;
/// Bounds of [`Turns::longest`], microseconds.
const LONGEST_US: [u64; 8] = [2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000];

/// What was seen on one shard since its start.
#[derive(Clone, Debug)]
pub struct Turns {
    /// The longest turn of each tenth of a second in which there was one, microseconds.
    pub longest: Histogram<8>,
    /// Turns that took so long that people notice.
    pub stalls: Counter,
}

struct Watch {
    turns: Turns,
    begun: Cell<Option<Instant>>,
    /// When the window ends, and its longest turn so far, microseconds.
    window: Cell<Option<(Instant, u64)>>,
}

thread_local! {
    static WATCH: Watch = Watch { turns: Turns::default(), begun: Cell::default(), window: Cell::default() };
}

impl Default for Turns {
    fn default() -> Self {
        Self { longest: Histogram::new(&LONGEST_US), stalls: Counter::default() }
    }
}

/// Of this shard, so far.
pub fn turns() -> Turns {
    WATCH.with(|watch| watch.turns.clone())
}

/// The thread is back from the kernel.
pub(super) fn begin() {
    WATCH.with(|watch| watch.begun.set(Some(now())));
}

/// The thread goes to the kernel.
pub(super) fn end() {
    WATCH.with(|watch| {
        let Some(begun) = watch.begun.take() else { return };
        let now = now();
        let took = (now - begun).as_micros() as u64;
        if took >= STALL_US {
            watch.turns.stalls.add_one();
        }
        let window = match watch.window.get() {
            Some((ends, longest)) if now < ends => (ends, longest.max(took)),
            past => {
                past.iter().for_each(|(_, longest)| watch.turns.longest.observe(*longest));
                (now + WINDOW, took)
            }
        };
        watch.window.set(Some(window));
    });
}

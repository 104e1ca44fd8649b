//! The one place that reads the clock and waits: nanoseconds since the program started.
//!
//! All threads see the same origin. Dates are not here: `machine.rs` asks the system once.

use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// Nanoseconds since the program started.
pub type Nanos = u64;

pub const MILLISECOND: Nanos = 1_000_000;
pub const SECOND: Nanos = 1_000_000_000;

#[expect(clippy::disallowed_methods, reason = "the only reader of the clock")]
pub fn now() -> Nanos {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    let now = Instant::now();
    now.duration_since(*ORIGIN.get_or_init(|| now)).as_nanos() as Nanos
}

/// Blocks this thread. For the runner while no load runs; the generator waits in `epoll_pwait2`.
#[expect(clippy::disallowed_methods, reason = "the runner has nothing else to do meanwhile")]
pub fn pause(duration: Duration) {
    thread::sleep(duration);
}

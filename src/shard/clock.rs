//! The only place that reads a clock.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::base::Time;

/// Wall-clock time that never goes back: the wall clock at the start, advanced by the monotonic clock.
///
/// So a wall clock that is set while the server runs neither fires nor delays a timer; times on the wire then differ
/// from the wall clock by that step until a restart.
#[derive(Clone, Copy)]
pub struct Clock {
    started: Instant,
    epoch: Time,
}

impl Clock {
    /// Reads both clocks.
    #[allow(clippy::disallowed_methods)]
    pub fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), epoch: Time(since_epoch.as_millis() as u64) }
    }

    /// Microseconds since the start, for durations.
    pub fn micros(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    /// Now.
    pub fn now(&self) -> Time {
        self.epoch + self.started.elapsed().as_millis() as u64
    }
}

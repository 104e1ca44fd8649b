//! A point in time as a value. Only `shard/clock.rs` makes one from a clock.

use std::ops::{Add, Sub};

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, the unit of every time on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(pub u64);

impl Time {
    /// Whole seconds from `earlier` to this; 0 when it is not earlier.
    pub fn seconds_since(self, earlier: Time) -> u64 {
        (self - earlier) / 1000
    }
}

impl Add<u64> for Time {
    type Output = Time;
    /// Later by so many milliseconds.
    fn add(self, ms: u64) -> Time {
        Time(self.0.saturating_add(ms))
    }
}

impl Sub for Time {
    type Output = u64;
    /// Milliseconds between; 0 when `earlier` is later.
    fn sub(self, earlier: Time) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

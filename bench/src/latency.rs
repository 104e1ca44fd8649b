//! Histograms of times, and the few numbers of one that are shown.

use hdrhistogram::Histogram;

use crate::clock::{MILLISECOND, Nanos};

/// Longest time told from a longer one: 10 minutes.
const NANOS_MAX: Nanos = 600_000 * MILLISECOND;
/// Significant decimal digits.
const DIGITS: u8 = 3;

pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, NANOS_MAX, DIGITS).expect("the bounds are sound")
}

/// The value that so many percent do not exceed, ms.
pub fn percentile_ms(times: &Histogram<u64>, percent: f64) -> f64 {
    times.value_at_percentile(percent) as f64 / MILLISECOND as f64
}

/// Percentiles for a curve: `(percent, ms)`.
pub fn curve(times: &Histogram<u64>) -> Vec<(f64, f64)> {
    const PERCENTS: [f64; 9] = [10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99];
    PERCENTS.iter().map(|percent| (*percent, percentile_ms(times, *percent))).collect()
}

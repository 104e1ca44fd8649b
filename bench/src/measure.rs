//! One window of a measurement: what the server, its database and the generator used in it; and whether the generator
//! was what was measured.

use hdrhistogram::Histogram;

use crate::clock::{Nanos, SECOND, now};
use crate::database::Postgres;
use crate::latency::percentile_ms;
use crate::net::{Net, Traffic};
use crate::sample::{Spent, Usage, own_cpu_seconds};

/// Share of its core above which the generator was the bottleneck.
const GENERATOR_CPU_MAX: f64 = 0.9;
/// Lateness, p99, up to which the generator is never blamed, ms.
const LATENESS_MS_FINE: f64 = 1.0;
/// Above that, the share of the p99 latency that lateness may be.
const LATENESS_SHARE_MAX: f64 = 0.1;

/// The process that a window is about, and the database that works for it.
#[derive(Debug, Clone, Copy)]
pub struct Watched<'a> {
    pub pid: u32,
    /// Cores it is pinned to.
    pub cores: usize,
    pub database: Option<&'a Postgres>,
}

impl Watched<'_> {
    fn usage(&self) -> (Usage, Usage) {
        (Usage::of(self.pid), self.database.map(Postgres::usage).unwrap_or_default())
    }
}

/// A window that has begun.
pub struct Window<'a> {
    watched: Watched<'a>,
    from: Nanos,
    server: Usage,
    database: Usage,
    generator: f64,
    traffic: Traffic,
}

/// What a window has seen.
#[derive(Debug, Clone, Copy, Default)]
pub struct Span {
    pub seconds: f64,
    pub server: Spent,
    /// Processor seconds of the database, if there is one.
    pub database_cpu_seconds: f64,
    /// Of one core.
    pub generator_cpu_share: f64,
    /// What went through the generator.
    pub traffic: Traffic,
}

impl<'a> Window<'a> {
    /// Begins now; the generator's lateness is counted from here.
    pub fn begin(net: &mut Net, watched: Watched<'a>) -> Self {
        net.lateness.reset();
        let (server, database) = watched.usage();
        Self { watched, from: now(), server, database, generator: own_cpu_seconds(), traffic: net.traffic }
    }

    pub fn end(&self, net: &Net) -> Span {
        let seconds = (now() - self.from) as f64 / SECOND as f64;
        let generator = own_cpu_seconds() - self.generator;
        let (server, database) = self.watched.usage();
        Span {
            seconds,
            server: server.since(&self.server),
            database_cpu_seconds: database.since(&self.database).cpu_seconds,
            generator_cpu_share: generator / seconds,
            traffic: net.traffic.since(&self.traffic),
        }
    }
}

/// What the reader must know when the generator, not the server, set the pace. `what` names the window.
pub fn generator_note(what: &str, span: &Span, lateness: &Histogram<u64>, latency: &Histogram<u64>) -> Option<String> {
    let late = percentile_ms(lateness, 99.0);
    if span.generator_cpu_share > GENERATOR_CPU_MAX {
        let percent = span.generator_cpu_share * 100.0;
        return Some(format!("{what}: the generator was the bottleneck, at {percent:.0} % of its core"));
    }
    let is_late = late > LATENESS_MS_FINE && late > LATENESS_SHARE_MAX * percentile_ms(latency, 99.0);
    is_late.then(|| format!("{what}: the generator was the bottleneck, late by {late:.1} ms (p99)"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::MILLISECOND;
    use crate::latency::histogram;

    fn times(ms: u64) -> Histogram<u64> {
        let mut times = histogram();
        times.record(ms * MILLISECOND).unwrap();
        times
    }

    #[test]
    fn a_generator_without_rest_or_in_time_is_named() {
        let at = |share| Span { generator_cpu_share: share, ..Span::default() };
        assert!(generator_note("x", &at(0.95), &times(0), &times(1)).unwrap().contains("95 %"));
        assert!(generator_note("x", &at(0.2), &times(5), &times(6)).unwrap().contains("5.0 ms"));
        assert_eq!(generator_note("x", &at(0.2), &times(5), &times(1_000)), None);
        assert_eq!(generator_note("x", &at(0.2), &times(0), &times(0)), None);
    }
}

//! Echo: what a connection's plain transport costs, of duet's WebSocket, of others', and of TCP alone.
//!
//! Messages of 400 bytes; no deflate, which would measure zlib.

use std::fmt;

use crate::crowd;
use crate::latency::percentile_ms;
use crate::load::{Lane, Load};
use crate::net::{Dial, Net, STAMP_LENGTH, Speaks, Template};
use crate::process::Server;
use crate::report::{Measured, Metric};
use crate::run::{Bench, Options, Scenario};
use crate::servers::{Entry, Job};

const MESSAGE_BYTES: usize = 400;
const MARK: &str = "t=";
/// In flight at saturation, on each connection: one, for what comes in heaps is cheaper than it is in life.
const IN_FLIGHT: usize = 1;

/// Each connection sends again as soon as its message is back.
const SATURATION: Metric = Metric::new("saturation", "Messages at saturation", "/s", 0).compared();
const SATURATION_SHARE: Metric = Metric::new("saturation-cpu", "Server's core, saturated", "%", 0);
/// What saturation would be if the server had all of its core, and the generator were no limit.
const SATURATION_EACH: Metric =
    Metric::new("saturation-per-cpu-second", "Messages per server CPU second, saturated", "", 0).compared();
/// With a little to do at a time, as in life: heaps are cheaper.
const FIXED_EACH: Metric =
    Metric::new("fixed-per-cpu-second", "Messages per server CPU second, fixed rate", "", 0).compared();
const FIXED_P50: Metric = Metric::new("fixed-p50", "p50, fixed rate", "ms", 3);
const FIXED_P99: Metric = Metric::new("fixed-p99", "p99, fixed rate", "ms", 3);

#[derive(Default)]
pub struct Echo;

pub struct Case {
    connections: usize,
    per_second: f64,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} connections, fixed rate {}/s", self.connections, self.per_second)
    }
}

impl Scenario for Echo {
    type Case = Case;

    const NAME: &'static str = "echo";
    const ABOUT: &'static str = "Messages of 400 bytes come back on the connection they were sent on: WebSocket without \
                                 compression; the floors are TCP alone.";
    const SERVERS: &'static [&'static str] =
        &["duet-echo-uring", "duet-echo-epoll", "ws", "tokio-ws", "uwebsockets", "epoll-floor", "uring-floor"];
    const QUICK_SERVERS: &'static [&'static str] = &["duet-echo-uring", "ws", "epoll-floor"];
    const BASELINE: &'static str = "ws";
    const METRICS: &'static [Metric] =
        &[SATURATION, SATURATION_SHARE, SATURATION_EACH, FIXED_EACH, FIXED_P50, FIXED_P99];

    fn takes(entry: &Entry) -> bool {
        entry.job != Job::Product
    }

    fn cases(&self, options: &Options) -> Vec<Case> {
        if options.is_quick {
            return vec![Case { connections: 20, per_second: 1_000.0 }];
        }
        [50, 1_000].map(|connections| Case { connections, per_second: 20_000.0 }).into()
    }

    fn measure(&self, bench: &Bench, case: &Case, server: &mut Server) -> Result<Measured, String> {
        let mut net = Net::new().map_err(|error| error.to_string())?;
        let (port, job) = (server.port, server.entry.job);
        let speaks = match job {
            Job::BytesEcho => Speaks::Records(MESSAGE_BYTES),
            Job::WebSocketEcho => Speaks::WebSocket("/".to_owned()),
            Job::Product => return Err("it echoes nothing".to_owned()),
        };
        let dial = |tag| Dial { port, speaks: speaks.clone(), offers_deflate: false, tag: tag as u32 };
        let ids = crowd::open(&mut net, case.connections, dial)?;
        let padding = "x".repeat(MESSAGE_BYTES - STAMP_LENGTH - MARK.len());
        let lanes = ids.iter().map(|id| Lane { from: *id, template: Template::new(MARK, &padding) }).collect();
        let tags: Vec<u32> = ids.iter().map(|id| id.tag).collect();
        let mut load = Load::new(lanes, &tags, MARK.as_bytes());
        let mut measured = Measured::default();
        let watched = bench.watch(server);

        bench.progress.at("saturation");
        let most = load.closed_loop(&mut net, watched, IN_FLIGHT, bench.seconds, "saturation")?;
        measured.set(SATURATION, most.per_second());
        measured.set(SATURATION_SHARE, most.span.server.cpu_seconds / most.span.seconds * 100.0);
        measured.set(SATURATION_EACH, most.per_cpu_second());

        bench.progress.at("fixed rate");
        let fixed = load.open_loop(&mut net, watched, case.per_second, bench.seconds, "fixed rate")?;
        measured.set(FIXED_EACH, fixed.per_cpu_second());
        measured.set(FIXED_P50, percentile_ms(&fixed.latency, 50.0));
        measured.set(FIXED_P99, percentile_ms(&fixed.latency, 99.0));
        for outcome in [&most, &fixed] {
            outcome.tell(&mut measured);
        }
        measured.set_latency(fixed.latency);
        Ok(measured)
    }
}

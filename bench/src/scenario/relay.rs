//! Relay: a signal of 400 bytes from one client to its partner in a call, which is what duet does all day.
//!
//! Both sides of every call send. Signals are opaque to the server; the stamp inside says when one was meant to be sent.

use std::fmt;

use serde_json::json;

use crate::crowd::{self, Call};
use crate::latency::percentile_ms;
use crate::load::{Lane, Load};
use crate::net::{Deflater, Id, Net, STAMP_LENGTH, Template};
use crate::process::Server;
use crate::report::{Measured, Metric};
use crate::run::{Bench, Options, Scenario};

const MESSAGE_BYTES: usize = 400;
const MARK: &str = "t=";
/// In flight at saturation, on each connection: one, for what comes in heaps is cheaper than it is in life.
const IN_FLIGHT: usize = 1;
/// A fixed rate above this share of the saturation is not measured: what it would show is a queue that grows.
const RATE_SHARE_MAX: f64 = 0.9;

/// Each client sends again as soon as its partner's signal has come.
const SATURATION: Metric = Metric::new("saturation", "Signals at saturation", "/s", 0).compared();
const SATURATION_SHARE: Metric = Metric::new("saturation-cpu", "Server's processors, saturated", "%", 0);
/// What a core of the server's own could relay.
const SATURATION_EACH: Metric =
    Metric::new("saturation-per-cpu-second", "Signals per server CPU second, saturated", "", 0).compared();
/// Latency is compared where each server is at ease with its load: at half of what it can do itself.
const HALF_P50: Metric = Metric::new("half-p50", "p50 at half of saturation", "ms", 3);
const HALF_P95: Metric = Metric::new("half-p95", "p95 at half", "ms", 3);
const HALF_P99: Metric = Metric::new("half-p99", "p99 at half of saturation", "ms", 3).plotted();
const SWITCHES: Metric = Metric::new("half-switches", "Context switches per 1,000 signals, at half", "", 0);

/// Each fixed rate, with signals per CPU second and CPU microseconds per signal.
const FIXED: [(f64, Metric, Metric); 3] = [
    (
        5_000.0,
        Metric::new("5k-per-cpu-second", "Signals per server CPU second at 5,000/s", "", 0),
        Metric::new("5k-cpu-each", "CPU per signal at 5,000/s", "µs", 1),
    ),
    (
        10_000.0,
        Metric::new("10k-per-cpu-second", "Signals per server CPU second at 10,000/s", "", 0).compared(),
        Metric::new("10k-cpu-each", "CPU per signal at 10,000/s", "µs", 1),
    ),
    (
        20_000.0,
        Metric::new("20k-per-cpu-second", "Signals per server CPU second at 20,000/s", "", 0),
        Metric::new("20k-cpu-each", "CPU per signal at 20,000/s", "µs", 1),
    ),
];

#[derive(Default)]
pub struct Relay;

pub struct Case {
    connections: usize,
    /// Of `FIXED`, how many.
    rates: usize,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} connections in {} calls", self.connections, self.connections / 2)
    }
}

impl Scenario for Relay {
    type Case = Case;

    const NAME: &'static str = "relay";
    const ABOUT: &'static str = "A signal (rtc:ice) of 400 bytes goes from one client to its partner in a call, by \
                                 Socket.IO over WebSocket; clients compress as browsers do where the server agrees to.";
    const SERVERS: &'static [&'static str] = &[
        "duet-uring-plain",
        "duet-epoll-plain",
        "socketioxide",
        "node",
        "duet-uring",
        "duet-epoll",
        "duet-uring-2",
        "duet-epoll-2",
        "node-reference",
    ];
    const BASELINE: &'static str = "node";
    const METRICS: &'static [Metric] = &[
        SATURATION,
        SATURATION_SHARE,
        SATURATION_EACH,
        FIXED[0].1,
        FIXED[0].2,
        FIXED[1].1,
        FIXED[1].2,
        FIXED[2].1,
        FIXED[2].2,
        HALF_P50,
        HALF_P95,
        HALF_P99,
        SWITCHES,
    ];

    fn cases(&self, options: &Options) -> Vec<Case> {
        if options.is_quick {
            return vec![Case { connections: 20, rates: 1 }];
        }
        [50, 1_000].map(|connections| Case { connections, rates: FIXED.len() }).into()
    }

    fn measure(&self, bench: &Bench, case: &Case, server: &mut Server) -> Result<Measured, String> {
        let mut net = Net::new().map_err(|error| error.to_string())?;
        bench.progress.at("calls are made");
        let accounts = crowd::sign_up(&mut net, server.port, case.connections)?;
        let calls = crowd::call(&mut net, server.port, &accounts, bench.options.offers_deflate)?;
        let mut measured = Measured::default();
        if bench.options.offers_deflate && !net.deflates(calls[0].caller) {
            measured.note("does not agree to permessage-deflate");
        }
        let mut load = load_of(&calls);
        let watched = bench.watch(server);

        bench.progress.at("saturation");
        let most = load.closed_loop(&mut net, watched, IN_FLIGHT, bench.seconds, "saturation")?;
        measured.set(SATURATION, most.per_second());
        measured.set(SATURATION_SHARE, most.span.server.cpu_seconds / most.span.seconds * 100.0);
        measured.set(SATURATION_EACH, most.per_cpu_second());
        most.tell(&mut measured);

        for (rate, each, micros) in &FIXED[..case.rates] {
            if *rate > most.per_second() * RATE_SHARE_MAX {
                measured.note(format!("{rate}/s is more than it can do"));
                continue;
            }
            let what = format!("{rate}/s");
            bench.progress.at(&what);
            let fixed = load.open_loop(&mut net, watched, *rate, bench.seconds, &what)?;
            measured.set(*each, fixed.per_cpu_second());
            measured.set(*micros, fixed.cpu_micros_each());
            fixed.tell(&mut measured);
        }

        bench.progress.at("half of saturation");
        let half = load.open_loop(&mut net, watched, most.per_second() / 2.0, bench.seconds, "half of saturation")?;
        measured.set(HALF_P50, percentile_ms(&half.latency, 50.0));
        measured.set(HALF_P95, percentile_ms(&half.latency, 95.0));
        measured.set(HALF_P99, percentile_ms(&half.latency, 99.0));
        let switches = half.span.server.voluntary_switches + half.span.server.involuntary_switches;
        measured.set(SWITCHES, switches as f64 * 1_000.0 / half.received as f64);
        half.tell(&mut measured);
        measured.set_latency(half.latency);
        Ok(measured)
    }
}

/// Both sides of each call send to the other.
fn load_of(calls: &[Call]) -> Load {
    let mut deflater = Deflater::new();
    let mut lanes = Vec::new();
    let mut receivers = Vec::new();
    for call in calls {
        for (from, to) in [(call.caller, call.callee), (call.callee, call.caller)] {
            lanes.push(lane(from, &call.room, &mut deflater));
            receivers.push(to.tag);
        }
    }
    Load::new(lanes, &receivers, MARK.as_bytes())
}

/// A candidate as browsers write them, padded to the wanted length of the whole message.
fn lane(from: Id, room: &str, deflater: &mut Deflater) -> Lane {
    const CANDIDATE: &str = " candidate:842163049 1 udp 1677729535 203.0.113.77 46154 typ srflx raddr 192.168.1.7 \
                             rport 46154 generation 0 ufrag EsAw network-cost 999 ";
    let before = format!("42[\"rtc:ice\",{{\"roomId\":{},\"candidate\":{{\"candidate\":\"{MARK}", json!(room));
    let end = "\",\"sdpMid\":\"0\",\"sdpMLineIndex\":0}}]";
    let length = before.len() + STAMP_LENGTH + end.len();
    let filler: String = CANDIDATE.chars().cycle().take(MESSAGE_BYTES.saturating_sub(length)).collect();
    Lane { from, template: Template::new(&before, &format!("{filler}{end}")).with_deflate(deflater) }
}

//! Mix: what people do on a site, all at once; the load that duet is made for.
//!
//! Everybody has signed up by `POST /auth/guest`, is connected by Socket.IO over WebSocket, offers deflate as browsers do,
//! and has emitted `presence:join` and `queue:join`. Then, all by intended times:
//!
//! - Who is not in a call asks for `/room/queue` every 5 s, evenly spread; on a connection of his own that is kept, with
//!   `Accept-Encoding: gzip` and the last `ETag`.
//! - A quarter is in calls of 10 s: calls begin at the rate of users / 80 per second, so that everybody begins one every
//!   40 s, with somebody new each time, as who has talked may not call again for a day.
//! - A call: `call:invite`, `call:accept` at once, `call:start`; both emit `queue:leave` and `room:join`. From there on
//!   an offer after 200 ms and an answer after 400 ms, of 4,000 bytes of SDP each, and 20 ms after its own each side's
//!   first of 10 ICE candidates, 40 ms apart; 4 lines of chat, every 2 s; after 10 s the caller's `call:end`. Who hears
//!   `session:finalized` asks for `/room/history` and `/user/me`, and joins the queue again.
//! - Who loses his connection comes back after 1 s, then 2, then 4.
//!
//! The window begins when calls have run for their length and half of it again. What counts was meant to happen within
//! the window; calls begun there are followed to their end. Everything has 2 s: an answer of 2xx or 304, an event's
//! arrival. What failed counts as 2 s in the latencies. Success is the share of all answers, arrivals and connections
//! (one each, fine if it was there throughout) that were fine.
//!
//! `life/` plays it.

use std::fmt;

use crate::clock::{Nanos, SECOND, now};
use crate::crowd;
use crate::latency::percentile_ms;
use crate::life::{CALL_PATIENCE, Life, Pace};
use crate::measure::{Span, Window, generator_note};
use crate::net::Net;
use crate::process::Server;
use crate::report::{Measured, Metric};
use crate::run::{Bench, Options, Scenario};
use crate::sample::forget_peak;
use crate::tally::success;

const MEBIBYTE: f64 = 1_048_576.0;
const MEGABYTE: f64 = 1e6;
const MINUTE: f64 = 60.0;

const RESIDENT: Metric = Metric::new("resident", "Resident, median", "MiB", 1).compared();
const PEAK: Metric = Metric::new("peak", "Resident, peak", "MiB", 1).compared();
const CPU: Metric = Metric::new("cpu", "Server CPU per minute", "s", 2).compared();
const DATABASE_CPU: Metric = Metric::new("database-cpu", "Postgres CPU per minute", "s", 2);
/// Of TCP's payload, HTTP and WebSocket together.
const NETWORK: Metric = Metric::new("network", "Network per minute, both ways", "MB", 2).compared();
const NETWORK_IN: Metric = Metric::new("network-to-clients", "of that to clients", "MB", 2);
const HTTP_P50: Metric = Metric::new("http-p50", "HTTP p50", "ms", 2);
const HTTP_P95: Metric = Metric::new("http-p95", "HTTP p95", "ms", 2);
const HTTP_P99: Metric = Metric::new("http-p99", "HTTP p99", "ms", 2).plotted();
/// Offers, answers, candidates, lines.
const RELAY_P50: Metric = Metric::new("relay-p50", "Relay p50", "ms", 2);
const RELAY_P95: Metric = Metric::new("relay-p95", "Relay p95", "ms", 2);
const RELAY_P99: Metric = Metric::new("relay-p99", "Relay p99", "ms", 2).plotted();
/// Invites, starts and ends. An end is told when it is stored.
const CONTROL_P99: Metric = Metric::new("control-p99", "Invite, start and end p99", "ms", 2);
const SUCCESS: Metric = Metric::new("success", "Success", "%", 2).plotted();
const UNCHANGED: Metric = Metric::new("unchanged", "Queues answered by 304", "%", 0);
const CALLS: Metric = Metric::new("calls", "Calls per minute", "", 0);
const GENERATOR: Metric = Metric::new("generator-cpu", "Generator's core", "%", 0);

/// The scenario.
#[derive(Default)]
pub struct Mix;

/// So many people, who live so fast.
pub struct Case {
    users: usize,
    pace: Pace,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} users", self.users)
    }
}

impl Scenario for Mix {
    type Case = Case;

    const NAME: &'static str = "mix";
    const ABOUT: &'static str = "Everybody looks at the queue and polls it every 5 s; a quarter is in calls of 10 s, with \
                                 signalling and chat. What failed or took more than 2 s counts as 2 s.";
    const SERVERS: &'static [&'static str] =
        &["duet-uring", "duet-epoll", "duet-uring-pg", "node", "node-reference", "socketioxide"];
    const BASELINE: &'static str = "node";
    const METRICS: &'static [Metric] = &[
        RESIDENT,
        PEAK,
        CPU,
        DATABASE_CPU,
        NETWORK,
        NETWORK_IN,
        HTTP_P50,
        HTTP_P95,
        HTTP_P99,
        RELAY_P50,
        RELAY_P95,
        RELAY_P99,
        CONTROL_P99,
        SUCCESS,
        UNCHANGED,
        CALLS,
        GENERATOR,
    ];
    const SECONDS: f64 = 60.0;

    fn cases(&self, options: &Options) -> Vec<Case> {
        if options.is_quick {
            let pace = Pace { poll: SECOND, call: 6 * SECOND / 5 };
            return vec![Case { users: 24, pace }];
        }
        [100, 500, 1_000].map(|users| Case { users, pace: Pace { poll: 5 * SECOND, call: 10 * SECOND } }).into()
    }

    fn measure(&self, bench: &Bench, case: &Case, server: &mut Server) -> Result<Measured, String> {
        let text = |error: std::io::Error| error.to_string();
        let mut net = Net::new().map_err(text)?;
        let offers_deflate = bench.options.offers_deflate;
        bench.progress.at("accounts are made");
        let accounts = crowd::sign_up(&mut net, server.port, case.users)?;
        let sockets = crowd::connect(&mut net, server.port, &accounts, offers_deflate)?;

        bench.progress.at("calls begin");
        let from = now() + case.pace.poll + case.pace.call * 3 / 2;
        let until = from + (bench.seconds * SECOND as f64) as Nanos;
        let mut life = Life::new(server, &accounts, sockets, offers_deflate, case.pace, from..until);
        life.begin(&mut net);
        net.run(&mut life, from).map_err(text)?;
        bench.progress.at("measuring");
        forget_peak(server.pid()).map_err(|error| format!("its peak of memory: {error}"))?;
        let watched = bench.watch(server);
        let window = Window::begin(&mut net, watched);
        net.run(&mut life, until).map_err(text)?;
        let span = window.end(&net);
        let mut measured = Measured::default();
        measured.set(PEAK, server.memory().peak as f64 / MEBIBYTE);
        measured.set(RESIDENT, life.resident_median() / MEBIBYTE);
        bench.progress.at("the last calls end");
        net.run(&mut life, until + case.pace.call + CALL_PATIENCE).map_err(text)?;
        life.end();
        if watched.database.is_some() {
            measured.set(DATABASE_CPU, span.database_cpu_seconds / span.seconds * MINUTE);
        }
        tell(&net, &span, &life, &mut measured);
        measured.set_latency(life.relays.latency);
        Ok(measured)
    }
}

/// What the window and its tallies have shown.
fn tell(net: &Net, span: &Span, life: &Life<'_>, measured: &mut Measured) {
    let per_minute = |amount: f64| amount / span.seconds * MINUTE;
    let (bytes_in, bytes_out) = (span.traffic.bytes_in as f64, span.traffic.bytes_out as f64);
    measured.set(CPU, per_minute(span.server.cpu_seconds));
    measured.set(NETWORK, per_minute(bytes_in + bytes_out) / MEGABYTE);
    measured.set(NETWORK_IN, per_minute(bytes_in) / MEGABYTE);
    let (http, relays) = (&life.browsers.tally, &life.relays);
    for (metric, tally, percent) in [
        (HTTP_P50, http, 50.0),
        (HTTP_P95, http, 95.0),
        (HTTP_P99, http, 99.0),
        (RELAY_P50, relays, 50.0),
        (RELAY_P95, relays, 95.0),
        (RELAY_P99, relays, 99.0),
        (CONTROL_P99, &life.control, 99.0),
    ] {
        measured.set(metric, percentile_ms(&tally.latency, percent));
    }
    let tallies = life.tallies();
    measured.set(SUCCESS, success(&tallies));
    measured.set(UNCHANGED, life.browsers.unchanged as f64 / life.browsers.queues.max(1) as f64 * 100.0);
    measured.set(CALLS, per_minute(life.begun as f64));
    measured.set(GENERATOR, span.generator_cpu_share * 100.0);
    tallies.iter().flat_map(|tally| tally.told()).for_each(|failure| measured.note(failure));
    if let Some(note) = generator_note("mix", span, &net.lateness, &relays.latency) {
        measured.note(note);
    }
}

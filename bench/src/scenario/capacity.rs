//! Capacity: a duet in a control group of a plan's memory, full for minutes; then a fifth more come.
//!
//! As many people as the plan's limit allows when each holds two connections: his Socket.IO over WebSocket, and that of
//! the requests of his page, which is kept. They live as those of `mix`, at the pace of people: a look at the queue every
//! 30 s, calls of 2 min. A request's connection that rests for longer than the server keeps it is opened again.
//!
//! Then, for half a minute, a fifth of the limit tries to come in besides, each again 2 s after it was turned away; how
//! many find room, how the others are told, and what it does to those who were there.
//!
//! Memory is the control group's: what its processes hold in no file, and what the kernel holds for them. A limit that
//! this machine has not enough descriptors for is lowered by duet itself; then that is what is filled.

use std::collections::BTreeMap;
use std::fmt;

use hdrhistogram::Histogram;
use serde_json::Value;

use crate::clock::{Nanos, SECOND, now};
use crate::crowd::{self, Account};
use crate::group::{Group, Held};
use crate::latency::{histogram, percentile_ms};
use crate::life::{CALL_PATIENCE, Life, Pace};
use crate::measure::{Window, generator_note};
use crate::net::{Failure, Handler, Id, Net, Response};
use crate::process::Server;
use crate::report::{Measured, Metric};
use crate::run::{Bench, Options, Scenario, connections_max};
use crate::servers::{Bound, Entry};
use crate::tally::success;

const MEBIBYTE: f64 = 1_048_576.0;
const MINUTE: f64 = 60.0;
/// Between two looks at the group's memory.
const LOOK_AGAIN: Nanos = SECOND;
/// Connections of one person.
const EACH: usize = 2;
/// Of the limit, one in so many tries to come in besides.
const MORE: usize = 5;
/// How long they try, and how soon again.
const MORE_FOR: Nanos = 30 * SECOND;
const TRY_AGAIN: Nanos = 2 * SECOND;
/// Of those who try, so many at a time.
const TRIES_AT_ONCE: usize = 64;
/// Descriptors of the generator that are for them.
const DESCRIPTORS_OF_TRIES: usize = 400;
/// Our timers, beside those of `life/` and of `browser.rs`; a place below.
const TRY: u64 = 0x7f << 56;
const PLACE: u64 = (1 << 56) - 1;

const LIMIT: Metric = Metric::new("limit", "Connections allowed", "", 0);
const HELD: Metric = Metric::new("held", "Held, median", "", 0);
const LASTING: Metric = Metric::new("lasting", "Memory, peak", "MiB", 1).plotted();
const SHARE: Metric = Metric::new("share", "of the group's", "%", 0);
const KERNEL: Metric = Metric::new("kernel", "The kernel's part", "MiB", 1);
const CPU: Metric = Metric::new("cpu", "Server's core", "%", 0);
const RELAY_P50: Metric = Metric::new("relay-p50", "Relay p50", "ms", 2);
const RELAY_P99: Metric = Metric::new("relay-p99", "Relay p99", "ms", 2).plotted();
const CONTROL_P99: Metric = Metric::new("control-p99", "Invite, start and end p99", "ms", 2);
const HTTP_P99: Metric = Metric::new("http-p99", "HTTP p99", "ms", 2);
const SUCCESS: Metric = Metric::new("success", "Success", "%", 2);
const CALLS: Metric = Metric::new("calls", "Calls per minute", "", 0);
const MORE_ADMITTED: Metric = Metric::new("more-admitted", "A fifth more: found room", "", 0);
const MORE_REFUSED: Metric = Metric::new("more-refused", "tries turned away", "", 0);
const MORE_REFUSAL_P99: Metric = Metric::new("more-refusal-p99", "told after, p99", "ms", 2);
const MORE_RELAY_P99: Metric = Metric::new("more-relay-p99", "Relay p99", "ms", 2);
const MORE_LOST: Metric = Metric::new("more-lost", "lost who were there", "", 0);
const MORE_LASTING: Metric = Metric::new("more-lasting", "Memory, peak", "MiB", 1);
const KILLS: Metric = Metric::new("kills", "Out of memory", "", 0);
const SWAP: Metric = Metric::new("swap", "Swap", "MiB", 1);
const GENERATOR: Metric = Metric::new("generator-cpu", "Generator's core", "%", 0);

/// The scenario.
#[derive(Default)]
pub struct Capacity;

/// A size of memory.
pub struct Case {
    /// Bytes.
    memory: u64,
    /// Connections allowed in place of the plan's.
    connections: Option<usize>,
    /// Whether there is a control group.
    is_grouped: bool,
    pace: Pace,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MB", self.memory / 1_000_000)
    }
}

impl Scenario for Capacity {
    type Case = Case;

    const NAME: &'static str = "capacity";
    const ABOUT: &'static str = "A control group of a plan's memory, full for minutes of people who look at the queue every \
                                 30 s, a quarter of them in calls of 2 min; then a fifth more try to come in.";
    const SERVERS: &'static [&'static str] = &["duet-uring"];
    const BASELINE: &'static str = "duet-uring";
    const METRICS: &'static [Metric] = &[
        LIMIT,
        HELD,
        LASTING,
        SHARE,
        KERNEL,
        CPU,
        RELAY_P50,
        RELAY_P99,
        CONTROL_P99,
        HTTP_P99,
        SUCCESS,
        CALLS,
        MORE_ADMITTED,
        MORE_REFUSED,
        MORE_REFUSAL_P99,
        MORE_RELAY_P99,
        MORE_LOST,
        MORE_LASTING,
        KILLS,
        SWAP,
        GENERATOR,
    ];
    /// Connections are held for some four minutes before, and two after.
    const SECONDS: f64 = 360.0;

    fn takes(entry: &Entry) -> bool {
        entry.is_duet()
    }

    fn cases(&self, options: &Options) -> Vec<Case> {
        if options.is_quick {
            let pace = Pace { poll: SECOND, call: 6 * SECOND / 5 };
            // Whether the instrument works can be seen without a group, which takes root.
            let is_grouped = rustix::process::geteuid().is_root();
            return vec![Case { memory: 512_000_000, connections: Some(48), is_grouped, pace }];
        }
        let pace = Pace { poll: 30 * SECOND, call: 120 * SECOND };
        let case = |memory: u64| Case { memory: memory * 1_000_000, connections: None, is_grouped: true, pace };
        [512, 1_000, 2_000].map(case).into()
    }

    fn bound(&self, case: &Case) -> Bound {
        if case.is_grouped { Bound::Memory(case.memory) } else { Bound::Plan }
    }

    fn duet_arguments(&self, case: &Case) -> Vec<String> {
        case.connections.iter().map(|connections| format!("--connections-max={connections}")).collect()
    }

    fn measure(&self, bench: &Bench, case: &Case, server: &mut Server) -> Result<Measured, String> {
        let text = |error: std::io::Error| error.to_string();
        let limit = limit(server)?;
        let (people, more) = (limit.min(connections_max() - DESCRIPTORS_OF_TRIES) / EACH, limit / MORE);
        let mut net = Net::new().map_err(text)?;
        let offers_deflate = bench.options.offers_deflate;
        bench.progress.at("accounts are made");
        let accounts = crowd::sign_up(&mut net, server.port, people + more)?;
        let (residents, strangers) = accounts.split_at(people);
        let sockets = crowd::connect(&mut net, server.port, residents, offers_deflate)?;

        bench.progress.at("calls begin");
        let (connected, port) = (now(), server.port);
        let from = connected + case.pace.poll + case.pace.call * 3 / 2;
        let until = from + (bench.seconds * SECOND as f64) as Nanos;
        let mut life = Life::new(server, residents, sockets, offers_deflate, case.pace, from..until);
        life.begin(&mut net);
        let mut seen = Seen::default();
        seen.run(&mut net, &mut life, server, from)?;
        bench.progress.at("measuring");
        let window = Window::begin(&mut net, bench.watch(server));
        seen.run(&mut net, &mut life, server, until)?;
        let span = window.end(&net);
        bench.progress.at("the last calls end");
        seen.run(&mut net, &mut life, server, until + case.pace.call + CALL_PATIENCE)?;
        life.end();

        let mut measured = Measured::default();
        measured.set(LIMIT, limit as f64);
        measured.set(CALLS, life.begun as f64 / span.seconds * MINUTE);
        measured.set(CPU, span.server.cpu_seconds / span.seconds * 100.0);
        measured.set(GENERATOR, span.generator_cpu_share * 100.0);
        seen.tell(case, &mut measured);
        tell(&life, &mut measured);
        if let Some(note) = generator_note("full", &span, &net.lateness, &life.relays.latency) {
            measured.note(note);
        }
        measured.note(format!("full for {} s", (now() - connected) / SECOND));
        if !case.is_grouped {
            measured.note("without a control group, which takes root");
        }
        let relays = life.relays.latency.clone();

        bench.progress.at("a fifth more come");
        let end = now() + MORE_FOR.min(until - from);
        life.measure(now()..end);
        let mut crowded = Crowded::new(life, port, strangers, offers_deflate);
        crowded.begin(&mut net);
        let mut seen = Seen::default();
        seen.run(&mut net, &mut crowded, server, end)?;
        crowded.tell(&mut measured);
        measured.set(MORE_LASTING, seen.lasting_max as f64 / MEBIBYTE);
        measured.set(KILLS, seen.held.kills as f64);
        measured.set(SWAP, seen.held.swap as f64 / MEBIBYTE);
        measured.set_latency(relays);
        Ok(measured)
    }
}

/// Connections that the server allows, as it says itself.
fn limit(server: &Server) -> Result<usize, String> {
    let body = server.get("/health").map_err(|error| error.to_string())?;
    let body: Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
    body["connections"]["limit"].as_u64().map(|limit| limit as usize).ok_or_else(|| format!("no limit in {body}"))
}

/// What full has shown of people's events and requests.
fn tell(life: &Life<'_>, measured: &mut Measured) {
    let (http, relays) = (&life.browsers.tally, &life.relays);
    for (metric, tally, percent) in [
        (RELAY_P50, relays, 50.0),
        (RELAY_P99, relays, 99.0),
        (CONTROL_P99, &life.control, 99.0),
        (HTTP_P99, http, 99.0),
    ] {
        measured.set(metric, percentile_ms(&tally.latency, percent));
    }
    let tallies = life.tallies();
    measured.set(SUCCESS, success(&tallies));
    tallies.iter().flat_map(|tally| tally.told()).for_each(|failure| measured.note(failure));
}

/// Memory and connections over time.
#[derive(Default)]
struct Seen {
    held: Held,
    /// Bytes.
    lasting_max: u64,
    kernel_max: u64,
    connections: Vec<u64>,
}

impl Seen {
    /// Lets everything go on until then, and looks at the group meanwhile.
    fn run<H: Handler>(
        &mut self,
        net: &mut Net,
        handler: &mut H,
        server: &mut Server,
        until: Nanos,
    ) -> Result<(), String> {
        loop {
            let is_done = net.run(handler, until.min(now() + LOOK_AGAIN)).map_err(|error| error.to_string())?;
            if !server.is_alive() {
                return Err(format!("it ended; it printed:\n{}", server.log()));
            }
            self.held = server.group().map(Group::held).unwrap_or_default();
            self.lasting_max = self.lasting_max.max(self.held.lasting());
            self.kernel_max = self.kernel_max.max(self.held.kernel + self.held.queues);
            self.connections.push(net.open_connections() as u64);
            if is_done || now() >= until {
                return Ok(());
            }
        }
    }

    fn tell(&mut self, case: &Case, measured: &mut Measured) {
        self.connections.sort_unstable();
        let held = self.connections.get(self.connections.len() / 2).copied().unwrap_or_default();
        measured.set(HELD, held as f64);
        measured.set(LASTING, self.lasting_max as f64 / MEBIBYTE);
        measured.set(SHARE, self.lasting_max as f64 / case.memory as f64 * 100.0);
        measured.set(KERNEL, self.kernel_max as f64 / MEBIBYTE);
    }
}

/// Those who are there, and those who try to come in besides.
struct Crowded<'a> {
    life: Life<'a>,
    port: u16,
    strangers: &'a [Account],
    offers_deflate: bool,
    /// Of the connection of the first stranger; the others follow.
    first_tag: usize,
    /// Strangers who have tried at least once.
    tried: usize,
    /// When each tried last.
    since: Vec<Nanos>,
    admitted: usize,
    /// Refusals by what was said, and how long that took, ns.
    refusals: BTreeMap<String, u64>,
    told_after: Histogram<u64>,
}

impl<'a> Crowded<'a> {
    fn new(life: Life<'a>, port: u16, strangers: &'a [Account], offers_deflate: bool) -> Self {
        Self {
            port,
            strangers,
            offers_deflate,
            first_tag: life.tags(),
            life,
            tried: 0,
            since: vec![0; strangers.len()],
            admitted: 0,
            refusals: BTreeMap::new(),
            told_after: histogram(),
        }
    }

    fn begin(&mut self, net: &mut Net) {
        (0..TRIES_AT_ONCE).for_each(|_| self.next(net));
    }

    /// One who has not yet been there comes.
    fn next(&mut self, net: &mut Net) {
        if self.tried < self.strangers.len() {
            self.tried += 1;
            self.come(net, self.tried - 1);
        }
    }

    fn come(&mut self, net: &mut Net, place: usize) {
        self.since[place] = now();
        let dial = crowd::dial(self.port, &self.strangers[place], self.offers_deflate, self.first_tag + place);
        if let Err(error) = net.open(dial) {
            *self.refusals.entry(error.to_string()).or_default() += 1;
            net.after(TRY_AGAIN, TRY | place as u64);
        }
    }

    fn stranger(&self, id: Id) -> Option<usize> {
        (id.tag as usize).checked_sub(self.first_tag)
    }

    fn tell(&self, measured: &mut Measured) {
        measured.set(MORE_ADMITTED, self.admitted as f64);
        measured.set(MORE_REFUSED, self.told_after.len() as f64);
        measured.set(MORE_REFUSAL_P99, percentile_ms(&self.told_after, 99.0));
        measured.set(MORE_RELAY_P99, percentile_ms(&self.life.relays.latency, 99.0));
        measured.set(MORE_LOST, self.life.lost() as f64);
        for (what, count) in &self.refusals {
            measured.note(format!("a fifth more: {what}: {count}"));
        }
        let failures = self.life.tallies().into_iter().flat_map(|tally| tally.told());
        failures.for_each(|failure| measured.note(format!("a fifth more, who were there: {failure}")));
    }
}

impl Handler for Crowded<'_> {
    fn opened(&mut self, net: &mut Net, id: Id) {
        match self.stranger(id) {
            None => self.life.opened(net, id),
            Some(_) => {
                self.admitted += 1;
                self.next(net);
            }
        }
    }

    fn response(&mut self, net: &mut Net, id: Id, response: &Response<'_>) {
        self.life.response(net, id, response);
    }

    fn message(&mut self, net: &mut Net, id: Id, message: &[u8]) {
        if self.stranger(id).is_none() {
            self.life.message(net, id, message);
        }
    }

    fn closed(&mut self, net: &mut Net, id: Id, failure: Failure) {
        let Some(place) = self.stranger(id) else { return self.life.closed(net, id, failure) };
        *self.refusals.entry(failure.to_string()).or_default() += 1;
        self.told_after.saturating_record(now() - self.since[place]);
        net.after(TRY_AGAIN, TRY | place as u64);
        self.next(net);
    }

    fn timer(&mut self, net: &mut Net, key: u64) {
        match key & !PLACE {
            TRY => self.come(net, (key & PLACE) as usize),
            _ => self.life.timer(net, key),
        }
    }

    fn due(&mut self, net: &mut Net, number: u64, intended: Nanos) {
        self.life.due(net, number, intended);
    }
}

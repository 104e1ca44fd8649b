//! Storm: a network comes back, and everybody with it. Clients that were cut off connect again at once, each says who it
//! is, joins, and is served when the server has answered after that.
//!
//! A connection that is refused or lost is an error, and tried again a second later, as socket.io-client does.
//!
//! And the same against a limit of connections: as many are served as it allows, the others are turned away each time
//! they try, and nobody who is in is lost.

use std::collections::BTreeMap;
use std::fmt;

use hdrhistogram::Histogram;
use serde_json::json;

use crate::clock::{Nanos, SECOND, now};
use crate::crowd::{self, Account, event_name};
use crate::latency::{histogram, percentile_ms};
use crate::measure::{Window, generator_note};
use crate::net::{Failure, Handler, Id, Net};
use crate::process::Server;
use crate::report::{Measured, Metric};
use crate::run::{Bench, Options, Scenario};
use crate::sample::forget_peak;
use crate::servers::{Bound, Entry};

/// How long everybody may take.
const PATIENCE: Nanos = 60 * SECOND;
/// Between the loss of all connections and their coming back, for the server to notice. Within its grace of 5 s.
const AWAY: Nanos = 2 * SECOND;
const TRY_AGAIN: Nanos = SECOND;
/// How long those that were turned away go on to try when all are served that will be.
const FULL_FOR: Nanos = 10 * SECOND;
/// Connections begun between two looks at what has come.
const DIALLED_AT_ONCE: usize = 64;
/// The timer that dials on; others name a client.
const DIAL: u64 = u64::MAX;

/// None where somebody was not served within `PATIENCE`.
const ALL_SERVED: Metric = Metric::new("all-served", "All served after", "s", 2).compared();
const P50: Metric = Metric::new("p50", "p50 of a client", "ms", 0);
const P99: Metric = Metric::new("p99", "p99 of a client", "ms", 0).compared();
/// Connections refused or lost, each try counted.
const ERRORS: Metric = Metric::new("errors", "Errors", "", 0);
const CPU: Metric = Metric::new("cpu-seconds", "Server CPU", "s", 2).compared();
const DATABASE_CPU: Metric = Metric::new("database-cpu-seconds", "Postgres CPU", "s", 2);
const PEAK: Metric = Metric::new("peak", "Peak resident", "MiB", 1).compared();
const GENERATOR: Metric = Metric::new("generator-cpu", "Generator's core", "%", 0);

const SERVED: Metric = Metric::new("served", "Served", "", 0);
const SERVED_AFTER: Metric = Metric::new("served-after", "the last after", "s", 2);
const REFUSED: Metric = Metric::new("refused", "Turned away", "", 0);
const REFUSALS: Metric = Metric::new("refusals", "in tries", "", 0);
const REFUSAL_P99: Metric = Metric::new("refusal-p99", "told after, p99", "ms", 0);
const LOST: Metric = Metric::new("lost", "Lost who were in", "", 0);
const CPU_FULL: Metric = Metric::new("full-cpu", "Server's core while full", "%", 0);

#[derive(Default)]
pub struct Storm;

#[derive(Default)]
pub struct Full;

pub struct Case {
    clients: usize,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} clients", self.clients)
    }
}

impl Scenario for Storm {
    type Case = Case;

    const NAME: &'static str = "storm";
    const ABOUT: &'static str = "Clients that were all cut off reconnect at once with valid sessions: connect, auth, \
                                 presence, and an answer after that.";
    const SERVERS: &'static [&'static str] =
        &["duet-uring", "duet-epoll", "duet-uring-2", "duet-epoll-2", "node", "node-reference", "socketioxide"];
    const BASELINE: &'static str = "node";
    const METRICS: &'static [Metric] = &[ALL_SERVED, P50, P99, ERRORS, CPU, DATABASE_CPU, PEAK, GENERATOR];

    fn cases(&self, options: &Options) -> Vec<Case> {
        vec![Case { clients: if options.is_quick { 200 } else { 10_000 } }]
    }

    fn measure(&self, bench: &Bench, case: &Case, server: &mut Server) -> Result<Measured, String> {
        let mut net = Net::new().map_err(|error| error.to_string())?;
        let offers_deflate = bench.options.offers_deflate;
        bench.progress.at("everybody connects");
        let accounts = crowd::sign_up(&mut net, server.port, case.clients)?;
        let ids = crowd::connect(&mut net, server.port, &accounts, offers_deflate)?;
        ids.into_iter().for_each(|id| net.close(id));
        net.run(&mut Away, now() + AWAY).map_err(|error| error.to_string())?;

        bench.progress.at("everybody comes back");
        forget_peak(server.pid()).map_err(|error| format!("its peak of memory: {error}"))?;
        let watched = bench.watch(server);
        let window = Window::begin(&mut net, watched);
        let mut crowd = Crowd::new(server.port, &accounts, offers_deflate);
        net.after(0, DIAL);
        let is_done = net.run(&mut crowd, now() + PATIENCE).map_err(|error| error.to_string())?;
        let span = window.end(&net);
        if let Some(failure) = crowd.failure {
            return Err(failure);
        }
        let mut measured = Measured::default();
        if is_done {
            measured.set(ALL_SERVED, span.seconds);
        } else {
            measured.note(format!("{} of {} served in {} s", crowd.served, case.clients, PATIENCE / SECOND));
        }
        measured.set(P50, percentile_ms(&crowd.times, 50.0));
        measured.set(P99, percentile_ms(&crowd.times, 99.0));
        measured.set(ERRORS, (crowd.told_after.len() + crowd.lost) as f64);
        measured.set(CPU, span.server.cpu_seconds);
        if watched.database.is_some() {
            measured.set(DATABASE_CPU, span.database_cpu_seconds);
        }
        measured.set(PEAK, server.memory().peak as f64 / f64::from(1 << 20));
        measured.set(GENERATOR, span.generator_cpu_share * 100.0);
        if let Some(note) = generator_note("storm", &span, &histogram(), &crowd.times) {
            measured.note(note);
        }
        measured.set_latency(crowd.times);
        Ok(measured)
    }
}

/// So many clients, of whom a server takes so many.
pub struct FullCase {
    clients: usize,
    limit: usize,
}

impl fmt::Display for FullCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} clients, {} allowed", self.clients, self.limit)
    }
}

impl Scenario for Full {
    type Case = FullCase;

    const NAME: &'static str = "storm-full";
    const ABOUT: &'static str = "More clients arrive at once, with valid sessions, than the server may hold; those that it \
                                 turns away try again every second, for 10 s more.";
    const SERVERS: &'static [&'static str] = &["duet-uring", "duet-epoll"];
    const BASELINE: &'static str = "duet-epoll";
    const METRICS: &'static [Metric] =
        &[SERVED, SERVED_AFTER, P50, P99, REFUSED, REFUSALS, REFUSAL_P99, LOST, CPU, CPU_FULL, PEAK, GENERATOR];

    fn takes(entry: &Entry) -> bool {
        entry.is_duet()
    }

    fn cases(&self, options: &Options) -> Vec<FullCase> {
        let (clients, limit) = if options.is_quick { (100, 80) } else { (10_000, 8_000) };
        vec![FullCase { clients, limit }]
    }

    fn bound(&self, case: &FullCase) -> Bound {
        Bound::Connections(case.limit)
    }

    fn measure(&self, bench: &Bench, case: &FullCase, server: &mut Server) -> Result<Measured, String> {
        let text = |error: std::io::Error| error.to_string();
        let mut net = Net::new().map_err(text)?;
        bench.progress.at("accounts are made");
        let accounts = crowd::sign_up(&mut net, server.port, case.clients)?;
        net.run(&mut Away, now() + AWAY).map_err(text)?;
        forget_peak(server.pid()).map_err(|error| format!("its peak of memory: {error}"))?;

        bench.progress.at("everybody comes");
        let watched = bench.watch(server);
        let window = Window::begin(&mut net, watched);
        let mut crowd = Crowd::new(server.port, &accounts, bench.options.offers_deflate);
        crowd.wanted = case.limit;
        net.after(0, DIAL);
        let is_done = net.run(&mut crowd, now() + PATIENCE).map_err(text)?;
        let span = window.end(&net);
        bench.progress.at("it is full");
        let window = Window::begin(&mut net, watched);
        crowd.wanted = usize::MAX;
        net.run(&mut crowd, now() + if bench.options.is_quick { SECOND } else { FULL_FOR }).map_err(text)?;
        let full = window.end(&net);
        if let Some(failure) = crowd.failure {
            return Err(failure);
        }
        let mut measured = Measured::default();
        if is_done {
            measured.set(SERVED_AFTER, crowd.times.max() as f64 / SECOND as f64);
        } else {
            measured.note(format!("after {} s: {} served", PATIENCE / SECOND, crowd.served));
        }
        measured.set(SERVED, crowd.served as f64);
        measured.set(P50, percentile_ms(&crowd.times, 50.0));
        measured.set(P99, percentile_ms(&crowd.times, 99.0));
        measured.set(REFUSED, (case.clients - crowd.served) as f64);
        measured.set(REFUSALS, crowd.told_after.len() as f64);
        measured.set(REFUSAL_P99, percentile_ms(&crowd.told_after, 99.0));
        measured.set(LOST, crowd.lost as f64);
        measured.set(CPU, span.server.cpu_seconds);
        measured.set(CPU_FULL, full.server.cpu_seconds / full.seconds * 100.0);
        measured.set(PEAK, server.memory().peak as f64 / f64::from(1 << 20));
        measured.set(GENERATOR, span.generator_cpu_share * 100.0);
        crowd.refusals.iter().for_each(|(what, count)| measured.note(format!("turned away: {what}: {count}")));
        measured.set_latency(crowd.times);
        Ok(measured)
    }
}

/// Nobody is there, and nothing happens.
struct Away;

impl Handler for Away {}

/// How far a client has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Connecting,
    /// It was turned away, or lost before it was served, and tries again.
    Refused,
    /// It has joined and waits for the word that says so.
    Joining,
    Served,
}

/// Everybody who comes back.
struct Crowd<'a> {
    port: u16,
    accounts: &'a [Account],
    offers_deflate: bool,
    steps: Vec<Step>,
    dialled: usize,
    began: Nanos,
    served: usize,
    /// So many are to be served, and the others to be turned away at least once.
    wanted: usize,
    /// When each tried last.
    since: Vec<Nanos>,
    /// Clients that were turned away, at least once and never served.
    refused: usize,
    /// Tries in vain by what was said, and how long that took, ns.
    refusals: BTreeMap<String, u64>,
    told_after: Histogram<u64>,
    /// Connections that had been served.
    lost: u64,
    /// From the storm's beginning, when all meant to connect, ns.
    times: Histogram<u64>,
    failure: Option<String>,
}

impl<'a> Crowd<'a> {
    fn new(port: u16, accounts: &'a [Account], offers_deflate: bool) -> Self {
        Self {
            port,
            accounts,
            offers_deflate,
            steps: vec![Step::Connecting; accounts.len()],
            dialled: 0,
            began: now(),
            served: 0,
            wanted: accounts.len(),
            since: vec![0; accounts.len()],
            refused: 0,
            refusals: BTreeMap::new(),
            told_after: histogram(),
            lost: 0,
            times: histogram(),
            failure: None,
        }
    }

    fn dial(&mut self, net: &mut Net, tag: usize) {
        self.since[tag] = now();
        if let Err(error) = net.open(crowd::dial(self.port, &self.accounts[tag], self.offers_deflate, tag)) {
            self.failure = Some(error.to_string());
        }
    }
}

impl Handler for Crowd<'_> {
    fn timer(&mut self, net: &mut Net, key: u64) {
        if key != DIAL {
            return self.dial(net, key as usize);
        }
        let end = (self.dialled + DIALLED_AT_ONCE).min(self.accounts.len());
        (self.dialled..end).for_each(|tag| self.dial(net, tag));
        self.dialled = end;
        if end < self.accounts.len() {
            net.after(0, DIAL);
        }
    }

    fn message(&mut self, net: &mut Net, id: Id, message: &[u8]) {
        if event_name(message) != "auth:success" {
            return;
        }
        let tag = id.tag as usize;
        match self.steps[tag] {
            step @ (Step::Connecting | Step::Refused) => {
                self.refused -= usize::from(step == Step::Refused);
                self.steps[tag] = Step::Joining;
                net.emit(id, "presence:join", "");
                net.emit(id, "auth", &json!({ "sessionToken": self.accounts[tag].token }).to_string());
            }
            Step::Joining => {
                self.steps[tag] = Step::Served;
                self.served += 1;
                self.times.saturating_record(now() - self.began);
            }
            Step::Served => {}
        }
    }

    fn closed(&mut self, net: &mut Net, id: Id, failure: Failure) {
        let tag = id.tag as usize;
        if self.steps[tag] == Step::Served {
            self.lost += 1;
            return;
        }
        self.refused += usize::from(self.steps[tag] != Step::Refused);
        self.steps[tag] = Step::Refused;
        *self.refusals.entry(failure.to_string()).or_default() += 1;
        self.told_after.saturating_record(now() - self.since[tag]);
        net.after(TRY_AGAIN, u64::from(id.tag));
    }

    fn is_done(&self) -> bool {
        let is_over = self.served == self.wanted && self.served + self.refused == self.accounts.len();
        is_over || self.failure.is_some()
    }
}

//! Storm: a network comes back, and everybody with it. Clients that were cut off connect again at once, each says who it
//! is, joins, and is served when the server has answered after that.
//!
//! A connection that is refused or lost is an error, and tried again a second later, as socket.io-client does.

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

/// How long everybody may take.
const PATIENCE: Nanos = 60 * SECOND;
/// Between the loss of all connections and their coming back, for the server to notice. Within its grace of 5 s.
const AWAY: Nanos = 2 * SECOND;
const TRY_AGAIN: Nanos = SECOND;
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

#[derive(Default)]
pub struct Storm;

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
        measured.set(ERRORS, crowd.errors as f64);
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

/// Nobody is there, and nothing happens.
struct Away;

impl Handler for Away {}

/// How far a client has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Connecting,
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
    errors: usize,
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
            errors: 0,
            times: histogram(),
            failure: None,
        }
    }

    fn dial(&mut self, net: &mut Net, tag: usize) {
        self.steps[tag] = Step::Connecting;
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
            Step::Connecting => {
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

    fn closed(&mut self, net: &mut Net, id: Id, _failure: Failure) {
        self.errors += 1;
        if self.steps[id.tag as usize] != Step::Served {
            net.after(TRY_AGAIN, u64::from(id.tag));
        }
    }

    fn is_done(&self) -> bool {
        self.served == self.accounts.len() || self.failure.is_some()
    }
}

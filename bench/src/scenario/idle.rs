//! Idle: what somebody who is merely there costs. Authenticated connections that say nothing but answer heartbeats.
//!
//! Memory is the difference to the server just before: started again after the accounts were made, so that no memory they
//! needed is left over, and with one connection. What a server keeps of each account in its caches is included. The
//! kernel's is the whole machine's: both ends of every connection.

use std::fmt;

use serde_json::Value;

use crate::clock::{MILLISECOND, Nanos, SECOND, now};
use crate::crowd;
use crate::measure::Window;
use crate::net::{Failure, Handler, Id, Net};
use crate::process::Server;
use crate::report::{Measured, Metric};
use crate::run::{Bench, Options, Scenario, connections_max};
use crate::sample::{Memory, SocketMemory};

/// Where one process may open so many files.
const CONNECTIONS_MAX: usize = 50_000;
/// After the last connection, before memory is read.
const SETTLE: Nanos = 2 * SECOND;
const QUICK_SETTLE: Nanos = 200 * MILLISECOND;

/// Of the process alone: what one more connection takes from the machine, besides the kernel's.
const PRIVATE: Metric = Metric::new("private", "Private memory per connection", "bytes", 0).compared();
const RESIDENT: Metric = Metric::new("resident", "Resident per connection", "bytes", 0);
/// What the allocator, or the language's heap, says is in use, of those that tell.
const HEAP: Metric = Metric::new("heap", "Heap per connection", "bytes", 0);
/// Slab and socket queues of the whole machine: of the client's end, too.
const KERNEL: Metric = Metric::new("kernel", "Kernel per connection, both ends", "bytes", 0);
const TOTAL: Metric = Metric::new("total", "Resident, all", "MiB", 1).plotted();
const CPU: Metric = Metric::new("cpu", "CPU at heartbeats", "% of a core", 2).compared();
const HEARTBEATS: Metric = Metric::new("heartbeats", "Heartbeats", "/s", 0);

#[derive(Default)]
pub struct Idle;

pub struct Case {
    connections: usize,
    deflates: bool,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} connections, {} deflate", self.connections, if self.deflates { "with" } else { "without" })
    }
}

impl Scenario for Idle {
    type Case = Case;

    const NAME: &'static str = "idle";
    const ABOUT: &'static str = "Authenticated Socket.IO connections that only answer heartbeats, every 25 s.";
    const SERVERS: &'static [&'static str] = &["duet-uring", "duet-epoll", "node", "node-reference", "socketioxide"];
    const BASELINE: &'static str = "node";
    const METRICS: &'static [Metric] = &[PRIVATE, RESIDENT, HEAP, KERNEL, TOTAL, CPU, HEARTBEATS];
    /// Two heartbeats of each.
    const SECONDS: f64 = 50.0;

    /// 50,000 connections, or as many as one process may hold here.
    fn cases(&self, options: &Options) -> Vec<Case> {
        let deflates = options.offers_deflate;
        if options.is_quick {
            return vec![Case { connections: 50, deflates }];
        }
        let counts = [1_000, 10_000, CONNECTIONS_MAX.min(connections_max())];
        let mut cases: Vec<Case> = counts.into_iter().map(|connections| Case { connections, deflates }).collect();
        if deflates {
            cases.insert(2, Case { connections: 10_000, deflates: false });
        }
        cases
    }

    fn measure(&self, bench: &Bench, case: &Case, server: &mut Server) -> Result<Measured, String> {
        let mut net = Net::new().map_err(|error| error.to_string())?;
        bench.progress.at("accounts are made");
        let accounts = crowd::sign_up(&mut net, server.port, case.connections)?;
        server.restart()?;
        let (first, others) = accounts.split_at(1);
        crowd::connect(&mut net, server.port, first, case.deflates)?;
        let mut quiet = Quiet::default();
        let settle = if bench.options.is_quick { QUICK_SETTLE } else { SETTLE };
        quiet.wait(&mut net, settle)?;

        bench.progress.at("connecting");
        let before = State::of(server);
        let ids = crowd::connect(&mut net, server.port, others, case.deflates)?;
        quiet.wait(&mut net, settle)?;
        let after = State::of(server);
        let mut measured = Measured::default();
        after.tell_since(&before, others.len(), &mut measured);
        if case.connections == connections_max() {
            measured.note(format!("not {CONNECTIONS_MAX}: a process may open no more files here (ulimit -Hn)"));
        }
        if case.deflates && !net.deflates(ids[0]) {
            measured.note("does not agree to permessage-deflate");
        }

        bench.progress.at("heartbeats");
        let window = Window::begin(&mut net, bench.watch(server));
        quiet.wait(&mut net, (bench.seconds * SECOND as f64) as Nanos)?;
        let span = window.end(&net);
        measured.set(CPU, span.server.cpu_seconds / span.seconds * 100.0);
        measured.set(HEARTBEATS, span.traffic.heartbeats as f64 / span.seconds);
        Ok(measured)
    }
}

/// Memory at one moment.
struct State {
    process: Memory,
    kernel: SocketMemory,
    heap: Option<u64>,
}

impl State {
    fn of(server: &Server) -> Self {
        Self { process: server.memory(), kernel: SocketMemory::now(), heap: heap_of(server) }
    }

    fn tell_since(&self, before: &Self, connections: usize, measured: &mut Measured) {
        let each = |after: u64, before: u64| (after as f64 - before as f64) / connections as f64;
        measured.set(PRIVATE, each(self.process.private, before.process.private));
        measured.set(RESIDENT, each(self.process.resident, before.process.resident));
        measured.set(KERNEL, each(self.kernel.slab + self.kernel.queues, before.kernel.slab + before.kernel.queues));
        measured.set(TOTAL, self.process.resident as f64 / f64::from(1 << 20));
        if let (Some(after), Some(before)) = (self.heap, before.heap) {
            measured.set(HEAP, each(after, before));
        }
    }
}

/// What `/health` calls used, bytes: it says so in MB of 2^20 with two decimals.
fn heap_of(server: &Server) -> Option<u64> {
    let health: Value = serde_json::from_str(&server.get("/health").ok()?).ok()?;
    let megabytes: f64 = health["memory"]["heapUsed"].as_str()?.strip_suffix(" MB")?.parse().ok()?;
    Some((megabytes * f64::from(1 << 20)) as u64)
}

/// Nothing is meant to happen.
#[derive(Default)]
struct Quiet {
    failure: Option<String>,
}

impl Quiet {
    fn wait(&mut self, net: &mut Net, time: Nanos) -> Result<(), String> {
        net.run(self, now() + time).map_err(|error| error.to_string())?;
        self.failure.take().map_or(Ok(()), Err)
    }
}

impl Handler for Quiet {
    fn closed(&mut self, _net: &mut Net, id: Id, failure: Failure) {
        self.failure = Some(format!("connection {} was lost: {failure}", id.tag));
    }

    fn is_done(&self) -> bool {
        self.failure.is_some()
    }
}

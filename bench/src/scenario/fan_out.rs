//! Fan-out: everybody looks at the queue, and some come and go; each change is told to all who look.
//!
//! Some of the people emit `queue:join` and `queue:leave` in turn at a fixed rate, each at most every 4 s; the others stay,
//! and what reaches them is counted. A change that has not come to somebody before the same person's next one, or 10 s after
//! the last, is lost to him. Of raw peers one connection sends messages of the same length that go to all.
//!
//! A server that tells its sockets whether they look or not is found out first, and then only those who come and go join
//! the queue: what everybody's joining would tell everybody grows with the square of the people.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use crate::clock::{Nanos, SECOND, now};
use crate::crowd::{self, event_name};
use crate::latency::{histogram, percentile_ms};
use crate::measure::{Span, Window, generator_note};
use crate::net::{Dial, Failure, Handler, Id, Net, STAMP_LENGTH, Schedule, Speaks, Template, stamp_after};
use crate::process::Server;
use crate::report::{Measured, Metric};
use crate::run::{Bench, Options, Scenario};
use crate::servers::{Entry, Job};
use hdrhistogram::Histogram;

/// Whoever comes or goes does nothing for so long.
const SECONDS_APART: f64 = 4.0;
const WARM_UP: Nanos = SECOND;
/// How long the last changes may take.
const DRAIN: Nanos = 10 * SECOND;
/// When nothing has come for so long, nothing more is under way. A server may let changes wait for each other.
const SETTLE: Nanos = 5 * SECOND / 2;
/// How long what everybody's joining tells everybody may take.
const HUSH_MAX: Nanos = 60 * SECOND;
/// How long a first change may take to reach somebody who does not look.
const PROBE: Nanos = 2 * SECOND;
/// As long as `42["queue:update",…]`.
const RAW_BYTES: usize = 85;
/// A message that raw peers send to all starts with a star.
const RAW_MARK: &str = "*t=";

const CPU_CHANGE: Metric = Metric::new("cpu-per-change", "Server CPU per change", "ms", 3).compared();
const CPU_DELIVERY: Metric = Metric::new("cpu-per-delivery", "per delivery", "µs", 2);
/// Of TCP's payload, to clients.
const BYTES_CHANGE: Metric = Metric::new("bytes-per-change", "Bytes per change", "kB", 1).compared();
const BYTES_DELIVERY: Metric = Metric::new("bytes-per-delivery", "per delivery", "bytes", 1);
const P50: Metric = Metric::new("p50", "Delivery p50", "ms", 2);
const P99: Metric = Metric::new("p99", "Delivery p99", "ms", 2).plotted();
const LOST: Metric = Metric::new("lost", "Lost", "%", 2);
const DELIVERIES: Metric = Metric::new("deliveries", "Deliveries", "/s", 0);
const SERVER: Metric = Metric::new("server-cpu", "Server's core", "%", 0);
const GENERATOR: Metric = Metric::new("generator-cpu", "Generator's core", "%", 0);

#[derive(Default)]
pub struct FanOut;

/// So many people, and changes.
pub struct Case {
    people: usize,
    per_second: f64,
}

impl Case {
    /// Those who come and go. The others stay.
    fn movers(&self) -> usize {
        (self.per_second * SECONDS_APART) as usize
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} people, {} changes a second", self.people, self.per_second)
    }
}

impl Scenario for FanOut {
    type Case = Case;

    const NAME: &'static str = "fan-out";
    const ABOUT: &'static str = "People come to the queue and leave it, and everybody who looks at it is told; of raw \
                                 peers one connection's messages go to all. What is lost counts as 10 s.";
    const SERVERS: &'static [&'static str] = &[
        "duet-uring",
        "duet-epoll",
        "duet-uring-plain",
        "node",
        "node-reference",
        "socketioxide",
        "ws",
        "tokio-ws",
        "uwebsockets",
    ];
    const QUICK_SERVERS: &'static [&'static str] = &["duet-uring", "ws"];
    const BASELINE: &'static str = "node";
    const METRICS: &'static [Metric] =
        &[CPU_CHANGE, CPU_DELIVERY, BYTES_CHANGE, BYTES_DELIVERY, P50, P99, LOST, DELIVERIES, SERVER, GENERATOR];
    const SECONDS: f64 = 15.0;

    /// duet's own echo tells nobody but the sender.
    fn takes(entry: &Entry) -> bool {
        entry.job == Job::Product || entry.job == Job::WebSocketEcho && !entry.is_duet()
    }

    /// 10,000 people at 20 changes a second are 200,000 deliveries a second, about as much as the generator takes.
    fn cases(&self, options: &Options) -> Vec<Case> {
        if options.is_quick {
            return vec![Case { people: 60, per_second: 10.0 }];
        }
        let cases = [(1_000, 20.0), (1_000, 100.0), (10_000, 5.0), (10_000, 20.0)];
        cases.map(|(people, per_second)| Case { people, per_second }).into()
    }

    fn measure(&self, bench: &Bench, case: &Case, server: &mut Server) -> Result<Measured, String> {
        let mut net = Net::new().map_err(|error| error.to_string())?;
        bench.progress.at("everybody comes");
        let changes = match server.entry.job {
            Job::Product => Changes::of_people(&mut net, server.port, case, bench.options.offers_deflate)?,
            Job::WebSocketEcho => Changes::of_raw(&mut net, server.port, case)?,
            Job::BytesEcho => return Err("it tells nobody anything".to_owned()),
        };

        bench.progress.at("some come and go");
        let from = now() + WARM_UP;
        let until = from + (bench.seconds * SECOND as f64) as Nanos;
        let mut telling = Telling::new(changes, from..until);
        net.schedule = Some(Schedule::new(now(), case.per_second));
        telling.run(&mut net, from)?;
        let window = Window::begin(&mut net, bench.watch(server));
        let heard = telling.heard;
        telling.run(&mut net, until)?;
        let span = window.end(&net);
        let heard = telling.heard - heard;
        net.schedule = None;
        telling.drain(&mut net)?;
        Ok(telling.tell(case, &net, &span, heard))
    }
}

/// Somebody who comes and goes.
struct Mover {
    id: Id,
    is_in: bool,
    /// When he was meant to.
    changed: Nanos,
}

/// What is told to all.
enum Changes {
    Queue {
        movers: Vec<Mover>,
        /// By their ids.
        places: BTreeMap<Vec<u8>, usize>,
    },
    Raw {
        sender: Id,
        template: Box<Template>,
    },
}

impl Changes {
    /// Connects everybody and has those join the queue who have to; of those who come and go every second.
    fn of_people(net: &mut Net, port: u16, case: &Case, offers_deflate: bool) -> Result<Self, String> {
        let accounts = crowd::sign_up(net, port, case.people)?;
        let ids = crowd::connect(net, port, &accounts, offers_deflate)?;
        let (movers, watchers) = ids.split_at(case.movers());
        let last = ids.last().ok_or("nobody is there")?.tag;
        let mut probe = Probe { tag: last, has_heard: false };
        net.emit(movers[0], "queue:join", "");
        net.run(&mut probe, now() + PROBE).map_err(|error| error.to_string())?;
        let joining: Vec<Id> = movers.iter().copied().step_by(2).skip(1).collect();
        crowd::join_queue(net, &accounts, &joining)?;
        if !probe.has_heard {
            crowd::join_queue(net, &accounts, watchers)?;
        }
        hush(net, case.people)?;
        let places = accounts.into_iter().take(movers.len()).enumerate();
        let places = places.map(|(place, account)| (account.id.into_bytes(), place)).collect();
        let movers = movers.iter().map(|id| Mover { id: *id, is_in: id.tag % 2 == 0, changed: 0 }).collect();
        Ok(Self::Queue { movers, places })
    }

    /// Opens all connections; the first is the one that sends.
    fn of_raw(net: &mut Net, port: u16, case: &Case) -> Result<Self, String> {
        let dial =
            |tag| Dial { port, speaks: Speaks::WebSocket("/".to_owned()), offers_deflate: false, tag: tag as u32 };
        let ids = crowd::open(net, case.people, dial)?;
        let padding = "x".repeat(RAW_BYTES - STAMP_LENGTH - RAW_MARK.len());
        Ok(Self::Raw { sender: ids[0], template: Box::new(Template::new(RAW_MARK, &padding)) })
    }

    /// Makes the change of this number.
    fn make(&mut self, net: &mut Net, number: u64, intended: Nanos) {
        match self {
            Self::Queue { movers, .. } => {
                let place = number as usize % movers.len();
                let mover = &mut movers[place];
                (mover.is_in, mover.changed) = (!mover.is_in, intended);
                net.emit(mover.id, if mover.is_in { "queue:join" } else { "queue:leave" }, "");
            }
            Self::Raw { sender, template } => net.send_stamped(*sender, template, intended),
        }
    }

    /// When the change was meant to be made that a message tells; `None` if it tells of none, or of an older one.
    fn told_by(&self, message: &[u8]) -> Option<Nanos> {
        match self {
            Self::Queue { movers, places } => {
                let is_change = matches!(event_name(message), "queue:update" | "presence:update");
                let user = is_change.then(|| user_in(message))??;
                let mover = &movers[*places.get(user)?];
                (is_available(message) == mover.is_in).then_some(mover.changed)
            }
            Self::Raw { .. } => stamp_after(message, RAW_MARK.as_bytes()),
        }
    }
}

/// The id in `"userId":"…"`.
fn user_in(message: &[u8]) -> Option<&[u8]> {
    const NAME: &[u8] = b"\"userId\":\"";
    let start = message.windows(NAME.len()).position(|window| window == NAME)? + NAME.len();
    message[start..].split(|byte| *byte == b'"').next()
}

/// What an event says of him.
fn is_available(message: &[u8]) -> bool {
    const TRUE: &[u8] = b"\"available\":true";
    message.windows(TRUE.len()).any(|window| window == TRUE)
}

/// Changes that are made and told.
struct Telling {
    changes: Changes,
    /// Those with tags below come and go.
    first_watcher: u32,
    window: Range<Nanos>,
    /// In the window.
    made: u64,
    /// Of the changes made in the window, to those who stay.
    delivered: u64,
    /// Of all changes, to anybody.
    heard: u64,
    lost_connections: u64,
    latency: Histogram<u64>,
}

impl Telling {
    /// What is made within the window counts.
    fn new(changes: Changes, window: Range<Nanos>) -> Self {
        let first_watcher = match &changes {
            Changes::Queue { movers, .. } => movers.len() as u32,
            Changes::Raw { .. } => 1,
        };
        let latency = histogram();
        Self { changes, first_watcher, window, made: 0, delivered: 0, heard: 0, lost_connections: 0, latency }
    }

    fn run(&mut self, net: &mut Net, until: Nanos) -> Result<(), String> {
        net.run(self, until).map(|_| ()).map_err(|error| error.to_string())
    }

    /// Waits for what is under way.
    fn drain(&mut self, net: &mut Net) -> Result<(), String> {
        let deadline = now() + DRAIN;
        let mut seen = u64::MAX;
        while now() < deadline && seen != self.heard {
            seen = self.heard;
            self.run(net, (now() + SETTLE).min(deadline))?;
        }
        Ok(())
    }

    /// The figures of a window in which so many deliveries were heard.
    fn tell(mut self, case: &Case, net: &Net, span: &Span, heard: u64) -> Measured {
        let mut measured = Measured::default();
        let watchers = case.people as u64 - u64::from(self.first_watcher);
        let expected = self.made * watchers;
        let lost = expected.saturating_sub(self.delivered);
        self.latency.saturating_record_n(DRAIN, lost);
        let changes = self.made.max(1) as f64;
        let deliveries = heard.max(1) as f64;
        measured.set(CPU_CHANGE, span.server.cpu_seconds * 1e3 / changes);
        measured.set(CPU_DELIVERY, span.server.cpu_seconds * 1e6 / deliveries);
        measured.set(BYTES_CHANGE, span.traffic.bytes_in as f64 / 1e3 / changes);
        measured.set(BYTES_DELIVERY, span.traffic.bytes_in as f64 / deliveries);
        measured.set(P50, percentile_ms(&self.latency, 50.0));
        measured.set(P99, percentile_ms(&self.latency, 99.0));
        measured.set(LOST, lost as f64 * 100.0 / expected.max(1) as f64);
        measured.set(DELIVERIES, heard as f64 / span.seconds);
        measured.set(SERVER, span.server.cpu_seconds / span.seconds * 100.0);
        measured.set(GENERATOR, span.generator_cpu_share * 100.0);
        if self.lost_connections > 0 {
            measured.note(format!("{} connections were lost", self.lost_connections));
        }
        if let Some(note) = generator_note("fan-out", span, &net.lateness, &self.latency) {
            measured.note(note);
        }
        measured.set_latency(self.latency);
        measured
    }
}

impl Handler for Telling {
    fn due(&mut self, net: &mut Net, number: u64, intended: Nanos) {
        self.made += u64::from(self.window.contains(&intended));
        self.changes.make(net, number, intended);
    }

    fn message(&mut self, _net: &mut Net, id: Id, message: &[u8]) {
        let Some(intended) = self.changes.told_by(message) else { return };
        self.heard += 1;
        if self.window.contains(&intended) && id.tag >= self.first_watcher {
            self.delivered += 1;
            self.latency.saturating_record(now().saturating_sub(intended));
        }
    }

    fn closed(&mut self, _net: &mut Net, _id: Id, _failure: Failure) {
        self.lost_connections += 1;
    }
}

/// Whether somebody who does not look is told of a change.
struct Probe {
    tag: u32,
    has_heard: bool,
}

impl Handler for Probe {
    fn message(&mut self, _net: &mut Net, id: Id, message: &[u8]) {
        self.has_heard |= id.tag == self.tag && event_name(message) == "queue:update";
    }

    fn is_done(&self) -> bool {
        self.has_heard
    }
}

/// Waits until nothing more comes of what was done: less than a tenth of a message to each, as heartbeats go on.
fn hush(net: &mut Net, people: usize) -> Result<(), String> {
    let deadline = now() + HUSH_MAX;
    let mut before = 0;
    while now() < deadline && net.traffic.bytes_in - before > (people * RAW_BYTES / 10) as u64 {
        before = net.traffic.bytes_in;
        net.run(&mut Nothing, now() + SETTLE).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Nothing matters.
struct Nothing;

impl Handler for Nothing {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_read_from_the_event_that_tells_it() {
        let event = br#"["queue:update",{"userId":"0190-ab","available":true}]"#;
        assert_eq!((user_in(event), is_available(event)), (Some(&b"0190-ab"[..]), true));
        let event = br#"["presence:update",{"userId":"c","online":true,"available":false}]"#;
        assert_eq!((user_in(event), is_available(event)), (Some(&b"c"[..]), false));
        assert_eq!(user_in(b"[\"auth:success\"]"), None);
    }
}

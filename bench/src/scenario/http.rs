//! HTTP: what a request costs, and the queue polled by everybody as browsers do.
//!
//! `wrk` asks as fast as it is answered, all of it one person's requests: `/health`; and `/room/queue` as it is, with gzip,
//! and with gzip and the `ETag` of the last answer. The queue is people who have joined it by Socket.IO and stay.
//!
//! Polled: 1,000 people, who are in the queue themselves, ask for it every 5 s, an open loop from our own generator
//! (`browser.rs`), while nobody or somebody comes and goes.

use std::fmt;

use serde_json::Value;

use crate::browser::{Browsers, Page};
use crate::clock::{MILLISECOND, Nanos, SECOND, now};
use crate::crowd::{self, Account};
use crate::latency::percentile_ms;
use crate::load::idle_note;
use crate::measure::{Window, generator_note};
use crate::net::{Dial, Failure, Handler, Id, Net, Request, Response, Schedule, Speaks};
use crate::process::Server;
use crate::report::{Measured, Metric};
use crate::run::{Bench, Options, Scenario};
use crate::sample::Usage;
use crate::tally::{DEADLINE, Tally, success};
use crate::wrk;

const POLL: Nanos = 5 * SECOND;
/// A window of polling is so many times longer than one of `wrk`, but not where the instrument alone is tried.
const POLLING_WINDOWS: f64 = 5.0;
/// Before a window, a server may take so long to finish what it is at.
const CALM_MAX: Nanos = 20 * SECOND;
const CALM_LOOK: Nanos = 200 * MILLISECOND;
/// Share of a core below which a server is at nothing.
const CALM_SHARE: f64 = 0.1;
const PATIENCE: Nanos = 30 * SECOND;

/// What `wrk` asks for in a window.
struct Asking {
    /// Names the window.
    name: &'static str,
    path: &'static str,
    accepts_gzip: bool,
    /// Sends the `ETag` of the last answer.
    revalidates: bool,
    /// Answers per second.
    rate: Metric,
    /// Of the server, for each.
    cpu: Metric,
    /// Head and body of each.
    bytes: Metric,
}

const ASKING: [Asking; 4] = [
    Asking {
        name: "health",
        path: "/health",
        accepts_gzip: false,
        revalidates: false,
        rate: Metric::new("health", "/health", "/s", 0).compared(),
        cpu: Metric::new("health-cpu", "CPU each", "µs", 1).compared(),
        bytes: Metric::new("health-bytes", "Answer", "bytes", 0),
    },
    Asking {
        name: "queue",
        path: "/room/queue",
        accepts_gzip: false,
        revalidates: false,
        rate: Metric::new("queue", "Queue", "/s", 0).compared(),
        cpu: Metric::new("queue-cpu", "CPU each", "µs", 1).compared(),
        bytes: Metric::new("queue-bytes", "Answer", "bytes", 0),
    },
    Asking {
        name: "queue, gzip",
        path: "/room/queue",
        accepts_gzip: true,
        revalidates: false,
        rate: Metric::new("gzip", "Queue, gzip", "/s", 0).compared(),
        cpu: Metric::new("gzip-cpu", "CPU each", "µs", 1).compared(),
        bytes: Metric::new("gzip-bytes", "Answer", "bytes", 0),
    },
    Asking {
        name: "queue, unchanged",
        path: "/room/queue",
        accepts_gzip: true,
        revalidates: true,
        rate: Metric::new("unchanged", "Queue, 304", "/s", 0).compared(),
        cpu: Metric::new("unchanged-cpu", "CPU each", "µs", 1).compared(),
        bytes: Metric::new("unchanged-bytes", "Answer", "bytes", 0),
    },
];

const POLL_P50: Metric = Metric::new("poll-p50", "Poll p50", "ms", 2);
const POLL_P95: Metric = Metric::new("poll-p95", "Poll p95", "ms", 2);
const POLL_P99: Metric = Metric::new("poll-p99", "Poll p99", "ms", 2).plotted();
const POLL_CPU: Metric = Metric::new("poll-cpu", "CPU per poll", "µs", 0).compared();
const POLL_BYTES: Metric = Metric::new("poll-bytes", "To the client per poll", "bytes", 0).compared();
const POLL_UNCHANGED: Metric = Metric::new("poll-unchanged", "Answered by 304", "%", 0);
const SUCCESS: Metric = Metric::new("success", "Success", "%", 2);
const GENERATOR: Metric = Metric::new("generator-cpu", "Generator's core", "%", 0);

#[derive(Default)]
pub struct Http;

/// So many people in the queue, and who asks for it.
pub struct Case {
    people: usize,
    client: Client,
}

/// Who asks.
enum Client {
    /// On so many connections.
    Wrk(usize),
    /// Everybody; one comes or goes at each so many polls, if any.
    Everybody { change_every: Option<u64> },
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let people = self.people;
        match self.client {
            Client::Wrk(connections) => write!(f, "{people} people in the queue, {connections} connections"),
            Client::Everybody { change_every: None } => write!(f, "{people} people poll every 5 s"),
            Client::Everybody { change_every: Some(_) } => {
                write!(f, "{people} people poll every 5 s while people come and go")
            }
        }
    }
}

impl Scenario for Http {
    type Case = Case;

    const NAME: &'static str = "http";
    const ABOUT: &'static str = "Requests as fast as they are answered, by wrk; and the queue polled every 5 s by \
                                 everybody who is in it, where what takes more than 2 s has failed and counts as 2 s.";
    const SERVERS: &'static [&'static str] = &["duet-uring", "duet-epoll", "node", "node-reference", "socketioxide"];
    const BASELINE: &'static str = "node";
    const METRICS: &'static [Metric] = &[
        ASKING[0].rate,
        ASKING[0].cpu,
        ASKING[0].bytes,
        ASKING[1].rate,
        ASKING[1].cpu,
        ASKING[1].bytes,
        ASKING[2].rate,
        ASKING[2].cpu,
        ASKING[2].bytes,
        ASKING[3].rate,
        ASKING[3].cpu,
        ASKING[3].bytes,
        POLL_P50,
        POLL_P95,
        POLL_P99,
        POLL_CPU,
        POLL_BYTES,
        POLL_UNCHANGED,
        SUCCESS,
        GENERATOR,
    ];
    const SECONDS: f64 = 3.0;

    fn cases(&self, options: &Options) -> Vec<Case> {
        let everybody = |people, change_every| Case { people, client: Client::Everybody { change_every } };
        if options.is_quick {
            return vec![Case { people: 20, client: Client::Wrk(4) }, everybody(40, Some(8))];
        }
        let asked = [10, 100, 1_000]
            .into_iter()
            .flat_map(|people| [8, 64].map(|connections| Case { people, client: Client::Wrk(connections) }));
        asked.chain([everybody(1_000, None), everybody(1_000, Some(100))]).collect()
    }

    fn measure(&self, bench: &Bench, case: &Case, server: &mut Server) -> Result<Measured, String> {
        let mut net = Net::new().map_err(|error| error.to_string())?;
        bench.progress.at("people come");
        // The last one only looks.
        let accounts = crowd::sign_up(&mut net, server.port, case.people + 1)?;
        let (people, viewer) = accounts.split_at(case.people);
        let ids = crowd::connect(&mut net, server.port, people, bench.options.offers_deflate)?;
        crowd::join_queue(&mut net, people, &ids)?;
        check(&mut net, server, &viewer[0], case.people)?;
        match case.client {
            Client::Wrk(connections) => ask(bench, &mut net, server, &viewer[0], connections),
            Client::Everybody { change_every } => poll(bench, &mut net, server, people, &ids, change_every),
        }
    }
}

/// Whether the queue has everybody in it, so that all servers do the same job.
fn check(net: &mut Net, server: &Server, viewer: &Account, people: usize) -> Result<(), String> {
    calm(net, server)?;
    let answer = fetch(net, server.port, Request::get("/room/queue", &viewer.token))?;
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let is_right = answer.status == 200 && body["totalAvailable"] == people;
    is_right
        .then_some(())
        .ok_or_else(|| format!("the queue was answered {}: {}", answer.status, body["totalAvailable"]))
}

/// All windows of `wrk`.
fn ask(
    bench: &Bench,
    net: &mut Net,
    server: &Server,
    viewer: &Account,
    connections: usize,
) -> Result<Measured, String> {
    let mut measured = Measured::default();
    let watched = bench.watch(server);
    for asking in &ASKING {
        bench.progress.at(asking.name);
        let mut headers = vec![format!("Authorization: Bearer {}", viewer.token)];
        if asking.accepts_gzip {
            headers.push("Accept-Encoding: gzip".to_owned());
        }
        if asking.revalidates {
            let Some(etag) = etag_of_unchanged(net, server, viewer)? else {
                measured.note("does not answer 304");
                continue;
            };
            headers.push(format!("If-None-Match: {etag}"));
        }
        calm(net, server)?;
        let url = format!("http://127.0.0.1:{}{}", server.port, asking.path);
        let window = Window::begin(net, watched);
        let outcome = wrk::run(&url, &headers, connections, bench.seconds.ceil() as u64)?;
        let span = window.end(net);
        measured.set(asking.rate, outcome.per_second);
        if outcome.requests > 0 {
            measured.set(asking.cpu, span.server.cpu_seconds * 1e6 / outcome.requests as f64);
            measured.set(asking.bytes, outcome.bytes / outcome.requests as f64);
        }
        if outcome.failures > 0 {
            measured.note(format!("{}: {} of {} failed", asking.name, outcome.failures, outcome.requests));
        }
        if let Some(note) = idle_note(asking.name, &span, watched) {
            measured.note(note);
        }
    }
    Ok(measured)
}

/// The tag of the queue as it is now, if the server says 304 to it.
fn etag_of_unchanged(net: &mut Net, server: &Server, viewer: &Account) -> Result<Option<String>, String> {
    let request = Request { accepts_gzip: true, ..Request::get("/room/queue", &viewer.token) };
    let Some(etag) = fetch(net, server.port, request)?.etag else { return Ok(None) };
    let again = fetch(net, server.port, Request { if_none_match: Some(&etag), ..request })?;
    Ok((again.status == 304).then_some(etag))
}

/// Everybody polls.
fn poll(
    bench: &Bench,
    net: &mut Net,
    server: &Server,
    people: &[Account],
    ids: &[Id],
    change_every: Option<u64>,
) -> Result<Measured, String> {
    bench.progress.at("everybody polls");
    let start = now();
    let from = start + POLL;
    let windows = if bench.options.is_quick { 1.0 } else { POLLING_WINDOWS };
    let until = from + (bench.seconds * windows * SECOND as f64) as Nanos;
    let browsers = Browsers::new(server.port, people, people.len(), Tally::new(from..until));
    let mut polling = Polling { browsers, ids, until, change_every, lost: 0 };
    let run = |net: &mut Net, polling: &mut Polling<'_>, until| {
        net.run(polling, until).map(|_| ()).map_err(|error| error.to_string())
    };
    net.schedule = Some(Schedule::new(start, people.len() as f64 * SECOND as f64 / POLL as f64));
    run(net, &mut polling, from)?;
    let window = Window::begin(net, bench.watch(server));
    run(net, &mut polling, until)?;
    let span = window.end(net);
    net.schedule = None;
    run(net, &mut polling, until + 2 * DEADLINE)?;
    let Browsers { tally, unchanged, queues, .. } = polling.browsers;
    let mut measured = Measured::default();
    let polls = tally.due.max(1) as f64;
    for (metric, percent) in [(POLL_P50, 50.0), (POLL_P95, 95.0), (POLL_P99, 99.0)] {
        measured.set(metric, percentile_ms(&tally.latency, percent));
    }
    measured.set(POLL_CPU, span.server.cpu_seconds * 1e6 / polls);
    measured.set(POLL_BYTES, span.traffic.bytes_in as f64 / polls);
    measured.set(POLL_UNCHANGED, unchanged as f64 * 100.0 / queues.max(1) as f64);
    measured.set(SUCCESS, success(&[&tally]));
    measured.set(GENERATOR, span.generator_cpu_share * 100.0);
    tally.told().into_iter().for_each(|failure| measured.note(failure));
    if polling.lost > 0 {
        measured.note(format!("{} connections were lost", polling.lost));
    }
    if let Some(note) = generator_note("polls", &span, &net.lateness, &tally.latency) {
        measured.note(note);
    }
    measured.set_latency(tally.latency);
    Ok(measured)
}

/// Everybody polls, some come and go.
struct Polling<'a> {
    browsers: Browsers<'a>,
    ids: &'a [Id],
    until: Nanos,
    change_every: Option<u64>,
    /// Connections of the product's events.
    lost: usize,
}

impl Handler for Polling<'_> {
    fn opened(&mut self, net: &mut Net, id: Id) {
        self.browsers.opened(net, id);
    }

    fn response(&mut self, net: &mut Net, id: Id, response: &Response<'_>) {
        self.browsers.response(net, id, response);
    }

    fn timer(&mut self, net: &mut Net, key: u64) {
        self.browsers.timer(net, key);
    }

    fn closed(&mut self, net: &mut Net, id: Id, failure: Failure) {
        if self.browsers.has(id) {
            self.browsers.closed(net, id, failure);
        } else {
            self.lost += 1;
        }
    }

    fn due(&mut self, net: &mut Net, number: u64, intended: Nanos) {
        self.browsers.ask(net, number as usize % self.ids.len(), Page::Queue, intended);
        if let Some(every) = self.change_every.filter(|every| number.is_multiple_of(*every)) {
            let change = (number / every) as usize;
            let event = if change.is_multiple_of(2) { "queue:leave" } else { "queue:join" };
            net.emit(self.ids[change / 2 % self.ids.len()], event, "");
        }
    }

    fn is_done(&self) -> bool {
        now() > self.until && self.browsers.outstanding() == 0
    }
}

/// Waits until the server is at nothing; heartbeats are answered meanwhile.
fn calm(net: &mut Net, server: &Server) -> Result<(), String> {
    let deadline = now() + CALM_MAX;
    let mut before = Usage::of(server.pid());
    while now() < deadline {
        net.run(&mut Waiting, now() + CALM_LOOK).map_err(|error| error.to_string())?;
        let usage = Usage::of(server.pid());
        if usage.since(&before).cpu_seconds < CALM_SHARE * CALM_LOOK as f64 / SECOND as f64 {
            break;
        }
        before = usage;
    }
    Ok(())
}

/// Nothing is meant to happen.
struct Waiting;

impl Handler for Waiting {}

/// One answer.
#[derive(Default)]
struct Answer {
    status: u16,
    etag: Option<String>,
    body: Vec<u8>,
}

/// Asks once, on a connection of its own.
fn fetch(net: &mut Net, port: u16, request: Request<'_>) -> Result<Answer, String> {
    let dial = Dial { port, speaks: Speaks::Http, offers_deflate: false, tag: 0 };
    let id = net.open(dial).map_err(|error| error.to_string())?;
    let mut fetching = Fetching { id, request, outcome: None };
    net.run(&mut fetching, now() + PATIENCE).map_err(|error| error.to_string())?;
    net.close(id);
    fetching.outcome.unwrap_or_else(|| Err(format!("no answer to {} in {} s", request.path, PATIENCE / SECOND)))
}

/// One request under way.
struct Fetching<'a> {
    id: Id,
    request: Request<'a>,
    outcome: Option<Result<Answer, String>>,
}

impl Handler for Fetching<'_> {
    fn opened(&mut self, net: &mut Net, id: Id) {
        net.request(id, &self.request);
    }

    fn response(&mut self, _net: &mut Net, _id: Id, response: &Response<'_>) {
        let etag = response.etag.map(str::to_owned);
        self.outcome = Some(Ok(Answer { status: response.status, etag, body: response.body.to_vec() }));
    }

    fn closed(&mut self, _net: &mut Net, id: Id, failure: Failure) {
        if id == self.id {
            self.outcome = Some(Err(failure.to_string()));
        }
    }

    fn is_done(&self) -> bool {
        self.outcome.is_some()
    }
}

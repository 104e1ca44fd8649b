//! Stamped messages that come back, or arrive at a partner: the load of the echo and relay scenarios.
//!
//! Open loop: each message is stamped with the time it was meant to be sent, and its latency counted from there, whatever
//! held it up. Closed loop: so many in flight per sender, each arrival sends the next, for the most that a server can do.

use hdrhistogram::Histogram;

use crate::clock::{MILLISECOND, Nanos, SECOND, now};
use crate::latency::histogram;
use crate::measure::{Span, Watched, Window, generator_note};
use crate::net::{Failure, Handler, Id, Net, Schedule, Template, stamp_after};
use crate::report::Measured;

/// How long the last messages of an open loop may take.
const DRAIN: Nanos = 10 * SECOND;
/// Before each window the load runs for this share of it.
const WARM_UP: f64 = 0.25;
/// Share of its cores below which a server was not saturated.
const BUSY_SHARE_MIN: f64 = 0.9;
/// When nothing has arrived for so long, nothing more is under way.
const SETTLE: Nanos = 100 * MILLISECOND;

/// Who sends what.
pub struct Lane {
    pub from: Id,
    pub template: Template,
}

/// What one window of load has shown.
pub struct Outcome {
    pub span: Span,
    /// Messages that arrived in the window.
    pub received: u64,
    /// Messages of the window that had not arrived when nothing more came; in the latency they count as `DRAIN`.
    pub lost: u64,
    /// From the intended time to the arrival, ns. Of a closed loop from the sending.
    pub latency: Histogram<u64>,
    /// Names the window.
    what: String,
    note: Option<String>,
}

impl Outcome {
    /// Arrivals per second of the window.
    pub fn per_second(&self) -> f64 {
        self.received as f64 / self.span.seconds
    }

    /// Arrivals per second of the server's processor time: what it could do if it had a core to itself and nothing else
    /// held it up.
    pub fn per_cpu_second(&self) -> f64 {
        self.received as f64 / self.span.server.cpu_seconds
    }

    /// The same the other way round: the server's processor time for each, microseconds.
    pub fn cpu_micros_each(&self) -> f64 {
        self.span.server.cpu_seconds * 1e6 / self.received as f64
    }

    /// Puts into the results what their reader must know.
    pub fn tell(&self, measured: &mut Measured) {
        if let Some(note) = &self.note {
            measured.note(note.clone());
        }
        if self.lost > 0 {
            measured.note(format!("{}: {} messages were lost", self.what, self.lost));
        }
    }
}

/// The lanes and what is in flight on them.
pub struct Load {
    lanes: Vec<Lane>,
    /// What stands before a stamp in whatever arrives.
    mark: &'static [u8],
    /// Lane of whoever receives, by tag.
    lane_of_receiver: Vec<u32>,
    is_closed_loop: bool,
    /// The window: stamps within count.
    from: Nanos,
    until: Nanos,
    sent: u64,
    arrived_of_sent: u64,
    received: u64,
    latency: Histogram<u64>,
    failure: Option<String>,
}

impl Load {
    /// `receivers` are the tags of those who hear what each lane sends.
    pub fn new(lanes: Vec<Lane>, receivers: &[u32], mark: &'static [u8]) -> Self {
        let mut lane_of_receiver = vec![0; receivers.iter().max().map_or(0, |tag| *tag as usize + 1)];
        for (lane, tag) in receivers.iter().enumerate() {
            lane_of_receiver[*tag as usize] = lane as u32;
        }
        Self {
            lanes,
            mark,
            lane_of_receiver,
            is_closed_loop: false,
            from: 0,
            until: 0,
            sent: 0,
            arrived_of_sent: 0,
            received: 0,
            latency: histogram(),
            failure: None,
        }
    }

    /// At a fixed rate, the lanes taking turns.
    ///
    /// # Errors
    /// A connection was lost, or epoll fails.
    pub fn open_loop(
        &mut self,
        net: &mut Net,
        watched: Watched<'_>,
        per_second: f64,
        seconds: f64,
        what: &str,
    ) -> Result<Outcome, String> {
        self.is_closed_loop = false;
        let warm = nanos(seconds * WARM_UP);
        let start = now() + MILLISECOND;
        self.expect(start + warm, start + warm + nanos(seconds));
        net.schedule = Some(Schedule::new(start, per_second));
        self.run(net, self.from)?;
        let window = Window::begin(net, watched);
        self.received = 0;
        self.run(net, self.until)?;
        let span = window.end(net);
        net.schedule = None;
        let received = self.received;
        self.drain(net)?;
        let lost = self.sent - self.arrived_of_sent;
        for _ in 0..lost {
            self.latency.saturating_record(DRAIN);
        }
        let note = generator_note(what, &span, &net.lateness, &self.latency);
        Ok(Outcome { span, received, lost, latency: self.latency.clone(), what: what.to_owned(), note })
    }

    /// As fast as they arrive, `in_flight` on each lane.
    ///
    /// # Errors
    /// As above.
    pub fn closed_loop(
        &mut self,
        net: &mut Net,
        watched: Watched<'_>,
        in_flight: usize,
        seconds: f64,
        what: &str,
    ) -> Result<Outcome, String> {
        self.is_closed_loop = true;
        let start = now();
        let warm = start + nanos(seconds * WARM_UP);
        self.expect(warm, warm + nanos(seconds));
        for _ in 0..in_flight {
            (0..self.lanes.len()).for_each(|lane| self.send(net, lane, now()));
        }
        self.run(net, self.from)?;
        let window = Window::begin(net, watched);
        self.received = 0;
        self.run(net, self.until)?;
        let span = window.end(net);
        self.is_closed_loop = false;
        let received = self.received;
        self.drain(net)?;
        let note = generator_note(what, &span, &histogram(), &self.latency).or_else(|| idle_note(what, &span, watched));
        let lost = self.sent - self.arrived_of_sent;
        Ok(Outcome { span, received, lost, latency: self.latency.clone(), what: what.to_owned(), note })
    }

    /// What is stamped from then until then counts.
    fn expect(&mut self, from: Nanos, until: Nanos) {
        (self.from, self.until) = (from, until);
        (self.sent, self.arrived_of_sent) = (0, 0);
        self.latency.reset();
    }

    fn run(&mut self, net: &mut Net, until: Nanos) -> Result<(), String> {
        net.run(self, until).map_err(|error| error.to_string())?;
        self.failure.take().map_or(Ok(()), Err)
    }

    /// Waits for what is under way, at most `DRAIN`.
    fn drain(&mut self, net: &mut Net) -> Result<(), String> {
        let deadline = now() + DRAIN;
        let mut seen = u64::MAX;
        while now() < deadline && (self.arrived_of_sent < self.sent || seen != self.received) {
            seen = self.received;
            self.run(net, (now() + SETTLE).min(deadline))?;
        }
        Ok(())
    }

    fn send(&mut self, net: &mut Net, lane: usize, stamp: Nanos) {
        let Lane { from, template } = &self.lanes[lane];
        net.send_stamped(*from, template, stamp);
        self.sent += u64::from((self.from..self.until).contains(&stamp));
    }
}

impl Handler for Load {
    fn message(&mut self, net: &mut Net, id: Id, message: &[u8]) {
        let Some(stamp) = stamp_after(message, self.mark) else { return };
        self.received += 1;
        let time = now();
        if (self.from..self.until).contains(&stamp) {
            self.arrived_of_sent += 1;
            self.latency.saturating_record(time - stamp);
        }
        if self.is_closed_loop {
            let lane = self.lane_of_receiver[id.tag as usize] as usize;
            self.send(net, lane, time);
        }
    }

    fn due(&mut self, net: &mut Net, number: u64, intended: Nanos) {
        self.send(net, number as usize % self.lanes.len(), intended);
    }

    fn closed(&mut self, _net: &mut Net, id: Id, failure: Failure) {
        self.failure = Some(format!("connection {} was lost: {failure}", id.tag));
    }

    fn is_done(&self) -> bool {
        self.failure.is_some()
    }
}

/// What the reader must know when a server that should have been saturated had time left.
pub fn idle_note(what: &str, span: &Span, watched: Watched<'_>) -> Option<String> {
    let share = span.server.cpu_seconds / span.seconds / watched.cores as f64;
    let percent = share * 100.0;
    let is_alone = watched.cores == 1;
    (is_alone && share < BUSY_SHARE_MIN).then(|| format!("{what}: the server used only {percent:.0} % of its cores"))
}

fn nanos(seconds: f64) -> Nanos {
    (seconds * SECOND as f64) as Nanos
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::crowd;
    use crate::latency::percentile_ms;
    use crate::net::{Dial, STAMP_LENGTH, Speaks};

    const RECORD: usize = 2 + STAMP_LENGTH;
    const STALL: Duration = Duration::from_secs(1);

    /// Echoes records on one connection; before the one of this number it stalls once.
    fn echo(stalls_before: u64) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut record = [0; RECORD];
            for number in 0_u64.. {
                if stream.read_exact(&mut record).is_err() {
                    return;
                }
                if number == stalls_before {
                    crate::clock::pause(STALL);
                }
                let _ = stream.write_all(&record);
            }
        });
        port
    }

    fn load_on(net: &mut Net, port: u16) -> Load {
        let dial = |tag| Dial { port, speaks: Speaks::Records(RECORD), offers_deflate: false, tag: tag as u32 };
        let ids = crowd::open(net, 1, dial).unwrap();
        Load::new(vec![Lane { from: ids[0], template: Template::new("t=", "") }], &[ids[0].tag], b"t=")
    }

    fn this_process() -> Watched<'static> {
        Watched { pid: std::process::id(), cores: 1, database: None }
    }

    #[test]
    fn a_stall_of_the_server_is_in_the_latency_of_all_that_was_due_meanwhile() {
        let mut net = Net::new().unwrap();
        let mut load = load_on(&mut net, echo(100));
        let outcome = load.open_loop(&mut net, this_process(), 100.0, 2.0, "test").unwrap();
        assert_eq!((outcome.latency.len(), outcome.lost), (200, 0));
        // Half of the 200 were due within the stall, evenly: the tenth that waited longest waited for most of it.
        assert!(percentile_ms(&outcome.latency, 90.0) > 700.0, "{:?}", outcome.latency);
        assert!(percentile_ms(&outcome.latency, 70.0) > 300.0, "{:?}", outcome.latency);
    }

    #[test]
    fn a_closed_loop_counts_what_arrives_in_its_window() {
        let mut net = Net::new().unwrap();
        let mut load = load_on(&mut net, echo(u64::MAX));
        let outcome = load.closed_loop(&mut net, this_process(), 2, 0.2, "test").unwrap();
        assert!(outcome.received > 0 && outcome.lost == 0);
        assert!(!outcome.latency.is_empty() && outcome.span.server.cpu_seconds > 0.0);
    }
}

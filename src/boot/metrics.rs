//! `/metrics` for Prometheus, on an address of its own: one task gathers what shards and store tell, and writes the page.
//!
//! Runs on boot's runtime, beside the wait for a signal, so that no shard serves or writes it: each only hands over a
//! copy of its numbers. Bounds: [`METRICS_CONNECTIONS_MAX`], one page at a time, a time limit for each. Not here: what is
//! counted, and by which names (`shard/describe.rs`); who may read it: whoever reaches the address.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};

use crate::base::Time;
use crate::base::limits::{
    METRICS_ANSWER_MS_MAX, METRICS_CONNECTIONS_MAX, METRICS_HEAD_BYTES_MAX, METRICS_SCRAPE_MS_MAX,
};
use crate::config::{Config, MetricsAddress};
use crate::link::Link;
use crate::message::store::{Reply, Request, Standing};
use crate::runtime::probe::Probe;
use crate::runtime::{Kind as Runtime, Processor, processor_time};
use crate::shard::clock::Clock;
use crate::shard::{Envelope, Places, Sample, describe};
use crate::telemetry::exposition::{CONTENT_TYPE, Kind, Page};
use crate::telemetry::manager::{Level, Thresholds};
use crate::telemetry::memory::Memory;
use crate::wire::http::{self, Method, Response};

use super::cannot;

/// From the server's port to that of its metrics: 3001 has 9464, and another instance, whose port differs, another.
const PORT_STEP: u16 = 6_463;
/// Pause after the kernel refused a connection.
const REFUSED_PAUSE: Duration = Duration::from_millis(50);

/// What does not change while the process runs.
pub(super) struct Facts {
    runtime: &'static str,
    store: &'static str,
    descriptors: u64,
    memory_limit: Option<u64>,
    memory_thresholds: Thresholds,
    started_at: Time,
    clock: Clock,
}

/// The address, bound before anything else starts.
pub(super) struct Bound {
    listener: std::net::TcpListener,
    address: SocketAddr,
}

/// The listener, and what answers it.
pub(super) struct Server {
    bound: Bound,
    gatherer: Gatherer,
}

/// Whom to ask, and what they said last.
struct Gatherer {
    facts: Facts,
    shards: Vec<mpsc::Sender<Envelope>>,
    store: Link<Request, Reply>,
    places: Arc<Places>,
    /// A shard that does not answer is told as it was: a sum that fell would look like a restart.
    last: Vec<Option<Box<Sample>>>,
}

/// Binds the address for a server that listens on `main`; `None` when it is off.
///
/// An address that was chosen and is taken is an error. One that follows from the port makes way: the system then gives
/// another, which is announced.
pub(super) fn listen(chosen: MetricsAddress, main: SocketAddr) -> Result<Option<Bound>, String> {
    let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let bind = |address| std::net::TcpListener::bind(address);
    let listener = match chosen {
        MetricsAddress::Off => return Ok(None),
        MetricsAddress::At(address) => {
            bind(address).map_err(|error| cannot("serve metrics", address, "--metrics", &error))?
        }
        MetricsAddress::Auto => {
            let port = main.port().checked_add(PORT_STEP).unwrap_or(0);
            let other = |_| bind(loopback(0));
            bind(loopback(port)).or_else(other).map_err(|error| format!("cannot serve metrics: {error}"))?
        }
    };
    let address = listener.set_nonblocking(true).and_then(|()| listener.local_addr());
    let address = address.map_err(|error| format!("cannot serve metrics: {error}"))?;
    Ok(Some(Bound { listener, address }))
}

impl Facts {
    /// As it was configured and found.
    pub fn new(config: &Config, probe: &Probe, descriptors: u64, started_at: Time, clock: Clock) -> Self {
        Self {
            runtime: match probe.kind {
                Runtime::Uring => "io_uring",
                Runtime::Epoll => "epoll",
            },
            store: if config.database.is_some() { "postgres" } else { "sqlite" },
            descriptors,
            memory_limit: config.memory_limit,
            memory_thresholds: config.memory_thresholds,
            started_at,
            clock,
        }
    }
}

impl Bound {
    /// A server that tells of these shards and this store.
    pub fn serve(
        self,
        facts: Facts,
        shards: Vec<mpsc::Sender<Envelope>>,
        store: Link<Request, Reply>,
        places: Arc<Places>,
    ) -> Server {
        let last = shards.iter().map(|_| None).collect();
        Server { bound: self, gatherer: Gatherer { facts, shards, store, places, last } }
    }
}

impl Server {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.bound.address
    }

    /// Serves for ever.
    pub async fn run(self) {
        let listener = match TcpListener::from_std(self.bound.listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "metrics cannot be served"),
        };
        let clock = self.gatherer.facts.clock;
        let (asking, asked) = mpsc::channel(METRICS_CONNECTIONS_MAX);
        tokio::spawn(self.gatherer.run(asked));
        let places = Arc::new(Semaphore::new(METRICS_CONNECTIONS_MAX));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                sleep(REFUSED_PAUSE).await;
                continue;
            };
            let asking = asking.clone();
            tokio::spawn(async move {
                let limit = Duration::from_millis(METRICS_SCRAPE_MS_MAX);
                // Who reads it sees what became of it.
                let _ = timeout(limit, answer(stream, &asking, clock)).await;
                drop(place);
            });
        }
    }
}

/// Answers the one request of a connection.
async fn answer(mut stream: TcpStream, asking: &mpsc::Sender<oneshot::Sender<String>>, clock: Clock) -> io::Result<()> {
    let mut bytes = Vec::new();
    let decoded = loop {
        let scanned = bytes.len();
        if stream.read_buf(&mut bytes).await? == 0 || bytes.len() > METRICS_HEAD_BYTES_MAX {
            return Ok(());
        }
        match http::head_length(&bytes, scanned) {
            Ok(None) => {}
            Ok(Some(length)) => break http::decode_head(&bytes[..length]),
            Err(error) => break Err(error),
        }
    };
    let mut reply = http::Reply::LAST;
    let response = match decoded {
        Err(error) => error.response(),
        Ok(head) => {
            reply.without_body = head.request.method == Method::Head;
            match (head.request.method, head.request.path.as_str()) {
                (Method::Get | Method::Head, "/metrics") => {
                    let (page, written) = oneshot::channel();
                    let is_asked = asking.send(page).await.is_ok();
                    let Some(page) = written.await.ok().filter(|_| is_asked) else { return Ok(()) };
                    Response::text(200, CONTENT_TYPE, page.into())
                }
                (_, "/metrics") => Response::text(405, "text/plain", "GET it\n".into()).header("Allow", "GET, HEAD"),
                _ => Response::text(404, "text/plain", "There is /metrics\n".into()),
            }
        }
    };
    let (head, body) = http::encode_response(&response, clock.now(), reply);
    stream.write_all(&head).await?;
    stream.write_all(&body).await?;
    stream.shutdown().await
}

impl Gatherer {
    async fn run(mut self, mut asked: mpsc::Receiver<oneshot::Sender<String>>) {
        while let Some(asker) = asked.recv().await {
            if !asker.is_closed() {
                let _ = asker.send(self.page().await);
            }
        }
    }

    /// Asks all, and writes what they say.
    async fn page(&mut self) -> String {
        let limit = Duration::from_millis(METRICS_ANSWER_MS_MAX);
        let standing = timeout(limit, self.store.ask(Request::Standing));
        let (answered, standing) = tokio::join!(ask_shards(&self.shards, &mut self.last, limit), standing);
        let standing = match standing {
            Ok(Ok(Reply::Standing(standing))) => Some(standing),
            _ => None,
        };
        let mut page = Page::default();
        self.process(&mut page);
        let mut family =
            page.family("duet_shard_answered", Kind::Gauge, "Whether the shard answered this scrape in time.");
        for (shard, answered) in answered.into_iter().enumerate() {
            family.sample(&[("shard", &shard.to_string())], f64::from(u8::from(answered)));
        }
        let mut family = page.family("duet_shard_inbox_messages", Kind::Gauge, "Messages that wait for the shard.");
        for (shard, inbox) in self.shards.iter().enumerate() {
            let waiting = inbox.max_capacity() - inbox.capacity();
            family.sample(&[("shard", &shard.to_string())], waiting as f64);
        }
        store(standing, self.store.waiting(), &mut page);
        let samples: Vec<&Sample> = self.last.iter().flatten().map(Box::as_ref).collect();
        describe(&samples, &mut page);
        page.finish()
    }

    fn process(&self, page: &mut Page) {
        let (facts, memory) = (&self.facts, Memory::read());
        let (version, runtime) = (env!("CARGO_PKG_VERSION"), facts.runtime);
        page.family("duet_build_info", Kind::Gauge, "Version, runtime and store; always 1.")
            .sample(&[("version", version), ("runtime", runtime), ("store", facts.store)], 1.0);
        page.family("process_start_time_seconds", Kind::Gauge, "When the process started, Unix time.")
            .value(facts.started_at.0 as f64 / 1000.0);
        page.family("process_cpu_seconds_total", Kind::Counter, "Processor time of all threads.")
            .value(processor_time(Processor::Process).as_secs_f64());
        page.family("process_max_fds", Kind::Gauge, "File descriptors that may be open.")
            .value(facts.descriptors as f64);
        page.family("process_resident_memory_bytes", Kind::Gauge, "Resident memory.").value(memory.resident as f64);
        page.family("duet_memory_heap_bytes", Kind::Gauge, "Memory that the allocator has handed out.")
            .value(memory.allocated as f64);
        page.family(
            "duet_memory_heap_mapped_bytes",
            Kind::Gauge,
            "Memory that the allocator has taken from the system.",
        )
        .value(memory.mapped as f64);
        if let Some(limit) = facts.memory_limit {
            page.family("duet_memory_limit_bytes", Kind::Gauge, "Memory to stay within.").value(limit as f64);
        }
        let level = Level::of(memory.resident, facts.memory_limit, facts.memory_thresholds);
        let levels = [Level::Ok, Level::Warning, Level::Critical].map(|named| u64::from(named == level));
        page.family("duet_memory_level", Kind::Gauge, "1 for how full the memory is, 0 for the other levels.").each(
            "level",
            &["ok", "warning", "critical"],
            levels,
        );
        page.family(
            "duet_connections_admitted",
            Kind::Gauge,
            "Connections held against the limit, those that close too.",
        )
        .value(self.places.taken() as f64);
        page.family("duet_connections_limit", Kind::Gauge, "Connections that may be open.")
            .value(self.places.max() as f64);
        page.family(
            "duet_refusing_connections",
            Kind::Gauge,
            "1 while new connections are refused for want of memory.",
        )
        .value(f64::from(u8::from(self.places.is_refusing())));
    }
}

/// Has the shards told how they are, all at once; says which answered in time.
async fn ask_shards(shards: &[mpsc::Sender<Envelope>], last: &mut [Option<Box<Sample>>], limit: Duration) -> Vec<bool> {
    let ask = |shard: &mpsc::Sender<Envelope>| {
        let (reply, answer) = oneshot::channel();
        // A full inbox answers by dropping the question: it would be late anyway.
        let _ = shard.try_send(Envelope::Sample { reply });
        answer
    };
    let mut answers: Vec<_> = shards.iter().map(ask).collect();
    let mut samples: Vec<Option<Box<Sample>>> = answers.iter().map(|_| None).collect();
    let gather = async {
        for (answer, sample) in answers.iter_mut().zip(&mut samples) {
            *sample = answer.await.ok();
        }
    };
    let is_complete = timeout(limit, gather).await.is_ok();
    for (answer, sample) in answers.iter_mut().zip(&mut samples).filter(|_| !is_complete) {
        // Those behind the one that was late may have answered.
        if sample.is_none() {
            *sample = answer.try_recv().ok();
        }
    }
    let answered = samples.iter().map(Option::is_some).collect();
    for (last, sample) in last.iter_mut().zip(samples).filter(|(_, sample)| sample.is_some()) {
        *last = sample;
    }
    answered
}

/// How the store is; what says nothing is not reachable.
fn store(standing: Option<Standing>, waiting: usize, page: &mut Page) {
    let reachable = standing.as_ref().is_some_and(|standing| standing.reachable);
    page.family("duet_store_reachable", Kind::Gauge, "Whether the store's last attempt to use its database succeeded.")
        .value(f64::from(u8::from(reachable)));
    page.family("duet_store_queue_requests", Kind::Gauge, "Requests that wait for the store.").value(waiting as f64);
    let Some(journal) = standing.and_then(|standing| standing.journal) else { return };
    page.family("duet_journal_waiting_writes", Kind::Gauge, "Writes in the journal that wait for the database.")
        .value(journal.waiting as f64);
    page.family("duet_journal_refused_writes", Kind::Gauge, "Writes in the journal that the database would not take.")
        .value(journal.refused as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_shard_that_does_not_answer_in_time_is_told_as_it_was_before_and_holds_up_nobody() {
        let (stuck, mut unread) = mpsc::channel(1);
        let (lively, mut inbox) = mpsc::channel(1);
        let shards = [stuck, lively];
        tokio::spawn(async move {
            while let Some(Envelope::Sample { reply }) = inbox.recv().await {
                let _ = reply.send(Box::new(Sample::nothing()));
            }
        });
        let mut last = [Some(Box::new(Sample::nothing())), None];
        let before = std::ptr::from_ref(last[0].as_deref().unwrap());
        assert_eq!(ask_shards(&shards, &mut last, LIMIT).await, [false, true]);
        assert!(last[1].is_some());
        assert!(std::ptr::eq(before, last[0].as_deref().unwrap()));
        // Its inbox is full of the first question: it is not asked again.
        assert_eq!(ask_shards(&shards, &mut last, LIMIT).await, [false, true]);
        assert!(unread.recv().await.is_some() && unread.try_recv().is_err());
    }

    #[test]
    fn the_port_follows_from_the_servers_and_makes_way() {
        let listen = |port| listen(MetricsAddress::Auto, SocketAddr::from(([0, 0, 0, 0], port))).unwrap().unwrap();
        let high = listen(u16::MAX);
        assert!(high.address.ip().is_loopback() && high.address.port() != 0);
        let follows = high.address.port().checked_sub(PORT_STEP).unwrap();
        assert_ne!(listen(follows).address.port(), high.address.port());
        let taken = super::listen(MetricsAddress::At(high.address), high.address).err().unwrap();
        assert!(taken.contains("in use") && taken.contains("--metrics"), "{taken}");
    }
}

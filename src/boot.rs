//! Start in order, wait for a signal, stop in reverse.
//!
//! Start: settings, runtime, listeners, store, hashing pool, running calls ([`running`]), shards. Stop: no new connections,
//! the open ones closed, what happened in calls stored, shards ended, pool and store drained. Each failure to start is one
//! line. A service manager may have opened the listener, and is told of start and stop ([`service`]). Settings may
//! change in between ([`reload`]).

mod metrics;
mod reload;
mod running;
mod service;

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::base::ShardId;
use crate::base::placement::Placement;
use crate::config::Config;
use crate::runtime::probe::{Probe, probe};
use crate::runtime::{
    bind_all, give_free_memory_back, give_large_blocks_back, inherited, raise_descriptor_limit, share, spawn_shard,
    usable_cpus,
};
use crate::shard::clock::Clock;
use crate::shard::{self, Envelope, Links, Places, Start, abort_on_shared_panic};
use crate::telemetry::logs;
use crate::telemetry::manager::Level;
use crate::telemetry::memory::Memory;
use crate::{hashing, store};

use metrics::Facts;
use reload::Reloader;

/// Runs the server until a signal stops it.
///
/// # Errors
/// What kept it from starting, as one line.
pub fn run(config: &Config) -> Result<(), String> {
    let is_json = config.log_format.is_json(config.is_production());
    let log = logs::start(&config.log, is_json)?;
    abort_on_shared_panic();
    let clock = Clock::start();
    let open_store = || store::open(&config.store_settings(), Arc::new(move || clock.now()));
    if config.migrates_only {
        open_store().map_err(|error| error.to_string())?.stop();
        tracing::info!(store = config.store_description(), "the schema is up to date");
        return Ok(());
    }
    let (runtime, hangup) = prepare_signals()?;
    give_large_blocks_back();
    let descriptors = raise_descriptor_limit();
    let cpus = usable_cpus();
    let shards = config.shards;
    let probe = probe(config.runtime, usize::from(shards))?;
    let (listeners, bound) = listen(SocketAddr::new(config.host, config.port), usize::from(shards))?;
    let metrics = metrics::listen(config.metrics, bound)?;
    let store = open_store().map_err(|error| error.to_string())?;
    let pool = hashing::start(&config.hashing_settings()).map_err(|error| error.to_string())?;
    let links = Links { store: store.link(), hasher: pool.hasher() };
    let placement = Placement::new(shards);
    let places = Arc::new(Places::new(config.connections_max));
    let started_at = clock.now();
    let settings = config.shard_settings(&probe, shards, started_at);
    let (senders, inboxes) = shard::inboxes(placement);
    let mut handover = running::Handover::new(store.link(), placement);
    let resumed = handover.begin()?;
    let mut threads = Vec::new();
    for (index, ((listener, inbox), resumed)) in listeners.into_iter().zip(inboxes).zip(resumed).enumerate() {
        let start = Start {
            id: ShardId(index as u16),
            placement,
            clock,
            seed: entropy()?,
            senders: senders.clone(),
            inbox,
            listener,
            links: links.clone(),
            settings: settings.clone(),
            resumed,
            has_others: handover.has_others,
            places: places.clone(),
        };
        let cpu = cpus[index % cpus.len()].filter(|_| usize::from(shards) <= cpus.len());
        let thread = spawn_shard(probe.kind, format!("shard-{index}"), cpu, move || shard::run(start));
        threads.push(thread.map_err(|error| format!("shard {index} cannot start: {error}"))?);
    }
    let facts = Facts::new(config, &probe, descriptors, started_at, clock);
    let metrics = metrics.map(|listener| listener.serve(facts, senders.clone(), store.link(), places.clone()));
    let whereabouts =
        Whereabouts { bound, metrics: metrics.as_ref().map(metrics::Server::address), probe: &probe, descriptors };
    whereabouts.tell(config, is_json);
    let status = format!("serving on {bound}: {shards} shards, {}, {}", probe.kind, config.store_description());
    let (log, probe, senders, status) = (&log, &probe, senders.as_slice(), status.as_str());
    let reloads = Reloader { config, log, probe, started_at, places: places.clone(), senders, status }.run(hangup);
    let meanwhile = async { tokio::join!(watch_memory(senders, config, &places), handover.watch(senders), reloads).0 };
    let stop_within = Duration::from_secs(config.drain_seconds);
    wait_and_stop(&runtime, senders, threads, stop_within, status, meanwhile, metrics)?;
    pool.stop();
    store.stop();
    tracing::info!("stopped");
    Ok(())
}

/// The runtime of this thread, and word of every SIGHUP from now on: one that came before it is asked for must not end
/// the process.
fn prepare_signals() -> Result<(Runtime, Signal), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_signals)?;
    let hangup = {
        let _entered = runtime.enter();
        signal(SignalKind::hangup()).map_err(no_signals)?
    };
    Ok((runtime, hangup))
}

fn no_signals(error: std::io::Error) -> String {
    format!("signals cannot be waited for: {error}")
}

/// A listener for each shard, and their address: the service manager's, if it has opened any, else of our own.
fn listen(address: SocketAddr, shards: usize) -> Result<(Vec<TcpListener>, SocketAddr), String> {
    let unusable = |error| format!("the sockets of the service manager cannot be used: {error}");
    let refused = |error| cannot("listen", address, "--port", &error);
    let sockets = inherited().map_err(unusable)?;
    let listeners = match sockets.as_slice() {
        [] => bind_all(address, shards).map_err(refused)?,
        sockets => share(sockets, shards).map_err(unusable)?,
    };
    let bound = listeners[0].local_addr().map_err(refused)?;
    Ok((listeners, bound))
}

/// What only the start finds out, and people want to know.
struct Whereabouts<'a> {
    bound: SocketAddr,
    metrics: Option<SocketAddr>,
    probe: &'a Probe,
    descriptors: u64,
}

impl Whereabouts<'_> {
    fn url(&self) -> String {
        let port = self.bound.port();
        match self.bound.ip() {
            ip if ip.is_unspecified() => format!("http://localhost:{port}"),
            IpAddr::V6(ip) => format!("http://[{ip}]:{port}"),
            IpAddr::V4(ip) => format!("http://{ip}:{port}"),
        }
    }

    fn metrics_url(&self) -> String {
        self.metrics.map_or("off".to_owned(), |at| format!("http://{at}/metrics"))
    }

    /// Said once nothing can fail any more: a start that fails says only why.
    fn tell(&self, config: &Config, is_json: bool) {
        if is_json {
            self.log(config);
        } else {
            self.print(config);
        }
        config.warnings.iter().for_each(|line| tracing::warn!("{line}"));
    }

    /// For programs: one line of the log.
    fn log(&self, config: &Config) {
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            url = self.url(),
            runtime = %self.probe.kind,
            reason = self.probe.reason,
            shards = config.shards,
            store = config.store_description(),
            metrics = self.metrics_url(),
            plan = config.plan.name,
            connections_max = config.connections_max,
            descriptors = self.descriptors,
            "duet listens"
        );
    }

    /// For people.
    fn print(&self, config: &Config) {
        let url = self.url();
        let mut text = format!("duet {} listens on {url}\n", env!("CARGO_PKG_VERSION"));
        if config.demo {
            let _ = writeln!(text, "  demo     {url}/demo (a page to meet on: open it in two windows)");
        }
        let _ = writeln!(text, "  runtime  {} ({})", self.probe.kind, self.probe.reason);
        let _ = writeln!(text, "  shards   {}", config.shards);
        let _ = writeln!(text, "  store    {}", config.store_description());
        let _ = writeln!(text, "  metrics  {}", self.metrics_url());
        let (connections, descriptors) = (config.connections_max, self.descriptors);
        let plan = config.plan.name;
        let _ = writeln!(text, "  limits   plan {plan}: {connections} connections, {descriptors} file descriptors");
        // A closed standard output is no reason not to serve.
        let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
    }
}

/// Reads the process's memory on a timer; what the allocator hoards goes back. When it is short the shards shrink,
/// and while that is not enough they turn new connections away: better than to be ended by the kernel with all that
/// run. A change of level is logged.
async fn watch_memory(senders: &[mpsc::Sender<Envelope>], config: &Config, places: &Places) {
    let (limit, thresholds) = (config.memory_limit, config.memory_thresholds);
    let period = Duration::from_secs(config.memory_seconds);
    let mut last = Level::Ok;
    loop {
        tokio::time::sleep(period).await;
        let mut memory = Memory::read();
        let mut level = Level::of(memory.resident, limit, thresholds);
        if level == Level::Critical {
            tell_all(senders, |reply| Envelope::Shrink { reply }).await;
        }
        if level == Level::Critical || memory.is_hoarded() {
            give_free_memory_back();
            memory = Memory::read();
            level = Level::of(memory.resident, limit, thresholds);
        }
        places.refuse(level == Level::Critical);
        let (line, Memory { allocated, mapped, .. }) = (level.line(memory.resident, limit), memory);
        match level {
            _ if level == last => tracing::debug!(allocated, mapped, "{line}"),
            Level::Ok => tracing::info!(allocated, mapped, "{line}"),
            Level::Warning => tracing::warn!(allocated, mapped, "{line}"),
            Level::Critical => tracing::error!(allocated, mapped, "{line}; new connections are turned away"),
        }
        last = level;
    }
}

/// Tells the service manager `status` once all shards serve, waits for SIGINT or SIGTERM, doing `meanwhile`, then stops
/// the shards: first the connections of all, then what they left to be stored.
fn wait_and_stop(
    runtime: &Runtime,
    senders: &[mpsc::Sender<Envelope>],
    threads: Vec<JoinHandle<()>>,
    stop_within: Duration,
    status: &str,
    meanwhile: impl Future<Output = ()>,
    metrics: Option<metrics::Server>,
) -> Result<(), String> {
    runtime.block_on(async {
        let listen = |kind| signal(kind).map_err(no_signals);
        if let Some(server) = metrics {
            // Until the last shard has stopped: how a stop goes is worth seeing, too.
            tokio::spawn(server.run());
        }
        let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        service::ready(senders, status).await?;
        tokio::select! {
            _ = interrupt.recv() => tracing::info!("stopping: interrupted"),
            _ = terminate.recv() => tracing::info!("stopping: asked to terminate"),
            () = meanwhile => {}
            () = service::watch(senders) => {}
        }
        service::stopping();
        let stop = async {
            tell_all(senders, |reply| Envelope::Drain { reply }).await;
            tell_all(senders, |reply| Envelope::Stop { reply }).await;
        };
        tokio::select! {
            () = stop => {}
            () = tokio::time::sleep(stop_within) => tracing::warn!("not all connections closed in time"),
            _ = interrupt.recv() => tracing::warn!("interrupted again: stopping at once"),
        }
        Ok::<(), String>(())
    })?;
    for thread in threads {
        if thread.is_finished() {
            let _ = thread.join();
        }
    }
    Ok(())
}

async fn tell_all(senders: &[mpsc::Sender<Envelope>], message: impl Fn(oneshot::Sender<()>) -> Envelope) {
    let mut answers = Vec::new();
    for sender in senders {
        let (reply, answer) = oneshot::channel();
        if sender.send(message(reply)).await.is_ok() {
            answers.push(answer);
        }
    }
    for answer in answers {
        let _ = answer.await;
    }
}

/// Why an address cannot be had; `flag` is the one that chooses another.
fn cannot(act: &str, address: SocketAddr, flag: &str, error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("cannot {act} on {address}: the port is in use (choose another with {flag})")
        }
        _ => format!("cannot {act} on {address}: {error}"),
    }
}

fn entropy() -> Result<[u8; 32], String> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| format!("the system gives no entropy: {error}"))?;
    Ok(seed)
}

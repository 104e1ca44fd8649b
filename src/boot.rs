//! Start in order, wait for a signal, stop in reverse.
//!
//! Start: settings, runtime, listeners, store, hashing pool, shards. Stop: no new connections and all calls ended and
//! stored, connections closed, shards ended, pool and store drained. Each failure to start is one line.

mod metrics;

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::base::ShardId;
use crate::base::placement::Placement;
use crate::config::Config;
use crate::runtime::probe::{Probe, probe};
use crate::runtime::{
    bind_all, give_free_memory_back, give_large_blocks_back, raise_descriptor_limit, spawn_shard, usable_cpus,
};
use crate::shard::clock::Clock;
use crate::shard::{self, Envelope, Links, Start, abort_on_shared_panic};
use crate::telemetry::logs;
use crate::telemetry::manager::Level;
use crate::telemetry::memory::Memory;
use crate::{hashing, store};

use metrics::Facts;

/// Runs the server until a signal stops it.
///
/// # Errors
/// What kept it from starting, as one line.
pub fn run(config: &Config) -> Result<(), String> {
    logs::start(&config.log)?;
    abort_on_shared_panic();
    let clock = Clock::start();
    let open_store = || store::open(&config.store_settings(), Arc::new(move || clock.now()));
    if config.migrates_only {
        open_store().map_err(|error| error.to_string())?.stop();
        tracing::info!(store = config.store_description(), "the schema is up to date");
        return Ok(());
    }
    give_large_blocks_back();
    let descriptors = raise_descriptor_limit();
    let cpus = usable_cpus();
    let shards = config.shards.unwrap_or(cpus.len() as u16);
    let probe = probe(config.runtime, usize::from(shards))?;
    let address = SocketAddr::new(config.host, config.port);
    let listeners = bind_all(address, usize::from(shards)).map_err(|error| cannot_listen(address, &error))?;
    let bound = listeners[0].local_addr().map_err(|error| cannot_listen(address, &error))?;
    let metrics = metrics::listen(config.metrics, bound)?;
    let store = open_store().map_err(|error| error.to_string())?;
    let pool = hashing::start(&config.hashing_settings(cpus.len())).map_err(|error| error.to_string())?;
    let links = Links { store: store.link(), hasher: pool.hasher() };
    let placement = Placement::new(shards);
    let open = Arc::new(AtomicUsize::new(0));
    let refusing = Arc::new(AtomicBool::new(false));
    let settings = Arc::new(config.shard_settings(&probe, shards, clock.now()));
    let (senders, inboxes) = shard::inboxes(placement);
    let mut threads = Vec::new();
    for (index, (listener, inbox)) in listeners.into_iter().zip(inboxes).enumerate() {
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
            open: open.clone(),
            refusing: refusing.clone(),
        };
        let cpu = cpus[index % cpus.len()].filter(|_| usize::from(shards) <= cpus.len());
        let thread = spawn_shard(probe.kind, format!("shard-{index}"), cpu, move || shard::run(start));
        threads.push(thread.map_err(|error| format!("shard {index} cannot start: {error}"))?);
    }
    let facts = Facts::new(config, &probe, descriptors, clock);
    let metrics =
        metrics.map(|listener| listener.serve(facts, senders.clone(), store.link(), (open, refusing.clone())));
    announce(config, bound, metrics.as_ref().map(metrics::Server::address), &probe, shards, descriptors);
    let memory = watch_memory(&senders, config.memory_limit(), Duration::from_secs(config.memory_seconds), &refusing);
    wait_and_stop(&senders, threads, Duration::from_secs(config.stop_seconds), memory, metrics)?;
    pool.stop();
    store.stop();
    tracing::info!("stopped");
    Ok(())
}

fn announce(
    config: &Config,
    bound: SocketAddr,
    metrics: Option<SocketAddr>,
    probe: &Probe,
    shards: u16,
    descriptors: u64,
) {
    let host = match bound.ip() {
        ip if ip.is_unspecified() => "localhost".to_owned(),
        IpAddr::V6(ip) => format!("[{ip}]"),
        IpAddr::V4(ip) => ip.to_string(),
    };
    let mut text = format!("duet {} listens on http://{host}:{}\n", env!("CARGO_PKG_VERSION"), bound.port());
    if config.demo {
        let _ = writeln!(
            text,
            "  demo     http://{host}:{}/demo (a page to meet on: open it in two windows)",
            bound.port()
        );
    }
    let _ = writeln!(text, "  runtime  {} ({})", probe.kind, probe.reason);
    let _ = writeln!(text, "  shards   {shards}");
    let _ = writeln!(text, "  store    {}", config.store_description());
    let metrics = metrics.map_or("off".to_owned(), |at| format!("http://{at}/metrics"));
    let _ = writeln!(text, "  metrics  {metrics}");
    let _ = writeln!(text, "  limits   {} connections, {descriptors} file descriptors", config.connections_max);
    // A closed standard output is no reason not to serve.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
}

/// Reads the process's memory every `period`; what the allocator hoards goes back. When it is short the shards shrink,
/// and while that is not enough they turn new connections away: better than to be ended by the kernel with all that
/// run. A change of level is logged.
async fn watch_memory(senders: &[mpsc::Sender<Envelope>], limit: Option<u64>, period: Duration, refusing: &AtomicBool) {
    let mut last = Level::Ok;
    loop {
        tokio::time::sleep(period).await;
        let mut memory = Memory::read();
        let mut level = Level::of(memory.resident, limit);
        if level == Level::Critical {
            tell_all(senders, |reply| Envelope::Shrink { reply }).await;
        }
        if level == Level::Critical || memory.is_hoarded() {
            give_free_memory_back();
            memory = Memory::read();
            level = Level::of(memory.resident, limit);
        }
        refusing.store(level == Level::Critical, Ordering::Relaxed);
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

/// Waits for SIGINT or SIGTERM, doing `meanwhile`, then stops the shards: first the calls of all, then the connections
/// of all.
fn wait_and_stop(
    senders: &[mpsc::Sender<Envelope>],
    threads: Vec<JoinHandle<()>>,
    stop_within: Duration,
    meanwhile: impl Future<Output = ()>,
    metrics: Option<metrics::Server>,
) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("signals cannot be waited for: {error}"))?;
    runtime.block_on(async {
        let listen = |kind| signal(kind).map_err(|error| format!("signals cannot be waited for: {error}"));
        if let Some(server) = metrics {
            // Until the last shard has stopped: how a stop goes is worth seeing, too.
            tokio::spawn(server.run());
        }
        let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        tokio::select! {
            _ = interrupt.recv() => tracing::info!("stopping: interrupted"),
            _ = terminate.recv() => tracing::info!("stopping: asked to terminate"),
            () = meanwhile => {}
        }
        let stop = async {
            tell_all(senders, |reply| Envelope::EndCalls { reply }).await;
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

fn cannot_listen(address: SocketAddr, error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("cannot listen on {address}: the port is in use (choose another with --port)")
        }
        _ => format!("cannot listen on {address}: {error}"),
    }
}

fn entropy() -> Result<[u8; 32], String> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| format!("the system gives no entropy: {error}"))?;
    Ok(seed)
}

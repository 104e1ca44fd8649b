//! The two runtimes of a shard behind one thin face: glommio on io_uring, or a tokio `LocalSet` on epoll where io_uring is refused.
//!
//! Owned by: each shard's thread runs one of them; nothing here is shared between threads.
//! Bound: one executor per shard, on io_uring with [`IO_MEMORY_BYTES`] and the buffers of [`pool`]; who spawns tasks bounds their number.
//! Not here: what a shard does with its connections, the choice of how many shards, any protocol. Nothing outside `runtime/` names glommio
//! or tokio's runtime.

use std::fmt;
use std::future::Future;
use std::io;
use std::str::FromStr;
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

mod cpus;
mod driver;
mod inherited;
mod listener;
mod pool;
pub mod probe;
mod resources;
mod ring;
mod scratch;
mod stream;
mod tasks;
mod timers;
mod turns;
mod wake;
mod wall;

pub use cpus::usable_cpus;
pub use inherited::{inherited, share};
pub use listener::{Listener, bind, bind_all};
pub use resources::{
    Heap, Processor, descriptor_limit, give_free_memory_back, give_large_blocks_back, give_way, heap,
    locked_memory_limit, processor_time, raise_descriptor_limit,
};
pub use scratch::{Lease, SCRATCH_BYTES, SCRATCH_IDLE_MAX, Scratch};
pub use stream::{Detached, Stream};
pub use tasks::spawn_local;
pub use turns::{Turns, turns};
pub use wall::is_clock_synchronised;

/// Memory glommio registers with the ring for direct I/O, in bytes. A shard does none, so this is glommio's own minimum.
pub const IO_MEMORY_BYTES: usize = 64 * 1024;

/// How long glommio may run ready tasks before it looks at its own rings: for ever, there is nothing in them (see [`driver`]).
const PREEMPT: Duration = Duration::from_secs(24 * 3600);

/// What the operator asked for with `--runtime`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// io_uring where the kernel and the container allow it, else epoll.
    #[default]
    Auto,
    /// io_uring, or refuse to start.
    Uring,
    /// epoll, without asking for io_uring.
    Epoll,
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Choice, String> {
        match text {
            "auto" => Ok(Choice::Auto),
            "uring" => Ok(Choice::Uring),
            "epoll" => Ok(Choice::Epoll),
            other => Err(format!("unknown runtime {other:?}: expected auto, uring or epoll")),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Choice::Auto => "auto",
            Choice::Uring => "uring",
            Choice::Epoll => "epoll",
        })
    }
}

/// The runtime a shard really runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// glommio's executor on io_uring.
    Uring,
    /// A tokio current-thread runtime with a `LocalSet`, on epoll.
    Epoll,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Kind::Uring => "io_uring (glommio)",
            Kind::Epoll => "epoll (tokio)",
        })
    }
}

/// Starts a thread called `name`, pinned to `cpu` if one is given, that runs `main` to its end on one executor of `kind`.
///
/// Returns once the executor stands. When `main` ends, tasks still pending are dropped, then the thread ends. A panic of `main` or of any
/// task it spawned ends the thread and reaches whoever joins it. On io_uring a second thread, idle, serves glommio's blocking calls.
///
/// # Errors
/// The thread, the pinning, the ring or the epoll instance could not be made.
pub fn spawn_shard<M, F>(kind: Kind, name: String, cpu: Option<usize>, main: M) -> io::Result<JoinHandle<()>>
where
    M: FnOnce() -> F + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    let (started, outcome) = mpsc::sync_channel(1);
    let thread = Builder::new().name(name).spawn(move || {
        let pinned = cpu.map_or(Ok(()), cpus::pin);
        match pinned.and_then(|()| Ok((Executor::new(kind)?, tasks::enter(kind)?))) {
            Ok((executor, driver)) => {
                let _ = started.send(Ok(()));
                drop(started);
                executor.run(tasks::supervise(driver, main));
            }
            Err(error) => drop(started.send(Err(error))),
        }
    })?;
    match outcome.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => {
            let _ = thread.join();
            Err(error)
        }
        Err(_) => {
            let _ = thread.join();
            Err(io::Error::other(format!("{kind} panicked while starting")))
        }
    }
}

/// Waits at least `duration`. Dropping the future cancels the timer.
pub async fn sleep(duration: Duration) {
    match tasks::kind() {
        Kind::Uring => tasks::timers().sleep(duration).await,
        Kind::Epoll => tokio::time::sleep(duration).await,
    }
}

/// Lets the other ready tasks of this shard, and its I/O, have their turn first.
pub async fn yield_now() {
    futures_lite::future::yield_now().await;
}

/// One shard's executor, made and run on the same thread.
enum Executor {
    Uring(glommio::LocalExecutor),
    Epoll(tokio::runtime::Runtime),
}

impl Executor {
    fn new(kind: Kind) -> io::Result<Executor> {
        match kind {
            // Unbound: pinning is done by us for both kinds, and an unbound glommio executor never spins before it parks.
            Kind::Uring => glommio::LocalExecutorBuilder::new(glommio::Placement::Unbound)
                .io_memory(IO_MEMORY_BYTES)
                .preempt_timer(PREEMPT)
                .make()
                .map(Executor::Uring)
                .map_err(|error| io::Error::other(error.to_string())),
            Kind::Epoll => tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .enable_time()
                .on_thread_park(turns::end)
                .on_thread_unpark(turns::begin)
                .build()
                .map(Executor::Epoll),
        }
    }

    fn run(self, main: impl Future<Output = ()>) {
        match self {
            Executor::Uring(executor) => executor.run(main),
            Executor::Epoll(runtime) => tokio::task::LocalSet::new().block_on(&runtime, main),
        }
    }
}

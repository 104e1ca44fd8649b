//! The store on Postgres: a thread with a tokio runtime of its own, behind the same link and messages as any other store.
//!
//! Here is its face; `open` does all that can fail while somebody is there to read why. Bounds: requests under way,
//! connections, and the times of the settings. Once open it outlives its database: while that is away requests fail at
//! once, and it is met again without help. Deliberately absent: clocks (times are counted, not read).

mod accounts;
mod address;
mod backlog;
mod calls;
mod codes;
mod column;
mod connection;
mod gather;
mod order;
mod pairs;
mod pool;
mod running;
mod schema;
mod serve;
mod sessions;
mod tenure;
mod tls;

use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::task::{LocalSet, spawn_local};

pub use self::address::Address;

use self::backlog::Backlog;
use self::pool::{Opened, Pool, Role};
use self::tenure::Tenure;
use super::journal;
use super::{Condition, Handle, Now, OpenError};
use crate::base::Random;
use crate::base::limits::STORE_QUEUE_MAX;
use crate::link::{self, Incoming};
use crate::message::store::{InstanceId, Reply, Request};

/// The connection for reads. It is not the first: that one can do both while it is alone.
const READER: usize = 1;

/// Where the database is, and what it may take.
#[derive(Clone, Debug)]
pub struct Settings {
    pub address: Address,
    /// Requests that may wait.
    pub queue_len_max: usize,
    /// At least 2: one for reads, the others for writes. There is one more, which holds a lock.
    pub connections: usize,
    /// Time to connect, and time that a request waits for its turn and a connection, ms.
    pub connect_ms_max: u64,
    /// Time of one request on a connection, ms.
    pub query_ms_max: u64,
    /// Where writes wait that must not be lost while the database is away; without it they fail like others.
    pub journal: Option<journal::Settings>,
}

impl Settings {
    /// The usual bounds, with the database at `address`.
    pub fn new(address: Address) -> Self {
        let (connect_ms_max, query_ms_max) = (10_000, 10_000);
        let (queue_len_max, connections, journal) = (STORE_QUEUE_MAX, 4, None);
        Self { address, queue_len_max, connections, connect_ms_max, query_ms_max, journal }
    }
}

/// Connects, brings the schema up to date and leaves the serving to a thread.
pub(super) fn open(settings: &Settings, now: Now) -> Result<Handle, OpenError> {
    let at = settings.address.to_string();
    let unusable = |reason: String| OpenError::Unusable { at: at.clone(), reason };
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| unusable(format!("the system gives no entropy: {error}")))?;
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| unusable(error.to_string()))?;
    let journal = settings.journal.as_ref().map(journal::open).transpose()?;
    let (journal, journal_thread) = journal.unzip();
    let (link, incoming) = link::link(settings.queue_len_max);
    let (opened, opens) = mpsc::channel();
    let settings = settings.clone();
    let thread = link::spawn("store", move || {
        let mut random = Random::from_entropy(seed);
        let tenure = Tenure::new(InstanceId(random.below(1 << 31) as i32));
        let backlog = journal.map(|journal| Backlog::new(journal, tenure.instance()));
        let standing = (Pool::new(random, now), tenure);
        LocalSet::new().block_on(&runtime, run(settings, standing, backlog, incoming, &opened));
    });
    let thread = thread.map_err(|error| unusable(error.to_string()))?;
    // The thread tells, or a panic there aborts the process.
    opens.recv().unwrap_or_else(|_| Err(unusable("the store's thread has stopped".to_owned())))?;
    Ok(Handle { link, threads: [Some(thread), journal_thread].into_iter().flatten().collect() })
}

/// Connects and reads the schema's version, and changes nothing.
pub(super) fn inspect(settings: &Settings) -> Result<Condition, OpenError> {
    let at = settings.address.to_string();
    let unusable = |reason: String| OpenError::Unusable { at: at.clone(), reason };
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| unusable(error.to_string()))?;
    let look = async {
        let tls = tls::connector(&settings.address).map_err(unusable)?;
        let opened = pool::open(settings, tls).await;
        let opened = opened.map_err(|reason| OpenError::Unreachable { at: at.clone(), reason })?;
        schema::inspect(opened.connection(), &at).await
    };
    let (schema, known) = LocalSet::new().block_on(&runtime, look)?;
    Ok(Condition { at, schema, known })
}

/// Tells by `opened` whether it serves; if it does, serves until the link is closed and drained.
async fn run(
    settings: Settings,
    (pool, tenure): (Rc<Pool>, Rc<Tenure>),
    backlog: Option<Rc<Backlog>>,
    incoming: Incoming<Request, Reply>,
    opened: &mpsc::Sender<Result<(), OpenError>>,
) {
    let at = settings.address.to_string();
    let begun = async {
        let tls = tls::connector(&settings.address).map_err(|reason| OpenError::Unusable { at: at.clone(), reason })?;
        let reached =
            |opened: Result<Opened, String>| opened.map_err(|reason| OpenError::Unreachable { at: at.clone(), reason });
        let first = reached(pool::open(&settings, tls.clone()).await)?;
        schema::migrate(first.connection(), &at).await?;
        let holder = reached(tenure.take(&settings, tls.clone()).await)?;
        Ok((tls, first, holder))
    };
    let (tls, first, holder) = match begun.await {
        Ok(begun) => begun,
        Err(error) => {
            // Who asked waits for nothing else.
            let _ = opened.send(Err(error));
            return;
        }
    };
    let settings = Rc::new(settings);
    let mut first = Some(first);
    for index in 0..settings.connections.max(2) {
        let role = if index == READER { Role::Read } else { Role::Write };
        spawn_local(pool.clone().keep(role, settings.clone(), tls.clone(), first.take()));
    }
    spawn_local(tenure.clone().keep(pool.clone(), settings.clone(), tls, holder));
    pool.stands().await;
    if let Some(backlog) = &backlog {
        let query_max = Duration::from_millis(settings.query_ms_max);
        spawn_local(backlog.clone().run(pool.clone(), query_max));
    }
    let _ = opened.send(Ok(()));
    serve::run((pool, tenure), backlog, &settings, incoming).await;
}

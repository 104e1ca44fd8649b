//! The embedded store: SQLite on a thread of its own, behind the same link and messages as any other store.
//!
//! Here is its face; `open` does all that can fail while somebody is there to read why. Bounds: the link's queue, the
//! batch, the page cache. Deliberately absent: retries (askers repeat), caching of rows (shards cache), clocks.

mod accounts;
mod calls;
mod codes;
mod column;
mod pairs;
mod schema;
mod sessions;
mod sqlite;

use std::path::PathBuf;
use std::thread::JoinHandle;
use std::{fmt, io};

use crate::base::limits::STORE_QUEUE_MAX;
use crate::link::{self, Link};
use crate::message::store::{Reply, Request};

/// Where the data lives, and what it may take.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder of the database; made, for its owner only, if it is not there.
    pub folder: PathBuf,
    /// Requests that may wait.
    pub queue_len_max: usize,
    /// Requests that share one commit, so that they share its wait for the disk; at least 1.
    pub batch_len_max: usize,
    /// Memory for pages of the database, KiB.
    pub cache_kib: u32,
}

impl Settings {
    /// The usual bounds, with the data in `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), queue_len_max: STORE_QUEUE_MAX, batch_len_max: 256, cache_kib: 32 * 1024 }
    }
}

/// Why the store did not open. Each displays as one line for the operator.
#[derive(Debug)]
pub enum OpenError {
    /// The data folder cannot be made, or not written.
    NotWritable { path: PathBuf, reason: String },
    /// Another duet runs on this folder.
    InUse { path: PathBuf },
    /// There is a file, but SQLite did not write it.
    NotADatabase { path: PathBuf },
    /// A newer duet has written it; nothing was touched.
    NewerSchema { path: PathBuf, found: u32, known: u32 },
    /// Anything else that SQLite or the system refused.
    Other { path: PathBuf, reason: String },
}

/// The open store.
pub struct Handle {
    link: Link<Request, Reply>,
    thread: JoinHandle<()>,
}

/// Opens the store, brings its schema up to date and starts its thread.
///
/// # Errors
/// See [`OpenError`].
pub fn open(settings: &Settings) -> Result<Handle, OpenError> {
    let store = schema::open(settings)?;
    let batch_len_max = settings.batch_len_max.max(1);
    let (link, incoming) = link::link(settings.queue_len_max);
    let thread = link::spawn("store", move || sqlite::run(store, incoming, batch_len_max));
    let failed = |error: io::Error| OpenError::Other { path: settings.folder.clone(), reason: error.to_string() };
    Ok(Handle { link, thread: thread.map_err(failed)? })
}

impl Handle {
    /// A link to ask through; one clone per shard.
    pub fn link(&self) -> Link<Request, Reply> {
        self.link.clone()
    }

    /// Serves what was accepted, moves the log into the database, closes it and ends the thread. Blocks: not for a shard.
    pub fn stop(self) {
        self.link.close();
        // A panic would have aborted the process.
        let _ = self.thread.join();
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotWritable { path, reason } => {
                write!(f, "the data folder cannot be written: {}: {reason}", path.display())
            }
            Self::InUse { path } => write!(f, "another duet is running on this data folder: {}", path.display()),
            Self::NotADatabase { path } => write!(f, "this file is not a database: {}", path.display()),
            Self::NewerSchema { path, found, known } => write!(
                f,
                "the database is from a newer duet (schema {found}, this one knows up to {known}): {}",
                path.display()
            ),
            Self::Other { path, reason } => write!(f, "the database cannot be opened: {}: {reason}", path.display()),
        }
    }
}

impl std::error::Error for OpenError {}

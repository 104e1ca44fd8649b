//! The stores, each behind the same link and messages: SQLite inside the process, or a Postgres.
//!
//! Each runs on a thread of its own; its folder says what bounds it. Deliberately absent: retries (askers repeat) and
//! caching of rows (shards cache).

mod file;
pub mod journal;
pub mod postgres;
pub mod sqlite;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::base::Time;
use crate::link::Link;
use crate::message::store::{Reply, Request};

/// Which store, and what it may take.
#[derive(Clone, Debug)]
pub enum Settings {
    Sqlite(sqlite::Settings),
    Postgres(Box<postgres::Settings>),
}

/// Tells the time, from any thread: stores read no clock themselves.
pub type Now = Arc<dyn Fn() -> Time + Send + Sync>;

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
    /// No connection to the database server, or none for this user.
    Unreachable { at: String, reason: String },
    /// A newer duet has written this database; nothing was touched.
    NewerDatabase { at: String, found: u32, known: u32 },
    /// There is a connection, but the database cannot be used by it.
    Unusable { at: String, reason: String },
}

/// The open store.
pub struct Handle {
    link: Link<Request, Reply>,
    /// In the order in which they end.
    threads: Vec<JoinHandle<()>>,
}

/// Opens the store, brings its schema up to date and starts its thread.
///
/// # Errors
/// See [`OpenError`].
pub fn open(settings: &Settings, now: Now) -> Result<Handle, OpenError> {
    match settings {
        Settings::Sqlite(settings) => sqlite::open(settings, now),
        Settings::Postgres(settings) => postgres::open(settings, now),
    }
}

/// What there is to open, seen without changing it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Condition {
    /// Where, in words without secrets.
    pub at: String,
    /// Migrations that have run; 0: there is nothing yet.
    pub schema: u32,
    /// Migrations that this binary knows.
    pub known: u32,
}

/// Looks at the store as [`open`] would, but makes and migrates nothing.
///
/// # Errors
/// What would keep it from opening, a server that runs on it included.
pub fn inspect(settings: &Settings) -> Result<Condition, OpenError> {
    match settings {
        Settings::Sqlite(settings) => sqlite::inspect(settings),
        Settings::Postgres(settings) => postgres::inspect(settings),
    }
}

/// Why nothing can be stored in `folder`, if so. What is missing of it is not made: then the folder around it counts.
pub fn folder_problem(folder: &Path) -> Option<String> {
    file::folder_problem(folder)
}

impl Handle {
    /// A link to ask through; one clone per shard.
    pub fn link(&self) -> Link<Request, Reply> {
        self.link.clone()
    }

    /// Serves what was accepted, closes the database and ends the thread. Blocks: not for a shard.
    pub fn stop(self) {
        self.link.close();
        // A panic would have aborted the process.
        self.threads.into_iter().for_each(|thread| drop(thread.join()));
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
            Self::Unreachable { at, reason } => write!(f, "the database cannot be reached: {at}: {reason}"),
            Self::NewerDatabase { at, found, known } => {
                write!(f, "the database is from a newer duet (schema {found}, this one knows up to {known}): {at}")
            }
            Self::Unusable { at, reason } => write!(f, "the database cannot be used: {at}: {reason}"),
        }
    }
}

impl std::error::Error for OpenError {}

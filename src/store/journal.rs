//! The journal: what a database that is away will be told when it is back, on disk, in a SQLite file of its own.
//!
//! A thread of its own writes it, so that a slow disk holds up nobody; what has queued up shares one commit, and an
//! entry is acknowledged when it is durable. Bound: bytes of the file; over it, as on a full disk, an entry is refused,
//! and its asker asks again. SQLite rather than a format of our own: it knows torn writes, full disks and locks.
//! Deliberately absent: any knowledge of the database that is away.

use std::path::PathBuf;
use std::thread::JoinHandle;

use rusqlite::types::Type;
use rusqlite::{Connection, Error, Result};
use serde::{Deserialize, Serialize};

use super::OpenError;
use super::file::{self, Spec, StoreFile};
use crate::base::{Time, UserId};
use crate::link::{self, Incoming, Link};
use crate::message::store::{FinishedCall, InstanceId, JournalStanding, Request};

/// Migrations in order; the schema's version is how many have run.
const MIGRATIONS: [&str; 1] = [include_str!("../../migrations/journal/0001_start.sql")];
/// Entries that share a commit.
const BATCH_LEN_MAX: usize = 256;
/// Memory for pages of the file, KiB.
const CACHE_KIB: u32 = 1024;
/// Pages of SQLite are so long unless it is told otherwise.
const PAGE_BYTES: u64 = 4096;

/// Where it is kept, and how much.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Made, for its owner only, if it is not there.
    pub folder: PathBuf,
    /// Requests that may wait for its thread; over it they are refused.
    pub queue_len_max: usize,
    pub bytes_max: u64,
}

/// One write that waits.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Entry {
    FinishedCall(Box<Ended>),
    Cooldown { pair: (UserId, UserId), until: Time },
}

/// The end of a call, and whose call it was: should another process have it by then, this is no end of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Ended {
    #[serde(flatten)]
    pub call: FinishedCall,
    /// An [`InstanceId`]; `None` in what an earlier version wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<i32>,
}

/// An entry and its place; later ones have higher numbers.
pub(super) type Numbered = (i64, Entry);

/// One request to the journal; the comment names its reply.
#[derive(Debug)]
pub(super) enum Ask {
    /// Keeps one more: `Done`.
    Append(Entry),
    /// The first that wait after that number: `Oldest`.
    Oldest { after: i64, count: usize },
    /// The database has all up to this number: `Done`.
    Applied { through: i64 },
    /// The database will never take this one: `Done`. It is kept for the operator.
    Refused { number: i64, reason: String },
}

/// The answer to one request.
#[derive(Debug)]
pub(super) enum Told {
    Done,
    Oldest(Vec<Numbered>),
    /// Nothing was changed. The text is for the log.
    Failed(String),
}

/// The way to an open journal. Its thread ends when the last clone of the link is gone.
pub(super) struct Journal {
    pub link: Link<Ask, Told>,
    /// What was in it when it was opened.
    pub found: JournalStanding,
}

impl Entry {
    /// What `request` of this process leaves in a journal; `None` for what cannot wait.
    pub fn of(request: &Request, me: InstanceId) -> Option<Self> {
        match request {
            Request::FinishCall(call) => {
                Some(Self::FinishedCall(Box::new(Ended { call: FinishedCall::clone(call), owner: Some(me.0) })))
            }
            Request::SetCooldown { pair, until } => Some(Self::Cooldown { pair: *pair, until: *until }),
            _ => None,
        }
    }
}

/// Opens the journal and starts its thread.
///
/// # Errors
/// See [`OpenError`].
pub(super) fn open(settings: &Settings) -> std::result::Result<(Journal, JoinHandle<()>), OpenError> {
    let folder = settings.folder.as_path();
    let file = file::open(&Spec { folder, name: "journal.db", migrations: &MIGRATIONS, cache_kib: CACHE_KIB })?;
    let other = |reason: String| OpenError::Other { path: folder.join("journal.db"), reason };
    let counted = bound(&file.connection, settings.bytes_max).and_then(|()| counts(&file.connection));
    let found = counted.map_err(|error| other(error.to_string()))?;
    let (link, incoming) = link::link(settings.queue_len_max);
    let thread = link::spawn("journal", move || run(&file, incoming)).map_err(|error| other(error.to_string()))?;
    Ok((Journal { link, found }, thread))
}

fn bound(connection: &Connection, bytes_max: u64) -> Result<()> {
    let sql = format!("PRAGMA max_page_count = {}", bytes_max.div_ceil(PAGE_BYTES));
    connection.query_row(&sql, [], |_| Ok(()))
}

fn counts(connection: &Connection) -> Result<JournalStanding> {
    let sql = "SELECT (SELECT count(*) FROM waiting), (SELECT count(*) FROM refused)";
    let count = |count: i64| usize::try_from(count).unwrap_or_default();
    connection
        .query_row(sql, [], |row| Ok(JournalStanding { waiting: count(row.get(0)?), refused: count(row.get(1)?) }))
}

/// Serves until the last link is gone and all is answered.
fn run(file: &StoreFile, mut incoming: Incoming<Ask, Told>) {
    while let Some(batch) = incoming.receive_batch(BATCH_LEN_MAX) {
        let (asks, answers): (Vec<_>, Vec<_>) = batch.into_iter().map(|asked| (asked.request, asked.answer)).unzip();
        let told = transact(&file.connection, &asks).unwrap_or_else(|error| {
            // Should this fail too, the next BEGIN does, and comes back here.
            let _ = file.connection.execute_batch("ROLLBACK");
            asks.iter().map(|_| Told::Failed(error.to_string())).collect()
        });
        answers.into_iter().zip(told).for_each(|(answer, told)| answer.send(told));
    }
    // Only tidiness: what was acknowledged is in the log, which the next start reads.
    let _ = file.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
}

/// Carries out all in one transaction. An error means that nothing of it was.
fn transact(connection: &Connection, asks: &[Ask]) -> Result<Vec<Told>> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let told = asks.iter().map(|ask| perform(connection, ask)).collect::<Result<_>>()?;
    connection.execute_batch("COMMIT")?;
    Ok(told)
}

fn perform(connection: &Connection, ask: &Ask) -> Result<Told> {
    match ask {
        Ask::Append(entry) => {
            let request = serde_json::to_string(entry).expect("an entry is numbers, texts and lists of them");
            connection.prepare_cached("INSERT INTO waiting (request) VALUES (?1)")?.execute([request])?;
        }
        Ask::Oldest { after, count } => return oldest(connection, *after, *count).map(Told::Oldest),
        Ask::Applied { through } => {
            connection.prepare_cached("DELETE FROM waiting WHERE number <= ?1")?.execute([through])?;
        }
        Ask::Refused { number, reason } => {
            let sql = "INSERT INTO refused SELECT number, request, ?2 FROM waiting WHERE number = ?1";
            connection.prepare_cached(sql)?.execute((number, reason))?;
            connection.prepare_cached("DELETE FROM waiting WHERE number = ?1")?.execute([number])?;
        }
    }
    Ok(Told::Done)
}

fn oldest(connection: &Connection, after: i64, count: usize) -> Result<Vec<Numbered>> {
    let sql = "SELECT number, request FROM waiting WHERE number > ?1 ORDER BY number LIMIT ?2";
    let unreadable = |error| Error::FromSqlConversionFailure(1, Type::Text, Box::new(error));
    connection
        .prepare_cached(sql)?
        .query_map((after, count as i64), |row| {
            let text: String = row.get(1)?;
            Ok((row.get(0)?, serde_json::from_str(&text).map_err(unreadable)?))
        })?
        .collect()
}

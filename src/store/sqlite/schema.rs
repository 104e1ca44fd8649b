//! Opens the database file: the lock against a second duet, how SQLite is to write, the migrations.
//!
//! Runs on the opening thread, before the store's own thread exists. The lock is a file of its own, held by `flock`
//! until the process is gone however it goes. SQLite's exclusive locking mode would do as well, but it would also shut
//! out `sqlite3 duet.db .backup`, which must work on a running server. Migrations only ever go forward.

use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, Error, ErrorCode};

use super::super::OpenError;
use super::Settings;

/// Migrations in order; the schema's version is how many have run.
const MIGRATIONS: [&str; 2] = [
    include_str!("../../../migrations/sqlite/0001_start.sql"),
    include_str!("../../../migrations/sqlite/0002_archive.sql"),
];

/// How long to wait for a backup or an operator's shell that holds the write lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// More than there are statements, so that each is prepared once.
const STATEMENTS_MAX: usize = 64;
/// The write-ahead log shrinks to this after a checkpoint, bytes.
const LOG_BYTES_KEPT: u32 = 16 * 1024 * 1024;

/// An open database and the lock on its folder.
pub(super) struct Store {
    // Before the lock: fields drop in order, and the database must be closed before another may open it.
    pub connection: Connection,
    _lock: File,
}

/// Opens the database in the folder of `settings`, making it if need be.
pub(super) fn open(settings: &Settings) -> Result<Store, OpenError> {
    let lock = lock(&settings.folder)?;
    let path = settings.folder.join("duet.db");
    let connection = prepare(&path, settings).map_err(|problem| problem.explain(path, settings))?;
    Ok(Store { connection, _lock: lock })
}

/// Makes the folder if need be and takes its lock, which ends with the file's last handle.
fn lock(folder: &Path) -> Result<File, OpenError> {
    let not_writable =
        |error: std::io::Error| OpenError::NotWritable { path: folder.to_owned(), reason: error.to_string() };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(not_writable)?;
    let lock = File::options().create(true).truncate(false).write(true).open(folder.join("duet.lock"));
    let lock = lock.map_err(not_writable)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: folder.to_owned() }),
        Err(TryLockError::Error(error)) => Err(not_writable(error)),
    }
}

/// What can go wrong with the database file itself.
enum Problem {
    Newer(u32),
    Sqlite(Error),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::Sqlite(error)
    }
}

impl Problem {
    /// The same in the operator's words.
    fn explain(self, path: PathBuf, settings: &Settings) -> OpenError {
        let error = match self {
            Self::Newer(found) => return OpenError::NewerSchema { path, found, known: known() },
            Self::Sqlite(error) => error,
        };
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => OpenError::NotADatabase { path },
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                OpenError::NotWritable { path: settings.folder.clone(), reason: error.to_string() }
            }
            _ => OpenError::Other { path, reason: error.to_string() },
        }
    }
}

/// The newest schema that this binary knows.
fn known() -> u32 {
    MIGRATIONS.len() as u32
}

/// Opens the file and sets how SQLite writes. Nothing is changed before the version is known to be ours.
fn prepare(path: &Path, settings: &Settings) -> Result<Connection, Problem> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    let version: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version > known() {
        return Err(Problem::Newer(version));
    }
    // FULL: a commit returns when the log is on the disk. No mmap: a failing disk must be an error, not a SIGBUS.
    connection.execute_batch(&format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA mmap_size = 0;
         PRAGMA cache_size = -{}; PRAGMA journal_size_limit = {LOG_BYTES_KEPT}; PRAGMA trusted_schema = OFF;",
        settings.cache_kib
    ))?;
    migrate(&mut connection, version)?;
    Ok(connection)
}

/// Runs what is missing after `version`, each migration in a transaction with the number it leads to.
fn migrate(connection: &mut Connection, version: u32) -> Result<(), Error> {
    for (number, sql) in (1..).zip(MIGRATIONS).skip(version as usize) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", number)?;
        transaction.commit()?;
    }
    Ok(())
}

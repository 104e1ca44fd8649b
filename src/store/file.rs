//! A SQLite file of ours: the lock against a second duet, how SQLite is to write, the migrations.
//!
//! Runs on the opening thread, before the thread that will own the file exists. The lock is a file of its own, held by
//! `flock` until the process is gone however it goes. SQLite's exclusive locking mode would do as well, but it would
//! also shut out `sqlite3 duet.db .backup`, which must work on a running server. Migrations only ever go forward.

use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Error, ErrorCode, OpenFlags};

use super::OpenError;

/// How long to wait for a backup or an operator's shell that holds the write lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// More than there are statements, so that each is prepared once.
const STATEMENTS_MAX: usize = 64;
/// The write-ahead log shrinks to this after a checkpoint, bytes.
const LOG_BYTES_KEPT: u32 = 16 * 1024 * 1024;

/// Which file, and its schema.
pub(super) struct Spec<'a> {
    /// Made, for its owner only, if it is not there.
    pub folder: &'a Path,
    pub name: &'a str,
    /// In order; the schema's version is how many have run.
    pub migrations: &'a [&'a str],
    /// Memory for its pages, KiB.
    pub cache_kib: u32,
}

/// An open file and the lock on its folder.
pub(super) struct StoreFile {
    // Before the lock: fields drop in order, and the file must be closed before another may open it.
    pub connection: Connection,
    _lock: File,
}

/// Opens the file, making it if need be, and brings its schema up to date.
///
/// # Errors
/// See [`OpenError`].
pub(super) fn open(spec: &Spec<'_>) -> Result<StoreFile, OpenError> {
    let lock = lock(spec.folder)?;
    let path = spec.folder.join(spec.name);
    let connection = prepare(&path, spec).map_err(|problem| problem.explain(path, spec))?;
    Ok(StoreFile { connection, _lock: lock })
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

/// The version of the file's schema, without changing anything; `None`: there is no file.
///
/// # Errors
/// See [`OpenError`].
pub(super) fn inspect(spec: &Spec<'_>) -> Result<Option<u32>, OpenError> {
    let folder = spec.folder;
    if let Some(reason) = folder_problem(folder) {
        return Err(OpenError::NotWritable { path: folder.to_owned(), reason });
    }
    let path = folder.join(spec.name);
    if !path.exists() {
        return Ok(None);
    }
    let _lock = lock(folder)?;
    let look = || -> Result<u32, Problem> {
        let connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let version = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version > known(spec) { Err(Problem::Newer(version)) } else { Ok(version) }
    };
    look().map(Some).map_err(|problem| problem.explain(path, spec))
}

/// Why nothing can be stored in `folder`, or where it would be made.
pub(super) fn folder_problem(folder: &Path) -> Option<String> {
    let is_there = |folder: &&Path| folder.as_os_str().is_empty() || folder.symlink_metadata().is_ok();
    let existing = folder.ancestors().find(is_there).filter(|path| !path.as_os_str().is_empty());
    let existing = existing.unwrap_or(Path::new("."));
    let trial = existing.join(format!(".duet-trial-{}", std::process::id()));
    if let Err(error) = File::options().create_new(true).write(true).open(&trial) {
        return Some(format!("{} cannot be written: {error}", existing.display()));
    }
    // Who could make it can take it away.
    let _ = std::fs::remove_file(trial);
    None
}

/// What can go wrong with the file itself.
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
    fn explain(self, path: PathBuf, spec: &Spec<'_>) -> OpenError {
        let error = match self {
            Self::Newer(found) => return OpenError::NewerSchema { path, found, known: known(spec) },
            Self::Sqlite(error) => error,
        };
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => OpenError::NotADatabase { path },
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                OpenError::NotWritable { path: spec.folder.to_owned(), reason: error.to_string() }
            }
            _ => OpenError::Other { path, reason: error.to_string() },
        }
    }
}

/// The newest schema that this binary knows.
fn known(spec: &Spec<'_>) -> u32 {
    spec.migrations.len() as u32
}

/// Opens the file and sets how SQLite writes. Nothing is changed before the version is known to be ours.
fn prepare(path: &Path, spec: &Spec<'_>) -> Result<Connection, Problem> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    // Else a statement whose plan might depend on a parameter (a LIMIT, a bound of a range) is prepared at each use.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    let version: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version > known(spec) {
        return Err(Problem::Newer(version));
    }
    // FULL: a commit returns when the log is on the disk. No mmap: a failing disk must be an error, not a SIGBUS.
    connection.execute_batch(&format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA mmap_size = 0;
         PRAGMA cache_size = -{}; PRAGMA journal_size_limit = {LOG_BYTES_KEPT}; PRAGMA trusted_schema = OFF;",
        spec.cache_kib
    ))?;
    migrate(&mut connection, version, spec)?;
    Ok(connection)
}

/// Runs what is missing after `version`, each migration in a transaction with the number it leads to.
fn migrate(connection: &mut Connection, version: u32, spec: &Spec<'_>) -> Result<(), Error> {
    for (number, sql) in (1..).zip(spec.migrations).skip(version as usize) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", number)?;
        transaction.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;

    #[test]
    fn a_statement_is_prepared_once_whatever_is_bound_to_it() {
        let migrations = &["CREATE TABLE numbers (number INTEGER NOT NULL) STRICT"];
        let spec = Spec { folder: Path::new(""), name: "", migrations, cache_kib: 64 };
        let Ok(connection) = prepare(Path::new(":memory:"), &spec) else { panic!("memory takes it") };
        let sql = "SELECT number FROM numbers WHERE number > ?1 ORDER BY number LIMIT ?2";
        let mut statement = connection.prepare(sql).unwrap();
        for n in 0..3 {
            assert!(!statement.exists((n, n + 1)).unwrap());
        }
        assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
    }
}

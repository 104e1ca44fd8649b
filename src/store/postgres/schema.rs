//! The schema: which migrations have run is a table in the database; what is missing runs at start, forward only.
//!
//! All of it in one transaction under an advisory lock: of several processes that start together one migrates, the
//! others wait and find it done. A binary that is older than the schema changes nothing and says so.

use super::OpenError;
use super::connection::{Connection, Error, Result};

/// Migrations in order; the schema's version is how many have run.
const MIGRATIONS: [&str; 4] = [
    include_str!("../../../migrations/postgres/0001_start.sql"),
    include_str!("../../../migrations/postgres/0002_archive.sql"),
    include_str!("../../../migrations/postgres/0003_running_calls.sql"),
    include_str!("../../../migrations/postgres/0004_owners.sql"),
];

/// Key of the lock; nothing but ours: "duet" in ASCII.
const LOCK: i64 = 0x6475_6574;

/// The newest schema that this binary knows.
fn known() -> u32 {
    MIGRATIONS.len() as u32
}

/// How many migrations have run, and how many are known. Changes nothing.
pub(super) async fn inspect(connection: &Connection, at: &str) -> std::result::Result<(u32, u32), OpenError> {
    let unusable = |error: Error| OpenError::Unusable { at: at.to_owned(), reason: error.to_string() };
    let found = version(connection).await.map_err(unusable)?;
    if found > known() {
        return Err(OpenError::NewerDatabase { at: at.to_owned(), found, known: known() });
    }
    Ok((found, known()))
}

async fn version(connection: &Connection) -> Result<u32> {
    let unreadable = Error::Refused("the schema's version cannot be read");
    let there = "SELECT to_regclass('schema_migrations') IS NOT NULL";
    let Some(row) = connection.row(there, &[]).await? else { return Err(unreadable) };
    if !row.try_get::<_, bool>(0)? {
        return Ok(0);
    }
    let row = connection.row("SELECT coalesce(max(version), 0) FROM schema_migrations", &[]).await?;
    Ok(u32::try_from(row.ok_or(unreadable)?.try_get::<_, i32>(0)?).unwrap_or_default())
}

/// Brings the schema up to date. Waits for whoever is doing the same.
pub(super) async fn migrate(connection: &Connection, at: &str) -> std::result::Result<(), OpenError> {
    match connection.transaction(async || advance(connection).await).await {
        Ok(None) => Ok(()),
        Ok(Some(found)) => Err(OpenError::NewerDatabase { at: at.to_owned(), found, known: known() }),
        Err(error) => Err(OpenError::Unusable { at: at.to_owned(), reason: error.to_string() }),
    }
}

/// Runs what is missing. `Some` version is one that is newer than all that is known here.
async fn advance(connection: &Connection) -> Result<Option<u32>> {
    // Neither the wait for another process nor a long migration is a fault.
    let start = format!("SET LOCAL statement_timeout = 0; SELECT pg_advisory_xact_lock({LOCK})");
    connection.run(&start).await?;
    let table = "CREATE TABLE IF NOT EXISTS schema_migrations (
             version integer PRIMARY KEY,
             applied_at timestamptz NOT NULL DEFAULT now())";
    connection.run(table).await?;
    let version = version(connection).await?;
    if version > known() {
        return Ok(Some(version));
    }
    for (number, sql) in (1_i32..).zip(MIGRATIONS).skip(version as usize) {
        connection.run(sql).await?;
        connection.execute("INSERT INTO schema_migrations (version) VALUES ($1)", &[&number]).await?;
    }
    Ok(None)
}

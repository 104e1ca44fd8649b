//! The schema of the embedded database: its migrations.

use super::super::OpenError;
use super::super::file::{self, Spec, StoreFile};
use super::Settings;

/// Migrations in order; the schema's version is how many have run.
pub(super) const MIGRATIONS: [&str; 3] = [
    include_str!("../../../migrations/sqlite/0001_start.sql"),
    include_str!("../../../migrations/sqlite/0002_archive.sql"),
    include_str!("../../../migrations/sqlite/0003_running_calls.sql"),
];

/// Opens the database in the folder of `settings`, making it if need be.
pub(super) fn open(settings: &Settings) -> Result<StoreFile, OpenError> {
    file::open(&spec(settings))
}

/// How many migrations have run on what is there, and how many are known.
pub(super) fn inspect(settings: &Settings) -> Result<(u32, u32), OpenError> {
    Ok((file::inspect(&spec(settings))?.unwrap_or_default(), MIGRATIONS.len() as u32))
}

fn spec(settings: &Settings) -> Spec<'_> {
    let (folder, cache_kib) = (settings.folder.as_path(), settings.cache_kib);
    Spec { folder, name: "duet.db", migrations: &MIGRATIONS, cache_kib }
}

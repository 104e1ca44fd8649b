//! The embedded store: SQLite on a thread of its own, behind the same link and messages as any other store.
//!
//! Here is its face; `open` does all that can fail while somebody is there to read why. Bounds: the link's queue, the
//! batch, the page cache. Deliberately absent: clocks.

mod accounts;
mod calls;
mod codes;
mod column;
mod pairs;
mod running;
mod schema;
mod serve;
mod sessions;

use std::io;
use std::path::PathBuf;

use super::{Condition, Handle, Now, OpenError};
use crate::base::limits::STORE_QUEUE_MAX;
use crate::link;

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

/// Opens the store, brings its schema up to date and starts its thread.
///
/// # Errors
/// See [`OpenError`].
pub(super) fn open(settings: &Settings, now: Now) -> Result<Handle, OpenError> {
    let store = schema::open(settings)?;
    let batch_len_max = settings.batch_len_max.max(1);
    let (link, incoming) = link::link(settings.queue_len_max);
    let thread = link::spawn("store", move || serve::run(store, incoming, batch_len_max, &now));
    let failed = |error: io::Error| OpenError::Other { path: settings.folder.clone(), reason: error.to_string() };
    Ok(Handle { link, threads: vec![thread.map_err(failed)?] })
}

/// Looks at the file and its schema without changing them.
pub(super) fn inspect(settings: &Settings) -> Result<Condition, OpenError> {
    let (schema, known) = schema::inspect(settings)?;
    Ok(Condition { at: settings.folder.display().to_string(), schema, known })
}

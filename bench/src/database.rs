//! The Postgres for those that need one: started once per run on demand, a fresh database for each server.
//!
//! It is pinned nowhere: the kernel gives it what the others leave.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::Cores;
use crate::sample::Usage;
use crate::tree;

/// A server of Debian's package, ended with this.
#[derive(Debug)]
pub struct Postgres {
    folder: PathBuf,
    url: String,
    databases: Cell<u32>,
}

impl Postgres {
    /// Starts one in `folder`.
    ///
    /// # Errors
    /// What the script said: Postgres is missing, or does not start.
    pub fn start(folder: &Path, cores: &Cores) -> Result<Self, String> {
        Cores::pin(cores.all()).map_err(|error| error.to_string())?;
        let printed = script("start", folder);
        Cores::pin(cores.generator()).map_err(|error| error.to_string())?;
        Ok(Self { folder: folder.to_path_buf(), url: printed?, databases: Cell::new(0) })
    }

    /// The URL of a new, empty database.
    pub fn fresh_database(&self) -> Result<String, String> {
        self.databases.set(self.databases.get() + 1);
        let name = format!("bench_{}", self.databases.get());
        let statement = format!("CREATE DATABASE {name}");
        run(Command::new("psql").args([&self.url, "--no-psqlrc", "--quiet", "--command", &statement]))?;
        let (server, _) = self.url.rsplit_once('/').ok_or("the URL of Postgres has no database")?;
        Ok(format!("{server}/{name}"))
    }

    /// Processor time of all its processes: one per connection, and those that write for them.
    pub fn usage(&self) -> Usage {
        let pid = fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap_or_default();
        pid.lines().next().and_then(|line| line.parse().ok()).map(Usage::of_family).unwrap_or_default()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = script("stop", &self.folder);
    }
}

fn script(command: &str, folder: &Path) -> Result<String, String> {
    run(Command::new(tree::root().join("tests/postgres")).arg(command).arg(folder))
}

/// Runs it to its end; gives what it printed.
fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

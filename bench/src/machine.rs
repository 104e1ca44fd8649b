//! What a result was measured on and of: the machine, the commit, the date.

use std::fs;
use std::process::Command;

use serde::Serialize;

use crate::tree;

#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub memory_mib: u64,
    pub kernel: String,
    /// What the peers run on.
    pub node: String,
    pub rust: String,
}

impl Machine {
    /// `cores` are the usable ones.
    pub fn here(cores: usize) -> Self {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let after_colon = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = after_colon(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        Self {
            processor: after_colon(&read("/proc/cpuinfo"), "model name").unwrap_or_default(),
            cores,
            memory_mib: memory.split(' ').next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() / 1024,
            node: printed("node", &["--version"]),
            rust: printed("rustc", &["--version"]),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

/// The commit that is checked out, with a plus if files differ from it.
pub fn commit() -> String {
    let git = |arguments: &[&str]| printed("git", arguments);
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]);
    format!("{}{}", git(&["rev-parse", "--short=12", "HEAD"]), if changed.is_empty() { "" } else { "+" })
}

/// Date and time, UTC, ISO 8601.
pub fn date() -> String {
    printed("date", &["--utc", "+%Y-%m-%dT%H:%M:%SZ"])
}

/// What a command prints, or nothing.
fn printed(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(tree::root()).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

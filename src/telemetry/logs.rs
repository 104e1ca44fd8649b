//! The log: lines on standard error, for people on a terminal and for journald. Never tokens, SDP, addresses or e-mail.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

/// Starts the log with a filter such as `info` or `duet=debug`.
///
/// # Errors
/// The filter is none.
pub fn start(filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| format!("--log {filter:?} is not a filter: {error}"))?;
    let format = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_target(false);
    // Only a second start in one process fails here, and then the first log serves both.
    let _ = format.with_ansi(stderr().is_terminal()).try_init();
    Ok(())
}

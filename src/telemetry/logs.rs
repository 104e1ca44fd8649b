//! The log: lines on standard error, for people or for programs. Never tokens, passwords, SDP, addresses of clients or
//! e-mail.
//!
//! Other crates are heard only when they warn, whatever the filter says: some write down what they carry, parameters of
//! statements among it, once they are asked for more. Not here: what is worth a line.

use std::io::{IsTerminal, stderr};
use std::str::FromStr;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt, registry, reload};

/// How a line is written.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Format {
    /// JSON in production unless a terminal reads it, else text: whoever tries something out reads it himself, through a
    /// pipe or not.
    #[default]
    Auto,
    Text,
    /// An object with `timestamp`, `level`, `message`, the fields, and as `span.id` the request that it belongs to.
    Json,
}

impl FromStr for Format {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "auto" => Ok(Self::Auto),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(()),
        }
    }
}

impl Format {
    /// Whether lines are JSON, in production or not.
    pub fn is_json(self, production: bool) -> bool {
        match self {
            Self::Auto => production && !stderr().is_terminal(),
            Self::Text => false,
            Self::Json => true,
        }
    }
}

/// The running log.
pub struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
}

impl Log {
    /// Lets these lines through from now on.
    ///
    /// # Errors
    /// The filter is none.
    pub fn set(&self, filter: &str) -> Result<(), String> {
        let filter = decode(filter)?;
        self.filter.reload(filter).map_err(|error| format!("the log cannot be changed: {error}"))
    }
}

/// Starts the log with a filter such as `info` or `duet=debug`.
///
/// # Errors
/// The filter is none.
pub fn start(filter: &str, is_json: bool) -> Result<Log, String> {
    let (filter, handle) = reload::Layer::new(decode(filter)?);
    let lines = fmt::layer().with_writer(stderr).with_target(false);
    let heard = registry().with(filter).with(filter_fn(may_speak));
    // Only a second start in one process fails here, and then the first log serves both.
    let _ = if is_json {
        heard.with(lines.json().flatten_event(true).with_span_list(false)).try_init()
    } else {
        heard.with(lines.with_ansi(stderr().is_terminal())).try_init()
    };
    Ok(Log { filter: handle })
}

fn decode(filter: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(filter).map_err(|error| format!("--log {filter:?} is not a filter: {error}"))
}

fn may_speak(metadata: &Metadata<'_>) -> bool {
    let is_ours = metadata.target() == "duet" || metadata.target().starts_with("duet::");
    is_ours || *metadata.level() <= Level::WARN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_that_is_named_is_taken_and_only_production_is_json_by_itself() {
        assert!("json".parse::<Format>().unwrap().is_json(false));
        assert!(!"text".parse::<Format>().unwrap().is_json(true));
        assert!(!"auto".parse::<Format>().unwrap().is_json(false));
        assert!("xml".parse::<Format>().is_err());
    }
}

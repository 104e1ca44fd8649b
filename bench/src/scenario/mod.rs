//! The scenarios, by name.
//!
//! A new one is a file here, a [`Scenario`] in it, and a line in `ALL`. Its `measure` makes a `Net`, brings people there
//! (`crowd.rs`), opens a `Window` on its server, runs a `Handler` of its own (or a `Load` of stamped messages), and puts
//! figures into a `Measured` by the metrics that it lists. What the reader must know besides goes into notes.
//!
//! Scenarios know nothing of each other, and of servers only what `Job` says.

mod capacity;
mod echo;
mod fan_out;
mod http;
mod idle;
mod mix;
mod relay;
mod storm;

use crate::run::{self, Options, Scenario};
use crate::servers::Entry;

/// What the command line can do with a scenario.
pub struct Listed {
    pub name: &'static str,
    pub about: &'static str,
    pub servers: &'static [&'static str],
    pub takes: fn(&Entry) -> bool,
    pub run: fn(Options) -> Result<Vec<String>, String>,
}

const fn listed<S: Scenario + Default>() -> Listed {
    Listed {
        name: S::NAME,
        about: S::ABOUT,
        servers: S::SERVERS,
        takes: S::takes,
        run: |options| run::run(&S::default(), options),
    }
}

/// In the order in which `all` runs them.
pub const ALL: &[Listed] = &[
    listed::<echo::Echo>(),
    listed::<relay::Relay>(),
    listed::<mix::Mix>(),
    listed::<fan_out::FanOut>(),
    listed::<http::Http>(),
    listed::<idle::Idle>(),
    listed::<storm::Storm>(),
    listed::<storm::Full>(),
    listed::<capacity::Capacity>(),
];

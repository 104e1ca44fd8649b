//! The scenarios, by name.
//!
//! A new one is a file here, a [`Scenario`] in it, and a line in `ALL`. Its `measure` makes a `Net`, brings people there
//! (`crowd.rs`), opens a `Window` on its server, runs a `Handler` of its own (or a `Load` of stamped messages), and puts
//! figures into a `Measured` by the metrics that it lists. What the reader must know besides goes into notes.
//!
//! Scenarios know nothing of each other, and of servers only what `Job` says.

mod echo;
mod idle;
mod relay;
mod storm;

use crate::run::{self, Options, Scenario};

/// What the command line can do with a scenario.
pub struct Listed {
    pub name: &'static str,
    pub about: &'static str,
    pub servers: &'static [&'static str],
    pub run: fn(Options) -> Result<Vec<String>, String>,
}

const fn listed<S: Scenario + Default>() -> Listed {
    Listed { name: S::NAME, about: S::ABOUT, servers: S::SERVERS, run: |options| run::run(&S::default(), options) }
}

/// In the order in which `all` runs them.
pub const ALL: &[Listed] =
    &[listed::<echo::Echo>(), listed::<relay::Relay>(), listed::<idle::Idle>(), listed::<storm::Storm>()];

//! SIGHUP: the settings are read again, and those that can change do, on every shard, while connections and calls go on.
//!
//! Runs on boot's thread. Each shard takes the new settings over as a message in its inbox, so that no lock is on
//! anybody's way. Settings that are wrong change nothing. Bound: one reload at a time; signals that come meanwhile are
//! one more. Not here: which settings can change (`config/flags.rs`).

use std::sync::Arc;

use tokio::signal::unix::Signal;
use tokio::sync::mpsc;

use crate::base::Time;
use crate::config::{Config, Reload};
use crate::runtime::probe::Probe;
use crate::shard::{Envelope, Places};
use crate::telemetry::logs::Log;

use super::{service, tell_all};

/// What a reload reads from, and whom it tells.
pub(super) struct Reloader<'a> {
    /// Of the start.
    pub config: &'a Config,
    pub log: &'a Log,
    pub probe: &'a Probe,
    pub started_at: Time,
    pub places: Arc<Places>,
    pub senders: &'a [mpsc::Sender<Envelope>],
    /// What the service manager shows.
    pub status: &'a str,
}

impl Reloader<'_> {
    /// Reloads at each signal, for ever.
    pub async fn run(self, mut hangup: Signal) {
        let mut latest: Option<Config> = None;
        while hangup.recv().await.is_some() {
            service::reloading();
            let outcome = match latest.as_ref().unwrap_or(self.config).read_again() {
                Ok(reload) => {
                    latest = Some(self.take(reload, latest.as_ref()).await);
                    "reloaded"
                }
                Err(reasons) => {
                    reasons
                        .iter()
                        .for_each(|reason| tracing::error!("a reload is refused, nothing is changed: {reason}"));
                    "a reload was refused: the log says why"
                }
            };
            service::reloaded(&format!("{}; {outcome}", self.status));
        }
        std::future::pending().await
    }

    /// Takes what was read over, and gives it back for the next time.
    async fn take(&self, reload: Reload, before: Option<&Config>) -> Config {
        let Reload { config, taken, waiting } = reload;
        let known = &before.unwrap_or(self.config).warnings;
        config.warnings.iter().filter(|line| !known.contains(line)).for_each(|line| tracing::warn!("{line}"));
        for name in waiting {
            tracing::warn!("--{name} has changed, but needs a restart");
        }
        let settings = config.shard_settings(self.probe, self.config.shards, self.started_at);
        tell_all(self.senders, |reply| Envelope::Settings { settings: Box::new(settings.clone()), reply }).await;
        self.places.set_max(config.connections_max);
        match taken.as_slice() {
            [] => tracing::info!("reloaded: no setting has changed"),
            names => tracing::info!("reloaded: --{} changed", names.join(", --")),
        }
        // Last, so that these lines are heard by the filter that let the ones before through.
        if let Err(reason) = self.log.set(&config.log) {
            tracing::error!("{reason}");
        }
        config
    }
}

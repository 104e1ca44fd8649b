//! Settings that are read again while the server runs: which have changed, and which of these can be taken over.
//!
//! Everything is read as at the start, but for the machine: its limits are those of the start. What needs a restart is
//! kept as it is, also where others depend on it. Not here: taking settings over (`boot/reload.rs`).

use clap::ArgMatches;

use super::flags::{DATABASE_URL, FLAGS, TURN_SECRET, is_live};
use super::reader::{Given, Reader};
use super::{Config, Reading, System};

/// What settings were read from, and what was said there.
pub(super) struct Origin {
    matches: ArgMatches,
    system: System,
    given: Given,
}

impl Origin {
    pub fn new(reader: &Reader, system: &System) -> Self {
        let given = FLAGS.iter().map(|flag| (flag.name, reader.given(flag.name))).collect();
        Self { matches: reader.matches.clone(), system: system.clone(), given }
    }

    /// What was said of this setting.
    fn text(&self, name: &str) -> &str {
        self.given.get(name).map_or("", |(text, _)| text)
    }
}

/// Settings to go on with, and what has become of those that were changed.
pub struct Reload {
    pub config: Config,
    /// Names of settings that are other than before.
    pub taken: Vec<&'static str>,
    /// Names of settings that are as before, though something else is said now.
    pub waiting: Vec<&'static str>,
}

impl Config {
    /// Reads all settings again, from where these came.
    ///
    /// # Errors
    /// All that is wrong, one line each; or that what is changed does not go with what needs a restart.
    pub fn read_again(&self) -> Result<Reload, Vec<String>> {
        let origin = &self.origin;
        let said = Reading::new(&origin.matches, origin.system.clone()).settled()?;
        let kept = origin.given.iter().filter(|(name, _)| !is_live(name));
        let kept = kept.map(|(name, given)| (*name, given.clone())).collect();
        let config = Reading::keeping(&origin.matches, origin.system.clone(), kept).settled()?;
        let others = |other: &Config| {
            let differs = |name: &&str| origin.text(name) != other.origin.text(name);
            FLAGS.iter().map(|flag| flag.name).filter(differs).collect::<Vec<_>>()
        };
        let (mut taken, mut waiting) = (others(&config), others(&said));
        waiting.retain(|name| !is_live(name));
        // Secrets may have changed within their files.
        if config.turn_secret != self.turn_secret && !taken.contains(&TURN_SECRET) {
            taken.push(TURN_SECRET);
        }
        if said.database != self.database && !waiting.contains(&DATABASE_URL) {
            waiting.push(DATABASE_URL);
        }
        let (database, is_conformance_target) = (self.database.clone(), self.is_conformance_target);
        Ok(Reload { config: Config { database, is_conformance_target, ..config }, taken, waiting })
    }
}

//! All that was read, right or wrong: the settings with their sources, and what is to be said of them.
//!
//! `duet check-config` prints it; a server starts only with one without errors. Secrets are never in it.

use std::ffi::OsString;
use std::fmt::Write as _;

use clap::ArgMatches;
use serde_json::json;

use super::flags::{COMMAND, COMMANDS, DATABASE_URL, FLAGS, JSON, REDIS_URL, TURN_SECRET};
use super::plan::PLANS;
use super::reader::{Reader, Source};
use super::{Command, Config, ConfigExit, System, command, misread, read};
use crate::base::Map;
use crate::store;

/// Settings, whatever is wrong with them.
pub struct Reading {
    config: Config,
    pub command: Command,
    /// Print for programs.
    pub is_json: bool,
    pub system: System,
    /// In the order of the table.
    pub settings: Vec<Setting>,
    /// What keeps the server from starting, one line each.
    pub errors: Vec<String>,
    /// What it starts with all the same.
    pub warnings: Vec<String>,
}

/// One line of the table as it counts.
pub struct Setting {
    pub flag: &'static str,
    /// Of a secret only whether it is set.
    pub value: String,
    pub source: Source,
}

impl Reading {
    /// Reads arguments, the program's name first, and for what they leave open environment, files and machine.
    ///
    /// # Errors
    /// Help or version, if asked for; or that the arguments cannot be read at all.
    pub fn from_args(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Self, ConfigExit> {
        let matches = command().try_get_matches_from(args).map_err(|error| misread(&error))?;
        Ok(Self::new(&matches, System::read()))
    }

    pub(super) fn new(matches: &ArgMatches, system: System) -> Self {
        let named = matches.get_one::<String>(COMMAND);
        let find = |named: &String| COMMANDS.iter().find(|(name, ..)| name == named);
        let command = named.and_then(find).map_or(Command::Serve, |(_, command, _)| *command);
        let is_json = matches.get_flag(JSON);
        let (found, errors, warnings) = (Map::default(), Vec::new(), Vec::new());
        let mut reader = Reader { matches, plan: PLANS[0], found, errors, warnings };
        if is_json && !matches!(command, Command::CheckConfig | Command::Doctor) {
            reader.errors.push("--json is for check-config and doctor".to_owned());
        }
        let config = read(&mut reader, &system, command);
        let settings = FLAGS.iter().filter(|flag| flag.name != REDIS_URL).map(|flag| setting(&reader, flag.name));
        let settings = settings.collect();
        let Reader { errors, warnings, .. } = reader;
        Self { config, command, is_json, system, settings, errors, warnings }
    }

    /// The settings to run with.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn config(self) -> Result<Config, ConfigExit> {
        if self.errors.is_empty() {
            return Ok(Config { warnings: self.warnings, ..self.config });
        }
        Err(ConfigExit::refusal(self.errors.iter().map(|line| format!("duet: {line}\n")).collect()))
    }

    /// The settings as far as they could be read: for looking at things, not for serving.
    pub fn config_as_read(&self) -> &Config {
        &self.config
    }

    /// What `duet check-config` prints, and its exit code. Besides what was read it looks at the data folder.
    pub fn report(mut self) -> ConfigExit {
        let config = &self.config;
        if (config.database.is_none() || config.journal_mib > 0)
            && let Some(reason) = store::folder_problem(&config.data)
        {
            self.errors.push(format!("--data (DATA_DIR) is {}: {reason}", config.data.display()));
        }
        let code = if self.errors.is_empty() { 0 } else { 2 };
        let text = if self.is_json { self.json() } else { self.text() };
        ConfigExit::answer(text, code)
    }

    fn text(&self) -> String {
        let width = |column: fn(&Setting) -> usize| self.settings.iter().map(column).max().unwrap_or_default();
        let flags = width(|setting| setting.flag.len() + 2);
        let values = width(|setting| setting.value.len()).min(40);
        let mut text = String::new();
        for Setting { flag, value, source } in &self.settings {
            let flag = format!("--{flag}");
            let value = if value.is_empty() { "none" } else { value };
            let _ = writeln!(text, "{flag:flags$}  {value:values$}  {source}");
        }
        for (word, lines) in [("warning", &self.warnings), ("error", &self.errors)] {
            for line in lines {
                let _ = writeln!(text, "{word}: {line}");
            }
        }
        let (errors, warnings) = (self.errors.len(), self.warnings.len());
        let _ = writeln!(text, "errors: {errors}, warnings: {warnings}");
        text
    }

    fn json(&self) -> String {
        let setting = |setting: &Setting| json!({ "flag": setting.flag, "value": setting.value, "source": setting.source.to_string() });
        let settings: Vec<_> = self.settings.iter().map(setting).collect();
        let mut text = json!({ "settings": settings, "errors": self.errors, "warnings": self.warnings }).to_string();
        text.push('\n');
        text
    }
}

fn setting(reader: &Reader, flag: &'static str) -> Setting {
    let (value, source) = reader.value(flag);
    let value = match flag {
        TURN_SECRET | DATABASE_URL if value.is_empty() => "not set".to_owned(),
        TURN_SECRET | DATABASE_URL => "set".to_owned(),
        "plan" if value != reader.plan.name => format!("{} ({value})", reader.plan.name),
        _ => value,
    };
    Setting { flag, value, source }
}

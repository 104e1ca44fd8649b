//! All that was read, right or wrong: the settings with their sources, and what is to be said of them.
//!
//! `duet check-config` prints it; a server starts only with one without errors. Secrets are never in it.

use std::ffi::OsString;
use std::fmt::Write as _;

use clap::ArgMatches;
use serde_json::json;

use super::environment::{self, Variables};
use super::flags::{COMMAND, COMMANDS, DATABASE_URL, FLAGS, JSON, REDIS_URL, TURN_SECRET, is_live};
use super::plan::PLANS;
use super::reader::{Given, Reader, Source};
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
    /// A reload changes it; else a restart does.
    pub is_live: bool,
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
        Self::keeping(matches, system, Given::default())
    }

    /// Like `new`, but for the settings that must stay as they are.
    pub(super) fn keeping(matches: &ArgMatches, system: System, kept: Given) -> Self {
        let named = matches.get_one::<String>(COMMAND);
        let find = |named: &String| COMMANDS.iter().find(|(name, ..)| name == named);
        let command = named.and_then(find).map_or(Command::Serve, |(_, command, _)| *command);
        let is_json = matches.get_flag(JSON);
        let (found, errors, warnings) = (Map::default(), Vec::new(), Vec::new());
        let file = Variables::default();
        let mut reader = Reader { matches, file, kept, plan: PLANS[0], found, errors, warnings };
        environment::read(&mut reader);
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
        let refused = |errors: Vec<String>| errors.iter().map(|line| format!("duet: {line}\n")).collect();
        self.settled().map_err(|errors| ConfigExit::refusal(refused(errors)))
    }

    /// The same, with what is wrong line by line.
    pub(super) fn settled(self) -> Result<Config, Vec<String>> {
        if self.errors.is_empty() { Ok(Config { warnings: self.warnings, ..self.config }) } else { Err(self.errors) }
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
        for Setting { flag, value, source, is_live } in &self.settings {
            let flag = format!("--{flag}");
            let value = if value.is_empty() { "none" } else { value };
            let changes = if *is_live { "reload" } else { "restart" };
            let _ = writeln!(text, "{flag:flags$}  {value:values$}  {changes:7}  {source}");
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
        let setting = |setting: &Setting| {
            let Setting { flag, value, source, is_live } = setting;
            json!({ "flag": flag, "value": value, "source": source.to_string(), "reload": is_live })
        };
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
    Setting { flag, value, source, is_live: is_live(flag) }
}

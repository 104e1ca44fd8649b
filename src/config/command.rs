//! The command line: the table of settings as clap knows it, and what is said to who misuses it.
//!
//! Built once per start. Not here: what the settings become (`config.rs`).

use clap::error::ErrorKind;
use clap::{Arg, ArgAction};

use super::ConfigExit;
use super::flags::{COMMAND, COMMANDS, FLAGS, Flag, JSON, LIVE, REDIS_URL};

/// Flag, variable, default and meaning of every setting, as the command line knows them.
pub fn settings_table() -> Vec<(String, String, String, String)> {
    let row = |flag: &Flag| {
        (format!("--{}", flag.name), flag.variable.to_owned(), flag.default.to_owned(), flag.help.to_owned())
    };
    FLAGS.iter().filter(|flag| flag.name != REDIS_URL).map(row).collect()
}

/// The command line, made of the table.
pub(super) fn command() -> clap::Command {
    let arg = |flag: &Flag| {
        let arg = Arg::new(flag.name).long(flag.name).env(flag.variable).help(flag.help).value_name("VALUE");
        let arg = arg.hide_env_values(true);
        let arg = arg.hide(flag.name == REDIS_URL);
        if flag.default.is_empty() { arg } else { arg.default_value(flag.default) }
    };
    let lines: String = COMMANDS.iter().map(|(name, _, help)| format!("  {name:13} {help}\n")).collect();
    let live = LIVE.map(|name| format!("--{name}")).join(", ");
    clap::Command::new("duet")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Self-hosted backend of one-to-one video chat")
        .after_help(format!(
            "Commands, besides serving:\n{lines}check-config and doctor print for programs with --json.\n\n\
             Every setting is also read from the environment variable named with it, or from a line of the file that \
             --env-file names; a flag beats the variable, the variable the line.\n\n\
             SIGHUP reads that file, and those of secrets, again. It changes {live}; the others need a restart."
        ))
        .arg(
            Arg::new(COMMAND)
                .value_name("COMMAND")
                .value_parser(COMMANDS.map(|(name, ..)| name))
                .hide_possible_values(true)
                .help("What to do instead of serving, see below"),
        )
        .arg(
            Arg::new(JSON)
                .long(JSON)
                .action(ArgAction::SetTrue)
                .hide(true)
                .help("Print for programs (check-config, doctor)"),
        )
        .args(FLAGS.iter().map(arg))
}

/// What clap has to say: help and version as they are, an error in one line.
pub(super) fn misread(error: &clap::Error) -> ConfigExit {
    let text = error.render().to_string();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return ConfigExit::answer(text, 0);
    }
    let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
    ConfigExit::refusal(format!("duet: {line} (see --help)\n"))
}

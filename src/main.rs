//! The duet server: arguments, configuration, run, exit code.

use std::io::Write as _;
use std::process::exit;

use duet::config::{Command, ConfigExit, Reading};
use duet::{boot, doctor};

fn main() {
    let reading = Reading::from_args(std::env::args_os()).unwrap_or_else(|end| finish(&end));
    match reading.command {
        Command::CheckConfig => finish(&reading.report()),
        Command::Doctor => finish(&doctor::examine(&reading)),
        Command::Healthcheck => finish(&doctor::ready::check(reading.config_as_read())),
        Command::Serve | Command::Migrate => {}
    }
    let config = reading.config().unwrap_or_else(|end| finish(&end));
    if let Err(reason) = boot::run(&config) {
        eprintln!("duet: {reason}");
        exit(1);
    }
}

/// What went wrong goes to standard error, unless it is the answer to what was asked.
fn finish(end: &ConfigExit) -> ! {
    let _ = if end.is_answer {
        std::io::stdout().write_all(end.text.as_bytes())
    } else {
        std::io::stderr().write_all(end.text.as_bytes())
    };
    exit(end.code);
}

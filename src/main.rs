//! The duet server: arguments, configuration, run, exit code.

use std::io::Write as _;
use std::process::exit;

use duet::boot;
use duet::config::Config;

fn main() {
    let config = Config::from_args(std::env::args_os()).unwrap_or_else(|end| {
        let _ = match end.code {
            0 => std::io::stdout().write_all(end.text.as_bytes()),
            _ => std::io::stderr().write_all(end.text.as_bytes()),
        };
        exit(end.code);
    });
    if let Err(reason) = boot::run(&config) {
        eprintln!("duet: {reason}");
        exit(1);
    }
}

//! Measures duet side by side with what people would use instead.
//!
//! `cargo run --release -p duet-bench -- list` names the scenarios and their servers; one of them, or `all`, is run by its
//! name. `run.rs` walks cases, rounds and servers; `net/` is the load generator; `scenario/` says what is sent,
//! `life/` for the two that play a whole site.
//!
//! One thread does everything, on a core of its own: what is measured has the others.

mod browser;
mod clock;
mod crowd;
mod database;
mod group;
mod install;
mod latency;
mod life;
mod load;
mod machine;
mod measure;
mod net;
mod plot;
mod process;
mod progress;
mod report;
mod run;
mod sample;
mod scenario;
mod servers;
mod table;
mod tally;
mod tree;
mod wrk;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::run::Options;
use crate::scenario::{ALL, Listed};

/// Measures duet side by side with what people would use instead.
#[derive(Debug, Parser)]
struct Arguments {
    /// A scenario, `all` of them, or `list` them
    scenario: String,
    /// Servers to measure, comma-separated, instead of the scenario's own; of `all` scenarios each takes those that it can
    #[arg(long, value_delimiter = ',')]
    servers: Option<Vec<String>>,
    /// Only cases whose name in the results has these words
    #[arg(long)]
    cases: Option<String>,
    /// Times that every case is measured on every server [default: 3, with --quick 1]
    #[arg(long)]
    rounds: Option<usize>,
    /// Length of a window of measurement [default: the scenario's]
    #[arg(long)]
    seconds: Option<f64>,
    /// Only whether the instrument works: few connections, short windows, duet only
    #[arg(long)]
    quick: bool,
    /// The server whose multiples are shown
    #[arg(long)]
    baseline: Option<String>,
    /// Clients do not offer permessage-deflate, which browsers do
    #[arg(long)]
    no_deflate: bool,
    /// Folder for the results [default: target/bench/SCENARIO]
    #[arg(long)]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match start(&arguments) {
        Ok(failures) if failures.is_empty() => ExitCode::SUCCESS,
        Ok(failures) => {
            failures.iter().for_each(|failure| eprintln!("failed: {failure}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("duet-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Does what the command line says; gives what has failed while it was measured.
fn start(arguments: &Arguments) -> Result<Vec<String>, String> {
    match arguments.scenario.as_str() {
        "list" => {
            ALL.iter().for_each(|listed| {
                println!("{}\n    {}\n    servers: {}", listed.name, listed.about, listed.servers.join(", "));
            });
            Ok(Vec::new())
        }
        "all" => {
            let mut failures = Vec::new();
            for listed in ALL {
                let mut options = options(arguments, listed)?;
                if let Some(servers) = &mut options.servers {
                    servers.retain(|server| (listed.takes)(server));
                    if servers.is_empty() {
                        continue;
                    }
                }
                failures.extend((listed.run)(options)?);
            }
            Ok(failures)
        }
        name => {
            let listed = ALL.iter().find(|listed| listed.name == name);
            let listed = listed.ok_or_else(|| format!("there is no scenario {name:?}; `list` names them"))?;
            (listed.run)(options(arguments, listed)?)
        }
    }
}

/// What the command line asks of one scenario.
fn options(arguments: &Arguments, listed: &Listed) -> Result<Options, String> {
    let found = |names: &Vec<String>| names.iter().map(|name| servers::find(name)).collect::<Result<Vec<_>, _>>();
    let out = arguments.out.as_ref().map(|folder| match arguments.scenario.as_str() {
        "all" => folder.join(listed.name),
        _ => folder.clone(),
    });
    Ok(Options {
        servers: arguments.servers.as_ref().map(found).transpose()?,
        cases: arguments.cases.clone(),
        rounds: arguments.rounds.unwrap_or(if arguments.quick { 1 } else { 3 }).max(1),
        seconds: arguments.seconds,
        is_quick: arguments.quick,
        baseline: arguments.baseline.as_deref().map(servers::find).transpose()?,
        offers_deflate: !arguments.no_deflate,
        out: out.unwrap_or_else(|| tree::target().join("bench").join(listed.name)),
    })
}

//! The runner: every case, round and server in turn (A B A B …), each on a server that was started for it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::path::PathBuf;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::database::Postgres;
use crate::install;
use crate::machine::{Machine, commit, date};
use crate::measure::Watched;
use crate::plot;
use crate::process::{Cores, Server};
use crate::progress::Progress;
use crate::report::{Measured, Metric, Report};
use crate::servers::{Bound, Database, Entry, Job};
use crate::table;
use crate::tree::TemporaryFolder;

/// What the command line asks for.
#[derive(Debug, Clone)]
pub struct Options {
    /// None: the scenario's own.
    pub servers: Option<Vec<&'static Entry>>,
    /// Only cases with this in their names.
    pub cases: Option<String>,
    pub rounds: usize,
    /// Length of a window; none: the scenario's own.
    pub seconds: Option<f64>,
    /// Only whether the instrument works: one round, short windows, few connections.
    pub is_quick: bool,
    pub baseline: Option<&'static Entry>,
    /// Clients offer permessage-deflate as browsers do.
    pub offers_deflate: bool,
    pub out: PathBuf,
}

/// Something to measure servers by.
pub trait Scenario {
    /// One set of circumstances; its text names it in the results.
    type Case: Display;

    /// On the command line, and the folder of its results.
    const NAME: &'static str;
    /// One sentence or two for `list` and the results.
    const ABOUT: &'static str;
    /// Measured unless others are named, in this order.
    const SERVERS: &'static [&'static str];
    /// The same with `--quick`.
    const QUICK_SERVERS: &'static [&'static str] = &["duet-uring"];
    /// Whose multiples are shown, if it is measured and no other is asked for.
    const BASELINE: &'static str;
    /// In the order of the table's columns.
    const METRICS: &'static [Metric];
    /// Length of a window, seconds, unless told otherwise.
    const SECONDS: f64 = 5.0;

    /// Whether it can measure this server.
    fn takes(entry: &Entry) -> bool {
        entry.job == Job::Product
    }

    /// Measured one after the other, the servers taking turns within each.
    fn cases(&self, options: &Options) -> Vec<Self::Case>;

    /// Further arguments of duet in this case.
    fn duet_arguments(&self, _case: &Self::Case) -> Vec<String> {
        Vec::new()
    }

    /// What duet is bounded by in this case.
    fn bound(&self, _case: &Self::Case) -> Bound {
        Bound::Nothing
    }

    /// Measures one fresh server.
    ///
    /// # Errors
    /// Why there are no figures. It stands in the results, and the run goes on.
    fn measure(&self, bench: &Bench, case: &Self::Case, server: &mut Server) -> Result<Measured, String>;
}

/// What a measurement may use besides its server.
pub struct Bench {
    /// What the command line asked for.
    pub options: Options,
    /// Length of a window, seconds.
    pub seconds: f64,
    pub cores: Cores,
    pub postgres: Option<Postgres>,
    /// To say what a measurement is at.
    pub progress: Progress,
    folder: TemporaryFolder,
}

impl Bench {
    /// What windows of this server sample.
    pub fn watch(&self, server: &Server) -> Watched<'_> {
        let database = self.postgres.as_ref().filter(|_| server.entry.database == Database::Postgres);
        Watched { pid: server.pid(), cores: server.entry.cores, database }
    }
}

/// Runs a whole scenario and writes its results. Says what has failed.
///
/// # Errors
/// Something is missing without which nothing can be measured.
pub fn run<S: Scenario>(scenario: &S, options: Options) -> Result<Vec<String>, String> {
    let servers = servers_of::<S>(&options)?;
    install::build(&servers)?;
    let text = |error: std::io::Error| error.to_string();
    raise_file_limit();
    let cores = Cores::usable().map_err(text)?;
    Cores::pin(cores.generator()).map_err(text)?;
    let folder = TemporaryFolder::new().map_err(text)?;
    let needs_postgres = servers.iter().any(|entry| entry.database == Database::Postgres);
    let postgres = needs_postgres.then(|| Postgres::start(&folder.path().join("postgres"), &cores)).transpose()?;
    let cases = cases_of(scenario, &options)?;
    let seconds = options.seconds.unwrap_or(if options.is_quick { 2.0 } else { S::SECONDS });
    let mut report = report_of::<S>(&options, &servers, &cores, seconds);
    let progress = Progress::new(cases.len() * options.rounds * servers.len());
    fs::create_dir_all(&options.out).map_err(text)?;
    let mut bench = Bench { options, seconds, cores, postgres, progress, folder };
    for case in &cases {
        for round in 0..bench.options.rounds {
            for entry in &servers {
                bench.progress.step(format!("{}: {case}, round {}, {}", S::NAME, round + 1, entry.name));
                let outcome = measure_one(scenario, &bench, case, entry);
                report.add(&case.to_string(), entry.name, outcome);
            }
        }
        write(&report, &bench.options.out)?;
    }
    bench.progress.end();
    // The next scenario looks again at what it may use.
    Cores::pin(bench.cores.all()).map_err(text)?;
    println!("{}", table::markdown(&report));
    println!("Written to {}", bench.options.out.display());
    Ok(report.failures().collect())
}

/// One server, from its start to its end. What goes wrong with it is its own failure, and not the run's.
fn measure_one<S: Scenario>(
    scenario: &S,
    bench: &Bench,
    case: &S::Case,
    entry: &'static Entry,
) -> Result<Measured, String> {
    let folder = bench.folder.path().join("server");
    let extra = scenario.duet_arguments(case);
    let bound = scenario.bound(case);
    let mut server = Server::start(entry, folder, &bench.cores, bench.postgres.as_ref(), bound, extra)?;
    let mut measured = scenario.measure(bench, case, &mut server)?;
    if !server.is_alive() {
        return Err(format!("it ended while it was measured; it printed:\n{}", server.log()));
    }
    if bench.cores.are_shared(entry.cores) {
        measured.note("server and generator share a core");
    }
    Ok(measured)
}

/// Those that were named, or the scenario's own.
fn servers_of<S: Scenario>(options: &Options) -> Result<Vec<&'static Entry>, String> {
    if let Some(servers) = &options.servers {
        return Ok(servers.clone());
    }
    let names = if options.is_quick { S::QUICK_SERVERS } else { S::SERVERS };
    names.iter().map(|name| crate::servers::find(name)).collect()
}

/// Those that were asked for by their names, or all.
fn cases_of<S: Scenario>(scenario: &S, options: &Options) -> Result<Vec<S::Case>, String> {
    let mut cases = scenario.cases(options);
    let Some(words) = &options.cases else { return Ok(cases) };
    let names: Vec<_> = cases.iter().map(ToString::to_string).collect();
    cases.retain(|case| case.to_string().contains(words));
    match cases.is_empty() {
        false => Ok(cases),
        true => Err(format!("no case of {} has {words:?} in its name: {}", S::NAME, names.join("; "))),
    }
}

fn report_of<S: Scenario>(options: &Options, servers: &[&'static Entry], cores: &Cores, seconds: f64) -> Report {
    let baseline = options.baseline.map_or(S::BASELINE, |entry| entry.name);
    let baseline = servers.iter().map(|entry| entry.name).find(|name| *name == baseline);
    let settings = BTreeMap::from([
        ("rounds", options.rounds.to_string()),
        ("seconds", seconds.to_string()),
        ("deflate", if options.offers_deflate { "offered" } else { "not offered" }.to_owned()),
        ("generator's core", format!("{:?}", cores.generator())),
        ("quick", options.is_quick.to_string()),
    ]);
    Report {
        scenario: S::NAME,
        about: S::ABOUT,
        commit: commit(),
        date: date(),
        machine: Machine::here(cores.count()),
        settings,
        baseline,
        metrics: S::METRICS.to_vec(),
        rows: Vec::new(),
    }
}

/// All files anew, after each case: what was measured is there if the run is stopped.
fn write(report: &Report, folder: &std::path::Path) -> Result<(), String> {
    let text = |error: std::io::Error| format!("{}: {error}", folder.display());
    report.write(&folder.join("results.json")).map_err(text)?;
    fs::write(folder.join("results.md"), table::markdown(report)).map_err(text)?;
    plot::draw(report, folder).map(|_| ())
}

/// As many open files as the system allows, for this process and the servers.
fn raise_file_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// Connections that one process can hold here, with some descriptors left for other things.
pub fn connections_max() -> usize {
    const OTHER: u64 = 200;
    getrlimit(Resource::Nofile).maximum.map_or(usize::MAX, |files| files.saturating_sub(OTHER) as usize)
}

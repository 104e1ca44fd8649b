//! A server under test as a process: started on its cores and a free port, awaited, sampled, stopped.
//!
//! It dies with the runner (`setpriv --pdeathsig`), gets only the environment it needs, and logs into a file.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::clock::{MILLISECOND, SECOND, now, pause};
use crate::database::Postgres;
use crate::group::Group;
use crate::install;
use crate::sample::Memory;
use crate::servers::{Bound, DUET_ARGUMENTS, Database, Entry, Job};

const START: u64 = 20 * SECOND;
const STOP: u64 = 15 * SECOND;
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Lines of its log that are shown when a server does not start.
const LOG_LINES: usize = 15;
/// Of the runner's environment, what a server gets.
const PASSED_ON: [&str; 4] = ["PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH"];

/// Which cores do what.
#[derive(Debug, Clone)]
pub struct Cores(Vec<usize>);

impl Cores {
    /// The cores that this process may use.
    pub fn usable() -> io::Result<Self> {
        let set = sched_getaffinity(None)?;
        Ok(Self((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect()))
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The last is the generator's.
    pub fn generator(&self) -> &[usize] {
        &self.0[self.0.len() - 1..]
    }

    /// The first ones are the server's; it shares the generator's if it wants them all.
    fn server(&self, count: usize) -> &[usize] {
        &self.0[..count.min(self.0.len())]
    }

    /// Whether a server on so many cores and the generator are in each other's way.
    pub fn are_shared(&self, count: usize) -> bool {
        count >= self.0.len()
    }

    /// Lets the calling thread, and whatever it starts, run on these only.
    pub fn pin(cores: &[usize]) -> io::Result<()> {
        let mut set = CpuSet::new();
        cores.iter().for_each(|core| set.set(*core));
        Ok(sched_setaffinity(None, &set)?)
    }

    pub fn all(&self) -> &[usize] {
        &self.0
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    pub entry: &'static Entry,
    pub port: u16,
    child: Child,
    launch: Launch,
}

/// What it takes to start it, again on the same data.
#[derive(Debug)]
struct Launch {
    folder: PathBuf,
    cores: Cores,
    database_url: Option<String>,
    /// Further arguments.
    extra: Vec<String>,
    /// Bounds its memory.
    group: Option<Group>,
}

impl Server {
    /// Starts it in `folder`, which is made, within `bound` and with `extra` arguments if it is a duet, and waits until it
    /// serves.
    ///
    /// # Errors
    /// It does not start, or does not serve within 20 s: the end of its log. No group can be made for it.
    pub fn start(
        entry: &'static Entry,
        folder: PathBuf,
        cores: &Cores,
        postgres: Option<&Postgres>,
        bound: Bound,
        mut extra: Vec<String>,
    ) -> Result<Self, String> {
        let database_url = match entry.database {
            Database::Postgres => Some(postgres.ok_or("a Postgres is needed")?.fresh_database()?),
            Database::None => None,
        };
        fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let group = match bound {
            Bound::Memory(bytes) => Some(Group::new(bytes)?),
            Bound::Nothing | Bound::Connections(_) | Bound::Plan => None,
        };
        extra.extend(bound.arguments());
        let launch = Launch { folder, cores: cores.clone(), database_url, extra, group };
        let port = free_port().map_err(|error| error.to_string())?;
        let child = launch.spawn(entry, port)?;
        let mut server = Self { entry, port, child, launch };
        server.wait_until_it_serves()?;
        Ok(server)
    }

    /// Ends it and starts it again on its data and port: nothing is in its memory.
    ///
    /// # Errors
    /// As for `start`.
    pub fn restart(&mut self) -> Result<(), String> {
        self.stop();
        self.child = self.launch.spawn(self.entry, self.port)?;
        self.wait_until_it_serves()
    }

    /// Of the process that serves now; `restart` changes it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// As it is now.
    pub fn memory(&self) -> Memory {
        Memory::of(self.pid())
    }

    /// The group that bounds its memory.
    pub fn group(&self) -> Option<&Group> {
        self.launch.group.as_ref()
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The body of a short answer to a GET, on a connection of its own.
    pub fn get(&self, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let is_fine = head.starts_with("HTTP/1.1 200");
        is_fine.then(|| body.to_owned()).ok_or_else(|| io::Error::other(head.lines().next().unwrap_or_default()))
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        let text = fs::read_to_string(self.launch.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    /// A product serves when it says so itself; an echo when it can be connected to.
    fn wait_until_it_serves(&mut self) -> Result<(), String> {
        let deadline = now() + START;
        while now() < deadline && self.is_alive() {
            let serves = match self.entry.job {
                Job::Product => self.get("/health").is_ok(),
                Job::WebSocketEcho | Job::BytesEcho => TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok(),
            };
            if serves {
                return Ok(());
            }
            pause(LOOK_AGAIN);
        }
        let how = if self.is_alive() { format!("did not serve in {} s", START / SECOND) } else { "ended".to_owned() };
        Err(format!("{} {how}; it printed:\n{}", self.entry.name, self.log()))
    }

    /// Asks it to end, and kills it if it does not.
    fn stop(&mut self) {
        if self.is_alive() {
            self.signal(Signal::TERM);
        }
        let deadline = now() + STOP;
        while self.is_alive() && now() < deadline {
            pause(Duration::from_nanos(5 * MILLISECOND));
        }
        if self.is_alive() {
            self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid() as i32) {
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        let _ = fs::remove_dir_all(&self.launch.folder);
    }
}

impl Launch {
    /// Affinity is inherited: this thread takes the server's cores for as long as it starts it.
    fn spawn(&self, entry: &Entry, port: u16) -> Result<Child, String> {
        let why = |error: io::Error| format!("{}: {error}", entry.name);
        let mut command = command(entry, port, &self.folder, self.group.as_ref());
        command.envs(self.database_url.iter().map(|url| ("DATABASE_URL", url)));
        if entry.is_duet() {
            command.args(&self.extra);
        }
        let log = File::create(self.folder.join("log")).map_err(why)?;
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(why)?).stderr(log);
        Cores::pin(self.cores.server(entry.cores)).map_err(why)?;
        let child = command.spawn();
        Cores::pin(self.cores.generator()).map_err(why)?;
        child.map_err(why)
    }
}

fn command(entry: &Entry, port: u16, folder: &std::path::Path, group: Option<&Group>) -> Command {
    let (program, words) = install::command(entry.program);
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--"]).args(group.map(Group::enter).unwrap_or_default());
    command.arg(program).args(words).env_clear();
    let passed = PASSED_ON.iter().filter_map(|name| Some((*name, std::env::var_os(name)?)));
    command.envs(passed).env("PORT", port.to_string()).envs(entry.environment.iter().copied());
    if entry.is_duet() {
        command.args(DUET_ARGUMENTS).args(entry.arguments);
        command.arg(format!("--port={port}")).arg(format!("--data={}", folder.join("data").display()));
    }
    command
}

/// A port that is free now, below those that the kernel gives to clients.
fn free_port() -> io::Result<u16> {
    const RANGE: std::ops::Range<u16> = 10_000..32_000;
    let first = RANGE.start + (now() / 1_000 % u64::from(RANGE.end - RANGE.start)) as u16;
    let mut candidates = (first..RANGE.end).chain(RANGE.start..first);
    candidates
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .ok_or_else(|| io::Error::other("no port is free"))
}

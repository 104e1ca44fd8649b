//! The servers that can be measured: one entry each, with how it is built and how it is started.
//!
//! Every one listens on 127.0.0.1 at a port it is told. Starting and stopping is `process.rs`'s, building `install.rs`'s.

/// What a server does, as far as scenarios care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// The product: accounts, queue, calls, by HTTP and Socket.IO.
    Product,
    /// Every WebSocket message comes back.
    WebSocketEcho,
    /// Every byte comes back.
    BytesEcho,
}

/// Where a server's program comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// duet itself.
    Duet,
    /// duet with an echo in place of the product.
    DuetConformance,
    /// A binary of `bench/peers/rust`.
    Peer(&'static str),
    /// A script of `bench/peers/node`.
    Node(&'static str),
}

/// The Postgres that a server keeps its data in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Database {
    None,
    Postgres,
}

/// One server under test.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    pub name: &'static str,
    pub job: Job,
    pub program: Program,
    /// Besides what every server of this program gets.
    pub arguments: &'static [&'static str],
    pub environment: &'static [(&'static str, &'static str)],
    /// Cores it is pinned to. With more than one it shares the generator's.
    pub cores: usize,
    pub database: Database,
}

/// What every duet is started with: no limit on one address, which a load from one machine would meet.
pub const DUET_ARGUMENTS: &[&str] = &[
    "--host=127.0.0.1",
    "--trusted-proxies=127.0.0.0/8",
    "--paywall=off",
    "--signups-per-hour=0",
    "--logins-per-hour=0",
    "--api-per-minute=0",
    "--address-connections-max=0",
    "--event-rate=0",
];
/// And unless its memory is bounded: no cache that is too small.
const CACHES: [&str; 2] = ["--user-cache-max=200000", "--session-cache-max=200000"];
const CONNECTIONS_MAX: usize = 200_000;

/// What a scenario bounds a duet by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    Nothing,
    /// Connections that it may hold.
    Connections(usize),
    /// Its plan for what the machine has.
    Plan,
    /// Its plan for the control group that it runs in, of so many bytes.
    Memory(u64),
}

impl Bound {
    /// Arguments that say so.
    pub fn arguments(self) -> Vec<String> {
        let connections = match self {
            Self::Nothing => CONNECTIONS_MAX,
            Self::Connections(connections) => connections,
            Self::Plan | Self::Memory(_) => return Vec::new(),
        };
        let caches = CACHES.iter().map(|argument| (*argument).to_owned());
        caches.chain([format!("--connections-max={connections}")]).collect()
    }
}

const URING: &[&str] = &["--runtime=uring", "--shards=1"];
const EPOLL: &[&str] = &["--runtime=epoll", "--shards=1"];
/// Without permessage-deflate, which browsers use for every message where a server agrees to it, and which not every peer
/// has.
const URING_PLAIN: &[&str] = &["--runtime=uring", "--shards=1", "--deflate-level=0"];
const EPOLL_PLAIN: &[&str] = &["--runtime=epoll", "--shards=1", "--deflate-level=0"];
const URING_2: &[&str] = &["--runtime=uring", "--shards=2"];
const EPOLL_2: &[&str] = &["--runtime=epoll", "--shards=2"];
/// The reference design refuses more than 1,200 connections; here the peers take what comes.
const UNLIMITED: (&str, &str) = ("CONNECTION_LIMIT", "200000");
const PLAIN: &[(&str, &str)] = &[("PER_MESSAGE_DEFLATE", "off"), UNLIMITED];
const REFERENCE: &[(&str, &str)] = &[("PER_MESSAGE_DEFLATE", "on"), ("REFERENCE", "on"), UNLIMITED];

pub static SERVERS: &[Entry] = &[
    duet("duet-uring", URING, 1, Database::None),
    duet("duet-epoll", EPOLL, 1, Database::None),
    duet("duet-uring-plain", URING_PLAIN, 1, Database::None),
    duet("duet-epoll-plain", EPOLL_PLAIN, 1, Database::None),
    duet("duet-uring-2", URING_2, 2, Database::None),
    duet("duet-epoll-2", EPOLL_2, 2, Database::None),
    duet("duet-uring-pg", URING, 1, Database::Postgres),
    duet("duet-epoll-pg", EPOLL, 1, Database::Postgres),
    peer("node", Job::Product, Program::Node("server.js"), PLAIN),
    peer("node-reference", Job::Product, Program::Node("server.js"), REFERENCE),
    peer("socketioxide", Job::Product, Program::Peer("peer-socketioxide"), &[UNLIMITED]),
    Entry { arguments: URING, ..peer("duet-echo-uring", Job::WebSocketEcho, Program::DuetConformance, &[]) },
    Entry { arguments: EPOLL, ..peer("duet-echo-epoll", Job::WebSocketEcho, Program::DuetConformance, &[]) },
    peer("ws", Job::WebSocketEcho, Program::Node("raw.js"), &[]),
    peer("tokio-ws", Job::WebSocketEcho, Program::Peer("peer-tokio-ws"), &[]),
    peer("uwebsockets", Job::WebSocketEcho, Program::Peer("peer-uwebsockets"), &[]),
    peer("epoll-floor", Job::BytesEcho, Program::Peer("peer-epoll"), &[]),
    peer("uring-floor", Job::BytesEcho, Program::Peer("peer-uring"), &[]),
];

const fn duet(name: &'static str, arguments: &'static [&'static str], cores: usize, database: Database) -> Entry {
    Entry { name, job: Job::Product, program: Program::Duet, arguments, environment: &[], cores, database }
}

/// A server on one core. Products among the peers need Postgres.
const fn peer(
    name: &'static str,
    job: Job,
    program: Program,
    environment: &'static [(&'static str, &'static str)],
) -> Entry {
    let database = if matches!(job, Job::Product) { Database::Postgres } else { Database::None };
    Entry { name, job, program, arguments: &[], environment, cores: 1, database }
}

impl Entry {
    /// Whether the program is built from duet's own sources.
    pub fn is_duet(&self) -> bool {
        matches!(self.program, Program::Duet | Program::DuetConformance)
    }
}

/// The entry of this name.
pub fn find(name: &str) -> Result<&'static Entry, String> {
    SERVERS.iter().find(|entry| entry.name == name).ok_or_else(|| {
        let names: Vec<&str> = SERVERS.iter().map(|entry| entry.name).collect();
        format!("there is no server {name:?}; there are {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_is_found_by_its_name_alone() {
        for entry in SERVERS {
            assert!(std::ptr::eq(find(entry.name).unwrap(), entry));
        }
        assert!(find("apache").unwrap_err().contains("duet-uring"));
    }
}

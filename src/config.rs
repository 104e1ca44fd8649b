//! Every setting: its flag, its environment variable, its default, and what it becomes in the layers' own settings.
//!
//! The only place that reads arguments and environment; `boot` reads the result at the start, and again when it is asked to.
//! A flag beats its variable, a variable the same one in the file of variables, that a file with a secret, and any of
//! them the plan; a blank value counts as none. All that is wrong is told at once, one line each. Not here: what the
//! settings mean.

mod checks;
mod command;
mod environment;
mod flags;
pub mod plan;
mod reader;
mod reading;
mod reload;
mod secrets;
mod system;

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

pub use self::command::settings_table;
pub use self::flags::Command;
pub use self::reader::Source;
pub use self::reading::{Reading, Setting};
pub use self::reload::Reload;
pub use self::system::System;

use self::command::{command, misread};
use self::flags::{ADDRESS_CONNECTIONS, DATABASE_URL, TURN_SECRET};
use self::plan::Plan;
use self::reader::{
    CONNECTIONS_TOP, Reader, connections, count, filter, limit, metrics, network, origin, parsed, path, scheme, site,
    switch,
};
use self::reload::Origin;
use crate::api::demo::Demo;
use crate::api::settings::TURN_TTL_S;
use crate::api::{Limits, TurnSettings};
use crate::base::{Time, limits};
use crate::conn::{Allowance, Allowances};
use crate::runtime::Choice;
use crate::runtime::probe::Probe;
use crate::store::postgres::Address;
use crate::store::{journal, postgres, sqlite};
use crate::telemetry::logs;
use crate::telemetry::manager::Thresholds;
use crate::wire::deflate::Policy;
use crate::wire::encoding;
use crate::wire::forwarded::AddressHeader;
use crate::{api, conn, domain, hashing, shard, store};

/// All settings, checked. Times in the unit that the name ends with; a rate of 0 is no limit.
pub struct Config {
    /// What `auto` stands for.
    pub plan: Plan,
    pub host: IpAddr,
    pub port: u16,
    /// Without a path or slash at the end.
    pub public_url: Option<String>,
    pub allowed_origins: Vec<String>,
    pub trusted_proxies: Vec<IpNet>,
    pub address_header: AddressHeader,
    pub proxy_protocol: bool,
    /// `production` and `development` mean something, other names nothing.
    pub environment: String,
    /// The folder of the embedded database, or of the journal.
    pub data: PathBuf,
    /// `None`: the embedded database.
    pub database: Option<Address>,
    /// At least 2.
    pub database_pool_max: usize,
    /// To connect, and to wait for a connection.
    pub database_timeout_ms: u64,
    /// Of one request.
    pub database_query_timeout_ms: u64,
    /// 0: no journal.
    pub journal_mib: u64,
    /// Only bring the schema up to date.
    pub migrates_only: bool,
    pub paywall: bool,
    /// Serve the page at `/demo`.
    pub demo: bool,
    pub shards: u16,
    pub runtime: Choice,
    pub turn_urls: Vec<String>,
    /// Not empty if there are TURN URLs.
    pub turn_secret: String,
    pub stun_urls: Vec<String>,
    pub limits: Limits,
    /// People in one answer of the queue.
    pub queue_list_max: usize,
    /// Of all clients, on all shards; over it new ones are turned away.
    pub connections_max: usize,
    /// Of one address; 0 is any number.
    pub address_connections_max: usize,
    /// Per second, on all shards.
    pub accept_rate: u32,
    /// Living ones of one user; over it the oldest is told and closed.
    pub user_connections_max: usize,
    /// Of one connection.
    pub event_allowances: Allowances,
    pub ping_interval_ms: u64,
    pub ping_timeout_ms: u64,
    pub unbound_timeout_ms: u64,
    pub message_bytes_max: usize,
    /// Of one client; two messages fit.
    pub outbox_bytes_max: usize,
    /// Without a slash at the end.
    pub socket_path: String,
    /// 0 is none.
    pub deflate_level: u8,
    pub deflate_threshold: usize,
    pub deflate_context_takeover: bool,
    /// Speak what protocol suites expect instead of the product; no setting, for the tests' own server.
    pub is_conformance_target: bool,
    /// 1 to 9; 0 compresses no response.
    pub http_compression_level: u8,
    /// Bytes of the smallest body that is compressed.
    pub http_compression_threshold: usize,
    /// Of the process; each shard has its part.
    pub user_cache_max: usize,
    /// The same.
    pub session_cache_max: usize,
    pub sweep_seconds: u64,
    /// 0 is for ever.
    pub history_keep_days: u64,
    /// Bytes that the process should stay within, if anything says so.
    pub memory_limit: Option<u64>,
    pub memory_thresholds: Thresholds,
    pub memory_seconds: u64,
    pub hash_threads: u16,
    /// Of one hash; argon2 needs `hash_threads` times as much.
    pub hash_memory_kib: u32,
    /// Passwords that wait; over it people are asked to come back.
    pub hash_queue: usize,
    /// Requests that wait; over it they fail as if the store were down.
    pub store_queue: usize,
    pub store_cache_kib: u32,
    /// A filter of `tracing_subscriber`.
    pub log: String,
    pub log_format: logs::Format,
    /// What a start tells, one line each.
    pub warnings: Vec<String>,
    pub metrics: MetricsAddress,
    pub drain_seconds: u64,
    pub resume_seconds: u64,
    origin: Origin,
}

/// Where metrics are served.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum MetricsAddress {
    Off,
    /// On loopback, at a port that follows from the server's own.
    #[default]
    Auto,
    At(SocketAddr),
}

/// What to print instead of serving, and with which code to end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigExit {
    /// Ends with a newline.
    pub text: String,
    /// 0 if all is well, 1 if something is ill, 2 if settings are wrong.
    pub code: i32,
    /// It is what was asked for, and belongs to standard output.
    pub is_answer: bool,
}

impl ConfigExit {
    fn refusal(text: String) -> Self {
        Self { text, code: 2, is_answer: false }
    }

    /// What a command was asked to print.
    pub fn answer(text: String, code: i32) -> Self {
        Self { text, code, is_answer: true }
    }
}

impl Config {
    /// Reads arguments, the program's name first, and for what they leave open the environment.
    ///
    /// # Errors
    /// Help or version, if asked for; else every setting that is wrong, one line each.
    pub fn from_args(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Self, ConfigExit> {
        Reading::from_args(args)?.config()
    }

    /// How the shards are set, of which there are `shards`.
    pub fn shard_settings(&self, probe: &Probe, shards: u16, started_at: Time) -> shard::Settings {
        let part = |max: usize| max.div_ceil(usize::from(shards));
        shard::Settings {
            conn: Arc::new(self.conn_settings()),
            domain: self.domain_settings(),
            api: self.api_settings(probe, shards, started_at),
            encoding: self.encoding_settings(),
            accept_rate: self.accept_rate,
            address_connections_max: self.address_connections_max,
            user_cache_max: part(self.user_cache_max),
            session_cache_max: part(self.session_cache_max),
            sweep: Duration::from_secs(self.sweep_seconds),
            history_keep_ms: (self.history_keep_days > 0).then_some(self.history_keep_days * DAY_MS),
            drain_ms: self.drain_seconds * 1000,
        }
    }

    /// Heartbeats and proxies; the rest of a connection's bounds is fixed.
    fn conn_settings(&self) -> conn::Settings {
        conn::Settings {
            ping_interval_ms: self.ping_interval_ms,
            ping_timeout_ms: self.ping_timeout_ms,
            unbound_timeout_ms: self.unbound_timeout_ms,
            message_bytes_max: self.message_bytes_max,
            outbox_bytes_max: self.outbox_bytes_max,
            engine_path: self.socket_path.clone(),
            deflate: Policy { level: self.deflate_level, context_takeover: self.deflate_context_takeover },
            deflate_bytes_min: self.deflate_threshold,
            allowances: self.event_allowances,
            is_conformance_target: self.is_conformance_target,
            trusted_proxies: self.trusted_proxies.clone(),
            address_header: self.address_header,
            proxy_protocol: self.proxy_protocol,
            ..conn::Settings::default()
        }
    }

    /// The paywall, and the bounds of what one user may do over sockets.
    fn domain_settings(&self) -> domain::Settings {
        domain::Settings {
            paywall: self.paywall,
            user_connections_max: self.user_connections_max,
            resume_ms: self.resume_seconds * 1000,
        }
    }

    /// What the endpoints decide by, and what `/health` tells.
    fn api_settings(&self, probe: &Probe, shards: u16, started_at: Time) -> api::Settings {
        api::Settings {
            allowed_origins: self.allowed_origins.clone(),
            public_url: self.public_url.clone(),
            production: self.is_production(),
            development: self.environment == "development",
            environment: self.environment.clone(),
            paywall: self.paywall,
            demo: self.demo.then(|| Arc::new(Demo::new(self.encoding_settings()))),
            turn: TurnSettings { urls: self.turn_urls.clone(), secret: self.turn_secret.clone(), ttl_s: TURN_TTL_S },
            stun_urls: self.stun_urls.clone(),
            limits: self.limits,
            queue_list_max: self.queue_list_max,
            store: self.store_description(),
            runtime: format!("{} ({})", probe.kind, probe.reason),
            shards: usize::from(shards),
            connections_max: self.connections_max,
            started_at,
        }
    }

    /// Which responses are compressed, and how much.
    fn encoding_settings(&self) -> encoding::Settings {
        encoding::Settings { level: self.http_compression_level, bytes_min: self.http_compression_threshold }
    }

    /// How the store is set. To migrate needs no journal, which belongs to the server that runs meanwhile.
    pub fn store_settings(&self) -> store::Settings {
        if let Some(address) = &self.database {
            return store::Settings::Postgres(Box::new(postgres::Settings {
                address: address.clone(),
                queue_len_max: self.store_queue,
                connections: self.database_pool_max,
                connect_ms_max: self.database_timeout_ms,
                query_ms_max: self.database_query_timeout_ms,
                journal: (self.journal_mib > 0 && !self.migrates_only).then(|| journal::Settings {
                    folder: self.data.clone(),
                    queue_len_max: self.store_queue,
                    bytes_max: self.journal_mib * 1024 * 1024,
                }),
            }));
        }
        let usual = sqlite::Settings::new(&self.data);
        let settings = sqlite::Settings { queue_len_max: self.store_queue, cache_kib: self.store_cache_kib, ..usual };
        store::Settings::Sqlite(settings)
    }

    /// Whether this server is in public use.
    pub fn is_production(&self) -> bool {
        self.environment == PRODUCTION
    }

    /// Which store keeps the data, in words without secrets.
    pub fn store_description(&self) -> String {
        if self.database.is_some() { "postgres" } else { "sqlite" }.to_owned()
    }

    /// How the pool that hashes passwords is set.
    pub fn hashing_settings(&self) -> hashing::Settings {
        hashing::Settings {
            threads: usize::from(self.hash_threads),
            queue_len_max: self.hash_queue,
            memory_kib: self.hash_memory_kib,
            ..hashing::Settings::default()
        }
    }
}

/// Reads and checks every setting. What is wrong is noted in `reader`; its field then holds anything.
fn read(reader: &mut Reader, system: &System, command: Command) -> Config {
    let (plan, memory_limit) = resolve(reader, system);
    let config = Config {
        plan,
        host: reader.one("host", "must be an IP address", parsed).unwrap_or(IpAddr::from([0, 0, 0, 0])),
        port: reader.number("port", 0..=65_535),
        public_url: reader.one("public-url", "must be http(s)://host without a path", site),
        allowed_origins: reader.list("allowed-origins", "must be of the form https://host, without a path", origin),
        trusted_proxies: reader.list("trusted-proxies", "must be an IP address or a network like 10.0.0.0/8", network),
        address_header: reader
            .one("client-address-header", "must be x-forwarded-for or x-real-ip", parsed)
            .unwrap_or_default(),
        proxy_protocol: reader.one("proxy-protocol", "must be on or off", switch).unwrap_or(false),
        environment: reader.text("environment"),
        data: reader.text("data").into(),
        database: reader.database(),
        database_pool_max: reader.number("database-pool-max", 2..=1_000),
        database_timeout_ms: reader.number("database-timeout", 100..=HOUR_MS),
        database_query_timeout_ms: reader.number("database-query-timeout", 100..=HOUR_MS),
        journal_mib: reader.number("journal-mib", 0..=1024 * 1024),
        migrates_only: command == Command::Migrate,
        paywall: reader.one("paywall", "must be on or off", switch).unwrap_or(false),
        demo: reader.one("demo", "must be on or off", switch).unwrap_or(true),
        shards: reader.one("shards", "must be auto or a number from 1 to 1024", count).unwrap_or(1),
        runtime: reader.one("runtime", "must be auto, uring or epoll", parsed).unwrap_or_default(),
        turn_urls: reader.list("turn-urls", "must start with turn: or turns:", |url| scheme(url, ["turn:", "turns:"])),
        turn_secret: reader.text(TURN_SECRET),
        stun_urls: reader.list("stun-urls", "must start with stun: or stuns:", |url| scheme(url, ["stun:", "stuns:"])),
        limits: rate_limits(reader),
        queue_list_max: reader.number("queue-list-max", 1..=limits::QUEUE_LIST_TOP as u64),
        connections_max: reader.number("connections-max", 1..=CONNECTIONS_TOP as u64),
        address_connections_max: reader
            .one(ADDRESS_CONNECTIONS, "must be auto or a number from 0", connections)
            .unwrap_or(0),
        accept_rate: reader.number("accept-rate", 0..=RATE_MAX),
        user_connections_max: reader.number("user-connections-max", 1..=1_000),
        event_allowances: event_allowances(reader),
        ping_interval_ms: reader.number("ping-interval-ms", 100..=HOUR_MS),
        ping_timeout_ms: reader.number("ping-timeout-ms", 100..=HOUR_MS),
        unbound_timeout_ms: reader.number("unbound-timeout-ms", 100..=HOUR_MS),
        message_bytes_max: reader.number("message-bytes-max", 1024..=MESSAGE_BYTES_TOP),
        outbox_bytes_max: reader.number::<usize>("outbox-kib", 1024..=1024 * 1024) * 1024,
        socket_path: reader.one("socket-path", "must start with / and name a path", path).unwrap_or_default(),
        deflate_level: reader.number("deflate-level", 0..=9),
        deflate_threshold: reader.number("deflate-threshold", 0..=MESSAGE_BYTES_TOP),
        deflate_context_takeover: reader.one("deflate-context-takeover", "must be on or off", switch).unwrap_or(false),
        is_conformance_target: false,
        http_compression_level: reader.number("http-compression-level", 0..=9),
        http_compression_threshold: reader.number("http-compression-threshold", 0..=1024 * 1024 * 1024),
        user_cache_max: reader.number("user-cache-max", 1..=100_000_000),
        session_cache_max: reader.number("session-cache-max", 1..=100_000_000),
        sweep_seconds: reader.number("sweep-seconds", 1..=86_400),
        history_keep_days: reader.number("history-keep-days", 0..=36_500),
        memory_limit,
        memory_thresholds: thresholds(reader),
        memory_seconds: reader.number("memory-seconds", 1..=86_400),
        hash_threads: reader.one("hash-threads", "must be auto or a number from 1 to 1024", count).unwrap_or(1),
        hash_memory_kib: reader.number("hash-memory-kib", 8..=4 * 1024 * 1024),
        hash_queue: reader.number("hash-queue", 1..=65_536),
        store_queue: reader.number("store-queue", 1..=1_000_000),
        store_cache_kib: reader.number("store-cache-kib", 64..=64 * 1024 * 1024),
        log: reader.one("log", "must be a level or a filter", filter).unwrap_or_default(),
        log_format: reader.one("log-format", "must be auto, text or json", parsed).unwrap_or_default(),
        metrics: reader.one("metrics", "must be auto, off or address:port", metrics).unwrap_or_default(),
        drain_seconds: reader.number("drain-seconds", 0..=3_600),
        resume_seconds: reader.number("resume-seconds", 0..=3_600),
        warnings: Vec::new(),
        origin: Origin::new(reader, system),
    };
    checks::check(config, reader, system)
}

fn rate_limits(reader: &mut Reader) -> Limits {
    Limits::new(
        reader.number("auth-failures", 0..=RATE_MAX),
        reader.number("signups-per-hour", 0..=RATE_MAX),
        reader.number("logins-per-hour", 0..=RATE_MAX),
        reader.number("api-per-minute", 0..=RATE_MAX),
        reader.number("turn-per-hour", 0..=RATE_MAX),
    )
}

/// A rate of 0 for events lifts every limit on them, as does one for chat or invites on these.
fn event_allowances(reader: &mut Reader) -> Allowances {
    let mut read = |rate, burst| Allowance {
        per_second: reader.number(rate, 0..=RATE_MAX),
        burst: reader.number(burst, 1..=RATE_MAX),
    };
    let usual = read("event-rate", "event-burst");
    let own = [read("chat-rate", "chat-burst"), read("invite-rate", "invite-burst")];
    let [chat, invites] = if usual.per_second == 0 { [usual; 2] } else { own };
    [usual, chat, invites, usual]
}

fn thresholds(reader: &mut Reader) -> Thresholds {
    Thresholds {
        warning: reader.number("memory-warning-percent", 1..=100),
        critical: reader.number("memory-critical-percent", 1..=100),
    }
}

/// Finds out what others depend on: the plan, what it makes of `auto`, and secrets from wherever they are.
fn resolve(reader: &mut Reader, system: &System) -> (Plan, Option<u64>) {
    let (plan, memory_limit) = plan_of(reader, system);
    for name in [TURN_SECRET, DATABASE_URL] {
        let secret = secrets::read(reader, flags::find(name));
        reader.found.insert(name, secret);
    }
    reader.resolve("shards", plan::shards(&plan, system));
    reader.resolve("hash-threads", plan::hash_threads(&plan, system));
    (plan, memory_limit)
}

/// The plan, and the memory that it was chosen for: what is set, else what the system allows, and of that no more than
/// a plan that was named.
fn plan_of(reader: &mut Reader, system: &System) -> (Plan, Option<u64>) {
    let set = reader.one("memory-limit-mib", "must be auto or a number from 1", limit).flatten();
    let memory = set.map(|mib| mib * 1024 * 1024).or(system.memory());
    let names = "must be auto, 512mb, 1gb, 2gb, 4gb or 8gb";
    let wanted = reader.one("plan", names, parsed).unwrap_or(plan::Wanted::Auto);
    reader.plan = wanted.plan(memory);
    let limit = match (wanted, memory) {
        (plan::Wanted::Named(plan), Some(memory)) if set.is_none() => Some(memory.min(plan.memory)),
        _ => memory,
    };
    if let (None, Some(limit)) = (set, limit) {
        reader.adjust("memory-limit-mib", format!("{} (auto)", limit >> 20));
    }
    (reader.plan, limit)
}

const PRODUCTION: &str = "production";
/// More than any rate needs.
const RATE_MAX: u64 = 1_000_000;
/// Longest message that may be allowed, bytes.
const MESSAGE_BYTES_TOP: u64 = 64 * 1024 * 1024;
/// Longest time of a connection's timers.
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

#[cfg(test)]
mod tests;

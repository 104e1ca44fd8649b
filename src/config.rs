//! Every setting: its flag, its environment variable, its default, and what it becomes in the layers' own settings.
//!
//! The only place that reads arguments and environment; `boot` reads the result, once. A flag beats its variable, and
//! a blank value counts as none. All that is wrong is told at once, one line each. Not here: what the settings mean.

mod flags;
mod reader;

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Arg, Command};
use ipnet::IpNet;

use self::flags::{COMMAND, FLAGS, Flag, MIGRATE, REDIS_URL, TURN_SECRET};
use self::reader::{Reader, count, filter, is_origin, limit, metrics, network, origin, parsed, path, scheme, switch};
use crate::api::demo::Demo;
use crate::api::settings::TURN_TTL_S;
use crate::api::{Limits, TurnSettings};
use crate::base::{Time, limits};
use crate::runtime::Choice;
use crate::runtime::probe::Probe;
use crate::store::postgres::Address;
use crate::store::{journal, postgres, sqlite};
use crate::telemetry::manager;
use crate::wire::deflate::Policy;
use crate::wire::encoding;
use crate::{api, conn, domain, hashing, shard, store};

/// All settings, checked. Times in the unit that the name ends with; a rate of 0 is no limit.
pub struct Config {
    pub host: IpAddr,
    pub port: u16,
    /// Without a path or slash at the end.
    pub public_url: Option<String>,
    pub allowed_origins: Vec<String>,
    pub trusted_proxies: Vec<IpNet>,
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
    /// `None`: one per usable core.
    pub shards: Option<u16>,
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
    /// Living ones of one user; over it the oldest is told and closed.
    pub user_connections_max: usize,
    /// Events of one connection per second, in the long run.
    pub event_rate: u32,
    /// Events of one connection at once.
    pub event_burst: u32,
    pub ping_interval_ms: u64,
    pub ping_timeout_ms: u64,
    pub unbound_timeout_ms: u64,
    pub message_bytes_max: usize,
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
    /// `None`: what the system allows.
    pub memory_limit_mib: Option<u64>,
    pub memory_seconds: u64,
    /// `None`: one per two usable cores, so that the others are there for signals at once.
    pub hash_threads: Option<u16>,
    /// Of one hash; argon2 needs `hash_threads` times as much.
    pub hash_memory_kib: u32,
    /// Passwords that wait; over it people are asked to come back.
    pub hash_queue: usize,
    /// Requests that wait; over it they fail as if the store were down.
    pub store_queue: usize,
    pub store_cache_kib: u32,
    /// A filter of `tracing_subscriber`.
    pub log: String,
    pub metrics: MetricsAddress,
    pub stop_seconds: u64,
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

/// Why there is no configuration: what to print, and with which code to end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigExit {
    /// Ends with a newline. For standard output when the code is 0, else for standard error.
    pub text: String,
    /// 0 after `--help` and `--version`, 2 after errors.
    pub code: i32,
}

impl Config {
    /// Reads arguments, the program's name first, and for what they leave open the environment.
    ///
    /// # Errors
    /// Help or version, if asked for; else every setting that is wrong, one line each.
    pub fn from_args(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Self, ConfigExit> {
        let matches = command().try_get_matches_from(args).map_err(|error| misread(&error))?;
        let mut reader = Reader { matches: &matches, errors: Vec::new() };
        let config = read(&mut reader);
        if reader.errors.is_empty() {
            return Ok(config);
        }
        Err(ConfigExit { text: reader.errors.iter().map(|line| format!("duet: {line}\n")).collect(), code: 2 })
    }

    /// How the shards are set, of which there are `shards`.
    pub fn shard_settings(&self, probe: &Probe, shards: u16, started_at: Time) -> shard::Settings {
        let part = |max: usize| max.div_ceil(usize::from(shards));
        shard::Settings {
            conn: Arc::new(self.conn_settings()),
            domain: self.domain_settings(),
            api: self.api_settings(probe, shards, started_at),
            encoding: self.encoding_settings(),
            connections_max: self.connections_max,
            user_cache_max: part(self.user_cache_max),
            session_cache_max: part(self.session_cache_max),
            sweep: Duration::from_secs(self.sweep_seconds),
            history_keep_ms: (self.history_keep_days > 0).then_some(self.history_keep_days * DAY_MS),
            stop_ms: self.stop_seconds * 1000,
        }
    }

    /// Heartbeats and proxies; the rest of a connection's bounds is fixed.
    fn conn_settings(&self) -> conn::Settings {
        conn::Settings {
            ping_interval_ms: self.ping_interval_ms,
            ping_timeout_ms: self.ping_timeout_ms,
            unbound_timeout_ms: self.unbound_timeout_ms,
            message_bytes_max: self.message_bytes_max,
            // One message must fit.
            outbox_bytes_max: limits::OUTBOX_BYTES_MAX.max(2 * self.message_bytes_max),
            engine_path: self.socket_path.clone(),
            deflate: Policy { level: self.deflate_level, context_takeover: self.deflate_context_takeover },
            deflate_bytes_min: self.deflate_threshold,
            is_conformance_target: self.is_conformance_target,
            trusted_proxies: self.trusted_proxies.clone(),
            ..conn::Settings::default()
        }
    }

    /// The paywall, and the bounds of what one user may do over sockets.
    fn domain_settings(&self) -> domain::Settings {
        domain::Settings {
            paywall: self.paywall,
            user_connections_max: self.user_connections_max,
            event_rate: self.event_rate,
            event_burst: self.event_burst,
        }
    }

    /// What the endpoints decide by, and what `/health` tells.
    fn api_settings(&self, probe: &Probe, shards: u16, started_at: Time) -> api::Settings {
        api::Settings {
            allowed_origins: self.allowed_origins.clone(),
            public_url: self.public_url.clone(),
            production: self.environment == "production",
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

    /// Bytes that the process should stay within, if anything says so.
    pub fn memory_limit(&self) -> Option<u64> {
        self.memory_limit_mib.map(|mib| mib * 1024 * 1024).or_else(manager::system_limit)
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

    /// Which store keeps the data, in words without secrets.
    pub fn store_description(&self) -> String {
        if self.database.is_some() { "postgres" } else { "sqlite" }.to_owned()
    }

    /// How the pool that hashes passwords is set, on so many usable cores.
    pub fn hashing_settings(&self, cores: usize) -> hashing::Settings {
        hashing::Settings {
            threads: self.hash_threads.map_or(cores.div_ceil(2), usize::from),
            queue_len_max: self.hash_queue,
            memory_kib: self.hash_memory_kib,
            ..hashing::Settings::default()
        }
    }
}

/// Flag, variable, default and meaning of every setting, as the command line knows them.
pub fn settings_table() -> Vec<(String, String, String, String)> {
    let command = command();
    let text = |text: Option<&std::ffi::OsStr>| text.unwrap_or_default().to_string_lossy().into_owned();
    let row = |arg: &Arg| {
        let flag = format!("--{}", arg.get_long().unwrap_or_default());
        let default = text(arg.get_default_values().first().map(|value| value.as_ref()));
        (flag, text(arg.get_env()), default, arg.get_help().map(ToString::to_string).unwrap_or_default())
    };
    command.get_arguments().filter(|arg| !arg.is_hide_set() && !arg.is_positional()).map(row).collect()
}

/// The command line, made of the table.
fn command() -> Command {
    let arg = |flag: &Flag| {
        let arg = Arg::new(flag.name).long(flag.name).env(flag.variable).help(flag.help).value_name("VALUE");
        let arg = arg.hide_env_values(true);
        let arg = arg.hide(flag.name == REDIS_URL);
        if flag.default.is_empty() { arg } else { arg.default_value(flag.default) }
    };
    Command::new("duet")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Self-hosted backend of one-to-one video chat")
        .after_help("Every setting is also read from the environment variable named with it; a flag beats it.")
        .arg(
            Arg::new(COMMAND)
                .value_name("COMMAND")
                .value_parser([MIGRATE])
                .help("migrate: bring the schema up to date, and end"),
        )
        .args(FLAGS.iter().map(arg))
}

/// What clap has to say: help and version as they are, an error in one line.
fn misread(error: &clap::Error) -> ConfigExit {
    let text = error.render().to_string();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return ConfigExit { text, code: 0 };
    }
    let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
    ConfigExit { text: format!("duet: {line} (see --help)\n"), code: 2 }
}

/// Reads and checks every setting. What is wrong is noted in `reader`; its field then holds anything.
fn read(reader: &mut Reader) -> Config {
    let config = Config {
        host: reader.one("host", "must be an IP address", parsed).unwrap_or(IpAddr::from([0, 0, 0, 0])),
        port: reader.number("port", 0..=65_535),
        public_url: reader.one("public-url", "must be http(s)://host without a path", |url| {
            let url = url.trim_end_matches('/');
            scheme(url, ["http://", "https://"]).filter(|url| is_origin(url))
        }),
        allowed_origins: reader.list("allowed-origins", "must be of the form https://host, without a path", origin),
        trusted_proxies: reader.list("trusted-proxies", "must be an IP address or a network like 10.0.0.0/8", network),
        environment: reader.text("environment").to_owned(),
        data: reader.text("data").into(),
        database: reader.database(),
        database_pool_max: reader.number("database-pool-max", 2..=1_000),
        database_timeout_ms: reader.number("database-timeout", 100..=HOUR_MS),
        database_query_timeout_ms: reader.number("database-query-timeout", 100..=HOUR_MS),
        journal_mib: reader.number("journal-mib", 0..=1024 * 1024),
        migrates_only: reader.matches.get_one::<String>(COMMAND).is_some_and(|command| command == MIGRATE),
        paywall: reader.one("paywall", "must be on or off", switch).unwrap_or(false),
        demo: reader.one("demo", "must be on or off", switch).unwrap_or(true),
        shards: reader.one("shards", "must be auto or a number from 1 to 1024", count).flatten(),
        runtime: reader.one("runtime", "must be auto, uring or epoll", parsed).unwrap_or_default(),
        turn_urls: reader.list("turn-urls", "must start with turn: or turns:", |url| scheme(url, ["turn:", "turns:"])),
        turn_secret: reader.text(TURN_SECRET).to_owned(),
        stun_urls: reader.list("stun-urls", "must start with stun: or stuns:", |url| scheme(url, ["stun:", "stuns:"])),
        limits: Limits::new(
            reader.number("auth-failures", 0..=RATE_MAX),
            reader.number("signups-per-hour", 0..=RATE_MAX),
            reader.number("logins-per-hour", 0..=RATE_MAX),
            reader.number("api-per-minute", 0..=RATE_MAX),
            reader.number("turn-per-hour", 0..=RATE_MAX),
        ),
        queue_list_max: reader.number("queue-list-max", 1..=limits::QUEUE_LIST_TOP as u64),
        connections_max: reader.number("connections-max", 1..=10_000_000),
        user_connections_max: reader.number("user-connections-max", 1..=1_000),
        event_rate: reader.number("event-rate", 0..=RATE_MAX),
        event_burst: reader.number("event-burst", 1..=RATE_MAX),
        ping_interval_ms: reader.number("ping-interval-ms", 100..=HOUR_MS),
        ping_timeout_ms: reader.number("ping-timeout-ms", 100..=HOUR_MS),
        unbound_timeout_ms: reader.number("unbound-timeout-ms", 100..=HOUR_MS),
        message_bytes_max: reader.number("message-bytes-max", 1024..=MESSAGE_BYTES_TOP),
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
        memory_limit_mib: reader.one("memory-limit-mib", "must be auto or a number from 1", limit).flatten(),
        memory_seconds: reader.number("memory-seconds", 1..=86_400),
        hash_threads: reader.one("hash-threads", "must be auto or a number from 1 to 1024", count).flatten(),
        hash_memory_kib: reader.number("hash-memory-kib", 8..=4 * 1024 * 1024),
        hash_queue: reader.number("hash-queue", 1..=65_536),
        store_queue: reader.number("store-queue", 1..=1_000_000),
        store_cache_kib: reader.number("store-cache-kib", 64..=64 * 1024 * 1024),
        log: reader.one("log", "must be a level or a filter", filter).unwrap_or_default(),
        metrics: reader.one("metrics", "must be auto, off or address:port", metrics).unwrap_or_default(),
        stop_seconds: reader.number("stop-seconds", 0..=3_600),
    };
    refuse_unsupported(reader);
    refuse_half_of_turn(reader, &config);
    config
}

/// TURN servers and the secret shared with them come together.
fn refuse_half_of_turn(reader: &mut Reader, config: &Config) {
    match (reader.text("turn-urls").is_empty(), config.turn_secret.is_empty()) {
        (true, false) => {
            reader.errors.push("--turn-secret (TURN_SECRET) is set, but --turn-urls (TURN_URLS) is not".into())
        }
        (false, true) => reader.errors.push("--turn-urls (TURN_URLS) needs --turn-secret (TURN_SECRET)".into()),
        _ => {}
    }
}

/// Names what another server may have been given and this one cannot use. Its value may hold a password: not shown.
fn refuse_unsupported(reader: &mut Reader) {
    if !reader.text(REDIS_URL).is_empty() {
        reader.errors.push("REDIS_URL is set: Redis is not supported yet in this version; unset it".to_owned());
    }
}

/// More than any rate needs.
const RATE_MAX: u64 = 1_000_000;
/// Longest message that may be allowed, bytes.
const MESSAGE_BYTES_TOP: u64 = 64 * 1024 * 1024;
/// Longest time of a connection's timers.
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

#[cfg(test)]
mod tests {
    use super::*;

    /// Tests read flags only: variables that happen to be set here would otherwise decide.
    fn parse(flags: &[&str]) -> Result<Config, ConfigExit> {
        let named = |flag: &Flag| flags.iter().any(|given| given.starts_with(&format!("--{}=", flag.name)));
        let defaults = FLAGS.iter().filter(|flag| !named(flag)).map(|flag| format!("--{}={}", flag.name, flag.default));
        let args =
            std::iter::once("duet".to_owned()).chain(flags.iter().map(|flag| (*flag).to_owned())).chain(defaults);
        Config::from_args(args)
    }

    fn errors(flags: &[&str]) -> Vec<String> {
        let exit = parse(flags).err().expect("refused");
        assert_eq!(exit.code, 2);
        exit.text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_defaults_are_those_of_the_layers() {
        let Ok(config) = parse(&[]) else { panic!("the defaults are good") };
        assert_eq!((config.port, config.host.to_string().as_str(), config.shards), (3001, "0.0.0.0", None));
        let (usual, conn) = (conn::Settings::default(), config.conn_settings());
        assert_eq!(format!("{conn:?}"), format!("{usual:?}"));
        assert_eq!(config.user_connections_max, limits::USER_CONNECTIONS_MAX);
        assert_eq!(config.store_queue, limits::STORE_QUEUE_MAX);
        let (usual, domain) = (domain::Settings::default(), config.domain_settings());
        assert_eq!((domain.event_rate, domain.event_burst), (usual.event_rate, usual.event_burst));
        let (usual, hashing) = (hashing::Settings::default(), config.hashing_settings(4));
        assert_eq!((hashing.threads, hashing.memory_kib), (usual.threads, usual.memory_kib));
        assert_eq!(hashing.queue_len_max, usual.queue_len_max);
        let store::Settings::Sqlite(embedded) = config.store_settings() else { panic!("the default is embedded") };
        let usual = postgres::Settings::new(Address::decode("postgres://ann@h/d").unwrap());
        let database = (config.database_pool_max, config.database_timeout_ms, config.database_query_timeout_ms);
        assert_eq!(database, (usual.connections, usual.connect_ms_max, usual.query_ms_max));
        assert_eq!(embedded.cache_kib, sqlite::Settings::new("x").cache_kib);
        let (usual, encoding) = (encoding::Settings::default(), config.encoding_settings());
        assert_eq!((encoding.level, encoding.bytes_min), (usual.level, usual.bytes_min));
        let usual = api::Settings::default();
        assert_eq!((config.allowed_origins, config.connections_max), (usual.allowed_origins, usual.connections_max));
        assert_eq!(config.queue_list_max, usual.queue_list_max);
        assert_eq!(format!("{:?}", config.limits), format!("{:?}", usual.limits));
    }

    #[test]
    fn every_flag_says_what_it_sets() {
        let Ok(config) = parse(&[
            "--host=::",
            "--public-url=https://api.example/",
            "--allowed-origins=https://a.example, capacitor://localhost,",
            "--trusted-proxies=10.0.0.0/8, 192.0.2.7,::1",
            "--paywall=on",
            "--shards=4",
            "--runtime=epoll",
            "--turn-urls=turn:a,turns:b",
            "--turn-secret=north",
            "--stun-urls=stun:a",
            "--api-per-minute=0",
            "--log=info,duet::store=debug",
            "--database-url=postgres://ann:north@db.example/duet",
            "--database-pool-max=7",
            "--metrics=[::1]:9464",
        ]) else {
            panic!("all good")
        };
        assert_eq!((config.host.to_string().as_str(), config.shards, config.runtime), ("::", Some(4), Choice::Epoll));
        let store::Settings::Postgres(database) = config.store_settings() else { panic!("a URL makes it Postgres") };
        assert_eq!((database.connections, config.store_description()), (7, "postgres".to_owned()));
        assert_eq!(config.public_url.as_deref(), Some("https://api.example"));
        assert_eq!(config.allowed_origins, ["https://a.example", "capacitor://localhost"]);
        let proxies: Vec<_> = config.trusted_proxies.iter().map(ToString::to_string).collect();
        assert_eq!(proxies, ["10.0.0.0/8", "192.0.2.7/32", "::1/128"]);
        assert_eq!(config.metrics, MetricsAddress::At("[::1]:9464".parse().unwrap()));
        assert_eq!((config.paywall, config.limits.api.max, config.turn_urls.len()), (true, 0, 2));
    }

    #[test]
    fn all_errors_are_told_at_once_one_line_each() {
        let lines = errors(&[
            "--port=70000",
            "--host=here",
            "--public-url=api.example",
            "--allowed-origins=https://a.example/,*",
            "--trusted-proxies=10.0.0.0/99",
            "--paywall=yes",
            "--shards=0",
            "--runtime=tokio",
            "--turn-urls=https://turn.example",
            "--stun-urls=turn:a",
            "--event-burst=-1",
            "--http-compression-level=10",
            "--log=info,=,",
            "--metrics=9464",
            "--database-url=postgres://user:s3cret@host:port/db",
        ]);
        assert_eq!(lines[0], "duet: --host (HOST) is \"here\": must be an IP address");
        assert_eq!(lines[1], "duet: --port (PORT) is \"70000\": must be a number from 0 to 65535");
        assert_eq!(lines.len(), 17, "{lines:#?}");
        assert!(
            lines.iter().any(|line| line.starts_with("duet: --database-url (DATABASE_URL): must be")),
            "{lines:#?}"
        );
        assert!(!lines.concat().contains("s3cret"));
    }

    #[test]
    fn turn_needs_both_its_settings() {
        let needs = "duet: --turn-urls (TURN_URLS) needs --turn-secret (TURN_SECRET)";
        assert_eq!(errors(&["--turn-urls=turn:a"]), [needs]);
        let lonely = "duet: --turn-secret (TURN_SECRET) is set, but --turn-urls (TURN_URLS) is not";
        assert_eq!(errors(&["--turn-secret=north"]), [lonely]);
    }

    #[test]
    fn an_unknown_flag_is_one_line() {
        let exit = Config::from_args(["duet", "--prot", "1"]).err().expect("refused");
        assert_eq!((exit.code, exit.text.lines().count()), (2, 1));
        assert!(exit.text.contains("--prot"), "{}", exit.text);
    }

    #[test]
    fn help_names_every_setting_and_shows_no_value_of_the_environment() {
        let exit = Config::from_args(["duet", "--help"]).err().expect("help");
        assert_eq!(exit.code, 0);
        let table = settings_table();
        assert_eq!(table.len(), FLAGS.len() - 1);
        for (flag, variable, default, help) in table {
            assert!(exit.text.contains(&flag) && exit.text.contains(&format!("[env: {variable}]")), "{flag}");
            assert!(!flag.contains("command"));
            assert!(default.is_empty() || exit.text.contains(&format!("[default: {default}]")), "{flag}");
            assert!(!help.is_empty());
        }
        let version = Config::from_args(["duet", "--version"]).err().expect("version");
        assert_eq!((version.code, version.text), (0, format!("duet {}\n", env!("CARGO_PKG_VERSION"))));
    }
}

//! The table of settings: flag, environment variable, default and meaning of each. README and `--help` show the same.
//!
//! Not here: bounds and forms, which `config.rs` checks.

/// Every flag, in the order of `--help`. Bounds stand where they are read.
#[rustfmt::skip]
pub(super) const FLAGS: [Flag; 72] = [
    flag(ENV_FILE, "ENV_FILE", "", "File with lines NAME=value for what the environment leaves open; SIGHUP reads it again"),
    flag("plan", "PLAN", "auto", "512mb, 1gb, 2gb, 4gb, 8gb, or auto: the largest that fits; sets every value that says auto"),
    flag("port", "PORT", "3001", "TCP port; 0 lets the system choose one"),
    flag("host", "HOST", "0.0.0.0", "Address to listen on; :: is all addresses, IPv4 and IPv6"),
    flag("public-url", "API_BASE", "", "Where browsers reach this server, such as https://api.example.org"),
    flag(ALLOWED_ORIGINS, "ALLOWED_ORIGINS", "http://localhost:3000", "Origins whose pages may call, comma-separated"),
    flag("trusted-proxies", "TRUSTED_PROXIES", "", "Proxies that are believed whose request it is, addresses or networks, comma-separated"),
    flag("client-address-header", "CLIENT_ADDRESS_HEADER", "x-forwarded-for", "Where they say so: x-forwarded-for, or x-real-ip"),
    flag("proxy-protocol", "PROXY_PROTOCOL", "off", "on: each connection comes from a trusted proxy and begins with a PROXY header, version 1 or 2; off"),
    flag("environment", "NODE_ENV", "default", "production: redirect to HTTPS; development: no limit on requests; else any name"),
    flag("data", "DATA_DIR", "./data", "Folder of the database; with DATABASE_URL that of the journal"),
    flag("paywall", "PAYWALL", "off", "on: only who paid or has an invite code may queue and call; off"),
    flag("demo", "DEMO", "on", "on: a page to meet on is at /demo; off"),
    flag("shards", "SHARDS", "auto", "Threads that serve connections; auto is one per usable core, as many as the plan allows"),
    flag("runtime", "RUNTIME", "auto", "uring, epoll, or auto: io_uring where it is allowed"),
    flag("turn-urls", "TURN_URLS", "", "TURN servers for callers, comma-separated, such as turn:turn.example.org:3478"),
    flag(TURN_SECRET, "TURN_SECRET", "", "Secret shared with the TURN servers; other users of the machine can read arguments, so use the variable or a file"),
    flag("turn-secret-file", "TURN_SECRET_FILE", "", "File that holds the secret shared with the TURN servers"),
    flag("stun-urls", "STUN_URLS", "", "STUN servers for callers, comma-separated, such as stun:turn.example.org:3478"),
    flag("signups-per-hour", "SIGNUPS_PER_HOUR", "30", "Sign-ups of one address; 0 is no limit"),
    flag("logins-per-hour", "LOGINS_PER_HOUR", "30", "Password checks of one address; 0 is no limit"),
    flag("auth-failures", "AUTH_FAILURES", "6", "Failures to sign up or log in, of one address or account, per 10 minutes; 0 is no limit"),
    flag("api-per-minute", "API_PER_MINUTE", "500", "Requests of one address to /room and /user; 0 is no limit"),
    flag("turn-per-hour", "TURN_PER_HOUR", "60", "TURN credentials of one user; 0 is no limit"),
    flag("queue-list-max", "QUEUE_LIST_MAX", "200", "People listed by /room/queue at once; of more a sample is shown"),
    flag("connections-max", "CONNECTIONS_MAX", "auto", "Open connections of all clients"),
    flag(ADDRESS_CONNECTIONS, "ADDRESS_CONNECTIONS_MAX", "auto", "Open connections of one address, of IPv6 one /64; 0 is no limit; auto is half of all where --trusted-proxies is set, else no limit"),
    flag("accept-rate", "ACCEPT_RATE", "10000", "Connections accepted per second, and at once; more wait in the kernel's backlog, up to 4096 for each shard; 0 is no limit"),
    flag("user-connections-max", "USER_CONNECTIONS_MAX", "2", "Open connections of one user, such as tabs; the oldest makes room, one that is in a call last"),
    flag("event-rate", "EVENT_RATE", "100", "Events a connection may send per second in the long run, signals (rtc:) and others apart; 0 is no limit, nor on chat and invites"),
    flag("event-burst", "EVENT_BURST", "500", "The same at once"),
    flag("chat-rate", "CHAT_RATE", "10", "Chat messages and socials a connection may send per second in the long run; 0 is no limit"),
    flag("chat-burst", "CHAT_BURST", "100", "The same at once"),
    flag("invite-rate", "INVITE_RATE", "5", "Events about invites a connection may send per second in the long run; 0 is no limit"),
    flag("invite-burst", "INVITE_BURST", "50", "The same at once"),
    flag("ping-interval-ms", "PING_INTERVAL_MS", "25000", "Pause between heartbeats, ms"),
    flag("ping-timeout-ms", "PING_TIMEOUT_MS", "60000", "Time to answer a heartbeat, ms"),
    flag("unbound-timeout-ms", "UNBOUND_TIMEOUT_MS", "30000", "Time to authenticate a connection, ms"),
    flag("http-compression-level", "HTTP_COMPRESSION_LEVEL", "6", "Compression of HTTP responses, 1 (fast) to 9 (small); 0 is none"),
    flag("http-compression-threshold", "HTTP_COMPRESSION_THRESHOLD", "1024", "Smallest response body that is compressed, bytes"),
    flag("message-bytes-max", "MESSAGE_BYTES_MAX", "1000000", "Longest message of a client, and payload by polling, bytes"),
    flag("socket-path", "SOCKET_PATH", "/socket.io/", "Where Socket.IO is spoken"),
    flag("outbox-kib", "OUTBOX_KIB", "auto", "What may wait to be written to one client, KiB; over it the client is closed"),
    flag("deflate-level", "DEFLATE_LEVEL", "6", "Compression of WebSocket messages, 1 (fast) to 9 (small); 0 is none"),
    flag("deflate-threshold", "DEFLATE_THRESHOLD", "1024", "Shorter WebSocket messages are not compressed, bytes"),
    flag("deflate-context-takeover", "DEFLATE_CONTEXT_TAKEOVER", "off", "on: smaller messages, for up to 344 KiB of memory per connection; off"),
    flag("user-cache-max", "USER_CACHE_MAX", "auto", "Profiles kept in memory"),
    flag("session-cache-max", "SESSION_CACHE_MAX", "auto", "Sessions kept in memory"),
    flag("sweep-seconds", "SWEEP_SECONDS", "300", "Pause between two sweeps of what has expired, seconds"),
    flag("history-keep-days", "HISTORY_KEEP_DAYS", "365", "Days that an ended call stays in the history of its users before it is archived; 0 is for ever"),
    flag("memory-limit-mib", "MEMORY_LIMIT_MIB", "auto", "Memory the process should stay within, MiB; auto is what the system allows it, or the plan that is named"),
    flag("memory-warning-percent", "MEMORY_WARNING_PERCENT", "auto", "Share of the memory from which the log warns, percent"),
    flag("memory-critical-percent", "MEMORY_CRITICAL_PERCENT", "auto", "Share of the memory from which caches shrink and new connections are turned away, percent"),
    flag("memory-seconds", "MEMORY_SECONDS", "30", "Pause between two readings of the memory, seconds"),
    flag("hash-threads", "HASH_THREADS", "auto", "Passwords hashed at the same time; auto is one per two usable cores, as many as the plan allows"),
    flag("hash-memory-kib", "HASH_MEMORY_KIB", "19456", "Memory of one password hash, KiB"),
    flag("hash-queue", "HASH_QUEUE", "64", "Passwords that may wait to be hashed"),
    flag(DATABASE_URL, "DATABASE_URL", "", "Postgres that keeps the data instead of the folder, postgres://user:password@host/database?sslmode=verify-full; its password is safer in the variable or a file"),
    flag("database-url-file", "DATABASE_URL_FILE", "", "File that holds the URL of Postgres"),
    flag(CREDENTIALS, "CREDENTIALS_DIRECTORY", "", "Folder with files turn-secret and database-url, as systemd's LoadCredential makes it"),
    flag("database-pool-max", "DATABASE_POOL_MAX", "4", "Connections to Postgres: one for reads, the others for writes"),
    flag("database-timeout", "DATABASE_TIMEOUT", "10000", "Time to connect to Postgres, and to wait for a connection, ms"),
    flag("database-query-timeout", "DATABASE_QUERY_TIMEOUT", "10000", "Time of one request to Postgres, ms"),
    flag("journal-mib", "JOURNAL_MIB", "64", "Disk for ended calls and cooldowns that wait while Postgres is away, MiB; 0: they wait in memory"),
    flag("store-queue", "STORE_QUEUE", "auto", "Requests that may wait for the store"),
    flag("store-cache-kib", "STORE_CACHE_KIB", "auto", "Memory for pages of the database in the folder, KiB"),
    flag("log", "LOG_LEVEL", "info", "error, warn, info, debug, trace, or a filter such as info,duet::store=debug"),
    flag("log-format", "LOG_FORMAT", "auto", "text, json, or auto: JSON in production unless a terminal reads it"),
    flag("metrics", "METRICS_ADDRESS", "auto", "Where Prometheus finds /metrics, such as 127.0.0.1:9464; auto is 127.0.0.1 and the port 6463 above that of --port; off"),
    flag("drain-seconds", "DRAIN_SECONDS", "10", "Time that an orderly stop may take, seconds"),
    flag("resume-seconds", "RESUME_SECONDS", "30", "Time for both to come back into a running call after a restart, seconds"),
    flag(REDIS_URL, "REDIS_URL", "", "Not supported yet: must not be set"),
];

/// One line of the table. An empty default is none.
pub(super) struct Flag {
    pub name: &'static str,
    pub variable: &'static str,
    pub default: &'static str,
    pub help: &'static str,
}

const fn flag(name: &'static str, variable: &'static str, default: &'static str, help: &'static str) -> Flag {
    Flag { name, variable, default, help }
}

impl Flag {
    /// The flag that names a file in which this one's value stands; for secrets.
    pub fn file(&self) -> &'static str {
        match self.name {
            TURN_SECRET => "turn-secret-file",
            _ => "database-url-file",
        }
    }
}

/// Settings that a reload changes; the others need a restart.
pub(super) const LIVE: [&str; 26] = [
    "public-url",
    ALLOWED_ORIGINS,
    "trusted-proxies",
    "client-address-header",
    "turn-urls",
    TURN_SECRET,
    "turn-secret-file",
    "stun-urls",
    "signups-per-hour",
    "logins-per-hour",
    "auth-failures",
    "api-per-minute",
    "turn-per-hour",
    "queue-list-max",
    "connections-max",
    ADDRESS_CONNECTIONS,
    "user-connections-max",
    "event-rate",
    "event-burst",
    "chat-rate",
    "chat-burst",
    "invite-rate",
    "invite-burst",
    "sweep-seconds",
    "history-keep-days",
    "log",
];

/// Whether a reload changes the setting with this name.
pub(super) fn is_live(name: &str) -> bool {
    LIVE.contains(&name)
}

/// The line of the table with this name.
pub(super) fn find(name: &str) -> &'static Flag {
    FLAGS.iter().find(|flag| flag.name == name).expect("settings are asked for by the names of the table")
}

/// What to do, if not to serve.
pub(super) const COMMAND: &str = "command";
/// Each with its meaning.
pub(super) const COMMANDS: [(&str, Command, &str); 4] = [
    ("migrate", Command::Migrate, "bring the schema up to date, and end"),
    ("check-config", Command::CheckConfig, "print every setting with its source, and all that is wrong"),
    ("doctor", Command::Doctor, "look at the machine, the store and the TURN servers, and say what to do"),
    ("healthcheck", Command::Healthcheck, "ask the server that runs on this port whether it is ready"),
];

/// What the process is started for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    Serve,
    Migrate,
    CheckConfig,
    Doctor,
    Healthcheck,
}

/// Print for programs. No setting: it has neither a variable nor a default.
pub(super) const JSON: &str = "json";
/// Where variables are read that can change.
pub(super) const ENV_FILE: &str = "env-file";
/// Those of the pages that may call.
pub(super) const ALLOWED_ORIGINS: &str = "allowed-origins";
/// Its value is never shown.
pub(super) const TURN_SECRET: &str = "turn-secret";
/// The same.
pub(super) const DATABASE_URL: &str = "database-url";
/// What `auto` is depends on other settings.
pub(super) const ADDRESS_CONNECTIONS: &str = "address-connections-max";
/// Where a service manager leaves secrets.
pub(super) const CREDENTIALS: &str = "credentials-directory";
/// Refused when set: two instances without a common Redis would each see half of the users. Not in `--help`.
pub(super) const REDIS_URL: &str = "redis-url";

//! What settings say against each other, against the machine, and against running in public: errors and warnings.
//!
//! Every check is made, whatever the others found. An error keeps the server from starting; a warning is told at every
//! start. In production what is only a warning elsewhere may be an error. Not here: the form of single values.

use crate::base::limits::FAREWELLS_MAX;

use super::flags::{ADDRESS_CONNECTIONS, ALLOWED_ORIGINS, DATABASE_URL, REDIS_URL, TURN_SECRET, find};
use super::reader::{AUTO, Reader, Source};
use super::secrets::{password_weakness, weakness};
use super::{Config, System};

/// Descriptors for what is no connection: the store, files, standard streams, and what is open for a moment.
const DESCRIPTORS_KEPT: u64 = 128;
/// The same for each shard: its rings, its listener, its wakes; and clients that were refused.
const SHARD_DESCRIPTORS_KEPT: u64 = 16 + FAREWELLS_MAX as u64;

/// Notes all that is wrong, and gives the settings that count: what the machine does not allow is reduced.
pub(super) fn check(mut config: Config, reader: &mut Reader, system: &System) -> Config {
    unsupported(reader);
    turn(&config, reader);
    memory(&config, reader, system);
    threads(&config, reader, system);
    outbox(&mut config, reader);
    descriptors(&mut config, reader, system);
    addresses(&mut config, reader);
    caches(&config, reader);
    proxies(&config, reader);
    secrets(&config, reader);
    if config.is_production() {
        production(&mut config, reader);
    }
    config
}

/// Names what another server may have been given and this one cannot use. Its value may hold a password: not shown.
fn unsupported(reader: &mut Reader) {
    if !reader.text(REDIS_URL).is_empty() {
        reader.errors.push("REDIS_URL is set: Redis is not supported yet in this version; unset it".to_owned());
    }
}

fn turn(config: &Config, reader: &mut Reader) {
    match (reader.text("turn-urls").is_empty(), config.turn_secret.is_empty()) {
        (true, false) => {
            reader.errors.push("--turn-secret (TURN_SECRET) is set, but --turn-urls (TURN_URLS) is not".into())
        }
        (false, true) => reader.errors.push("--turn-urls (TURN_URLS) needs --turn-secret (TURN_SECRET)".into()),
        _ => {}
    }
}

/// Bytes as operators read them.
fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes / 1_000_000)
}

fn memory(config: &Config, reader: &mut Reader, system: &System) {
    let thresholds = config.memory_thresholds;
    if thresholds.warning >= thresholds.critical {
        reader.errors.push(format!(
            "--memory-warning-percent ({}) must be less than --memory-critical-percent ({})",
            thresholds.warning, thresholds.critical
        ));
    }
    let plan = config.plan;
    if let (Some(memory), true) = (system.memory(), reader.is_given("plan"))
        && reader.text("plan") == plan.name
        && !plan.fits(memory)
    {
        let (needs, has) = (megabytes(plan.memory), megabytes(memory));
        reader.errors.push(format!(
            "--plan (PLAN) is {}, which is for {needs}, but there are {has}: take a smaller plan, or auto",
            plan.name
        ));
    } else if let Some(memory) = config.memory_limit
        && reader.text("plan") != plan.name
        && !plan.fits(memory)
    {
        reader.warnings.push(format!(
            "there are {} of memory, less than the smallest plan, {}, is for: give more, or set --connections-max, \
             --store-cache-kib and the caches yourself",
            megabytes(memory),
            plan.name
        ));
    }
    if let (Some(limit), Some(memory)) = (config.memory_limit, system.memory())
        && limit > memory
    {
        reader.warnings.push(format!(
            "--memory-limit-mib (MEMORY_LIMIT_MIB) is {} MiB, more than the {} that the system allows",
            limit >> 20,
            megabytes(memory)
        ));
    }
    let hashing = u64::from(config.hash_threads) * u64::from(config.hash_memory_kib) * 1024;
    if let Some(limit) = config.memory_limit
        && hashing > limit / 4
    {
        reader.warnings.push(format!(
            "hashing passwords may take {} of {}: lower --hash-threads or --hash-memory-kib",
            megabytes(hashing),
            megabytes(limit)
        ));
    }
}

fn threads(config: &Config, reader: &mut Reader, system: &System) {
    if usize::from(config.shards) > system.cores {
        reader.warnings.push(format!(
            "--shards (SHARDS) is {}, more than the {} usable cores: shards will wait for each other",
            config.shards, system.cores
        ));
    }
}

/// An outbox in which not even one message fits serves nobody; unless one was asked for it grows with the message.
fn outbox(config: &mut Config, reader: &mut Reader) {
    let least = 2 * config.message_bytes_max;
    if config.outbox_bytes_max >= least {
        return;
    }
    if reader.is_given("outbox-kib") {
        reader.errors.push(format!(
            "--outbox-kib (OUTBOX_KIB) is {}: two messages of --message-bytes-max need {}",
            config.outbox_bytes_max / 1024,
            least.div_ceil(1024)
        ));
    }
    config.outbox_bytes_max = least;
    reader.adjust("outbox-kib", least.div_ceil(1024));
}

/// Each connection takes a descriptor. What a plan asks for beyond the limit is reduced; what an operator asks for is
/// so too, but in production it is refused: he counts on it.
fn descriptors(config: &mut Config, reader: &mut Reader, system: &System) {
    let kept = DESCRIPTORS_KEPT + SHARD_DESCRIPTORS_KEPT * u64::from(config.shards);
    let (asked, limit) = (config.connections_max as u64, system.descriptors);
    if limit == 0 || asked + kept <= limit {
        return;
    }
    let possible = limit.saturating_sub(kept).max(1);
    let problem = format!(
        "--connections-max is {asked}, but the limit of {limit} file descriptors allows {possible}: raise it to {} \
         (ulimit -Hn, LimitNOFILE= in systemd, --ulimit nofile= in Docker)",
        asked + kept
    );
    if reader.is_given("connections-max") && config.is_production() {
        reader.errors.push(problem);
    } else {
        reader.warnings.push(problem);
    }
    config.connections_max = possible as usize;
    reader.adjust("connections-max", format!("{possible} (of {asked})"));
}

/// Where the proxies are known, addresses are those of clients, and none takes all places. Where they are not, an address
/// may be a proxy, with all clients behind it.
fn addresses(config: &mut Config, reader: &mut Reader) {
    if reader.text(ADDRESS_CONNECTIONS) != AUTO {
        return;
    }
    if !config.trusted_proxies.is_empty() {
        config.address_connections_max = config.connections_max.div_ceil(2);
    }
    reader.adjust(ADDRESS_CONNECTIONS, format!("{} (auto)", config.address_connections_max));
}

fn caches(config: &Config, reader: &mut Reader) {
    let caches = [("user-cache-max", config.user_cache_max), ("session-cache-max", config.session_cache_max)];
    for (name, lines) in caches {
        if reader.is_given(name) && lines < config.connections_max {
            reader.warnings.push(format!(
                "--{name} ({}) is {lines}, fewer than the {} connections: of people who poll in turn few will be found",
                find(name).variable,
                config.connections_max
            ));
        }
    }
}

fn proxies(config: &Config, reader: &mut Reader) {
    if config.proxy_protocol && config.trusted_proxies.is_empty() {
        reader.errors.push(
            "--proxy-protocol (PROXY_PROTOCOL) is on, but --trusted-proxies (TRUSTED_PROXIES) names none: nobody could connect"
                .to_owned(),
        );
    }
    for network in config.trusted_proxies.iter().filter(|network| network.prefix_len() == 0) {
        reader.warnings.push(format!(
            "--trusted-proxies (TRUSTED_PROXIES) holds {network}, everybody: clients can choose their address, and with \
             it their limits"
        ));
    }
}

fn secrets(config: &Config, reader: &mut Reader) {
    for name in [TURN_SECRET, DATABASE_URL] {
        let is_seen = matches!(reader.value(name).1, Source::Flag(_));
        let holds_secret = name == TURN_SECRET || config.database.as_ref().is_some_and(|url| url.password().is_some());
        if is_seen && holds_secret {
            let variable = find(name).variable;
            reader.warnings.push(format!(
                "--{name} is an argument, which every user of the machine can read: set {variable} or {variable}_FILE"
            ));
        }
    }
}

/// What is for trying things out only.
fn production(config: &mut Config, reader: &mut Reader) {
    if !config.turn_secret.is_empty()
        && let Some(weakness) = weakness(&config.turn_secret)
    {
        reader.errors.push(format!("--turn-secret (TURN_SECRET) {weakness}: make one with openssl rand -hex 32"));
    }
    if let Some(password) = config.database.as_ref().and_then(|address| address.password())
        && let Some(weakness) = password_weakness(password)
    {
        reader.errors.push(format!("the password in --database-url (DATABASE_URL) {weakness}: choose another"));
    }
    let is_given = reader.is_given(ALLOWED_ORIGINS);
    if !is_given && config.public_url.is_none() {
        reader.errors.push(
            "--allowed-origins (ALLOWED_ORIGINS) is not set: name the origins of your pages, or set --public-url \
             (API_BASE) if this server has them all"
                .to_owned(),
        );
    }
    if !is_given {
        // The default is for one's own machine.
        config.allowed_origins.clear();
        reader.adjust(ALLOWED_ORIGINS, "");
    }
    let is_local = |origin: &&String| ["//localhost", "//127.", "//[::1]"].iter().any(|host| origin.contains(host));
    if let Some(origin) = config.allowed_origins.iter().find(is_local) {
        reader
            .warnings
            .push(format!("--allowed-origins (ALLOWED_ORIGINS) holds {origin}, a page on one's own machine"));
    }
    if config.trusted_proxies.is_empty() {
        reader.warnings.push(
            "--trusted-proxies (TRUSTED_PROXIES) is not set: behind a proxy all clients share its address, and its limits"
                .to_owned(),
        );
    }
    if let Some(url) = config.public_url.as_ref().filter(|url| url.starts_with("http://")) {
        reader.warnings.push(format!("--public-url (API_BASE) is {url}: pages by HTTPS cannot call it"));
    }
}

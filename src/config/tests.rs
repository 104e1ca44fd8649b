//! Settings by flags alone, on a machine that tests choose.

use super::flags::{ALLOWED_ORIGINS, FLAGS, LIVE, REDIS_URL, find};
use super::plan::PLANS;
use super::*;

/// Everything that was read, right or wrong, on `system`. No variable of the tests' own environment counts.
fn reading_on(system: System, words: &[&str]) -> Reading {
    let command = command().mut_args(|arg| arg.env(None::<&str>));
    let args = std::iter::once("duet").chain(words.iter().copied());
    Reading::new(&command.try_get_matches_from(args).expect("words that can be read"), system)
}

fn reading(words: &[&str]) -> Reading {
    reading_on(System::of_tests(), words)
}

fn parse(words: &[&str]) -> Result<Config, ConfigExit> {
    reading(words).config()
}

fn errors(words: &[&str]) -> Vec<String> {
    let exit = parse(words).err().expect("refused");
    assert_eq!((exit.code, exit.is_answer), (2, false));
    exit.text.lines().map(str::to_owned).collect()
}

/// Value and source of a setting, as check-config prints them.
fn shown(reading: &Reading, flag: &str) -> (String, String) {
    let setting = reading.settings.iter().find(|setting| setting.flag == flag).expect("a setting");
    (setting.value.clone(), setting.source.to_string())
}

#[test]
fn the_defaults_are_those_of_the_layers() {
    let Ok(config) = parse(&[]) else { panic!("the defaults are good") };
    assert_eq!((config.port, config.host.to_string().as_str(), config.shards), (3001, "0.0.0.0", 2));
    let (usual, conn) = (conn::Settings::default(), config.conn_settings());
    let conn = conn::Settings { outbox_bytes_max: usual.outbox_bytes_max, ..conn };
    assert_eq!(format!("{conn:?}"), format!("{usual:?}"), "all but what the plan sets");
    assert_eq!(config.user_connections_max, limits::USER_CONNECTIONS_MAX);
    let (usual, domain) = (domain::Settings::default(), config.domain_settings());
    assert_eq!(domain.resume_ms, usual.resume_ms);
    let (usual, hashing) = (hashing::Settings::default(), config.hashing_settings());
    assert_eq!((hashing.threads, hashing.memory_kib), (1, usual.memory_kib));
    assert_eq!(hashing.queue_len_max, usual.queue_len_max);
    let store::Settings::Sqlite(embedded) = config.store_settings() else { panic!("the default is embedded") };
    let usual = postgres::Settings::new(Address::decode("postgres://ann@h/d").unwrap());
    let database = (config.database_pool_max, config.database_timeout_ms, config.database_query_timeout_ms);
    assert_eq!(database, (usual.connections, usual.connect_ms_max, usual.query_ms_max));
    assert_eq!(embedded.cache_kib, 32 * 1024);
    let (usual, encoding) = (encoding::Settings::default(), config.encoding_settings());
    assert_eq!((encoding.level, encoding.bytes_min), (usual.level, usual.bytes_min));
    let usual = api::Settings::default();
    assert_eq!(config.allowed_origins, usual.allowed_origins);
    assert_eq!(config.queue_list_max, usual.queue_list_max);
    assert_eq!(format!("{:?}", config.limits), format!("{:?}", usual.limits));
}

#[test]
fn without_a_limit_on_events_there_is_none_on_any_class() {
    let rates = |words: &[&str]| parse(words).ok().map(|config| config.event_allowances.map(|class| class.per_second));
    assert_eq!(rates(&["--event-rate=7", "--chat-rate=3", "--invite-rate=0"]), Some([7, 3, 0, 7]));
    assert_eq!(rates(&["--event-rate=0"]), Some([0; 4]));
}

#[test]
fn an_address_has_half_of_the_places_where_the_proxies_are_known() {
    let max = |words: &[&str]| parse(words).ok().map(|config| config.address_connections_max);
    assert_eq!(max(&["--connections-max=1001"]), Some(0));
    assert_eq!(max(&["--connections-max=1001", "--trusted-proxies=10.0.0.0/8"]), Some(501));
    assert_eq!(max(&["--trusted-proxies=10.0.0.0/8", "--address-connections-max=0"]), Some(0));
    assert_eq!(max(&["--address-connections-max=70"]), Some(70));
    assert_eq!(errors(&["--address-connections-max=many"]).len(), 1);
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
    assert_eq!((config.host.to_string().as_str(), config.shards, config.runtime), ("::", 4, Choice::Epoll));
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
    assert!(lines.iter().any(|line| line.starts_with("duet: --database-url (DATABASE_URL): must be")), "{lines:#?}");
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
fn a_plan_sets_what_says_auto_and_a_value_of_its_own_wins() {
    let read = reading(&["--plan=512mb", "--user-cache-max=30000", "--store-queue="]);
    let plan = PLANS[0];
    assert_eq!(shown(&read, "plan"), ("512mb".into(), "flag --plan".into()));
    assert_eq!(shown(&read, "connections-max"), (plan.connections.to_string(), "plan 512mb".into()));
    assert_eq!(shown(&read, "user-cache-max"), ("30000".into(), "flag --user-cache-max".into()));
    assert_eq!(shown(&read, "store-queue"), (plan.store_queue.to_string(), "plan 512mb".into()), "blank is none");
    assert_eq!(shown(&read, "hash-threads"), ("1".into(), "plan 512mb".into()));
    assert_eq!(shown(&read, "ping-interval-ms"), ("25000".into(), "default".into()));
    let Ok(config) = read.config() else { panic!("all good") };
    assert_eq!((config.connections_max, config.user_cache_max), (plan.connections as usize, 30_000));
    assert_eq!(config.conn_settings().outbox_bytes_max, plan.outbox_kib as usize * 1024);
    assert_eq!(config.memory_limit, Some(plan.memory), "no more than the plan that was named");
}

#[test]
fn auto_looks_at_the_memory_that_is_set_else_allowed_else_there() {
    let plan = |system: &System, words: &[&str]| shown(&reading_on(system.clone(), words), "plan").0;
    let system = System::of_tests();
    assert_eq!(plan(&system, &[]), "1gb (auto)");
    assert_eq!(plan(&system, &["--memory-limit-mib=512"]), "512mb (auto)");
    let free = System { group_memory: None, ..system };
    assert_eq!(plan(&free, &[]), "8gb (auto)");
    let Ok(config) = reading_on(free, &[]).config() else { panic!("all good") };
    assert_eq!(config.memory_limit, Some(8 << 30), "all that is there");
}

#[test]
fn a_plan_that_does_not_fit_is_refused_and_too_little_memory_is_told() {
    let refused = errors(&["--plan=2gb"]);
    assert!(refused.len() == 1 && refused[0].contains("take a smaller plan"), "{refused:?}");
    let small = System { group_memory: Some(256 << 20), ..System::of_tests() };
    let read = reading_on(small, &[]);
    assert!(read.warnings.iter().any(|line| line.contains("less than the smallest plan")), "{:?}", read.warnings);
    assert!(read.config().is_ok());
}

#[test]
fn connections_beyond_the_descriptors_are_reduced_and_told_and_in_production_refused_if_asked_for() {
    let few = System { descriptors: 4_096, ..System::of_tests() };
    let read = reading_on(few.clone(), &[]);
    assert_eq!(read.warnings.len(), 1, "{:?}", read.warnings);
    assert!(read.warnings[0].contains("LimitNOFILE"), "{:?}", read.warnings);
    assert_eq!(shown(&read, "connections-max").0, "3808 (of 20000)");
    let Ok(config) = read.config() else { panic!("it starts with fewer") };
    assert_eq!((config.connections_max, config.warnings.len()), (3_808, 1));
    let production = ["--environment=production", "--allowed-origins=https://a.example", "--connections-max=5000"];
    let refused = reading_on(few, &production).errors;
    assert!(refused.len() == 1 && refused[0].contains("--connections-max is 5000"), "{refused:?}");
}

#[test]
fn contradictions_are_all_told_at_once() {
    let lines = errors(&[
        "--memory-warning-percent=90",
        "--memory-critical-percent=80",
        "--turn-urls=turn:a",
        "--outbox-kib=1024",
        "--message-bytes-max=1000000",
        "--plan=8gb",
        "--log-format=xml",
    ]);
    assert_eq!(lines.len(), 5, "{lines:#?}");
}

#[test]
fn what_is_strange_but_works_is_a_warning() {
    let read = reading(&[
        "--shards=5",
        "--trusted-proxies=0.0.0.0/0",
        "--user-cache-max=100",
        "--memory-limit-mib=2000",
        "--hash-threads=30",
        "--turn-urls=turn:a",
        "--turn-secret=visible",
    ]);
    for word in ["usable cores", "everybody", "few will be found", "the system allows", "hashing passwords", "argument"]
    {
        assert_eq!(read.warnings.iter().filter(|line| line.contains(word)).count(), 1, "{word}: {:#?}", read.warnings);
    }
    assert!(read.config().is_ok());
}

#[test]
fn production_refuses_weak_secrets_and_missing_origins_and_repeats_none() {
    let words = ["--turn-urls=turn:a", "--turn-secret=ChangeMe", "--database-url=postgres://duet:postgres@db/duet"];
    assert!(parse(&words).is_ok(), "elsewhere they are good for trying things out");
    let lines = errors(&[&words[..], &["--environment=production"]].concat());
    assert_eq!(lines.len(), 3, "{lines:#?}");
    assert!(lines[0].contains("TURN_SECRET") && lines[1].contains("DATABASE_URL"), "{lines:#?}");
    assert!(lines[2].contains("ALLOWED_ORIGINS"), "{lines:#?}");
    assert!(!lines.concat().contains("ChangeMe"));
    let good = [
        "--environment=production",
        "--public-url=https://api.example",
        "--turn-urls=turn:a",
        "--turn-secret=0f8fad5bd9cb469fa165708671bd1f41",
        "--database-url=postgres://duet:q7h2kd0a81@db/duet",
    ];
    let Ok(config) = parse(&good) else { panic!("all good") };
    assert!(config.allowed_origins.is_empty(), "the default is for one's own machine");
}

/// Folder with these files, gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let folder = std::env::temp_dir().join(format!("duet-config-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        files.iter().for_each(|(name, text)| std::fs::write(folder.join(name), text).unwrap());
        Self(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn secrets_come_from_files_and_credentials_and_are_never_shown() {
    let folder =
        Folder::new("secrets", &[("turn-secret", "of the folder\n"), ("other", "of the file\n"), ("empty", "\n")]);
    let file = format!("--turn-secret-file={}", folder.path("other"));
    let credentials = format!("--credentials-directory={}", folder.path(""));
    let urls = "--turn-urls=turn:a";
    let secret = |words: &[&str]| {
        let read = reading(&[&[urls], words].concat());
        let shown = shown(&read, "turn-secret");
        (read.config().map(|config| config.turn_secret).unwrap_or_default(), shown.0, shown.1)
    };
    let set = |value: &str, source: &str| (value.to_owned(), "set".to_owned(), source.to_owned());
    assert_eq!(secret(&[&credentials]), set("of the folder", "credential"));
    let by_file = "file named by flag --turn-secret-file";
    assert_eq!(secret(&[&file, &credentials]), set("of the file", by_file));
    assert_eq!(secret(&["--turn-secret=flag", &credentials]), set("flag", "flag --turn-secret"));
    assert_eq!(shown(&reading(&[]), "database-url"), ("not set".into(), "default".into()));

    let both = errors(&[urls, "--turn-secret=flag", &file]);
    assert!(both.len() == 1 && both[0].contains("both set"), "{both:?}");
    let empty = errors(&[urls, &format!("--turn-secret-file={}", folder.path("empty"))]);
    assert!(empty[0].contains("is empty"), "{empty:?}");
    let missing = errors(&[urls, &format!("--turn-secret-file={}", folder.path("none"))]);
    assert!(missing[0].contains("cannot be read"), "{missing:?}");
}

#[test]
fn the_report_names_every_setting_its_source_and_all_that_is_wrong() {
    let url = "--database-url=postgres://duet:s3cretpass@db/duet";
    let report =
        reading(&["check-config", url, "--data=/proc/version/x", "--shards=9", "--ping-timeout-ms=1"]).report();
    assert_eq!((report.code, report.is_answer), (2, true));
    for flag in FLAGS.iter().filter(|flag| flag.name != REDIS_URL) {
        assert!(report.text.lines().any(|line| line.starts_with(&format!("--{} ", flag.name))), "{}", flag.name);
    }
    assert!(!report.text.contains("s3cretpass"));
    assert!(report.text.contains("error: --data (DATA_DIR)") && report.text.contains("error: --ping-timeout-ms"));
    assert!(
        report.text.contains("warning: --shards") && report.text.ends_with("errors: 2, warnings: 2\n"),
        "{}",
        report.text
    );
    let json = reading(&["check-config", "--json", "--journal-mib=0", url]).report();
    let json: serde_json::Value = serde_json::from_str(&json.text).unwrap();
    assert_eq!(json["errors"].as_array().map(Vec::len), Some(0));
    let reloaded = |flag: &str| {
        let settings = json["settings"].as_array().unwrap();
        settings.iter().find(|setting| setting["flag"] == flag).unwrap()["reload"].clone()
    };
    assert_eq!((reloaded("allowed-origins"), reloaded("port")), (true.into(), false.into()));
    assert!(errors(&["--json"])[0].contains("--json is for"));
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
        assert!(default.is_empty() || exit.text.contains(&format!("[default: {default}]")), "{flag}");
        assert!(!help.is_empty());
    }
    let version = Config::from_args(["duet", "--version"]).err().expect("version");
    assert_eq!((version.code, version.text), (0, format!("duet {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn a_line_of_the_env_file_counts_where_neither_flag_nor_variable_is_set() {
    let lines = "# ours\n\nAPI_PER_MINUTE=7\nLOGINS_PER_HOUR=8\nLOGINS_PER_HOUR=9\nEVENT_RATE=\nPLAN=512mb\nTYPO=1\n";
    let folder = Folder::new("lines", &[("duet.env", lines)]);
    let file = format!("--env-file={}", folder.path("duet.env"));
    let read = reading(&[&file, "--api-per-minute=5"]);
    assert_eq!(shown(&read, "api-per-minute"), ("5".into(), "flag --api-per-minute".into()));
    assert_eq!(shown(&read, "logins-per-hour"), ("9".into(), "env file LOGINS_PER_HOUR".into()), "the last line");
    assert_eq!(shown(&read, "event-rate"), ("100".into(), "default".into()), "blank is none");
    assert_eq!(shown(&read, "connections-max").1, "plan 512mb");
    let strange: Vec<_> = read.warnings.iter().filter(|line| line.contains("TYPO")).collect();
    assert_eq!(strange.len(), 1, "{:?}", read.warnings);
    assert!(read.config().is_ok());
}

#[test]
fn what_is_wrong_with_an_env_file_is_told_by_line_and_its_values_are_not() {
    let lines = "TURN_SECRET='s3cret'\nnonsense s3cret\nENV_FILE=/s3cret\nPORT=s3cret\n";
    let folder = Folder::new("faults", &[("duet.env", lines)]);
    let lines = errors(&[&format!("--env-file={}", folder.path("duet.env"))]);
    assert_eq!(lines.len(), 4, "{lines:#?}");
    for (line, fault) in lines.iter().zip(["line 1", "line 2", "line 3", "--port (PORT)"]) {
        assert!(line.contains(fault), "{line}");
    }
    assert!(!lines[..3].concat().contains("s3cret"), "{lines:#?}");
    let missing = errors(&[&format!("--env-file={}", folder.path("none"))]);
    assert!(missing.len() == 1 && missing[0].contains("cannot be read"), "{missing:?}");
}

/// Settings by a file, and the file.
fn by_file(name: &str, lines: &str, words: &[&str]) -> (Config, Folder) {
    let folder = Folder::new(name, &[("duet.env", lines)]);
    let file = format!("--env-file={}", folder.path("duet.env"));
    let Ok(config) = parse(&[&[file.as_str()], words].concat()) else { panic!("all good") };
    (config, folder)
}

#[test]
fn a_reload_takes_over_what_can_change_and_keeps_the_rest() {
    let (config, folder) = by_file("reload", "LOG_LEVEL=info\nPORT=3001\n", &["--api-per-minute=5"]);
    let rewrite = |lines: &str| std::fs::write(folder.path("duet.env"), lines).unwrap();
    let Ok(same) = config.read_again() else { panic!("nothing is wrong") };
    assert_eq!((same.taken, same.waiting), (vec![], vec![]));

    rewrite("LOG_LEVEL=debug\nPORT=3002\nPLAN=512mb\nALLOWED_ORIGINS=https://a.example\nAPI_PER_MINUTE=9\n");
    let Ok(reload) = config.read_again() else { panic!("nothing is wrong") };
    assert_eq!(reload.taken, [ALLOWED_ORIGINS, "log"]);
    assert_eq!(reload.waiting, ["plan", "port"]);
    let changed = &reload.config;
    assert_eq!((changed.port, changed.plan.name, changed.log.as_str()), (3001, "1gb", "debug"));
    assert_eq!(changed.connections_max, config.connections_max, "the plan is as it was");
    assert_eq!(
        (changed.limits.api.max, changed.allowed_origins.as_slice()),
        (5, &["https://a.example".to_owned()][..])
    );

    rewrite("LOG_LEVEL=debug\nPORT=3002\n");
    let Ok(again) = reload.config.read_again() else { panic!("nothing is wrong") };
    assert_eq!((again.taken, again.waiting), (vec![ALLOWED_ORIGINS], vec!["port"]), "told until it is restarted");
    assert_eq!(again.config.allowed_origins, config.allowed_origins, "the default again");
}

#[test]
fn a_reload_with_anything_wrong_in_it_is_refused_whole() {
    let (config, folder) = by_file("refused", "LOG_LEVEL=info\n", &[]);
    std::fs::write(folder.path("duet.env"), "LOG_LEVEL=debug\nEVENT_RATE=many\nSHARDS=none\n").unwrap();
    let refused = config.read_again().err().expect("refused");
    assert_eq!(refused.len(), 2, "{refused:?}");
    std::fs::remove_file(folder.path("duet.env")).unwrap();
    let refused = config.read_again().err().expect("refused");
    assert!(refused.len() == 1 && refused[0].contains("cannot be read"), "{refused:?}");
}

#[test]
fn a_secret_that_changes_within_its_file_is_taken_over_and_a_database_is_not() {
    let files = [("secret", "of the start"), ("database", "postgres://ann@db.example/duet"), ("duet.env", "")];
    let folder = Folder::new("rotation", &files);
    let [secret, database] = ["secret", "database"].map(|name| folder.path(name));
    let lines = format!("TURN_URLS=turn:a\nTURN_SECRET_FILE={secret}\nDATABASE_URL_FILE={database}\n");
    std::fs::write(folder.path("duet.env"), lines).unwrap();
    let Ok(config) = parse(&[&format!("--env-file={}", folder.path("duet.env"))]) else { panic!("all good") };
    std::fs::write(folder.path("secret"), "of today").unwrap();
    std::fs::write(folder.path("database"), "postgres://ann@other.example/duet").unwrap();
    for _ in 0..2 {
        let Ok(reload) = config.read_again() else { panic!("nothing is wrong") };
        assert_eq!((reload.taken, reload.waiting), (vec![TURN_SECRET], vec![DATABASE_URL]));
        assert_eq!(reload.config.turn_secret, "of today");
        assert!(reload.config.database == config.database);
    }
}

#[test]
fn connections_stay_within_the_descriptors_of_the_start() {
    let folder = Folder::new("descriptors", &[("duet.env", "CONNECTIONS_MAX=100\n")]);
    let few = System { descriptors: 4_096, ..System::of_tests() };
    let file = format!("--env-file={}", folder.path("duet.env"));
    let Ok(config) = reading_on(few, &[&file]).config() else { panic!("all good") };
    std::fs::write(folder.path("duet.env"), "CONNECTIONS_MAX=5000\n").unwrap();
    let Ok(reload) = config.read_again() else { panic!("it goes on with fewer") };
    assert_eq!((reload.config.connections_max, reload.taken), (3_808, vec!["connections-max"]));
    assert!(reload.config.warnings.iter().any(|line| line.contains("LimitNOFILE")), "{:?}", reload.config.warnings);
}

#[test]
fn what_a_reload_changes_are_settings() {
    let names: Vec<_> = LIVE.iter().map(|name| find(name).name).collect();
    assert_eq!(names, LIVE);
    let (_, _, _, help) = settings_table().into_iter().find(|(flag, ..)| flag == "--env-file").unwrap();
    assert!(help.contains("SIGHUP"), "{help}");
}

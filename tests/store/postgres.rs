//! The suite on Postgres, and the facts about its schema, TLS, concurrency and a server that goes away.
//!
//! `DUET_TEST_POSTGRES` holds the URL of a server where databases may be made (`tests/postgres start`); each test has
//! databases of its own there. A server that goes away is a proxy that cuts or stalls.

#![allow(clippy::disallowed_methods, reason = "no shard runs here, and what is measured is real time")]

mod archive;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use duet::base::{Random, UserId};
use duet::message::store::{Reply, Request};
use duet::store::postgres::{Address, Settings};
use duet::store::{self, Handle, OpenError};
use futures_lite::future::block_on;
use tokio_postgres::NoTls;

use super::proxy::Proxy;
use super::schema;
use super::suite::FACTS;
use super::world::{Fact, LATER, NOW, Person, World};

/// A database that goes away at the end of the test.
pub struct Database {
    url: String,
    name: String,
}

pub fn server() -> String {
    std::env::vars()
        .find(|(name, _)| name == "DUET_TEST_POSTGRES")
        .expect("DUET_TEST_POSTGRES must be the URL of a server: see tests/postgres")
        .1
}

fn with_database(url: &str, name: &str) -> String {
    format!("{}/{name}", url.rsplit_once('/').unwrap().0)
}

/// Runs statements on a connection of their own; the rows that the last one changed or gave.
fn sql(url: &str, text: &str) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, driver) = tokio_postgres::connect(url, NoTls).await.unwrap();
        let driver = tokio::spawn(driver);
        let messages = client.simple_query(text).await.unwrap();
        driver.abort();
        messages.iter().fold(0, |rows, message| match message {
            tokio_postgres::SimpleQueryMessage::CommandComplete(rows) => *rows,
            _ => rows,
        })
    })
}

impl Database {
    pub fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}_{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        sql(&server(), &format!("CREATE DATABASE {name}"));
        Self { url: with_database(&server(), &name), name }
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    pub fn sql(&self, text: &str) -> u64 {
        sql(&self.url, text)
    }

    /// The same database through another port, or with more to its URL.
    pub fn elsewhere(&self, port: u16) -> String {
        let (before, rest) = self.url.rsplit_once(':').unwrap();
        format!("{before}:{port}/{}", rest.split_once('/').unwrap().1)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        sql(&server(), &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
    }
}

pub fn settings(url: &str) -> Settings {
    Settings::new(Address::decode(url).unwrap())
}

pub fn try_open(settings: Settings) -> Result<Handle, OpenError> {
    store::open(&store::Settings::Postgres(Box::new(settings)), Arc::new(|| NOW))
}

fn open(url: &str) -> Handle {
    try_open(settings(url)).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(url: &str) -> OpenError {
    try_open(settings(url)).err().expect("it must not open")
}

pub fn world<'a>(handle: &Handle, plant: &'a dyn Fn(Fact)) -> World<'a> {
    World { link: handle.link(), random: Random::from_seed(7), plant }
}

fn plant(database: &Database, fact: Fact) {
    let changed = database.sql(&match fact {
        Fact::Referral { code, target, creator } => {
            format!("INSERT INTO referral_codes VALUES ('{code}', '{target}', 'Target', '{creator}', 'Introducer', 0)")
        }
        Fact::InviteCode { code, uses, active } => {
            let (kind, most) = if uses.is_some() { ("user", "4") } else { ("admin", "NULL") };
            let uses = uses.map_or("NULL".to_owned(), |uses| uses.to_string());
            format!("INSERT INTO invite_codes VALUES ('{code}', '{kind}', {most}, {uses}, {active}, NULL, 'Admin', 0)")
        }
        Fact::Report { reporter, reported } => format!(
            "INSERT INTO reports VALUES (gen_random_uuid(), '{reporter}', 'Ann', '::1', '{reported}', 'Bob', NULL, NULL,
                 'rude', NULL, 0)"
        ),
        Fact::Ban { user } => format!("UPDATE users SET ban_status = 'temporary' WHERE user_id = '{user}'"),
        Fact::Gone { user } => format!("DELETE FROM users WHERE user_id = '{user}'"),
        Fact::Restored { user } => format!(
            "WITH back AS (DELETE FROM chat_history_archive WHERE user_id = '{user}' RETURNING *)
             INSERT INTO chat_history SELECT * FROM back"
        ),
    });
    assert_eq!(changed, 1);
}

#[test]
#[ignore = "run by tests/run, with a server in DUET_TEST_POSTGRES"]
fn postgres_obeys_the_suite() {
    for (name, fact) in FACTS {
        println!("{name}");
        let database = Database::new();
        let handle = open(&database.url);
        fact(&mut world(&handle, &|fact| plant(&database, fact)));
        handle.stop();
    }
}

#[test]
#[ignore = "run by tests/run, with a server in DUET_TEST_POSTGRES"]
fn the_suite_holds_on_the_fewest_connections() {
    for (name, fact) in FACTS {
        println!("{name}");
        let database = Database::new();
        let handle = try_open(Settings { connections: 2, ..settings(&database.url) }).unwrap();
        fact(&mut world(&handle, &|fact| plant(&database, fact)));
        handle.stop();
    }
}

#[test]
#[ignore = "run by tests/run, with a server in DUET_TEST_POSTGRES"]
fn stores_that_open_an_empty_database_together_migrate_it_once() {
    let database = Database::new();
    let opening: Vec<_> = (0..6)
        .map(|_| {
            let url = database.url.clone();
            std::thread::spawn(move || open(&url))
        })
        .collect();
    opening.into_iter().for_each(|opening| opening.join().unwrap().stop());
    assert_eq!(database.sql("SELECT version FROM schema_migrations"), 4, "one row for each migration");
}

#[test]
#[ignore = "run by tests/run, with a server in DUET_TEST_POSTGRES"]
fn a_newer_schema_is_refused() {
    let database = Database::new();
    open(&database.url).stop();
    database.sql("INSERT INTO schema_migrations (version) VALUES (99)");
    let error = refusal(&database.url);
    assert!(matches!(error, OpenError::NewerDatabase { found: 99, .. }), "{error:?}");
    assert_eq!(error.to_string().lines().count(), 1);
}

#[test]
#[ignore = "run by tests/run, with a server in DUET_TEST_POSTGRES"]
fn a_database_of_schema_1_is_migrated_with_all_that_is_in_it() {
    let database = Database::new();
    database.sql(include_str!("../../migrations/postgres/0001_start.sql"));
    database.sql(
        "CREATE TABLE schema_migrations (version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now());
         INSERT INTO schema_migrations (version) VALUES (1)",
    );
    let bytes = |byte: u8, count| format!("{byte:02x}").repeat(count);
    let hash = format!("'\\x{}'", bytes(7, 32));
    database.sql(&schema::rows(|number| format!("uuid '{}'", bytes(number, 16)), &hash, "true"));
    let dump = || {
        let rows = |table| format!("SELECT string_agg(each::text, E'\n' ORDER BY each::text) FROM {table} AS each");
        schema::TABLES.map(|table| sql_text(&database.url, &rows(table)))
    };
    let before = dump();
    let handle = open(&database.url);
    assert_eq!(dump(), before);
    assert!(database.sql("SELECT version FROM schema_migrations") > 1);
    schema::serves(&world(&handle, &|_| ()));
    handle.stop();
}

#[test]
#[ignore = "run by tests/run, with a server in DUET_TEST_POSTGRES"]
fn what_keeps_it_from_opening_is_one_line_without_the_password() {
    let password = server().split([':', '@']).nth(2).unwrap().to_owned();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let database = Database::new();
    let wrong = database.url.replace(&password, "wrong");
    for (url, expected) in [
        (database.elsewhere(closed), "Connection refused"),
        (with_database(&database.url, "nosuch"), "does not exist"),
        (wrong, "password authentication failed"),
    ] {
        let error = refusal(&url);
        let text = error.to_string();
        assert!(matches!(error, OpenError::Unreachable { .. }), "{error:?}");
        assert!(text.contains(expected) && text.lines().count() == 1, "{text}");
        assert!(!text.contains(&password) && !text.contains("wrong"), "{text}");
    }
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = database.elsewhere(mute.local_addr().unwrap().port());
    let error = try_open(Settings { connect_ms_max: 300, ..settings(&url) }).err().expect("nobody answers");
    assert!(error.to_string().contains("no answer within 300 ms"), "{error}");
}

#[test]
#[ignore = "run by tests/run, with a server in DUET_TEST_POSTGRES"]
fn tls_is_as_distrustful_as_sslmode_asks() {
    let database = Database::new();
    let roots = format!("{}/tls/ca.pem", folder());
    let named = database.url.replace("127.0.0.1", "localhost");
    let opens = |url: &str, query: &str| try_open(settings(&format!("{url}?{query}"))).map(Handle::stop);
    for query in ["sslmode=disable", "sslmode=prefer", "sslmode=require"] {
        opens(&database.url, query).unwrap_or_else(|error| panic!("{query}: {error}"));
    }
    let trusting = format!("sslrootcert={roots}");
    opens(&database.url, &format!("sslmode=require&{trusting}")).unwrap();
    opens(&database.url, &format!("sslmode=verify-ca&{trusting}")).unwrap();
    opens(&named, &format!("sslmode=verify-full&{trusting}")).unwrap();
    for (url, query) in [
        (&database.url, format!("sslmode=verify-full&{trusting}")),
        (&named, "sslmode=verify-full&sslrootcert=system".to_owned()),
        (&named, "sslmode=verify-ca".to_owned()),
        (&named, "sslmode=verify-full&sslrootcert=/nosuch.pem".to_owned()),
    ] {
        let error = opens(url, &query).expect_err(&query);
        assert_eq!(error.to_string().lines().count(), 1, "{error}");
    }
    // What it is that stands open is asked of the server itself.
    let handle = open(&format!("{}?sslmode=require", database.url));
    let encrypted = "SELECT FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
         WHERE ssl AND application_name = 'duet' AND datname = current_database()";
    assert!(database.sql(encrypted) > 0);
    handle.stop();
}

/// The folder of the server, which `tests/postgres` has made.
fn folder() -> String {
    let url = server();
    sql_text(&url, "SHOW data_directory").trim_end_matches("/data").to_owned()
}

fn sql_text(url: &str, text: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, driver) = tokio_postgres::connect(url, NoTls).await.unwrap();
        let driver = tokio::spawn(driver);
        let row = client.query_one(text, &[]).await.unwrap();
        driver.abort();
        row.get(0)
    })
}

#[test]
#[ignore = "run by tests/run, with a server in DUET_TEST_POSTGRES"]
fn two_processes_keep_the_rules_between_them() {
    let database = Database::new();
    let (one, two) = (open(&database.url), open(&database.url));
    let plant = |fact| plant(&database, fact);
    let mut world = world(&one, &plant);
    (world.plant)(Fact::InviteCode { code: "FOURTIMES", uses: Some(4), active: true });
    let people: Vec<_> = (0..16).map(|_| world.person()).collect();
    let link = |number: usize| if number.is_multiple_of(2) { one.link() } else { two.link() };
    let asked: Vec<_> = people
        .iter()
        .enumerate()
        .map(|(number, person)| {
            let mut sign_up = person.sign_up();
            sign_up.invite_code = Some("FOURTIMES".to_owned());
            link(number).ask(Request::SignUp(Box::new(sign_up)))
        })
        .collect();
    let made = asked.into_iter().map(|pending| block_on(pending).unwrap());
    assert_eq!(made.filter(|reply| matches!(reply, Reply::SignedUp(_))).count(), 4);
    let ann = world.permanent("ann@example.org");
    let logins: Vec<_> = (0..16)
        .map(|number| {
            let session = ann.new_session(world.person().token);
            link(number).ask(Request::LogIn { user: ann.id, session, now: NOW })
        })
        .collect();
    assert!(logins.into_iter().all(|pending| matches!(block_on(pending), Ok(Reply::LoggedIn { .. }))));
    assert_eq!(database.sql(&format!("SELECT FROM sessions WHERE user_id = '{}' AND is_active", ann.id)), 1);
    let (bob, eve) = (world.guest(), world.guest());
    let call = world.call(bob, eve);
    let finishes: Vec<_> =
        (0..16).map(|number| link(number).ask(Request::FinishCall(Box::new(call.clone())))).collect();
    for pending in finishes {
        assert!(matches!(block_on(pending), Ok(Reply::Finished { caller, .. }) if caller.session_count == 1));
    }
    one.stop();
    two.stop();
}

/// Asks until the store serves again.
pub fn recovered(world: &World<'_>, person: Person) -> Duration {
    let from = Instant::now();
    while !matches!(world.ask(Request::Profile { user: person.id }), Reply::Profile(Some(_))) {
        assert!(from.elapsed() < Duration::from_secs(15), "it does not recover");
        std::thread::sleep(Duration::from_millis(5));
    }
    from.elapsed()
}

#[test]
#[ignore = "run by tests/run, with a server in DUET_TEST_POSTGRES"]
fn a_database_that_is_away_fails_at_once_and_comes_back_by_itself() {
    let (database, proxy) = (Database::new(), Proxy::start(&server()));
    let handle = open(&format!("{}?sslmode=disable", database.elsewhere(proxy.port)));
    let mut world = world(&handle, &|_| ());
    let ann = world.guest();
    proxy.cut(true);
    while !matches!(world.ask(Request::Profile { user: ann.id }), Reply::Away) {}
    let from = Instant::now();
    for _ in 0..1_000 {
        assert!(matches!(world.ask(Request::Profile { user: ann.id }), Reply::Away));
    }
    println!("{:?} for a refusal", from.elapsed() / 1_000);
    assert!(from.elapsed() < Duration::from_millis(1_000), "{:?} for 1,000 refusals", from.elapsed());
    proxy.set(&proxy.faults.refuses, false);
    recovered(&world, ann);
    world.guest();
    proxy.cut(false);
    assert!(recovered(&world, ann) < Duration::from_secs(2), "a short loss is mended at once");
    handle.stop();
}

#[test]
#[ignore = "run by tests/run, with a server in DUET_TEST_POSTGRES"]
fn a_database_that_stalls_costs_each_request_a_bounded_time() {
    let (database, proxy) = (Database::new(), Proxy::start(&server()));
    let url = format!("{}?sslmode=disable", database.elsewhere(proxy.port));
    let bounds = Settings { connect_ms_max: 400, query_ms_max: 300, ..settings(&url) };
    let handle = try_open(bounds).unwrap();
    let mut world = world(&handle, &|_| ());
    let ann = world.guest();
    proxy.set(&proxy.faults.stalls, true);
    let from = Instant::now();
    let people: Vec<_> = (0..40).map(|_| world.person()).collect();
    let writes: Vec<_> =
        people.iter().map(|person| world.link.ask(Request::SignUp(Box::new(person.sign_up())))).collect();
    let reads: Vec<_> = (0..40).map(|_| world.link.ask(Request::Profile { user: ann.id })).collect();
    assert!(writes.into_iter().all(|pending| !matches!(block_on(pending), Ok(Reply::SignedUp(_)))));
    assert!(reads.into_iter().all(|pending| !matches!(block_on(pending), Ok(Reply::Profile(_)))));
    assert!(from.elapsed() < Duration::from_secs(4), "{:?}", from.elapsed());
    proxy.set(&proxy.faults.stalls, false);
    recovered(&world, ann);
    people.iter().for_each(|person| drop(world.signed_up(person.sign_up())));
    handle.stop();
}

#[test]
#[ignore = "run by tests/run, with a server in DUET_TEST_POSTGRES"]
fn a_finish_whose_commit_was_not_answered_counts_once_when_it_is_repeated() {
    let (database, proxy) = (Database::new(), Proxy::start(&server()));
    let handle = open(&format!("{}?sslmode=disable", database.elsewhere(proxy.port)));
    let mut world = world(&handle, &|_| ());
    for round in 1..=8 {
        let (ann, bob) = (world.guest(), world.guest());
        let call = world.call(ann, bob);
        proxy.set(&proxy.faults.swallows_commits, true);
        let lost = block_on(world.link.ask(Request::FinishCall(Box::new(call.clone()))));
        assert!(lost.is_err(), "nobody knows in round {round}: {lost:?}");
        recovered(&world, ann);
        let stored = format!("SELECT FROM chat_history WHERE room_id = '{}'", call.call);
        assert_eq!(database.sql(&stored), 2, "the commit was done, only its answer was lost");
        let (caller, callee) = finished_at_last(&world, &call);
        assert_eq!((caller, callee), (1, 1), "in round {round}");
        assert_eq!(database.sql(&stored), 2);
        assert_eq!(database.sql(&format!("SELECT FROM session_completions WHERE room_id = '{}'", call.call)), 2);
        let completions = "SELECT FROM users WHERE successful_sessions = 1 AND user_id IN";
        assert_eq!(database.sql(&format!("{completions} ('{}', '{}')", ann.id, bob.id)), 2);
    }
    handle.stop();
}

/// The session counts after a finish that is repeated until it is answered.
fn finished_at_last(world: &World<'_>, call: &duet::message::store::FinishedCall) -> (u64, u64) {
    loop {
        let finished = block_on(world.link.ask(Request::FinishCall(Box::new(call.clone()))));
        if let Ok(Reply::Finished { caller, callee }) = finished {
            return (caller.session_count, callee.session_count);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Does `work` while somebody else holds what `statement` locks.
fn while_held(database: &Database, statement: &str, work: impl FnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, driver) = tokio_postgres::connect(&database.url, NoTls).await.unwrap();
        tokio::spawn(driver);
        client.batch_execute(&format!("BEGIN; {statement}")).await.unwrap();
        work();
        client.batch_execute("ROLLBACK").await.unwrap();
    });
}

#[test]
#[ignore = "run by tests/run, with a server in DUET_TEST_POSTGRES"]
fn a_lock_held_from_outside_fails_the_write_in_time_and_reads_go_on() {
    let database = Database::new();
    let handle = try_open(Settings { query_ms_max: 300, ..settings(&database.url) }).unwrap();
    let mut world = world(&handle, &|_| ());
    let (ann, bob) = (world.guest(), world.guest());
    let pair = (ann.id, bob.id);
    while_held(&database, "LOCK TABLE cooldowns IN ACCESS EXCLUSIVE MODE", || {
        let write = world.link.ask(Request::SetCooldown { pair, until: LATER });
        let read = world.link.ask(Request::Profile { user: UserId::from_bytes([9; 16]) });
        assert!(matches!(block_on(read), Ok(Reply::Profile(None))));
        assert!(matches!(block_on(write), Ok(Reply::Failed(reason)) if reason.contains("statement timeout")));
    });
    assert!(matches!(world.ask(Request::SetCooldown { pair, until: LATER }), Reply::Done));
    handle.stop();
}

#[test]
#[ignore = "run by tests/run, with a server in DUET_TEST_POSTGRES"]
fn stop_serves_what_was_accepted() {
    let database = Database::new();
    let handle = open(&database.url);
    let (link, mut random) = (handle.link(), Random::from_seed(7));
    let people: Vec<_> = (0..500).map(|_| Person::draw(&mut random)).collect();
    let from = Instant::now();
    let pending: Vec<_> = people.iter().map(|person| link.ask(Request::SignUp(Box::new(person.sign_up())))).collect();
    handle.stop();
    println!("{:.0} sign-ups a second", 500.0 / from.elapsed().as_secs_f64());
    assert!(pending.into_iter().all(|reply| matches!(block_on(reply), Ok(Reply::SignedUp(_)))));
    assert_eq!(database.sql("SELECT FROM sessions"), 500);
}

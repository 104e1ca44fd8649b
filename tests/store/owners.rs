//! Facts about running calls on a Postgres that several processes share: each call has one owner, who lives.

#![allow(clippy::disallowed_methods, reason = "no shard runs here")]

use std::time::Duration;

use duet::base::CallId;
use duet::message::store::{CallOwner, CallProgress, FinishedCall, InstanceId, Reply, Request};
use duet::store::Handle;

use super::postgres::{Database, server, settings, try_open, world};
use super::proxy::Proxy;
use super::running::{page, start, started_as};
use super::world::World;

fn open(url: &str) -> Handle {
    try_open(settings(url)).unwrap_or_else(|error| panic!("{error}"))
}

fn owners(world: &World<'_>) -> Vec<CallOwner> {
    match world.ask(Request::CallOwners) {
        Reply::CallOwners(Some(owners)) => owners,
        other => panic!("{other:?}"),
    }
}

/// Takes what nobody has, and what others that are gone have left; what this process has got in that round.
pub fn taken(world: &World<'_>, round: i32) -> Vec<CallId> {
    let missed: Vec<InstanceId> = owners(world).iter().filter_map(|owner| owner.instance).collect();
    assert!(matches!(world.ask(Request::TakeCalls { round, missed }), Reply::Done));
    match world.ask(Request::RunningCalls { round, after: None, limit: 99 }) {
        Reply::RunningCalls { calls, .. } => calls.iter().map(|call| call.call).collect(),
        other => panic!("{other:?}"),
    }
}

/// A call of two new people that runs at this store's process.
fn call(world: &mut World<'_>) -> FinishedCall {
    let (ann, bob) = (world.guest(), world.guest());
    let call = world.call(ann, bob);
    start(world, &started_as(&call));
    call
}

#[test]
#[ignore = "run by tests/run, with a server in DUET_TEST_POSTGRES"]
fn calls_of_one_who_lives_are_left_alone_and_those_he_lets_go_of_are_taken_once() {
    let database = Database::new();
    let (old, new, other) = (open(&database.url()), open(&database.url()), open(&database.url()));
    let (mut at_old, at_new, at_other) = (world(&old, &|_| ()), world(&new, &|_| ()), world(&other, &|_| ()));
    let calls = [call(&mut at_old).call, call(&mut at_old).call];
    assert_eq!(owners(&at_new).iter().filter(|owner| owner.is_alive).count(), 2);
    assert!(taken(&at_new, 1).is_empty());
    drop(at_old);
    old.stop();
    assert!(owners(&at_new).iter().any(|owner| owner.instance.is_none()), "an orderly stop lets go");
    let mut found = taken(&at_new, 2);
    assert!(taken(&at_other, 1).is_empty());
    found.sort_unstable();
    let mut expected = calls.to_vec();
    expected.sort_unstable();
    assert_eq!(found, expected);
    let again = match at_new.ask(Request::RunningCalls { round: 2, after: None, limit: 9 }) {
        Reply::RunningCalls { calls, .. } => calls.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!((again, taken(&at_new, 3).len()), (2, 0), "a round that is repeated tells the same");
    new.stop();
    other.stop();
}

#[test]
#[ignore = "run by tests/run, with a server in DUET_TEST_POSTGRES"]
fn two_who_take_at_the_same_time_share_what_there_is() {
    let database = Database::new();
    let old = open(&database.url());
    let mut at_old = world(&old, &|_| ());
    let calls: Vec<CallId> = (0..40).map(|_| call(&mut at_old).call).collect();
    drop(at_old);
    old.stop();
    let taking: Vec<_> = (0..4)
        .map(|_| {
            let url = database.url();
            std::thread::spawn(move || {
                let handle = open(&url);
                let found = taken(&world(&handle, &|_| ()), 1);
                (found, handle)
            })
        })
        .collect();
    let taken: Vec<_> = taking.into_iter().map(|taking| taking.join().unwrap()).collect();
    let mut found: Vec<CallId> = taken.iter().flat_map(|(found, _)| found.clone()).collect();
    found.sort_unstable();
    let mut expected = calls;
    expected.sort_unstable();
    assert_eq!(found, expected, "each once");
    taken.into_iter().for_each(|(_, handle)| handle.stop());
}

#[test]
#[ignore = "run by tests/run, with a server in DUET_TEST_POSTGRES"]
fn who_was_cut_off_loses_his_calls_and_what_he_says_of_them_is_passed_over() {
    let (database, proxy) = (Database::new(), Proxy::start(&server()));
    let old = open(&format!("{}?sslmode=disable", database.elsewhere(proxy.port)));
    let new = open(&database.url());
    let (mut at_old, at_new) = (world(&old, &|_| ()), world(&new, &|_| ()));
    let ended = call(&mut at_old);
    proxy.cut(true);
    while owners(&at_new).iter().any(|owner| owner.is_alive) {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(taken(&at_new, 1), [ended.call]);
    proxy.set(&proxy.faults.refuses, false);
    while !owners(&at_new).iter().any(|owner| owner.is_alive) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let progress = CallProgress { joined: vec![(ended.call, ended.caller)], ..CallProgress::default() };
    while !matches!(at_old.ask(Request::KeepCalls(Box::new(progress.clone()))), Reply::Done) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let (caller, _) = at_old.finished(&ended);
    assert_eq!(caller.session_count, 0, "not his to end");
    let row = "SELECT FROM running_calls WHERE NOT caller_joined";
    assert_eq!((database.sql(row), database.sql("SELECT FROM chat_history")), (1, 0));
    let (caller, callee) = at_new.finished(&ended);
    assert_eq!((caller.session_count, callee.session_count), (1, 1));
    assert_eq!(at_old.finished(&ended), (caller, callee));
    assert_eq!((database.sql("SELECT FROM running_calls"), database.sql("SELECT FROM chat_history")), (0, 2));
    old.stop();
    new.stop();
}

#[test]
#[ignore = "run by tests/run, with a server in DUET_TEST_POSTGRES"]
fn a_call_that_an_earlier_version_has_left_is_taken() {
    let database = Database::new();
    for migration in [
        include_str!("../../migrations/postgres/0001_start.sql"),
        include_str!("../../migrations/postgres/0002_archive.sql"),
        include_str!("../../migrations/postgres/0003_running_calls.sql"),
    ] {
        database.sql(migration);
    }
    let id = |number: u8| format!("uuid '{}'", format!("{number:02x}").repeat(16));
    database.sql(&format!(
        "CREATE TABLE schema_migrations (version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now());
         INSERT INTO schema_migrations (version) VALUES (1), (2), (3);
         INSERT INTO users (user_id, name, gender, created_at, updated_at)
             VALUES ({ann}, 'Ann', 'female', 1, 1), ({bob}, 'Bob', 'male', 1, 1);
         INSERT INTO running_calls VALUES ({call}, {ann}, {bob}, 300, 1760000000000, true, false);
         INSERT INTO running_call_lines VALUES ({call}, 0,
             '{{\"from\":\"system\",\"text\":\"hello\",\"timestamp\":1760000000001,\"type\":\"message\"}}')",
        ann = id(1),
        bob = id(2),
        call = id(3),
    ));
    let handle = open(&database.url());
    let world = world(&handle, &|_| ());
    assert!(page(&world, None, 9).1.is_empty(), "it did not begin here");
    assert_eq!(taken(&world, 1), [CallId::from_bytes([3; 16])]);
    handle.stop();
}

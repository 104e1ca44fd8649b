//! Facts about the journal: what it keeps while a Postgres is away, and that the database has it once afterwards.

#![allow(clippy::disallowed_methods, reason = "no shard runs here")]

use std::time::Duration;

use duet::message::store::{FinishedCall, JournalStanding, Reply, Request, Standing};
use duet::store::journal;
use duet::store::postgres::Settings;
use futures_lite::future::block_on;

use super::owners;
use super::postgres::{Database, recovered, server, settings, try_open, world};
use super::proxy::Proxy;
use super::running;
use super::world::{Folder, LATER, NOW, Person, World};

/// Postgres behind a proxy, and a folder for the journal.
struct Scene {
    database: Database,
    proxy: Proxy,
    folder: Folder,
}

impl Scene {
    fn new() -> Self {
        Self { database: Database::new(), proxy: Proxy::start(&server()), folder: Folder::new() }
    }

    fn settings(&self, bytes_max: u64) -> Settings {
        let folder = self.folder.path().to_owned();
        let journal = Some(journal::Settings { folder, queue_len_max: 1024, bytes_max });
        let url = format!("{}?sslmode=disable", self.database.elsewhere(self.proxy.port));
        Settings { journal, connect_ms_max: 1_000, query_ms_max: 500, ..settings(&url) }
    }

    fn open(&self) -> duet::store::Handle {
        try_open(self.settings(1024 * 1024)).unwrap_or_else(|error| panic!("{error}"))
    }

    fn journal(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.folder.path().join("journal.db")).unwrap()
    }

    /// The call is in the history, the completions and the totals of both, once.
    fn has_once(&self, call: &FinishedCall) {
        let count = |table: &str| self.database.sql(&format!("SELECT FROM {table} WHERE room_id = '{}'", call.call));
        assert_eq!((count("chat_history"), count("session_completions")), (2, 2));
        let totals = format!(
            "SELECT FROM users WHERE session_count = 1 AND successful_sessions = 1 AND user_id IN ('{}', '{}')",
            call.caller, call.callee
        );
        assert_eq!(self.database.sql(&totals), 2);
    }
}

fn standing(world: &World<'_>) -> Standing {
    match world.ask(Request::Standing) {
        Reply::Standing(standing) => standing,
        other => panic!("{other:?}"),
    }
}

fn waiting(world: &World<'_>) -> JournalStanding {
    standing(world).journal.expect("there is a journal")
}

fn until_away(world: &World<'_>, person: Person) {
    while !matches!(world.ask(Request::Profile { user: person.id }), Reply::Away) {
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn journaled(world: &World<'_>, request: Request) {
    let reply = world.ask(request);
    assert!(matches!(reply, Reply::Journaled), "{reply:?}");
}

#[test]
#[ignore = "run by tests/run, with a server in DUET_TEST_POSTGRES"]
fn what_ends_while_the_database_is_away_is_there_once_when_it_is_back() {
    let scene = Scene::new();
    let handle = scene.open();
    let mut world = world(&handle, &|_| ());
    let (ann, bob) = (world.guest(), world.guest());
    let call = world.call(ann, bob);
    assert!(standing(&world).reachable);
    scene.proxy.cut(true);
    until_away(&world, ann);
    journaled(&world, Request::FinishCall(Box::new(call.clone())));
    journaled(&world, Request::FinishCall(Box::new(call.clone())));
    journaled(&world, Request::SetCooldown { pair: (ann.id, bob.id), until: LATER });
    assert_eq!(waiting(&world), JournalStanding { waiting: 3, refused: 0 });
    assert!(!standing(&world).reachable);
    let sign_up = world.person().sign_up();
    assert!(matches!(world.ask(Request::SignUp(Box::new(sign_up))), Reply::Away));
    scene.proxy.set(&scene.proxy.faults.refuses, false);
    recovered(&world, ann);
    // What was read first was read after the journal.
    let pair = world.pair(ann, bob, NOW).expect("both are there");
    assert_eq!(pair.cooldown_until, Some(LATER));
    scene.has_once(&call);
    assert_eq!(waiting(&world), JournalStanding { waiting: 0, refused: 0 });
    assert!(standing(&world).reachable);
    handle.stop();
}

#[test]
#[ignore = "run by tests/run, with a server in DUET_TEST_POSTGRES"]
fn a_journal_outlives_its_process_and_a_repeat_of_what_was_applied() {
    let scene = Scene::new();
    let handle = scene.open();
    let mut first = world(&handle, &|_| ());
    let (ann, bob) = (first.guest(), first.guest());
    let call = first.call(ann, bob);
    scene.proxy.cut(true);
    until_away(&first, ann);
    journaled(&first, Request::FinishCall(Box::new(call.clone())));
    drop(first);
    handle.stop();
    // As if a kill had come between the database's commit and the removal.
    let again = "INSERT INTO waiting (request) SELECT request FROM waiting";
    assert_eq!(scene.journal().execute(again, []).unwrap(), 1);
    scene.proxy.set(&scene.proxy.faults.refuses, false);
    for _ in 0..2 {
        let handle = scene.open();
        let world = world(&handle, &|_| ());
        assert_eq!(world.profile(ann.id).metrics.session_count, 1);
        scene.has_once(&call);
        assert_eq!(waiting(&world).waiting, 0);
        handle.stop();
    }
}

#[test]
#[ignore = "run by tests/run, with a server in DUET_TEST_POSTGRES"]
fn a_call_whose_end_waits_in_the_journal_does_not_run_for_the_next_process() {
    let scene = Scene::new();
    let handle = scene.open();
    let mut first = world(&handle, &|_| ());
    let (ann, bob) = (first.guest(), first.guest());
    let call = first.call(ann, bob);
    let started = running::started_as(&call);
    running::start(&first, &started);
    assert_eq!(running::page(&first, None, 9).1.len(), 1);
    scene.proxy.cut(true);
    until_away(&first, ann);
    journaled(&first, Request::FinishCall(Box::new(call.clone())));
    assert!(matches!(first.ask(Request::StartCall(Box::new(started))), Reply::Away), "no call begins meanwhile");
    drop(first);
    handle.stop();
    scene.proxy.set(&scene.proxy.faults.refuses, false);
    let handle = scene.open();
    assert!(owners::taken(&world(&handle, &|_| ()), 1).is_empty(), "the journal came first");
    scene.has_once(&call);
    handle.stop();
}

#[test]
#[ignore = "run by tests/run, with a server in DUET_TEST_POSTGRES"]
fn a_database_that_stalls_leaves_ends_of_calls_to_the_journal_also_at_a_stop() {
    let scene = Scene::new();
    let handle = scene.open();
    let mut first = world(&handle, &|_| ());
    let (ann, bob, eve) = (first.guest(), first.guest(), first.guest());
    let (call, last) = (first.call(ann, bob), first.call(eve, eve));
    scene.proxy.set(&scene.proxy.faults.stalls, true);
    journaled(&first, Request::FinishCall(Box::new(call.clone())));
    let unanswered =
        first.link.ask(Request::FinishCall(Box::new(FinishedCall { caller: eve.id, callee: bob.id, ..last })));
    drop(first);
    handle.stop();
    assert!(matches!(block_on(unanswered), Ok(Reply::Journaled)));
    scene.proxy.set(&scene.proxy.faults.stalls, false);
    let handle = scene.open();
    let world = world(&handle, &|_| ());
    assert_eq!(world.profile(ann.id).metrics.session_count, 1);
    assert_eq!(world.profile(bob.id).metrics.session_count, 2);
    handle.stop();
}

#[test]
#[ignore = "run by tests/run, with a server in DUET_TEST_POSTGRES"]
fn a_full_journal_refuses_and_has_all_that_it_took() {
    let scene = Scene::new();
    let handle = try_open(scene.settings(64 * 1024)).unwrap();
    let mut world = world(&handle, &|_| ());
    let (ann, bob) = (world.guest(), world.guest());
    scene.proxy.cut(true);
    until_away(&world, ann);
    let mut taken = 0;
    let refusal = loop {
        let call = world.call(ann, bob);
        match world.ask(Request::FinishCall(Box::new(call))) {
            Reply::Journaled => taken += 1,
            other => break other,
        }
    };
    assert!(matches!(refusal, Reply::Away), "{refusal:?}");
    assert!(taken > 10, "{taken}");
    scene.proxy.set(&scene.proxy.faults.refuses, false);
    recovered(&world, ann);
    assert_eq!(world.profile(ann.id).metrics.session_count, taken);
    handle.stop();
}

#[test]
#[ignore = "run by tests/run, with a server in DUET_TEST_POSTGRES"]
fn what_the_database_refuses_is_kept_aside_and_holds_up_nothing() {
    let scene = Scene::new();
    let handle = scene.open();
    let mut world = world(&handle, &|_| ());
    let (ann, bob, eve) = (world.guest(), world.guest(), world.guest());
    scene.proxy.cut(true);
    until_away(&world, ann);
    let (before, after) = (world.call(ann, bob), world.call(ann, eve));
    // Postgres has no text with a zero.
    let bad = FinishedCall { callee_name: "\0".to_owned(), ..world.call(bob, eve) };
    for call in [&before, &bad, &after] {
        journaled(&world, Request::FinishCall(Box::new(call.clone())));
    }
    scene.proxy.set(&scene.proxy.faults.refuses, false);
    recovered(&world, ann);
    assert_eq!(world.profile(ann.id).metrics.session_count, 2);
    assert_eq!(world.profile(bob.id).metrics.session_count, 1);
    assert_eq!(waiting(&world), JournalStanding { waiting: 0, refused: 1 });
    handle.stop();
    let kept: String = scene.journal().query_row("SELECT request FROM refused", [], |row| row.get(0)).unwrap();
    assert!(kept.contains(&bad.call.to_string()));
}

//! Archiving on Postgres, where several processes and others may be at the same rows.

use duet::message::store::{Reply, Request};
use futures_lite::future::block_on;

use super::{Database, LATER, NOW, open, while_held, world};

/// Fills the history of everybody with calls that ended at the times 1, 2 and so on.
fn fill_history(database: &Database, calls: u32) {
    database.sql(&format!(
        "INSERT INTO chat_history (session_id, user_id, partner_id, partner_name, room_id, started_at, duration, messages,
             created_at)
         SELECT 'session-' || n, user_id, user_id, 'Bob', user_id, n, 60, json_build_array(n), n
         FROM users, generate_series(1, {calls}) AS n"
    ));
}

#[test]
#[ignore = "run by tests/run, with a server in DUET_TEST_POSTGRES"]
fn two_processes_that_archive_at_once_move_each_row_once() {
    let database = Database::new();
    let (one, two) = (open(&database.url), open(&database.url));
    let mut world = world(&one, &|_| ());
    for _ in 0..20 {
        world.guest();
    }
    fill_history(&database, 50);
    let mut archived = [0, 0];
    while database.sql("SELECT FROM chat_history") > 0 {
        let asked = [&one, &two].map(|store| store.link().ask(Request::Archive { before: NOW }));
        for (archived, pending) in archived.iter_mut().zip(asked) {
            match block_on(pending) {
                Ok(Reply::Archived { rows }) => *archived += rows,
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(archived[0] > 0 && archived[1] > 0, "{archived:?}");
    assert_eq!((archived[0] + archived[1], database.sql("SELECT FROM chat_history_archive")), (1_000, 1_000));
    one.stop();
    two.stop();
}

#[test]
#[ignore = "run by tests/run, with a server in DUET_TEST_POSTGRES"]
fn an_archiving_that_is_cut_off_loses_nothing_and_doubles_nothing() {
    let database = Database::new();
    let handle = open(&database.url);
    let mut world = world(&handle, &|_| ());
    for _ in 0..20 {
        world.guest();
    }
    fill_history(&database, 50);
    let kept = "SELECT FROM (SELECT session_id, user_id, messages::text FROM chat_history
         UNION ALL SELECT session_id, user_id, messages::text FROM chat_history_archive) AS every";
    let distinct = kept.replacen("SELECT", "SELECT DISTINCT session_id, user_id, messages", 1);
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE application_name = 'duet' AND datname = current_database()";
    for round in 0.. {
        if database.sql("SELECT FROM chat_history") == 0 {
            break;
        }
        let asked: Vec<_> = (0..3).map(|_| world.link.ask(Request::Archive { before: NOW })).collect();
        if round < 8 {
            database.sql(cut);
        }
        // Whatever they hear.
        asked.into_iter().for_each(|pending| drop(block_on(pending)));
        assert_eq!((database.sql(kept), database.sql(&distinct)), (1_000, 1_000));
    }
    assert_eq!(database.sql("SELECT FROM chat_history_archive"), 1_000);
    handle.stop();
}

#[test]
#[ignore = "run by tests/run, with a server in DUET_TEST_POSTGRES"]
fn a_finish_that_is_repeated_while_its_call_is_archived_counts_nothing() {
    let database = Database::new();
    let (one, two) = (open(&database.url), open(&database.url));
    let mut world = world(&one, &|_| ());
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let (ann, bob) = (world.guest(), world.guest());
            world.call(ann, bob)
        })
        .collect();
    calls.iter().for_each(|call| drop(world.finished(call)));
    let repeats: Vec<_> = calls
        .iter()
        .enumerate()
        .map(|(number, call)| {
            let archive = number.is_multiple_of(10).then(|| one.link().ask(Request::Archive { before: LATER }));
            (two.link().ask(Request::FinishCall(Box::new(call.clone()))), archive)
        })
        .collect();
    for (repeat, archive) in repeats {
        assert!(matches!(block_on(repeat), Ok(Reply::Finished { caller, callee })
            if (caller.session_count, callee.session_count) == (1, 1)));
        assert!(archive.is_none_or(|archive| matches!(block_on(archive), Ok(Reply::Archived { .. }))));
    }
    world.archive(LATER);
    assert_eq!(database.sql("SELECT FROM chat_history_archive"), 200);
    one.stop();
    two.stop();
}

#[test]
#[ignore = "run by tests/run, with a server in DUET_TEST_POSTGRES"]
fn archiving_passes_over_what_somebody_works_on() {
    let database = Database::new();
    let handle = open(&database.url);
    let mut world = world(&handle, &|_| ());
    let (ann, _) = (world.guest(), world.guest());
    fill_history(&database, 10);
    let owner = format!("SELECT FROM users WHERE user_id = '{}' FOR NO KEY UPDATE", ann.id);
    while_held(&database, &owner, || assert_eq!(world.archive(NOW), 10, "what is the other's"));
    while_held(&database, "SELECT FROM chat_history WHERE created_at = 1 FOR UPDATE", || {
        assert_eq!(world.archive(NOW), 9, "all but the longest ago");
    });
    assert_eq!(world.archive(NOW), 1);
    handle.stop();
}

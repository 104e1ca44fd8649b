//! The store's thread: takes what has queued up, runs it in one transaction, commits, and only then replies.
//!
//! Group commit makes writers share the wait for the disk; a batch is bounded by the settings. Requests run in the
//! order in which they were asked, and each write in a savepoint of its own, so that one that fails leaves no trace and
//! spoils no other. Deliberately absent: SQL about any table (one file per group has it), logging (the asker logs).

use rusqlite::{Connection, Error, Result};

use super::super::Now;
use super::super::file::StoreFile;
use super::{accounts, calls, pairs, running, sessions};
use crate::link::{Asked, Incoming};
use crate::message::store::{Reply, Request, Standing};

/// Serves until the link is closed and drained, then moves the log into the database and closes it.
pub(super) fn run(store: StoreFile, mut incoming: Incoming<Request, Reply>, batch_len_max: usize, now: &Now) {
    let mut standing = Standing { reachable: true, since: now(), journal: None };
    while let Some(batch) = incoming.receive_batch(batch_len_max) {
        serve(&store.connection, batch, &mut standing, now);
    }
    // Only tidiness: what was acknowledged is in the log, which the next start reads.
    let _ = store.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
}

/// Answers a batch, after what it wrote is durable.
fn serve(connection: &Connection, batch: Vec<Asked<Request, Reply>>, standing: &mut Standing, now: &Now) {
    let (requests, answers): (Vec<_>, Vec<_>) = batch.into_iter().map(|asked| (asked.request, asked.answer)).unzip();
    let done = transact(connection, &requests);
    // Reads say nothing of a disk that is full.
    let tells = done.is_err() || requests.iter().any(Request::is_write);
    if tells && done.is_ok() != standing.reachable {
        (standing.reachable, standing.since) = (done.is_ok(), now());
    }
    let replies = done.unwrap_or_else(|error| fail(connection, &requests, &error));
    assert_eq!(replies.len(), answers.len(), "each request has one reply");
    for ((answer, request), reply) in answers.into_iter().zip(requests).zip(replies) {
        let asks_standing = matches!(request, Request::Standing);
        answer.send(if asks_standing { Reply::Standing(standing.clone()) } else { reply });
    }
}

/// Runs all in one transaction. An error means that nothing of it was stored.
fn transact(connection: &Connection, requests: &[Request]) -> Result<Vec<Reply>> {
    // Taking the write lock first means that no write can find the lock taken halfway.
    let begin = if requests.iter().any(Request::is_write) { "BEGIN IMMEDIATE" } else { "BEGIN" };
    execute(connection, begin)?;
    let replies = requests.iter().map(|request| perform(connection, request)).collect::<Result<_>>()?;
    execute(connection, "COMMIT")?;
    Ok(replies)
}

/// Runs one of a batch. An error means that the whole transaction is lost.
fn perform(connection: &Connection, request: &Request) -> Result<Reply> {
    let guarded = request.is_write();
    if guarded {
        execute(connection, "SAVEPOINT one")?;
    }
    let done = match dispatch(connection, request) {
        // A grave error (disk full, I/O) makes SQLite roll back everything by itself.
        Err(error) if connection.is_autocommit() => return Err(error),
        done => done,
    };
    if guarded && done.is_err() {
        execute(connection, "ROLLBACK TO one")?;
    }
    if guarded {
        execute(connection, "RELEASE one")?;
    }
    Ok(done.unwrap_or_else(|error| failed(&error)))
}

/// Replies after the transaction was lost: no write took place, and reads must not show what is not there.
fn fail(connection: &Connection, requests: &[Request], error: &Error) -> Vec<Reply> {
    if !connection.is_autocommit() {
        // Should this fail too, the next BEGIN does, and comes back here.
        let _ = execute(connection, "ROLLBACK");
    }
    let read = |request| dispatch(connection, request).unwrap_or_else(|error| failed(&error));
    requests.iter().map(|request| if request.is_write() { failed(error) } else { read(request) }).collect()
}

/// The refusal that goes to the asker's log.
fn failed(error: &Error) -> Reply {
    Reply::Failed(error.to_string())
}

/// Runs a statement without parameters or rows.
fn execute(connection: &Connection, sql: &str) -> Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

/// Carries out one request, inside whatever transaction is open.
fn dispatch(connection: &Connection, request: &Request) -> Result<Reply> {
    match request {
        Request::SignUp(sign_up) => accounts::sign_up(connection, sign_up),
        Request::Session { token, .. } => sessions::session(connection, *token),
        Request::Link { user, token, email, password_hash, expires_at, now } => {
            let linked = accounts::link(connection, *user, email, password_hash, *now)?;
            if linked {
                sessions::prolong(connection, *user, *token, *expires_at, *now)?;
            }
            Ok(if linked { Reply::Linked } else { Reply::EmailTaken })
        }
        Request::AccountByEmail { email } => accounts::by_email(connection, email),
        Request::AccountByUser { user } => accounts::by_user(connection, *user),
        Request::LogIn { user, session, now } => sessions::log_in(connection, *user, session, *now),
        Request::Profile { user } => accounts::profile(connection, *user),
        Request::SetSocials { user, socials, now } => accounts::set_socials(connection, *user, socials, *now),
        Request::Relations { user, now } => pairs::relations(connection, *user, *now),
        Request::Pair { caller, callee, now } => pairs::pair(connection, *caller, *callee, *now),
        Request::SetCooldown { pair, until } => {
            pairs::set_cooldown(connection, *pair, *until)?;
            Ok(Reply::Done)
        }
        Request::StartCall(call) => running::start(connection, call),
        Request::KeepCalls(progress) => running::keep(connection, progress),
        // Only one process may open the file: all that runs in it is his.
        Request::CallOwners => Ok(Reply::CallOwners(None)),
        Request::TakeCalls { .. } => Ok(Reply::Done),
        Request::RunningCalls { after, limit, .. } => running::list(connection, *after, *limit),
        Request::HasCall { user } => running::has(connection, *user),
        Request::FinishCall(call) => calls::finish(connection, call),
        Request::Ping => connection.prepare_cached("SELECT 1")?.query_row([], |_| Ok(Reply::Done)),
        // Not in the database: who sends the replies knows it.
        Request::Standing => Ok(Reply::Done),
        Request::History { user, limit } => calls::history(connection, *user, *limit),
        Request::Sweep { now } => {
            sessions::sweep(connection, *now)?;
            pairs::sweep(connection, *now)?;
            Ok(Reply::Done)
        }
        Request::Archive { before } => calls::archive(connection, *before),
    }
}

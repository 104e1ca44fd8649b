//! Running calls: what a new process needs to go on with them. Used on the store's thread.
//!
//! A row is made before anybody hears of the call and removed by the transaction that stores its end. Chat comes in
//! batches; what a batch has of a call that ended meanwhile is passed over. Bound: a row for each two people in a call.

use rusqlite::{Connection, Result, Row, named_params};

use super::column::{CARD, Count, Json, card};
use crate::base::{CallId, UserId};
use crate::message::model::ChatLine;
use crate::message::store::{CallProgress, Participant, Reply, RunningCall, StartedCall};

/// Adds the call, unless an earlier try has.
pub(super) fn start(connection: &Connection, call: &StartedCall) -> Result<Reply> {
    let sql = "INSERT INTO running_calls (call_id, caller_id, callee_id, agreed_seconds, started_at)
         VALUES (:call, :caller, :callee, :agreed_seconds, :started_at) ON CONFLICT DO NOTHING";
    connection.prepare_cached(sql)?.execute(named_params! {
        ":call": call.call,
        ":caller": call.caller,
        ":callee": call.callee,
        ":agreed_seconds": call.agreed_seconds,
        ":started_at": call.started_at,
    })?;
    Ok(Reply::Done)
}

/// Keeps what has happened in calls that still run.
pub(super) fn keep(connection: &Connection, progress: &CallProgress) -> Result<Reply> {
    let sql = "INSERT INTO running_call_lines (call_id, number, line)
         SELECT call_id, :number, :line FROM running_calls WHERE call_id = :call ON CONFLICT DO NOTHING";
    let mut insert = connection.prepare_cached(sql)?;
    for (call, number, line) in &progress.lines {
        insert.execute(named_params! { ":call": call, ":number": number, ":line": Json(line) })?;
    }
    let sql = "UPDATE running_calls SET caller_joined = caller_joined OR caller_id = :user,
             callee_joined = callee_joined OR callee_id = :user WHERE call_id = :call";
    let mut join = connection.prepare_cached(sql)?;
    for (call, user) in &progress.joined {
        join.execute(named_params! { ":call": call, ":user": user })?;
    }
    connection.prepare_cached("UPDATE last_alive SET alive_at = max(alive_at, ?1)")?.execute([progress.alive_at])?;
    Ok(Reply::Done)
}

/// Some of the running calls, with their chat.
pub(super) fn list(connection: &Connection, after: Option<CallId>, limit: usize) -> Result<Reply> {
    let sql = "SELECT call_id, caller_id, callee_id, agreed_seconds, started_at, caller_joined, callee_joined
         FROM running_calls WHERE call_id > coalesce(:after, x'') ORDER BY call_id LIMIT :limit";
    let calls: Vec<RunningCall> = connection
        .prepare_cached(sql)?
        .query_map(named_params! { ":after": after, ":limit": Count(limit as u64) }, |row| call(connection, row))?
        .collect::<Result<_>>()?;
    let alive_at = connection.prepare_cached("SELECT alive_at FROM last_alive")?.query_row([], |row| row.get(0))?;
    let next = calls.last().filter(|_| calls.len() == limit).map(|last| last.call);
    Ok(Reply::RunningCalls { alive_at, calls, next })
}

/// Whether the user is in a call.
pub(super) fn has(connection: &Connection, user: UserId) -> Result<Reply> {
    let sql = "SELECT 1 FROM running_calls WHERE caller_id = ?1 OR callee_id = ?1";
    connection.prepare_cached(sql)?.exists([user]).map(Reply::HasCall)
}

/// The call has ended: its chat goes with it.
pub(super) fn forget(connection: &Connection, call: CallId) -> Result<()> {
    connection.prepare_cached("DELETE FROM running_calls WHERE call_id = ?1")?.execute([call]).map(drop)
}

fn call(connection: &Connection, row: &Row<'_>) -> Result<RunningCall> {
    let call = row.get("call_id")?;
    Ok(RunningCall {
        call,
        caller: participant(connection, row.get("caller_id")?, row.get("caller_joined")?)?,
        callee: participant(connection, row.get("callee_id")?, row.get("callee_joined")?)?,
        agreed_seconds: row.get("agreed_seconds")?,
        started_at: row.get("started_at")?,
        messages: lines(connection, call)?,
    })
}

fn participant(connection: &Connection, user: UserId, joined: bool) -> Result<Participant> {
    let sql = format!("SELECT {CARD}, paid_status FROM users WHERE user_id = ?1");
    connection
        .prepare_cached(&sql)?
        .query_row([user], |row| Ok(Participant { card: card(row)?.into(), paid: row.get("paid_status")?, joined }))
}

fn lines(connection: &Connection, call: CallId) -> Result<Vec<ChatLine>> {
    let sql = "SELECT line FROM running_call_lines WHERE call_id = ?1 ORDER BY number";
    connection.prepare_cached(sql)?.query_map([call], |row| Ok(row.get::<_, Json<_>>(0)?.0))?.collect()
}

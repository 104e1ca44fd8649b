//! Running calls: what a new process needs to go on with them. Used on the store's thread.
//!
//! A row is made before anybody hears of the call and removed by the transaction that stores its end. Chat comes in
//! batches; what a batch has of a call that ended meanwhile, or that another process has by now, is passed over. Bound: a row
//! for each two people in a call.

use futures_lite::future::try_zip;
use tokio_postgres::Row;

use super::column::{CARD, Count, Json, card};
use super::connection::{Connection, Error, Parameters, Result};
use crate::base::collections::Map;
use crate::base::{CallId, UserId};
use crate::message::model::ChatLine;
use crate::message::store::{CallProgress, InstanceId, Participant, Reply, RunningCall, StartedCall};

/// Adds the call, unless an earlier try has.
pub(super) async fn start(connection: &Connection, me: InstanceId, call: &StartedCall) -> Result<Reply> {
    let sql = "INSERT INTO running_calls (call_id, caller_id, callee_id, agreed_seconds, started_at, owner)
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
    let agreed_seconds = Count(call.agreed_seconds.into());
    let values: &Parameters<'_> = &[&call.call, &call.caller, &call.callee, &agreed_seconds, &call.started_at, &me.0];
    connection.execute(sql, values).await?;
    Ok(Reply::Done)
}

/// Keeps what has happened in calls that still run.
pub(super) async fn keep(connection: &Connection, me: InstanceId, progress: &CallProgress) -> Result<Reply> {
    let running = lock(connection, me, progress).await?;
    let lines: Vec<_> = progress.lines.iter().filter(|(call, ..)| running.contains(call)).collect();
    if !lines.is_empty() {
        let calls: Vec<CallId> = lines.iter().map(|(call, ..)| *call).collect();
        let numbers: Vec<i64> = lines.iter().map(|(_, number, _)| i64::from(*number)).collect();
        let texts: Vec<Json<&ChatLine>> = lines.iter().map(|(.., line)| Json(line)).collect();
        let sql = "INSERT INTO running_call_lines (call_id, number, line)
             SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::json[]) ON CONFLICT DO NOTHING";
        connection.execute(sql, &[&calls, &numbers, &texts]).await?;
    }
    let joined: Vec<_> = progress.joined.iter().copied().filter(|(call, _)| running.contains(call)).collect();
    if !joined.is_empty() {
        let (calls, users): (Vec<CallId>, Vec<UserId>) = joined.into_iter().unzip();
        let sql = "UPDATE running_calls SET caller_joined = caller_joined OR by_caller,
                 callee_joined = callee_joined OR by_callee
             FROM (SELECT call_id, bool_or(user_id = caller_id) AS by_caller, bool_or(user_id = callee_id) AS by_callee
                 FROM unnest($1::uuid[], $2::uuid[]) AS entry (call_id, user_id) JOIN running_calls USING (call_id)
                 GROUP BY call_id) AS joined
             WHERE running_calls.call_id = joined.call_id";
        connection.execute(sql, &[&calls, &users]).await?;
    }
    connection.execute("UPDATE last_alive SET alive_at = greatest(alive_at, $1)", &[&progress.alive_at]).await?;
    Ok(Reply::Done)
}

/// Locks the calls that are concerned, run and are ours, always in the same order: those that end wait, or have ended.
async fn lock(connection: &Connection, me: InstanceId, progress: &CallProgress) -> Result<Vec<CallId>> {
    let (lines, joined) =
        (progress.lines.iter().map(|(call, ..)| *call), progress.joined.iter().map(|(call, _)| *call));
    let mut calls: Vec<CallId> = lines.chain(joined).collect();
    calls.sort_unstable();
    calls.dedup();
    if calls.is_empty() {
        return Ok(calls);
    }
    let sql = "SELECT call_id FROM running_calls WHERE call_id = ANY($1) AND owner = $2
         ORDER BY call_id FOR NO KEY UPDATE";
    let rows = connection.rows(sql, &[&calls, &me.0]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Some of the running calls that are ours since `round`, with their chat.
pub(super) async fn list(
    connection: &Connection,
    (me, round): (InstanceId, i32),
    after: Option<CallId>,
    limit: usize,
) -> Result<Reply> {
    let sql = "SELECT call_id, caller_id, callee_id, agreed_seconds, started_at, caller_joined, callee_joined
         FROM running_calls WHERE ($1::uuid IS NULL OR call_id > $1) AND owner = $3 AND taken_in = $4
         ORDER BY call_id LIMIT $2";
    let count = Count(limit as u64);
    let parameters: &Parameters<'_> = &[&after, &count, &me.0, &round];
    let alive = connection.row("SELECT alive_at FROM last_alive", &[]);
    let (rows, alive) = try_zip(connection.rows(sql, parameters), alive).await?;
    let alive_at = alive.ok_or(Error::Refused("when a process was last alive cannot be read"))?.try_get(0)?;
    let mut users: Vec<UserId> = Vec::new();
    let mut calls: Vec<CallId> = Vec::new();
    for row in &rows {
        calls.push(row.try_get("call_id")?);
        users.extend([row.try_get::<_, UserId>("caller_id")?, row.try_get("callee_id")?]);
    }
    let (participants, mut lines) = try_zip(participants(connection, &users), lines(connection, &calls)).await?;
    let mut running = Vec::new();
    for row in &rows {
        // One who has just gone took the call along.
        let (Some(caller), Some(callee)) = (
            joined(row, "caller_id", "caller_joined", &participants)?,
            joined(row, "callee_id", "callee_joined", &participants)?,
        ) else {
            continue;
        };
        let call = row.try_get("call_id")?;
        running.push(RunningCall {
            call,
            caller,
            callee,
            agreed_seconds: u32::try_from(row.try_get::<_, Count>("agreed_seconds")?.0).unwrap_or(u32::MAX),
            started_at: row.try_get("started_at")?,
            messages: lines.remove(&call).unwrap_or_default(),
        });
    }
    let next = calls.last().copied().filter(|_| calls.len() == limit);
    Ok(Reply::RunningCalls { alive_at, calls: running, next })
}

/// Whether the user is in a call, whoever has it.
pub(super) async fn has(connection: &Connection, user: UserId) -> Result<Reply> {
    let sql = "SELECT FROM running_calls WHERE caller_id = $1 OR callee_id = $1 LIMIT 1";
    Ok(Reply::HasCall(connection.row(sql, &[&user]).await?.is_some()))
}

/// Locks the call, if it runs, and tells whether it is another's than `writer`'s.
pub(super) async fn is_of_another(connection: &Connection, call: CallId, writer: Option<InstanceId>) -> Result<bool> {
    let sql = "SELECT owner FROM running_calls WHERE call_id = $1 FOR UPDATE";
    let row = connection.row(sql, &[&call]).await?;
    let owner: Option<i32> = row.map(|row| row.try_get(0)).transpose()?.flatten();
    Ok(writer.is_some_and(|writer| owner.is_some_and(|owner| owner != writer.0)))
}

/// The call has ended: its chat goes with it.
pub(super) async fn forget(connection: &Connection, call: CallId) -> Result<()> {
    connection.execute("DELETE FROM running_calls WHERE call_id = $1", &[&call]).await.map(drop)
}

async fn participants(connection: &Connection, users: &[UserId]) -> Result<Map<UserId, Participant>> {
    let sql = format!("SELECT {CARD}, paid_status FROM users WHERE user_id = ANY($1)");
    let rows = connection.rows(&sql, &[&users]).await?;
    let participant = |row: &Row| -> Result<_> {
        let participant = Participant { card: card(row)?.into(), paid: row.try_get("paid_status")?, joined: false };
        Ok((participant.user(), participant))
    };
    rows.iter().map(participant).collect()
}

fn joined(row: &Row, id: &str, joined: &str, participants: &Map<UserId, Participant>) -> Result<Option<Participant>> {
    let user: UserId = row.try_get(id)?;
    let joined = row.try_get(joined)?;
    Ok(participants.get(&user).map(|participant| Participant { joined, ..participant.clone() }))
}

async fn lines(connection: &Connection, calls: &[CallId]) -> Result<Map<CallId, Vec<ChatLine>>> {
    let sql = "SELECT call_id, line FROM running_call_lines WHERE call_id = ANY($1) ORDER BY call_id, number";
    let mut lines: Map<CallId, Vec<ChatLine>> = Map::default();
    for row in &connection.rows(sql, &[&calls]).await? {
        lines.entry(row.try_get("call_id")?).or_default().push(row.try_get::<_, Json<_>>("line")?.0);
    }
    Ok(lines)
}

//! Ended calls: history, totals, completions, cooldown, all in one transaction (contract 4.3, D10-D12).
//!
//! What makes a repeat harmless is the row: totals move only when the history row is new, completions only when theirs
//! is; a row that was archived is not new, nor is one of the same call that ended in another way. So a repeat after a
//! commit whose answer was lost counts nothing twice. Used on the store's thread. A participant whose account is gone is
//! passed over.

use futures_lite::future::try_zip;

use super::column::{Count, Json, JsonText, metrics};
use super::connection::{Connection, Parameters, Result};
use super::{pairs, running};
use crate::base::limits::{ARCHIVE_BYTES_MAX, ARCHIVE_ROWS_MAX, LAST_SESSIONS_MAX};
use crate::base::{Time, UserId};
use crate::message::model::{LastSession, Metrics};
use crate::message::store::{FinishedCall, HistoryEntry, InstanceId, Reply};

/// From so many completions on a user's own code is shown (contract 4.4).
const UNLOCK_COMPLETIONS: i64 = 4;

/// The participants who are there, and their totals.
type Totals = Vec<(UserId, Metrics)>;

/// Stores the call for both. A repeat changes nothing, not even a cooldown that was set since; it answers the totals as
/// they are now. So does the end that `writer` makes of a call which another process has by now: that one will end it.
pub(super) async fn finish(connection: &Connection, call: &FinishedCall, writer: Option<InstanceId>) -> Result<Reply> {
    // The call before its people, as nobody who has people locked waits for a call.
    let (is_of_another, mut totals) =
        try_zip(running::is_of_another(connection, call.call, writer), lock(connection, call)).await?;
    if is_of_another {
        tracing::warn!(call = %call.call, "the end of a call that another process has by now is left to that one");
        return Ok(finished(call, &totals));
    }
    let present: Vec<UserId> = totals.iter().map(|(user, _)| *user).collect();
    let recorded = if call.recorded { present.clone() } else { Vec::new() };
    let completed = if call.completed { present } else { Vec::new() };
    let (recorded, completed) =
        try_zip(insert_history(connection, call, &recorded), insert_completions(connection, call, &completed)).await?;
    for (user, totals) in totals.iter_mut().filter(|(user, _)| recorded.contains(user)) {
        add_to_totals(connection, *user, totals, call).await?;
    }
    count_completions(connection, call, &completed).await?;
    if let Some(until) = call.cooldown_until
        && (!call.recorded || !recorded.is_empty())
    {
        pairs::set_cooldown(connection, (call.caller, call.callee), until).await?;
    }
    running::forget(connection, call.call).await?;
    Ok(finished(call, &totals))
}

fn finished(call: &FinishedCall, totals: &Totals) -> Reply {
    let of = |user| totals.iter().find(|(other, _)| *other == user).map(|(_, totals)| totals.clone());
    let (caller, callee) = (of(call.caller).unwrap_or_default(), of(call.callee).unwrap_or_default());
    Reply::Finished { caller, callee }
}

/// Locks the rows of both, always in the same order, and reads their totals.
async fn lock(connection: &Connection, call: &FinishedCall) -> Result<Totals> {
    let sql = "SELECT user_id, timer_total_seconds, session_count, last_sessions FROM users
         WHERE user_id = ANY($1) ORDER BY user_id FOR NO KEY UPDATE";
    let rows = connection.rows(sql, &[&[call.caller, call.callee].as_slice()]).await?;
    rows.iter().map(|row| Ok((row.try_get("user_id")?, metrics(row)?))).collect()
}

/// Adds the history rows of `users`, which is what counts the call as stored: of those whose row is new.
async fn insert_history(connection: &Connection, call: &FinishedCall, users: &[UserId]) -> Result<Vec<UserId>> {
    if users.is_empty() {
        return Ok(Vec::new());
    }
    let sql = "INSERT INTO chat_history (session_id, user_id, partner_id, partner_name, room_id, started_at, duration,
             messages, created_at)
         SELECT $1, side.user_id, side.partner_id, side.partner_name, $2, $3, $4, $5, $6
         FROM (VALUES ($7::uuid, $8::uuid, $10::text), ($8, $7, $9)) AS side (user_id, partner_id, partner_name)
         WHERE side.user_id = ANY($11)
             AND NOT EXISTS (SELECT FROM chat_history_archive WHERE user_id = side.user_id AND session_id = $1)
             AND NOT EXISTS (SELECT FROM chat_history
                 WHERE user_id = side.user_id AND started_at = $3 AND room_id = $2)
         ON CONFLICT DO NOTHING RETURNING user_id";
    let values: &Parameters<'_> = &[
        &call.session,
        &call.call,
        &call.started_at,
        &Count(call.duration),
        &Json(&call.messages),
        &call.ended_at,
        &call.caller,
        &call.callee,
        &call.caller_name,
        &call.callee_name,
        &users,
    ];
    let rows = connection.rows(sql, values).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Notes that `users` have completed this call: those of whom it was not noted before.
async fn insert_completions(connection: &Connection, call: &FinishedCall, users: &[UserId]) -> Result<Vec<UserId>> {
    if users.is_empty() {
        return Ok(Vec::new());
    }
    let sql = "INSERT INTO session_completions (user_id, room_id, partner_id, duration_seconds, completed_at)
         SELECT side.user_id, $1, side.partner_id, $2, $3
         FROM (VALUES ($4::uuid, $5::uuid), ($5, $4)) AS side (user_id, partner_id)
         WHERE side.user_id = ANY($6)
         ON CONFLICT DO NOTHING RETURNING user_id";
    let duration = Count(call.duration);
    let values: &Parameters<'_> = &[&call.call, &duration, &call.ended_at, &call.caller, &call.callee, &users];
    let rows = connection.rows(sql, values).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Counts a call that has just been stored, and remembers it among the last ones. The row is locked.
async fn add_to_totals(connection: &Connection, user: UserId, totals: &mut Metrics, call: &FinishedCall) -> Result<()> {
    totals.last_sessions.push(LastSession { at: call.ended_at, duration: call.duration });
    let surplus = totals.last_sessions.len().saturating_sub(LAST_SESSIONS_MAX);
    totals.last_sessions.drain(..surplus);
    totals.timer_total_seconds = totals.timer_total_seconds.saturating_add(call.duration);
    totals.session_count = totals.session_count.saturating_add(1);
    let sql = "UPDATE users SET timer_total_seconds = $2, session_count = $3, last_sessions = $4, updated_at = $5
         WHERE user_id = $1";
    let (seconds, count) = (Count(totals.timer_total_seconds), Count(totals.session_count));
    let last = Json(&totals.last_sessions);
    connection.execute(sql, &[&user, &seconds, &count, &last, &call.ended_at]).await.map(drop)
}

/// The fourth unlocks the own code and ends a grace period; it never changes `paid` or `unpaid` (D28).
async fn count_completions(connection: &Connection, call: &FinishedCall, users: &[UserId]) -> Result<()> {
    if users.is_empty() {
        return Ok(());
    }
    let sql = "UPDATE users SET successful_sessions = successful_sessions + 1 WHERE user_id = ANY($1)";
    connection.execute(sql, &[&users]).await?;
    let sql = "UPDATE users SET qr_unlocked = true, qr_unlocked_at = $2,
             paid_status = CASE paid_status WHEN 'qr_grace_period' THEN 'qr_verified' ELSE paid_status END
         WHERE user_id = ANY($1) AND NOT qr_unlocked AND successful_sessions >= $3";
    connection.execute(sql, &[&users, &call.ended_at, &UNLOCK_COMPLETIONS]).await.map(drop)
}

/// The last `limit` calls of `user` by their start, newest first; of two that started at once, the later stored first.
pub(super) async fn history(connection: &Connection, user: UserId, limit: usize) -> Result<Reply> {
    let sql = "SELECT session_id, room_id, partner_id, partner_name, started_at, duration, messages FROM chat_history
         WHERE user_id = $1 ORDER BY started_at DESC, stored DESC LIMIT $2";
    let rows = connection.rows(sql, &[&user, &Count(limit as u64)]).await?;
    let entry = |row: &tokio_postgres::Row| {
        Ok(HistoryEntry {
            session: row.try_get("session_id")?,
            room: row.try_get("room_id")?,
            partner: row.try_get("partner_id")?,
            partner_name: row.try_get("partner_name")?,
            started_at: row.try_get("started_at")?,
            duration: row.try_get::<_, Count>("duration")?.0,
            messages: row.try_get::<_, JsonText>("messages")?.0,
        })
    };
    rows.iter().map(entry).collect::<Result<_>>().map(Reply::History)
}

/// Archives some rows ([`ARCHIVE_ROWS_MAX`], [`ARCHIVE_BYTES_MAX`]) of calls that ended before `before`, longest ago
/// first, but none that somebody works on. Their owners are locked as by [`finish`]: a row that this finds being removed
/// would else seem new to it.
pub(super) async fn archive(connection: &Connection, before: Time) -> Result<Reply> {
    // The planner has to know the limit, or it might sort all that there is.
    let sql = format!(
        "WITH locked AS (
             SELECT session_id, user_id, chat_history.created_at, pg_column_size(messages) AS bytes
             FROM chat_history JOIN users USING (user_id)
             WHERE chat_history.created_at < $1 ORDER BY chat_history.created_at LIMIT {ARCHIVE_ROWS_MAX}
             FOR NO KEY UPDATE SKIP LOCKED),
         added AS (
             SELECT session_id, user_id, sum(bytes) OVER (ORDER BY created_at, session_id, user_id) - bytes AS before_it
             FROM locked),
         old AS (SELECT session_id, user_id FROM added WHERE before_it < {ARCHIVE_BYTES_MAX}),
         moved AS (
             DELETE FROM chat_history USING old
             WHERE chat_history.session_id = old.session_id AND chat_history.user_id = old.user_id
             RETURNING chat_history.*)
         INSERT INTO chat_history_archive (session_id, user_id, partner_id, partner_name, room_id, started_at, duration,
             messages, created_at)
         SELECT session_id, user_id, partner_id, partner_name, room_id, started_at, duration, messages, created_at
         FROM moved"
    );
    let rows = connection.execute(&sql, &[&before]).await?;
    Ok(Reply::Archived { rows })
}

//! Ended calls: history, totals, completions, cooldown, all in the one transaction of the request (contract 4.3, D10-D12).
//!
//! What makes a repeat harmless is the row: totals move only when the history row is new, completions only when theirs
//! is; a row that was archived is not new, nor is one of the same call that ended in another way. Used on the store's thread. A participant whose account is gone is passed
//! over.

use rusqlite::{Connection, Error, OptionalExtension as _, Result, named_params};

use super::column::{Count, Json, metrics};
use super::{pairs, running};
use crate::base::limits::{ARCHIVE_BYTES_MAX, ARCHIVE_ROWS_MAX, LAST_SESSIONS_MAX};
use crate::base::{Time, UserId};
use crate::message::model::{LastSession, Metrics};
use crate::message::store::{FinishedCall, HistoryEntry, Reply};

/// From so many completions on a user's own code is shown (contract 4.4).
const UNLOCK_COMPLETIONS: u32 = 4;

/// One participant of a call: whose row it is, and with whom the call was.
struct Side<'a> {
    user: UserId,
    partner: UserId,
    partner_name: &'a str,
}

/// Stores the call for both. A repeat changes nothing, not even a cooldown that was set since; it answers the totals as
/// they are now.
pub(super) fn finish(connection: &Connection, call: &FinishedCall) -> Result<Reply> {
    let mut repeated = call.recorded;
    for side in sides(call) {
        if call.recorded && insert_history(connection, call, &side)? {
            repeated = false;
            add_to_totals(connection, side.user, call)?;
        }
        if call.completed && insert_completion(connection, call, &side)? {
            count_completion(connection, side.user, call.ended_at)?;
        }
    }
    if let Some(until) = call.cooldown_until
        && !repeated
    {
        pairs::set_cooldown(connection, (call.caller, call.callee), until)?;
    }
    running::forget(connection, call.call)?;
    let (caller, callee) = (totals(connection, call.caller)?, totals(connection, call.callee)?);
    Ok(Reply::Finished { caller, callee })
}

/// The call as each of the two sees it.
fn sides(call: &FinishedCall) -> [Side<'_>; 2] {
    [
        Side { user: call.caller, partner: call.callee, partner_name: &call.callee_name },
        Side { user: call.callee, partner: call.caller, partner_name: &call.caller_name },
    ]
}

/// Adds the history row of one side, which is what counts the call as stored.
/// False when the row was there before, or its owner is gone.
fn insert_history(connection: &Connection, call: &FinishedCall, side: &Side<'_>) -> Result<bool> {
    let sql = "INSERT INTO chat_history (session_id, user_id, partner_id, partner_name, room_id, started_at, duration,
             messages, created_at)
         SELECT :session, user_id, :partner, :partner_name, :room, :started_at, :duration, :messages, :ended_at
         FROM users WHERE user_id = :user
             AND NOT EXISTS (SELECT 1 FROM chat_history_archive WHERE user_id = :user AND session_id = :session)
             AND NOT EXISTS (SELECT 1 FROM chat_history
                 WHERE user_id = :user AND started_at = :started_at AND room_id = :room)
         ON CONFLICT DO NOTHING";
    let inserted = connection.prepare_cached(sql)?.execute(named_params! {
        ":session": call.session,
        ":user": side.user,
        ":partner": side.partner,
        ":partner_name": side.partner_name,
        ":room": call.call,
        ":started_at": call.started_at,
        ":duration": Count(call.duration),
        ":messages": Json(&call.messages),
        ":ended_at": call.ended_at,
    })?;
    Ok(inserted == 1)
}

/// Counts a call that has just been stored, and remembers it among the last ones.
fn add_to_totals(connection: &Connection, user: UserId, call: &FinishedCall) -> Result<()> {
    let mut totals = totals(connection, user)?;
    totals.last_sessions.push(LastSession { at: call.ended_at, duration: call.duration });
    let surplus = totals.last_sessions.len().saturating_sub(LAST_SESSIONS_MAX);
    totals.last_sessions.drain(..surplus);
    let sql = "UPDATE users SET timer_total_seconds = :seconds, session_count = :count, last_sessions = :last,
             updated_at = :now WHERE user_id = :user";
    connection.prepare_cached(sql)?.execute(named_params! {
        ":seconds": Count(totals.timer_total_seconds.saturating_add(call.duration)),
        ":count": Count(totals.session_count.saturating_add(1)),
        ":last": Json(&totals.last_sessions),
        ":now": call.ended_at,
        ":user": user,
    })?;
    Ok(())
}

/// Notes that one side has completed this call.
/// False when it was noted before, or the user is gone.
fn insert_completion(connection: &Connection, call: &FinishedCall, side: &Side<'_>) -> Result<bool> {
    let sql = "INSERT INTO session_completions (user_id, room_id, partner_id, duration_seconds, completed_at)
         SELECT user_id, :room, :partner, :duration, :ended_at FROM users WHERE user_id = :user
         ON CONFLICT DO NOTHING";
    let inserted = connection.prepare_cached(sql)?.execute(named_params! {
        ":user": side.user,
        ":room": call.call,
        ":partner": side.partner,
        ":duration": Count(call.duration),
        ":ended_at": call.ended_at,
    })?;
    Ok(inserted == 1)
}

/// The fourth unlocks the own code and ends a grace period; it never changes `paid` or `unpaid` (D28).
fn count_completion(connection: &Connection, user: UserId, now: Time) -> Result<()> {
    let sql = "UPDATE users SET successful_sessions = successful_sessions + 1 WHERE user_id = ?1";
    connection.prepare_cached(sql)?.execute([user])?;
    let sql = "UPDATE users SET qr_unlocked = 1, qr_unlocked_at = :now,
             paid_status = CASE paid_status WHEN 'qr_grace_period' THEN 'qr_verified' ELSE paid_status END
         WHERE user_id = :user AND qr_unlocked = 0 AND successful_sessions >= :needed";
    connection
        .prepare_cached(sql)?
        .execute(named_params! { ":user": user, ":now": now, ":needed": UNLOCK_COMPLETIONS })?;
    Ok(())
}

/// The totals of `user`; zeros for a user who is gone.
fn totals(connection: &Connection, user: UserId) -> Result<Metrics> {
    let sql = "SELECT timer_total_seconds, session_count, last_sessions FROM users WHERE user_id = ?1";
    Ok(connection.prepare_cached(sql)?.query_row([user], metrics).optional()?.unwrap_or_default())
}

/// The last `limit` calls of `user` by their start, newest first; of two that started at once, the later stored first.
pub(super) fn history(connection: &Connection, user: UserId, limit: usize) -> Result<Reply> {
    let sql = "SELECT session_id, room_id, partner_id, partner_name, started_at, duration, messages FROM chat_history
         WHERE user_id = ?1 ORDER BY started_at DESC, rowid DESC LIMIT ?2";
    let entries = connection
        .prepare_cached(sql)?
        .query_map((user, Count(limit as u64)), |row| {
            Ok(HistoryEntry {
                session: row.get("session_id")?,
                room: row.get("room_id")?,
                partner: row.get("partner_id")?,
                partner_name: row.get("partner_name")?,
                started_at: row.get("started_at")?,
                duration: row.get::<_, Count>("duration")?.0,
                messages: row.get("messages")?,
            })
        })?
        .collect::<Result<_>>()?;
    Ok(Reply::History(entries))
}

/// Archives some rows ([`ARCHIVE_ROWS_MAX`], [`ARCHIVE_BYTES_MAX`]) of calls that ended before `before`, longest ago
/// first.
pub(super) fn archive(connection: &Connection, before: Time) -> Result<Reply> {
    let old = "SELECT id FROM (
             SELECT id, sum(bytes) OVER (ORDER BY created_at, id) - bytes AS before_it FROM (
                 SELECT rowid AS id, created_at, octet_length(messages) AS bytes FROM chat_history
                 WHERE created_at < :before ORDER BY created_at, rowid LIMIT :rows_max))
         WHERE before_it < :bytes_max";
    let copy = format!(
        "INSERT INTO chat_history_archive (session_id, user_id, partner_id, partner_name, room_id, started_at, duration,
             messages, created_at)
         SELECT session_id, user_id, partner_id, partner_name, room_id, started_at, duration, messages, created_at
         FROM chat_history WHERE rowid IN ({old})"
    );
    let remove = format!("DELETE FROM chat_history WHERE rowid IN ({old})");
    let execute = |sql: String| {
        connection.prepare_cached(&sql)?.execute(named_params! {
            ":before": before,
            ":rows_max": Count(ARCHIVE_ROWS_MAX as u64),
            ":bytes_max": Count(ARCHIVE_BYTES_MAX as u64),
        })
    };
    let (copied, removed) = (execute(copy)?, execute(remove)?);
    if copied != removed {
        return Err(Error::StatementChangedRows(removed));
    }
    Ok(Reply::Archived { rows: removed as u64 })
}

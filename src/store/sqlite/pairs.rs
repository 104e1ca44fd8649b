//! What stands between two users: cooldowns (contract 4.2) and reports, which hide both ways (D40). On the store's thread.
//!
//! A cooldown belongs to an unordered pair, kept smaller id first. The users need not exist: a cooldown outlives an
//! account for its hours and is swept.

use rusqlite::{Connection, OptionalExtension as _, Result, named_params};

use super::sessions::SWEEP_ROWS_MAX;
use crate::base::{Time, UserId};
use crate::message::store::{Pair, Relations, Reply};

/// Entries of each list of [`Relations`]; of more, the cooldowns that end last and the newest reports are told.
const RELATIONS_MAX: u32 = 4_096;

/// The cooldowns of `user` that run at `now`, and whom he must not meet.
pub(super) fn relations(connection: &Connection, user: UserId, now: Time) -> Result<Reply> {
    let cooldowns = "SELECT higher_id AS other, expires_at FROM cooldowns WHERE lower_id = :user AND expires_at > :now
         UNION ALL SELECT lower_id, expires_at FROM cooldowns WHERE higher_id = :user AND expires_at > :now
         ORDER BY expires_at DESC LIMIT :limit";
    let hidden = "SELECT other FROM (
             SELECT reported_id AS other, created_at FROM reports WHERE reporter_id = :user
             UNION ALL SELECT reporter_id, created_at FROM reports WHERE reported_id = :user)
         GROUP BY other ORDER BY max(created_at) DESC LIMIT :limit";
    let cooldowns = connection
        .prepare_cached(cooldowns)?
        .query_map(named_params! { ":user": user, ":now": now, ":limit": RELATIONS_MAX }, |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect::<Result<_>>()?;
    let hidden = connection
        .prepare_cached(hidden)?
        .query_map(named_params! { ":user": user, ":limit": RELATIONS_MAX }, |row| row.get(0))?
        .collect::<Result<_>>()?;
    Ok(Reply::Relations(Box::new(Relations { cooldowns, hidden })))
}

/// What an invite from `caller` to `callee` depends on; `None` when there is no such callee.
pub(super) fn pair(connection: &Connection, caller: UserId, callee: UserId, now: Time) -> Result<Reply> {
    let (lower, higher) = ordered((caller, callee));
    let sql = "SELECT
             (SELECT expires_at FROM cooldowns
                 WHERE lower_id = :lower AND higher_id = :higher AND expires_at > :now) AS cooldown_until,
             EXISTS (SELECT 1 FROM reports WHERE reporter_id = :lower AND reported_id = :higher)
                 OR EXISTS (SELECT 1 FROM reports WHERE reporter_id = :higher AND reported_id = :lower) AS hidden,
             ban_status IN ('temporary', 'permanent') AS banned
         FROM users WHERE user_id = :callee";
    let pair = connection.prepare_cached(sql)?.query_row(
        named_params! { ":lower": lower, ":higher": higher, ":now": now, ":callee": callee },
        |row| {
            Ok(Pair {
                cooldown_until: row.get("cooldown_until")?,
                hidden: row.get("hidden")?,
                banned: row.get("banned")?,
            })
        },
    );
    pair.optional().map(Reply::Pair)
}

/// Sets the end of the cooldown, whatever it was.
pub(super) fn set_cooldown(connection: &Connection, pair: (UserId, UserId), until: Time) -> Result<()> {
    let (lower, higher) = ordered(pair);
    let sql = "INSERT INTO cooldowns (lower_id, higher_id, expires_at) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET expires_at = excluded.expires_at";
    connection.prepare_cached(sql)?.execute((lower, higher, until))?;
    Ok(())
}

/// Removes at most [`SWEEP_ROWS_MAX`] cooldowns that are over, longest ago first.
pub(super) fn sweep(connection: &Connection, now: Time) -> Result<()> {
    let sql = "DELETE FROM cooldowns WHERE (lower_id, higher_id) IN
         (SELECT lower_id, higher_id FROM cooldowns WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)";
    connection.prepare_cached(sql)?.execute((now, SWEEP_ROWS_MAX))?;
    Ok(())
}

/// The pair as it is kept: SQLite compares ids as `UserId` does, byte by byte.
fn ordered((one, other): (UserId, UserId)) -> (UserId, UserId) {
    if one <= other { (one, other) } else { (other, one) }
}

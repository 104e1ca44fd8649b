//! What stands between two users: cooldowns (contract 4.2) and reports, which hide both ways (D40). On the store's thread.
//!
//! A cooldown belongs to an unordered pair, kept smaller id first. The users need not exist: a cooldown outlives an
//! account for its hours and is swept.

use super::connection::{Connection, Result};
use super::sessions::SWEEP_ROWS_MAX;
use crate::base::{Time, UserId};
use crate::message::store::{Pair, Relations, Reply};

/// Entries of each list of [`Relations`]; of more, the cooldowns that end last and the newest reports are told.
const RELATIONS_MAX: i64 = 4_096;

/// The cooldowns of `user` that run at `now`, and whom he must not meet: rows without an end.
pub(super) async fn relations(connection: &Connection, user: UserId, now: Time) -> Result<Reply> {
    let sql = "(SELECT higher_id AS other, expires_at FROM cooldowns WHERE lower_id = $1 AND expires_at > $2
             UNION ALL SELECT lower_id, expires_at FROM cooldowns WHERE higher_id = $1 AND expires_at > $2
             ORDER BY expires_at DESC LIMIT $3)
         UNION ALL (SELECT other, NULL FROM (
                 SELECT reported_id AS other, created_at FROM reports WHERE reporter_id = $1
                 UNION ALL SELECT reporter_id, created_at FROM reports WHERE reported_id = $1) AS either
             GROUP BY other ORDER BY max(created_at) DESC LIMIT $3)";
    let mut relations = Relations::default();
    for row in connection.rows(sql, &[&user, &now, &RELATIONS_MAX]).await? {
        let other = row.try_get(0)?;
        match row.try_get(1)? {
            Some(until) => relations.cooldowns.push((other, until)),
            None => relations.hidden.push(other),
        }
    }
    Ok(Reply::Relations(Box::new(relations)))
}

/// What an invite from `caller` to `callee` depends on; `None` when there is no such callee.
pub(super) async fn pair(connection: &Connection, caller: UserId, callee: UserId, now: Time) -> Result<Reply> {
    let (lower, higher) = ordered((caller, callee));
    let sql = "SELECT
             (SELECT expires_at FROM cooldowns
                 WHERE lower_id = $1 AND higher_id = $2 AND expires_at > $3) AS cooldown_until,
             EXISTS (SELECT FROM reports WHERE reporter_id = $1 AND reported_id = $2)
                 OR EXISTS (SELECT FROM reports WHERE reporter_id = $2 AND reported_id = $1) AS hidden,
             ban_status IN ('temporary', 'permanent') AS banned
         FROM users WHERE user_id = $4";
    let Some(row) = connection.row(sql, &[&lower, &higher, &now, &callee]).await? else {
        return Ok(Reply::Pair(None));
    };
    Ok(Reply::Pair(Some(Pair {
        cooldown_until: row.try_get("cooldown_until")?,
        hidden: row.try_get("hidden")?,
        banned: row.try_get("banned")?,
    })))
}

/// Sets the end of the cooldown, whatever it was.
pub(super) async fn set_cooldown(connection: &Connection, pair: (UserId, UserId), until: Time) -> Result<()> {
    let (lower, higher) = ordered(pair);
    let sql = "INSERT INTO cooldowns (lower_id, higher_id, expires_at) VALUES ($1, $2, $3)
         ON CONFLICT (lower_id, higher_id) DO UPDATE SET expires_at = excluded.expires_at";
    connection.execute(sql, &[&lower, &higher, &until]).await.map(drop)
}

/// Removes at most [`SWEEP_ROWS_MAX`] cooldowns that are over, longest ago first, but none that somebody works on.
pub(super) async fn sweep(connection: &Connection, now: Time) -> Result<()> {
    let sql = "DELETE FROM cooldowns WHERE (lower_id, higher_id) IN
         (SELECT lower_id, higher_id FROM cooldowns WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2
             FOR UPDATE SKIP LOCKED)";
    connection.execute(sql, &[&now, &SWEEP_ROWS_MAX]).await.map(drop)
}

/// The pair as it is kept: Postgres compares ids as `UserId` does, byte by byte.
fn ordered((one, other): (UserId, UserId)) -> (UserId, UserId) {
    if one <= other { (one, other) } else { (other, one) }
}

//! Sessions: who a token belongs to, log-in, expiry. Used on the store's thread.
//!
//! A session that a newer log-in ended stays, inactive, until it expires, so that its holder can be told why.
//! Deliberately absent: any judgement whether a session is good; `domain/access.rs` judges what is read here.

use super::column::{CARD, account_type, card};
use super::connection::{Connection, Error, Parameters, Result};
use crate::base::{Time, TokenHash, UserId};
use crate::message::model::Login;
use crate::message::store::{NewSession, Reply};

/// Rows that one sweep removes at most, so that nobody waits long behind it; the next sweep goes on.
pub(super) const SWEEP_ROWS_MAX: i64 = 2_000;

/// The logins behind `tokens`, ended and expired ones included; in any order, without those that are unknown.
pub(super) async fn find(connection: &Connection, tokens: &[TokenHash]) -> Result<Vec<(TokenHash, Login)>> {
    let sql = format!(
        "SELECT {CARD}, email, paid_status, ban_status IN ('temporary', 'permanent') AS banned, token_hash, is_active,
             expires_at
         FROM sessions JOIN users USING (user_id) WHERE token_hash = ANY($1)"
    );
    let rows = connection.rows(&sql, &[&tokens]).await?;
    rows.iter()
        .map(|row| {
            let token = row.try_get("token_hash")?;
            let login = Login {
                card: card(row)?.into(),
                token,
                account: account_type(row)?,
                paid: row.try_get("paid_status")?,
                banned: row.try_get("banned")?,
                active: row.try_get("is_active")?,
                expires_at: row.try_get("expires_at")?,
            };
            Ok((token, login))
        })
        .collect()
}

/// Starts the session and ends the others of `user`; for a session that was started before, nothing more is done.
///
/// The row of the user is locked first: of two log-ins by different processes one comes after the other.
pub(super) async fn log_in(connection: &Connection, user: UserId, session: &NewSession, now: Time) -> Result<Reply> {
    let locked = connection.execute("SELECT FROM users WHERE user_id = $1 FOR NO KEY UPDATE", &[&user]).await?;
    if locked == 0 {
        return Err(Error::Refused("there is no such user"));
    }
    if connection.row("SELECT FROM sessions WHERE token_hash = $1", &[&session.token]).await?.is_some() {
        return Ok(Reply::LoggedIn { invalidated: 0 });
    }
    // What has expired goes, or it would stand for the one that may be active.
    let sql = "DELETE FROM sessions WHERE user_id = $1 AND is_active AND expires_at <= $2";
    connection.execute(sql, &[&user, &now]).await?;
    let sql = "UPDATE sessions SET is_active = false WHERE user_id = $1 AND is_active";
    let ended = connection.execute(sql, &[&user]).await?;
    start(connection, user, session, now).await?;
    Ok(Reply::LoggedIn { invalidated: u32::try_from(ended).unwrap_or(u32::MAX) })
}

/// Adds the session row.
pub(super) async fn start(connection: &Connection, user: UserId, session: &NewSession, now: Time) -> Result<()> {
    let sql = "INSERT INTO sessions (token_hash, user_id, address, device, created_at, expires_at, last_active_at)
         VALUES ($1, $2, $3, $4, $5, $6, $5)";
    let address = session.address.to_string();
    let values: &Parameters<'_> = &[&session.token, &user, &address, &session.device, &now, &session.expires_at];
    connection.execute(sql, values).await.map(drop)
}

/// Moves the end of a session that is still active.
pub(super) async fn prolong(
    connection: &Connection,
    user: UserId,
    token: TokenHash,
    expires_at: Time,
    now: Time,
) -> Result<()> {
    let sql = "UPDATE sessions SET expires_at = $3, last_active_at = $4
         WHERE token_hash = $1 AND user_id = $2 AND is_active";
    connection.execute(sql, &[&token, &user, &expires_at, &now]).await.map(drop)
}

/// Removes at most [`SWEEP_ROWS_MAX`] sessions that have expired, longest ago first, but none that somebody works on.
pub(super) async fn sweep(connection: &Connection, now: Time) -> Result<()> {
    let sql = "DELETE FROM sessions WHERE token_hash IN
         (SELECT token_hash FROM sessions WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)";
    connection.execute(sql, &[&now, &SWEEP_ROWS_MAX]).await.map(drop)
}

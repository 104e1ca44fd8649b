//! Sessions: who a token belongs to, log-in, expiry. Used on the store's thread.
//!
//! A session that a newer log-in ended stays, inactive, until it expires, so that its holder can be told why.
//! Deliberately absent: any judgement whether a session is good; `domain/access.rs` judges what is read here.

use rusqlite::{Connection, OptionalExtension as _, Result, named_params};

use super::column::{CARD, account_type, card};
use crate::base::{Time, TokenHash, UserId};
use crate::message::model::Login;
use crate::message::store::{NewSession, Reply};

/// Rows that one sweep removes at most, so that nobody waits long behind it; the next sweep goes on.
pub(super) const SWEEP_ROWS_MAX: u32 = 2_000;

/// The reply to who a token belongs to.
pub(super) fn session(connection: &Connection, token: TokenHash) -> Result<Reply> {
    Ok(Reply::Session(find(connection, token)?.map(Box::new)))
}

/// The login behind `token`, ended and expired ones included.
pub(super) fn find(connection: &Connection, token: TokenHash) -> Result<Option<Login>> {
    let sql = format!(
        "SELECT {CARD}, email, paid_status, ban_status IN ('temporary', 'permanent') AS banned, is_active, expires_at
         FROM sessions JOIN users USING (user_id) WHERE token_hash = ?1"
    );
    let login = connection.prepare_cached(&sql)?.query_row([token], |row| {
        Ok(Login {
            card: card(row)?.into(),
            token,
            account: account_type(row)?,
            paid: row.get("paid_status")?,
            banned: row.get("banned")?,
            active: row.get("is_active")?,
            expires_at: row.get("expires_at")?,
        })
    });
    login.optional()
}

/// Starts the session and ends the others of `user`; for a session that was started before, nothing more is done.
pub(super) fn log_in(connection: &Connection, user: UserId, session: &NewSession, now: Time) -> Result<Reply> {
    if !start(connection, user, session, now)? {
        return Ok(Reply::LoggedIn { invalidated: 0 });
    }
    let sql = "UPDATE sessions SET is_active = 0
         WHERE user_id = :user AND token_hash <> :token AND is_active = 1 AND expires_at > :now";
    let ended = connection.prepare_cached(sql)?.execute(named_params! {
        ":user": user,
        ":token": session.token,
        ":now": now,
    })?;
    Ok(Reply::LoggedIn { invalidated: u32::try_from(ended).unwrap_or(u32::MAX) })
}

/// Adds the session row. False when it was there before; it stays as it is then, ended or not.
pub(super) fn start(connection: &Connection, user: UserId, session: &NewSession, now: Time) -> Result<bool> {
    let sql = "INSERT INTO sessions (token_hash, user_id, address, device, created_at, expires_at, last_active_at)
         VALUES (:token, :user, :address, :device, :now, :expires_at, :now) ON CONFLICT DO NOTHING";
    let started = connection.prepare_cached(sql)?.execute(named_params! {
        ":token": session.token,
        ":user": user,
        ":address": session.address.to_string(),
        ":device": session.device,
        ":now": now,
        ":expires_at": session.expires_at,
    })?;
    Ok(started == 1)
}

/// Moves the end of a session that is still active.
pub(super) fn prolong(
    connection: &Connection,
    user: UserId,
    token: TokenHash,
    expires_at: Time,
    now: Time,
) -> Result<()> {
    let sql = "UPDATE sessions SET expires_at = :expires_at, last_active_at = :now
         WHERE token_hash = :token AND user_id = :user AND is_active = 1";
    connection
        .prepare_cached(sql)?
        .execute(named_params! { ":token": token, ":user": user, ":expires_at": expires_at, ":now": now })?;
    Ok(())
}

/// Removes at most [`SWEEP_ROWS_MAX`] sessions that have expired, longest ago first.
pub(super) fn sweep(connection: &Connection, now: Time) -> Result<()> {
    let sql = "DELETE FROM sessions WHERE token_hash IN
         (SELECT token_hash FROM sessions WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)";
    connection.prepare_cached(sql)?.execute((now, SWEEP_ROWS_MAX))?;
    Ok(())
}

//! Invite codes, which open the paywall, and referral codes, which introduce (contract 4.4). On the store's thread.
//!
//! A use is a row and a count that move together, so a code is never spent twice by one user nor once too often.
//! Deliberately absent: drawing codes; who asks has the entropy.

use rusqlite::{Connection, OptionalExtension as _, Result, named_params};

use crate::base::{Time, UserId};
use crate::message::store::InviteCodeRefusal;

/// Uses of a user's own code.
const OWN_CODE_USES: u32 = 4;

/// Who introduces to whom.
pub(super) struct Referral {
    pub target: UserId,
    pub introducer: UserId,
    pub introducer_name: String,
}

/// Why `user` may not use `code`, if so.
pub(super) fn refusal(connection: &Connection, code: &str, user: UserId) -> Result<Option<InviteCodeRefusal>> {
    let sql = "SELECT is_active, uses_remaining = 0,
             EXISTS (SELECT 1 FROM invite_code_uses AS uses WHERE uses.code = ?1 AND uses.user_id = ?2)
         FROM invite_codes WHERE code = ?1";
    let found = connection.prepare_cached(sql)?.query_row((code, user), |row| {
        let (active, used_up, used_before) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok((active, used_up, used_before))
    });
    Ok(match found.optional()? {
        None => Some(InviteCodeRefusal::Unknown),
        Some((false, ..)) => Some(InviteCodeRefusal::Deactivated),
        Some((_, _, true)) => Some(InviteCodeRefusal::AlreadyUsed),
        Some((_, Some(true), _)) => Some(InviteCodeRefusal::UsedUp),
        Some((true, None | Some(false), false)) => None,
    })
}

/// Takes one use of a code that [`refusal`] let pass in the same transaction; an unlimited one only notes it.
pub(super) fn spend(connection: &Connection, code: &str, user: UserId, now: Time) -> Result<()> {
    let sql = "INSERT INTO invite_code_uses (code, user_id, used_at) VALUES (?1, ?2, ?3)";
    connection.prepare_cached(sql)?.execute((code, user, now))?;
    let sql = "UPDATE invite_codes SET uses_remaining = uses_remaining - 1 WHERE code = ?1";
    connection.prepare_cached(sql)?.execute([code])?;
    Ok(())
}

/// Stores the code that `user` may pass on.
pub(super) fn insert_own(connection: &Connection, code: &str, user: UserId, name: &str, now: Time) -> Result<()> {
    let sql = "INSERT INTO invite_codes (code, type, max_uses, uses_remaining, created_by, created_by_name, created_at)
         VALUES (:code, 'user', :uses, :uses, :user, :name, :now)";
    connection
        .prepare_cached(sql)?
        .execute(named_params! { ":code": code, ":uses": OWN_CODE_USES, ":user": user, ":name": name, ":now": now })?;
    Ok(())
}

/// What a referral code stands for.
pub(super) fn referral(connection: &Connection, code: &str) -> Result<Option<Referral>> {
    let sql = "SELECT target_id, created_by, created_by_name FROM referral_codes WHERE code = ?1";
    let referral = connection.prepare_cached(sql)?.query_row([code], |row| {
        Ok(Referral { target: row.get(0)?, introducer: row.get(1)?, introducer_name: row.get(2)? })
    });
    referral.optional()
}

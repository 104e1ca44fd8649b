//! Invite codes, which open the paywall, and referral codes, which introduce (contract 4.4). On the store's thread.
//!
//! A use is a row and a count that move together, so a code is never spent twice by one user nor once too often.
//! Deliberately absent: drawing codes; who asks has the entropy.

use super::connection::{Connection, Result};
use crate::base::{Time, UserId};
use crate::message::store::InviteCodeRefusal;

/// Uses of a user's own code.
const OWN_CODE_USES: i32 = 4;

/// Why `user` may not use `code`, if so. The code's row stays locked: nobody else spends it until the end.
pub(super) async fn refusal(connection: &Connection, code: &str, user: UserId) -> Result<Option<InviteCodeRefusal>> {
    let sql = "SELECT is_active, uses_remaining = 0,
             EXISTS (SELECT FROM invite_code_uses AS uses WHERE uses.code = $1 AND uses.user_id = $2)
         FROM invite_codes WHERE code = $1 FOR NO KEY UPDATE";
    let Some(row) = connection.row(sql, &[&code, &user]).await? else {
        return Ok(Some(InviteCodeRefusal::Unknown));
    };
    Ok(match (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?) {
        (false, ..) => Some(InviteCodeRefusal::Deactivated),
        (_, _, true) => Some(InviteCodeRefusal::AlreadyUsed),
        (_, Some(true), _) => Some(InviteCodeRefusal::UsedUp),
        (true, None | Some(false), false) => None,
    })
}

/// Takes one use of a code that [`refusal`] let pass in the same transaction; an unlimited one only notes it.
pub(super) async fn spend(connection: &Connection, code: &str, user: UserId, now: Time) -> Result<()> {
    let sql = "INSERT INTO invite_code_uses (code, user_id, used_at) VALUES ($1, $2, $3)";
    connection.execute(sql, &[&code, &user, &now]).await?;
    let sql = "UPDATE invite_codes SET uses_remaining = uses_remaining - 1 WHERE code = $1";
    connection.execute(sql, &[&code]).await.map(drop)
}

/// Stores the code that `user` may pass on.
pub(super) async fn insert_own(connection: &Connection, code: &str, user: UserId, name: &str, now: Time) -> Result<()> {
    let sql = "INSERT INTO invite_codes (code, type, max_uses, uses_remaining, created_by, created_by_name, created_at)
         VALUES ($1, 'user', $2, $2, $3, $4, $5)";
    connection.execute(sql, &[&code, &OWN_CODE_USES, &user, &name, &now]).await.map(drop)
}

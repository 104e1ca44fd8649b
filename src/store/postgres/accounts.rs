//! Accounts: sign-up, linking, profiles. Used on the store's thread.
//!
//! E-mails come normalised, so the unique index is the judge of who has one. Deliberately absent: passwords (only their
//! hashes pass through) and the shape of names and codes, which were checked where they came in.

use futures_lite::future::try_zip;

use super::column::{CARD, Json, account_type, card, metrics};
use super::connection::{Connection, Error, Parameters, Result};
use super::{codes, sessions};
use crate::base::{Time, TokenHash, UserId};
use crate::message::PaidStatus;
use crate::message::model::{Card, Socials};
use crate::message::store::{Account, Profile, Reply, SignUp, SignedUp};

/// Writes user and session, unless the user is there.
const INSERT_GUEST: &str = "WITH guest AS (
         INSERT INTO users (user_id, name, gender, introduced_to, introduced_by, introduced_by_name,
             introduced_via_code, paid_status, invite_code_used, my_invite_code, created_at, updated_at)
         SELECT $1, $2, $3, referral.target_id, referral.created_by, referral.created_by_name,
             referral.code, $5, $6, $7, $8, $8
         FROM (SELECT) AS one LEFT JOIN referral_codes AS referral ON referral.code = $4
         ON CONFLICT (user_id) DO NOTHING
         RETURNING user_id)
     INSERT INTO sessions (token_hash, user_id, address, device, created_at, expires_at, last_active_at)
     SELECT $9, user_id, $10, $11, $8, $12, $8 FROM guest";

/// Makes the guest, unless an earlier try has, or the invite code is refused.
pub(super) async fn sign_up(connection: &Connection, sign_up: &SignUp) -> Result<Reply> {
    let Some(code) = sign_up.invite_code.as_deref() else {
        // User and session are one statement, so one transaction; the reading of both is sent along behind it.
        connection.prepare(INSERT_GUEST).await?;
        let (_, made) = try_zip(insert_guest(connection, sign_up), signed_up(connection, sign_up)).await?;
        return made.map(Reply::SignedUp).ok_or(Error::Refused("the user has another session"));
    };
    connection
        .transaction(async || {
            // A repeat finds what an earlier try has made, though the code may be used up since.
            if let Some(made) = signed_up(connection, sign_up).await? {
                return Ok(Reply::SignedUp(made));
            }
            if let Some(refusal) = codes::refusal(connection, code, sign_up.user).await? {
                return Ok(Reply::InviteCode(refusal));
            }
            insert_guest(connection, sign_up).await?;
            codes::spend(connection, code, sign_up.user, sign_up.now).await?;
            codes::insert_own(connection, &sign_up.own_code, sign_up.user, &sign_up.name, sign_up.now).await?;
            let made = signed_up(connection, sign_up).await?;
            made.map(Reply::SignedUp).ok_or(Error::Refused("the user has another session"))
        })
        .await
}

/// Writes user and session, unless the user is there: whom the referral introduces, and what the invite code opens.
async fn insert_guest(connection: &Connection, sign_up: &SignUp) -> Result<()> {
    let (code, session) = (sign_up.invite_code.as_deref(), &sign_up.session);
    let paid = if code.is_some() { PaidStatus::QrGracePeriod } else { PaidStatus::Unpaid };
    let values: &Parameters<'_> = &[
        &sign_up.user,
        &sign_up.name,
        &sign_up.gender.as_str(),
        &sign_up.referral_code,
        &paid.as_str(),
        &code,
        &code.and(Some(&sign_up.own_code)),
        &sign_up.now,
        &session.token,
        &session.address.to_string(),
        &session.device,
        &session.expires_at,
    ];
    connection.execute(INSERT_GUEST, values).await.map(drop)
}

/// The guest that `sign_up` asks for, if it is there: the session's login, and the card of whom he was introduced to.
async fn signed_up(connection: &Connection, sign_up: &SignUp) -> Result<Option<Box<SignedUp>>> {
    let token = &[sign_up.session.token];
    let target = async {
        match sign_up.referral_code {
            Some(_) => target(connection, sign_up.session.token).await,
            None => Ok(None),
        }
    };
    let (mut logins, target) = try_zip(sessions::find(connection, token), target).await?;
    Ok(logins.pop().map(|(_, login)| Box::new(SignedUp { login, target })))
}

/// The card of the one to whom the holder of `token` was introduced.
async fn target(connection: &Connection, token: TokenHash) -> Result<Option<Card>> {
    let sql = format!(
        "SELECT {CARD} FROM users WHERE user_id =
             (SELECT guest.introduced_to FROM users AS guest JOIN sessions USING (user_id) WHERE token_hash = $1)"
    );
    connection.row(&sql, &[&token]).await?.as_ref().map(card).transpose()
}

/// Gives a guest e-mail and password and prolongs the session; a permanent account keeps its own, and only prolongs.
/// Refused when the e-mail belongs to somebody else, or the account has another one.
pub(super) async fn link(
    connection: &Connection,
    (user, token): (UserId, TokenHash),
    (email, password_hash): (&str, &str),
    expires_at: Time,
    now: Time,
) -> Result<Reply> {
    let linked = connection.transaction(async || {
        let sql = "UPDATE users SET email = $2, password_hash = $3, updated_at = $4
             WHERE user_id = $1 AND email IS NULL";
        let changed = connection.execute(sql, &[&user, &email, &password_hash, &now]).await?;
        if changed == 0 {
            let row = connection.row("SELECT email = $2 FROM users WHERE user_id = $1", &[&user, &email]).await?;
            let row = row.ok_or(Error::Refused("there is no such user"))?;
            // Without an e-mail the row must have come in between.
            if row.try_get::<_, Option<bool>>(0)? != Some(true) {
                return Ok(Reply::EmailTaken);
            }
        }
        sessions::prolong(connection, user, token, expires_at, now).await?;
        Ok(Reply::Linked)
    });
    match linked.await {
        Err(error) if error.violates("users_by_email") => Ok(Reply::EmailTaken),
        linked => linked,
    }
}

/// The account that has this e-mail: an exact match, since both sides come normalised.
pub(super) async fn by_email(connection: &Connection, email: &str) -> Result<Reply> {
    account(connection, "email = $1", &[&email]).await
}

/// The account of `user`.
pub(super) async fn by_user(connection: &Connection, user: UserId) -> Result<Reply> {
    account(connection, "user_id = $1", &[&user]).await
}

/// The one account that meets `condition`, a piece of SQL of ours with `key` in it.
async fn account(connection: &Connection, condition: &str, key: &Parameters<'_>) -> Result<Reply> {
    let sql = format!("SELECT {CARD}, email, password_hash, ban_status, review_status FROM users WHERE {condition}");
    let Some(row) = connection.row(&sql, key).await? else { return Ok(Reply::Account(None)) };
    Ok(Reply::Account(Some(Box::new(Account {
        card: card(&row)?,
        account: account_type(&row)?,
        email: row.try_get("email")?,
        password_hash: row.try_get("password_hash")?,
        ban_status: row.try_get("ban_status")?,
        review_status: row.try_get("review_status")?,
    }))))
}

/// All that these users see of themselves; in any order, without those who are unknown.
pub(super) async fn profiles(connection: &Connection, users: &[UserId]) -> Result<Vec<(UserId, Profile)>> {
    let sql = format!(
        "SELECT {CARD}, email, socials, paid_status, timer_total_seconds, session_count, last_sessions, created_at
         FROM users WHERE user_id = ANY($1)"
    );
    let rows = connection.rows(&sql, &[&users]).await?;
    rows.iter()
        .map(|row| {
            let profile = Profile {
                card: card(row)?,
                account: account_type(row)?,
                email: row.try_get("email")?,
                socials: row.try_get::<_, Option<Json<Socials>>>("socials")?.map(|socials| socials.0),
                paid: row.try_get("paid_status")?,
                metrics: metrics(row)?,
                created_at: row.try_get("created_at")?,
            };
            Ok((profile.card.user_id, profile))
        })
        .collect()
}

/// Replaces the whole socials object. To say `Done` of a user who is not there would be a lost write (D32).
pub(super) async fn set_socials(connection: &Connection, user: UserId, socials: &Socials, now: Time) -> Result<Reply> {
    let sql = "UPDATE users SET socials = $2, updated_at = $3 WHERE user_id = $1";
    match connection.execute(sql, &[&user, &Json(socials), &now]).await? {
        1 => Ok(Reply::Done),
        _ => Err(Error::Refused("there is no such user")),
    }
}

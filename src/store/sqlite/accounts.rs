//! Accounts: sign-up, linking, profiles. Used on the store's thread.
//!
//! E-mails come normalised, so the unique index is the judge of who has one. Deliberately absent: passwords (only their
//! hashes pass through) and the shape of names and codes, which were checked where they came in.

use rusqlite::{Connection, Error, OptionalExtension as _, Params, Result, ffi, named_params};

use super::codes::{self, Referral};
use super::column::{CARD, Json, account_type, card, metrics};
use super::sessions;
use crate::base::{Time, UserId};
use crate::message::PaidStatus;
use crate::message::model::{Card, Socials};
use crate::message::store::{Account, Profile, Reply, SignUp, SignedUp};

/// Makes the guest, unless an earlier try has, or the invite code is refused.
pub(super) fn sign_up(connection: &Connection, sign_up: &SignUp) -> Result<Reply> {
    if find_card(connection, sign_up.user)?.is_none() {
        let code = sign_up.invite_code.as_deref();
        if let Some(code) = code
            && let Some(refusal) = codes::refusal(connection, code, sign_up.user)?
        {
            return Ok(Reply::InviteCode(refusal));
        }
        insert_guest(connection, sign_up)?;
        if let Some(code) = code {
            codes::spend(connection, code, sign_up.user, sign_up.now)?;
            codes::insert_own(connection, &sign_up.own_code, sign_up.user, &sign_up.name, sign_up.now)?;
        }
        sessions::start(connection, sign_up.user, &sign_up.session, sign_up.now)?;
    }
    let login = sessions::find(connection, sign_up.session.token)?.ok_or(Error::QueryReturnedNoRows)?;
    let target = match &login.card.introduction {
        Some(introduction) => find_card(connection, introduction.target)?,
        None => None,
    };
    Ok(Reply::SignedUp(Box::new(SignedUp { login, target })))
}

/// Writes the user row: whom the referral introduces, and what the invite code opens.
fn insert_guest(connection: &Connection, sign_up: &SignUp) -> Result<()> {
    let referral: Option<Referral> = match &sign_up.referral_code {
        Some(code) => codes::referral(connection, code)?,
        None => None,
    };
    let code = sign_up.invite_code.as_deref();
    let sql = "INSERT INTO users (user_id, name, gender, introduced_to, introduced_by, introduced_by_name,
             introduced_via_code, paid_status, invite_code_used, my_invite_code, created_at, updated_at)
         VALUES (:user, :name, :gender, :introduced_to, :introduced_by, :introduced_by_name,
             :introduced_via_code, :paid_status, :invite_code_used, :my_invite_code, :now, :now)";
    connection.prepare_cached(sql)?.execute(named_params! {
        ":user": sign_up.user,
        ":name": sign_up.name,
        ":gender": sign_up.gender,
        ":introduced_to": referral.as_ref().map(|referral| referral.target),
        ":introduced_by": referral.as_ref().map(|referral| referral.introducer),
        ":introduced_by_name": referral.as_ref().map(|referral| &referral.introducer_name),
        ":introduced_via_code": referral.as_ref().and(sign_up.referral_code.as_ref()),
        ":paid_status": if code.is_some() { PaidStatus::QrGracePeriod } else { PaidStatus::Unpaid },
        ":invite_code_used": code,
        ":my_invite_code": code.and(Some(&sign_up.own_code)),
        ":now": sign_up.now,
    })?;
    Ok(())
}

/// The public card of `user`, if there is such a user.
fn find_card(connection: &Connection, user: UserId) -> Result<Option<Card>> {
    let sql = format!("SELECT {CARD} FROM users WHERE user_id = ?1");
    connection.prepare_cached(&sql)?.query_row([user], card).optional()
}

/// Gives a guest e-mail and password; a permanent account keeps its own. False: the e-mail belongs to somebody else, or
/// the account has another one.
pub(super) fn link(connection: &Connection, user: UserId, email: &str, password_hash: &str, now: Time) -> Result<bool> {
    let sql = "UPDATE users SET email = :email, password_hash = :password_hash, updated_at = :now
         WHERE user_id = :user AND email IS NULL";
    let linked = connection
        .prepare_cached(sql)?
        .execute(named_params! { ":email": email, ":password_hash": password_hash, ":now": now, ":user": user });
    match linked {
        Err(Error::SqliteFailure(error, _)) if error.extended_code == ffi::SQLITE_CONSTRAINT_UNIQUE => Ok(false),
        Ok(0) => {
            let sql = "SELECT email = ?2 FROM users WHERE user_id = ?1";
            connection.prepare_cached(sql)?.query_row((user, email), |row| row.get(0))
        }
        linked => linked.map(|_| true),
    }
}

/// The account that has this e-mail: an exact match, since both sides come normalised.
pub(super) fn by_email(connection: &Connection, email: &str) -> Result<Reply> {
    account(connection, "email = ?1", [email])
}

/// The account of `user`.
pub(super) fn by_user(connection: &Connection, user: UserId) -> Result<Reply> {
    account(connection, "user_id = ?1", [user])
}

/// The one account that meets `condition`, a piece of SQL of ours with `key` in it.
fn account(connection: &Connection, condition: &str, key: impl Params) -> Result<Reply> {
    let sql = format!("SELECT {CARD}, email, password_hash, ban_status, review_status FROM users WHERE {condition}");
    let account = connection.prepare_cached(&sql)?.query_row(key, |row| {
        Ok(Box::new(Account {
            card: card(row)?,
            account: account_type(row)?,
            email: row.get("email")?,
            password_hash: row.get("password_hash")?,
            ban_status: row.get("ban_status")?,
            review_status: row.get("review_status")?,
        }))
    });
    account.optional().map(Reply::Account)
}

/// All that a user sees of himself.
pub(super) fn profile(connection: &Connection, user: UserId) -> Result<Reply> {
    let sql = format!(
        "SELECT {CARD}, email, socials, paid_status, timer_total_seconds, session_count, last_sessions, created_at
         FROM users WHERE user_id = ?1"
    );
    let profile = connection.prepare_cached(&sql)?.query_row([user], |row| {
        Ok(Box::new(Profile {
            card: card(row)?,
            account: account_type(row)?,
            email: row.get("email")?,
            socials: row.get::<_, Option<Json<Socials>>>("socials")?.map(|socials| socials.0),
            paid: row.get("paid_status")?,
            metrics: metrics(row)?,
            created_at: row.get("created_at")?,
        }))
    });
    profile.optional().map(Reply::Profile)
}

/// Replaces the whole socials object. To say `Done` of a user who is not there would be a lost write (D32).
pub(super) fn set_socials(connection: &Connection, user: UserId, socials: &Socials, now: Time) -> Result<Reply> {
    let sql = "UPDATE users SET socials = ?2, updated_at = ?3 WHERE user_id = ?1";
    match connection.prepare_cached(sql)?.execute((user, Json(socials), now))? {
        1 => Ok(Reply::Done),
        changed => Err(Error::StatementChangedRows(changed)),
    }
}

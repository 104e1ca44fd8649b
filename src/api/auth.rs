//! Accounts come to be and come back: guests sign up, turn permanent, log in again (contract 2.5, D25-D27).
//!
//! A body's fields are read as any JSON value: what is not a string counts as missing and meets that refusal (D1).
//! Windows are looked at before anything is hashed or stored. Hashing runs on the host's pool, never here.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::limits::{DEVICE_BYTES_MAX, GUEST_SESSION_MS, PERMANENT_SESSION_MS};
use crate::base::{Token, UserId};
use crate::domain::rate::{Bucket, Key};
use crate::message::model::AccountType;
use crate::message::store::{Account, NewSession, Reply, Request, SignUp, SignedUp};
use crate::message::{Card, PaidStatus};
use crate::wire::http::Response;

use super::body::{self, text};
use super::error::Limited;
use super::limit::{self, Meter};
use super::{ApiError, Call, Host, answer, form, session};

/// What the onboarding page sends.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct SignUpBody {
    name: Value,
    gender: Value,
    referral_code: Value,
    invite_code: Value,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SignUpAnswer<'a> {
    user_id: UserId,
    session_token: String,
    account_type: AccountType,
    was_referred: bool,
    /// The target's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    introduced_to: Option<&'a str>,
    target_user: Option<&'a Card>,
    /// Whether the target could be called right now.
    target_online: bool,
    /// As it was sent, known or not.
    referral_code: Option<&'a str>,
    paid_status: PaidStatus,
    requires_payment: bool,
}

/// `POST /auth/guest`: a new guest with a session of seven days.
///
/// Told only after the store has both. A good invite code costs a use and opens the paywall; a refused one makes
/// nobody (403). An unknown referral code is ignored. Refusals besides: 400 for what was typed, 429.
pub async fn sign_up<H: Host>(call: &Call<'_, H>) -> Result<Response, ApiError> {
    let body: SignUpBody = body::parse(call.request)?;
    let name = form::name(text(&body.name))?.to_owned();
    let gender = form::gender(text(&body.gender))?;
    let invite_code = form::invite_code(text(&body.invite_code))?;
    let referral_code = form::referral_code(text(&body.referral_code));
    let (key, limit) = (Key::Address(call.address), call.settings().limits.sign_ups);
    let quota = limit::spend(call, Meter { bucket: Bucket::SignUp, key, limit, limited: Limited::SignUps }).await?;

    let (user, token, own_code) = call.host.draw(|random| {
        let user = UserId::draw(random);
        (user, Token::draw(user, random), form::draw_invite_code(random))
    });
    let session = new_session(call, &token, GUEST_SESSION_MS);
    let now = call.now();
    let sign_up = SignUp { user, name, gender, session, referral_code, invite_code, own_code, now };
    let paywall = call.settings().paywall;
    let SignedUp { login, target } = match call.store(Request::SignUp(Box::new(sign_up))).await? {
        Reply::SignedUp(made) => *made,
        Reply::InviteCode(refusal) => return Err(ApiError::InviteCode { refusal }),
        _ => return Err(ApiError::Unavailable),
    };
    let paid = if paywall { login.paid } else { PaidStatus::Paid };
    let response = Response::json(
        200,
        &SignUpAnswer {
            user_id: login.user(),
            session_token: token.encode(),
            account_type: login.account,
            was_referred: target.is_some(),
            introduced_to: target.as_ref().map(|target| target.name.as_str()),
            target_online: call
                .host
                .directory(|all| target.as_ref().is_some_and(|target| all.is_available(target.user_id))),
            target_user: target.as_ref(),
            referral_code: body.referral_code.as_str(),
            paid_status: paid,
            requires_payment: paid == PaidStatus::Unpaid,
        },
    );
    Ok(limit::mark(quota, response))
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct LinkBody {
    session_token: Value,
    email: Value,
    password: Value,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LinkAnswer {
    success: bool,
    account_type: AccountType,
}

/// `POST /auth/link`: the guest gets an e-mail and a password. Asked again with the same two it is done again (W7).
///
/// The token, sent in the body, stays good, now for thirty days. A permanent account keeps what it has: another
/// e-mail or password is a conflict (409), so that a stolen token cannot take an account over (D26). Hashing is
/// counted per user. Refusals besides: those of a session, 400 for what was typed, 404, 429.
pub async fn link<H: Host>(call: &Call<'_, H>) -> Result<Response, ApiError> {
    let body: LinkBody = body::parse(call.request)?;
    let (token, email, password) = (text(&body.session_token), text(&body.email), text(&body.password));
    if [token, email.trim(), password].contains(&"") {
        return Err(ApiError::LinkFieldsRequired);
    }
    let login = session::of(call, token).await?;
    let email = form::email(email).ok_or(ApiError::EmailNotAllowed)?;
    if !form::password_fits(password) {
        return Err(ApiError::PasswordNotAllowed);
    }
    let (key, limit) = (Key::User(login.user()), call.settings().limits.log_ins);
    limit::spend(call, Meter { bucket: Bucket::LogIn, key, limit, limited: Limited::LogIns }).await?;

    let account = account(call, Request::AccountByUser { user: login.user() }).await?.ok_or(ApiError::UserNotFound)?;
    let password_hash = match account.account {
        AccountType::Guest => hash_for_free(call, &email, password).await?,
        AccountType::Permanent => known_hash(call, &account, &email, password).await?,
    };
    let now = call.now();
    let (user, token, expires_at) = (login.user(), login.token, now + PERMANENT_SESSION_MS);
    match call.store(Request::Link { user, token, email, password_hash, expires_at, now }).await? {
        Reply::Linked => {}
        Reply::EmailTaken => return Err(ApiError::EmailRegistered),
        _ => return Err(ApiError::Unavailable),
    }
    call.host.user_changed(user).await;
    Ok(Response::json(200, &LinkAnswer { success: true, account_type: AccountType::Permanent }))
}

/// The hash of a new password, if nobody has the e-mail yet: a taken one is not worth the work.
async fn hash_for_free<H: Host>(call: &Call<'_, H>, email: &str, password: &str) -> Result<String, ApiError> {
    if account(call, Request::AccountByEmail { email: email.to_owned() }).await?.is_some() {
        return Err(ApiError::EmailRegistered);
    }
    Ok(call.host.hash_password(password.to_owned()).await?)
}

/// The hash that a permanent account has, if e-mail and password are its own (D26).
async fn known_hash<H: Host>(
    call: &Call<'_, H>,
    account: &Account,
    email: &str,
    password: &str,
) -> Result<String, ApiError> {
    let hash = account.password_hash.clone().filter(|_| account.email.as_deref() == Some(email));
    let hash = hash.ok_or(ApiError::EmailRegistered)?;
    let own = call.host.verify_password(password.to_owned(), Some(hash.clone())).await?;
    if own { Ok(hash) } else { Err(ApiError::EmailRegistered) }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct LogInBody {
    email: Value,
    password: Value,
}

/// The new session, and whether there were others.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LogInAnswer<'a> {
    user_id: UserId,
    session_token: String,
    account_type: AccountType,
    session_invalidated: bool,
    invalidated_count: u32,
    user: LogInUser<'a>,
}

/// What the page greets the user with.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LogInUser<'a> {
    name: &'a str,
    email: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    selfie_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    video_url: Option<&'a str>,
}

/// `POST /auth/login`: a new session that ends all others. Failures count against the account at this address.
///
/// Refusals: 400 without both fields, 401 for every other failure (D25), 403 for a banned account whose password
/// was right, 429.
pub async fn log_in<H: Host>(call: &Call<'_, H>) -> Result<Response, ApiError> {
    let body: LogInBody = body::parse(call.request)?;
    let email = form::email(text(&body.email));
    let key = Key::Account(call.address, email.clone().unwrap_or_default());
    let limit = call.settings().limits.auth_failures;
    let meter = Meter { bucket: Bucket::LoginFailure, key, limit, limited: Limited::LogIns };
    let attempt = async { answer(attempt_log_in(call, &body, email).await) };
    Ok(limit::attempts(call, meter, attempt).await)
}

/// The log-in within its window. The store ends the other sessions before their connections are told, and both
/// happen before the answer: whoever holds the new token meets no trace of the old ones.
async fn attempt_log_in<H: Host>(
    call: &Call<'_, H>,
    body: &LogInBody,
    email: Option<String>,
) -> Result<Response, ApiError> {
    let password = text(&body.password);
    if text(&body.email).trim().is_empty() || password.is_empty() {
        return Err(ApiError::LogInFieldsRequired);
    }
    // Counted before the password is checked: many attempts at once must not all slip through.
    let (key, limit) = (Key::Address(call.address), call.settings().limits.log_ins);
    limit::spend(call, Meter { bucket: Bucket::LogIn, key, limit, limited: Limited::LogIns }).await?;

    let account = match email {
        Some(email) => account(call, Request::AccountByEmail { email }).await?,
        None => None,
    };
    let account = with_password(call, account, password).await?.ok_or(ApiError::InvalidCredentials)?;
    if account.banned() {
        let Account { ban_status, review_status, .. } = *account;
        return Err(ApiError::LogInSuspended { ban_status, review_status });
    }
    let user = account.card.user_id;
    let token = call.host.draw(|random| Token::draw(user, random));
    let session = new_session(call, &token, PERMANENT_SESSION_MS);
    let Reply::LoggedIn { invalidated } = call.store(Request::LogIn { user, session, now: call.now() }).await? else {
        return Err(ApiError::Unavailable);
    };
    call.host.sessions_ended(user, token.hash()).await;
    Ok(Response::json(
        200,
        &LogInAnswer {
            user_id: user,
            session_token: token.encode(),
            account_type: account.account,
            session_invalidated: invalidated > 0,
            invalidated_count: invalidated,
            user: LogInUser {
                name: &account.card.name,
                email: account.email.as_deref(),
                selfie_url: account.card.selfie_url.as_deref(),
                video_url: account.card.video_url.as_deref(),
            },
        },
    ))
}

/// The account, if the password is its own. Takes as long when there is no such account, or a guest's (D25).
async fn with_password<H: Host>(
    call: &Call<'_, H>,
    account: Option<Box<Account>>,
    password: &str,
) -> Result<Option<Box<Account>>, ApiError> {
    // No account has a password of another length, so its text need not reach the pool.
    let password = if form::password_fits(password) { password.to_owned() } else { String::new() };
    let hash = account.as_ref().and_then(|account| account.password_hash.clone());
    let own = call.host.verify_password(password, hash).await?;
    Ok(account.filter(|_| own))
}

/// The account that `request` asks for.
async fn account<H: Host>(call: &Call<'_, H>, request: Request) -> Result<Option<Box<Account>>, ApiError> {
    match call.store(request).await? {
        Reply::Account(account) => Ok(account),
        _ => Err(ApiError::Unavailable),
    }
}

/// A session that begins now, as it is stored: of the token only its hash, of the device only its User-Agent.
fn new_session<H: Host>(call: &Call<'_, H>, token: &Token, lifetime_ms: u64) -> NewSession {
    let agent = call.request.header("user-agent").unwrap_or_default();
    let cut = (0..=DEVICE_BYTES_MAX.min(agent.len())).rev().find(|at| agent.is_char_boundary(*at)).unwrap_or(0);
    NewSession {
        token: token.hash(),
        expires_at: call.now() + lifetime_ms,
        address: call.address,
        device: agent[..cut].to_owned(),
    }
}

//! The user's own profile (contract 2.6). What others see of a user is his [`Card`](crate::message::Card).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::{Time, UserId};
use crate::message::client::socials_allowed;
use crate::message::model::{AccountType, Login, Metrics, Socials};
use crate::message::store::{Profile, Reply, Request};
use crate::message::{Card, PaidStatus};
use crate::wire::http::Response;

use super::{ApiError, Call, Host, body, session};

/// All of a user that only he sees. What is not there is left out, but for what pages expect as `null`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProfileAnswer<'a> {
    #[serde(flatten)]
    card: &'a Card,
    account_type: AccountType,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    socials: Option<&'a Socials>,
    created_at: Time,
    #[serde(flatten)]
    metrics: &'a Metrics,
    /// Never counted by anybody; the wire has it.
    streak_days: Option<u64>,
    /// Onboarding reads it here (W3).
    paid_status: PaidStatus,
}

/// `GET /user/me`. Refusals: those of a session, and 404 when the account is gone.
pub async fn profile<H: Host>(call: &Call<'_, H>) -> Result<Response, ApiError> {
    let login = session::current(call).await?;
    let profile = stored(call, &login).await?;
    let answer = ProfileAnswer {
        card: &profile.card,
        account_type: profile.account,
        email: profile.email.as_deref(),
        socials: profile.socials.as_ref(),
        created_at: profile.created_at,
        metrics: &profile.metrics,
        streak_days: None,
        paid_status: if call.settings().paywall { profile.paid } else { PaidStatus::Paid },
    };
    Ok(Response::json(200, &answer))
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct EditBody {
    /// Taken apart by hand: a wrong one is told what is wrong with it, not that it is no JSON.
    socials: Value,
}

#[derive(Serialize)]
struct EditAnswer<'a> {
    success: bool,
    user: EditedUser<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EditedUser<'a> {
    user_id: UserId,
    name: &'a str,
    socials: Option<Socials>,
}

/// `PUT /user/me`: replaces the socials; without any in the request it changes nothing and tells those there are.
///
/// Answers after the store has them (D32). Refusals: those of a session, and 400 for socials beyond their bounds.
pub async fn edit_profile<H: Host>(call: &Call<'_, H>) -> Result<Response, ApiError> {
    let login = session::current(call).await?;
    let body: EditBody = body::parse(call.request)?;
    let socials = if body.socials.is_null() {
        stored(call, &login).await?.socials
    } else {
        let socials: Socials = serde_json::from_value(body.socials).map_err(|_| ApiError::SocialsNotAllowed)?;
        if !socials_allowed(&socials) {
            return Err(ApiError::SocialsNotAllowed);
        }
        let request = Request::SetSocials { user: login.user(), socials: socials.clone(), now: call.now() };
        let Reply::Done = call.store(request).await? else { return Err(ApiError::Unavailable) };
        call.host.user_changed(login.user()).await;
        Some(socials)
    };
    let user = EditedUser { user_id: login.user(), name: &login.card.name, socials };
    Ok(Response::json(200, &EditAnswer { success: true, user }))
}

/// The profile of a login. 404 when the account went away after the login was cached.
pub async fn stored<H: Host>(call: &Call<'_, H>, login: &Login) -> Result<Profile, ApiError> {
    call.host.profile(login.user()).await?.ok_or(ApiError::UserNotFound)
}

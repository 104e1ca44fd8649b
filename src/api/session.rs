//! Who is asking: the one check of sessions that every route shares (contract 2.2, D18, D24).
//!
//! Nothing is cached here; the host's caches forget a login as soon as it ends.

use crate::base::Token;
use crate::domain::access;
use crate::message::PaidStatus;
use crate::message::model::Login;

use super::{ApiError, Call, Host};

/// The login of the request's bearer token; a banned account has none.
pub async fn current<H: Host>(call: &Call<'_, H>) -> Result<Login, ApiError> {
    match call.request.bearer() {
        None | Some("") => Err(ApiError::AuthorizationRequired),
        Some(text) => of(call, text).await,
    }
}

/// The same, for routes behind the paywall.
pub async fn with_access<H: Host>(call: &Call<'_, H>) -> Result<Login, ApiError> {
    let login = current(call).await?;
    let locked = call.settings().paywall && login.paid == PaidStatus::Unpaid;
    if locked { Err(ApiError::PaymentRequired) } else { Ok(login) }
}

/// The login of the token written as `text`.
pub async fn of<H: Host>(call: &Call<'_, H>, text: &str) -> Result<Login, ApiError> {
    let token = Token::decode(text).ok_or(ApiError::InvalidSession)?;
    let login = call.host.login(&token).await?;
    match access::standing(call.now(), login.as_ref()) {
        access::Standing::Valid => login.ok_or(ApiError::InvalidSession),
        access::Standing::Expired => Err(ApiError::InvalidSession),
        access::Standing::Invalidated => Err(ApiError::SessionInvalidated),
        access::Standing::Banned => Err(ApiError::Suspended),
    }
}

//! Ice servers for a call: TURN credentials that prove themselves, so nothing is stored and nobody is asked (D35).
//!
//! The scheme is coturn's `use-auth-secret` (draft-uberti-behave-turn-rest-00 2.2): the user name is an expiry and
//! the user's id, the password its HMAC-SHA1 under a secret that the TURN server shares.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Serialize;
use sha1::Sha1;

use crate::base::{Time, UserId};
use crate::domain::rate::{Bucket, Key};
use crate::wire::http::Response;

use super::error::Limited;
use super::limit::{self, Meter};
use super::{ApiError, Call, Host, Settings, session};

/// One entry of `RTCConfiguration.iceServers`.
#[derive(Serialize)]
struct IceServer<'a> {
    urls: &'a [String],
    /// With `credential`, absent for STUN, which asks nobody who he is.
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<String>,
}

/// The answer; `warning` tells an operator who tries it why calls may fail.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Credentials<'a> {
    ice_servers: Vec<IceServer<'a>>,
    /// When a TURN server begins to refuse them; calls that run go on.
    expires_at: Time,
    /// Only logged by pages.
    provider: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'static str>,
}

/// `GET /turn/credentials`: counted per user, since a household or a school shares its address.
///
/// Pages that are refused fall back to public STUN servers. Refusals: those of a session, and 429.
pub async fn credentials<H: Host>(call: &Call<'_, H>) -> Result<Response, ApiError> {
    let user = session::current(call).await?.user();
    let (key, limit) = (Key::User(user), call.settings().limits.turn);
    let quota = limit::spend(call, Meter { bucket: Bucket::Turn, key, limit, limited: Limited::Turn }).await?;
    let response = Response::json(200, &issue(call.settings(), call.now(), user));
    Ok(limit::mark(quota, response))
}

/// What is configured, with credentials made out to `user`. STUN first: it is tried first.
fn issue(settings: &Settings, now: Time, user: UserId) -> Credentials<'_> {
    let expires_at = now + settings.turn.ttl_s * 1000;
    let mut ice_servers = Vec::new();
    if !settings.stun_urls.is_empty() {
        ice_servers.push(IceServer { urls: &settings.stun_urls, username: None, credential: None });
    }
    if !settings.turn.urls.is_empty() {
        let username = format!("{}:{user}", expires_at.0 / 1000);
        let credential = Some(sign(&settings.turn.secret, &username));
        ice_servers.push(IceServer { urls: &settings.turn.urls, username: Some(username), credential });
    }
    let (provider, warning) = match (settings.turn.urls.is_empty(), settings.stun_urls.is_empty()) {
        (false, _) => ("coturn", None),
        (true, false) => ("stun", Some("No TURN server: calls between strict networks will not connect.")),
        (true, true) => ("none", Some("No STUN or TURN server: only calls within one network will connect.")),
    };
    Credentials { ice_servers, expires_at, provider, warning }
}

/// coturn's password for `username`: base64 of HMAC-SHA1 (RFC 2104).
fn sign(secret: &str, username: &str) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(username.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

/// The first two are providers of the original that this server does not ask.
#[derive(Serialize)]
struct Status {
    cloudflare: bool,
    twilio: bool,
    turn: bool,
    stun: bool,
    timestamp: Time,
}

/// `GET /turn/status`: what is configured.
pub async fn status<H: Host>(call: &Call<'_, H>) -> Result<Response, ApiError> {
    session::current(call).await?;
    let settings = call.settings();
    let status = Status {
        cloudflare: false,
        twilio: false,
        turn: !settings.turn.urls.is_empty(),
        stun: !settings.stun_urls.is_empty(),
        timestamp: call.now(),
    };
    Ok(Response::json(200, &status))
}

//! How often who may ask (contract 2.3, D27, D35). The windows themselves live at their keys' homes, behind the host.
//!
//! Three ways of counting: every request ([`spend`]), or only those that failed, exactly ([`attempts`]) or once they
//! have ([`failures`]). All tell where the client stands by the `RateLimit-…` headers.

use crate::base::Time;
use crate::domain::rate::{Action, Bucket, Key, Limit, Standing};
use crate::wire::http::Response;

use super::error::Limited;
use super::{ApiError, Call, Host};

/// How the route table limits a route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Not at all.
    Free,
    /// By failures per address.
    Auth,
    /// By requests per address; not in development.
    Api,
    /// By a key that only the handler can tell (an account, a user): it limits itself.
    Own,
}

/// One window to count in.
pub struct Meter {
    pub bucket: Bucket,
    pub key: Key,
    pub limit: Limit,
    /// What the refusal says.
    pub limited: Limited,
}

/// Where a client stands, as the headers tell it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quota {
    pub max: u32,
    pub remaining: u32,
    pub window_s: u64,
    /// Until the window ends, seconds, rounded up.
    pub reset_s: u64,
}

impl Quota {
    fn new(now: Time, standing: &Standing) -> Self {
        Self {
            max: standing.limit.max,
            remaining: standing.remaining(),
            window_s: standing.limit.window_ms / 1000,
            reset_s: (standing.resets_at - now).div_ceil(1000),
        }
    }

    /// Adds the headers, unless a narrower limit has already added its own.
    pub fn mark(&self, response: Response) -> Response {
        if response.headers.iter().any(|(name, _)| *name == "RateLimit-Policy") {
            return response;
        }
        response
            .header("RateLimit-Policy", format!("{};w={}", self.max, self.window_s))
            .header("RateLimit-Limit", self.max.to_string())
            .header("RateLimit-Remaining", self.remaining.to_string())
            .header("RateLimit-Reset", self.reset_s.to_string())
    }
}

/// Runs `handler` within the limit of its route's class.
pub async fn run<H: Host>(call: &Call<'_, H>, class: Class, handler: impl Future<Output = Response>) -> Response {
    let (settings, key) = (call.settings(), Key::Address(call.address));
    match class {
        Class::Free | Class::Own => handler.await,
        Class::Api if settings.development => handler.await,
        Class::Auth => {
            let (bucket, limit) = (Bucket::AuthFailure, settings.limits.auth_failures);
            failures(call, Meter { bucket, key, limit, limited: Limited::LogIns }, handler).await
        }
        Class::Api => {
            let (bucket, limit) = (Bucket::Api, settings.limits.api);
            match spend(call, Meter { bucket, key, limit, limited: Limited::Requests }).await {
                Ok(quota) => mark(quota, handler.await),
                Err(refused) => refused.response(),
            }
        }
    }
}

/// Tells the client where it stands, if there is a limit.
pub fn mark(quota: Option<Quota>, response: Response) -> Response {
    match quota {
        Some(quota) => quota.mark(response),
        None => response,
    }
}

/// Counts one request. `None`: there is no such limit.
pub async fn spend<H: Host>(call: &Call<'_, H>, meter: Meter) -> Result<Option<Quota>, ApiError> {
    let Meter { bucket, key, limit, limited } = meter;
    if limit.max == 0 {
        return Ok(None);
    }
    let standing = call.host.rate(call.address, bucket, key, limit, Action::Count).await;
    let quota = Quota::new(call.now(), &standing);
    if standing.used > limit.max {
        call.host.limited(bucket);
        return Err(ApiError::TooMany(limited, quota));
    }
    Ok(Some(quota))
}

/// Runs `handler` unless too many have failed, or may yet: it counts from the start, and is taken back if it succeeds, so
/// that of many attempts at once no more than the limit are made. For keys that nobody uses many times at once.
pub async fn attempts<H: Host>(call: &Call<'_, H>, meter: Meter, handler: impl Future<Output = Response>) -> Response {
    let Meter { bucket, key, limit, limited } = meter;
    if limit.max == 0 {
        return handler.await;
    }
    let counted = call.host.rate(call.address, bucket, key.clone(), limit, Action::Count).await;
    if counted.used > limit.max {
        call.host.rate(call.address, bucket, key, limit, Action::Uncount).await;
        call.host.limited(bucket);
        return ApiError::TooMany(limited, Quota::new(call.now(), &counted)).response();
    }
    let response = handler.await;
    let action = if has_failed(&response) { Action::Look } else { Action::Uncount };
    let after = call.host.rate(call.address, bucket, key, limit, action).await;
    Quota::new(call.now(), &after).mark(response)
}

/// Runs `handler` unless too many have failed before, and counts it if it fails. An address may be a whole office, whose
/// requests at the same moment are not held against each other: some more than the limit may fail at once.
pub async fn failures<H: Host>(call: &Call<'_, H>, meter: Meter, handler: impl Future<Output = Response>) -> Response {
    let Meter { bucket, key, limit, limited } = meter;
    if limit.max == 0 {
        return handler.await;
    }
    let before = call.host.rate(call.address, bucket, key.clone(), limit, Action::Look).await;
    if before.used >= limit.max {
        call.host.limited(bucket);
        return ApiError::TooMany(limited, Quota::new(call.now(), &before)).response();
    }
    let response = handler.await;
    let action = if has_failed(&response) { Action::Count } else { Action::Look };
    let after = call.host.rate(call.address, bucket, key, limit, action).await;
    Quota::new(call.now(), &after).mark(response)
}

/// Refusals by a limit and faults of this server are nobody's failures.
fn has_failed(response: &Response) -> bool {
    (400..500).contains(&response.status) && response.status != 429
}

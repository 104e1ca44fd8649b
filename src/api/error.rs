//! The catalogue of refusals: each knows its status and its JSON body, whose `error` texts are part of the wire.
//!
//! Pages show `error` as it is and search it for `Too many`, `suspended`, `Invalid credentials` and
//! `Invalid or expired session` (contract 2.1): a text here changes only together with the contract.

use serde::Serialize;

use crate::message::client::SOCIALS_RULE;
use crate::message::store::InviteCodeRefusal;
use crate::wire::http::Response;

use super::host::{Busy, Unavailable};
use super::limit::Quota;

/// Why a request is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ApiError {
    /// No `Authorization` header: 401.
    AuthorizationRequired,
    /// The token is unknown or past its time: 401.
    InvalidSession,
    /// A newer login replaced the session: 401.
    SessionInvalidated,
    /// The account is banned (D18): 403.
    Suspended,
    /// A log-in with the right password to a banned account: 403.
    LogInSuspended { ban_status: String, review_status: Option<String> },
    /// The paywall stands and the user has not paid: 402.
    PaymentRequired,
    /// The account behind a good session is gone: 404.
    UserNotFound,
    /// Sign-up without a name: 400.
    NameRequired,
    /// The name is too long or not printable (D34): 400.
    NameNotAllowed,
    /// Not one of the four genders: 400.
    InvalidGender,
    /// An invite code that cannot be one: 400.
    InviteCodeFormat,
    /// An invite code that opens nothing: 403.
    InviteCode { refusal: InviteCodeRefusal },
    /// Link without one of its three fields: 400.
    LinkFieldsRequired,
    /// Not of the form `local@domain` (D26): 400.
    EmailNotAllowed,
    /// Too short or too long (D26): 400.
    PasswordNotAllowed,
    /// Another account has this e-mail, or this account has another login (D26): 409.
    EmailRegistered,
    /// Log-in without one of its two fields: 400.
    LogInFieldsRequired,
    /// Unknown e-mail, guest account or wrong password, never told apart (D25): 401.
    InvalidCredentials,
    /// Socials beyond their bounds (D34): 400.
    SocialsNotAllowed,
    /// A list longer than any, or of nobody: 400.
    InvalidLimit,
    /// A place in a list that no answer named: 400.
    InvalidCursor,
    /// The body is not a JSON object of the expected form: 400.
    InvalidJson,
    /// The body is compressed, which no request here needs (RFC 9110 15.5.16): 415.
    UnsupportedCoding,
    /// The page's origin may not call this server (D36): 403.
    ForeignOrigin,
    /// A handler panicked; the request cost nobody else: 500.
    Internal,
    /// No such path: 404.
    NotFound,
    /// The path has no such method: 405; `Allow` names those it has.
    MethodNotAllowed,
    /// A rate limit is used up: 429.
    TooMany(Limited, Quota),
    /// The pool that hashes passwords is full: 429.
    Busy,
    /// The store cannot be reached: 503.
    Unavailable,
    /// As many connections are open as may be: 503.
    AtCapacity,
    /// The client's address has all the connections that it may have.
    AddressCrowded,
}

/// Which rate limit; selects the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limited {
    LogIns,
    SignUps,
    Requests,
    Turn,
}

/// `Retry-After` while the hashing pool is full, seconds.
const BUSY_RETRY_S: u64 = 2;
/// `Retry-After` while the store is away, seconds.
const UNAVAILABLE_RETRY_S: u64 = 5;

/// All that an error body may hold besides `error`.
#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    error: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_invalidated: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requires_payment: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    banned: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ban_status: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    review_status: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_minutes: Option<u64>,
}

impl ApiError {
    /// The response: JSON, with `Retry-After` where waiting helps.
    pub fn response(&self) -> Response {
        let (status, error) = self.line();
        let response = Response::json(status, &self.body(error));
        match self {
            Self::TooMany(_, quota) => quota.mark(response).header("Retry-After", quota.reset_s.to_string()),
            Self::Busy => response.header("Retry-After", BUSY_RETRY_S.to_string()),
            Self::UnsupportedCoding => response.header("Accept-Encoding", "identity"),
            Self::Unavailable | Self::AtCapacity | Self::AddressCrowded => {
                response.header("Retry-After", UNAVAILABLE_RETRY_S.to_string())
            }
            _ => response,
        }
    }

    /// Status and `error` text.
    fn line(&self) -> (u16, &'static str) {
        match self {
            Self::AuthorizationRequired => (401, "Authorization required"),
            Self::InvalidSession => (401, "Invalid or expired session"),
            Self::SessionInvalidated => (401, "Session invalidated"),
            Self::Suspended | Self::LogInSuspended { .. } => (403, "Account suspended"),
            Self::PaymentRequired => (402, "Payment required"),
            Self::UserNotFound => (404, "User not found"),
            Self::NameRequired => (400, "Name is required"),
            Self::NameNotAllowed => (400, "Name must be 1 to 100 printable characters"),
            Self::InvalidGender => (400, "Invalid gender"),
            Self::InviteCodeFormat => (400, "Invalid invite code format"),
            Self::InviteCode { refusal, .. } => (403, invite_code_text(*refusal)),
            Self::LinkFieldsRequired => (400, "Session token, email, and password are required"),
            Self::EmailNotAllowed => (400, "Invalid email address"),
            Self::PasswordNotAllowed => (400, "Password must be 8 to 128 characters"),
            Self::EmailRegistered => (409, "Email already registered"),
            Self::LogInFieldsRequired => (400, "Email and password are required"),
            Self::InvalidCredentials => (401, "Invalid credentials"),
            Self::SocialsNotAllowed => (400, SOCIALS_RULE),
            Self::InvalidLimit => (400, "Invalid limit"),
            Self::InvalidCursor => (400, "Invalid cursor"),
            Self::InvalidJson => (400, "Invalid JSON"),
            Self::ForeignOrigin => (403, "Origin not allowed"),
            Self::NotFound => (404, "Not found"),
            Self::MethodNotAllowed => (405, "Method not allowed"),
            Self::TooMany(Limited::LogIns, _) => (429, "Too many login attempts"),
            Self::TooMany(Limited::SignUps, _) => (429, "Too many sign-ups"),
            Self::TooMany(Limited::Requests, _) | Self::Busy => (429, "Too many requests"),
            Self::TooMany(Limited::Turn, _) => (429, "Too many TURN credential requests"),
            Self::UnsupportedCoding => (415, "Compressed request bodies are not supported"),
            Self::Unavailable => (503, "Service temporarily unavailable"),
            Self::AtCapacity => (503, "Server is at capacity"),
            Self::AddressCrowded => (429, "Too many connections from this address"),
            Self::Internal => (500, "Internal error"),
        }
    }

    fn body(&self, error: &'static str) -> Body<'_> {
        let body = Body { error, ..Body::default() };
        match self {
            Self::SessionInvalidated => Body {
                session_invalidated: Some(true),
                message: Some("You have been logged in from another device."),
                ..body
            },
            Self::Suspended => Body { banned: Some(true), message: Some(SUSPENDED), ..body },
            Self::LogInSuspended { ban_status, review_status } => Body {
                banned: Some(true),
                ban_status: Some(ban_status),
                review_status: review_status.as_deref(),
                message: Some(SUSPENDED),
                ..body
            },
            Self::PaymentRequired => {
                Body { requires_payment: Some(true), message: Some("Payment opens the queue."), ..body }
            }
            Self::InviteCode { .. } => Body { requires_payment: Some(true), ..body },
            Self::TooMany(limited, quota) => Body {
                message: Some("Too many tries in a short time. Please wait before trying again."),
                retry_after: Some(quota.window_s),
                retry_after_minutes: (*limited == Limited::Requests).then_some(quota.window_s.div_ceil(60)),
                ..body
            },
            Self::Busy => {
                let message = Some("The server is busy. Please try again in a moment.");
                Body { message, retry_after: Some(BUSY_RETRY_S), ..body }
            }
            Self::Unavailable | Self::AtCapacity | Self::AddressCrowded => {
                Body { retry_after: Some(UNAVAILABLE_RETRY_S), ..body }
            }
            _ => body,
        }
    }
}

const SUSPENDED: &str = "This account is suspended while reports about it are reviewed.";

fn invite_code_text(refusal: InviteCodeRefusal) -> &'static str {
    match refusal {
        InviteCodeRefusal::Unknown => "Invalid invite code",
        InviteCodeRefusal::Deactivated => "This invite code has been deactivated",
        InviteCodeRefusal::AlreadyUsed => "You have already used this invite code",
        InviteCodeRefusal::UsedUp => "This invite code has been fully used",
    }
}

impl From<Unavailable> for ApiError {
    fn from(_: Unavailable) -> Self {
        Self::Unavailable
    }
}

impl From<Busy> for ApiError {
    fn from(_: Busy) -> Self {
        Self::Busy
    }
}

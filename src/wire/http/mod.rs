//! HTTP/1.0 and 1.1 framing (RFC 9112), strict: whatever two parsers could read differently is refused, so that no
//! request can be smuggled past a proxy in front.
//!
//! Deliberately absent: `Upgrade` (see [`super::upgrade`]), content codings (see [`super::encoding`]), ranges, CORS; the
//! last two belong to the API.

mod body;
mod date;
mod exchange;
mod head;
mod response;

pub use body::Body;
pub use date::encode_date;
pub use exchange::{Effort, Method, Request, Response};
pub(super) use head::values;
pub use head::{Framing, Head, decode_head, head_length};
pub use response::{Reply, encode_response};

/// Why a request cannot be answered by a route, and with which status it is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HttpError {
    /// The status of the refusal.
    pub status: u16,
    /// The text for `{"error":…}`.
    pub error: &'static str,
}

impl HttpError {
    pub(super) const fn new(status: u16, error: &'static str) -> Self {
        Self { status, error }
    }

    /// The refusal as a response (contract 2.1: every error is JSON).
    pub fn response(&self) -> Response {
        Response::json(self.status, &serde_json::json!({ "error": self.error }))
    }
}

//! Conditional requests: whether the client has the answer already (RFC 9110 13.1.2). Ranges and dates are not here.

use crate::wire::http::Request;

/// Whether `If-None-Match` names the tag, by weak comparison (RFC 9110 8.8.3.2).
pub fn is_known(request: &Request, tag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let names = |tags: &str| tags.trim() == "*" || tags.split(',').any(|one| opaque(one) == opaque(tag));
    request.header("if-none-match").is_some_and(names)
}

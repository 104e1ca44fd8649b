//! The name of a request: in its answer and in every line that is logged while it is answered, so that one leads to the
//! other.
//!
//! A proxy or a page that has named its request (`X-Request-Id`) keeps that name. Bound: [`REQUEST_NAME_BYTES_MAX`]; a
//! longer or stranger name is not believed. Requests of Engine.IO have none: their session's events are counted.

use std::fmt::Write as _;

use tracing::Span;

use crate::base::Random;
use crate::base::limits::REQUEST_NAME_BYTES_MAX;
use crate::wire::http::{Request, Response};

/// Of requests and answers.
const HEADER: &str = "X-Request-Id";

/// The name that the request came with if that is well-formed, else a new one.
pub(super) fn name(request: &Request, random: &mut Random) -> String {
    let is_plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    let is_name = |name: &&str| (1..=REQUEST_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain);
    if let Some(name) = request.header("x-request-id").filter(is_name) {
        return name.to_owned();
    }
    let mut name = String::with_capacity(16);
    for byte in random.bytes::<8>() {
        let _ = write!(name, "{byte:02x}");
    }
    name
}

/// What lines are logged under while the request is answered, whatever their level.
pub(super) fn span(name: &str) -> Span {
    tracing::error_span!("request", id = name)
}

/// Puts the name into the answer. Called within the span: it also tells what came of the request, without what the
/// client made up.
pub(super) fn mark(name: String, request: &Request, response: Response) -> Response {
    let path = if response.status == 404 { "" } else { request.path.as_str() };
    tracing::debug!(method = ?request.method, path, status = response.status, "request answered");
    response.header(HEADER, name)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::wire::http::Method;

    fn request(name: Option<&str>) -> Request {
        let headers = name.map(|name| ("x-request-id".to_owned(), name.to_owned())).into_iter().collect();
        let (path, query, body) = ("/".to_owned(), String::new(), Bytes::new());
        Request { method: Method::Get, path, query, headers, body }
    }

    #[test]
    fn a_well_formed_name_is_kept_and_any_other_replaced() {
        let mut random = Random::from_seed(1);
        let mut named = |given: Option<&str>| name(&request(given), &mut random);
        assert_eq!(named(Some("01HZX-9_a.b")), "01HZX-9_a.b");
        let longest = "a".repeat(REQUEST_NAME_BYTES_MAX);
        assert_eq!(named(Some(&longest)), longest);
        for strange in [None, Some(""), Some("a b"), Some("a\"b"), Some("é"), Some(&format!("{longest}a"))] {
            let name = named(strange);
            assert!(name.len() == 16 && name.bytes().all(|c| c.is_ascii_hexdigit()), "{strange:?}: {name}");
        }
        assert_ne!(named(None), named(None));
    }
}

//! Which pages may call, and how a browser is told so (contract 2.1, Fetch 3.3).
//!
//! Without these headers a page sees a network error instead of the answer, so every answer to an allowed origin
//! carries them, refusals too. An answer to a foreign origin carries none (D36).

use crate::wire::http::{Method, Request, Response};

use super::Settings;
use super::security::scheme;

/// Who sent the request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin<'a> {
    /// No page: a program, or a browser that follows a link.
    None,
    Allowed(&'a str),
    Foreign,
}

/// Methods a page may use (contract 2.1).
const METHODS: &str = "GET,HEAD,PUT,PATCH,POST,DELETE";
/// How long a browser may reuse a preflight, seconds: without it each poll of the queue costs two requests.
const PREFLIGHT_MAX_AGE_S: &str = "600";

/// Judges the `Origin` header.
pub fn judge<'a>(settings: &Settings, request: &'a Request) -> Origin<'a> {
    let Some(origin) = request.header("origin") else { return Origin::None };
    let listed = settings.allowed_origins.iter().any(|allowed| allowed == origin);
    if listed || is_own(settings, request, origin) { Origin::Allowed(origin) } else { Origin::Foreign }
}

/// Whether `origin` is this server's own: that of its public URL, else the scheme and host of the request. A page
/// cannot choose its browser's `Host`, and nothing is granted to other senders of one: there are no cookies here.
fn is_own(settings: &Settings, request: &Request, origin: &str) -> bool {
    if let Some(url) = &settings.public_url {
        return origin_of(url).eq_ignore_ascii_case(origin);
    }
    let host = request.header("host").unwrap_or_default();
    let authority = origin.strip_prefix(scheme(request)).and_then(|rest| rest.strip_prefix("://"));
    !host.is_empty() && authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}

/// Scheme and authority of a URL.
fn origin_of(url: &str) -> &str {
    let authority = url.find("://").map_or(0, |at| at + 3);
    url[authority..].find('/').map_or(url, |slash| &url[..authority + slash])
}

/// Whether a browser asks beforehand if it may send a request.
pub fn is_preflight(request: &Request) -> bool {
    request.method == Method::Options && request.header("origin").is_some()
}

/// The answer to a preflight; [`mark`] completes it.
pub fn preflight(request: &Request) -> Response {
    let response = Response::empty(204)
        .header("Access-Control-Allow-Methods", METHODS)
        .header("Access-Control-Max-Age", PREFLIGHT_MAX_AGE_S);
    match request.header("access-control-request-headers") {
        Some(wanted) => response.header("Access-Control-Allow-Headers", wanted),
        None => response,
    }
}

/// Adds what a browser needs to hand the answer to the page. Every answer depends on the origin, and says so.
pub fn mark(origin: Origin, request: &Request, mut response: Response) -> Response {
    let vary = if is_preflight(request) { "Origin, Access-Control-Request-Headers" } else { "Origin" };
    match response.headers.iter_mut().find(|(name, _)| *name == "Vary") {
        Some((_, others)) => others.insert_str(0, "Origin, "),
        None => response = response.header("Vary", vary),
    }
    match origin {
        Origin::Allowed(origin) => {
            response.header("Access-Control-Allow-Origin", origin).header("Access-Control-Allow-Credentials", "true")
        }
        Origin::None | Origin::Foreign => response,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_of_a_url_ends_at_its_path() {
        for url in ["https://a.example", "https://a.example/", "https://a.example/api/v1"] {
            assert_eq!(origin_of(url), "https://a.example");
        }
        assert_eq!(origin_of("http://[::1]:3001/x"), "http://[::1]:3001");
    }
}

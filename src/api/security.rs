//! What every answer tells browsers not to do, and the way to HTTPS (contract 2.1).
//!
//! TLS itself ends at a proxy in front of the server. `X-Forwarded-Proto` is believed from anybody: who forges it
//! only spares himself the redirect.

use crate::wire::http::{Request, Response};

use super::Settings;

/// On every answer. There is no `Cross-Origin-Resource-Policy`: pages of other origins show uploads.
const HEADERS: [(&str, &str); 6] = [
    ("X-Frame-Options", "DENY"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-XSS-Protection", "1; mode=block"),
    ("Referrer-Policy", "strict-origin-when-cross-origin"),
    ("Permissions-Policy", "camera=(self), microphone=(self), geolocation=(), payment=()"),
    (
        "Content-Security-Policy",
        "default-src 'self'; script-src 'self' https://js.stripe.com; \
         style-src 'self' 'unsafe-inline' https://fonts.googleapis.com; font-src 'self' https://fonts.gstatic.com; \
         img-src 'self' data: blob: https:; media-src 'self' blob: https:; connect-src 'self' https://api.stripe.com; \
         frame-src https://js.stripe.com https://hooks.stripe.com; object-src 'none'; base-uri 'self'; \
         form-action 'self'; frame-ancestors 'none'; upgrade-insecure-requests",
    ),
];

/// One year, as the preload lists demand.
const STRICT_TRANSPORT: &str = "max-age=31536000; includeSubDomains; preload";

/// Adds the headers that the answer does not set itself. Answers hold tokens and who is online: none is for a cache
/// unless it says otherwise.
pub fn mark(settings: &Settings, mut response: Response) -> Response {
    for (name, value) in [("Cache-Control", "no-store")].into_iter().chain(HEADERS) {
        if !response.headers.iter().any(|(set, _)| *set == name) {
            response = response.header(name, value);
        }
    }
    if settings.production { response.header("Strict-Transport-Security", STRICT_TRANSPORT) } else { response }
}

/// The scheme by which the client came, as far as proxies tell.
pub fn scheme(request: &Request) -> &'static str {
    let forwarded = request.header("x-forwarded-proto").unwrap_or_default();
    let nearest_client = forwarded.split(',').next().unwrap_or_default().trim();
    if nearest_client.eq_ignore_ascii_case("https") { "https" } else { "http" }
}

/// What a load balancer asks by plain HTTP, past the proxy that ends TLS; one that is sent elsewhere takes the server for sick.
const PROBE: &str = "/ready";

/// In production, the way from HTTP to the same URL by HTTPS. `None` also when the request names no host to go to.
pub fn redirect(settings: &Settings, request: &Request) -> Option<Response> {
    if !settings.production || scheme(request) == "https" || request.path == PROBE {
        return None;
    }
    let host = request.header("host").filter(|host| !host.is_empty())?;
    let query = if request.query.is_empty() { String::new() } else { format!("?{}", request.query) };
    Some(Response::empty(301).header("Location", format!("https://{host}{}{query}", request.path)))
}

//! The HTTP endpoints over a host in memory: every route, every refusal with its exact text, and the layers around.

mod auth;
mod demo;
mod fake;
mod limits;
mod queue;
mod room;
mod turn;
mod user;

use duet::api::Settings;
use duet::wire::http::Method;
use fake::{Fake, NOW, assert_refused};
use serde_json::json;

const PAGE: (&str, &str) = ("origin", "http://localhost:3000");

fn server() -> Fake {
    Fake::new(Settings::default())
}

#[test]
fn an_allowed_page_gets_cors_headers_on_every_answer() {
    let server = server();
    for path in ["/health", "/no/such/path", "/user/me"] {
        let answer = server.send(Method::Get, path, &[PAGE], "");
        assert_eq!(answer.header("Access-Control-Allow-Origin"), Some(PAGE.1), "{path}");
        assert_eq!(answer.header("Access-Control-Allow-Credentials"), Some("true"));
        assert_eq!(answer.header("Vary"), Some("Origin"));
    }
    for _ in 0..7 {
        server.send(Method::Post, "/auth/guest", &[PAGE], "");
    }
    let limited = server.send(Method::Post, "/auth/guest", &[PAGE], "");
    assert_eq!((limited.status(), limited.header("Access-Control-Allow-Origin")), (429, Some(PAGE.1)));
}

#[test]
fn a_program_needs_no_origin() {
    let answer = server().get("/health", None);
    assert_eq!((answer.status(), answer.header("Access-Control-Allow-Origin")), (200, None));
}

#[test]
fn a_foreign_page_is_refused_without_cors_headers() {
    for origin in ["https://evil.example", "null", "http://localhost:3000.evil.example", "http://localhost"] {
        for method in [Method::Get, Method::Options] {
            let answer = server().send(method, "/health", &[("origin", origin)], "");
            assert_refused(&answer, 403, "Origin not allowed");
            assert_eq!(answer.header("Access-Control-Allow-Origin"), None);
            assert_eq!(answer.header("X-Frame-Options"), Some("DENY"));
        }
    }
}

#[test]
fn the_servers_own_origin_is_always_allowed() {
    let status = |settings: Settings, origin: &str, headers: &[(&str, &str)]| {
        let headers = [&[("origin", origin), ("host", "api.example:3001")], headers].concat();
        Fake::new(settings).send(Method::Get, "/health", &headers, "").status()
    };
    let https = [("x-forwarded-proto", "https")];
    assert_eq!(status(Settings::default(), "http://api.example:3001", &[]), 200);
    assert_eq!(status(Settings::default(), "https://api.example:3001", &https), 200);
    assert_eq!(status(Settings::default(), "https://api.example:3001", &[]), 403);
    let public = || Settings { public_url: Some("https://duet.example/".to_owned()), ..Settings::default() };
    assert_eq!(status(public(), "https://duet.example", &[]), 200);
    assert_eq!(status(public(), "http://api.example:3001", &[]), 403);
}

#[test]
fn a_preflight_is_answered_for_any_path() {
    let asked = ("access-control-request-headers", "authorization,content-type");
    for path in ["/user/me", "/no/such/path"] {
        let answer = server().send(Method::Options, path, &[PAGE, asked], "");
        assert_eq!((answer.status(), answer.0.body.len()), (204, 0));
        assert_eq!(answer.header("Access-Control-Allow-Methods"), Some("GET,HEAD,PUT,PATCH,POST,DELETE"));
        assert_eq!(answer.header("Access-Control-Allow-Headers"), Some("authorization,content-type"));
        assert_eq!(answer.header("Access-Control-Allow-Origin"), Some(PAGE.1));
        assert_eq!(answer.header("Access-Control-Allow-Credentials"), Some("true"));
        assert_eq!(answer.header("Vary"), Some("Origin, Access-Control-Request-Headers"));
    }
}

#[test]
fn security_headers_are_on_every_answer() {
    let server = server();
    let preflight = server.send(Method::Options, "/", &[PAGE], "");
    for answer in [server.get("/", None), server.get("/nowhere", None), server.post("/auth/guest", "{"), preflight] {
        for (name, value) in [
            ("X-Frame-Options", "DENY"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-XSS-Protection", "1; mode=block"),
            ("Referrer-Policy", "strict-origin-when-cross-origin"),
            ("Permissions-Policy", "camera=(self), microphone=(self), geolocation=(), payment=()"),
            ("Cache-Control", "no-store"),
        ] {
            assert_eq!(answer.header(name), Some(value));
        }
        let policy = answer.header("Content-Security-Policy").unwrap();
        for rule in ["object-src 'none'", "frame-ancestors 'none'", "upgrade-insecure-requests"] {
            assert!(policy.contains(rule), "{policy}");
        }
        assert_eq!(answer.header("Strict-Transport-Security"), None);
        assert_eq!(answer.header("Cross-Origin-Resource-Policy"), None);
    }
}

#[test]
fn production_goes_to_https() {
    let server = Fake::new(Settings { production: true, ..Settings::default() });
    let plain = [("host", "api.example"), PAGE];
    let answer = server.send(Method::Get, "/room/reel?limit=2", &plain, "");
    assert_eq!((answer.status(), answer.header("Location")), (301, Some("https://api.example/room/reel?limit=2")));
    assert_eq!(answer.header("Access-Control-Allow-Origin"), Some(PAGE.1));
    assert!(
        answer.header("Strict-Transport-Security").unwrap().starts_with("max-age=31536000; includeSubDomains; preload")
    );
    let secure = [("host", "api.example"), ("x-forwarded-proto", "https")];
    assert_eq!(server.send(Method::Get, "/health", &secure, "").status(), 200);
    assert_eq!(self::server().send(Method::Get, "/health", &plain, "").status(), 200);
    assert_eq!(server.send(Method::Get, "/ready", &plain, "").status(), 200, "a probe comes by plain HTTP");
}

#[test]
fn unknown_paths_are_json_404() {
    for path in ["/nowhere", "/auth", "/auth/guest/x", "//", "/HEALTH", "/socket.io"] {
        assert_refused(&server().get(path, None), 404, "Not found");
    }
    assert_refused(&server().send(Method::Options, "/nowhere", &[], ""), 404, "Not found");
}

#[test]
fn a_wrong_method_is_told_the_right_ones() {
    for (method, path, allow) in [
        (Method::Post, "/health", "GET, HEAD, OPTIONS"),
        (Method::Get, "/auth/login", "POST, OPTIONS"),
        (Method::Head, "/auth/guest", "POST, OPTIONS"),
        (Method::Delete, "/user/me", "GET, HEAD, PUT, OPTIONS"),
        (Method::Patch, "/room/queue/", "GET, HEAD, OPTIONS"),
    ] {
        let answer = server().send(method, path, &[], "");
        assert_refused(&answer, 405, "Method not allowed");
        assert_eq!(answer.header("Allow"), Some(allow), "{path}");
    }
}

#[test]
fn options_without_a_page_lists_the_methods() {
    let answer = server().send(Method::Options, "/user/me", &[], "");
    assert_eq!((answer.status(), answer.header("Allow")), (204, Some("GET, HEAD, PUT, OPTIONS")));
}

#[test]
fn head_and_a_trailing_slash_are_served_like_get() {
    for (method, path) in [(Method::Head, "/health"), (Method::Get, "/health/"), (Method::Head, "/")] {
        assert_eq!(server().send(method, path, &[], "").status(), 200);
    }
}

#[test]
fn a_store_that_is_down_is_a_503_with_retry_after() {
    let server = server();
    let (_, token) = server.guest("Ann");
    server.down.set(true);
    for answer in [
        server.get("/user/me", Some(&token)),
        server.get("/room/queue", Some(&token)),
        server.post("/auth/guest", r#"{"name":"Ann","gender":"female"}"#),
        server.post("/auth/login", r#"{"email":"a@b.c","password":"correct horse"}"#),
    ] {
        assert_refused(&answer, 503, "Service temporarily unavailable");
        assert_eq!(answer.header("Retry-After"), Some("5"));
    }
    for path in ["/", "/health", "/stats/live"] {
        assert_eq!(server.get(path, None).status(), 200, "{path}");
    }
}

#[test]
fn the_greeting_names_the_endpoints() {
    let body = server().get("/", None).json();
    assert_eq!(
        (&body["version"], &body["status"], &body["timestamp"]),
        (&json!("1.0.0"), &json!("running"), &json!(NOW))
    );
    assert_eq!(body["databases"], json!({ "postgresql": "not configured", "redis": "not configured" }));
    for name in ["health", "auth", "user", "matchmaking", "payment", "admin"] {
        assert!(body["endpoints"][name].is_string(), "{name}");
    }
    assert!(body["name"].is_string() && body["environment"].is_string() && body["message"].is_string());
}

#[test]
fn live_stats_count_who_is_online() {
    assert_eq!(server().get("/stats/live", None).json(), json!({ "onlineUsers": 0, "timestamp": NOW }));
}

#[test]
fn ready_is_as_the_database() {
    let server = server();
    assert_eq!(server.get("/ready", None).status(), 200);
    server.down.set(true);
    let answer = server.get("/ready", None);
    assert_eq!((answer.status(), answer.header("Retry-After").is_some()), (503, true));
    assert_eq!(server.get("/health", None).json()["store"]["reachable"], false);
    assert_eq!(server.get("/health", None).status(), 200);
}

#[test]
fn health_has_the_full_shape() {
    let mut server = server();
    server.settings.connections_max = 1_000;
    server.settings.started_at = duet::base::Time(NOW.0 - 90_500);
    let body = server.get("/health", None).json();
    assert_eq!((&body["status"], &body["timestamp"], &body["uptime"]), (&json!("ok"), &json!(NOW), &json!(90)));
    let memory = json!({ "heapUsed": "34.33 MB", "heapTotal": "68.66 MB", "rss": "1.00 MB", "usage": "50.0%" });
    assert_eq!(body["memory"], memory);
    let connections = json!({
        "users": 4, "total": 6, "avgPerUser": "1.50", "limit": 1_000, "utilization": "0.6%", "closed": { "peer_closed": 3 },
    });
    assert_eq!(body["connections"], connections);
    let users = json!({ "size": 5, "maxSize": 800, "hits": 3, "misses": 1, "hitRate": "75.0%" });
    assert_eq!(body["cache"]["users"], users);
    let queries = json!({ "size": 0, "maxSize": 0, "hits": 0, "misses": 0, "hitRate": "0.0%", "totalQueries": 0 });
    assert_eq!(body["cache"]["queries"], queries);
    assert_eq!(body["cache"]["sessions"]["hitRate"], "0.0%");
    assert_eq!(body["scalability"]["currentCapacity"], "4 users");
    for name in ["maxCapacity", "optimization"] {
        assert!(body["scalability"][name].is_string());
    }
    assert_eq!((&body["shards"], &body["runtime"]), (&json!(1), &json!("epoll")));
    let journal = json!({ "waiting": 2, "refused": 1 });
    assert_eq!(body["store"], json!({ "kind": "sqlite", "reachable": true, "since": NOW, "journal": journal }));
    assert_eq!(body["version"], env!("CARGO_PKG_VERSION"));
}

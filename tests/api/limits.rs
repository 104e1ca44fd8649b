//! Rate limits and their headers (contract 2.3, D27).

use std::net::IpAddr;

use duet::api::counted::{CLASSES, NAMES};
use duet::api::{Limits, Settings};
use duet::base::Time;
use duet::domain::rate::Bucket;
use serde_json::json;

use crate::fake::{Answer, Fake, NOW, assert_refused};
use crate::server;

const ANN: &str = r#"{"name":"Ann","gender":"female"}"#;

fn wrong_password(server: &Fake, email: &str) -> Answer {
    server.post("/auth/login", &json!({ "email": email, "password": "wrong horse!" }).to_string())
}

#[test]
fn six_failures_block_an_address_for_ten_minutes() {
    let server = server();
    for left in (0..6).rev() {
        let answer = server.post("/auth/guest", "{}");
        assert_eq!(answer.status(), 400);
        assert_eq!(answer.header("RateLimit-Policy"), Some("6;w=600"));
        assert_eq!(answer.header("RateLimit-Limit"), Some("6"));
        assert_eq!(answer.header("RateLimit-Remaining"), Some(left.to_string().as_str()));
        assert_eq!((answer.header("RateLimit-Reset"), answer.header("Retry-After")), (Some("600"), None));
    }
    server.now.set(NOW + 60_001);
    let blocked = server.post("/auth/guest", ANN);
    assert_refused(&blocked, 429, "Too many login attempts");
    assert_eq!((&blocked.json()["retryAfter"], blocked.json()["message"].is_string()), (&json!(600), true));
    assert_eq!((blocked.header("RateLimit-Remaining"), blocked.header("RateLimit-Reset")), (Some("0"), Some("540")));
    assert_eq!(blocked.header("Retry-After"), Some("540"));
    assert_refused(&server.post("/auth/link", "{}"), 429, "Too many login attempts");
    server.address.set(IpAddr::from([192, 0, 2, 2]));
    assert_eq!(server.post("/auth/guest", ANN).status(), 200);
    server.address.set(IpAddr::from([192, 0, 2, 1]));
    server.now.set(NOW + 600_000);
    assert_eq!(server.post("/auth/guest", ANN).status(), 200);
}

#[test]
fn every_answer_is_counted_once_by_what_gave_it_and_every_refusal_by_its_limit() {
    let server = server();
    server.get("/health", None);
    server.get("/room/queue/", None);
    server.get("/no/such/path", None);
    server.post("/health", "");
    server.post("/auth/guest", ANN);
    for _ in 0..7 {
        server.post("/auth/link", "{}");
    }
    let named = |place: &usize| format!("{} {}", NAMES[place / CLASSES.len()], CLASSES[place % CLASSES.len()]);
    let mut answered: Vec<String> = server.answered.borrow().iter().map(named).collect();
    assert_eq!(answered.len(), 12);
    answered.dedup();
    assert_eq!(answered, ["health 2xx", "queue 4xx", "unmatched 4xx", "sign_up 2xx", "link 4xx"]);
    assert_eq!(*server.limited.borrow(), [Bucket::AuthFailure]);
}

#[test]
fn successes_and_faults_of_the_server_are_no_failures() {
    let server = server();
    server.down.set(true);
    for _ in 0..10 {
        assert_eq!(server.post("/auth/guest", ANN).status(), 503);
    }
    server.down.set(false);
    for _ in 0..10 {
        assert_eq!(server.post("/auth/guest", ANN).status(), 200);
    }
    assert_eq!(server.post("/auth/guest", "{}").header("RateLimit-Remaining"), Some("5"));
}

#[test]
fn failed_log_ins_block_one_account_at_one_address() {
    let server = server();
    server.permanent("Ann", "ann@mail.example");
    server.permanent("Bob", "bob@mail.example");
    let good =
        |email: &str| server.post("/auth/login", &json!({ "email": email, "password": "correct horse" }).to_string());
    for left in (0..6).rev() {
        let answer = wrong_password(&server, "Ann@Mail.Example");
        assert_refused(&answer, 401, "Invalid credentials");
        assert_eq!(answer.header("RateLimit-Remaining"), Some(left.to_string().as_str()));
    }
    let hashed = server.hashed.get();
    let blocked = good("ann@mail.example");
    assert_refused(&blocked, 429, "Too many login attempts");
    assert_eq!((&blocked.json()["retryAfter"], blocked.header("Retry-After")), (&json!(600), Some("600")));
    assert_eq!(server.hashed.get(), hashed, "a refusal is cheap");
    assert_eq!(good("bob@mail.example").status(), 200);
    assert_eq!(server.post("/auth/guest", ANN).status(), 200);
    server.address.set(IpAddr::from([192, 0, 2, 2]));
    assert_eq!(good("ann@mail.example").status(), 200);
}

#[test]
fn thirty_password_checks_an_hour_per_address() {
    let server = server();
    server.permanent("Ann", "ann@mail.example");
    for n in 0..30 {
        assert_eq!(wrong_password(&server, &format!("{n}@mail.example")).status(), 401);
    }
    let answer = wrong_password(&server, "more@mail.example");
    assert_refused(&answer, 429, "Too many login attempts");
    assert_eq!((&answer.json()["retryAfter"], answer.header("RateLimit-Policy")), (&json!(3600), Some("30;w=3600")));
    assert_eq!(server.hashed.get(), 30);
    server.now.set(NOW + 3_600_000);
    assert_eq!(wrong_password(&server, "more@mail.example").status(), 401);
}

#[test]
fn thirty_guests_an_hour_per_address() {
    let server = server();
    for left in (0..30).rev() {
        let answer = server.post("/auth/guest", ANN);
        assert_eq!((answer.status(), answer.header("RateLimit-Policy")), (200, Some("30;w=3600")));
        assert_eq!(answer.header("RateLimit-Remaining"), Some(left.to_string().as_str()));
    }
    for _ in 0..10 {
        let answer = server.post("/auth/guest", ANN);
        assert_refused(&answer, 429, "Too many sign-ups");
        assert_eq!((&answer.json()["retryAfter"], answer.header("Retry-After")), (&json!(3600), Some("3600")));
    }
    assert_eq!(server.people.borrow().len(), 30);
}

#[test]
fn room_and_user_share_five_hundred_a_minute() {
    let server = server();
    let (_, token) = server.guest("Ann");
    for n in 0..500 {
        let path = if n % 2 == 0 { "/room/queue" } else { "/user/me" };
        assert_eq!(server.get(path, Some(&token)).status(), 200);
    }
    let answer = server.get("/room/queue", Some(&token));
    assert_refused(&answer, 429, "Too many requests");
    let body = answer.json();
    assert_eq!((&body["retryAfter"], &body["retryAfterMinutes"]), (&json!(60), &json!(1)));
    assert_eq!((answer.header("RateLimit-Policy"), answer.header("Retry-After")), (Some("500;w=60"), Some("60")));
    assert_eq!(server.get("/health", None).header("RateLimit-Policy"), None);
    server.now.set(Time(NOW.0 + 60_000));
    assert_eq!(server.get("/room/queue", Some(&token)).header("RateLimit-Remaining"), Some("499"));
}

#[test]
fn development_has_no_api_limit_and_zero_turns_one_off() {
    let limits = Limits::new(0, 0, 0, 1, 0);
    let server = Fake::new(Settings { development: true, limits, ..Settings::default() });
    for _ in 0..40 {
        assert_eq!(server.get("/user/me", None).status(), 401);
        let answer = server.post("/auth/guest", ANN);
        assert_eq!((answer.status(), answer.header("RateLimit-Policy")), (200, None));
        assert_eq!(server.post("/auth/guest", "{}").status(), 400);
        assert_eq!(wrong_password(&server, "ann@mail.example").status(), 401);
    }
}

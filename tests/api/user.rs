//! The own profile (contract 2.6, D34).

use duet::api::Settings;
use duet::message::model::PaidStatus;
use duet::wire::http::Method;
use serde_json::json;

use crate::fake::{Fake, NOW, assert_refused};
use crate::server;

#[test]
fn a_profile_shows_all_the_pages_read() {
    let server = server();
    let (user, token) = server.guest("Ann");
    let mut expected = json!({
        "userId": user, "name": "Ann", "gender": "female", "accountType": "guest", "createdAt": NOW,
        "timerTotalSeconds": 0, "sessionCount": 0, "lastSessions": [], "streakDays": null, "paidStatus": "paid",
    });
    assert_eq!(server.get("/user/me", Some(&token)).json(), expected);
    server.change(user, |person| {
        person.email = Some("a@b.c".to_owned());
        person.card.selfie_url = Some("https://a/s.jpg".to_owned());
        person.card.video_url = Some("https://a/v.webm".to_owned());
    });
    expected["email"] = json!("a@b.c");
    expected["selfieUrl"] = json!("https://a/s.jpg");
    expected["videoUrl"] = json!("https://a/v.webm");
    assert_eq!(server.get("/user/me", Some(&token)).json(), expected);
}

#[test]
fn with_a_paywall_the_profile_tells_what_was_paid() {
    let server = Fake::new(Settings { paywall: true, ..Settings::default() });
    let (user, token) = server.guest("Ann");
    assert_eq!(server.get("/user/me", Some(&token)).json()["paidStatus"], "unpaid");
    server.change(user, |person| person.paid = PaidStatus::QrVerified);
    assert_eq!(server.get("/user/me", Some(&token)).json()["paidStatus"], "qr_verified");
}

#[test]
fn socials_are_replaced_as_a_whole() {
    let server = server();
    let (user, token) = server.guest("Ann");
    let put = |body: &str| server.with_token(Method::Put, "/user/me", Some(&token), body);
    for socials in [json!({ "instagram": "ann", "tiktok": "ann.b" }), json!({ "discord": "ann" }), json!({})] {
        let answer = put(&json!({ "socials": socials }).to_string());
        let user = json!({ "userId": user, "name": "Ann", "socials": socials });
        assert_eq!(answer.json(), json!({ "success": true, "user": user }));
        assert_eq!(server.get("/user/me", Some(&token)).json()["socials"], socials);
    }
    put(r#"{"socials":{"discord":"ann"}}"#);
    for nothing in ["", "{}", r#"{"socials":null}"#] {
        assert_eq!(put(nothing).json()["user"]["socials"], json!({ "discord": "ann" }));
    }
}

#[test]
fn socials_keep_their_bounds() {
    let server = server();
    let (_, token) = server.guest("Ann");
    let eleven: serde_json::Map<_, _> = (0..11).map(|n| (n.to_string(), json!("x"))).collect();
    for socials in [
        json!(eleven),
        json!({ "a": 1 }),
        json!({ "a": null }),
        json!(["a"]),
        json!("a"),
        json!({ "a": "x".repeat(101) }),
    ] {
        let answer =
            server.with_token(Method::Put, "/user/me", Some(&token), &json!({ "socials": socials }).to_string());
        assert_refused(&answer, 400, "socials must be an object of at most 10 strings of at most 100 characters");
    }
    assert_refused(&server.with_token(Method::Put, "/user/me", Some(&token), "["), 400, "Invalid JSON");
    assert_refused(&server.with_token(Method::Put, "/user/me", None, "{}"), 401, "Authorization required");
    assert_eq!(server.people.borrow()[0].socials, None);
}

#[test]
fn a_session_without_an_account_finds_nobody() {
    let server = server();
    let (_, token) = server.guest("Ann");
    server.gone.set(true);
    let link = json!({ "sessionToken": token.encode(), "email": "a@b.c", "password": "correct horse" }).to_string();
    for answer in [
        server.get("/user/me", Some(&token)),
        server.get("/room/me", Some(&token)),
        server.with_token(Method::Put, "/user/me", Some(&token), "{}"),
        server.post("/auth/link", &link),
    ] {
        assert_refused(&answer, 404, "User not found");
    }
}

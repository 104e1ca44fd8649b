//! ICE servers (contract 2.10, D35).

use duet::api::{Settings, TurnSettings};
use duet::base::{Time, Token, UserId};
use serde_json::json;

use crate::fake::{Fake, NOW};
use crate::server;

fn with_turn() -> Settings {
    let urls = vec!["turn:turn.example:3478".to_owned(), "turns:turn.example:5349".to_owned()];
    let turn = TurnSettings { urls, secret: "north".to_owned(), ttl_s: 3_600 };
    Settings { turn, stun_urls: vec!["stun:turn.example:3478".to_owned()], ..Settings::default() }
}

/// The credential was computed by OpenSSL: `printf USERNAME | openssl dgst -sha1 -hmac north -binary | base64`.
#[test]
fn turn_credentials_are_those_coturn_expects() {
    let server = Fake::new(with_turn());
    let user = UserId::decode("2f1f3c58-9d5b-4a3e-8f6a-0d1c2b3a4958").unwrap();
    let (drawn, token) = server.guest("Ann");
    server.change(drawn, |person| person.card.user_id = user);
    server.sessions.borrow_mut()[0].user = user;
    let expected = json!({
        "iceServers": [
            { "urls": ["stun:turn.example:3478"] },
            {
                "urls": ["turn:turn.example:3478", "turns:turn.example:5349"],
                "username": "1761003600:2f1f3c58-9d5b-4a3e-8f6a-0d1c2b3a4958",
                "credential": "RoJIe2OfObtpB1eyFmGqaaBWX8w=",
            },
        ],
        "expiresAt": 1_761_003_600_000_u64,
        "provider": "coturn",
    });
    assert_eq!(server.get("/turn/credentials", Some(&token)).json(), expected);
}

#[test]
fn without_turn_there_is_a_warning() {
    let ask = |settings: Settings| {
        let server = Fake::new(settings);
        let (_, token) = server.guest("Ann");
        server.get("/turn/credentials", Some(&token)).json()
    };
    let body = ask(Settings { stun_urls: vec!["stun:a.example".to_owned()], ..Settings::default() });
    assert_eq!((&body["provider"], &body["iceServers"]), (&json!("stun"), &json!([{ "urls": ["stun:a.example"] }])));
    assert!(body["warning"].is_string());
    let body = ask(Settings::default());
    assert_eq!((&body["provider"], &body["iceServers"]), (&json!("none"), &json!([])));
    assert!(body["warning"].is_string());
    assert_eq!(body["expiresAt"], NOW.0 + 3_600_000);
}

#[test]
fn the_status_tells_what_is_configured() {
    let ask = |server: Fake| {
        let (_, token): (UserId, Token) = server.guest("Ann");
        server.get("/turn/status", Some(&token)).json()
    };
    let status = |on: bool| json!({ "cloudflare": false, "twilio": false, "turn": on, "stun": on, "timestamp": NOW });
    assert_eq!(ask(server()), status(false));
    assert_eq!(ask(Fake::new(with_turn())), status(true));
}

#[test]
fn each_user_has_his_own_turn_quota() {
    let server = Fake::new(with_turn());
    let ((_, ann), (_, bob)) = (server.guest("Ann"), server.guest("Bob"));
    for left in (0..60).rev() {
        let answer = server.get("/turn/credentials", Some(&ann));
        assert_eq!(answer.header("RateLimit-Remaining"), Some(left.to_string().as_str()));
    }
    let answer = server.get("/turn/credentials", Some(&ann));
    crate::fake::assert_refused(&answer, 429, "Too many TURN credential requests");
    assert_eq!((&answer.json()["retryAfter"], answer.header("Retry-After")), (&json!(3600), Some("3600")));
    assert_eq!(server.get("/turn/credentials", Some(&bob)).status(), 200);
    server.now.set(Time(NOW.0 + 500_000));
    assert_eq!(server.get("/turn/credentials", Some(&ann)).header("Retry-After"), Some("3100"));
}

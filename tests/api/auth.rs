//! Sign-up, link and log-in (contract 2.5, D25, D26, D34).

use duet::api::Settings;
use duet::base::{Time, Token};
use duet::message::store::InviteCodeRefusal;
use duet::wire::http::Method;
use serde_json::{Value, json};

use crate::fake::{Answer, Fake, NOW, assert_refused};
use crate::server;

const DAY_MS: u64 = 24 * 3_600_000;

fn with_paywall() -> Fake {
    Fake::new(Settings { paywall: true, ..Settings::default() })
}

fn sign_up(server: &Fake, body: Value) -> Answer {
    server.post("/auth/guest", &body.to_string())
}

fn link(server: &Fake, token: &Token, email: &str, password: &str) -> Answer {
    let body = json!({ "sessionToken": token.encode(), "email": email, "password": password });
    server.post("/auth/link", &body.to_string())
}

fn log_in(server: &Fake, email: &str, password: &str) -> Answer {
    server.post("/auth/login", &json!({ "email": email, "password": password }).to_string())
}

#[test]
fn a_guest_gets_a_session_of_seven_days() {
    let server = server();
    let long_agent = "ü".repeat(300);
    let headers = [("content-type", "application/json"), ("user-agent", long_agent.as_str())];
    let body = server.send(Method::Post, "/auth/guest", &headers, r#"{"name":" Ann ","gender":"female"}"#).json();
    let expected = json!({
        "userId": body["userId"], "sessionToken": body["sessionToken"], "accountType": "guest", "wasReferred": false,
        "targetUser": null, "targetOnline": false, "referralCode": null, "paidStatus": "paid", "requiresPayment": false,
    });
    assert_eq!(body, expected);
    let token = Token::decode(body["sessionToken"].as_str().unwrap()).unwrap();
    assert_eq!(server.get("/user/me", Some(&token)).json()["name"], "Ann");
    let sessions = server.sessions.borrow();
    let session = sessions.iter().find(|session| session.hash == token.hash()).unwrap();
    assert_eq!((session.expires_at, session.device.len()), (NOW + 7 * DAY_MS, 256));
}

#[test]
fn sign_up_checks_what_was_typed() {
    let long = "x".repeat(101);
    for (body, error) in [
        (json!({}), "Name is required"),
        (json!({ "name": "  ", "gender": "male" }), "Name is required"),
        (json!({ "name": 7, "gender": "male" }), "Name is required"),
        (json!({ "name": ["Ann"], "gender": "male" }), "Name is required"),
        (json!({ "name": long, "gender": "male" }), "Name must be 1 to 100 printable characters"),
        (json!({ "name": "A\u{7}", "gender": "male" }), "Name must be 1 to 100 printable characters"),
        (json!({ "name": "Ann" }), "Invalid gender"),
        (json!({ "name": "Ann", "gender": "Male" }), "Invalid gender"),
        (json!({ "name": "Ann", "gender": "male", "inviteCode": "SHORT" }), "Invalid invite code format"),
    ] {
        assert_refused(&sign_up(&server(), body), 400, error);
    }
    assert_refused(&server().post("/auth/guest", r#"{"name":"#), 400, "Invalid JSON");
    assert_refused(&server().send(Method::Post, "/auth/guest", &[], "name=Ann"), 400, "Name is required");
}

#[test]
fn an_invite_code_opens_the_paywall() {
    let body = sign_up(&with_paywall(), json!({ "name": "Ann", "gender": "male" })).json();
    assert_eq!((&body["paidStatus"], &body["requiresPayment"]), (&json!("unpaid"), &json!(true)));
    let invited = json!({ "name": "Ann", "gender": "male", "inviteCode": " abcdefgh12345678 " });
    let body = sign_up(&with_paywall(), invited).json();
    assert_eq!((&body["paidStatus"], &body["requiresPayment"]), (&json!("qr_grace_period"), &json!(false)));
}

#[test]
fn a_refused_invite_code_makes_nobody() {
    for (refusal, error) in [
        (InviteCodeRefusal::Unknown, "Invalid invite code"),
        (InviteCodeRefusal::Deactivated, "This invite code has been deactivated"),
        (InviteCodeRefusal::AlreadyUsed, "You have already used this invite code"),
        (InviteCodeRefusal::UsedUp, "This invite code has been fully used"),
    ] {
        let server = with_paywall();
        server.refusal.set(Some(refusal));
        let body = json!({ "name": "Ann", "gender": "male", "inviteCode": "ABCDEFGH12345678" });
        let answer = sign_up(&server, body);
        assert_refused(&answer, 403, error);
        assert_eq!(answer.json()["requiresPayment"], true);
        assert!(server.people.borrow().is_empty());
    }
}

#[test]
fn a_referral_code_introduces_and_an_unknown_one_is_ignored() {
    let server = server();
    let (target, _) = server.guest("Tess");
    *server.referral.borrow_mut() = Some(("ABCDE12345".to_owned(), target));
    let referred =
        |code: &str| sign_up(&server, json!({ "name": "Ann", "gender": "male", "referralCode": code })).json();
    let body = referred("ABCDE12345");
    let card = json!({ "userId": target, "name": "Tess", "gender": "female" });
    assert_eq!(
        (&body["wasReferred"], &body["introducedTo"], &body["targetUser"]),
        (&json!(true), &json!("Tess"), &card)
    );
    assert_eq!((&body["targetOnline"], &body["referralCode"]), (&json!(false), &json!("ABCDE12345")));
    server.queue.borrow_mut().push(target);
    assert_eq!(referred("ABCDE12345")["targetOnline"], true);
    for unknown in ["ZZZZZ99999", "x"] {
        let body = referred(unknown);
        assert_eq!(
            (&body["wasReferred"], &body["targetUser"], &body["referralCode"]),
            (&json!(false), &Value::Null, &json!(unknown))
        );
        assert_eq!(body.get("introducedTo"), None);
    }
}

#[test]
fn linking_makes_a_guest_permanent_for_thirty_days() {
    let server = server();
    let (user, token) = server.guest("Ann");
    let answer = link(&server, &token, " Ann@Mail.Example ", "correct horse");
    assert_eq!(answer.json(), json!({ "success": true, "accountType": "permanent" }));
    assert_eq!(*server.changed.borrow(), [user]);
    assert_eq!(server.sessions.borrow()[0].expires_at, NOW + 30 * DAY_MS);
    assert_eq!(server.get("/user/me", Some(&token)).json()["email"], "ann@mail.example");
    assert_eq!(log_in(&server, "ANN@mail.example", "correct horse").status(), 200);
}

#[test]
fn linking_again_needs_the_same_email_and_password() {
    let server = server();
    let (_, token) = server.permanent("Ann", "ann@mail.example");
    assert_eq!(link(&server, &token, "ANN@mail.example", "correct horse").status(), 200);
    for (email, password) in [("ann@mail.example", "wrong horse!"), ("new@mail.example", "correct horse")] {
        assert_refused(&link(&server, &token, email, password), 409, "Email already registered");
    }
    assert_eq!(server.people.borrow()[0].email.as_deref(), Some("ann@mail.example"));
}

#[test]
fn link_checks_what_was_typed() {
    let server = Fake::new(Settings { limits: duet::api::Limits::new(0, 0, 0, 0, 0), ..Settings::default() });
    let (_, token) = server.guest("Ann");
    let (gone, gone_token) = server.guest("Eve");
    server.permanent("Bob", "bob@mail.example");
    let required = "Session token, email, and password are required";
    for body in [
        json!({}),
        json!({ "email": "a@b.c", "password": "correct horse" }),
        json!({ "sessionToken": 1, "email": 2, "password": 3 }),
    ] {
        assert_refused(&server.post("/auth/link", &body.to_string()), 400, required);
    }
    assert_refused(&link(&server, &token, " ", "correct horse"), 400, required);
    let body = json!({ "sessionToken": "nonsense", "email": "a@b.c", "password": "correct horse" });
    assert_refused(&server.post("/auth/link", &body.to_string()), 401, "Invalid or expired session");
    assert_refused(&link(&server, &token, "ann.example", "correct horse"), 400, "Invalid email address");
    for password in ["short", &"x".repeat(129)] {
        let answer = link(&server, &token, "ann@mail.example", password);
        assert_refused(&answer, 400, "Password must be 8 to 128 characters");
    }
    assert_refused(&link(&server, &token, "Bob@mail.example", "correct horse"), 409, "Email already registered");
    server.change(gone, |person| person.ban_status = "permanent".to_owned());
    assert_refused(&link(&server, &gone_token, "eve@mail.example", "correct horse"), 403, "Account suspended");
    server.sessions.borrow_mut()[0].active = false;
    assert_refused(&link(&server, &token, "ann@mail.example", "correct horse"), 401, "Session invalidated");
    assert_eq!(server.hashed.get(), 0, "nothing was worth hashing");
}

#[test]
fn log_in_ends_all_other_sessions() {
    let server = server();
    let (user, old) = server.permanent("Ann", "ann@mail.example");
    server.change(user, |person| person.card.selfie_url = Some("https://a/s.jpg".to_owned()));
    let body = log_in(&server, " Ann@Mail.Example ", "correct horse").json();
    let expected = json!({
        "userId": user, "sessionToken": body["sessionToken"], "accountType": "permanent", "sessionInvalidated": true,
        "invalidatedCount": 1,
        "user": { "name": "Ann", "email": "ann@mail.example", "selfieUrl": "https://a/s.jpg" },
    });
    assert_eq!(body, expected);
    let new = Token::decode(body["sessionToken"].as_str().unwrap()).unwrap();
    assert_eq!(*server.ended.borrow(), [(user, new.hash())]);
    assert_eq!(server.get("/user/me", Some(&new)).status(), 200);
    let answer = server.get("/user/me", Some(&old));
    assert_refused(&answer, 401, "Session invalidated");
    assert_eq!(answer.json()["sessionInvalidated"], true);
    assert!(answer.json()["message"].is_string());
    server.sessions.borrow_mut().clear();
    let body = log_in(&server, "ann@mail.example", "correct horse").json();
    assert_eq!((&body["sessionInvalidated"], &body["invalidatedCount"]), (&json!(false), &json!(0)));
}

#[test]
fn log_in_never_tells_why_it_failed_and_always_hashes() {
    let server = server();
    let (guest, _) = server.guest("Gus");
    server.change(guest, |person| person.email = Some("gus@mail.example".to_owned()));
    server.permanent("Ann", "ann@mail.example");
    let long = "x".repeat(129);
    let mut bodies = Vec::new();
    for (email, password) in [
        ("ann@mail.example", "wrong horse!"),
        ("nobody@mail.example", "correct horse"),
        ("gus@mail.example", "correct horse"),
        ("no address", "correct horse"),
        ("ann@mail.example", "short"),
        ("ann@mail.example", &long),
    ] {
        let answer = log_in(&server, email, password);
        assert_refused(&answer, 401, "Invalid credentials");
        bodies.push(answer.0.body);
    }
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(server.hashed.get(), bodies.len());
}

#[test]
fn log_in_needs_both_fields() {
    for body in [
        json!({}),
        json!({ "email": "a@b.c" }),
        json!({ "email": " ", "password": "x" }),
        json!({ "email": "a@b.c", "password": 7 }),
    ] {
        assert_refused(&server().post("/auth/login", &body.to_string()), 400, "Email and password are required");
    }
}

#[test]
fn a_banned_account_is_told_so_only_with_its_password() {
    let server = server();
    let (user, _) = server.permanent("Ann", "ann@mail.example");
    server.change(user, |person| person.ban_status = "temporary".to_owned());
    assert_refused(&log_in(&server, "ann@mail.example", "wrong horse!"), 401, "Invalid credentials");
    let answer = log_in(&server, "ann@mail.example", "correct horse");
    assert_refused(&answer, 403, "Account suspended");
    let body = answer.json();
    assert_eq!(
        (&body["banned"], &body["banStatus"], &body["reviewStatus"]),
        (&json!(true), &json!("temporary"), &json!("pending"))
    );
    assert!(body["message"].is_string() && server.ended.borrow().is_empty());
}

#[test]
fn a_full_hashing_pool_asks_to_come_back() {
    let server = server();
    let (_, token) = server.guest("Ann");
    server.busy.set(true);
    for answer in [log_in(&server, "a@b.c", "correct horse"), link(&server, &token, "a@b.c", "correct horse")] {
        assert_refused(&answer, 429, "Too many requests");
        assert_eq!(answer.header("Retry-After"), Some("2"));
    }
}

#[test]
fn every_session_check_has_its_text() {
    let server = server();
    let (user, token) = server.guest("Ann");
    for path in
        ["/user/me", "/room/queue", "/room/reel", "/room/history", "/room/me", "/turn/credentials", "/turn/status"]
    {
        assert_refused(&server.get(path, None), 401, "Authorization required");
        let bare = token.encode();
        for (header, status) in [(format!("Bearer {bare}"), 200), (bare.clone(), 200), ("Bearer x".to_owned(), 401)] {
            let answer = server.send(Method::Get, path, &[("authorization", &header)], "");
            assert_eq!(answer.status(), status, "{path} {header}");
        }
        assert_refused(
            &server.send(Method::Get, path, &[("authorization", "x")], ""),
            401,
            "Invalid or expired session",
        );
        server.now.set(Time(u64::MAX / 2));
        assert_refused(&server.get(path, Some(&token)), 401, "Invalid or expired session");
        server.now.set(NOW);
        server.change(user, |person| person.ban_status = "temporary".to_owned());
        let answer = server.get(path, Some(&token));
        assert_refused(&answer, 403, "Account suspended");
        assert_eq!(answer.json()["banned"], true);
        server.change(user, |person| person.ban_status = "vindicated".to_owned());
    }
}

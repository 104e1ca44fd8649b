//! The queue, the reel and the history (contract 2.6).

use std::collections::BTreeSet;

use duet::api::Settings;
use duet::base::{CallId, Random, Token, UserId};
use duet::message::model::{Introduction, PaidStatus};
use duet::message::store::HistoryEntry;
use serde_json::{Value, json};

use crate::fake::{Fake, NOW, assert_refused};
use crate::server;

/// A viewer and `count` others, all in the queue.
fn crowd(server: &Fake, count: usize) -> (UserId, Token, Vec<UserId>) {
    let (viewer, token) = server.guest("Vera");
    let others: Vec<_> = (0..count).map(|n| server.guest(&format!("Guest {n}")).0).collect();
    server.queue.borrow_mut().push(viewer);
    server.queue.borrow_mut().extend(&others);
    (viewer, token, others)
}

#[test]
fn the_queue_lists_everybody_else_in_order() {
    let server = server();
    let (_, token, others) = crowd(&server, 3);
    server.change(others[0], |person| person.card.selfie_url = Some("https://a/s.jpg".to_owned()));
    let body = server.get("/room/queue", Some(&token)).json();
    assert_eq!(body["totalAvailable"], 3);
    let expected = json!({
        "userId": others[0], "name": "Guest 0", "gender": "female", "selfieUrl": "https://a/s.jpg",
        "hasCooldown": false, "cooldownExpiry": null, "wasIntroducedToMe": false, "introducedBy": null,
    });
    assert_eq!(body["users"][0], expected);
    let ids: Vec<_> = body["users"].as_array().unwrap().iter().map(|user| user["userId"].clone()).collect();
    assert_eq!(json!(ids), json!(others));
}

#[test]
fn an_empty_queue_is_an_empty_list() {
    let server = server();
    let (_, token) = server.guest("Vera");
    assert_eq!(server.get("/room/queue", Some(&token)).json(), json!({ "users": [], "totalAvailable": 0 }));
}

#[test]
fn the_queue_flags_cooldowns_and_introductions_and_hides_the_reported() {
    let server = server();
    let (viewer, token, others) = crowd(&server, 4);
    server.relations.borrow_mut().cooldowns.push((others[0], NOW + 5));
    server.relations.borrow_mut().hidden.push(others[1]);
    let introduced = |user, target| {
        let introduction = Introduction { target, introducer: "Ida".to_owned() };
        server.change(user, |person| person.card.introduction = Some(introduction));
    };
    introduced(others[2], viewer);
    introduced(others[3], others[0]);
    let body = server.get("/room/queue", Some(&token)).json();
    assert_eq!(body["totalAvailable"], 4);
    let flags = |user: &Value| {
        ["hasCooldown", "cooldownExpiry", "wasIntroducedToMe", "introducedBy"].map(|name| user[name].clone())
    };
    let users: Vec<_> = body["users"].as_array().unwrap().iter().map(flags).collect();
    let expected = json!([[true, NOW + 5, false, null], [false, null, true, "Ida"], [false, null, false, null],]);
    assert_eq!(json!(users), expected);
}

#[test]
fn a_long_queue_is_cut_but_keeps_introductions() {
    let server = server();
    let (viewer, token, others) = crowd(&server, 2_005);
    let introduction = Introduction { target: viewer, introducer: "Ida".to_owned() };
    server.change(others[2_003], |person| person.card.introduction = Some(introduction));
    let body = server.get("/room/queue", Some(&token)).json();
    let users = body["users"].as_array().unwrap();
    assert_eq!((users.len(), &body["totalAvailable"]), (2_001, &json!(2_005)));
    assert_eq!(users[2_000]["userId"], json!(others[2_003]));
}

#[test]
fn the_paywall_closes_queue_and_reel() {
    let server = Fake::new(Settings { paywall: true, ..Settings::default() });
    let (user, token) = server.guest("Ann");
    for path in ["/room/queue", "/room/reel"] {
        let answer = server.get(path, Some(&token));
        assert_refused(&answer, 402, "Payment required");
        assert_eq!(answer.json()["requiresPayment"], true);
        assert!(answer.json()["message"].is_string());
    }
    assert_eq!(server.get("/room/history", Some(&token)).status(), 200);
    for paid in [PaidStatus::Paid, PaidStatus::QrGracePeriod, PaidStatus::QrVerified] {
        server.change(user, |person| person.paid = paid);
        assert_eq!(server.get("/room/queue", Some(&token)).status(), 200);
    }
    let open = self::server();
    let (_, token) = open.guest("Ann");
    assert_eq!(open.get("/room/queue", Some(&token)).status(), 200);
}

#[test]
fn a_reel_shows_each_user_once() {
    let server = server();
    let (viewer, token, others) = crowd(&server, 53);
    server.relations.borrow_mut().cooldowns.push((others[0], NOW + 5));
    server.relations.borrow_mut().hidden.push(others[1]);
    let (mut seen, mut cursor, mut pages) = (BTreeSet::new(), String::new(), 0);
    loop {
        let body = server.get(&format!("/room/reel?limit=10&cursor={cursor}"), Some(&token)).json();
        for item in body["items"].as_array().unwrap() {
            assert!(seen.insert(item["userId"].as_str().unwrap().to_owned()), "shown twice");
            assert_eq!(item.as_object().unwrap().keys().collect::<Vec<_>>(), ["gender", "name", "userId"]);
        }
        cursor = body["cursor"].as_str().unwrap().to_owned();
        assert!(uuid::Uuid::try_parse(&cursor).is_ok());
        pages += 1;
        // Somebody new may appear, but nobody again.
        let (late, _) = server.guest("Late");
        server.queue.borrow_mut().push(late);
        if body["hasMore"] == false {
            break;
        }
    }
    assert!(others[2..].iter().all(|user| seen.contains(&user.to_string())));
    for absent in [viewer, others[0], others[1]] {
        assert!(!seen.contains(&absent.to_string()));
    }
    assert!((6..=7).contains(&pages), "{pages}");
}

#[test]
fn a_reel_is_random_and_bounded() {
    let server = server();
    let (_, token, _) = crowd(&server, 120);
    let page = |query: &str| server.get(&format!("/room/reel{query}"), Some(&token)).json();
    assert_ne!(page("")["items"], page("")["items"]);
    for (query, length) in
        [("", 20), ("?limit=0", 1), ("?limit=3", 3), ("?limit=999", 100), ("?limit=x", 20), ("?cursor=x", 20)]
    {
        assert_eq!(page(query)["items"].as_array().unwrap().len(), length, "{query}");
    }
    let last = page("?limit=100")["cursor"].as_str().unwrap().to_owned();
    let rest = page(&format!("?limit=100&cursor={last}"));
    assert_eq!((rest["items"].as_array().unwrap().len(), &rest["hasMore"]), (20, &json!(false)));
}

#[test]
fn history_passes_stored_chat_on_byte_for_byte() {
    let server = server();
    let (partner, token) = server.guest("Ann");
    let room = CallId::draw(&mut Random::from_seed(9));
    let chat = r#"[{"from":"system", "text":"a\u00e9","timestamp":1.0,"type":"message"}]"#;
    let entry = |session: &str, messages: &str| HistoryEntry {
        session: session.to_owned(),
        room,
        partner,
        partner_name: "Bob".to_owned(),
        started_at: NOW,
        duration: 61,
        messages: messages.to_owned(),
    };
    *server.history.borrow_mut() = vec![entry("s2", chat), entry("s1", ""), entry("s0", "[]")];
    let answer = server.get("/room/history", Some(&token));
    assert!(std::str::from_utf8(&answer.0.body).unwrap().contains(chat));
    let body = answer.json();
    let first = json!({
        "sessionId": "s2", "roomId": room, "partnerId": partner, "partnerName": "Bob", "startedAt": NOW,
        "duration": 61, "messages": serde_json::from_str::<Value>(chat).unwrap(),
    });
    assert_eq!(body["history"][0], first);
    assert_eq!((&body["history"][1]["messages"], &body["history"][2]["sessionId"]), (&json!([]), &json!("s0")));
}

#[test]
fn a_history_too_long_to_send_leaves_out_old_chat() {
    let server = server();
    let (partner, token) = server.guest("Ann");
    let entry = HistoryEntry {
        session: "s".to_owned(),
        room: CallId::draw(&mut Random::from_seed(9)),
        partner,
        partner_name: "Bob".to_owned(),
        started_at: NOW,
        duration: 61,
        messages: format!("[\"{}\"]", "x".repeat(700_000)),
    };
    *server.history.borrow_mut() = vec![entry; 4];
    let body = server.get("/room/history", Some(&token)).json();
    let lengths: Vec<_> = (0..4).map(|n| body["history"][n]["messages"].as_array().unwrap().len()).collect();
    assert_eq!(lengths, [1, 1, 0, 0]);
}

#[test]
fn the_room_profile_is_short() {
    let server = server();
    let (user, token) = server.guest("Ann");
    let expected = json!({ "userId": user, "name": "Ann", "timerTotal": 0 });
    assert_eq!(server.get("/room/me", Some(&token)).json(), expected);
}

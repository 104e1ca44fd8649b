//! The reel and the history, and the paywall before them (contract 2.6).

use std::collections::BTreeSet;

use duet::api::Settings;
use duet::base::{CallId, Random};
use duet::message::model::PaidStatus;
use duet::message::store::HistoryEntry;
use serde_json::{Value, json};

use crate::fake::{Fake, NOW, assert_refused};
use crate::queue::crowd;
use crate::server;

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

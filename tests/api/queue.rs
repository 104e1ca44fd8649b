//! The queue: what is listed, in pages or by a sample, and when the client has it already (contract 2.6, RFC 9110 13).

use std::collections::BTreeSet;

use duet::api::{Host, Settings};
use duet::base::{ShardId, Token, UserId};
use duet::message::model::Introduction;
use duet::wire::http::Method;
use serde_json::{Value, json};

use crate::fake::{Answer, Fake, NOW, assert_refused};
use crate::server;

/// A viewer and `count` others, all in the queue.
pub fn crowd(server: &Fake, count: usize) -> (UserId, Token, Vec<UserId>) {
    let (viewer, token) = server.guest("Vera");
    let others: Vec<_> = (0..count).map(|n| server.guest(&format!("Guest {n}")).0).collect();
    server.queue.borrow_mut().push(viewer);
    server.queue.borrow_mut().extend(&others);
    (viewer, token, others)
}

fn introduce(server: &Fake, user: UserId, target: UserId) {
    let introduction = Introduction { target, introducer: "Ida".to_owned() };
    server.change(user, |person| person.card.introduction = Some(introduction));
}

/// Who is listed, in order.
fn listed(body: &Value) -> Vec<String> {
    let id = |user: &Value| user["userId"].as_str().unwrap().to_owned();
    body["users"].as_array().unwrap().iter().map(id).collect()
}

fn texts<'a>(users: impl IntoIterator<Item = &'a UserId>) -> Vec<String> {
    users.into_iter().map(ToString::to_string).collect()
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
    introduce(&server, others[2], viewer);
    introduce(&server, others[3], others[0]);
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
fn an_answer_has_the_bytes_that_serializing_it_would_give() {
    let server = server();
    let (viewer, token, others) = crowd(&server, 3);
    server.change(others[0], |person| person.card.name = "A \"quoted\"\n\u{1F600} name".to_owned());
    server.change(others[1], |person| person.card.video_url = Some("/v.webm".to_owned()));
    server.relations.borrow_mut().cooldowns.push((others[1], NOW + 5));
    introduce(&server, others[2], viewer);
    let person = |name: &str, id: &UserId, more: &str, remarks: &str| {
        let name = serde_json::to_string(name).unwrap();
        format!(r#"{{"userId":"{id}","name":{name},"gender":"female"{more},{remarks}}}"#)
    };
    let remarks = |cooldown: &str, introduction: &str| {
        let cooldown_of = |has: bool, expiry: &str| format!(r#""hasCooldown":{has},"cooldownExpiry":{expiry}"#);
        let cooldown = if cooldown.is_empty() { cooldown_of(false, "null") } else { cooldown_of(true, cooldown) };
        format!(r#"{cooldown},"wasIntroducedToMe":{},"introducedBy":{introduction}"#, introduction != "null")
    };
    let people = [
        person("A \"quoted\"\n\u{1F600} name", &others[0], "", &remarks("", "null")),
        person("Guest 1", &others[1], r#","videoUrl":"/v.webm""#, &remarks(&(NOW + 5).0.to_string(), "null")),
        person("Guest 2", &others[2], "", &remarks("", r#""Ida""#)),
    ];
    let expected = format!(r#"{{"users":[{}],"totalAvailable":3}}"#, people.join(","));
    assert_eq!(std::str::from_utf8(&server.get("/room/queue", Some(&token)).0.body), Ok(expected.as_str()));
}

#[test]
fn of_more_than_fit_the_introduced_and_a_sample_are_listed_and_everybody_is_counted() {
    let server = server();
    let (viewer, token, others) = crowd(&server, 1_005);
    introduce(&server, others[1_003], viewer);
    let lists = (0..12).map(|minute| {
        server.now.set(NOW + minute * 60_000);
        let body = server.get("/room/queue", Some(&token)).json();
        assert_eq!((listed(&body).len(), &body["totalAvailable"]), (200, &json!(1_005)));
        assert_eq!(body["users"][0]["userId"], json!(others[1_003]));
        assert_eq!(body["users"][0]["introducedBy"], "Ida");
        listed(&body)
    });
    let lists: Vec<_> = lists.collect();
    assert!(lists.windows(2).all(|pair| pair[0] != pair[1]));
    assert_eq!(
        lists.concat().iter().collect::<BTreeSet<_>>().len(),
        1_005,
        "in twice as long as it takes all are seen"
    );
}

#[test]
fn the_list_is_as_long_as_is_set() {
    let server = Fake::new(Settings { queue_list_max: 3, ..Settings::default() });
    let (_, token, others) = crowd(&server, 4);
    let list = || listed(&server.get("/room/queue", Some(&token)).json());
    assert_eq!(list().len(), 3);
    server.relations.borrow_mut().hidden.push(others[1]);
    assert_eq!(list(), texts([&others[0], &others[2], &others[3]]), "all who can be seen fit");
}

#[test]
fn pages_show_everybody_once_in_order() {
    let server = Fake::new(Settings { queue_list_max: 10, ..Settings::default() });
    let (_, token, others) = crowd(&server, 25);
    server.relations.borrow_mut().hidden.push(others[7]);
    let (mut met, mut lengths, mut query) = (Vec::new(), Vec::new(), "limit=10".to_owned());
    loop {
        let body = server.get(&format!("/room/queue?{query}"), Some(&token)).json();
        assert_eq!(body["totalAvailable"], 25);
        lengths.push(listed(&body).len());
        met.extend(listed(&body));
        let Some(cursor) = body["nextCursor"].as_str() else { break assert_eq!(body["nextCursor"], Value::Null) };
        query = format!("limit=10&cursor={cursor}");
    }
    assert_eq!(lengths, [10, 10, 4]);
    assert_eq!(met, texts(others.iter().filter(|user| **user != others[7])));
    let page = |query: &str| server.get(&format!("/room/queue?{query}"), Some(&token)).json();
    assert_eq!((listed(&page("limit=1")), listed(&page("cursor=")).len()), (texts(&others[..1]), 10));
    assert_eq!(page("")["nextCursor"], Value::Null);
    assert_eq!(page("").as_object().unwrap().keys().collect::<Vec<_>>(), ["totalAvailable", "users"]);
}

#[test]
fn a_limit_or_a_cursor_that_is_none_is_refused() {
    let server = Fake::new(Settings { queue_list_max: 10, ..Settings::default() });
    let (_, token, _) = crowd(&server, 3);
    for limit in ["0", "11", "-1", "x", "", "1.5", "99999999999999999999999"] {
        assert_refused(&server.get(&format!("/room/queue?limit={limit}"), Some(&token)), 400, "Invalid limit");
    }
    for cursor in ["x", "1761000000000", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA!"] {
        assert_refused(&server.get(&format!("/room/queue?cursor={cursor}"), Some(&token)), 400, "Invalid cursor");
    }
}

/// The answer to who has the answer with this tag.
fn again(server: &Fake, token: &Token, tag: &str) -> Answer {
    let bearer = format!("Bearer {}", token.encode());
    let origin = ("origin", "http://localhost:3000");
    let headers = [("authorization", bearer.as_str()), origin, ("if-none-match", tag)];
    server.send(Method::Get, "/room/queue", &headers, "")
}

#[test]
fn an_unchanged_list_is_not_sent_again() {
    let server = server();
    let (_, token, _) = crowd(&server, 3);
    let first = again(&server, &token, "\"other\"");
    let tag = first.header("ETag").unwrap();
    assert!(first.status() == 200 && tag.starts_with("W/\""), "{tag}");
    for known in [tag.to_owned(), tag[2..].to_owned(), format!("\"a\", {tag}"), "*".to_owned()] {
        let second = again(&server, &token, &known);
        assert_eq!((second.status(), second.0.body.len(), second.0.content_type), (304, 0, ""), "{known}");
        // RFC 9110 15.4.5, and what a page needs to read it.
        for name in ["ETag", "Cache-Control", "Vary", "Access-Control-Allow-Origin", "Access-Control-Allow-Credentials"]
        {
            assert!(second.header(name).is_some(), "{name}");
            assert_eq!(second.header(name), first.header(name), "{name}");
        }
    }
    assert_eq!(first.header("Cache-Control"), Some("private, no-cache"));
    assert_eq!(first.header("Vary"), Some("Origin, Accept-Encoding"));
    assert_refused(
        &again(&server, &server.draw(|random| Token::draw(UserId::draw(random), random)), "*"),
        401,
        "Invalid or expired session",
    );
}

#[test]
fn whatever_the_list_depends_on_makes_another_tag() {
    let server = Fake::new(Settings { queue_list_max: 3, ..Settings::default() });
    let (_, token, others) = crowd(&server, 3);
    let (_, other) = server.guest("Wim");
    let mut tags = BTreeSet::new();
    let mut fresh = |what: &str, token: &Token| {
        let answer = again(&server, token, "");
        assert!(tags.insert(answer.header("ETag").unwrap().to_owned()), "{what}");
        assert_eq!(again(&server, token, answer.header("ETag").unwrap()).status(), 304, "{what}");
    };
    fresh("the first", &token);
    fresh("another viewer", &other);
    server.change(others[0], |person| person.card.name = "Xi".to_owned());
    fresh("a card", &token);
    server.relations.borrow_mut().cooldowns.push((others[0], NOW + 5));
    fresh("a cooldown", &token);
    server.relations.borrow_mut().cooldowns[0].1 = NOW + 6;
    fresh("its end", &token);
    *server.relations.borrow_mut() = Default::default();
    server.relations.borrow_mut().hidden.push(others[0]);
    fresh("a report", &token);
    server.relations.borrow_mut().hidden.clear();
    server.shard.set(ShardId(1));
    fresh("another shard", &token);
    server.queue.borrow_mut().pop();
    fresh("who went", &token);
    let newcomers = (0..3).map(|_| server.guest("Yu").0);
    server.queue.borrow_mut().extend(newcomers);
    fresh("who came", &token);
    server.now.set(NOW + 60_000);
    fresh("another sample", &token);
}

#[test]
fn the_minute_is_no_matter_while_all_fit_nor_the_order_in_which_the_store_tells() {
    let server = server();
    let (_, token, others) = crowd(&server, 5);
    *server.relations.borrow_mut() = duet::message::store::Relations {
        cooldowns: others[..2].iter().map(|user| (*user, NOW + 5)).collect(),
        hidden: others[3..].to_vec(),
    };
    let tag = again(&server, &token, "").header("ETag").unwrap().to_owned();
    server.now.set(NOW + 61_000);
    server.relations.borrow_mut().cooldowns.reverse();
    server.relations.borrow_mut().hidden.reverse();
    assert_eq!(again(&server, &token, &tag).status(), 304);
}

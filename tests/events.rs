//! `src/message/EVENTS.md` against the code: every event, every field and every reason, and no other.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use duet::base::{CallId, InviteId, Random, Time, Token, UserId};
use duet::message::client::SignalKind;
use duet::message::model::{Card, Gender, LastSession, Metrics, Socials};
use duet::message::server::DeclineReason;
use duet::message::{ClientEvent, ServerEvent};
use serde_json::{Map, Value, json};

const DOCUMENT: &str = include_str!("../src/message/EVENTS.md");

/// One line of a table.
struct Row {
    event: String,
    /// As TypeScript would have it; empty when there is none.
    payload: String,
    rest: String,
}

/// The table below the headline `## {section}`.
fn table(section: &str) -> Vec<Row> {
    let (_, text) = DOCUMENT.split_once(&format!("## {section}\n")).expect("the section is there");
    let text = text.split("\n## ").next().unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let row = |line: &str| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let mut code = || cells.next().unwrap().trim_matches('`').to_owned();
        Row { event: code(), payload: code(), rest: cells.collect() }
    };
    rows.map(row).collect()
}

/// Every `name:` and `name?:` of a payload, without the `?`.
fn fields(payload: &str) -> BTreeSet<String> {
    let before_colon = payload.split(':').rev().skip(1);
    let word = |text: &str| text.trim_end_matches('?').rsplit([' ', '{', ',']).next().unwrap_or_default().to_owned();
    before_colon.map(word).filter(|name| !name.is_empty()).collect()
}

fn keys(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        // What is inside is the users' own.
        Value::Object(object) => object.iter().for_each(|(name, value)| {
            names.insert(name.clone());
            if name != "socials" {
                keys(value, names);
            }
        }),
        Value::Array(list) => list.iter().for_each(|value| keys(value, names)),
        _ => {}
    }
}

fn id<T>(draw: impl Fn(&mut Random) -> T) -> T {
    draw(&mut Random::from_seed(1))
}

/// One of each, with every field that may be absent.
fn server_events() -> Vec<ServerEvent> {
    let (user, invite, at) = (id(UserId::draw), id(InviteId::draw), Time(1));
    let url = || Some("https://example.org/a".to_owned());
    let card = Card {
        user_id: user,
        name: "Ann".to_owned(),
        gender: Gender::Female,
        selfie_url: url(),
        video_url: url(),
        introduction: None,
    };
    let metrics =
        Metrics { timer_total_seconds: 1, session_count: 1, last_sessions: vec![LastSession { at, duration: 1 }] };
    let signal = |kind| ServerEvent::Signal { kind, payload: Bytes::from_static(b"1"), from: user };
    let call_start = ServerEvent::CallStart {
        room: id(CallId::draw),
        agreed_seconds: 60,
        initiator: true,
        peer: user,
        peer_name: "Bo".into(),
    };
    vec![
        ServerEvent::AuthSuccess,
        ServerEvent::AuthFailed,
        ServerEvent::AuthBanned,
        ServerEvent::PresenceUpdate { user, online: true, available: true },
        ServerEvent::QueueUpdate { user, available: true },
        ServerEvent::CallNotify { invite, from: Arc::new(card), seconds: 60 },
        ServerEvent::WaitExtended,
        ServerEvent::Rescinded { invite },
        ServerEvent::Declined { invite: Some(invite), reason: DeclineReason::Busy },
        call_start,
        signal(SignalKind::Offer),
        signal(SignalKind::Answer),
        signal(SignalKind::Ice),
        ServerEvent::Chat { from: user, text: "hi".into(), at },
        ServerEvent::SocialShared { from: user, at, socials: Arc::new(Socials::new()) },
        ServerEvent::PeerDisconnected,
        ServerEvent::Finalized { session: "a".into() },
        ServerEvent::MetricsUpdate(Arc::new(metrics)),
        ServerEvent::SessionInvalidated,
        ServerEvent::Error { message: "no" },
    ]
}

/// Does not compile when there is a new event: it belongs into [`server_events`], or among [`CLIENT_EVENTS`].
fn all_are_known(server: &ServerEvent, client: &ClientEvent, kind: SignalKind) {
    match server {
        ServerEvent::AuthSuccess | ServerEvent::AuthFailed | ServerEvent::AuthBanned => {}
        ServerEvent::PresenceUpdate { .. } | ServerEvent::QueueUpdate { .. } | ServerEvent::CallNotify { .. } => {}
        ServerEvent::WaitExtended | ServerEvent::Rescinded { .. } | ServerEvent::Declined { .. } => {}
        ServerEvent::CallStart { .. } | ServerEvent::Signal { .. } | ServerEvent::Chat { .. } => {}
        ServerEvent::SocialShared { .. } | ServerEvent::PeerDisconnected | ServerEvent::Finalized { .. } => {}
        ServerEvent::MetricsUpdate(_) | ServerEvent::SessionInvalidated | ServerEvent::Error { .. } => {}
    }
    match client {
        ClientEvent::Auth { .. } | ClientEvent::PresenceJoin | ClientEvent::PresenceLeave => {}
        ClientEvent::QueueJoin | ClientEvent::QueueLeave | ClientEvent::Invite { .. } => {}
        ClientEvent::Accept { .. } | ClientEvent::Decline { .. } | ClientEvent::ExtendWait { .. } => {}
        ClientEvent::Rescind { .. } | ClientEvent::RoomJoin { .. } | ClientEvent::Signal { .. } => {}
        ClientEvent::Chat { .. } | ClientEvent::GiveSocial { .. } | ClientEvent::End { .. } => {}
    }
    match kind {
        SignalKind::Offer | SignalKind::Answer | SignalKind::Ice => {}
    }
}

const CLIENT_EVENTS: [&str; 17] = [
    "auth",
    "presence:join",
    "presence:leave",
    "queue:join",
    "queue:leave",
    "call:invite",
    "call:accept",
    "call:decline",
    "call:extend-wait",
    "call:rescind",
    "room:join",
    "rtc:offer",
    "rtc:answer",
    "rtc:ice",
    "room:chat",
    "room:giveSocial",
    "call:end",
];

/// Good values of all that a client may say.
fn client_fields() -> Map<String, Value> {
    let user = id(UserId::draw);
    let all = json!({
        "sessionToken": id(|random| Token::draw(user, random)).encode(),
        "toUserId": user.to_string(),
        "inviteId": id(InviteId::draw).to_string(),
        "requestedSeconds": 60,
        "roomId": id(CallId::draw).to_string(),
        "offer": 1,
        "answer": 1,
        "candidate": 1,
        "text": "hi",
        "socials": { "a": "b" },
    });
    all.as_object().unwrap().clone()
}

#[test]
fn every_event_of_the_server_is_documented_with_its_fields() {
    let rows = table("From the server");
    let documented: Vec<&str> = rows.iter().map(|row| row.event.as_str()).collect();
    let events = server_events();
    all_are_known(&events[0], &ClientEvent::QueueJoin, SignalKind::Offer);
    let names: BTreeSet<&str> = events.iter().map(ServerEvent::name).collect();
    assert_eq!((documented.len(), documented.into_iter().collect::<BTreeSet<_>>()), (names.len(), names));
    for event in events {
        let encoded: Value = serde_json::from_slice(&event.encode()).unwrap();
        let mut names = BTreeSet::new();
        keys(&encoded, &mut names);
        let row = rows.iter().find(|row| row.event == event.name()).unwrap();
        assert_eq!(fields(&row.payload), names, "{}", row.event);
        assert!(!row.rest.is_empty(), "{}", row.event);
    }
}

#[test]
fn every_event_of_the_client_is_documented_with_the_fields_that_are_read() {
    let rows = table("From the client");
    assert_eq!(rows.iter().map(|row| row.event.as_str()).collect::<Vec<_>>(), CLIENT_EVENTS);
    let all = client_fields();
    for Row { event, payload, .. } in rows {
        let decode = |fields: &Map<String, Value>| ClientEvent::decode(&json!([event, fields]).to_string());
        let named = fields(&payload);
        let only: Map<String, Value> = all.clone().into_iter().filter(|(name, _)| named.contains(name)).collect();
        assert_eq!((decode(&all).unwrap().name(), only.len()), (event.as_str(), named.len()), "{event}");
        assert_eq!(decode(&only), decode(&all), "{event} reads nothing but what is documented");
        for name in named {
            let mut less = only.clone();
            less.remove(&name);
            assert_ne!(decode(&less), decode(&all), "{event} reads {name}");
        }
    }
}

#[test]
fn every_reason_of_a_declined_invite_is_documented() {
    let rows = table("From the server");
    let row = rows.iter().find(|row| row.event == "call:declined").unwrap();
    for reason in [
        DeclineReason::InvalidTarget,
        DeclineReason::UserNotFound,
        DeclineReason::InvalidDuration,
        DeclineReason::Offline,
        DeclineReason::Cooldown,
        DeclineReason::UserDeclined,
        DeclineReason::Busy,
        DeclineReason::Timeout,
    ] {
        let name = serde_json::to_value(reason).unwrap();
        assert!(row.rest.contains(&format!("`{}`", name.as_str().unwrap())), "{name}");
    }
}

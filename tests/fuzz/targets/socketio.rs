//! Socket.IO packets and the events in them: nothing panics, what decodes can be said again, bounds hold, and every
//! event to a client is JSON whatever its texts are.
#![no_main]

use std::sync::Arc;

use bytes::Bytes;
use duet::base::limits::{ATTACHMENTS_MAX, CALL_SECONDS_MAX, CALL_SECONDS_MIN, CHAT_CHARS_MAX, SOCIALS_MAX};
use duet::base::{CallId, InviteId, Time, UserId};
use duet::message::client::Seconds;
use duet::message::model::Gender;
use duet::message::{Card, ClientEvent, ServerEvent};
use duet::wire::socketio::{self, Kind, Packet};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    check_event(&text);
    if let Some(packet) = Packet::decode(&text) {
        check_packet(&packet);
        check_event(packet.data);
    }
    let _ = socketio::decode_token(&text);
    check_placeholders(&text);
    if let Some((name, arguments)) = socketio::split_event(&text) {
        let joined = format!("[{}]", [&[name], arguments.as_slice()].concat().join(","));
        assert_eq!(socketio::split_event(&joined), Some((name, arguments)));
    }
    check_server_events(&text);
});

fn check_packet(packet: &Packet) {
    assert!(packet.attachments <= ATTACHMENTS_MAX && packet.namespace.starts_with('/'));
    assert!(packet.ack.is_none_or(|ack| !ack.is_empty() && ack.bytes().all(|byte| byte.is_ascii_digit())));
    let explicit = encode(packet, &format!("{},", packet.namespace));
    assert_eq!(Packet::decode(&explicit).as_ref(), Some(packet), "{explicit:?}");
    // A bare "/…" would be read as a namespace.
    if packet.namespace == "/" && (packet.ack.is_some() || !packet.data.starts_with('/')) {
        assert_eq!(Packet::decode(&encode(packet, "")).as_ref(), Some(packet));
    }
    let _ = socketio::decode_token(packet.data);
    check_placeholders(packet.data);

    let refusal = socketio::encode_connect_error(packet.namespace, packet.data);
    let decoded = Packet::decode(&refusal).expect("a refusal is a packet");
    assert_eq!((decoded.kind, decoded.namespace), (Kind::ConnectError, packet.namespace));
    assert_eq!(parsed(decoded.data.as_bytes())["message"], packet.data);
    if let Some(ack) = packet.ack {
        let answer = socketio::encode_ack(ack);
        assert_eq!(Packet::decode(&answer).map(|packet| (packet.kind, packet.ack)), Some((Kind::Ack, Some(ack))));
    }
}

fn encode(packet: &Packet, namespace: &str) -> String {
    let (ack, data) = (packet.ack.unwrap_or_default(), packet.data);
    let kind = match (packet.kind, packet.attachments) {
        (Kind::Connect, _) => "0".to_owned(),
        (Kind::Disconnect, _) => "1".to_owned(),
        (Kind::Event, 0) => "2".to_owned(),
        (Kind::Ack, 0) => "3".to_owned(),
        (Kind::ConnectError, _) => "4".to_owned(),
        (Kind::Event, attachments) => format!("5{attachments}-"),
        (Kind::Ack, attachments) => format!("6{attachments}-"),
    };
    format!("{kind}{namespace}{ack}{data}")
}

/// What fits a number of attachments fits every larger one, and is JSON.
fn check_placeholders(json: &str) {
    let fits: Vec<bool> =
        (0..=ATTACHMENTS_MAX).map(|attachments| socketio::placeholders_fit(json, attachments)).collect();
    assert!(fits.is_sorted(), "{json:?}");
    assert!(!fits[0] || serde_json::from_str::<Value>(json).is_ok());
    if fits[ATTACHMENTS_MAX] {
        assert!(!json.contains("_placeholder") || !fits[0] || !refers(&parsed(json.as_bytes())), "{json:?}");
    }
}

/// Whether there is any placeholder in `value`.
fn refers(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(refers),
        Value::Object(fields) => fields.get("_placeholder") == Some(&Value::Bool(true)) || fields.values().any(refers),
        _ => false,
    }
}

/// An event within its bounds; what is passed on of it stays JSON.
fn check_event(json: &str) {
    let Ok(event) = ClientEvent::decode(json) else { return };
    assert!(is_json(json.as_bytes()), "an event is JSON");
    let from = UserId::from_bytes([1; 16]);
    let bounds = CALL_SECONDS_MIN..=CALL_SECONDS_MAX;
    match event {
        ClientEvent::Invite { seconds, .. } | ClientEvent::Accept { seconds, .. } => {
            assert!(seconds.map(Seconds::get).is_none_or(|seconds| bounds.contains(&seconds)));
        }
        ClientEvent::Signal { kind, payload, .. } => {
            let encoded = ServerEvent::Signal { kind, payload: payload.clone(), from }.encode();
            assert!(is_json(&payload) && is_json(&encoded), "{encoded:?}");
        }
        ClientEvent::Chat { text: Some(text), .. } => {
            assert!(!text.is_empty() && text.chars().count() <= CHAT_CHARS_MAX);
            assert!(!text.chars().any(char::is_control));
        }
        ClientEvent::GiveSocial { socials, .. } => {
            assert!(socials.len() <= SOCIALS_MAX);
            let encoded = ServerEvent::SocialShared { from, at: Time(1), socials: Arc::new(socials.clone()) }.encode();
            assert_eq!(parsed(&encoded)[1]["socials"], serde_json::json!(socials));
        }
        _ => {}
    }
}

/// Texts of users come out as they went in.
fn check_server_events(text: &str) {
    let (id, at) = ([2; 16], Time(5));
    let user = UserId::from_bytes(id);
    let card = Card {
        user_id: user,
        name: text.to_owned(),
        gender: Gender::Unspecified,
        selfie_url: Some(text.to_owned()),
        video_url: None,
        introduction: None,
    };
    let (invite, room) = (InviteId::from_bytes(id), CallId::from_bytes(id));
    let events = [
        (ServerEvent::Chat { from: user, text: text.into(), at }, "/1/text"),
        (ServerEvent::Finalized { session: text.into() }, "/1/sessionId"),
        (ServerEvent::CallNotify { invite, from: Arc::new(card), seconds: 60 }, "/1/fromUser/name"),
        (
            ServerEvent::CallStart { room, agreed_seconds: 60, initiator: true, peer: user, peer_name: text.into() },
            "/1/peerUser/name",
        ),
    ];
    for (event, place) in events {
        let encoded: Bytes = event.encode();
        let value = parsed(&encoded);
        assert_eq!((value[0].as_str(), value.pointer(place).and_then(Value::as_str)), (Some(event.name()), Some(text)));
    }
}

fn is_json(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok() && serde_json::from_slice::<IgnoredAny>(bytes).is_ok()
}

fn parsed(json: &[u8]) -> Value {
    serde_json::from_slice(json).unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(json)))
}

//! All that a browser may say over a socket (contract 3.3), decoded from the JSON array `["event", payload]`.
//!
//! Decoding is one pass that notes where the fields of the payload are; the event's name says which of them are read. Signalling payloads
//! (SDP, ICE) are not read at all: their bytes are kept as they came in. What is said is validated here as far as it
//! can be without knowing anybody's state; the rest is the domain's.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::model::Socials;
use crate::base::limits::{CALL_SECONDS_MAX, CALL_SECONDS_MIN, CHAT_CHARS_MAX, SOCIAL_CHARS_MAX, SOCIALS_MAX};
use crate::base::{CallId, InviteId, Token, UserId};

/// One event from a client. An id that is no id names nothing: it decodes to `None` and meets the rule for unknown ones.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientEvent {
    /// `None`: no token, or one that cannot be ours.
    Auth {
        token: Option<Token>,
    },
    PresenceJoin,
    PresenceLeave,
    QueueJoin,
    QueueLeave,
    Invite {
        callee: Option<UserId>,
        seconds: Option<Seconds>,
    },
    Accept {
        invite: Option<InviteId>,
        seconds: Option<Seconds>,
    },
    Decline {
        invite: Option<InviteId>,
    },
    ExtendWait {
        callee: Option<UserId>,
    },
    Rescind {
        callee: Option<UserId>,
    },
    RoomJoin {
        room: Option<CallId>,
    },
    Signal {
        room: Option<CallId>,
        kind: SignalKind,
        payload: Bytes,
    },
    /// Cleaned already; `None` when nothing is left of it.
    Chat {
        room: Option<CallId>,
        text: Option<String>,
    },
    GiveSocial {
        room: Option<CallId>,
        socials: Socials,
    },
    End {
        room: Option<CallId>,
    },
}

/// Which of the three signalling events (contract 3.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SignalKind {
    Offer,
    Answer,
    Ice,
}

/// A wanted duration within the bounds of contract 4.1; 1..59 s were raised to 60 (Decided 2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Seconds(u32);

impl Seconds {
    /// `seconds` if it is allowed, raised if it is positive but short.
    pub fn new(seconds: u32) -> Option<Self> {
        (1..=CALL_SECONDS_MAX).contains(&seconds).then(|| Self(seconds.max(CALL_SECONDS_MIN)))
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }

    fn decode(raw: Option<&RawValue>) -> Option<Self> {
        let number: f64 = raw?.get().parse().ok()?;
        let allowed = number.fract() == 0.0 && (1.0..=f64::from(CALL_SECONDS_MAX)).contains(&number);
        allowed.then_some(number as u32).and_then(Self::new)
    }
}

/// How a connection left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leave {
    /// The client said so (Socket.IO disconnect, Engine.IO close): there is no grace (contract 3.5).
    Deliberate,
    /// Transport closed, reset or silent: it may come back within the grace.
    Lost,
}

/// Why an event was not understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// No such event: ignored, as Socket.IO does with an event nobody listens to.
    Unknown,
    /// The event is known, its payload is not what it needs: answered by `error` with this text.
    Malformed(&'static str),
    /// Not an array that starts with a name: a broken client (Socket.IO: parse error).
    NotAnEvent,
}

impl ClientEvent {
    /// Decodes `["event", payload, …]`; what follows the payload is ignored.
    pub fn decode(json: &str) -> Result<Self, Refusal> {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let decoded = deserializer.deserialize_seq(EventVisitor).map_err(|_| Refusal::NotAnEvent)?;
        deserializer.end().map_err(|_| Refusal::NotAnEvent)?;
        decoded
    }

    /// Every wire name, each at its [`ClientEvent::index`].
    pub const NAMES: [&'static str; 17] = [
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
        "room:chat",
        "room:giveSocial",
        "call:end",
        "rtc:offer",
        "rtc:answer",
        "rtc:ice",
    ];

    /// The wire name.
    pub fn name(&self) -> &'static str {
        Self::NAMES[self.index()]
    }

    /// Where its name stands, for what is counted by name.
    pub fn index(&self) -> usize {
        match self {
            Self::Auth { .. } => 0,
            Self::PresenceJoin => 1,
            Self::PresenceLeave => 2,
            Self::QueueJoin => 3,
            Self::QueueLeave => 4,
            Self::Invite { .. } => 5,
            Self::Accept { .. } => 6,
            Self::Decline { .. } => 7,
            Self::ExtendWait { .. } => 8,
            Self::Rescind { .. } => 9,
            Self::RoomJoin { .. } => 10,
            Self::Chat { .. } => 11,
            Self::GiveSocial { .. } => 12,
            Self::End { .. } => 13,
            Self::Signal { kind, .. } => 14 + *kind as usize,
        }
    }
}

impl SignalKind {
    /// The event's name, the same in both directions.
    pub fn event(self) -> &'static str {
        match self {
            Self::Offer => "rtc:offer",
            Self::Answer => "rtc:answer",
            Self::Ice => "rtc:ice",
        }
    }

    /// The payload's field.
    pub fn field(self) -> &'static str {
        match self {
            Self::Offer => "offer",
            Self::Answer => "answer",
            Self::Ice => "candidate",
        }
    }
}

struct EventVisitor;

impl<'de> Visitor<'de> for EventVisitor {
    type Value = Result<ClientEvent, Refusal>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an array that starts with an event name")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let Text(name) = seq.next_element()?.ok_or_else(|| serde::de::Error::custom("empty"))?;
        let fields = seq.next_element_seed(Payload)?.unwrap_or_default();
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(build(&name, &fields))
    }
}

/// The fields that any event may carry, each as it was written, `null` as if it were not there. One set for all: no two
/// events use a name differently.
#[derive(Default)]
struct Fields<'a> {
    session_token: Option<&'a RawValue>,
    to_user_id: Option<&'a RawValue>,
    invite_id: Option<&'a RawValue>,
    requested_seconds: Option<&'a RawValue>,
    room_id: Option<&'a RawValue>,
    offer: Option<&'a RawValue>,
    answer: Option<&'a RawValue>,
    candidate: Option<&'a RawValue>,
    text: Option<&'a RawValue>,
    socials: Option<&'a RawValue>,
}

impl<'a> Fields<'a> {
    /// The field of this name; what no event has is nothing.
    fn named(&mut self, name: &str) -> Option<&mut Option<&'a RawValue>> {
        Some(match name {
            "sessionToken" => &mut self.session_token,
            "toUserId" => &mut self.to_user_id,
            "inviteId" => &mut self.invite_id,
            "requestedSeconds" => &mut self.requested_seconds,
            "roomId" => &mut self.room_id,
            "offer" => &mut self.offer,
            "answer" => &mut self.answer,
            "candidate" => &mut self.candidate,
            "text" => &mut self.text,
            "socials" => &mut self.socials,
            _ => return None,
        })
    }
}

/// Reads an object's fields in one pass, of a name that comes twice the last, as browsers do; any other JSON value
/// counts as an object without fields.
struct Payload;

impl<'de> DeserializeSeed<'de> for Payload {
    type Value = Fields<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Payload {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Fields::default();
        while let Some(Text(name)) = map.next_key::<Text>()? {
            match fields.named(&name) {
                Some(field) => *field = map.next_value()?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(fields)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Fields::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Fields::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Fields::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Fields::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Fields::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Fields::default())
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Fields::default())
    }
}

fn build(name: &str, fields: &Fields) -> Result<ClientEvent, Refusal> {
    let room = || id(fields.room_id, CallId::decode, "roomId must be a string");
    let callee = || id(fields.to_user_id, UserId::decode, "toUserId must be a string");
    let invite = || id(fields.invite_id, InviteId::decode, "inviteId must be a string");
    let seconds = || Seconds::decode(fields.requested_seconds);
    let signal = |kind: SignalKind, payload: Option<&RawValue>| {
        let payload = payload.ok_or(Refusal::Malformed("the signalling payload is missing"))?;
        Ok(ClientEvent::Signal { room: room()?, kind, payload: Bytes::copy_from_slice(payload.get().as_bytes()) })
    };
    Ok(match name {
        "auth" => ClientEvent::Auth { token: text(fields.session_token).and_then(|text| Token::decode(&text)) },
        "presence:join" => ClientEvent::PresenceJoin,
        "presence:leave" => ClientEvent::PresenceLeave,
        "queue:join" => ClientEvent::QueueJoin,
        "queue:leave" => ClientEvent::QueueLeave,
        "call:invite" => ClientEvent::Invite { callee: callee()?, seconds: seconds() },
        "call:accept" => ClientEvent::Accept { invite: invite()?, seconds: seconds() },
        "call:decline" => ClientEvent::Decline { invite: invite()? },
        "call:extend-wait" => ClientEvent::ExtendWait { callee: callee()? },
        "call:rescind" => ClientEvent::Rescind { callee: callee()? },
        "room:join" => ClientEvent::RoomJoin { room: room()? },
        "rtc:offer" => signal(SignalKind::Offer, fields.offer)?,
        "rtc:answer" => signal(SignalKind::Answer, fields.answer)?,
        "rtc:ice" => signal(SignalKind::Ice, fields.candidate)?,
        "room:chat" => {
            let text = text(fields.text).ok_or(Refusal::Malformed("text must be a string"))?;
            ClientEvent::Chat { room: room()?, text: clean_chat(&text) }
        }
        "room:giveSocial" => {
            let socials = fields.socials.and_then(|raw| serde_json::from_str(raw.get()).ok());
            let socials = socials.filter(socials_allowed).ok_or(Refusal::Malformed(SOCIALS_RULE))?;
            ClientEvent::GiveSocial { room: room()?, socials }
        }
        "call:end" => ClientEvent::End { room: room()? },
        _ => return Err(Refusal::Unknown),
    })
}

/// What [`socials_allowed`] demands, as told to clients.
pub const SOCIALS_RULE: &str = "socials must be an object of at most 10 strings of at most 100 characters";

/// Whether socials keep their bounds (D34).
pub fn socials_allowed(socials: &Socials) -> bool {
    let fits = |text: &str| text.chars().count() <= SOCIAL_CHARS_MAX && !text.chars().any(char::is_control);
    socials.len() <= SOCIALS_MAX && socials.iter().all(|(key, value)| !key.is_empty() && fits(key) && fits(value))
}

/// Chat text as it is passed on (Decided 4): without control characters, trimmed, cut; `None` when nothing is left.
fn clean_chat(text: &str) -> Option<String> {
    let kept: String = text.chars().filter(|c| !c.is_control()).collect();
    let cut: String = kept.trim().chars().take(CHAT_CHARS_MAX).collect();
    (!cut.is_empty()).then_some(cut)
}

fn id<T>(raw: Option<&RawValue>, decode: fn(&str) -> Option<T>, rule: &'static str) -> Result<Option<T>, Refusal> {
    text(raw).map(|text| decode(&text)).ok_or(Refusal::Malformed(rule))
}

/// A string, borrowed unless it is written with escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn text(raw: Option<&RawValue>) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text>(raw?.get()).ok().map(|text| text.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(json: &str) -> Result<ClientEvent, Refusal> {
        ClientEvent::decode(json)
    }

    const ID: &str = "2f1f3c58-9d5b-4a3e-8f6a-0d1c2b3a4958";

    #[test]
    fn a_signal_is_counted_under_its_own_name() {
        for kind in [SignalKind::Offer, SignalKind::Answer, SignalKind::Ice] {
            let event = ClientEvent::Signal { room: None, kind, payload: Bytes::new() };
            assert_eq!(event.name(), kind.event());
        }
    }

    #[test]
    fn signalling_payload_keeps_its_bytes() {
        let json = format!(r#"["rtc:offer",{{"roomId":"{ID}","offer":{{ "sdp" : "v=0\r\n","n":1.50 }}}}]"#);
        let Ok(ClientEvent::Signal { kind: SignalKind::Offer, payload, room }) = decode(&json) else { panic!() };
        assert_eq!(payload, r#"{ "sdp" : "v=0\r\n","n":1.50 }"#);
        assert_eq!(room, CallId::decode(ID));
    }

    #[test]
    fn seconds_are_integers_in_bounds_and_short_ones_are_raised() {
        let seconds = |text: &str| {
            let json = format!(r#"["call:invite",{{"toUserId":"x","requestedSeconds":{text}}}]"#);
            let Ok(ClientEvent::Invite { seconds, callee: None }) = decode(&json) else { panic!("{text}") };
            seconds.map(Seconds::get)
        };
        for (text, expected) in [("1", 60), ("59", 60), ("60", 60), ("300", 300), ("300.0", 300), ("1800", 1800)] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for text in ["0", "-5", "1801", "1e9", "60.5", "\"60\"", "null", "[60]", "{}"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn chat_is_cleaned_but_markup_stays() {
        let chat = |text: &str| {
            let json = serde_json::json!(["room:chat", { "roomId": ID, "text": text }]).to_string();
            let Ok(ClientEvent::Chat { text, .. }) = decode(&json) else { panic!() };
            text
        };
        assert_eq!(chat(" a <b> c\u{0}\u{7f} ").as_deref(), Some("a <b> c"));
        assert_eq!(chat(" \u{1} "), None);
        assert_eq!(chat(&"é".repeat(600)).map(|text| text.chars().count()), Some(500));
    }

    #[test]
    fn of_a_field_that_comes_twice_the_last_counts_and_null_is_nothing() {
        let json = format!(
            r#"["rtc:ice",{{"candidate":1,"x":[{{}}],"room\u0049d":"{ID}","candidate":{{"a":2}},"socials":null}},3]"#
        );
        let Ok(ClientEvent::Signal { payload, room, .. }) = decode(&json) else { panic!() };
        assert_eq!((&payload[..], room), (&br#"{"a":2}"#[..], CallId::decode(ID)));
        for payload in ["7", "-7", "1.5", "true", "null", "\"x\"", "[{\"roomId\":\"x\"}]", "{}"] {
            let refused = Err(Refusal::Malformed("roomId must be a string"));
            assert_eq!(decode(&format!(r#"["room:join",{payload}]"#)), refused, "{payload}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for json in ["", "{}", "[]", "[1]", "[null]", "[\"auth\"", "[\"auth\"]x", "\"auth\"", "[[\"auth\"]]"] {
            assert_eq!(decode(json), Err(Refusal::NotAnEvent), "{json}");
        }
        assert_eq!(decode(r#"["no:such"]"#), Err(Refusal::Unknown));
        for json in [
            r#"["call:invite"]"#,
            r#"["call:invite",{"toUserId":7}]"#,
            r#"["room:chat",{"roomId":"x"}]"#,
            r#"["room:chat",{"roomId":"x","text":{"a":1}}]"#,
            r#"["room:giveSocial",{"roomId":"x","socials":{"a":1}}]"#,
            r#"["room:giveSocial",{"roomId":"x","socials":["a"]}]"#,
            r#"["rtc:ice",{"roomId":"x"}]"#,
            r#"["room:join",null]"#,
        ] {
            assert!(matches!(decode(json), Err(Refusal::Malformed(_))), "{json}");
        }
    }

    #[test]
    fn a_broken_token_is_no_token() {
        for json in
            [r#"["auth"]"#, r#"["auth",null]"#, r#"["auth",{"sessionToken":1}]"#, r#"["auth",{"sessionToken":"x"}]"#]
        {
            assert_eq!(decode(json), Ok(ClientEvent::Auth { token: None }), "{json}");
        }
    }
}

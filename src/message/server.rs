//! All that a browser may hear over a socket (contract 3.4), encoded as the JSON array `["event", payload]`.
//!
//! An event is encoded once and its bytes are shared by reference among the connections that hear it.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::client::SignalKind;
use super::model::{Card, ChatKind, Metrics, Socials};
use crate::base::{CallId, InviteId, Time, UserId, limits};

/// One event to a client.
#[derive(Clone, PartialEq, Debug)]
pub enum ServerEvent {
    AuthSuccess,
    AuthFailed,
    AuthBanned,
    PresenceUpdate {
        user: UserId,
        online: bool,
        available: bool,
    },
    QueueUpdate {
        user: UserId,
        available: bool,
    },
    CallNotify {
        invite: InviteId,
        from: Arc<Card>,
        seconds: u32,
    },
    WaitExtended,
    Rescinded {
        invite: InviteId,
    },
    /// `invite` is absent when none was made.
    Declined {
        invite: Option<InviteId>,
        reason: DeclineReason,
    },
    CallStart {
        room: CallId,
        agreed_seconds: u32,
        initiator: bool,
        peer: UserId,
        peer_name: Arc<str>,
    },
    /// `payload` is JSON, passed on byte for byte.
    Signal {
        kind: SignalKind,
        payload: Bytes,
        from: UserId,
    },
    Chat {
        from: UserId,
        text: Arc<str>,
        at: Time,
    },
    SocialShared {
        from: UserId,
        at: Time,
        socials: Arc<Socials>,
    },
    PeerDisconnected,
    /// The session id (contract 3.4, `session:finalized`).
    Finalized {
        session: Arc<str>,
    },
    MetricsUpdate(Arc<Metrics>),
    SessionInvalidated,
    Error {
        message: &'static str,
    },
}

/// Why a caller's invite came to nothing (contract 3.3, 3.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeclineReason {
    InvalidTarget,
    UserNotFound,
    InvalidDuration,
    Offline,
    Cooldown,
    UserDeclined,
    Busy,
    Timeout,
}

impl ServerEvent {
    /// Every wire name, each at its [`ServerEvent::index`].
    pub const NAMES: [&'static str; 20] = [
        "auth:success",
        "auth:failed",
        "auth:banned",
        "presence:update",
        "queue:update",
        "call:notify",
        "call:wait-extended",
        "call:rescinded",
        "call:declined",
        "call:start",
        "room:chat",
        "room:socialShared",
        "peer:disconnected",
        "session:finalized",
        "metrics:update",
        "session:invalidated",
        "error",
        "rtc:offer",
        "rtc:answer",
        "rtc:ice",
    ];

    /// [`ServerEvent::index`] of every [`ServerEvent::PresenceUpdate`].
    pub const PRESENCE_UPDATE: usize = 3;

    /// The wire name.
    pub fn name(&self) -> &'static str {
        Self::NAMES[self.index()]
    }

    /// Where its name stands, for what is counted by name.
    pub fn index(&self) -> usize {
        match self {
            Self::AuthSuccess => 0,
            Self::AuthFailed => 1,
            Self::AuthBanned => 2,
            Self::PresenceUpdate { .. } => Self::PRESENCE_UPDATE,
            Self::QueueUpdate { .. } => 4,
            Self::CallNotify { .. } => 5,
            Self::WaitExtended => 6,
            Self::Rescinded { .. } => 7,
            Self::Declined { .. } => 8,
            Self::CallStart { .. } => 9,
            Self::Chat { .. } => 10,
            Self::SocialShared { .. } => 11,
            Self::PeerDisconnected => 12,
            Self::Finalized { .. } => 13,
            Self::MetricsUpdate(_) => 14,
            Self::SessionInvalidated => 15,
            Self::Error { .. } => 16,
            Self::Signal { kind, .. } => 17 + *kind as usize,
        }
    }

    /// Bytes that the event holds besides itself; what a bound on held events counts.
    pub fn weight(&self) -> usize {
        match self {
            Self::Signal { payload, .. } => payload.len(),
            Self::Chat { text, .. } => text.len(),
            Self::SocialShared { socials, .. } => socials.iter().map(|(key, value)| key.len() + value.len()).sum(),
            _ => 0,
        }
    }

    /// The JSON array.
    pub fn encode(&self) -> Bytes {
        match self {
            Self::AuthSuccess | Self::AuthFailed | Self::PeerDisconnected => {
                Bytes::from(format!("[\"{}\"]", self.name()))
            }
            Self::Signal { kind, payload, from } => signal(*kind, payload, *from),
            Self::MetricsUpdate(metrics) => array(self.name(), metrics.as_ref()),
            other => array(other.name(), &Payload::from(other)),
        }
    }
}

/// The payloads as they are written: one shape per event, fields in the contract's order.
#[derive(Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
enum Payload<'a> {
    Message {
        message: &'a str,
    },
    Banned {
        message: &'a str,
        banned: bool,
    },
    Presence {
        user_id: UserId,
        online: bool,
        available: bool,
    },
    Queue {
        user_id: UserId,
        available: bool,
    },
    Notify {
        invite_id: InviteId,
        from_user: &'a Card,
        requested_seconds: u32,
        ttl_ms: u64,
    },
    Extended {
        extra_seconds: u64,
    },
    Rescinded {
        invite_id: InviteId,
    },
    Declined {
        #[serde(skip_serializing_if = "Option::is_none")]
        invite_id: Option<InviteId>,
        reason: DeclineReason,
    },
    Start {
        room_id: CallId,
        agreed_seconds: u32,
        is_initiator: bool,
        peer_user: Peer<'a>,
    },
    Chat {
        from: UserId,
        text: &'a str,
        timestamp: Time,
        #[serde(rename = "type")]
        kind: ChatKind,
    },
    Social {
        from: UserId,
        timestamp: Time,
        #[serde(rename = "type")]
        kind: ChatKind,
        socials: &'a Socials,
    },
    Finalized {
        session_id: &'a str,
    },
    Invalidated {
        message: &'a str,
        reason: &'a str,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Peer<'a> {
    user_id: UserId,
    name: &'a str,
}

impl<'a> From<&'a ServerEvent> for Payload<'a> {
    fn from(event: &'a ServerEvent) -> Self {
        match event {
            ServerEvent::AuthBanned => Self::Banned { message: "Your account has been suspended", banned: true },
            ServerEvent::PresenceUpdate { user, online, available } => {
                Self::Presence { user_id: *user, online: *online, available: *available }
            }
            ServerEvent::QueueUpdate { user, available } => Self::Queue { user_id: *user, available: *available },
            ServerEvent::CallNotify { invite, from, seconds } => Self::Notify {
                invite_id: *invite,
                from_user: from,
                requested_seconds: *seconds,
                ttl_ms: limits::INVITE_TTL_MS,
            },
            ServerEvent::WaitExtended => Self::Extended { extra_seconds: limits::INVITE_TTL_MS / 1000 },
            ServerEvent::Rescinded { invite } => Self::Rescinded { invite_id: *invite },
            ServerEvent::Declined { invite, reason } => Self::Declined { invite_id: *invite, reason: *reason },
            ServerEvent::CallStart { room, agreed_seconds, initiator, peer, peer_name } => Self::Start {
                room_id: *room,
                agreed_seconds: *agreed_seconds,
                is_initiator: *initiator,
                peer_user: Peer { user_id: *peer, name: peer_name },
            },
            ServerEvent::Chat { from, text, at } => {
                Self::Chat { from: *from, text, timestamp: *at, kind: ChatKind::Message }
            }
            ServerEvent::SocialShared { from, at, socials } => {
                Self::Social { from: *from, timestamp: *at, kind: ChatKind::Social, socials }
            }
            ServerEvent::Finalized { session } => Self::Finalized { session_id: session },
            ServerEvent::SessionInvalidated => Self::Invalidated {
                message: "You were logged out: your account logged in elsewhere",
                reason: "new_login",
            },
            ServerEvent::Error { message } => Self::Message { message },
            ServerEvent::AuthSuccess
            | ServerEvent::AuthFailed
            | ServerEvent::PeerDisconnected
            | ServerEvent::Signal { .. }
            | ServerEvent::MetricsUpdate(_) => unreachable!("encoded without a payload shape"),
        }
    }
}

fn array(name: &str, payload: &impl Serialize) -> Bytes {
    Bytes::from(serde_json::to_vec(&(name, payload)).expect("maps have string keys and nothing here can fail"))
}

/// `["rtc:offer",{"offer":…,"from":"…"}]`, the payload copied once and never parsed.
fn signal(kind: SignalKind, payload: &[u8], from: UserId) -> Bytes {
    let mut json = Vec::with_capacity(payload.len() + 80);
    json.extend_from_slice(b"[\"");
    json.extend_from_slice(kind.event().as_bytes());
    json.extend_from_slice(b"\",{\"");
    json.extend_from_slice(kind.field().as_bytes());
    json.extend_from_slice(b"\":");
    json.extend_from_slice(payload);
    json.extend_from_slice(b",\"from\":\"");
    json.extend_from_slice(from.to_string().as_bytes());
    json.extend_from_slice(b"\"}]");
    Bytes::from(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "2f1f3c58-9d5b-4a3e-8f6a-0d1c2b3a4958";

    #[test]
    fn events_have_the_contract_s_shapes() {
        let user = UserId::decode(ID).unwrap();
        let room = CallId::decode(ID).unwrap();
        let cases = [
            (ServerEvent::AuthSuccess, r#"["auth:success"]"#.to_owned()),
            (
                ServerEvent::QueueUpdate { user, available: true },
                format!(r#"["queue:update",{{"userId":"{ID}","available":true}}]"#),
            ),
            (
                ServerEvent::Declined { invite: None, reason: DeclineReason::UserNotFound },
                r#"["call:declined",{"reason":"user_not_found"}]"#.to_owned(),
            ),
            (
                ServerEvent::CallStart {
                    room,
                    agreed_seconds: 250,
                    initiator: true,
                    peer: user,
                    peer_name: "Bo\"".into(),
                },
                format!(
                    r#"["call:start",{{"roomId":"{ID}","agreedSeconds":250,"isInitiator":true,"peerUser":{{"userId":"{ID}","name":"Bo\""}}}}]"#
                ),
            ),
            (
                ServerEvent::Signal { kind: SignalKind::Ice, payload: Bytes::from_static(b"{ \"a\":1 }"), from: user },
                format!(r#"["rtc:ice",{{"candidate":{{ "a":1 }},"from":"{ID}"}}]"#),
            ),
            (
                ServerEvent::Chat { from: user, text: "hi".into(), at: Time(5) },
                format!(r#"["room:chat",{{"from":"{ID}","text":"hi","timestamp":5,"type":"message"}}]"#),
            ),
        ];
        for (event, json) in cases {
            assert_eq!(event.encode(), json);
            let _: serde_json::Value = serde_json::from_slice(&event.encode()).unwrap();
        }
    }
}

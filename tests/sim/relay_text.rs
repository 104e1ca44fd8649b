//! What participants say in calls, made so that loss, repetition, reordering and change can be seen.

use duet::base::{CallId, UserId};
use serde::Deserialize;

/// Who said it where, on which connection, and as the how-manieth.
#[derive(Deserialize, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Mark {
    pub call: CallId,
    pub user: UserId,
    pub pipe: usize,
    pub number: u64,
}

/// A signalling payload: JSON with odd spacing, of many sizes.
pub fn payload(call: CallId, user: UserId, pipe: usize, number: u64) -> String {
    let filler = "v=0\\r\\n".repeat((number as usize * 13 + pipe * 7) % 90);
    format!(r#"{{ "call":"{call}" ,"user":"{user}","pipe": {pipe},"number":{number},  "sdp":"{filler}" }}"#)
}

/// The mark of a payload that is still what was sent.
pub fn read_payload(text: &str) -> Option<Mark> {
    let mark: Mark = serde_json::from_str(text).ok()?;
    (payload(mark.call, mark.user, mark.pipe, mark.number) == text).then_some(mark)
}

/// A line of chat.
pub fn line(call: CallId, user: UserId, pipe: usize, number: u64) -> String {
    format!("{call} {user} {pipe} {number}")
}

/// The mark of a line of chat.
pub fn read_line(text: &str) -> Option<Mark> {
    let mut words = text.split(' ');
    let (call, user) = (CallId::decode(words.next()?)?, UserId::decode(words.next()?)?);
    let (pipe, number) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    words.next().is_none().then_some(Mark { call, user, pipe, number })
}

/// The call whose session id this is.
pub fn call_of(session: &str) -> Option<CallId> {
    CallId::decode(session.strip_suffix("-disconnected").unwrap_or(session))
}

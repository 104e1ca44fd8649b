//! What the two of a call do once it has started, and when; and what they say.

use crate::clock::{MILLISECOND, Nanos};
use crate::net::stamp;

/// Candidates of ICE that each side sends.
const CANDIDATES: usize = 10;
/// Lines of chat, the sides taking turns.
const LINES: usize = 4;
/// Bytes of an offer, and of an answer.
const SDP_BYTES: usize = 4_000;
/// What is to arrive of one call besides: the invite, and its start and its end told to both.
pub const CONTROLS: u64 = 1 + 2 + 2;
/// What is to arrive of what its sides say: offer and answer, candidates, lines.
pub const RELAYS: u64 = 2 + 2 * CANDIDATES as u64 + LINES as u64;
/// Stands before the time at which something was meant to be sent.
pub const MARK: &str = "#t=";

/// After the start.
const OFFER_AFTER: Nanos = 200 * MILLISECOND;
const ANSWER_AFTER: Nanos = 400 * MILLISECOND;
/// After the side's description.
const CANDIDATES_AFTER: Nanos = 20 * MILLISECOND;
const CANDIDATES_APART: Nanos = 40 * MILLISECOND;

/// Makes numbers look as if they were drawn.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// How fast people live.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Between two looks at the queue.
    pub poll: Nanos,
    /// Length of a call.
    pub call: Nanos,
}

/// Who of a call, as a place in its sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Caller,
    Callee,
}

/// One thing that a side does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Offer,
    Answer,
    Candidate,
    /// Of chat.
    Line,
    End,
}

/// Something done so long after the start.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    pub after: Nanos,
    pub side: Side,
    pub act: Act,
}

/// The steps of a call of this length, in order. Its lines are spread over it evenly.
pub fn steps(length: Nanos) -> Vec<Step> {
    let mut steps = vec![Step { after: length, side: Side::Caller, act: Act::End }];
    for (side, act, after) in [(Side::Caller, Act::Offer, OFFER_AFTER), (Side::Callee, Act::Answer, ANSWER_AFTER)] {
        steps.push(Step { after, side, act });
        let candidates = (0..CANDIDATES as Nanos).map(|number| Step {
            after: after + CANDIDATES_AFTER + number * CANDIDATES_APART,
            side,
            act: Act::Candidate,
        });
        steps.extend(candidates);
    }
    for number in 0..LINES {
        let side = if number % 2 == 0 { Side::Caller } else { Side::Callee };
        let after = length * (number as Nanos + 1) / (LINES as Nanos + 1);
        steps.push(Step { after, side, act: Act::Line });
    }
    steps.sort_by_key(|step| step.after);
    assert_eq!(steps.last().map(|step| step.act), Some(Act::End), "a call is long enough for all that is in it");
    steps
}

/// Name and payload of the event that does it in this room, meant to be sent then.
pub fn event(act: Act, room: &str, intended: Nanos) -> (&'static str, String) {
    let stamp = stamp(intended);
    let stamp = std::str::from_utf8(&stamp).expect("a stamp is digits");
    let room = format!("{{\"roomId\":\"{room}\"");
    match act {
        Act::Offer => ("rtc:offer", format!("{room},\"offer\":{}}}", description("offer", stamp))),
        Act::Answer => ("rtc:answer", format!("{room},\"answer\":{}}}", description("answer", stamp))),
        Act::Candidate => {
            let candidate = format!(
                "candidate:842163049 1 udp 1677729535 203.0.113.77 46154 typ srflx raddr 192.168.1.7 rport 46154 \
                 generation 0 ufrag EsAw network-cost 999 {MARK}{stamp}"
            );
            let place = "\"sdpMid\":\"0\",\"sdpMLineIndex\":0";
            ("rtc:ice", format!("{room},\"candidate\":{{\"candidate\":\"{candidate}\",{place}}}}}"))
        }
        Act::Line => ("room:chat", format!("{room},\"text\":\"Shall we meet again tomorrow? {MARK}{stamp}\"}}")),
        Act::End => ("call:end", format!("{room}}}")),
    }
}

/// A session description of `SDP_BYTES`, in lines as browsers write them.
fn description(kind: &str, stamp: &str) -> String {
    let mut sdp = format!("v=0\\r\\no=- {MARK}{stamp} 2 IN IP4 127.0.0.1\\r\\ns=-\\r\\nt=0 0\\r\\n");
    for number in 35_u32.. {
        let payload = 96 + number % 32;
        let line = match number % 5 {
            0 => format!("a=rtpmap:{payload} H264/90000\\r\\n"),
            1 => format!("a=rtcp-fb:{payload} transport-cc\\r\\n"),
            2 => format!("a=fmtp:{payload} packetization-mode=1;profile-level-id={:06x}\\r\\n", number * 2_654_435),
            3 => format!("a=extmap:{number} urn:ietf:params:rtp-hdrext:sdes:mid\\r\\n"),
            _ => format!("a=ssrc:{} cname:{:016x}\\r\\n", number * 40_503, u64::from(number).wrapping_mul(GOLDEN)),
        };
        if sdp.len() + line.len() > SDP_BYTES {
            break;
        }
        sdp.push_str(&line);
    }
    format!("{{\"type\":\"{kind}\",\"sdp\":\"{sdp}\"}}")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::clock::SECOND;
    use crate::net::stamp_after;

    #[test]
    fn a_call_says_as_much_as_it_promises_and_ends_last() {
        let steps = steps(10 * SECOND);
        assert_eq!(steps.len() as u64, RELAYS + 1);
        assert!(steps.iter().rev().skip(1).all(|step| step.after < 10 * SECOND));
    }

    #[test]
    fn every_event_is_json_with_its_stamp() {
        for act in [Act::Offer, Act::Answer, Act::Candidate, Act::Line] {
            let (name, payload) = event(act, "a", 12_345);
            assert_eq!(serde_json::from_str::<Value>(&payload).unwrap()["roomId"], "a", "{name}");
            assert_eq!(stamp_after(payload.as_bytes(), MARK.as_bytes()), Some(12_345), "{name}");
        }
        let (_, offer) = event(Act::Offer, "a", 0);
        assert!((SDP_BYTES - 100..SDP_BYTES + 100).contains(&offer.len()), "{}", offer.len());
    }
}

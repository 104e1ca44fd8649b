//! Engine.IO: payloads fall into packets and nothing gets lost, binary packets survive base64, packets decode to what
//! they say.
#![no_main]

use duet::wire::engineio::{self, Packet, SEPARATOR};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;

fuzz_target!(|data: &[u8]| {
    let packets = split(data);
    let mut joined = packets.join(&SEPARATOR);
    if joined.len() < data.len() {
        joined.push(SEPARATOR);
    }
    assert_eq!(joined, data, "a payload is its packets and the separators between them");
    for packet in packets {
        assert!(!packet.contains(&SEPARATOR));
        let frame = engineio::encode_frame_of_payload(packet);
        assert!(frame[0] == 0x82 || frame.ends_with(packet));
        if let Ok(text) = std::str::from_utf8(packet) {
            check_packet(text);
        }
    }
    if let Some(decoded) = engineio::decode_base64(data) {
        assert_eq!(engineio::encode_binary_in_payload(&decoded).as_bytes()[1..], *data, "one form for each content");
    }
    let encoded = engineio::encode_binary_in_payload(data);
    assert_eq!(Packet::decode_in_payload(&encoded), Some(Packet::Binary(data.to_vec())));
    check_open(data);
});

fn split(mut rest: &[u8]) -> Vec<&[u8]> {
    let mut packets = Vec::new();
    while !rest.is_empty() {
        let (packet, used) = engineio::first_packet(rest);
        assert!(used > packet.len() || used == rest.len());
        packets.push(packet);
        rest = &rest[used..];
    }
    packets
}

fn check_packet(text: &str) {
    let (alone, in_payload) = (Packet::decode(text), Packet::decode_in_payload(text));
    if !text.starts_with('b') {
        assert_eq!(alone, in_payload);
    }
    let again = match &in_payload {
        None => return,
        Some(Packet::Binary(bytes)) => engineio::encode_binary_in_payload(bytes),
        Some(Packet::Message(text)) => [engineio::MESSAGE, text].concat(),
        Some(Packet::Close) => engineio::CLOSE.to_owned(),
        Some(Packet::Ping) => engineio::PING.to_owned(),
        Some(Packet::Noop) => engineio::NOOP.to_owned(),
        Some(Packet::Upgrade) => engineio::UPGRADE.to_owned(),
        Some(Packet::Open) => "0".to_owned(),
        Some(Packet::Pong) => "3".to_owned(),
    };
    assert_eq!(Packet::decode_in_payload(&again), in_payload);
}

/// The open packet is JSON whatever the settings.
fn check_open(data: &[u8]) {
    let number = data.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let open = engineio::encode_open("sid", number % 2 == 0, number, number / 3, number as usize / 5);
    assert_eq!(Packet::decode(&open), Some(Packet::Open));
    assert!(serde_json::from_str::<IgnoredAny>(&open[1..]).is_ok(), "{open}");
}

//! STUN's smallest question and its answer: a binding request, by which a server shows that it lives (RFC 8489).
//!
//! Stateless, like all codecs. Bound: what is decoded is one datagram, or one message of a stream. Not here: credentials
//! and integrity, which a binding request needs not, and everything of TURN.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Length of a request, and of the head of every message, bytes (RFC 8489 5).
pub const HEAD_BYTES: usize = 20;

const REQUEST: u16 = 0x0001;
const SUCCESS: u16 = 0x0101;
const REFUSAL: u16 = 0x0111;
const COOKIE: u32 = 0x2112_A442;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;

/// By which an answer is known to be one.
pub type Transaction = [u8; 12];

/// What a server said to a binding request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The address that the request came from, if the server told.
    Bound(Option<SocketAddr>),
    /// It answers, but not this.
    Refused,
}

/// A binding request.
pub fn encode_request(transaction: Transaction) -> [u8; HEAD_BYTES] {
    let mut message = [0; HEAD_BYTES];
    message[..2].copy_from_slice(&REQUEST.to_be_bytes());
    message[4..8].copy_from_slice(&COOKIE.to_be_bytes());
    message[8..].copy_from_slice(&transaction);
    message
}

/// The answer to the request of `transaction`; `None` if these bytes are none.
pub fn decode_answer(message: &[u8], transaction: Transaction) -> Option<Answer> {
    let (head, body) = message.split_at_checked(HEAD_BYTES)?;
    let is_ours = head[4..8] == COOKIE.to_be_bytes() && head[8..] == transaction;
    let body = body.get(..usize::from(word(head, 2)?))?;
    match word(head, 0)? {
        SUCCESS if is_ours => Some(Answer::Bound(mapped(body, transaction))),
        REFUSAL if is_ours => Some(Answer::Refused),
        _ => None,
    }
}

/// The address among the attributes (RFC 8489 14.2).
fn mapped(mut attributes: &[u8], transaction: Transaction) -> Option<SocketAddr> {
    loop {
        let length = usize::from(word(attributes, 2)?);
        let value = attributes.get(4..4 + length)?;
        if word(attributes, 0)? == XOR_MAPPED_ADDRESS {
            return address(value, transaction);
        }
        attributes = attributes.get(4 + length.next_multiple_of(4)..)?;
    }
}

fn address(value: &[u8], transaction: Transaction) -> Option<SocketAddr> {
    let port = word(value, 2)? ^ (COOKIE >> 16) as u16;
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&COOKIE.to_be_bytes());
    mask[4..].copy_from_slice(&transaction);
    let masked = value.get(4..)?;
    let plain = |index: usize| masked[index] ^ mask[index];
    let ip = match (*value.get(1)?, masked.len()) {
        (1, 4) => IpAddr::V4(Ipv4Addr::from(std::array::from_fn::<u8, 4, _>(plain))),
        (2, 16) => IpAddr::V6(Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(plain))),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRANSACTION: Transaction = [0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae];

    /// RFC 5769 2.2: an attribute before the address, and two behind it.
    const ANSWER: [u8; 80] = [
        0x01, 0x01, 0x00, 0x3c, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87,
        0xdf, 0xae, 0x80, 0x22, 0x00, 0x0b, 0x74, 0x65, 0x73, 0x74, 0x20, 0x76, 0x65, 0x63, 0x74, 0x6f, 0x72, 0x20,
        0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43, 0x00, 0x08, 0x00, 0x14, 0x2b, 0x91,
        0xf5, 0x99, 0xfd, 0x9e, 0x90, 0xc3, 0x8c, 0x74, 0x89, 0xf9, 0x2a, 0xf9, 0xba, 0x53, 0xf0, 0x6b, 0xe7, 0xd7,
        0x80, 0x28, 0x00, 0x04, 0xc0, 0x7d, 0x4c, 0x96,
    ];

    #[test]
    fn the_test_vector_of_the_standard_is_read() {
        let address = "192.0.2.1:32853".parse().unwrap();
        assert_eq!(decode_answer(&ANSWER, TRANSACTION), Some(Answer::Bound(Some(address))));
    }

    #[test]
    fn an_address_of_version_6_is_unmasked_by_the_transaction() {
        // RFC 5769 2.3: the value of its XOR-MAPPED-ADDRESS.
        let value = [
            0x00, 0x02, 0xa1, 0x47, 0x01, 0x13, 0xa9, 0xfa, 0xa5, 0xd3, 0xf1, 0x79, 0xbc, 0x25, 0xf4, 0xb5, 0xbe, 0xd2,
            0xb9, 0xd9,
        ];
        let expected = "[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap();
        assert_eq!(address(&value, TRANSACTION), Some(expected));
    }

    #[test]
    fn what_answers_nothing_of_ours_is_none() {
        assert_eq!(decode_answer(&ANSWER, [0; 12]), None);
        assert_eq!(decode_answer(&encode_request(TRANSACTION), TRANSACTION), None);
        assert_eq!(decode_answer(b"HTTP/1.1 400 Bad Request", TRANSACTION), None);
        for length in 0..ANSWER.len() {
            assert_eq!(decode_answer(&ANSWER[..length], TRANSACTION), None, "cut after {length} bytes");
        }
        let mut refusal = encode_request(TRANSACTION);
        refusal[..2].copy_from_slice(&REFUSAL.to_be_bytes());
        assert_eq!(decode_answer(&refusal, TRANSACTION), Some(Answer::Refused));
    }
}

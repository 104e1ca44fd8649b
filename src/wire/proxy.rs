//! The PROXY protocol, versions 1 and 2: what a proxy that only passes bytes on says first, and for whom it speaks.
//!
//! Section numbers are those of proxy-protocol.txt, the specification by HAProxy. Stateless. Bound: a line of
//! [`LINE_BYTES_MAX`], or a head and a block of [`PROXY_BLOCK_BYTES_MAX`], of which only the client's address, and whether he
//! came by TLS, is looked at; more is refused as soon as its length is known. Not here: from whom a header is taken.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::base::limits::PROXY_BLOCK_BYTES_MAX;

/// Longest header of version 1 with its CRLF (2.1).
const LINE_BYTES_MAX: usize = 107;
/// What comes before the block of version 2.
const HEAD_BYTES: usize = 16;
/// How version 2 begins.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The header of a connection that is its sender's own, such as a health check.
pub const LOCAL: [u8; HEAD_BYTES] = *b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// The addition that tells of TLS, and the bit of its first byte that says so (2.2, `PP2_TYPE_SSL`).
const TLS: u8 = 0x20;
/// See [`TLS`].
const IS_TLS: u8 = 0x01;

/// For whom the sender of a header speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Speaker {
    /// For itself.
    Sender,
    /// For somebody of whom it cannot say more, or nothing that has an IP address and speaks TCP.
    Somebody,
    Client(IpAddr),
}

/// The bytes are no header, or a longer one than is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

/// Reads a header off the start of `bytes`, and says how many are its own; `None` while it may become one.
///
/// # Errors
/// It is none, whatever follows.
pub fn decode(bytes: &[u8]) -> Result<Option<(Speaker, usize)>, Malformed> {
    match bytes.first() {
        None => Ok(None),
        Some(b'P') => decode_line(bytes),
        Some(_) => decode_block(bytes),
    }
}

/// Version 1 (2.1): `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443`, and CRLF.
fn decode_line(bytes: &[u8]) -> Result<Option<(Speaker, usize)>, Malformed> {
    const START: &[u8] = b"PROXY ";
    if !START.starts_with(&bytes[..bytes.len().min(START.len())]) {
        return Err(Malformed);
    }
    let line = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
        return if line.len() < LINE_BYTES_MAX { Ok(None) } else { Err(Malformed) };
    };
    let text = line[START.len()..end].strip_suffix(b"\r").filter(|text| !text.contains(&b'\r'));
    let text = text.and_then(|text| str::from_utf8(text).ok()).ok_or(Malformed)?;
    let mut words = text.split(' ');
    let speaker = match words.next() {
        // Whatever else there is, is to be ignored.
        Some("UNKNOWN") => Some(Speaker::Somebody),
        Some("TCP4") => client::<Ipv4Addr>(words),
        Some("TCP6") => client::<Ipv6Addr>(words),
        _ => None,
    };
    speaker.map(|speaker| Some((speaker, end + 1))).ok_or(Malformed)
}

/// Addresses and ports of both sides, and nothing more.
fn client<'a, A: std::str::FromStr + Into<IpAddr>>(mut words: impl Iterator<Item = &'a str>) -> Option<Speaker> {
    let address = |text: &str| text.parse::<A>().ok().map(Into::into);
    let (source, _) = (address(words.next()?)?, address(words.next()?)?);
    (is_port(words.next()?) && is_port(words.next()?) && words.next().is_none())
        .then_some(Speaker::Client(source.to_canonical()))
}

/// A number without zeroes before it.
fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|port| port.to_string() == text)
}

/// Version 2 (2.2).
fn decode_block(bytes: &[u8]) -> Result<Option<(Speaker, usize)>, Malformed> {
    if !SIGNATURE.starts_with(&bytes[..bytes.len().min(SIGNATURE.len())]) {
        return Err(Malformed);
    }
    let Some(head) = bytes.get(..HEAD_BYTES) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    // With the command LOCAL the family says nothing.
    let least = match (head[12], head[13] >> 4, head[13] & 0x0f) {
        (0x20, ..) | (0x21, 0, 0..=2) | (0x21, 1..=3, 0) => 0,
        (0x21, 1, 1 | 2) => 12,
        (0x21, 2, 1 | 2) => 36,
        (0x21, 3, 1 | 2) => 216,
        _ => return Err(Malformed),
    };
    if !(least..=PROXY_BLOCK_BYTES_MAX).contains(&length) {
        return Err(Malformed);
    }
    let used = HEAD_BYTES + length;
    let Some(block) = bytes.get(HEAD_BYTES..used) else { return Ok(None) };
    let speaker = match (head[12], head[13]) {
        (0x20, _) => Speaker::Sender,
        (_, 0x11) => block.first_chunk::<4>().map_or(Speaker::Somebody, |source| Speaker::Client((*source).into())),
        (_, 0x21) => block
            .first_chunk::<16>()
            .map_or(Speaker::Somebody, |source| Speaker::Client(IpAddr::from(*source).to_canonical())),
        _ => Speaker::Somebody,
    };
    Ok(Some((speaker, used)))
}

/// Whether this header, a whole one, says that its client came by TLS. Only version 2 can.
pub fn is_secure(header: &[u8]) -> bool {
    let addresses = match header.get(SIGNATURE.len()..HEAD_BYTES) {
        Some([0x21, 0x11, ..]) => 12,
        Some([0x21, 0x21, ..]) => 36,
        _ => return false,
    };
    let mut additions = header.get(HEAD_BYTES + addresses..).unwrap_or_default();
    while let [kind, high, low, rest @ ..] = additions {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some((value, others)) = rest.split_at_checked(length) else { return false };
        if *kind == TLS {
            return value.first().is_some_and(|client| client & IS_TLS != 0);
        }
        additions = others;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of version 2 with this command, family and block.
    fn block(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend((block.len() as u16).to_be_bytes());
        bytes.extend(block);
        bytes
    }

    fn addresses(source: &str, target: &str) -> Vec<u8> {
        let octets = |text: &str| match text.parse().unwrap() {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        [octets(source), octets(target), vec![0xdc, 0x04, 0x01, 0xbb]].concat()
    }

    fn client(text: &str) -> Speaker {
        Speaker::Client(text.parse().unwrap())
    }

    /// What becomes of a header that a request follows, whole and cut anywhere.
    fn read(header: &[u8]) -> Result<Speaker, Malformed> {
        let bytes = [header, b"GET / HTTP/1.1\r\n"].concat();
        for cut in 0..header.len() {
            let early = decode(&bytes[..cut]);
            assert!(early == Ok(None) || early == Err(Malformed), "{cut}: {early:?}");
            assert!(early == Ok(None) || decode(&bytes) == Err(Malformed), "{cut}: refused too early");
        }
        let (speaker, used) = decode(&bytes)?.expect("a whole header");
        assert_eq!(used, header.len());
        Ok(speaker)
    }

    #[test]
    fn the_address_in_a_header_is_the_clients() {
        let v4 = addresses("192.0.2.1", "198.51.100.1");
        let v6 = addresses("2001:db8::1", "2001:db8::2");
        assert_eq!(read(&block(0x21, 0x11, &v4)), Ok(client("192.0.2.1")));
        assert_eq!(read(&block(0x21, 0x21, &v6)), Ok(client("2001:db8::1")));
        assert_eq!(read(&block(0x21, 0x21, &addresses("::ffff:192.0.2.1", "::1"))), Ok(client("192.0.2.1")));
        let with_additions = [&v4[..], &[0x04, 0, 3, 1, 2, 3], b"broken"].concat();
        assert_eq!(read(&block(0x21, 0x11, &with_additions)), Ok(client("192.0.2.1")), "additions are skipped");
        for (line, expected) in [
            ("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", "192.0.2.1"),
            ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255"),
            ("PROXY TCP6 2001:DB8::1 ::1 0 1\r\n", "2001:db8::1"),
        ] {
            assert_eq!(read(line.as_bytes()), Ok(client(expected)), "{line}");
        }
    }

    #[test]
    fn who_came_by_tls_is_told_from_who_did_not() {
        const WITH: &[u8] = &[TLS, 0, 5, 1, 0, 0, 0, 0];
        const WITHOUT: &[u8] = &[TLS, 0, 5, 6, 0, 0, 0, 0];
        const OTHER: &[u8] = &[0x04, 0, 2, TLS, 0];
        let says = |family: u8, addresses: &[u8], additions: &[&[u8]]| {
            is_secure(&block(0x21, family, &[addresses, &additions.concat()].concat()))
        };
        let (v4, v6) = (addresses("192.0.2.1", "198.51.100.1"), addresses("2001:db8::1", "2001:db8::2"));
        assert!(says(0x11, &v4, &[WITH]) && says(0x21, &v6, &[OTHER, WITH, OTHER]));
        for additions in [&[][..], &[WITHOUT], &[OTHER], &[OTHER, &WITH[..7]], &[&[TLS, 0, 0]], &[&[TLS, 0]]] {
            assert!(!says(0x11, &v4, additions), "{additions:?}");
        }
        assert!(!is_secure(&block(0x20, 0x11, &[&v4[..], WITH].concat())), "LOCAL speaks for nobody");
        assert!(!is_secure(b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n"));
    }

    #[test]
    fn who_does_not_speak_for_a_client_says_so() {
        assert_eq!(read(&LOCAL), Ok(Speaker::Sender));
        assert_eq!(read(&block(0x20, 0x11, &addresses("192.0.2.1", "198.51.100.1"))), Ok(Speaker::Sender));
        assert_eq!(read(&block(0x20, 0xff, &[1, 2, 3])), Ok(Speaker::Sender), "of LOCAL the rest says nothing");
        for (family, length) in [(0x00, 0), (0x01, 7), (0x10, 0), (0x12, 12), (0x22, 36), (0x31, 216), (0x32, 216)] {
            assert_eq!(read(&block(0x21, family, &vec![0; length])), Ok(Speaker::Somebody), "{family:#x}");
        }
        for line in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN ffff::1 whatever 65535 x\r\n"] {
            assert_eq!(read(line.as_bytes()), Ok(Speaker::Somebody), "{line}");
        }
    }

    #[test]
    fn a_malformed_block_is_refused() {
        let v4 = addresses("192.0.2.1", "198.51.100.1");
        for (command, family, length) in [
            (0x11, 0x11, 12),
            (0x31, 0x11, 12),
            (0x22, 0x11, 12),
            (0x2f, 0x11, 12),
            (0x21, 0x13, 12),
            (0x21, 0x41, 12),
            (0x21, 0xf1, 12),
            (0x21, 0x11, 11),
            (0x21, 0x21, 12),
            (0x21, 0x31, 12),
            (0x21, 0x11, 0),
        ] {
            assert_eq!(
                read(&block(command, family, &v4[..length])),
                Err(Malformed),
                "{command:#x} {family:#x} {length}"
            );
        }
        let mut other = block(0x21, 0x11, &v4);
        other[11] = b'\r';
        assert_eq!(read(&other), Err(Malformed));
    }

    #[test]
    fn a_header_over_the_bound_is_refused_once_its_length_is_known() {
        let most = block(0x21, 0x11, &[0; PROXY_BLOCK_BYTES_MAX]);
        assert_eq!(read(&most), Ok(client("0.0.0.0")));
        let more = block(0x21, 0x11, &[0; PROXY_BLOCK_BYTES_MAX + 1]);
        assert_eq!((decode(&more[..15]), decode(&more[..16])), (Ok(None), Err(Malformed)));
        assert_eq!(decode(&block(0x20, 0, &[0; 65_535])[..16]), Err(Malformed));
        let line = |filler: usize| format!("PROXY UNKNOWN {}\r\n", "f".repeat(filler));
        assert_eq!(read(line(LINE_BYTES_MAX - 16).as_bytes()), Ok(Speaker::Somebody));
        assert_eq!(decode(line(LINE_BYTES_MAX - 15).as_bytes()), Err(Malformed));
        assert_eq!(decode(&line(200).as_bytes()[..LINE_BYTES_MAX]), Err(Malformed));
    }

    #[test]
    fn a_malformed_line_is_refused() {
        for line in [
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 1\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 \r\n",
            "PROXY TCP4  192.0.2.1 198.51.100.1 56324 443\r\n",
            "PROXY TCP4 192.0.2.01 198.51.100.1 56324 443\r\n",
            "PROXY TCP4 192.0.2.256 198.51.100.1 56324 443\r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::2 56324 443\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.1 56324 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 056324 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 +1 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\n",
            "PROXY TCP4 192.0.2.1\r198.51.100.1 56324 443\r\n",
            "PROXY UNKNOWN \r \r\n",
            "PROXY TCP5 192.0.2.1 198.51.100.1 56324 443\r\n",
            "PROXY \r\n",
            "PROXY\r\n",
            "PROXYTCP4 192.0.2.1 198.51.100.1 56324 443\r\n",
        ] {
            assert_eq!(read(line.as_bytes()), Err(Malformed), "{line:?}");
        }
    }

    #[test]
    fn other_protocols_are_told_by_their_first_bytes() {
        for other in ["G", "PU", "PRI * HTTP/2.0", "\x16\x03\x01", "\r\n\r\nG", "proxy "] {
            assert_eq!(decode(other.as_bytes()), Err(Malformed), "{other:?}");
        }
        assert_eq!(decode(b""), Ok(None));
    }
}

//! PROXY headers: what is read off the start of a connection does not depend on how its bytes come, stays within the bound,
//! and is what an independent reading of the same bytes says.
#![no_main]

use std::net::IpAddr;

use duet::base::limits::PROXY_BLOCK_BYTES_MAX;
use duet::wire::proxy::{Malformed, Speaker, decode, is_secure};
use libfuzzer_sys::fuzz_target;

const HEAD_BYTES: usize = 16;
const LINE_BYTES_MAX: usize = 107;

fuzz_target!(|data: &[u8]| {
    let whole = decode(data);
    for cut in 0..data.len().min(HEAD_BYTES + PROXY_BLOCK_BYTES_MAX) {
        match decode(&data[..cut]) {
            Ok(None) => {}
            decided => assert_eq!(decided, whole, "what was decided after {cut} bytes changes"),
        }
    }
    match whole {
        Ok(None) => assert!(data.len() < HEAD_BYTES + PROXY_BLOCK_BYTES_MAX, "it waits for more than the bound"),
        Ok(Some((speaker, used))) => {
            assert!(used <= data.len());
            let header = &data[..used];
            assert_eq!(decode(header), whole, "what follows has no say");
            assert!(!is_secure(header) || matches!(speaker, Speaker::Client(_)), "nobody came by TLS");
            let is_line = header.starts_with(b"PROXY ");
            assert_eq!(Some(speaker), if is_line { read_line(header) } else { read_block(header) });
            assert!(header.len() <= if is_line { LINE_BYTES_MAX } else { HEAD_BYTES + PROXY_BLOCK_BYTES_MAX });
        }
        Err(Malformed) => {}
    }
});

fn read_line(header: &[u8]) -> Option<Speaker> {
    let line = std::str::from_utf8(header).ok()?.strip_suffix("\r\n")?;
    assert!(!line.contains(['\r', '\n']));
    let words: Vec<_> = line.split(' ').collect();
    if words[1] == "UNKNOWN" {
        return Some(Speaker::Somebody);
    }
    let [_, family, source, target, ports @ ..] = words.as_slice() else { return None };
    assert!(ports.len() == 2 && ports.iter().all(|port| port.parse::<u16>().is_ok()));
    let addresses: Vec<IpAddr> = [source, target].iter().map(|text| text.parse().expect("an address")).collect();
    assert!(addresses.iter().all(|address| address.is_ipv4() == (*family == "TCP4")));
    Some(Speaker::Client(addresses[0].to_canonical()))
}

fn read_block(header: &[u8]) -> Option<Speaker> {
    let (head, block) = header.split_at(HEAD_BYTES);
    assert!(head.starts_with(b"\r\n\r\n\0\r\nQUIT\n"));
    assert_eq!(usize::from(head[14]) << 8 | usize::from(head[15]), block.len());
    let source: Option<IpAddr> = match head[12..14] {
        [0x20, _] => return Some(Speaker::Sender),
        [0x21, 0x11] => Some(<[u8; 4]>::try_from(&block[..4]).ok()?.into()),
        [0x21, 0x21] => Some(<[u8; 16]>::try_from(&block[..16]).ok()?.into()),
        _ => None,
    };
    Some(source.map_or(Speaker::Somebody, |address| Speaker::Client(address.to_canonical())))
}

//! The codecs by themselves: what is encoded decodes to itself, and the published examples come out byte for byte.

use duet::base::{Random, Time, Token, UserId};
use duet::wire::deflate::Policy;
use duet::wire::http::{Body, Framing, Reply, decode_head, encode_date, encode_response, head_length};
use duet::wire::http::{Method, Request, Response};
use duet::wire::websocket::{
    CloseCode, Control, Data, EncodedHeader, OpCode, apply_mask, decode_close, decode_frame, encode_close, encode_text,
};
use duet::wire::{
    engineio,
    forwarded::{AddressHeader, client_address},
    socketio, upgrade,
};

const TEXT: OpCode = OpCode::Data(Data::Text);

fn request(head: &str) -> Request {
    assert_eq!(head_length(head.as_bytes(), 0), Ok(Some(head.len())));
    decode_head(head.as_bytes()).unwrap().request
}

/// Server frames are unmasked; as a client would send them, they are masked.
fn masked(frame: &[u8], header_length: usize, mask: [u8; 4]) -> Vec<u8> {
    let mut out = frame[..header_length].to_vec();
    out[1] |= 0x80;
    out.extend_from_slice(&mask);
    let mut payload = frame[header_length..].to_vec();
    apply_mask(&mut payload, mask);
    out.extend_from_slice(&payload);
    out
}

#[test]
fn a_frame_of_any_length_round_trips() {
    let mut random = Random::from_seed(1);
    for length in (0..300).chain([65_535, 65_536, 70_001]) {
        let payload: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
        let header_length = EncodedHeader::new(TEXT, length).as_bytes().len();
        let mut bytes = masked(&encode_text(&[&payload]), header_length, random.bytes());
        let whole = bytes.len();
        bytes.extend_from_slice(b"next");
        let frame = decode_frame(&mut bytes, 100_000, false).unwrap().unwrap();
        assert_eq!((frame.opcode, frame.is_final, frame.length), (TEXT, true, whole));
        assert_eq!(frame.payload, payload);
    }
}

#[test]
fn the_masked_example_of_rfc_6455_5_7_decodes() {
    let mut bytes = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(decode_frame(&mut bytes, 5, false).unwrap().unwrap().payload, b"Hello");
    assert_eq!(decode_frame(&mut bytes[..10], 5, false).unwrap().map(|frame| frame.length), None);
}

#[test]
fn an_unfinished_frame_is_left_as_it_is() {
    let mut bytes = masked(&encode_text(&[b"payload"]), 2, [1, 2, 3, 4]);
    let whole = bytes.clone();
    for length in 0..bytes.len() {
        assert!(decode_frame(&mut bytes[..length], 100, false).unwrap().is_none(), "{length}");
        assert_eq!(bytes, whole);
    }
}

#[test]
fn a_close_payload_is_empty_or_a_code_with_a_utf_8_reason() {
    assert_eq!(decode_close(b""), Ok(None));
    assert_eq!(decode_close(b"\x03\xe8bye"), Ok(Some(CloseCode::Normal)));
    assert_eq!(decode_close(b"\x03"), Err(CloseCode::Protocol));
    assert_eq!(decode_close(b"\x03\xe8\xff"), Err(CloseCode::Invalid));
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
        assert_eq!(decode_close(&code.to_be_bytes()), Err(CloseCode::Protocol), "{code}");
    }
    assert_eq!(&encode_close(Some(CloseCode::Away))[..], b"\x88\x02\x03\xe9");
    assert_eq!(&encode_close(None)[..], [0x80 | u8::from(OpCode::Control(Control::Close)), 0]);
}

#[test]
fn only_spaces_and_tabs_vanish_around_values() {
    for space in ['\u{85}', '\u{a0}', '\u{2003}', '\u{3000}'] {
        for (field, status) in [
            ("Transfer-Encoding: ?chunked", 501),
            ("Transfer-Encoding: chunked?", 501),
            ("Content-Length: ?3", 400),
            ("Content-Length: 3?", 400),
            ("Host: ?x", 400),
            ("Expect: 100-continue?", 417),
        ] {
            let host = if field.starts_with("Host") { "" } else { "Host: x\r\n" };
            let head = format!("POST / HTTP/1.1\r\n{host}{}\r\n\r\n", field.replace('?', &space.to_string()));
            assert_eq!(decode_head(head.as_bytes()).map_err(|error| error.status).err(), Some(status), "{head:?}");
        }
    }
    let head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \t chunked \t\r\n\r\n";
    assert_eq!(decode_head(head.as_bytes()).unwrap().framing, Framing::Chunked);
}

#[test]
fn a_head_gives_its_parts() {
    let request = request("GET /room/queue?a=1&b=? HTTP/1.1\r\nHost: x\r\nX-A:  one \r\nx-a: two\r\n\r\n");
    assert_eq!(
        (request.method, request.path.as_str(), request.query.as_str()),
        (Method::Get, "/room/queue", "a=1&b=?")
    );
    assert_eq!(request.header("x-a"), Some("one"));
    assert_eq!(request.headers.len(), 3);
}

#[test]
fn targets_are_reduced_to_path_and_query() {
    for (method, target, path, query) in [
        ("GET", "/", "/", ""),
        ("GET", "/a//b?c?d", "/a//b", "c?d"),
        ("GET", "http://example.com", "/", ""),
        ("GET", "HTTPS://example.com:8080?q", "/", "q"),
        ("GET", "http://[2001:db8::1]/a?q", "/a", "q"),
        ("OPTIONS", "*", "/", ""),
        ("GET", "/a?u=http://b/c", "/a", "u=http://b/c"),
    ] {
        let request = request(&format!("{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!((request.path.as_str(), request.query.as_str()), (path, query), "{target}");
    }
}

#[test]
fn keep_alive_follows_version_and_connection() {
    for (line, expected) in [
        ("HTTP/1.1\r\nHost: x\r\n", true),
        ("HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, CLOSE\r\n", false),
        ("HTTP/1.0\r\n", false),
        ("HTTP/1.0\r\nConnection: Keep-Alive\r\n", true),
        ("HTTP/1.0\r\nConnection: keep-alive, close\r\n", false),
    ] {
        let head = decode_head(format!("GET / {line}\r\n").as_bytes()).unwrap();
        assert_eq!(head.keep_alive, expected, "{line}");
    }
}

#[test]
fn a_chunked_body_decodes_at_every_split() {
    let bytes = b"5;name=\"value\"\r\nHello\r\n00d\r\n, chunk world\r\n0;last\r\nTrailer: x\r\n\r\nNEXT";
    for split in 0..bytes.len() {
        let mut body = Body::new(Framing::Chunked, 18).unwrap();
        let mut used = body.decode(&bytes[..split]).unwrap();
        used += body.decode(&bytes[used..]).unwrap();
        assert!(body.is_complete());
        assert_eq!(&bytes[used..], b"NEXT", "{split}");
        assert_eq!(body.into_bytes(), "Hello, chunk world");
    }
}

#[test]
fn dates_are_imf_fixdate() {
    for (seconds, expected) in [
        (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
        (1_709_251_199, "Thu, 29 Feb 2024 23:59:59 GMT"),
        (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"),
        (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
    ] {
        let mut text = String::new();
        encode_date(Time(seconds * 1000 + 999), &mut text);
        assert_eq!(text, expected);
    }
}

#[test]
fn a_response_carries_what_the_connection_owes() {
    let keep = Reply { is_http_11: true, keep_alive: true, without_body: false };
    let encode = |response: &Response, reply| {
        let (head, body) = encode_response(response, Time(784_111_777_000), reply);
        (String::from_utf8(head.to_vec()).unwrap(), body.len())
    };
    let date = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    let response = Response::json(200, &[1]).header("X-A", "a\r\nInjected: b");
    let json = "Content-Type: application/json; charset=utf-8\r\nContent-Length: 3\r\n";
    assert_eq!(encode(&response, keep).0, format!("HTTP/1.1 200 OK\r\n{date}{json}X-A: aInjected: b\r\n\r\n[1]"));
    assert_eq!(
        encode(&response, Reply { keep_alive: false, without_body: true, ..keep }).0,
        format!("HTTP/1.1 200 OK\r\n{date}{json}Connection: close\r\nX-A: aInjected: b\r\n\r\n")
    );
    let old = Reply { is_http_11: false, ..keep };
    assert_eq!(
        encode(&Response::empty(204), old).0,
        format!("HTTP/1.1 204 No Content\r\n{date}Connection: keep-alive\r\n\r\n")
    );
    let long = Response { body: vec![b'x'; 10_000].into(), ..Response::empty(200) };
    assert_eq!(encode(&long, keep), (format!("HTTP/1.1 200 OK\r\n{date}Content-Length: 10000\r\n\r\n"), 10_000));
}

#[test]
fn the_handshake_example_of_rfc_6455_1_3_is_answered() {
    let head = "GET /ws HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let (response, agreement) = upgrade::answer_handshake(&request(head), Policy { level: 6, context_takeover: false });
    assert_eq!(agreement, None);
    assert_eq!(response.status, 101);
    assert!(response.headers.contains(&("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned())));
}

#[test]
fn engine_io_packets_are_one_character_and_data() {
    assert_eq!(engineio::Packet::decode("42[]"), Some(engineio::Packet::Message("2[]")));
    assert_eq!(engineio::Packet::decode("3"), Some(engineio::Packet::Pong));
    for bad in ["", "7", "bAQID", "é", " 4"] {
        assert_eq!(engineio::Packet::decode(bad), None, "{bad}");
    }
    assert_eq!(
        engineio::encode_open("S", false, 25_000, 60_000, 1_000_000),
        r#"0{"sid":"S","upgrades":[],"pingInterval":25000,"pingTimeout":60000,"maxPayload":1000000}"#
    );
}

#[test]
fn socket_io_packets_give_kind_namespace_and_data() {
    use socketio::Kind;
    let decode = |text| socketio::Packet::decode(text).map(|packet| (packet.kind, packet.namespace, packet.data));
    assert_eq!(decode("0"), Some((Kind::Connect, "/", "")));
    assert_eq!(decode("0{\"a\":1}"), Some((Kind::Connect, "/", "{\"a\":1}")));
    assert_eq!(decode("0/admin,{}"), Some((Kind::Connect, "/admin", "{}")));
    assert_eq!(decode("0/admin"), Some((Kind::Connect, "/admin", "")));
    assert_eq!(decode("1/,"), Some((Kind::Disconnect, "/", "")));
    assert_eq!(decode("212[\"a\"]"), Some((Kind::Event, "/", "[\"a\"]")));
    assert_eq!(decode("2/x,7[\"/,\"]"), Some((Kind::Event, "/x", "[\"/,\"]")));
    assert_eq!(decode("30[]"), Some((Kind::Ack, "/", "[]")));
    let long = format!("0/{}", "n".repeat(256));
    assert_eq!(decode("51-[\"a\",{}]"), Some((Kind::Event, "/", "[\"a\",{}]")));
    assert_eq!(decode("610-/x,7[{}]"), Some((Kind::Ack, "/x", "[{}]")));
    let packet = socketio::Packet::decode("510-/x,7[1]").unwrap();
    assert_eq!((packet.attachments, packet.ack), (10, Some("7")));
    for bad in [
        "",
        "5",
        "511-[\"a\",{}]",
        "5-[]",
        "51[]",
        "9",
        "0[]",
        "0\"a\"",
        "1{}",
        "2",
        "2{}",
        "3",
        "21234567890123456[]",
        &long,
    ] {
        assert_eq!(decode(bad), None, "{bad}");
    }
}

#[test]
fn the_handshake_token_is_found_or_absent() {
    let mut random = Random::from_seed(4);
    let token = Token::draw(UserId::draw(&mut random), &mut random);
    let data = format!(r#"{{"other":[1],"token":"{}"}}"#, token.encode());
    assert_eq!(socketio::decode_token(&data), Some(Some(token)));
    for without in ["", "{}", r#"{"token":null}"#, r#"{"token":7}"#, r#"{"token":"x"}"#, r#"{"token":["x"]}"#] {
        assert_eq!(socketio::decode_token(without), Some(None), "{without}");
    }
    assert_eq!(socketio::decode_token("{\"token\":"), None);
}

#[test]
fn refusals_are_json_in_their_namespace() {
    assert_eq!(socketio::encode_connect_error("/", "a\"b"), r#"4{"message":"a\"b"}"#);
    assert_eq!(socketio::encode_connect_error("/n", "no"), r#"4/n,{"message":"no"}"#);
}

#[test]
fn only_trusted_proxies_may_speak_for_others() {
    let trusted = ["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
    let address = |peer: &str, lines: &[&str]| {
        let headers = lines.iter().map(|line| format!("X-Forwarded-For: {line}\r\n")).collect::<String>();
        let request = request(&format!("GET / HTTP/1.1\r\nHost: x\r\n{headers}\r\n"));
        client_address(peer.parse().unwrap(), &trusted, AddressHeader::ForwardedFor, &request).to_string()
    };
    for (peer, lines, expected) in [
        ("203.0.113.9", &["192.0.2.1"][..], "203.0.113.9"),
        ("10.0.0.1", &[], "10.0.0.1"),
        ("10.0.0.1", &["192.0.2.1"], "192.0.2.1"),
        ("10.0.0.1", &["6.6.6.6, 192.0.2.1"], "192.0.2.1"),
        ("10.0.0.1", &["6.6.6.6", "192.0.2.1, 10.9.9.9"], "192.0.2.1"),
        ("10.0.0.1", &["192.0.2.1:4711,10.0.0.2"], "192.0.2.1"),
        ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", &["192.0.2.1, unknown, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", &["192.0.2.1, "], "10.0.0.1"),
        ("::ffff:10.0.0.1", &["::ffff:192.0.2.1"], "192.0.2.1"),
        ("2001:db8::1", &["[2a00::7]:443"], "2a00::7"),
        ("2001:db8::1", &["[2a00::7]"], "2a00::7"),
        ("2001:db8::1", &["2a00::7"], "2a00::7"),
    ] {
        assert_eq!(address(peer, lines), expected, "{peer} {lines:?}");
    }
}

#[test]
fn a_real_ip_counts_from_trusted_proxies_only_and_only_if_there_is_one() {
    let trusted = ["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
    let address = |peer: &str, lines: &str| {
        let request = request(&format!("GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n"));
        client_address(peer.parse().unwrap(), &trusted, AddressHeader::RealIp, &request).to_string()
    };
    let real_ip = "X-Real-IP: 192.0.2.1\r\n";
    for (peer, lines, expected) in [
        ("10.0.0.1", real_ip, "192.0.2.1"),
        ("::ffff:10.0.0.1", real_ip, "192.0.2.1"),
        ("203.0.113.9", real_ip, "203.0.113.9"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "X-Forwarded-For: 192.0.2.1\r\n", "10.0.0.1"),
        ("10.0.0.1", "X-Real-IP: 192.0.2.1, 192.0.2.2\r\n", "10.0.0.1"),
        ("10.0.0.1", "X-Real-IP: nobody\r\n", "10.0.0.1"),
        ("10.0.0.1", "X-Real-IP: 6.6.6.6\r\nX-Real-IP: 192.0.2.1\r\n", "10.0.0.1"),
        ("10.0.0.1", "X-Real-IP: 10.0.0.2\r\n", "10.0.0.2"),
        ("2001:db8::1", "X-Real-IP: 2a00::7\r\n", "2a00::7"),
    ] {
        assert_eq!(address(peer, lines), expected, "{peer} {lines:?}");
    }
}

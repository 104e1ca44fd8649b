//! Heads and bodies of requests: nothing panics, no split changes the outcome, framing is what an independent reading
//! of the same bytes says, and what was decoded can be said again.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use duet::base::limits::HEADERS_MAX;
use duet::base::{Random, Time};
use duet::wire::deflate::Policy;
use duet::wire::encoding;
use duet::wire::forwarded::{AddressHeader, client_address};
use duet::wire::http::{
    Body, Framing, Head, HttpError, Method, Reply, Response, decode_head, encode_response, head_length,
};
use duet::wire::upgrade::{answer_handshake, decode_engine_ask, refuse_plain_open};
use duet_fuzz::{chance, pieces};
use libfuzzer_sys::fuzz_target;

const BODY_BYTES_MAX: usize = 1000;
const NOW: Time = Time(784_111_777_000);

fuzz_target!(|data: &[u8]| {
    let mut random = chance(data);
    let _ = decode_head(data);
    let length = head_length(data, 0);
    assert_eq!(split_head_length(data, &mut random), length, "a split changes where a head ends");
    let Ok(Some(length)) = length else {
        // Not behind a head: the bytes are a body by themselves.
        check_body(Framing::Chunked, data, &mut random);
        return;
    };
    let (head_bytes, rest) = data.split_at(length);
    let Ok(head) = decode_head(head_bytes) else {
        check_body(Framing::Chunked, rest, &mut random);
        return;
    };
    check_head(&head, head_bytes);
    check_again(&head);
    check_body(head.framing, rest, &mut random);
    check_answers(&head);
    check_response(data);
});

fn split_head_length(data: &[u8], random: &mut Random) -> Result<Option<usize>, HttpError> {
    let mut here = 0;
    for piece in pieces(data, random) {
        let scanned = here;
        here += piece.len();
        if let Some(length) = head_length(&data[..here], scanned)? {
            return Ok(Some(length));
        }
    }
    Ok(None)
}

/// The fields as the simplest reader finds them: lines by CRLF, values without the spaces and tabs around them.
///
/// Empty lines before the request are none of its lines (RFC 9112 2.2).
fn fields(mut head: &[u8]) -> Vec<(String, &[u8])> {
    while let Some(rest) = head.strip_prefix(b"\r\n") {
        head = rest;
    }
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").expect("CRLF ends lines"));
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let field = |line: &[u8]| line.iter().position(|byte| *byte == b':').expect("a field has a colon");
    lines.next();
    lines
        .take_while(|line| !line.is_empty())
        .map(|line| {
            let (name, value) = (&line[..field(line)], &line[field(line) + 1..]);
            let start = value.iter().position(|byte| !is_space(byte)).unwrap_or(value.len());
            let end = value.iter().rposition(|byte| !is_space(byte)).map_or(start, |last| last + 1);
            (String::from_utf8(name.to_ascii_lowercase()).expect("names are ASCII"), &value[start..end])
        })
        .collect()
}

fn check_head(head: &Head, bytes: &[u8]) {
    let request = &head.request;
    let is_visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    assert!(request.path.starts_with('/') && !request.path.contains('?') && is_visible(&request.path));
    assert!(is_visible(&request.query) && request.headers.len() <= HEADERS_MAX);
    for (name, value) in &request.headers {
        assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':'), "{name:?}");
        assert!(!name.bytes().any(|byte| byte.is_ascii_uppercase()), "{name:?}");
        assert!(!value.contains(['\r', '\n', '\0']), "{value:?}");
    }
    let fields = fields(bytes);
    let named = |wanted: &str| fields.iter().filter(|(name, _)| name == wanted).map(|(_, value)| *value).collect();
    let (lengths, codings): (Vec<&[u8]>, Vec<&[u8]>) = (named("content-length"), named("transfer-encoding"));
    assert_eq!(fields.len(), request.headers.len());
    for ((name, value), (decoded_name, decoded_value)) in fields.iter().zip(&request.headers) {
        assert_eq!((name, &String::from_utf8_lossy(value)), (decoded_name, &decoded_value.into()), "read otherwise");
    }
    match (head.framing, &lengths[..], &codings[..]) {
        (Framing::Length(0), [], []) => {}
        (Framing::Length(length), [digits], []) => {
            let digits = std::str::from_utf8(digits).expect("digits are ASCII");
            assert!(digits.bytes().all(|byte| byte.is_ascii_digit()));
            assert_eq!(digits.parse().unwrap_or(u64::MAX), length);
        }
        (Framing::Chunked, [], [coding]) => assert!(head.is_http_11 && coding.eq_ignore_ascii_case(b"chunked")),
        ambiguous => panic!("ambiguous framing: {ambiguous:?}"),
    }
    if head.is_http_11 {
        assert_eq!(named("host").len(), 1);
    }
}

/// The same request in other words decodes to the same.
fn check_again(head: &Head) {
    let request = &head.request;
    let method = format!("{:?}", request.method).to_ascii_uppercase();
    let question = if request.query.is_empty() { "" } else { "?" };
    let version = if head.is_http_11 { "1.1" } else { "1.0" };
    let mut text = format!("{method} {}{question}{} HTTP/{version}\r\n", request.path, request.query);
    for (name, value) in &request.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    assert_eq!(head_length(text.as_bytes(), 0), Ok(Some(text.len())), "{text:?}");
    let again = decode_head(text.as_bytes()).unwrap_or_else(|error| panic!("{error:?}: {text:?}"));
    assert_eq!(format!("{again:?}"), format!("{head:?}"));
}

/// What became of a body: whether it is whole, its bytes, and how many bytes it took.
type Taken = Result<(bool, Bytes, usize), HttpError>;

/// Gives a body these reads one after the other, what is unfinished again with the next.
fn take(framing: Framing, reads: &[&[u8]]) -> Taken {
    let mut body = Body::new(framing, BODY_BYTES_MAX)?;
    let (mut rest, mut all_used) = (Vec::new(), 0);
    for read in reads {
        rest.extend_from_slice(read);
        let used = body.decode(&rest)?;
        rest.drain(..used);
        all_used += used;
        assert!(body.held_bytes() <= 2 * BODY_BYTES_MAX, "{}", body.held_bytes());
    }
    let is_complete = body.is_complete();
    let bytes = body.into_bytes();
    assert!(bytes.len() <= BODY_BYTES_MAX);
    Ok((is_complete, bytes, all_used))
}

fn check_body(framing: Framing, data: &[u8], random: &mut Random) {
    let whole = take(framing, &[data]);
    assert_eq!(take(framing, &pieces(data, random)), whole, "a split changes the body");
    let Ok((true, bytes, used)) = whole else { return };
    if framing == Framing::Chunked {
        assert_eq!(unchunk(&data[..used]).as_deref(), Some(&bytes[..]), "chunks are read otherwise");
    }
    let mut chunked = Vec::new();
    for piece in pieces(&bytes, random) {
        chunked.extend_from_slice(format!("{:x}{}\r\n", piece.len(), [";a=b", ""][piece.len() % 2]).as_bytes());
        chunked.extend_from_slice(piece);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let length = chunked.len();
    chunked.extend_from_slice(b"GET / HTTP/1.1\r\n");
    match take(Framing::Chunked, &[&chunked]) {
        Ok(taken) => assert_eq!(taken, (true, bytes, length)),
        Err(error) => assert!(error.status == 431 && length > 4096, "{error:?}"),
    }
}

/// The content of a whole chunked body, as the simplest reader finds it.
fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let line = line(&mut rest)?;
        let digits = line.split(|byte| *byte == b';').next()?;
        let size = usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        if size == 0 {
            break;
        }
        content.extend_from_slice(rest.get(..size)?);
        rest = rest[size..].strip_prefix(b"\r\n")?;
    }
    while !line(&mut rest)?.is_empty() {}
    rest.is_empty().then_some(content)
}

/// Takes one line off, which ends in CRLF and has neither CR nor LF in it.
fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'))?;
    let line = &rest[..end];
    *rest = rest[end..].strip_prefix(b"\r\n")?;
    Some(line)
}

/// What is made of a request by the codecs behind.
fn check_answers(head: &Head) {
    let request = &head.request;
    let (answer, agreement) = answer_handshake(request, Policy { level: 1, context_takeover: true });
    if answer.status == 101 {
        assert_eq!((request.method, request.header("sec-websocket-version")), (Method::Get, Some("13")));
    }
    assert!(agreement.is_none() || (answer.status == 101 && request.header("sec-websocket-extensions").is_some()));
    let _ = (decode_engine_ask(head), refuse_plain_open(head), request.token());
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let trusted = ["127.0.0.0/8".parse().expect("a network"), "::/0".parse().expect("another")];
    for header in [AddressHeader::ForwardedFor, AddressHeader::RealIp] {
        assert_eq!(client_address(loopback, &[], header, request), loopback);
        let _ = client_address(loopback, &trusted, header, request);
    }
    let mut response = Response::text(200, "text/plain", Bytes::from_static(&[b'a'; 2000]));
    let coding = encoding::choose(&encoding::Settings::default(), request, &mut response);
    assert!(coding.is_none() || request.header("accept-encoding").is_some());
}

/// No header's value ends its line.
fn check_response(data: &[u8]) {
    let value = String::from_utf8_lossy(data).into_owned();
    let response = Response::text(200, "text/plain", Bytes::copy_from_slice(data)).header("X-Value", value);
    let (head, body) =
        encode_response(&response, NOW, Reply { is_http_11: true, keep_alive: true, without_body: false });
    let whole = [head, body].concat();
    let end = whole.windows(4).position(|window| window == b"\r\n\r\n").expect("a head ends") + 4;
    assert_eq!(&whole[end..], data);
    assert_eq!(whole[..end].iter().filter(|byte| **byte == b'\n').count(), 6);
}

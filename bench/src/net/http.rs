//! HTTP/1.1 of a client: requests encoded, the Socket's upgrade among them, responses found in a slice.
//!
//! `httparse` reads heads and chunk sizes. One response is awaited at a time; its body is handed on as it came, compressed
//! where that was asked for.

use super::Failure;

const HEADERS_MAX: usize = 64;
const WINDOW_BITS_MAX: u8 = 15;
/// What the answer to `UPGRADE_KEY` would be is not checked: the servers are ours, and known to speak WebSocket.
const UPGRADE_KEY: &str = "ZHVldC1iZW5jaC1jbGllbg==";

/// One request. Its head is as short as HTTP allows; `body` is JSON.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub token: Option<&'a str>,
    pub if_none_match: Option<&'a str>,
    pub accepts_gzip: bool,
    pub body: Option<&'a str>,
    /// Sent as `X-Forwarded-For`, for servers that limit what one address may do.
    pub forwarded_for: Option<&'a str>,
}

impl<'a> Request<'a> {
    /// What a route has for whom the token names.
    pub fn get(path: &'a str, token: &'a str) -> Self {
        Self { method: "GET", path, token: Some(token), ..Self::default() }
    }

    /// JSON to a route.
    pub fn post(path: &'a str, body: &'a str) -> Self {
        Self { method: "POST", path, body: Some(body), ..Self::default() }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let mut put = |parts: &[&str]| parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
        put(&[self.method, " ", self.path, " HTTP/1.1\r\nHost: localhost\r\n"]);
        if let Some(token) = self.token {
            put(&["Authorization: Bearer ", token, "\r\n"]);
        }
        if let Some(etag) = self.if_none_match {
            put(&["If-None-Match: ", etag, "\r\n"]);
        }
        if self.accepts_gzip {
            put(&["Accept-Encoding: gzip\r\n"]);
        }
        if let Some(address) = self.forwarded_for {
            put(&["X-Forwarded-For: ", address, "\r\n"]);
        }
        if let Some(body) = self.body {
            put(&["Content-Type: application/json\r\nContent-Length: ", &body.len().to_string(), "\r\n\r\n", body]);
        } else {
            put(&["\r\n"]);
        }
    }
}

/// The request that asks for a WebSocket at `path`.
pub(super) fn encode_upgrade(out: &mut Vec<u8>, path: &str, offer: Option<&str>) {
    let extensions = offer.map(|offer| format!("Sec-WebSocket-Extensions: {offer}\r\n")).unwrap_or_default();
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {UPGRADE_KEY}\r\n{extensions}\r\n"
    );
    out.extend_from_slice(head.as_bytes());
}

/// What a server agreed to in its 101.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Agreed {
    pub deflates: bool,
    /// The server's compressor goes on from message to message.
    pub keeps_context: bool,
    /// The window that what is sent may refer back to (RFC 7692 7.1.2.2), log2 of bytes.
    pub client_window_bits: u8,
    /// Bytes of the head.
    pub length: usize,
}

/// The head of the answer to an upgrade; `None` while it is not whole.
pub(super) fn decode_upgrade(bytes: &[u8]) -> Result<Option<Agreed>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let Some(length) = parsed(head.parse(bytes))? else { return Ok(None) };
    if head.code != Some(101) {
        return Err(Failure::Status(head.code.unwrap_or_default()));
    }
    let extensions = header(head.headers, "sec-websocket-extensions").unwrap_or_default();
    let deflates = extensions.contains("permessage-deflate");
    let keeps_context = deflates && !extensions.contains("server_no_context_takeover");
    let client_window_bits = extensions
        .split("client_max_window_bits=")
        .nth(1)
        .and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
        .unwrap_or(WINDOW_BITS_MAX);
    Ok(Some(Agreed { deflates, keeps_context, client_window_bits, length }))
}

/// One response, whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Response<'a> {
    pub status: u16,
    pub etag: Option<&'a str>,
    pub body: &'a [u8],
    /// Bytes it took on the wire.
    pub length: usize,
}

/// The response that `bytes` start with; `None` while it is not whole. A chunked body is put together in `scratch`.
pub(super) fn decode<'a>(bytes: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<Option<Response<'a>>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let Some(start) = parsed(head.parse(bytes))? else { return Ok(None) };
    let status = head.code.unwrap_or_default();
    let etag = header(head.headers, "etag");
    let chunked = header(head.headers, "transfer-encoding").is_some_and(|value| value.contains("chunked"));
    if matches!(status, 204 | 304) {
        return Ok(Some(Response { status, etag, body: &[], length: start }));
    }
    if chunked {
        let Some(length) = decode_chunks(&bytes[start..], scratch)? else { return Ok(None) };
        return Ok(Some(Response { status, etag, body: scratch, length: start + length }));
    }
    let length = header(head.headers, "content-length").and_then(|value| value.trim().parse::<usize>().ok());
    let length = length.ok_or(Failure::Protocol("a response without a length"))?;
    let body = bytes[start..].get(..length);
    Ok(body.map(|body| Response { status, etag, body, length: start + length }))
}

/// Puts the chunks together; gives how many bytes they took.
fn decode_chunks(bytes: &[u8], body: &mut Vec<u8>) -> Result<Option<usize>, Failure> {
    body.clear();
    let mut at = 0;
    loop {
        let size = httparse::parse_chunk_size(&bytes[at..]).map_err(|_| Failure::Protocol("a chunk's size"))?;
        let httparse::Status::Complete((line, size)) = size else { return Ok(None) };
        let start = at + line;
        let end = start + size as usize;
        if bytes.len() < end + 2 {
            return Ok(None);
        }
        body.extend_from_slice(&bytes[start..end]);
        at = end + 2;
        if size == 0 {
            return Ok(Some(at));
        }
    }
}

/// The head's length; `None` while it is not whole.
fn parsed(status: httparse::Result<usize>) -> Result<Option<usize>, Failure> {
    match status {
        Ok(httparse::Status::Complete(length)) => Ok(Some(length)),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(_) => Err(Failure::Protocol("a response's head")),
    }
}

fn header<'a>(headers: &[httparse::Header<'a>], name: &str) -> Option<&'a str> {
    let found = headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(found.value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_found_once_it_is_whole() {
        let bytes = b"HTTP/1.1 200 OK\r\nETag: W/\"a\"\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1";
        let mut scratch = Vec::new();
        let response = decode(bytes, &mut scratch).unwrap().unwrap();
        assert_eq!((response.status, response.etag, response.body), (200, Some("W/\"a\""), &b"abc"[..]));
        let length = response.length;
        assert_eq!(&bytes[length..], b"HTTP/1.1");
        for cut in 0..length {
            assert_eq!(decode(&bytes[..cut], &mut scratch).unwrap(), None, "cut at {cut}");
        }
    }

    #[test]
    fn chunks_are_put_together() {
        let bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
        let mut scratch = Vec::new();
        let response = decode(bytes, &mut scratch).unwrap().unwrap();
        assert_eq!((response.body, response.length), (&b"abc"[..], bytes.len()));
        let cut = &bytes[..bytes.len() - 1];
        assert_eq!(decode(cut, &mut scratch).unwrap(), None);
    }

    #[test]
    fn an_unchanged_answer_has_no_body() {
        let bytes = b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n";
        let mut scratch = Vec::new();
        let response = decode(bytes, &mut scratch).unwrap().unwrap();
        assert_eq!((response.status, response.length), (304, bytes.len()));
    }

    #[test]
    fn what_was_agreed_on_is_read_from_the_upgrade() {
        let head = |extensions: &str| format!("HTTP/1.1 101 Switching Protocols\r\n{extensions}\r\n").into_bytes();
        let plain = decode_upgrade(&head("")).unwrap().unwrap();
        assert!(!plain.deflates && !plain.keeps_context);
        let kept = decode_upgrade(&head("Sec-WebSocket-Extensions: permessage-deflate\r\n")).unwrap().unwrap();
        assert!(kept.deflates && kept.keeps_context);
        let reset = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n";
        let reset = decode_upgrade(&head(reset)).unwrap().unwrap();
        assert!(reset.deflates && !reset.keeps_context);
        let narrow = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=10; x\r\n";
        assert_eq!(decode_upgrade(&head(narrow)).unwrap().unwrap().client_window_bits, 10);
        assert_eq!(kept.client_window_bits, WINDOW_BITS_MAX);
        assert!(decode_upgrade(b"HTTP/1.1 503 No\r\n\r\n").is_err());
    }
}

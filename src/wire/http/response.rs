//! A [`Response`] as bytes, with the headers that are the connection's: `Date`, `Content-Length`, `Connection`.

use std::fmt::Write;

use bytes::Bytes;

use super::Response;
use super::encode_date;
use crate::base::Time;

/// Up to this many bytes a body is copied behind its head, so that one small answer is one chunk.
const JOINED_BYTES_MAX: usize = 4096;

/// How a request wants to be answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reply {
    /// HTTP/1.1; a client of 1.0 is told `keep-alive`, for it would not assume it (RFC 9112 9.3).
    pub is_http_11: bool,
    /// Whether the connection stays.
    pub keep_alive: bool,
    /// HEAD: the length of the body, but not the body (RFC 9110 9.3.2).
    pub without_body: bool,
}

impl Reply {
    /// The answer to what could not be read as a request: the last one on its connection.
    pub const LAST: Self = Self { is_http_11: true, keep_alive: false, without_body: false };
}

/// The head, with a small body behind it; and a larger body, shared, else nothing.
///
/// 101, 204 and 304 have neither body nor length (RFC 9110 8.6); every other response has a length, so that it never
/// ends only by the close.
pub fn encode_response(response: &Response, now: Time, reply: Reply) -> (Bytes, Bytes) {
    let mut head = String::with_capacity(256);
    push(&mut head, format_args!("HTTP/1.1 {} {}\r\nDate: ", response.status, reason(response.status)));
    encode_date(now, &mut head);
    head.push_str("\r\n");
    if !response.content_type.is_empty() {
        push_header(&mut head, "Content-Type", response.content_type);
    }
    let has_length = !matches!(response.status, 101 | 204 | 304);
    if has_length {
        push(&mut head, format_args!("Content-Length: {}\r\n", response.body.len()));
    }
    match (response.status, reply.keep_alive) {
        (101, _) => head.push_str("Connection: Upgrade\r\n"),
        (_, false) => head.push_str("Connection: close\r\n"),
        (_, true) if !reply.is_http_11 => head.push_str("Connection: keep-alive\r\n"),
        _ => {}
    }
    for (name, value) in &response.headers {
        push_header(&mut head, name, value);
    }
    head.push_str("\r\n");

    let mut head = head.into_bytes();
    if !has_length || reply.without_body {
        return (Bytes::from(head), Bytes::new());
    }
    if response.body.len() <= JOINED_BYTES_MAX {
        head.extend_from_slice(&response.body);
        return (Bytes::from(head), Bytes::new());
    }
    (Bytes::from(head), response.body.clone())
}

/// Control characters are left out, so that no value can end its line (RFC 9110 5.5).
fn push_header(head: &mut String, name: &str, value: &str) {
    head.push_str(name);
    head.push_str(": ");
    head.extend(value.chars().filter(|c| !c.is_control()));
    head.push_str("\r\n");
}

/// Appends formatted text.
fn push(head: &mut String, text: std::fmt::Arguments) {
    let written = head.write_fmt(text);
    debug_assert!(written.is_ok(), "a String takes every write");
}

/// The reason phrase; empty for a status that needs none (RFC 9112 4).
fn reason(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

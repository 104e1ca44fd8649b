//! The head of a request: where it ends, what it says, how its body is framed (RFC 9112 2 to 6).
//!
//! `httparse` reads the tokens; every rule that concerns framing is written out here. Bounds: `HEAD_BYTES_MAX` is held
//! by the caller, who owns the bytes, `HEADERS_MAX` here. Paths and values are not decoded.

use super::HttpError;
use super::{Method, Request};
use crate::base::limits::HEADERS_MAX;

const MALFORMED: HttpError = HttpError::new(400, "Malformed request");
const BAD_LINE_END: HttpError = HttpError::new(400, "Lines must end in CRLF");
const BAD_TARGET: HttpError = HttpError::new(400, "Malformed request target");
const BAD_HOST: HttpError = HttpError::new(400, "Exactly one valid Host is required");
const BAD_LENGTH: HttpError = HttpError::new(400, "Malformed Content-Length");
const BAD_FRAMING: HttpError = HttpError::new(400, "Ambiguous body length");
const BAD_VERSION: HttpError = HttpError::new(505, "HTTP version not supported");
const BAD_CODING: HttpError = HttpError::new(501, "Transfer coding not supported");
const BAD_METHOD: HttpError = HttpError::new(501, "Method not supported");
const BAD_EXPECTATION: HttpError = HttpError::new(417, "Expectation not supported");
const TOO_MANY_HEADERS: HttpError = HttpError::new(431, "Too many header fields");

/// A decoded head.
#[derive(Debug)]
pub struct Head {
    /// The request, its body still empty.
    pub request: Request,
    /// HTTP/1.1; otherwise HTTP/1.0.
    pub is_http_11: bool,
    /// How the body is delimited.
    pub framing: Framing,
    /// Whether the client wants the connection to stay (RFC 9112 9.3).
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body (RFC 9110 10.1.1).
    pub expects_continue: bool,
}

/// How a body is delimited (RFC 9112 6.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// So many bytes; 0 when the head names no length.
    Length(u64),
    /// Chunks (RFC 9112 7.1).
    Chunked,
}

/// The length of the head that `bytes` start with, its empty line included; `None` while that has not come.
///
/// `scanned` bytes were looked at by an earlier call. A line that ends in anything but CRLF is refused at once
/// (RFC 9112 2.2): a proxy may have seen another line there.
pub fn head_length(bytes: &[u8], scanned: usize) -> Result<Option<usize>, HttpError> {
    for index in scanned..bytes.len() {
        let after_cr = index > 0 && bytes[index - 1] == b'\r';
        if after_cr != (bytes[index] == b'\n') {
            return Err(BAD_LINE_END);
        }
        if after_cr && bytes[..=index].ends_with(b"\r\n\r\n") {
            return Ok(Some(index + 1));
        }
    }
    Ok(None)
}

/// Decodes a whole head, as delimited by [`head_length`].
///
/// Bytes beyond ASCII in a value are kept as UTF-8, or replaced where they are none: no route compares them.
pub fn decode_head(bytes: &[u8]) -> Result<Head, HttpError> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut fields);
    match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Ok(_) => return Err(MALFORMED),
        Err(httparse::Error::TooManyHeaders) => return Err(TOO_MANY_HEADERS),
        Err(httparse::Error::Version) if names_a_version(bytes) => return Err(BAD_VERSION),
        Err(_) => return Err(MALFORMED),
    }
    let is_http_11 = parsed.version == Some(1);
    let method = decode_method(parsed.method.unwrap_or_default())?;
    let (path, query) = decode_target(method, parsed.path.unwrap_or_default())?;
    let headers = parsed
        .headers
        .iter()
        .map(|field| (field.name.to_ascii_lowercase(), trim(&String::from_utf8_lossy(field.value)).to_owned()))
        .collect();
    let request = Request { method, path: path.to_owned(), query: query.to_owned(), headers, body: Default::default() };

    check_host(&request, is_http_11)?;
    Ok(Head {
        framing: decode_framing(&request, is_http_11)?,
        keep_alive: !has_token(&request, "connection", "close")
            && (is_http_11 || has_token(&request, "connection", "keep-alive")),
        expects_continue: is_http_11 && decode_expectation(&request)?,
        is_http_11,
        request,
    })
}

impl Head {
    /// Whether the client asks to go on with WebSocket; an HTTP/1.0 client cannot (RFC 9110 7.8).
    pub fn asks_for_websocket(&self) -> bool {
        self.is_http_11
            && has_token(&self.request, "connection", "upgrade")
            && has_token(&self.request, "upgrade", "websocket")
    }
}

/// All values of the header `name`, in order.
pub(in crate::wire) fn values<'a>(
    request: &'a Request,
    name: &'a str,
) -> impl DoubleEndedIterator<Item = &'a str> + Clone {
    request.headers.iter().filter(move |(header, _)| header == name).map(|(_, value)| value.as_str())
}

/// Without the spaces and tabs around it (RFC 9110 5.6.3). Other white space, such as U+00A0, is part of a value: where
/// it vanished, a coding or a length that a proxy does not know would be one that is known here.
fn trim(value: &str) -> &str {
    value.trim_matches([' ', '\t'])
}

/// Whether a comma-separated header carries `token`, in any case.
fn has_token(request: &Request, name: &str, token: &str) -> bool {
    values(request, name).flat_map(|value| value.split(',')).any(|item| trim(item).eq_ignore_ascii_case(token))
}

/// Whether the request line ends in some HTTP version, so that 505 is a better answer than 400.
fn names_a_version(bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    matches!(line, [.., b' ', b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// Method names are case-sensitive (RFC 9110 9.1).
fn decode_method(name: &str) -> Result<Method, HttpError> {
    Ok(match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "PATCH" => Method::Patch,
        "DELETE" => Method::Delete,
        "OPTIONS" => Method::Options,
        _ => return Err(BAD_METHOD),
    })
}

/// Path and query of the target: origin-form, absolute-form without its authority, or `*` of OPTIONS, which is taken
/// as `/` (RFC 9112 3.2). A fragment or anything outside visible ASCII is refused.
fn decode_target(method: Method, target: &str) -> Result<(&str, &str), HttpError> {
    if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(BAD_TARGET);
    }
    if target == "*" && method == Method::Options {
        return Ok(("/", ""));
    }
    let (path, query) = match target.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") => {
            let authority = rest.split(['/', '?']).next().unwrap_or_default();
            if !is_authority(authority) || authority.is_empty() {
                return Err(BAD_TARGET);
            }
            let (path, query) = split_query(&rest[authority.len()..]);
            (if path.is_empty() { "/" } else { path }, query)
        }
        _ => split_query(target),
    };
    if path.starts_with('/') { Ok((path, query)) } else { Err(BAD_TARGET) }
}

/// The query is what follows the first `?`.
fn split_query(target: &str) -> (&str, &str) {
    target.split_once('?').unwrap_or((target, ""))
}

/// RFC 9112 3.2: HTTP/1.1 needs exactly one `Host`; what is there must be an authority.
fn check_host(request: &Request, is_http_11: bool) -> Result<(), HttpError> {
    let mut hosts = values(request, "host");
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_authority(host) => Ok(()),
        (None, None) if !is_http_11 => Ok(()),
        _ => Err(BAD_HOST),
    }
}

/// The characters of `uri-host [ ":" port ]` (RFC 3986 3.2); no userinfo, no list.
fn is_authority(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%:[]!$&'()*+;=".contains(&byte))
}

/// RFC 9112 6.1 to 6.3. Both framings at once, a repeated length, and a coding that does not end in exactly one
/// `chunked` are refused instead of repaired.
fn decode_framing(request: &Request, is_http_11: bool) -> Result<Framing, HttpError> {
    let mut lengths = values(request, "content-length");
    let length = lengths.next();
    if lengths.next().is_some() {
        return Err(BAD_FRAMING);
    }
    if request.header("transfer-encoding").is_some() {
        if length.is_some() || !is_http_11 {
            return Err(BAD_FRAMING);
        }
        let mut codings = values(request, "transfer-encoding").flat_map(|value| value.split(',')).map(trim);
        if codings.clone().any(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("chunked")) {
            return Err(BAD_CODING);
        }
        let is_single = codings.next().is_some_and(|coding| !coding.is_empty()) && codings.next().is_none();
        return if is_single { Ok(Framing::Chunked) } else { Err(BAD_FRAMING) };
    }
    match length {
        None => Ok(Framing::Length(0)),
        Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Ok(Framing::Length(digits.parse().unwrap_or(u64::MAX)))
        }
        Some(_) => Err(BAD_LENGTH),
    }
}

/// The only expectation there is; any other cannot be met (RFC 9110 10.1.1).
fn decode_expectation(request: &Request) -> Result<bool, HttpError> {
    match request.header("expect") {
        None => Ok(false),
        Some(value) if value.eq_ignore_ascii_case("100-continue") => Ok(true),
        Some(_) => Err(BAD_EXPECTATION),
    }
}

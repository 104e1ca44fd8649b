//! The parameters of permessage-deflate: what a client offers, what is agreed on, and how it is told (RFC 7692 5, 7.1).
//!
//! The grammar is that of RFC 6455 9.1, with the spaces and empty list elements of its HTTP lists. A header that breaks
//! it fails the handshake, as 9.1 demands. An offer within the grammar that is unknown or wrong is only declined.

use std::borrow::Cow;

use super::{WINDOW_BITS_MAX, WINDOW_BITS_MIN};
use crate::wire::http::HttpError;

const MALFORMED: HttpError = HttpError::new(400, "Malformed Sec-WebSocket-Extensions");

const EXTENSION: &str = "permessage-deflate";
const SERVER_NO_CONTEXT_TAKEOVER: &str = "server_no_context_takeover";
const CLIENT_NO_CONTEXT_TAKEOVER: &str = "client_no_context_takeover";
const SERVER_MAX_WINDOW_BITS: &str = "server_max_window_bits";
const CLIENT_MAX_WINDOW_BITS: &str = "client_max_window_bits";

/// What the server is willing to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Level of compression, 1 to 10; 0 declines every offer.
    pub level: u8,
    /// Whether connections keep their contexts: better compression, for 312 KiB of compressor and
    /// up to 32 KiB of window each.
    pub context_takeover: bool,
}

/// What both sides do from the handshake on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Agreement {
    /// The server may refer back to its earlier messages: this connection needs a compressor of its own.
    pub server_keeps_context: bool,
    /// The client may: this connection needs a [`super::Window`].
    pub client_keeps_context: bool,
    server_max_window_bits: Option<u8>,
    client_max_window_bits: Option<u8>,
}

impl Agreement {
    /// Bits of the window that the server compresses with.
    pub fn server_window_bits(&self) -> u8 {
        self.server_max_window_bits.unwrap_or(WINDOW_BITS_MAX)
    }

    /// Bits of the window that the client compresses with, at most.
    pub fn client_window_bits(&self) -> u8 {
        self.client_max_window_bits.unwrap_or(WINDOW_BITS_MAX)
    }

    /// The value of the response's `Sec-WebSocket-Extensions`.
    pub fn encode(&self) -> String {
        let mut value = EXTENSION.to_owned();
        for (name, is_said) in [
            (SERVER_NO_CONTEXT_TAKEOVER, !self.server_keeps_context),
            (CLIENT_NO_CONTEXT_TAKEOVER, !self.client_keeps_context),
        ] {
            if is_said {
                value.extend(["; ", name]);
            }
        }
        for (name, bits) in [
            (SERVER_MAX_WINDOW_BITS, self.server_max_window_bits),
            (CLIENT_MAX_WINDOW_BITS, self.client_max_window_bits),
        ] {
            if let Some(bits) = bits {
                value.extend(["; ", name, "=", &bits.to_string()]);
            }
        }
        value
    }
}

/// The first acceptable offer in all values of a request's `Sec-WebSocket-Extensions`, in order; `None` without one.
///
/// The error is the refusal of the handshake, whatever the policy.
pub fn negotiate<'a>(
    values: impl IntoIterator<Item = &'a str>,
    policy: Policy,
) -> Result<Option<Agreement>, HttpError> {
    let mut values = values.into_iter().peekable();
    if values.peek().is_none() {
        return Ok(None);
    }
    let (mut agreement, mut is_empty) = (None, true);
    for value in values {
        let mut scanner = Scanner::new(value);
        while !scanner.is_done() {
            if scanner.take(b',') {
                continue;
            }
            let offer = scanner.offer()?;
            agreement = agreement.or_else(|| offer.and_then(|offer| offer.agree(policy)));
            is_empty = false;
        }
    }
    // `1#extension`: the header, if it is there, names one at least.
    if is_empty { Err(MALFORMED) } else { Ok(agreement) }
}

/// The parameters of one offer, each at most once (RFC 7692 7.1).
#[derive(Default)]
struct Offer {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    /// Inside, the value: without one the client says that it understands the parameter.
    client_max_window_bits: Option<Option<u8>>,
}

impl Offer {
    /// The offer with one more parameter; `None` if that makes it unacceptable.
    fn with(mut self, name: &str, value: Option<&str>) -> Option<Self> {
        match (name, value) {
            (SERVER_NO_CONTEXT_TAKEOVER, None) if !self.server_no_context_takeover => {
                self.server_no_context_takeover = true;
            }
            (CLIENT_NO_CONTEXT_TAKEOVER, None) if !self.client_no_context_takeover => {
                self.client_no_context_takeover = true;
            }
            (SERVER_MAX_WINDOW_BITS, Some(value)) if self.server_max_window_bits.is_none() => {
                self.server_max_window_bits = Some(decode_bits(value)?);
            }
            (CLIENT_MAX_WINDOW_BITS, None) if self.client_max_window_bits.is_none() => {
                self.client_max_window_bits = Some(None);
            }
            (CLIENT_MAX_WINDOW_BITS, Some(value)) if self.client_max_window_bits.is_none() => {
                self.client_max_window_bits = Some(Some(decode_bits(value)?));
            }
            _ => return None,
        }
        Some(self)
    }

    /// What the policy makes of it. Either side's context may be declined unasked (RFC 7692 7.1.1); a window that the
    /// client wants smaller is confirmed as it is (7.1.2), and one that it leaves to the server stays whole.
    ///
    /// A compressor for a smaller window keeps no context (see [`super::Deflater::deflate`]); the client is told.
    fn agree(self, policy: Policy) -> Option<Agreement> {
        let is_whole_window = self.server_max_window_bits.is_none_or(|bits| bits == WINDOW_BITS_MAX);
        (policy.level > 0).then_some(Agreement {
            server_keeps_context: policy.context_takeover && !self.server_no_context_takeover && is_whole_window,
            client_keeps_context: policy.context_takeover && !self.client_no_context_takeover,
            server_max_window_bits: self.server_max_window_bits,
            client_max_window_bits: self.client_max_window_bits.flatten(),
        })
    }
}

/// A number of window bits, without leading zeros (RFC 7692 7.1.2.1).
fn decode_bits(value: &str) -> Option<u8> {
    let is_plain = !value.starts_with(['0', '+']);
    value.parse().ok().filter(|bits| is_plain && (WINDOW_BITS_MIN..=WINDOW_BITS_MAX).contains(bits))
}

/// What is left of one value of the header; never starts with a space.
struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    fn new(value: &'a str) -> Self {
        let mut scanner = Self { rest: value };
        scanner.skip(0);
        scanner
    }

    fn is_done(&self) -> bool {
        self.rest.is_empty()
    }

    /// Goes on behind so many bytes and the spaces that follow them.
    fn skip(&mut self, length: usize) {
        self.rest = self.rest[length..].trim_start_matches([' ', '\t']);
    }

    /// Takes a separator, if it is next.
    fn take(&mut self, separator: u8) -> bool {
        let is_next = self.rest.as_bytes().first() == Some(&separator);
        self.skip(usize::from(is_next));
        is_next
    }

    /// `extension-token *( ";" extension-param )`, up to a comma or the end; `None` if it cannot be accepted.
    fn offer(&mut self) -> Result<Option<Offer>, HttpError> {
        let mut offer = (self.token()? == EXTENSION).then(Offer::default);
        while self.take(b';') {
            let name = self.token()?;
            let value = if self.take(b'=') { Some(self.value()?) } else { None };
            offer = offer.and_then(|offer| offer.with(name, value.as_deref()));
        }
        if self.is_done() || self.take(b',') { Ok(offer) } else { Err(MALFORMED) }
    }

    fn token(&mut self) -> Result<&'a str, HttpError> {
        let length = self.rest.bytes().take_while(|byte| is_token(*byte)).count();
        let token = &self.rest[..length];
        self.skip(length);
        if token.is_empty() { Err(MALFORMED) } else { Ok(token) }
    }

    /// `token / quoted-string`; unquoted, the latter must be a token too.
    fn value(&mut self) -> Result<Cow<'a, str>, HttpError> {
        let Some(quoted) = self.rest.strip_prefix('"') else { return self.token().map(Cow::Borrowed) };
        let mut value = String::new();
        let mut characters = quoted.char_indices();
        while let Some((at, character)) = characters.next() {
            if character == '"' && !value.is_empty() {
                self.skip(1 + at + 1);
                return Ok(Cow::Owned(value));
            }
            let unquoted = if character == '\\' { characters.next().map(|(_, next)| next) } else { Some(character) };
            let is_token = |character: &char| u8::try_from(*character).is_ok_and(is_token);
            value.push(unquoted.filter(is_token).ok_or(MALFORMED)?);
        }
        Err(MALFORMED)
    }
}

/// RFC 9110 5.6.2, `tchar`; the same set as RFC 2616 2.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

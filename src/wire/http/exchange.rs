//! An HTTP request as the connection hands it up, and the response it takes back: messages without their framing.

use bytes::Bytes;
use serde::Serialize;

use crate::base::Token;

/// Methods that a route can have. Anything else is answered 501 by the connection (RFC 9110 9.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
}

/// One complete request, framing removed.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: Method,
    /// The path as it was sent, without the query; starts with `/`.
    pub path: String,
    /// What follows `?`, undecoded; empty when there is none.
    pub query: String,
    /// Names in lower case, in the order they came.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

impl Request {
    /// The first header named `name` (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// What the `Authorization` header offers as a token, with or without `Bearer` (contract 2.1).
    pub fn bearer(&self) -> Option<&str> {
        let value = self.header("authorization")?.trim();
        let (scheme, rest) = value.split_once(' ').unwrap_or(("", value));
        Some(if scheme.eq_ignore_ascii_case("bearer") { rest.trim() } else { value })
    }

    /// The token that the `Authorization` header carries, if it can be one of ours.
    pub fn token(&self) -> Option<Token> {
        Token::decode(self.bearer()?)
    }
}

/// One response; the connection adds `Date`, `Content-Length` and `Connection`.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    /// Beyond those that every response carries.
    pub headers: Vec<(&'static str, String)>,
    pub content_type: &'static str,
    pub body: Bytes,
    pub effort: Effort,
}

/// How hard it is worth to compress a response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effort {
    /// As hard as is set.
    Usual,
    /// Fast: it is asked for all the time, and soon outdated.
    Little,
}

impl Response {
    /// The type of all JSON.
    pub const JSON: &'static str = "application/json; charset=utf-8";

    /// A response whose body is `value` as JSON.
    pub fn json(status: u16, value: &impl Serialize) -> Self {
        let body = serde_json::to_vec(value).expect("maps have string keys and nothing here can fail");
        Self::text(status, Self::JSON, Bytes::from(body))
    }

    /// A response whose body is `body`, already in its form.
    pub fn text(status: u16, content_type: &'static str, body: Bytes) -> Self {
        Self { status, headers: Vec::new(), content_type, body, effort: Effort::Usual }
    }

    /// A response without a body.
    pub fn empty(status: u16) -> Self {
        Self::text(status, "", Bytes::new())
    }

    /// With one more header.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

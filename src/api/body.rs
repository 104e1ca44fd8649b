//! Request bodies: one helper reads them all (contract 2.1).
//!
//! Small bodies go through `simd-json` with buffers that are used again, larger ones through `serde_json`: each where
//! it measures faster (`cargo bench --bench json`).
//! Not here: the size limit, which the connection holds before it has read too much (413).

use std::cell::RefCell;

use serde::de::DeserializeOwned;
use serde_json::Value;
use simd_json::Buffers;

use crate::wire::http::Request;

use super::ApiError;

/// Up to here `simd-json` was faster; it bounds the buffers, too.
const SMALL_BYTES_MAX: usize = 256;

thread_local! {
    /// What `simd-json` works in, one a thread, at most a few times [`SMALL_BYTES_MAX`].
    static SCRATCH: RefCell<(Vec<u8>, Buffers)> = RefCell::default();
}

/// The body as `T`, every field of which has a default. Without a body, or with one that is not declared as JSON,
/// it is `{}`, as Express has it; a body that is declared as JSON must be an object. A body in a content coding is 415.
pub fn parse<T: DeserializeOwned + Default>(request: &Request) -> Result<T, ApiError> {
    if request.body.is_empty() {
        return Ok(T::default());
    }
    if request.header("content-encoding").is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
        return Err(ApiError::UnsupportedCoding);
    }
    if !is_json(request) {
        return Ok(T::default());
    }
    let object = request.body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    if !object {
        return Err(ApiError::InvalidJson);
    }
    if request.body.len() <= SMALL_BYTES_MAX {
        return parse_small(&request.body);
    }
    serde_json::from_slice(&request.body).map_err(|_| ApiError::InvalidJson)
}

/// `simd-json` writes into what it reads, hence the copy.
fn parse_small<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    SCRATCH.with_borrow_mut(|(bytes, buffers)| {
        bytes.clear();
        bytes.extend_from_slice(body);
        simd_json::serde::from_slice_with_buffers(bytes, buffers).map_err(|_| ApiError::InvalidJson)
    })
}

fn is_json(request: &Request) -> bool {
    let media_type = request.header("content-type").and_then(|value| value.split(';').next());
    media_type.is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json"))
}

/// A field's text; anything that is not a string counts as absent (D1).
pub fn text(field: &Value) -> &str {
    field.as_str().unwrap_or_default()
}

/// The value of `name` in a query string. Ours are numbers and UUIDs: nothing is percent-decoded.
pub fn query<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    let pairs = request.query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde::Deserialize;

    use super::*;
    use crate::wire::http::Method;

    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Named {
        name: Value,
    }

    fn name(content_type: Option<&str>, body: &str) -> Result<String, ApiError> {
        let headers = content_type.map(|value| ("content-type".to_owned(), value.to_owned())).into_iter().collect();
        let (path, query) = ("/".to_owned(), String::new());
        let body = Bytes::copy_from_slice(body.as_bytes());
        let request = Request { method: Method::Post, path, query, headers, body };
        parse::<Named>(&request).map(|named| text(&named.name).to_owned())
    }

    const JSON: Option<&str> = Some("application/json");

    #[test]
    fn what_is_not_declared_as_json_is_an_empty_object() {
        let ann = r#" {"name":"Ann","other":[1]}"#;
        for content_type in [JSON, Some("Application/JSON; charset=utf-8")] {
            assert_eq!(name(content_type, ann).as_deref(), Ok("Ann"));
        }
        for content_type in [None, Some("text/plain"), Some("application/x-www-form-urlencoded")] {
            assert_eq!(name(content_type, ann).as_deref(), Ok(""));
        }
        assert_eq!(name(JSON, "").as_deref(), Ok(""));
    }

    #[test]
    fn a_compressed_body_is_refused() {
        let coded = |coding: &str| {
            let headers = vec![("content-encoding".to_owned(), coding.to_owned())];
            let (path, query, body) = ("/".to_owned(), String::new(), Bytes::from_static(b"x"));
            parse::<Named>(&Request { method: Method::Post, path, query, headers, body }).map(|_| ())
        };
        assert_eq!((coded("gzip"), coded("identity")), (Err(ApiError::UnsupportedCoding), Ok(())));
    }

    #[test]
    fn only_objects_are_bodies() {
        for body in ["{", "[\"Ann\"]", "null", "\"Ann\"", "7", " ", "{\"name\":\"Ann\"}x", "{\"name\":\"\u{0}\"}"] {
            assert_eq!(name(JSON, body), Err(ApiError::InvalidJson), "{body}");
        }
        for body in ["{}", "{\"name\":7}", "{\"name\":null}", "{\"name\":{\"a\":[]}}"] {
            assert_eq!(name(JSON, body).as_deref(), Ok(""), "{body}");
        }
    }

    #[test]
    fn deep_nesting_is_no_danger() {
        let deep = "[".repeat(40_000) + &"]".repeat(40_000);
        assert_eq!(name(JSON, &format!("{{\"name\":{deep}}}")), Err(ApiError::InvalidJson));
        assert_eq!(name(JSON, &format!("{{\"other\":{deep}}}")).as_deref(), Ok(""));
    }
}

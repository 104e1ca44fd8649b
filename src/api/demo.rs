//! `GET /demo`: the page where two people meet, the shortest correct client of this server to try and to read.
//!
//! Its files lie in `src/demo` and are part of the binary. They are encoded once, before the first shard starts, and
//! only read from then on. Not here: anything that the page asks; it speaks to the same endpoints as every other.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::wire::encoding::{self, Coding, Encoding};
use crate::wire::http::{Request, Response};

use super::{ApiError, Call, Host, conditional, without_trailing_slash};

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Path, type and bytes of each file.
const FILES: [(&str, &str, &[u8]); 10] = [
    ("/demo", HTML, include_bytes!("../demo/index.html")),
    ("/demo/style.css", STYLE, include_bytes!("../demo/style.css")),
    ("/demo/icon.svg", "image/svg+xml", include_bytes!("../demo/icon.svg")),
    ("/demo/main.js", SCRIPT, include_bytes!("../demo/main.js")),
    ("/demo/server.js", SCRIPT, include_bytes!("../demo/server.js")),
    ("/demo/lobby.js", SCRIPT, include_bytes!("../demo/lobby.js")),
    ("/demo/room.js", SCRIPT, include_bytes!("../demo/room.js")),
    ("/demo/call.js", SCRIPT, include_bytes!("../demo/call.js")),
    ("/demo/media.js", SCRIPT, include_bytes!("../demo/media.js")),
    ("/demo/page.js", SCRIPT, include_bytes!("../demo/page.js")),
];

/// All comes from this server, no script or style from the page's own text. `ws:` and `wss:` are for browsers to which
/// `'self'` means HTTP only.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src blob:; \
     connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'";

/// The files, ready to be sent.
pub struct Demo {
    encoding: encoding::Settings,
    files: Vec<File>,
}

struct File {
    path: &'static str,
    /// Weak, for it names the file in every coding (RFC 9110 8.8.1).
    tag: String,
    plain: Response,
    encoded: Vec<(Coding, Response)>,
}

impl Demo {
    /// Encodes every file as responses are by `encoding`.
    pub fn new(encoding: encoding::Settings) -> Self {
        let file = |(path, content_type, body): (&'static str, &'static str, &'static [u8])| {
            let digest: [u8; 32] = Sha256::digest(body).into();
            let tag = format!("W/\"{}\"", URL_SAFE_NO_PAD.encode(&digest[..12]));
            let plain = Response::text(200, content_type, Bytes::from_static(body));
            let encoded = Coding::ALL.map(|coding| (coding, encode(coding, encoding.level, &plain))).into();
            File { path, tag, plain, encoded }
        };
        Self { encoding, files: FILES.map(file).into() }
    }

    /// The file asked for, or 304 if the client has it. It may be kept, but is asked about each time: its name stays
    /// the same when a newer server brings another.
    fn answer(&self, request: &Request) -> Option<Response> {
        let path = without_trailing_slash(&request.path);
        let file = self.files.iter().find(|file| file.path == path)?;
        let mut response = file.plain.clone();
        let coding = encoding::choose(&self.encoding, request, &mut response);
        if let Some((_, encoded)) = file.encoded.iter().find(|(one, _)| Some(*one) == coding) {
            response.body = encoded.body.clone();
            response.headers.extend(encoded.headers.iter().cloned());
        }
        if conditional::is_known(request, &file.tag) {
            response = Response { status: 304, content_type: "", body: Bytes::new(), ..response };
        }
        let response = response.header("ETag", file.tag.clone()).header("Cache-Control", "no-cache");
        Some(response.header("Content-Security-Policy", POLICY))
    }
}

/// A file of the page; 404 where the page is switched off.
pub(super) fn file<H: Host>(call: &Call<'_, H>) -> Result<Response, ApiError> {
    let demo = call.settings().demo.as_ref();
    demo.and_then(|demo| demo.answer(call.request)).ok_or(ApiError::NotFound)
}

fn encode(coding: Coding, level: u8, plain: &Response) -> Response {
    let (mut response, mut encoding) = (plain.clone(), Encoding::new(coding, level, plain.body.clone()));
    while encoding.step() {}
    encoding.finish(&mut response);
    response
}

//! Content codings of responses (RFC 9110 8.4): which one a client gets, and the encoders, fed in slices.
//!
//! The caller keeps the [`Encoding`] between two steps and does other work there; one step takes at most
//! [`slice_bytes`] of the body. Bounds: `base/limits`, and one window of [`BROTLI_WINDOW_BITS`] or 32 KiB per encoding.
//! Not here: codings of requests, which no client of ours uses, and the compression of WebSocket messages.

use std::io::Write;

use brotli::CompressorWriter;
use brotli::enc::BrotliEncoderParams;
use bytes::Bytes;
use flate2::write::ZlibEncoder;
use flate2::{Compress, Compression, FlushCompress, Status};

use super::http::{Effort, Request, Response, values};
use crate::base::limits::{COMPRESSED_BYTES_MAX, COMPRESSED_BYTES_MIN, COMPRESSION_LEVEL, FULLY_COMPRESSED_BYTES_MAX};

/// Bytes of the body that one step takes: about half a millisecond at the usual level.
const SLICE_BYTES: usize = 16 * 1024;
/// The same at a level up to [`FAST_LEVEL`].
const FAST_SLICE_BYTES: usize = 64 * 1024;
/// After so many bytes brotli writes out what it holds; by itself it gathers more, and one step then takes twice as
/// long. A multiple of both slices.
const BROTLI_BLOCK_BYTES: usize = 64 * 1024;
/// Brotli's window, as a power of two. With 16 and a quality above 4 an encoder takes 34 MB, with more it gains little.
const BROTLI_WINDOW_BITS: i32 = 17;
/// Brotli's quality by level. Above 6 an encoder takes 8 to 38 MB.
const BROTLI_QUALITY: [i32; 10] = [0, 1, 2, 2, 3, 3, 4, 5, 5, 6];
/// Level of a response that is worth little effort: the fastest that is not much larger (`cargo bench --bench encoding`).
const FAST_LEVEL: u8 = 2;
/// Gzip's window, as a power of two: the largest.
const GZIP_WINDOW_BITS: u8 = 15;
/// Bytes by which gzip's output grows at least.
const GZIP_ROOM_BYTES: usize = 4096;
/// Bytes of brotli's own buffer before what it writes is ours.
const BROTLI_BUFFER_BYTES: usize = 4096;

/// Subtypes that are compressed by themselves (contract 2.1), as are all images, videos and sounds.
const COMPRESSED_SUBTYPES: [&str; 8] =
    ["zip", "x-zip-compressed", "gzip", "x-gzip", "vnd.rar", "x-rar", "x-rar-compressed", "pdf"];

/// How responses are encoded.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// 1 is the fastest, 9 the smallest, 0 encodes nothing.
    pub level: u8,
    /// Smaller bodies are left as they are.
    pub bytes_min: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { level: COMPRESSION_LEVEL, bytes_min: COMPRESSED_BYTES_MIN }
    }
}

impl Settings {
    /// The level for a response that is worth this effort.
    pub fn level(&self, effort: Effort) -> u8 {
        match effort {
            Effort::Usual => self.level,
            Effort::Little => self.level.min(FAST_LEVEL),
        }
    }
}

/// How many bytes of a body one step takes at a level.
pub fn slice_bytes(level: u8) -> usize {
    if level <= FAST_LEVEL { FAST_SLICE_BYTES } else { SLICE_BYTES }
}

/// The codings of this server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Coding {
    Brotli,
    Gzip,
    /// A zlib stream, in spite of its name (RFC 9110 8.4.1.2).
    Deflate,
}

impl Coding {
    /// All, the first is taken among those that a client likes as much.
    pub const ALL: [Self; 3] = [Self::Brotli, Self::Gzip, Self::Deflate];
    /// The same where speed counts.
    const FASTEST_FIRST: [Self; 3] = [Self::Gzip, Self::Deflate, Self::Brotli];

    /// As `Content-Encoding` names it.
    pub fn name(self) -> &'static str {
        self.names()[0]
    }

    /// All its names (RFC 9110 8.4.1.3).
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Brotli => &["br"],
            Self::Gzip => &["gzip", "x-gzip"],
            Self::Deflate => &["deflate"],
        }
    }
}

/// The coding in which `response` should be sent; `None` leaves it as it is. Either way a response that another
/// client might get encoded says so in `Vary` (RFC 9110 12.5.5).
///
/// A request with `X-No-Compression` is let alone (contract 2.1). HEAD is treated as GET, so that its headers are the
/// same: that costs the encoding, as the route cost the body.
pub fn choose(settings: &Settings, request: &Request, response: &mut Response) -> Option<Coding> {
    if settings.level == 0 || !is_encodable(response) {
        return None;
    }
    vary_by_encoding(&mut response.headers);
    let is_sized = (settings.bytes_min..=COMPRESSED_BYTES_MAX).contains(&response.body.len());
    if !is_sized || request.header("x-no-compression").is_some() {
        return None;
    }
    negotiate(request, response.effort)
}

/// A body that is being encoded.
pub struct Encoding {
    coding: Coding,
    encoder: Encoder,
    body: Bytes,
    used: usize,
    slice_bytes: usize,
}

/// One encoder of each coding, writing into memory.
enum Encoder {
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Gzip(Gzip),
    Deflate(ZlibEncoder<Vec<u8>>),
}

struct Gzip {
    level: u8,
    compress: Compress,
    out: Vec<u8>,
}

/// What may be left of an encoding for the next: the tables of gzip, whose 300 KB are otherwise taken from the system for
/// each body, which takes longer than to encode a short one.
#[derive(Default)]
pub struct Spare(Option<(u8, Compress)>);

impl Spare {
    /// Takes what is left of another, if anything is.
    pub fn keep(&mut self, other: Self) {
        self.0 = other.0.or(self.0.take());
    }
}

impl Encoding {
    /// Begins to encode `body` at `level` (1 to 9); a body that would take long, at the fastest.
    pub fn new(coding: Coding, level: u8, body: Bytes) -> Self {
        Self::reusing(&mut Spare::default(), coding, level, body)
    }

    /// The same with what is left of another, if it fits.
    pub fn reusing(spare: &mut Spare, coding: Coding, level: u8, body: Bytes) -> Self {
        let level = if body.len() > FULLY_COMPRESSED_BYTES_MAX { 1 } else { level.min(9) };
        let (out, compression) = (Vec::with_capacity(body.len() / 4), Compression::new(u32::from(level)));
        let encoder = match coding {
            Coding::Brotli => {
                let params = BrotliEncoderParams {
                    quality: BROTLI_QUALITY[usize::from(level)],
                    lgwin: BROTLI_WINDOW_BITS,
                    size_hint: body.len(),
                    ..BrotliEncoderParams::default()
                };
                Encoder::Brotli(Box::new(CompressorWriter::with_params(out, BROTLI_BUFFER_BYTES, &params)))
            }
            Coding::Gzip => Encoder::Gzip(Gzip::new(spare, level, out)),
            Coding::Deflate => Encoder::Deflate(ZlibEncoder::new(out, compression)),
        };
        Self { coding, encoder, body, used: 0, slice_bytes: slice_bytes(level) }
    }

    /// Takes the next slice, and says whether there are more.
    pub fn step(&mut self) -> bool {
        let end = self.body.len().min(self.used + self.slice_bytes);
        let slice = &self.body[self.used..end];
        self.used = end;
        let has_more = end < self.body.len();
        let written = match &mut self.encoder {
            Encoder::Brotli(encoder) => {
                let ends_block = has_more && end.is_multiple_of(BROTLI_BLOCK_BYTES);
                encoder.write_all(slice).and_then(|()| if ends_block { encoder.flush() } else { Ok(()) })
            }
            Encoder::Gzip(encoder) => encoder.write_all(slice, has_more),
            Encoder::Deflate(encoder) => encoder.write_all(slice),
        };
        written.expect("memory takes every write");
        has_more
    }

    /// After the last step: puts the encoded body into the response it came from, unless it has become no smaller.
    ///
    /// An entity tag becomes a weak one, for it named the other bytes (RFC 9110 8.8.1). Gives what can be used again.
    pub fn finish(self, response: &mut Response) -> Spare {
        debug_assert_eq!(self.used, self.body.len(), "finished after the last step");
        let (encoded, spare) = match self.encoder {
            Encoder::Brotli(encoder) => (encoder.into_inner(), Spare::default()),
            Encoder::Gzip(Gzip { level, compress, out }) => (out, Spare(Some((level, compress)))),
            Encoder::Deflate(encoder) => (encoder.finish().expect("memory takes every write"), Spare::default()),
        };
        if encoded.len() >= self.body.len() {
            return spare;
        }
        let tag = response.headers.iter_mut().find(|(name, _)| name.eq_ignore_ascii_case("etag"));
        if let Some((_, tag)) = tag.filter(|(_, tag)| !tag.starts_with("W/")) {
            tag.insert_str(0, "W/");
        }
        response.headers.push(("Content-Encoding", self.coding.name().to_owned()));
        response.body = encoded.into();
        spare
    }
}

impl Gzip {
    fn new(spare: &mut Spare, level: u8, out: Vec<u8>) -> Self {
        let compress = match spare.0.take_if(|(its_level, _)| *its_level == level) {
            Some((_, mut compress)) => {
                compress.reset();
                compress
            }
            None => Compress::new_gzip(Compression::new(u32::from(level)), GZIP_WINDOW_BITS),
        };
        Self { level, compress, out }
    }

    fn write_all(&mut self, mut slice: &[u8], has_more: bool) -> std::io::Result<()> {
        let flush = if has_more { FlushCompress::None } else { FlushCompress::Finish };
        loop {
            let taken = self.compress.total_in();
            let status = self.compress.compress_vec(slice, &mut self.out, flush)?;
            slice = &slice[(self.compress.total_in() - taken) as usize..];
            let has_room = self.out.len() < self.out.capacity();
            if status == Status::StreamEnd || (has_more && slice.is_empty() && has_room) {
                return Ok(());
            }
            self.out.reserve(slice.len().max(GZIP_ROOM_BYTES));
        }
    }
}

/// Whether a response may have a coding: it has a whole body of a type that gains by it, and nobody forbids it
/// (RFC 9111 5.2.2.6) or has chosen one.
fn is_encodable(response: &Response) -> bool {
    let header = |wanted: &str| {
        let named = response.headers.iter().filter(move |(name, _)| name.eq_ignore_ascii_case(wanted));
        named.map(|(_, value)| value.as_str()).next()
    };
    let is_fixed = header("cache-control")
        .is_some_and(|value| value.split(',').any(|item| item.trim().eq_ignore_ascii_case("no-transform")));
    let is_whole = !matches!(response.status, 100..=199 | 204 | 206 | 304);
    is_whole && !is_fixed && header("content-encoding").is_none() && gains_by_coding(response.content_type)
}

/// Whether bodies of this type become smaller; those without a type are empty.
fn gains_by_coding(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let Some((kind, subtype)) = essence.split_once('/') else { return false };
    !matches!(kind, "image" | "video" | "audio") && !COMPRESSED_SUBTYPES.contains(&subtype)
}

/// Adds `Accept-Encoding` to the one `Vary` field: some caches read only the first of several.
fn vary_by_encoding(headers: &mut Vec<(&'static str, String)>) {
    let Some((_, vary)) = headers.iter_mut().find(|(name, _)| name.eq_ignore_ascii_case("vary")) else {
        headers.push(("Vary", "Accept-Encoding".to_owned()));
        return;
    };
    let named = |item: &str| item == "*" || item.eq_ignore_ascii_case("accept-encoding");
    if !vary.split(',').any(|item| named(item.trim())) {
        vary.push_str(", Accept-Encoding");
    }
}

/// The coding that the client likes best (RFC 9110 12.5.3); `None` when it names none, or likes `identity` better.
///
/// What cannot be read is as if it were not there; of two weights for one coding the first counts. A client that
/// takes neither a coding of ours nor `identity` gets `identity`, not 406: an answer serves it better than none.
fn negotiate(request: &Request, effort: Effort) -> Option<Coding> {
    let items = values(request, "accept-encoding").flat_map(|value| value.split(',')).filter_map(decode_item);
    let weight_of = |names: &[&str]| {
        let named = |(item, _): &(&str, u16)| names.iter().any(|name| item.eq_ignore_ascii_case(name));
        items.clone().find(named).map(|(_, weight)| weight)
    };
    let (others, identity) = (weight_of(&["*"]).unwrap_or(0), weight_of(&["identity"]).unwrap_or(0));
    let mut best = None;
    let mut most = identity.max(1);
    let codings = if effort == Effort::Little { Coding::FASTEST_FIRST } else { Coding::ALL };
    for coding in codings {
        let weight = weight_of(coding.names()).unwrap_or(others);
        if weight > most || (weight == most && best.is_none()) {
            (best, most) = (Some(coding), weight);
        }
    }
    best
}

/// `codings [ weight ]`: the name and its weight in thousandths, 1000 when none is given.
fn decode_item(item: &str) -> Option<(&str, u16)> {
    let (name, weight) = match item.split_once(';') {
        None => (item, 1000),
        Some((name, parameter)) => {
            let (key, weight) = parameter.trim().split_once('=')?;
            if !key.eq_ignore_ascii_case("q") {
                return None;
            }
            (name, decode_weight(weight)?)
        }
    };
    let name = name.trim();
    (!name.is_empty()).then_some((name, weight))
}

/// `qvalue`: 0 to 1 with at most three decimals (RFC 9110 12.4.2), in thousandths.
fn decode_weight(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = decimals.bytes().chain(std::iter::repeat(b'0')).take(3);
    let thousandths = digits.fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

const _: () = assert!(BROTLI_BLOCK_BYTES.is_multiple_of(SLICE_BYTES), "a block ends with a slice");
const _: () = assert!(BROTLI_BLOCK_BYTES.is_multiple_of(FAST_SLICE_BYTES), "a block ends with a slice");

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::base::Random;
    use crate::wire::http::Method;

    const ON: Settings = Settings { level: 6, bytes_min: 1024 };

    fn request(headers: &[(&str, &str)]) -> Request {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Request { method: Method::Get, path: "/".into(), query: String::new(), headers, body: Bytes::new() }
    }

    /// What a client that sends these `Accept-Encoding` fields gets.
    fn chosen(fields: &[&str]) -> Option<&'static str> {
        let headers: Vec<_> = fields.iter().map(|field| ("accept-encoding", *field)).collect();
        negotiate(&request(&headers), Effort::Usual).map(Coding::name)
    }

    fn text(bytes: usize) -> Response {
        let body = "{\"name\":\"Ann\"},".bytes().cycle().take(bytes).collect::<Vec<_>>();
        Response { body: body.into(), ..Response::json(200, &()) }
    }

    fn header<'a>(response: &'a Response, name: &str) -> Vec<&'a str> {
        response.headers.iter().filter(|(header, _)| *header == name).map(|(_, value)| value.as_str()).collect()
    }

    /// Chooses and encodes as the shard does, for a client that takes `accepted`.
    fn encoded(settings: &Settings, accepted: &str, mut response: Response) -> Response {
        if let Some(coding) = choose(settings, &request(&[("accept-encoding", accepted)]), &mut response) {
            let mut encoding = Encoding::new(coding, settings.level(response.effort), response.body.clone());
            while encoding.step() {}
            encoding.finish(&mut response);
        }
        response
    }

    fn decoded(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match coding {
            Coding::Brotli => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut out).unwrap(),
            Coding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).unwrap(),
            Coding::Deflate => flate2::read::ZlibDecoder::new(bytes).read_to_end(&mut out).unwrap(),
        };
        out
    }

    #[test]
    fn the_client_s_weights_decide_and_equal_ones_fall_to_br_then_gzip() {
        for (field, expected) in [
            ("gzip, deflate, br, zstd", Some("br")),
            ("deflate, gzip", Some("gzip")),
            ("deflate", Some("deflate")),
            ("br;q=0.8, gzip;q=0.9, deflate;q=0.85", Some("gzip")),
            ("BR;Q=0.001", Some("br")),
            ("br ; q=0.5 ,\tgzip\t;\tq=0.6", Some("gzip")),
            ("x-gzip", Some("gzip")),
            ("*", Some("br")),
            ("*;q=0.5, br;q=0", Some("gzip")),
            ("*;q=0.5, deflate", Some("deflate")),
            ("br;q=0, gzip;q=0.000, deflate", Some("deflate")),
            ("gzip;q=1.000, br;q=0.999", Some("gzip")),
        ] {
            assert_eq!(chosen(&[field]), expected, "{field}");
        }
    }

    #[test]
    fn where_speed_counts_gzip_at_a_low_level_comes_first_but_the_client_s_weights_still_decide() {
        let little = || Response { effort: Effort::Little, ..text(5000) };
        for (accepted, expected) in [("br, gzip", "gzip"), ("br, deflate", "deflate"), ("gzip;q=0.5, br", "br")] {
            assert_eq!(header(&encoded(&ON, accepted, little()), "Content-Encoding"), [expected], "{accepted}");
        }
        let low = Settings { level: FAST_LEVEL, ..ON };
        assert_eq!(encoded(&ON, "gzip", little()).body, encoded(&low, "gzip", text(5000)).body);
        assert_eq!([0, 1, 9].map(|level| Settings { level, ..ON }.level(Effort::Little)), [0, 1, FAST_LEVEL]);
    }

    #[test]
    fn without_a_coding_that_it_takes_a_client_gets_identity() {
        for field in
            ["", " , ,", "identity", "zstd, compress", "br;q=0", "*;q=0", "identity;q=0", "*;q=0, identity;q=0"]
        {
            assert_eq!(chosen(&[field]), None, "{field}");
        }
        assert_eq!(chosen(&[]), None);
    }

    #[test]
    fn identity_is_taken_only_where_it_is_liked_better() {
        assert_eq!(chosen(&["identity, gzip;q=0.5"]), None);
        assert_eq!(chosen(&["identity;q=0.5, gzip;q=0.5"]), Some("gzip"));
        assert_eq!(chosen(&["identity;q=0, gzip;q=0.1"]), Some("gzip"));
        assert_eq!(chosen(&["*;q=0, gzip"]), Some("gzip"));
    }

    #[test]
    fn several_fields_are_one_list() {
        assert_eq!(chosen(&["gzip;q=0.5", "br;q=0.4", "deflate;q=0.6"]), Some("deflate"));
        assert_eq!(chosen(&["gzip;q=0", "gzip"]), None);
    }

    #[test]
    fn malformed_items_are_ignored_and_the_others_count() {
        for item in [
            "br;q=2",
            "br;q=1.001",
            "br;q=0.1234",
            "br;q=",
            "br;q",
            "br;q=-1",
            "br;q=.5",
            "br;q=0,5",
            "br;level=1",
            "br;;q=1",
            "br;q=1;x=y",
            "b r",
            ";q=1",
            "=",
            "br;q=0x1",
            "br; q = 1",
        ] {
            let gets = chosen(&[&format!("{item}, deflate;q=0.2")]);
            assert_eq!(gets, Some("deflate"), "{item}");
        }
    }

    #[test]
    fn every_body_decodes_to_itself_at_every_level() {
        let mut random = Random::from_seed(1);
        for coding in Coding::ALL {
            for level in 1..=9 {
                for bytes in [1024, SLICE_BYTES, SLICE_BYTES + 1, BROTLI_BLOCK_BYTES, 200_001] {
                    let mut body = text(bytes).body.to_vec();
                    body.iter_mut().step_by(37).for_each(|byte| *byte = random.below(256) as u8);
                    let response = Response { body: body.clone().into(), ..text(0) };
                    let response = encoded(&Settings { level, ..ON }, coding.name(), response);
                    assert_eq!(header(&response, "Content-Encoding"), [coding.name()]);
                    assert!(response.body.len() < bytes / 2);
                    assert!(decoded(coding, &response.body) == body, "{coding:?} {level} {bytes}");
                }
            }
        }
    }

    #[test]
    fn what_is_left_of_one_body_leaves_no_trace_in_the_next() {
        let mut spare = Spare::default();
        for (level, bytes) in [(2, 5_000), (2, 200_001), (6, 70_000), (6, 1_024), (2, 1_500), (2, 40)] {
            let fresh = encoded(&Settings { level, bytes_min: 0 }, "gzip", text(bytes));
            let mut reused = text(bytes);
            let mut encoding = Encoding::reusing(&mut spare, Coding::Gzip, level, reused.body.clone());
            assert!(spare.0.is_none() || spare.0.as_ref().is_some_and(|(left, _)| *left != level));
            while encoding.step() {}
            spare.keep(encoding.finish(&mut reused));
            assert!(reused.body == fresh.body, "{level} {bytes}");
        }
        spare.keep(Spare::default());
        assert!(spare.0.is_some());
    }

    #[test]
    fn a_large_body_is_encoded_fast_and_a_larger_one_not_at_all() {
        let large = text(FULLY_COMPRESSED_BYTES_MAX + 1);
        let (best, fastest) = (Settings { level: 9, ..ON }, Settings { level: 1, ..ON });
        for coding in Coding::ALL {
            let response = encoded(&best, coding.name(), large.clone());
            assert_eq!(response.body, encoded(&fastest, coding.name(), large.clone()).body);
            assert!(decoded(coding, &response.body) == large.body);
        }
        let response = encoded(&ON, "br", text(COMPRESSED_BYTES_MAX + 1));
        assert_eq!(response.body.len(), COMPRESSED_BYTES_MAX + 1);
    }

    #[test]
    fn a_slice_is_all_that_one_step_takes() {
        let mut encoding = Encoding::new(Coding::Gzip, 6, text(3 * SLICE_BYTES).body);
        assert_eq!([encoding.step(), encoding.step(), encoding.step()], [true, true, false]);
        assert!(!Encoding::new(Coding::Gzip, 6, text(SLICE_BYTES).body).step());
        assert!(!Encoding::new(Coding::Gzip, FAST_LEVEL, text(FAST_SLICE_BYTES).body).step());
    }

    #[test]
    fn the_threshold_is_the_first_length_that_is_encoded() {
        assert_eq!(header(&encoded(&ON, "gzip", text(1024)), "Content-Encoding"), ["gzip"]);
        let small = encoded(&ON, "gzip", text(1023));
        assert_eq!((header(&small, "Content-Encoding").len(), header(&small, "Vary")), (0, vec!["Accept-Encoding"]));
        let eager = Settings { bytes_min: 0, ..ON };
        assert_eq!(header(&encoded(&eager, "gzip", text(100)), "Content-Encoding"), ["gzip"]);
    }

    #[test]
    fn what_becomes_no_smaller_is_left_as_it_is() {
        let mut random = Random::from_seed(2);
        let noise: Vec<u8> = (0..40_000).map(|_| random.below(256) as u8).collect();
        for (body, settings) in [(noise, ON), (b"{}".to_vec(), Settings { bytes_min: 0, ..ON })] {
            for coding in Coding::ALL {
                let response = Response { body: body.clone().into(), ..text(0) }.header("ETag", "\"a\"");
                let response = encoded(&settings, coding.name(), response);
                assert!(response.body == body && header(&response, "Content-Encoding").is_empty());
                assert_eq!((header(&response, "ETag"), header(&response, "Vary").len()), (vec!["\"a\""], 1));
            }
        }
    }

    #[test]
    fn level_0_and_what_may_have_no_coding_are_left_without_a_vary() {
        let untouched = |settings: &Settings, response: Response| {
            let length = response.body.len();
            let response = encoded(settings, "br, gzip", response);
            let encodings = header(&response, "Content-Encoding").iter().filter(|coding| **coding != "zstd").count();
            assert_eq!(
                (response.body.len(), encodings, header(&response, "Vary").len()),
                (length, 0, 0),
                "{response:?}"
            );
        };
        untouched(&Settings { level: 0, ..ON }, text(5000));
        untouched(&ON, text(5000).header("Content-Encoding", "zstd"));
        untouched(&ON, text(5000).header("Cache-Control", "max-age=5, No-Transform"));
        for status in [101, 204, 206, 304] {
            untouched(&ON, Response { status, ..text(5000) });
        }
        for content_type in [
            "image/png",
            "Video/mp4",
            "audio/ogg; codecs=opus",
            "application/zip",
            "application/gzip",
            "application/vnd.rar",
            "application/PDF;a=b",
            "",
        ] {
            untouched(&ON, Response { content_type, ..text(5000) });
        }
    }

    #[test]
    fn text_of_any_kind_and_any_status_with_a_body_is_encoded() {
        for content_type in
            ["text/html", "application/json; charset=utf-8", "text/plain;x=image/png", "application/zipper"]
        {
            let response = encoded(&ON, "gzip", Response { content_type, status: 404, ..text(5000) });
            assert_eq!(header(&response, "Content-Encoding"), ["gzip"], "{content_type}");
        }
    }

    #[test]
    fn x_no_compression_turns_it_off_for_a_request() {
        let mut response = text(5000);
        let asks = request(&[("accept-encoding", "br"), ("x-no-compression", "")]);
        assert_eq!(choose(&ON, &asks, &mut response), None);
        assert_eq!(header(&response, "Vary"), ["Accept-Encoding"]);
    }

    #[test]
    fn vary_is_one_field_that_names_accept_encoding_once() {
        for (before, after) in
            [("Origin", "Origin, Accept-Encoding"), ("Origin, accept-encoding", "Origin, accept-encoding"), ("*", "*")]
        {
            let response = encoded(&ON, "identity", text(5000).header("Vary", before));
            assert_eq!(header(&response, "Vary"), [after]);
        }
    }

    #[test]
    fn the_entity_tag_of_an_encoded_body_is_weak() {
        for (before, after) in [("\"a\"", "W/\"a\""), ("W/\"a\"", "W/\"a\"")] {
            assert_eq!(header(&encoded(&ON, "gzip", text(5000).header("ETag", before)), "ETag"), [after]);
        }
    }
}

//! Connections driven by bytes and virtual time alone. [`Client`] does the calling: it feeds a [`Conn`], polls it
//! dry, answers what is asked, and keeps a transcript of what came out.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::Bytes;
use duet::base::{EngineSid, Random, ShardId, Time, Token, UserId, limits};
use duet::conn::{Batch, CloseReason, Conn, Output, Settings};
use duet::wire::deflate::{Deflater, Inflater, Policy};
use duet::wire::http::{Method, Response};
use duet::wire::proxy::LOCAL;
use duet::wire::upgrade::EngineRefusal;
use duet::wire::websocket::{Control, Data, EncodedHeader, OpCode, apply_mask};

const TEXT: OpCode = OpCode::Data(Data::Text);
const BINARY: OpCode = OpCode::Data(Data::Binary);
const CONTINUE: OpCode = OpCode::Data(Data::Continue);
const CLOSE: OpCode = OpCode::Control(Control::Close);
const PING: OpCode = OpCode::Control(Control::Ping);
const PONG: OpCode = OpCode::Control(Control::Pong);
const ROOM: &str = "2f1f3c58-9d5b-4a3e-8f6a-0d1c2b3a4958";

/// A peer and its connection, at a virtual time.
struct Client {
    conn: Conn,
    now: Time,
    /// What came out, one entry a response, frame or other output.
    transcript: Vec<String>,
    /// Written, not yet a whole response or frame.
    sent: Vec<u8>,
    /// Whether the request was HEAD, so that the next response has no body.
    is_bodiless: bool,
    /// Whether requests and connects are answered as they come.
    answers: bool,
    /// Whether what is written reaches the peer.
    reads: bool,
}

impl Client {
    fn new() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        let (now, peer) = (Time(784_111_777_000), IpAddr::V4(Ipv4Addr::LOCALHOST));
        let conn = Conn::new(now, Arc::new(settings), peer, [7; 16]);
        Self { conn, now, transcript: Vec::new(), sent: Vec::new(), is_bodiless: false, answers: true, reads: true }
    }

    /// A Socket.IO client after its upgrade.
    fn opened() -> Self {
        let mut client = Self::new();
        client.say(&upgrade("/socket.io/?EIO=4&transport=websocket"));
        client.transcript.clear();
        client
    }

    /// A Socket.IO client after its CONNECT.
    fn connected() -> Self {
        let mut client = Self::opened();
        client.say(&text("40"));
        client.transcript.clear();
        client
    }

    /// A client of `/ws`.
    fn plain() -> Self {
        let mut client = Self::new();
        client.say(&upgrade("/ws"));
        client.transcript.clear();
        client
    }

    fn say(&mut self, bytes: &[u8]) -> &mut Self {
        self.conn.receive(self.now, &mut bytes.to_vec());
        self.drain()
    }

    fn end(&mut self) -> &mut Self {
        self.conn.end_of_stream(self.now);
        self.drain()
    }

    /// Lets time pass, and every deadline in it.
    fn wait(&mut self, ms: u64) -> &mut Self {
        let end = self.now + ms;
        while let Some(deadline) = self.conn.deadline().filter(|deadline| *deadline <= end) {
            self.now = deadline.max(self.now);
            self.conn.timeout(self.now);
            self.drain();
        }
        self.now = end;
        self
    }

    fn close(&mut self, reason: CloseReason) -> &mut Self {
        self.conn.close(self.now, reason);
        self.drain()
    }

    fn respond(&mut self, status: u16) -> &mut Self {
        self.conn.respond(self.now, Response::empty(status));
        self.drain()
    }

    fn accept(&mut self) -> &mut Self {
        self.conn.accept_connect(self.now);
        self.drain()
    }

    fn refuse(&mut self, message: &str) -> &mut Self {
        self.conn.refuse_connect(self.now, message);
        self.drain()
    }

    fn send(&mut self, event: &Bytes) -> &mut Self {
        self.conn.send(self.now, event);
        self.drain()
    }

    fn drain(&mut self) -> &mut Self {
        loop {
            self.take_chunks();
            let Some(output) = self.conn.poll() else { return self };
            assert!(!self.transcript.last().is_some_and(|last| last.starts_with("close ")), "nothing follows a close");
            match output {
                Output::Request(request) => {
                    self.is_bodiless = request.method == Method::Head;
                    let body = String::from_utf8_lossy(&request.body);
                    self.transcript.push(format!("{:?} {} {body}", request.method, request.path).trim_end().to_owned());
                    if self.answers {
                        self.conn.respond(self.now, Response::json(200, &request.path));
                    }
                }
                Output::Engine { ask, .. } => {
                    self.transcript.push(match ask {
                        Ok(ask) => format!("{ask:?}"),
                        Err(refusal) => format!("refused {refusal:?}"),
                    });
                    if self.answers {
                        let response = ask.map_or_else(EngineRefusal::response, |_| Response::empty(200));
                        self.conn.respond(self.now, response);
                    }
                }
                Output::PostFailed { reason, .. } => self.transcript.push(format!("post failed {}", reason.as_str())),
                Output::Probed(_) => self.transcript.push("probed".to_owned()),
                Output::Upgraded(_) => self.transcript.push("upgraded".to_owned()),
                Output::Acknowledge(id) => {
                    self.transcript.push(format!("acknowledge {id}"));
                    self.conn.acknowledge(self.now, &id);
                }
                Output::Connect { token } => {
                    self.transcript.push(format!("connect {}", if token.is_some() { "token" } else { "-" }));
                    if self.answers {
                        self.conn.accept_connect(self.now);
                    }
                }
                Output::Event(event) => self.transcript.push(format!("event {}", event.name())),
                Output::Refused(text) => self.transcript.push(format!("refused {text}")),
                Output::OverBudget { class, is_last } => {
                    self.transcript.push(format!("over budget {class:?}{}", if is_last { ", the last" } else { "" }));
                }
                Output::Left(leave) => self.transcript.push(format!("left {leave:?}")),
                Output::Close(reason) => self.transcript.push(format!("close {}", reason.as_str())),
            }
        }
    }

    fn take_chunks(&mut self) {
        if self.conn.is_polling() {
            return;
        }
        for chunk in std::mem::take(self.conn.chunks()) {
            if self.reads {
                self.conn.written(chunk.len());
            }
            self.sent.extend_from_slice(&chunk);
        }
        while let Some((line, length)) = describe(&self.sent, self.is_bodiless) {
            self.transcript.push(line);
            self.sent.drain(..length);
            self.is_bodiless = false;
        }
    }

    /// What the peer hears and what the shard is asked, each in order; between the two there is none.
    fn sides(&self) -> (Vec<String>, Vec<String>) {
        let asked = ["event ", "connect ", "refused ", "left ", "close ", "Get ", "Post ", "Put ", "Head "];
        self.transcript.iter().cloned().partition(|line| asked.iter().any(|word| line.starts_with(word)))
    }

    fn heard(&self) -> String {
        self.transcript.join("; ")
    }
}

/// The response or frame that `sent` starts with, in words, and its length.
fn describe(sent: &[u8], is_bodiless: bool) -> Option<(String, usize)> {
    if sent.starts_with(b"HTTP/") {
        let end = sent.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = std::str::from_utf8(&sent[..end]).unwrap();
        let length =
            head.split("Content-Length: ").nth(1).map_or(0, |rest| rest.lines().next().unwrap().parse().unwrap());
        let length = if is_bodiless { 0 } else { length };
        let body = sent.get(end..end + length)?;
        let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let text = json.get("error").or(json.get("message")).unwrap_or(&json).as_str().unwrap_or("");
        return Some((format!("{} {text}", &head[9..12]).trim_end().to_owned(), end + length));
    }
    let (length, start) = match *sent.get(1)? {
        126 => (u16::from_be_bytes([*sent.get(2)?, *sent.get(3)?]).into(), 4),
        127 => (u64::from_be_bytes(sent.get(2..10)?.try_into().unwrap()) as usize, 10),
        length => (usize::from(length), 2),
    };
    let payload = sent.get(start..start + length)?;
    let words = match sent[0] {
        0x81 => String::from_utf8_lossy(payload).into_owned(),
        0x88 if payload.is_empty() => "bye".to_owned(),
        0x88 => format!("bye {}", u16::from_be_bytes([payload[0], payload[1]])),
        0x89 => "ping".to_owned(),
        0x8a => format!("pong {}", String::from_utf8_lossy(payload)),
        other => panic!("a server sends no frame {other:x}"),
    };
    Some((words, start + length))
}

fn frame(is_final: bool, opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    let mut bytes = EncodedHeader::new(opcode, payload.len()).as_bytes().to_vec();
    bytes[0] &= if is_final { 0xff } else { 0x7f };
    bytes[1] |= 0x80;
    let (mask, mut payload) = ([0x12, 0x34, 0x56, 0x78], payload.to_vec());
    apply_mask(&mut payload, mask);
    bytes.extend_from_slice(&mask);
    bytes.extend_from_slice(&payload);
    bytes
}

fn text(payload: &str) -> Vec<u8> {
    frame(true, TEXT, payload.as_bytes())
}

fn upgrade(target: &str) -> Vec<u8> {
    format!(
        "GET {target} HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes()
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes()
}

/// Whole conversations that end well; each says more than one thing.
fn conversations() -> Vec<Vec<u8>> {
    let token = {
        let mut random = Random::from_seed(9);
        Token::draw(UserId::draw(&mut random), &mut random).encode()
    };
    let http = [
        get("/a"),
        b"\r\nPOST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello".to_vec(),
        b"PUT /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: 1\r\n\r\n"
            .to_vec(),
        b"HEAD /d HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_vec(),
        b"GET /e HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_vec(),
    ];
    let socket = [
        upgrade("/socket.io/?EIO=4&transport=websocket"),
        text("40/admin,"),
        text(&format!(r#"40{{"token":"{token}"}}"#)),
        text(r#"42["auth",{"sessionToken":"x"}]"#),
        frame(false, TEXT, br#"42["room:chat",{"roomId":"r","text":"caf"#),
        frame(true, PING, b"hi"),
        frame(false, CONTINUE, b"\xc3"),
        frame(true, CONTINUE, b"\xa9\"}]"),
        text(r#"42["queue:join"]"#),
        text(r#"42["no:such"]"#),
        text(r#"42["call:invite"]"#),
        text("6"),
        text("3"),
        text("41"),
        frame(true, CLOSE, b"\x03\xe8"),
    ];
    let plain = [
        get("/before"),
        upgrade("/ws"),
        text(r#"["auth",{}]"#),
        frame(true, PONG, b""),
        text(&format!(r#"["rtc:offer",{{"roomId":"{ROOM}","offer":{{"sdp":"{}"}}}}]"#, "v".repeat(300))),
        frame(true, CLOSE, b"\x03\xe8bye"),
    ];
    vec![http.concat(), socket.concat(), plain.concat()]
}

#[test]
fn conversations_go_as_the_protocols_say() {
    let heard: Vec<String> = conversations().iter().map(|bytes| Client::new().say(bytes).heard()).collect();
    assert_eq!(
        heard[0],
        "Get /a; 200 /a; 100; Post /b hello; 200 /b; Put /c abcde; 200 /c; Head /d; 200; Get /e; 200 /e; close finished"
    );
    let socket = &heard[1];
    assert!(socket.starts_with(r#"101; 0{"sid":""#), "{socket}");
    let rest = socket.split_once("maxPayload\":1000000}; ").unwrap().1;
    let (refusal, rest) = rest.split_once("; connect token; ").unwrap();
    assert_eq!(refusal, r#"44/admin,{"message":"Invalid namespace"}"#);
    let (accepted, rest) = rest.split_once("; ").unwrap();
    assert!(accepted.starts_with(r#"40{"sid":""#) && accepted.len() == 32, "{accepted}");
    assert_eq!(
        rest,
        "pong hi; bye 1000; event auth; event room:chat; event queue:join; refused toUserId must be a string; \
         left Deliberate; close client_disconnect"
    );
    assert_eq!(
        heard[2],
        "Get /before; 200 /before; 101; connect -; bye 1000; event auth; event rtc:offer; left Deliberate; \
         close peer_closed"
    );
}

#[test]
fn input_split_anywhere_gives_the_same_outputs() {
    for bytes in conversations() {
        let whole = Client::new().say(&bytes).sides();
        for split in 0..=bytes.len() {
            assert_eq!(Client::new().say(&bytes[..split]).say(&bytes[split..]).sides(), whole, "split at {split}");
        }
        let mut client = Client::new();
        for byte in &bytes {
            client.say(&[*byte]);
        }
        assert_eq!(client.sides(), whole, "byte by byte");
    }
}

/// A name, the bytes, and what is heard.
type Case = (&'static str, Vec<u8>, &'static str);

fn head(line: &str, headers: &str) -> Vec<u8> {
    format!("{line}\r\n{headers}\r\n").into_bytes()
}

fn post(headers: &str, body: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: x\r\n{headers}\r\n{body}").into_bytes()
}

/// Malformed heads, and what each is told before the connection ends.
fn hostile_heads() -> Vec<Case> {
    let bad_request = "400 Malformed request; close bad_request";
    let bad_line = "400 Lines must end in CRLF; close bad_request";
    let bad_target = "400 Malformed request target; close bad_request";
    let bad_host = "400 Exactly one valid Host is required; close bad_request";
    let bad_method = "501 Method not supported; close bad_request";
    let bad_version = "505 HTTP version not supported; close bad_request";
    vec![
        ("garbage", b"\x16\x03\x01\x02\x00\r\n\r\n".to_vec(), bad_request),
        ("no version", head("GET /", "Host: x\r\n"), bad_request),
        ("empty target", head("GET  HTTP/1.1", "Host: x\r\n"), bad_request),
        ("two spaces", head("GET  / HTTP/1.1", "Host: x\r\n"), bad_request),
        ("leading space", head(" GET / HTTP/1.1", "Host: x\r\n"), bad_request),
        ("space after the version", head("GET / HTTP/1.1 ", "Host: x\r\n"), bad_request),
        ("other protocol", head("GET / HTTQ/1.1", "Host: x\r\n"), bad_request),
        ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), bad_version),
        ("HTTP/1.2", head("GET / HTTP/1.2", "Host: x\r\n"), bad_version),
        ("HTTP/0.9 named", head("GET / HTTP/0.9", ""), bad_version),
        ("unknown method", head("BREW / HTTP/1.1", "Host: x\r\n"), bad_method),
        ("method in lower case", head("get / HTTP/1.1", "Host: x\r\n"), bad_method),
        ("CONNECT", head("CONNECT x:443 HTTP/1.1", "Host: x\r\n"), bad_method),
        ("TRACE", head("TRACE / HTTP/1.1", "Host: x\r\n"), bad_method),
        ("relative target", head("GET a HTTP/1.1", "Host: x\r\n"), bad_target),
        ("fragment", head("GET /a#b HTTP/1.1", "Host: x\r\n"), bad_target),
        ("asterisk of GET", head("GET * HTTP/1.1", "Host: x\r\n"), bad_target),
        ("target beyond ASCII", head("GET /\u{e9} HTTP/1.1", "Host: x\r\n"), bad_target),
        ("absolute without authority", head("GET http:///a HTTP/1.1", "Host: x\r\n"), bad_target),
        ("absolute with userinfo", head("GET http://u@x/ HTTP/1.1", "Host: x\r\n"), bad_target),
        ("foreign scheme", head("GET ftp://x/ HTTP/1.1", "Host: x\r\n"), bad_target),
        ("bare LF", b"GET / HTTP/1.1\nHost: x\n\n".to_vec(), bad_line),
        ("bare LF after a header", b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n".to_vec(), bad_line),
        ("bare CR in a value", head("GET / HTTP/1.1", "Host: x\r\nA: b\rc\r\n"), bad_line),
        ("leading bare LF", b"\nGET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), bad_line),
        ("obsolete folding", head("GET / HTTP/1.1", "Host: x\r\nA: b\r\n c\r\n"), bad_request),
        ("space before the colon", head("GET / HTTP/1.1", "Host : x\r\n"), bad_request),
        ("first header folded", head("GET / HTTP/1.1", " Host: x\r\n"), bad_request),
        ("no colon", head("GET / HTTP/1.1", "Host: x\r\nA\r\n"), bad_request),
        ("no name", head("GET / HTTP/1.1", "Host: x\r\n: b\r\n"), bad_request),
        ("NUL in a value", head("GET / HTTP/1.1", "Host: x\r\nA: \0\r\n"), bad_request),
        ("no Host", head("GET / HTTP/1.1", ""), bad_host),
        ("two Hosts", head("GET / HTTP/1.1", "Host: x\r\nhost: x\r\n"), bad_host),
        ("Host with a path", head("GET / HTTP/1.1", "Host: x/y\r\n"), bad_host),
        ("Host with a space", head("GET / HTTP/1.0", "Host: x y\r\n"), bad_host),
        (
            "too many headers",
            head("GET / HTTP/1.1", &"A: b\r\n".repeat(65)),
            "431 Too many header fields; close bad_request",
        ),
        ("endless request line", vec![b'a'; 20_000], "414 Request target too long; close bad_request"),
        (
            "endless header",
            [&b"GET / HTTP/1.1\r\nA: "[..], &[b'a'; 20_000]].concat(),
            "431 Request head too large; close bad_request",
        ),
        (
            "long head",
            head("GET / HTTP/1.1", &format!("A: {}\r\n", "b".repeat(16_384))),
            "431 Request head too large; close bad_request",
        ),
    ]
}

/// Bodies that two parsers could delimit differently, and what each is told.
fn hostile_framings() -> Vec<Case> {
    let bad_length = "400 Malformed Content-Length; close bad_request";
    let ambiguous = "400 Ambiguous body length; close bad_request";
    let bad_coding = "501 Transfer coding not supported; close bad_request";
    let too_large = "413 Request body too large; close message_too_big";
    vec![
        ("both framings", post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), ambiguous),
        ("both framings, swapped", post("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", "0\r\n\r\n"), ambiguous),
        ("two lengths", post("Content-Length: 3\r\nContent-Length: 3\r\n", "abc"), ambiguous),
        ("length list", post("Content-Length: 3, 3\r\n", "abc"), bad_length),
        ("signed length", post("Content-Length: +3\r\n", "abc"), bad_length),
        ("negative length", post("Content-Length: -1\r\n", ""), bad_length),
        ("hexadecimal length", post("Content-Length: 0x3\r\n", "abc"), bad_length),
        ("empty length", post("Content-Length:\r\n", ""), bad_length),
        ("body over the limit", post("Content-Length: 102401\r\n", "a"), too_large),
        ("length beyond 64 bits", post("Content-Length: 99999999999999999999999\r\n", ""), too_large),
        ("coding other than chunked", post("Transfer-Encoding: gzip, chunked\r\n", ""), bad_coding),
        ("identity coding", post("Transfer-Encoding: identity\r\n", ""), bad_coding),
        ("disguised chunked", post("Transfer-Encoding: xchunked\r\n", ""), bad_coding),
        ("quoted chunked", post("Transfer-Encoding: \"chunked\"\r\n", ""), bad_coding),
        ("chunked twice", post("Transfer-Encoding: chunked, chunked\r\n", ""), ambiguous),
        ("chunked in two headers", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", ""), ambiguous),
        ("empty coding", post("Transfer-Encoding:\r\n", ""), ambiguous),
        ("chunked over HTTP/1.0", head("POST / HTTP/1.0", "Transfer-Encoding: chunked\r\n"), ambiguous),
        (
            "unknown expectation",
            post("Expect: 200-maybe\r\nContent-Length: 1\r\n", "a"),
            "417 Expectation not supported; close bad_request",
        ),
    ]
}

/// Chunks that are none, and what each is told.
fn hostile_chunks() -> Vec<Case> {
    let chunked = |body: &str| post("Transfer-Encoding: chunked\r\n", body);
    let bad_chunk = "400 Malformed chunk; close bad_request";
    let too_large = "413 Request body too large; close message_too_big";
    let extra = "431 Chunk extensions or trailers too large; close bad_request";
    vec![
        ("chunk without a size", chunked("\r\nabc"), bad_chunk),
        ("chunk size not hexadecimal", chunked("g\r\n"), bad_chunk),
        ("chunk size with a sign", chunked("+3\r\nabc\r\n"), bad_chunk),
        ("chunk size with 0x", chunked("0x3\r\nabc\r\n"), bad_chunk),
        ("chunk size with a space", chunked("3 \r\nabc\r\n"), bad_chunk),
        ("chunk size of 17 digits", chunked("00000000000000003\r\n"), bad_chunk),
        ("chunk size by bare LF", chunked("3\nabc\r\n"), bad_chunk),
        ("bare LF in an extension", chunked("3;a\nb\r\nabc\r\n"), bad_chunk),
        ("chunk longer than its size", chunked("3\r\nabcd\r\n"), bad_chunk),
        ("chunk without its CRLF", chunked("3\r\nabc0\r\n\r\n"), bad_chunk),
        ("chunk over the limit", chunked("19001\r\n"), too_large),
        ("chunk size near overflow", chunked("ffffffffffffffff\r\n"), too_large),
        ("chunks over the limit", chunked(&format!("1\r\na\r\n19000\r\n{}", "b".repeat(102_400))), too_large),
        ("endless extension", chunked(&format!("3;{}", "x".repeat(5000))), extra),
        ("many extensions", chunked(&format!("1;{}\r\na\r\n", "x".repeat(100)).repeat(60)), extra),
        ("endless trailers", chunked(&format!("0\r\n{}", "A: b\r\n".repeat(2000))), extra),
        ("bare LF in trailers", chunked("0\r\nA: b\n\r\n"), bad_chunk),
    ]
}

/// Where the bytes are cut must not matter, even beyond the bound.
#[test]
fn an_overlong_head_is_refused_alike_however_it_comes() {
    let head = [&b"GET /"[..], &[b'a'; 16_400], b"\nX"].concat();
    let whole = Client::new().say(&head).heard();
    for cut in [1, 16_383, 16_384, 16_385, 16_390, head.len() - 1] {
        assert_eq!(Client::new().say(&head[..cut]).say(&head[cut..]).heard(), whole, "cut at {cut}");
    }
    assert_eq!(whole, "414 Request target too long");
}

/// Handshakes that fail, and what each is told.
fn hostile_handshakes() -> Vec<Case> {
    let open = "/socket.io/?EIO=4&transport=websocket";
    let changed =
        |target: &str, from: &str, to: &str| String::from_utf8(upgrade(target)).unwrap().replace(from, to).into_bytes();
    let bad_key = "400 Malformed Sec-WebSocket-Key; close bad_request";
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    vec![
        ("no query", upgrade("/socket.io/"), "refused UnknownTransport; 400 Transport unknown; close peer_closed"),
        (
            "unknown transport",
            upgrade("/socket.io/?EIO=4&transport=tobi"),
            "refused UnknownTransport; 400 Transport unknown; close peer_closed",
        ),
        ("polling", get("/socket.io/?EIO=4&transport=polling&t=x"), "Open; 200; close peer_closed"),
        ("a sid", upgrade(&format!("{open}&sid=abc")), "refused UnknownSid; 400 Session ID unknown; close peer_closed"),
        (
            "a POST",
            changed(open, "GET", "POST"),
            "refused BadHandshakeMethod; 400 Bad handshake method; close peer_closed",
        ),
        (
            "no upgrade",
            get("/socket.io?transport=websocket&EIO=4"),
            "refused BadRequest; 400 Bad request; close peer_closed",
        ),
        (
            "no Connection: upgrade",
            changed(open, ", Upgrade", ""),
            "refused BadRequest; 400 Bad request; close peer_closed",
        ),
        (
            "over HTTP/1.0",
            changed(open, "HTTP/1.1", "HTTP/1.0"),
            "refused BadRequest; 400 Bad request; close peer_closed",
        ),
        (
            "Engine.IO 3",
            upgrade("/socket.io/?EIO=3&transport=websocket"),
            "refused UnsupportedProtocol; 400 Unsupported protocol version; close peer_closed",
        ),
        (
            "Engine.IO 3, polling",
            get("/socket.io/?EIO=3&transport=polling"),
            "refused UnsupportedProtocol; 400 Unsupported protocol version; close peer_closed",
        ),
        (
            "no EIO",
            upgrade("/socket.io/?transport=websocket"),
            "refused UnsupportedProtocol; 400 Unsupported protocol version; close peer_closed",
        ),
        (
            "WebSocket version 8",
            changed(open, "Version: 13", "Version: 8"),
            "426 WebSocket version 13 is required; close bad_request",
        ),
        ("no key", changed(open, "Key", "Lock"), bad_key),
        ("short key", changed(open, key, "AAAA"), bad_key),
        ("key that is not base64", changed("/ws", key, "!!!!!!!!!!!!!!!!!!!!!!=="), bad_key),
        (
            "two keys",
            changed("/ws", "\r\nUpgrade", "\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nUpgrade"),
            bad_key,
        ),
        ("a PUT", changed("/ws", "GET", "PUT"), "400 A WebSocket handshake must be a GET; close bad_request"),
    ]
}

/// Frames that end a connected Socket.IO session, and the close code each gets.
fn hostile_frames() -> Vec<(&'static str, Vec<u8>, u16)> {
    let raw = |first: u8, rest: &[u8]| [&[first], rest].concat();
    let close = |payload: &[u8]| frame(true, CLOSE, payload);
    vec![
        ("unmasked frame", raw(0x81, b"\x013"), 1002),
        ("RSV1 without an extension", raw(0xc1, b"\x80\0\0\0\0"), 1002),
        ("RSV2", raw(0xa1, b"\x80\0\0\0\0"), 1002),
        ("RSV3", raw(0x91, b"\x80\0\0\0\0"), 1002),
        ("reserved data opcode", raw(0x83, b"\x80\0\0\0\0"), 1002),
        ("reserved control opcode", raw(0x8b, b"\x80\0\0\0\0"), 1002),
        ("fragmented ping", frame(false, PING, b""), 1002),
        ("ping of 126 bytes", frame(true, PING, &[b'x'; 126]), 1002),
        ("close of 126 bytes", close(&[b'x'; 126]), 1002),
        ("length 125 in 16 bits", raw(0x81, b"\xfe\x00\x7d\0\0\0\0"), 1002),
        ("length 65535 in 64 bits", raw(0x81, b"\xff\0\0\0\0\0\0\xff\xff\0\0\0\0"), 1002),
        ("length with the top bit", raw(0x81, b"\xff\x80\0\0\0\0\x01\0\0\0\0\0\0"), 1002),
        ("length of 4 GiB", raw(0x81, b"\xff\0\0\0\x01\0\0\0\0\0\0\0\0"), 1009),
        ("message over the limit", raw(0x81, b"\xff\0\0\0\0\0\x0f\x42\x41\0\0\0\0"), 1009),
        (
            "fragments over the limit",
            [frame(false, TEXT, b"42"), raw(0x80, b"\xff\0\0\0\0\0\x0f\x42\x3f\0\0\0\0")].concat(),
            1009,
        ),
        ("continuation of nothing", frame(true, CONTINUE, b"x"), 1002),
        ("message inside a message", [frame(false, TEXT, b"4"), text("42")].concat(), 1002),
        ("text that is not UTF-8", frame(true, TEXT, b"42[\"\xff\"]"), 1007),
        ("surrogate in UTF-8", frame(true, TEXT, b"42[\"\xed\xa0\x80\"]"), 1007),
        ("UTF-8 cut by the end", [frame(false, TEXT, b"42[\"\xc3"), frame(true, CONTINUE, b"")].concat(), 1007),
        ("binary message", frame(true, BINARY, b"\x04"), 1003),
        ("binary fragments", [frame(false, BINARY, b"a"), frame(true, CONTINUE, b"b")].concat(), 1003),
        ("close of one byte", close(b"\x03"), 1002),
        ("close with code 999", close(b"\x03\xe7"), 1002),
        ("close with code 1005", close(b"\x03\xed"), 1002),
        ("close with code 1006", close(b"\x03\xee"), 1002),
        ("close with code 5000", close(b"\x13\x88"), 1002),
        ("close reason not UTF-8", close(b"\x03\xe8\xc3\x28"), 1007),
    ]
}

/// Packets that end a connected Socket.IO session, and the close code each gets.
fn hostile_packets() -> Vec<(&'static str, Vec<u8>, u16)> {
    vec![
        ("empty message", text(""), 1002),
        ("unknown packet type", text("9"), 1002),
        ("base64 binary", text("bAQID"), 1002),
        ("client ping", text("2"), 1002),
        ("probe", text("2probe"), 1002),
        ("message without a packet", text("4"), 1002),
        ("unknown Socket.IO type", text("47"), 1002),
        ("binary ack of another shape", text("461-1{}"), 1002),
        ("connect error from a client", text("44{}"), 1002),
        ("second connect", text("40"), 1002),
        ("event of another namespace", text("42/admin,[\"auth\"]"), 1002),
        ("event that is an object", text("42{}"), 1002),
        ("event without JSON", text("42"), 1002),
        ("event cut short", text("42[\"auth\""), 1002),
        ("event with a tail", text("42[\"auth\"]x"), 1002),
        ("event without a name", text("42[]"), 1002),
        ("event named by a number", text("42[1]"), 1002),
        ("event named by null", text("42[null]"), 1002),
        ("ack that is an object", text("431{}"), 1002),
        ("disconnect with data", text("41{}"), 1002),
        ("ack id of 16 digits", text("421234567890123456[\"auth\"]"), 1002),
        ("depth bomb", text(&format!("42[\"auth\",{}]", "[".repeat(5000))), 1002),
    ]
}

#[test]
fn hostile_requests_get_their_answer_and_nothing_else() {
    let cases = [hostile_heads(), hostile_framings(), hostile_chunks(), hostile_handshakes()].concat();
    assert!(cases.len() >= 60, "{}", cases.len());
    for (name, bytes, expected) in cases {
        assert_eq!(Client::new().say(&bytes).end().heard(), expected, "{name}");
        let mut slowly = Client::new();
        bytes.chunks(7).for_each(|piece| _ = slowly.say(piece));
        assert_eq!(slowly.end().heard(), expected, "{name}, slowly");
    }
}

#[test]
fn hostile_frames_close_with_their_code() {
    let cases = [hostile_frames(), hostile_packets()].concat();
    assert!(cases.len() >= 40, "{}", cases.len());
    for (name, bytes, code) in cases {
        let reason = if code == 1009 { "message_too_big" } else { "protocol_error" };
        let expected = format!("bye {code}; left Lost; close {reason}");
        assert_eq!(Client::connected().say(&bytes).end().heard(), expected, "{name}");
        let mut slowly = Client::connected();
        bytes.chunks(3).for_each(|piece| _ = slowly.say(piece));
        assert_eq!(slowly.end().heard(), expected, "{name}, slowly");
    }
}

#[test]
fn packets_out_of_turn_close_before_the_connect() {
    for early in ["42[\"auth\"]", "41", "43[]", "40[]", "40\"x\"", "40{", "44{}"] {
        assert_eq!(Client::opened().say(&text(early)).end().heard(), "bye 1002; close protocol_error", "{early}");
    }
}

#[test]
fn packets_that_engine_io_ignores_are_ignored() {
    let mut client = Client::connected();
    for stray in ["0", "3", "3probe", "5", "6", "430[]", "42[\"connect\"]", "42[\"no:such\",{}]"] {
        assert_eq!(client.say(&text(stray)).heard(), "", "{stray}");
    }
    assert!(client.conn.is_socket());
}

#[test]
fn an_event_that_asks_for_it_is_acknowledged_once_it_is_done() {
    let mut client = Client::connected();
    client.say(&text("4212[\"queue:join\"]")).say(&text("427[\"no:such\"]"));
    assert_eq!(client.heard(), "event queue:join; acknowledge 12; 4312[]; acknowledge 7; 437[]");
}

#[test]
fn attachments_complete_a_packet_that_no_event_takes() {
    let chat = r#"452-3["room:chat",{"a":{"_placeholder":true,"num":0},"b":{"_placeholder":true,"num":1}}]"#;
    let mut client = Client::connected();
    client.say(&text(chat)).say(&frame(true, BINARY, b"x")).say(&text("3"));
    assert_eq!(client.heard(), "");
    client.say(&frame(true, BINARY, b"y")).say(&text("42[\"queue:join\"]"));
    assert_eq!(client.heard(), "refused Binary data is not supported; acknowledge 3; 433[]; event queue:join");
}

/// The published faults of the clients' own parser, and our bounds.
#[test]
fn attachments_that_lie_close_the_session() {
    let placeholder = |number: &str| format!(r#"451-["x",{{"_placeholder":true,"num":{number}}}]"#);
    let mut lies: Vec<(String, &str)> = [
        "4511-[\"x\"]",
        "45-[\"x\"]",
        "45x-[\"x\"]",
        "45-1-[\"x\"]",
        "451[\"x\"]",
        "451-{}",
        "459999999999999-[\"x\"]",
        "451-[\"x\"",
    ]
    .map(|lie| (lie.to_owned(), "bye 1002; left Lost; close protocol_error"))
    .into();
    lies.extend(["1", "-1", "\"splice\"", "0.5", "null"].map(|number| (placeholder(number), lies[0].1)));
    for (lie, expected) in lies {
        assert_eq!(Client::connected().say(&text(&lie)).end().heard(), expected, "{lie}");
    }
    let early = [text(&placeholder("0")), text("42[\"queue:join\"]")].concat();
    assert_eq!(Client::connected().say(&early).end().heard(), "bye 1002; left Lost; close protocol_error");
    let late = Client::connected().say(&text(&placeholder("0"))).wait(limits::ATTACHMENTS_TIMEOUT_MS).heard();
    assert_eq!(late, "bye 1002; left Lost");
    let mut client = Client::connected();
    client.say(&text(r#"452-["x",{"_placeholder":true,"num":0}]"#));
    client.say(&frame(true, BINARY, &vec![0; 600_000])).say(&frame(true, BINARY, &vec![0; 400_000]));
    assert_eq!(client.end().heard(), "bye 1009; left Lost; close message_too_big");
}

/// What was published against the servers of JavaScript and others, each as the bytes that did the harm there.
#[test]
fn published_attacks_cost_their_sender_and_nobody_else() {
    let closed = "bye 1002; left Lost; close protocol_error";
    let events = [
        // CVE-2023-32695 (socket.io-parser): names of events that are no strings.
        (r#"42[{"toString":"foo"}]"#, closed),
        ("42[[]]", closed),
        ("42[]", closed),
        // CVE-2024-38355 (socket.io): an event named like one of the server's own.
        (r#"42["error","x"]"#, ""),
        (r#"42["__proto__",{"__proto__":{"x":1}}]"#, ""),
        (r#"42["constructor"]"#, ""),
        // CVE-2022-2421 (socket.io-parser): a placeholder that names a method.
        (r#"451-["x",{"_placeholder":true,"num":"splice"}]"#, closed),
        // CVE-2026-33151 (socket.io-parser): attachments without end.
        (r#"4511-["x",{"_placeholder":true,"num":0}]"#, closed),
        ("451000000-[]", closed),
        // GHSA-2m8v-j782-fhvr (socket.io-parser): a binary packet without attachments waits for none.
        (r#"450-["queue:join"]"#, "event queue:join"),
    ];
    for (packet, expected) in events {
        let mut client = Client::connected();
        client.say(&text(packet));
        if expected.ends_with("error") {
            client.end();
        }
        assert_eq!(client.heard(), expected, "{packet}");
        assert!(client.conn.held_bytes() < 2_048, "{packet}");
    }
    // CVE-2020-36048 (engine.io): a payload of nothing but packets, and one of nothing but separators.
    let mut crowded = polling();
    crowded.say(b"40").say("6\u{1e}".repeat(499_999).trim_end_matches('\u{1e}').as_bytes());
    assert_eq!((crowded.heard().as_str(), crowded.conn.is_socket()), ("connect -", true));
    assert!(crowded.conn.held_bytes() < 2_048);
    assert!(!polling().say(&[0x1e; 1_000_000]).conn.is_socket());
    // GHSA-55mf-67qm-4wpg (socketioxide): attachments of who has not connected.
    let early = Client::opened().say(&text(r#"451-["x",{"_placeholder":true,"num":0}]"#)).end().heard();
    assert_eq!(early, "bye 1002; close protocol_error");
    // GHSA-96hv-2xvq-fx4p (ws): an unfinished message of fragments as small as can be, or smaller.
    let mut fragments = Client::connected();
    fragments.say(&frame(false, TEXT, b"x"));
    fragments.say(&frame(false, CONTINUE, b"x").repeat(131_000)).say(&frame(false, CONTINUE, b"").repeat(100_000));
    assert!(fragments.conn.is_socket() && fragments.conn.held_bytes() < 300_000);
    // CVE-2024-37890 (ws): a handshake with more headers than the server reads.
    let head = String::from_utf8(upgrade("/ws")).unwrap();
    let many = head.replace("\r\nUpgrade", &format!("{}\r\nUpgrade", "\r\nA: b".repeat(2_000)));
    assert_eq!(Client::new().say(many.as_bytes()).heard(), "431 Too many header fields");
    // CVE-2021-32640 (ws): a subprotocol that is slow to split. CVE-2016-10542 and others: a length beyond all reason.
    let slow = head.replace("\r\nUpgrade", &format!("\r\nSec-WebSocket-Protocol: b{}x\r\nUpgrade", " ".repeat(15_000)));
    assert_eq!(Client::new().say(slow.as_bytes()).heard(), "101; connect -");
    let endless = [&[0x82, 0xff, 0x7f][..], &[0xff; 7], &[0; 4]].concat();
    assert_eq!(Client::connected().say(&endless).end().heard(), "bye 1009; left Lost; close message_too_big");
}

/// A session by polling: payloads go in and out by hand.
fn polling() -> Client {
    let mut client = Client::new();
    let sid = EngineSid::draw(ShardId(0), &mut Random::from_seed(1));
    client.conn = Conn::polling(client.now, &client.conn, "/socket.io/", [7; 16], sid).unwrap();
    let open = client.payload();
    assert!(open.starts_with(&format!(r#"0{{"sid":"{}","upgrades":["websocket"],"pi"#, sid.encode())), "{open}");
    client
}

impl Client {
    /// What a poll gets, packets separated by a space.
    fn payload(&mut self) -> String {
        let payload = self.conn.take_payload(self.now).map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
        payload.unwrap_or_default().replace('\u{1e}', " ")
    }
}

#[test]
fn a_session_by_polling_speaks_in_payloads() {
    let mut client = polling();
    assert_eq!(client.payload(), "");
    client.say(b"40\x1e42[\"queue:join\"]\x1e426[\"auth\",{}]");
    assert_eq!(client.heard(), "connect -; event queue:join; event auth; acknowledge 6");
    client.send(&Bytes::from_static(b"[\"one\"]")).send(&Bytes::from(format!("[{}]", "1".repeat(600))));
    assert!(client.conn.is_drained());
    let payload = client.payload();
    assert!(payload.starts_with("40{\"sid\":\"") && payload.ends_with("11]"), "{payload}");
    let packets: Vec<&str> = payload.split(' ').skip(1).collect();
    assert_eq!((packets.len(), packets[0], packets[1]), (3, "436[]", "42[\"one\"]"));
    client.conn.bind();
    client.wait(limits::PING_INTERVAL_MS);
    assert_eq!(client.payload(), "2");
    client.say(b"3").wait(limits::PING_INTERVAL_MS);
    assert_eq!(client.payload(), "2");
    client.wait(limits::PING_TIMEOUT_MS);
    assert_eq!((client.payload(), client.conn.is_socket()), ("1".to_owned(), false));
}

#[test]
fn a_payload_split_into_packets_anywhere_gives_its_packets() {
    for (payload, expected) in [
        ("40\u{1e}", ""),
        ("\u{1e}40", ""),
        ("40\u{1e}b//8=", "connect -; left Lost"),
        ("40\u{1e}b!", "connect -; left Lost"),
        ("40\u{1e}2", "connect -; left Lost"),
        ("40\u{1e}1\u{1e}42[\"queue:join\"]", "connect -; left Lost"),
        (
            "40\u{1e}451-[\"x\",{\"_placeholder\":true,\"num\":0}]\u{1e}bAQID",
            "connect -; refused Binary data is not supported",
        ),
    ] {
        let mut client = polling();
        client.say(payload.as_bytes());
        assert_eq!(client.heard(), expected, "{payload}");
        if expected.contains("left") || expected.is_empty() {
            let last = std::iter::repeat_with(|| client.payload()).take_while(|said| !said.is_empty()).last();
            assert_eq!(last.as_deref(), Some("1"), "a close packet comes by itself: {payload}");
            assert!(client.drain().heard().contains("close "), "the last word ends the session: {payload}");
        }
    }
}

#[test]
fn an_upgrade_goes_on_where_polling_stopped() {
    let mut session = polling();
    session.say(b"40").payload();
    let mut carrier = Client::new();
    let sid = EngineSid::draw(ShardId(0), &mut Random::from_seed(1)).encode();
    carrier.answers = false;
    carrier.say(&upgrade(&format!("/socket.io/?EIO=4&transport=websocket&sid={sid}")));
    carrier.respond(101).say(&text("2probe"));
    assert_eq!(carrier.heard(), "Upgrade(EngineSid(..)); 101; 3probe; probed");
    session.conn.release_poll(session.now);
    assert_eq!(session.payload(), "6");
    session.send(&Bytes::from_static(b"[\"one\"]")).send(&Bytes::from_static(b"[\"two\"]"));
    carrier.say(&[text("5"), text("42[\"queue:join\"]"), frame(false, TEXT, b"42")].concat());
    session.transcript.clear();
    session.conn.upgrade(session.now, carrier.conn);
    session.drain().say(&frame(true, CONTINUE, b"[\"queue:leave\"]"));
    assert_eq!(session.heard(), "42[\"one\"]; 42[\"two\"]; event queue:join; event queue:leave");
    assert!(session.conn.is_socket() && !session.conn.is_polling());
}

#[test]
fn a_probe_that_says_anything_else_or_nothing_is_closed() {
    let probe = || {
        let mut carrier = Client::new();
        let sid = EngineSid::draw(ShardId(0), &mut Random::from_seed(1)).encode();
        carrier.answers = false;
        carrier.say(&upgrade(&format!("/socket.io/?EIO=4&transport=websocket&sid={sid}"))).respond(101);
        carrier.transcript.clear();
        carrier
    };
    for early in ["5", "2", "2other", "40", "1", ""] {
        assert_eq!(probe().say(&text(early)).end().heard(), "bye 1002; close protocol_error", "{early}");
    }
    assert_eq!(probe().say(&frame(true, BINARY, b"2probe")).end().heard(), "bye 1002; close protocol_error");
    assert_eq!(probe().say(&frame(true, CLOSE, b"")).heard(), "bye; close peer_closed");
    assert_eq!(probe().say(&frame(true, PING, b"x")).heard(), "pong x");
    assert_eq!(probe().wait(limits::UPGRADE_TIMEOUT_MS).end().heard(), "bye 1008; close upgrade_timeout");
    assert_eq!(probe().end().heard(), "close peer_reset");
}

#[test]
fn a_post_that_does_not_come_whole_costs_the_session() {
    let sid = EngineSid::draw(ShardId(0), &mut Random::from_seed(1)).encode();
    let post = |framing: &str| {
        let target = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
        format!("POST {target} HTTP/1.1\r\nHost: x\r\n{framing}").into_bytes()
    };
    let heard = |bytes: &[u8]| Client::new().say(bytes).end().heard();
    let too_big = "413 Request body too large; post failed message_too_big; close message_too_big";
    assert_eq!(heard(&post("Content-Length: 1000001\r\n\r\n")), too_big);
    assert_eq!(heard(&post("Transfer-Encoding: chunked\r\n\r\nF4241\r\n")), too_big);
    assert_eq!(heard(&post("Content-Length: 3\r\n\r\n40")), "post failed peer_reset; close peer_closed");
    assert_eq!(heard(&post("Content-Length: 2\r\n\r\n40")), "Post(EngineSid(..)); 200; close peer_closed");
}

#[test]
fn malformed_payloads_are_refused_and_the_session_goes_on() {
    let mut client = Client::connected();
    client.say(&text("42[\"room:chat\",{\"roomId\":\"x\",\"text\":{}}]")).say(&text("42[\"rtc:ice\"]"));
    client.say(&text("42[\"auth\",null]"));
    assert_eq!(client.heard(), "refused text must be a string; refused the signalling payload is missing; event auth");
}

#[test]
fn the_plain_dialect_speaks_bare_events() {
    let closes = |bytes: &[u8]| Client::plain().say(bytes).end().heard();
    assert_eq!(closes(&frame(true, BINARY, b"x")), "bye 1003; left Lost; close protocol_error");
    assert_eq!(closes(&text("42[\"auth\"]")), "bye 1002; left Lost; close protocol_error");
    assert_eq!(closes(&frame(true, CLOSE, b"\x03\xe8")), "bye 1000; left Deliberate; close peer_closed");
    assert_eq!(closes(&frame(true, CLOSE, b"")), "bye; left Deliberate; close peer_closed");
    assert_eq!(closes(&frame(true, CLOSE, b"\x03\xe9")), "bye 1001; left Lost; close peer_closed");
    let mut client = Client::plain();
    assert_eq!(client.send(&Bytes::from_static(b"[\"auth:success\"]")).heard(), "[\"auth:success\"]");
    client.close(CloseReason::Banned);
    assert_eq!(
        client.say(&frame(true, CLOSE, b"\x03\xf0")).heard(),
        "[\"auth:success\"]; bye 1008; left Deliberate; close banned"
    );
    assert_eq!(Client::new().say(&get("/ws")).heard(), "426 This path speaks WebSocket; close bad_request");
    assert_eq!(Client::new().say(&upgrade("/other")).heard(), "Get /other; 200 /other");
}

#[test]
fn leaving_is_told_apart_from_being_lost() {
    let heard = |bytes: &[u8]| Client::connected().say(bytes).end().heard();
    assert_eq!(heard(&text("41")), "bye 1000; left Deliberate; close client_disconnect");
    assert_eq!(heard(&text("1")), "bye 1000; left Lost; close peer_closed");
    assert_eq!(heard(&frame(true, CLOSE, b"\x03\xe8")), "bye 1000; left Lost; close peer_closed");
    assert_eq!(heard(b""), "left Lost; close peer_reset");
    assert_eq!(Client::opened().end().heard(), "close peer_reset");
}

#[test]
fn a_refused_client_may_ask_again_and_was_never_there() {
    let mut client = Client::opened();
    client.answers = false;
    client.say(&text("40{}"));
    assert!(!client.conn.wants_read());
    let heard = client.refuse("Account \"suspended\"").say(&text("40")).accept().end().heard();
    let (before, after) = heard.split_once("; 40{").unwrap();
    assert_eq!(before, r#"connect -; 44{"message":"Account \"suspended\""}; connect -"#);
    assert!(after.ends_with("; left Lost; close peer_reset"), "{after}");

    let mut plain = Client::new();
    plain.answers = false;
    assert_eq!(
        plain.say(&upgrade("/ws")).refuse("no").end().heard(),
        "101; connect -; bye 1008; close connect_refused"
    );
}

#[test]
fn events_behind_a_connect_wait_for_its_answer() {
    let mut client = Client::opened();
    client.answers = false;
    client.say(&[text("40"), text("42[\"queue:join\"]")].concat());
    assert_eq!(client.heard(), "connect -");
    assert!(client.accept().heard().ends_with("; event queue:join"));
}

#[test]
fn the_two_session_ids_differ_and_depend_on_the_seed() {
    let ids = |seed: u8| {
        let mut client = Client::new();
        client.conn = Conn::new(client.now, Arc::default(), IpAddr::V4(Ipv4Addr::LOCALHOST), [seed; 16]);
        client.say(&upgrade("/socket.io/?EIO=4&transport=websocket")).say(&text("40"));
        let id = |line: &String| line.split('"').nth(3).unwrap().to_owned();
        (id(&client.transcript[1]), id(&client.transcript[3]))
    };
    let ((engine, socket), (other, _)) = (ids(1), ids(2));
    assert_eq!((engine.len(), socket.len()), (20, 20));
    assert!(engine != socket && engine != other);
}

#[test]
fn pipelined_requests_are_answered_in_order_one_at_a_time() {
    let mut client = Client::new();
    client.answers = false;
    client.say(&[get("/1"), get("/2"), get("/3")].concat());
    for expected in ["Get /1", "Get /1; 201; Get /2", "Get /1; 201; Get /2; 202; Get /3"] {
        assert_eq!(client.heard(), expected);
        assert!(!client.conn.wants_read() && client.conn.deadline().is_none());
        let status = 200 + client.transcript.len().div_ceil(2) as u16;
        client.respond(status);
    }
    assert!(client.conn.wants_read());
    assert_eq!(client.respond(500).transcript.len(), 6, "an answer to nothing is nothing");
}

#[test]
fn a_half_closed_client_still_gets_its_answers() {
    let mut client = Client::new();
    client.answers = false;
    client.say(&[get("/1"), get("/2")].concat()).end();
    assert_eq!(client.respond(200).respond(200).heard(), "Get /1; 200; Get /2; 200; close peer_closed");
}

#[test]
fn slow_heads_and_bodies_run_into_their_timeouts() {
    let mut silent = Client::new();
    assert_eq!(silent.wait(limits::HEAD_TIMEOUT_MS - 1).heard(), "");
    assert_eq!(silent.wait(1).heard(), "close head_timeout");

    let mut drip = Client::new();
    let head = get("/");
    for byte in head.iter().take(11) {
        drip.say(&[*byte]).wait(1000);
    }
    assert_eq!(drip.end().heard(), "408 Request head took too long; close head_timeout");

    let mut body = Client::new();
    body.say(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n");
    for _ in 0..20 {
        body.say(b"x").wait(1000);
    }
    assert_eq!(body.heard(), "408 Request body took too long");
    assert_eq!(
        body.say(b"more").wait(limits::CLOSE_TIMEOUT_MS).heard(),
        "408 Request body took too long; close body_timeout"
    );

    let mut idle = Client::new();
    idle.say(&get("/")).wait(limits::IDLE_TIMEOUT_MS - 1).say(b"\r\n");
    assert_eq!(idle.wait(1).heard(), "Get /; 200 /; close idle_timeout");
}

#[test]
fn an_idle_connection_whose_response_is_still_leaving_stays() {
    let mut client = Client::new();
    client.reads = false;
    client.say(&get("/")).conn.written(1);
    assert_eq!(client.wait(limits::IDLE_TIMEOUT_MS).heard(), "Get /; 200 /");
    assert_eq!(client.wait(limits::IDLE_TIMEOUT_MS).heard(), "Get /; 200 /; close slow_reader");
}

#[test]
fn engine_io_heartbeats_are_answered_or_the_client_is_lost() {
    let mut client = Client::connected();
    client.conn.bind();
    client.wait(limits::PING_INTERVAL_MS).wait(1000).say(&text("3")).wait(limits::PING_INTERVAL_MS);
    assert_eq!(client.heard(), "2; 2");
    assert_eq!(client.wait(limits::PING_TIMEOUT_MS - 1).heard(), "2; 2");
    client.say(&text("42[\"queue:join\"]"));
    assert_eq!(client.wait(limits::PING_TIMEOUT_MS - 1).heard(), "2; 2; event queue:join", "any packet shows life");
    assert_eq!(client.wait(1).heard(), "2; 2; event queue:join; left Lost; close ping_timeout");
}

#[test]
fn plain_heartbeats_are_web_socket_pings() {
    let mut client = Client::plain();
    client.conn.bind();
    client.wait(limits::PING_INTERVAL_MS).say(&frame(true, PONG, b"")).wait(limits::PING_INTERVAL_MS);
    assert_eq!(client.heard(), "ping; ping");
    assert_eq!(client.wait(limits::PING_TIMEOUT_MS).heard(), "ping; ping; left Lost; close ping_timeout");
}

#[test]
fn a_client_that_stays_nobody_is_closed() {
    let limit = limits::UNBOUND_TIMEOUT_MS;
    let mut opened = Client::opened();
    assert_eq!(opened.wait(limit).end().heard(), "2; bye 1008; close connect_timeout");

    let mut bound = Client::connected();
    bound.conn.bind();
    bound.wait(limit).say(&text("3"));
    assert_eq!(bound.heard(), "2");
    bound.conn.unbind(bound.now);
    assert_eq!(bound.wait(limit).end().heard(), "2; 2; bye 1008; left Lost; close unbound_timeout");
}

#[test]
fn the_server_closes_in_order() {
    let mut invalidated = Client::connected();
    invalidated.close(CloseReason::SessionInvalidated).say(&text("42[\"queue:join\"]"));
    invalidated.send(&Bytes::from_static(b"[]"));
    assert_eq!(invalidated.heard(), "41; bye 1008; left Deliberate");
    let heard = invalidated.say(&frame(true, CLOSE, b"\x03\xf0")).heard();
    assert_eq!(heard, "41; bye 1008; left Deliberate; close session_invalidated");

    let mut mute = Client::connected();
    mute.close(CloseReason::ServerShutdown).wait(limits::CLOSE_TIMEOUT_MS);
    assert_eq!(mute.heard(), "bye 1001; left Lost; close server_shutdown");
    assert_eq!((mute.conn.deadline(), mute.conn.wants_read()), (None, false));

    let mut asked = Client::new();
    asked.answers = false;
    asked.say(&get("/")).close(CloseReason::ServerShutdown);
    assert_eq!(asked.respond(200).heard(), "Get /; 200; close server_shutdown");
    assert_eq!(Client::new().close(CloseReason::ServerShutdown).heard(), "close server_shutdown");
}

#[test]
fn events_over_the_budget_of_their_class_are_refused_and_at_last_the_connection() {
    let mut client = Client::connected();
    let chat = text(r#"42["room:chat",{"roomId":"x","text":"hi"}]"#);
    let (_, burst) = limits::CHAT;
    let flood = |client: &mut Client, count: u32| {
        for _ in 0..count {
            client.say(&chat);
        }
    };
    flood(&mut client, burst);
    assert_eq!(client.transcript.len(), burst as usize, "{:?}", client.transcript.last());
    assert!(client.transcript.iter().all(|line| line == "event room:chat"));
    client.transcript.clear();
    client.say(&text(r#"421["room:chat",{"roomId":"x","text":"hi"}]"#)).say(&text(r#"42["queue:join"]"#));
    assert_eq!(client.heard(), "over budget Chat; acknowledge 1; 431[]; event queue:join");
    client.transcript.clear();
    flood(&mut client, 198);
    client.say(&text(r#"42["queue:leave"]"#));
    assert_eq!(client.transcript.last().map(String::as_str), Some("event queue:leave"));
    client.transcript.clear();
    client.say(&chat).say(&chat).close(CloseReason::TooManyEvents);
    assert_eq!(client.heard(), "over budget Chat, the last; 41; bye 1008; left Deliberate");
}

#[test]
fn what_is_no_event_that_is_known_has_a_budget_too() {
    let mut client = Client::plain();
    client.say(&text(r#"["auth",{}]"#));
    client.transcript.clear();
    let (_, burst) = limits::OTHER_EVENTS;
    for said in ["[\"nobody:listens\"]", "[\"call:invite\"]"].iter().cycle().take(burst as usize) {
        client.say(&text(said));
    }
    client.transcript.clear();
    assert_eq!(client.say(&text("[\"nobody:listens\"]")).heard(), "over budget Other");
}

#[test]
fn events_are_sent_whole_whatever_their_length() {
    let mut client = Client::connected();
    for length in [0, 100, 511, 512, 70_000] {
        let event = Bytes::from(format!("[\"{}\"]", "x".repeat(length)));
        assert_eq!(client.send(&event).transcript.pop().unwrap().as_bytes(), [b"42", &event[..]].concat());
    }
    let long = Bytes::from(vec![b'x'; 4000]);
    client.conn.send(client.now, &long);
    let shared = client.conn.chunks().iter().filter(|chunk| chunk.as_ptr() == long.as_ptr()).count();
    assert_eq!(shared, 1, "a long event is shared, not copied");
}

#[test]
fn a_client_that_does_not_read_is_closed_at_its_bound() {
    let mut client = Client::connected();
    client.reads = false;
    let event = Bytes::from(vec![b'x'; 100_000]);
    let mut sent = 0;
    while client.conn.is_socket() {
        client.conn.send(client.now, &event);
        sent += 1;
        assert!(client.conn.held_bytes() < limits::OUTBOX_BYTES_MAX + 10_000);
    }
    assert_eq!(sent, limits::OUTBOX_BYTES_MAX / 100_000 + 1);
    assert!(client.conn.held_bytes() < 10_000, "what nobody reads is let go");
    assert!(client.drain().heard().ends_with("left Lost; close slow_reader"));
}

#[test]
fn pings_are_answered_and_a_flood_by_the_latest_pong() {
    let mut client = Client::connected();
    client.say(
        &[frame(true, PING, b"a"), frame(true, PING, b"b"), text("42[\"auth\"]"), frame(true, PING, b"c")].concat(),
    );
    assert_eq!(client.heard(), "pong a; pong b; pong c; event auth");
    let pings: Vec<u8> = (0..200_u8).flat_map(|number| frame(true, PING, &[number])).collect();
    let heard = Client::connected().say(&pings).heard();
    let pongs: Vec<&str> = heard.split("; ").collect();
    assert!((10..30).contains(&pongs.len()), "{heard}");
    let last = Client::connected().say(&frame(true, PING, &[199])).heard();
    assert_eq!(pongs.last(), Some(&last.as_str()));

    let mut mute = Client::with(Settings { outbox_bytes_max: 50_000, ..Settings::default() });
    mute.say(&upgrade("/ws")).reads = false;
    let flood = frame(true, PING, &[b'x'; 125]).repeat(500);
    while mute.conn.is_socket() {
        mute.conn.receive(mute.now, &mut flood.clone());
        assert!(mute.conn.held_bytes() < 20_000);
        mute.drain();
    }
    assert!(mute.heard().ends_with("left Lost; close slow_reader"));
}

/// A client of `/ws` that offers this, and what it was answered.
fn deflating(offer: &str, settings: Settings) -> (Client, String) {
    let mut client = Client::with(settings);
    let head = String::from_utf8(upgrade("/ws")).unwrap();
    let head = head.replace("\r\nUpgrade", &format!("\r\nSec-WebSocket-Extensions: {offer}\r\nUpgrade"));
    client.conn.receive(client.now, &mut head.into_bytes());
    let response: Vec<u8> = std::mem::take(client.conn.chunks()).iter().flat_map(|chunk| chunk.to_vec()).collect();
    client.conn.written(response.len());
    client.drain().transcript.clear();
    (client, String::from_utf8(response).unwrap())
}

/// A message with RSV1 set, its payload masked with zeros.
fn compressed(payload: &[u8]) -> Vec<u8> {
    let mut frame = EncodedHeader::new(TEXT, payload.len()).compressed().as_bytes().to_vec();
    frame[1] |= 0x80;
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

#[test]
fn messages_are_inflated_and_long_ones_deflated_where_that_was_agreed_on() {
    let (mut client, response) = deflating("permessage-deflate; client_max_window_bits", Settings::default());
    assert!(response.contains("permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n"));
    let mut deflater = Deflater::new(6, false);
    let event = deflater.deflate(&[br#"["queue:join"]"#], 15);
    client.say(&compressed(&event)).say(&compressed(&event)).say(&text(r#"["queue:leave"]"#));
    let split = compressed(&event);
    client.say(&split[..10]).say(&split[10..]);
    assert_eq!(client.heard(), "event queue:join; event queue:join; event queue:leave; event queue:join");

    client.conn.send(client.now, &Bytes::from(format!("[{:?}]", "x".repeat(1019))));
    client.conn.send(client.now, &Bytes::from(format!("[{:?}]", "x".repeat(1020))));
    let chunks: Vec<Bytes> = client.conn.chunks().iter().cloned().collect();
    assert_eq!((chunks[0][0], chunks[1].len(), chunks[2][0]), (0x81, 1023, 0xc1));
    let inflated = Inflater::default().inflate(&chunks[2][2..], None, 10_000).unwrap();
    assert_eq!(inflated.len(), 1024);
    assert!(chunks[2].len() < 60);
}

#[test]
fn what_was_compressed_for_one_is_sent_to_all_as_the_same_bytes() {
    let event = Bytes::from(format!("[{:?}]", "y".repeat(5_000)));
    let frames: Vec<Bytes> = (0..3)
        .map(|_| {
            let (mut client, _) = deflating("permessage-deflate", Settings::default());
            client.conn.send(client.now, &event);
            client.conn.chunks()[0].clone()
        })
        .collect();
    assert!(frames.iter().all(|frame| frame[0] == 0xc1 && frame.as_ptr() == frames[0].as_ptr()));
}

#[test]
fn a_batch_is_one_chunk_for_all_who_are_spoken_to_alike_and_reads_like_its_events() {
    let events = [10, 600, 900].map(|length| Bytes::from(format!("[{:?}]", "x".repeat(length))));
    let (mut batch, mut longer) = (Batch::default(), Batch::default());
    events.iter().for_each(|event| batch.push(event.clone()));
    longer.push(Bytes::from(vec![b' '; 1_022]));
    let sent = |client: &mut Client, work: &mut dyn FnMut(&mut Conn, Time)| {
        work(&mut client.conn, client.now);
        std::mem::take(client.conn.chunks())
    };
    let deflating = || deflating("permessage-deflate", Settings::default()).0;
    for client in [Client::plain, Client::connected, deflating] {
        let frames = [client(), client()].map(|mut client| {
            let chunks = sent(&mut client, &mut |conn, now| assert!(conn.send_batch(now, &batch)));
            assert!(chunks.len() == 1 && chunks[0].len() <= batch.bytes_max());
            chunks[0].clone()
        });
        assert_eq!(frames[0].as_ptr(), frames[1].as_ptr());
        let one_by_one =
            sent(&mut client(), &mut |conn, now| events.iter().for_each(|event| conn.send(now, event))).into_iter();
        assert_eq!(frames[0], one_by_one.flatten().collect::<Bytes>());
    }
    let together = |client: &mut Client, batch: &Batch| {
        let mut is_sent = false;
        let chunks = sent(client, &mut |conn, now| is_sent = conn.send_batch(now, batch));
        assert_eq!(is_sent, !chunks.is_empty());
        is_sent
    };
    assert!(together(&mut Client::connected(), &longer) && together(&mut deflating(), &batch));
    longer.push(Bytes::from(vec![b' '; 1_024]));
    assert!(!together(&mut deflating(), &longer), "a long one is compressed");
    let mut poller = polling();
    poller.say(b"40").payload();
    assert!(!together(&mut poller, &batch) && !together(&mut Client::opened(), &batch));
}

#[test]
fn compression_that_lies_closes_the_connection() {
    let bomb = Deflater::new(6, false).deflate(&[&vec![b' '; 10_000_000]], 15);
    let reserved = "bye 1002; left Lost; close protocol_error";
    for (what, bytes, expected) in [
        ("a bomb", compressed(&bomb), "bye 1009; left Lost; close message_too_big"),
        ("no deflate data", compressed(b"\xff\xff\xff"), "bye 1007; left Lost; close protocol_error"),
        ("nothing at all", compressed(b""), "bye 1007; left Lost; close protocol_error"),
        ("RSV1 on a ping", [&[0xc9, 0x80][..], &[0; 4]].concat(), reserved),
        ("RSV1 on a fragment", [frame(false, TEXT, b"["), [&[0xc0, 0x80][..], &[0; 4]].concat()].concat(), reserved),
        ("RSV2", [&[0xa1, 0x80][..], &[0; 4]].concat(), reserved),
    ] {
        let (mut client, _) = deflating("permessage-deflate", Settings::default());
        assert_eq!(client.say(&bytes).end().heard(), expected, "{what}");
        assert!(client.conn.held_bytes() < 4_096, "{what} leaves nothing behind");
    }
}

#[test]
fn context_takeover_is_there_for_who_wants_to_pay_for_it() {
    let deflate = Policy { level: 6, context_takeover: true };
    let (mut client, response) = deflating("permessage-deflate", Settings { deflate, ..Settings::default() });
    assert!(response.contains("Sec-WebSocket-Extensions: permessage-deflate\r\n"), "{response}");
    let event = Bytes::from(format!("[{:?}]", (0..500).map(|number| format!("{number:x}")).collect::<String>()));
    let mut length = || {
        client.conn.send(client.now, &event);
        std::mem::take(client.conn.chunks()).iter().map(Bytes::len).sum::<usize>()
    };
    let (first, second) = (length(), length());
    assert!(second * 10 < first, "{first}, then {second}");
    assert!(client.conn.held_bytes() > 300_000);
    let (declined, response) =
        deflating("permessage-deflate", Settings { deflate: Policy { level: 0, ..deflate }, ..Settings::default() });
    assert!(declined.conn.is_socket() && !response.contains("permessage-deflate"));
}

#[test]
fn a_forwarded_address_counts_from_trusted_proxies_only() {
    let head = b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n";
    let mut direct = Client::new();
    assert_eq!(direct.say(head).conn.address().to_string(), "127.0.0.1");
    let trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let mut proxied = Client::with(Settings { trusted_proxies, ..Settings::default() });
    assert_eq!(proxied.say(head).conn.address().to_string(), "192.0.2.7");
    assert_eq!(proxied.say(&get("/")).conn.address().to_string(), "127.0.0.1", "it is told anew by every request");
}

/// Where proxies of this network pass connections on.
fn behind(network: &str) -> Settings {
    Settings { proxy_protocol: true, trusted_proxies: vec![network.parse().unwrap()], ..Settings::default() }
}

/// A peer there; on loopback, as all.
fn passed_on(network: &str) -> Client {
    Client::with(behind(network))
}

#[test]
fn a_proxy_header_names_the_client_once_for_all_requests() {
    let header = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n";
    let mut client = passed_on("127.0.0.0/8");
    client.say(&header[..20]).say(&header[20..]).say(&get("/"));
    assert_eq!(
        (client.conn.address().to_string().as_str(), client.transcript.len()),
        ("192.0.2.7", 2),
        "{}",
        client.heard()
    );
    client.say(b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n");
    assert_eq!(client.conn.address().to_string(), "192.0.2.7", "who is no proxy speaks for nobody");
    let mut local = passed_on("127.0.0.0/8");
    local.say(&[&LOCAL[..], &get("/")].concat());
    assert_eq!(local.conn.address().to_string(), "127.0.0.1", "the proxy asks for itself");
}

#[test]
fn each_request_of_who_came_by_tls_says_so() {
    let block = b"\xc0\x00\x02\x07\xc6\x33\x64\x01\xdc\x04\x01\xbb\x20\x00\x05";
    for (bits, expected) in [(1, Some("https")), (0, None)] {
        let header = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x14"[..], block, &[bits, 0, 0, 0, 0]].concat();
        let mut client = passed_on("127.0.0.0/8");
        for mut bytes in [[header, get("/")].concat(), get("/")] {
            client.conn.receive(client.now, &mut bytes);
            let Some(Output::Request(request)) = client.conn.poll() else { panic!("no request") };
            assert_eq!(request.header("x-forwarded-proto"), expected);
            client.respond(200);
        }
    }
}

#[test]
fn without_a_header_that_is_believed_nothing_is_answered() {
    let header = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n";
    for (trusted, bytes) in [
        ("127.0.0.0/8", get("/")),
        ("127.0.0.0/8", b"PROXY TCP4 192.0.2.7\r\n".to_vec()),
        ("192.0.2.0/24", header.to_vec()),
    ] {
        let mut client = passed_on(trusted);
        client.say(&bytes);
        assert_eq!(client.transcript, ["close bad_proxy_header"], "{:?}", String::from_utf8_lossy(&bytes));
    }
    let mut sender = passed_on("192.0.2.0/24");
    sender.say(&[&LOCAL[..], &get("/")].concat());
    assert_eq!(sender.transcript, ["Get /", "200 /"]);
    let admits = |peer: &str| behind("192.0.2.0/24").admits(peer.parse().unwrap());
    let peers = ["192.0.2.9", "127.0.0.1", "::1", "127.0.0.2", "203.0.113.1"];
    assert_eq!(peers.map(admits), [true, true, true, false, false]);
    assert!(Settings::default().admits("203.0.113.1".parse().unwrap()));
}

#[test]
fn a_proxy_header_has_its_time_and_the_request_behind_it_has_its_own() {
    let mut late = passed_on("127.0.0.0/8");
    late.say(b"PROXY TCP4 ").wait(limits::PROXY_TIMEOUT_MS);
    assert_eq!(late.transcript, ["close head_timeout"]);
    let mut silent = passed_on("127.0.0.0/8");
    silent.wait(limits::PROXY_TIMEOUT_MS - 1).say(&LOCAL).wait(limits::HEAD_TIMEOUT_MS - 1);
    assert!(silent.transcript.is_empty(), "{:?}", silent.transcript);
    silent.wait(1);
    assert_eq!(silent.transcript, ["close head_timeout"]);
}

#[test]
fn an_idle_connection_is_small_and_may_move() {
    fn assert_send<T: Send + 'static>() {}
    assert_send::<Conn>();
    println!("size_of: Conn {}, Output {}", size_of::<Conn>(), size_of::<Output>());
    assert!(size_of::<Conn>() <= 320, "{}", size_of::<Conn>());
    assert!(size_of::<Output>() <= 96, "{}", size_of::<Output>());

    let mut client = Client::connected();
    client.say(&text(&format!("42[\"room:chat\",{{\"roomId\":\"x\",\"text\":\"{}\"}}]", "a".repeat(90_000))));
    client
        .say(&text("42[\"queue:join\"]").repeat(100))
        .say(&frame(false, TEXT, b"4"))
        .say(&frame(true, CONTINUE, b"3[]"));
    println!("idle socket holds {} bytes besides", client.conn.held_bytes());
    assert!(client.conn.held_bytes() <= 8 * size_of::<Output>());
}

#[test]
fn an_attacker_holds_no_more_than_one_message_or_head() {
    let limit = 2 * (limits::MESSAGE_BYTES_MAX + 65_536);
    let chunk = vec![b'a'; 65_536];
    let attacks = [
        ("announced frame", Client::connected(), b"\x81\xff\0\0\0\0\0\x0f\x42\x40\0\0\0\0".to_vec(), limit),
        ("endless head", Client::new(), b"GET /".to_vec(), 2 * 65_536),
        (
            "large body",
            Client::new(),
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 102400\r\n\r\n".to_vec(),
            4 * 65_536,
        ),
        (
            "chunked body",
            Client::new(),
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n19000\r\n".to_vec(),
            4 * 65_536,
        ),
    ];
    for (name, mut client, opening, bound) in attacks {
        client.say(&opening);
        assert!(client.conn.held_bytes() < 1024, "{name}: nothing is allocated on announcement");
        for _ in 0..40 {
            client.say(&chunk);
            assert!(client.conn.held_bytes() <= bound, "{name}: {}", client.conn.held_bytes());
        }
    }
    let mut fragments = Client::connected();
    fragments.say(&frame(false, TEXT, b"4"));
    for _ in 0..40 {
        fragments.say(&frame(false, CONTINUE, &chunk));
        assert!(fragments.conn.held_bytes() <= limit);
    }
    assert!(fragments.end().heard().ends_with("close message_too_big"));
}

#[test]
fn mutated_conversations_never_panic_and_end_at_most_once() {
    let conversations = conversations();
    let mut random = Random::from_seed(0x5eed);
    for round in 0..20_000 {
        let mut bytes = conversations[round % conversations.len()].clone();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len() as u64) as usize;
            if bytes.is_empty() {
                break;
            }
            match random.below(5) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at] = random.below(256) as u8,
                2 => bytes.insert(at, random.below(256) as u8),
                3 => drop(bytes.drain(at..(at + random.below(9) as usize).min(bytes.len()))),
                _ => bytes.truncate(at),
            }
        }
        let mut client = Client::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(1 + random.below(rest.len() as u64) as usize);
            client.say(piece);
            if random.one_in(8) {
                client.wait(random.below(40_000));
            }
            rest = later;
        }
        client.end().wait(200_000);
        let count = |prefix: &str| client.transcript.iter().filter(|line| line.starts_with(prefix)).count();
        assert_eq!(count("close "), 1, "round {round}: {}", client.heard());
        assert_eq!(count("left "), count("connect "), "round {round}: {}", client.heard());
        assert!(client.transcript.len() <= 64 && client.conn.held_bytes() < 1024, "round {round}");
    }
}

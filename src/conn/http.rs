//! The HTTP stage of a connection: heads, bodies, one request at a time, keep-alive, and the way to WebSocket.
//!
//! What cannot be a request for a route is answered here, as JSON, and ends the connection. Bound: one head
//! (`HEAD_BYTES_MAX`) in the connection's rest, one body (`body_bytes_max`) here.

use bytes::Bytes;

use super::deflation::Deflation;
use super::probe::Probe;
use super::socket::{Closing, Socket};
use super::{CloseReason, Context, Output, Stage, Step};
use crate::base::limits::HEAD_BYTES_MAX;
use crate::base::{EngineSid, Time};
use crate::wire::deflate::Agreement;
use crate::wire::forwarded::client_address;
use crate::wire::http::{Body, Head, HttpError, Reply, decode_head, encode_response, head_length};
use crate::wire::http::{Method, Response};
use crate::wire::upgrade::{Dialect, EngineAsk, answer_handshake, decode_engine_ask, refuse_plain_open};

const HEAD_TOO_LARGE: HttpError = HttpError { status: 431, error: "Request head too large" };
const TARGET_TOO_LONG: HttpError = HttpError { status: 414, error: "Request target too long" };
const HEAD_LATE: HttpError = HttpError { status: 408, error: "Request head took too long" };
const BODY_LATE: HttpError = HttpError { status: 408, error: "Request body took too long" };

pub(super) struct Http {
    state: State,
    /// Why the connection ends with the response in flight.
    closes: Option<CloseReason>,
    /// A PROXY header said that the client came by TLS.
    is_secure: bool,
}

enum State {
    /// Between two requests.
    Idle { until: Time },
    /// Waiting for the end of a head; so many bytes of it were looked at.
    Head { until: Time, scanned: usize },
    /// Waiting for the rest of a body.
    Body { until: Time, receiving: Box<(Head, Body)> },
    /// A request is with the caller.
    Asked { reply: Reply, upgrade: Option<Box<Upgrade>> },
}

/// A WebSocket that waits for leave to take a session over.
struct Upgrade {
    sid: EngineSid,
    handshake: Response,
    agreement: Option<Agreement>,
}

impl Http {
    /// A connection whose first head must be here by `until`, by TLS as far as its proxy goes or not.
    pub fn new(until: Time, is_secure: bool) -> Self {
        Self { state: State::Head { until, scanned: 0 }, closes: None, is_secure }
    }

    /// Whether a request is with the caller, so that nothing may be read.
    pub fn is_asked(&self) -> bool {
        matches!(self.state, State::Asked { .. })
    }

    /// When the client is late with what it owes; the caller's own time is not measured here.
    pub fn deadline(&self) -> Option<Time> {
        match self.state {
            State::Idle { until } | State::Head { until, .. } | State::Body { until, .. } => Some(until),
            State::Asked { .. } => None,
        }
    }

    /// Bytes held in memory of its own.
    pub fn held_bytes(&self) -> usize {
        if let State::Body { receiving, .. } = &self.state { receiving.1.held_bytes() } else { 0 }
    }

    /// Reads on: a head, the body behind it, then nothing until the request is answered.
    pub fn step(&mut self, context: &mut Context, bytes: &[u8]) -> Step {
        match &mut self.state {
            State::Asked { .. } => Step::Wait,
            // An empty line before a request is no request (RFC 9112 2.2), and does not extend any time.
            State::Idle { .. } if bytes.starts_with(b"\r\n") => Step::Used(2),
            State::Idle { .. } if bytes.is_empty() => Step::Wait,
            State::Idle { .. } => {
                self.state = State::Head { until: context.now + context.settings.head_timeout_ms, scanned: 0 };
                Step::Used(0)
            }
            State::Head { scanned, .. } if bytes.starts_with(b"\r\n") => {
                *scanned = 0;
                Step::Used(2)
            }
            State::Head { .. } => self
                .head_advanced(context, bytes)
                .unwrap_or_else(|error| Step::Become(bytes.len(), refuse(context, error, CloseReason::BadRequest))),
            State::Body { receiving, .. } => match receiving.1.decode(bytes) {
                Ok(used) => self.body_advanced(context, used),
                Err(error) => {
                    self.lose_post(context, reason(error));
                    Step::Become(bytes.len(), refuse(context, error, reason(error)))
                }
            },
        }
    }

    /// Answers the request that is with the caller; nothing when there is none.
    pub fn respond(&mut self, context: &mut Context, response: &Response) -> Option<Stage> {
        let State::Asked { reply, upgrade } = &mut self.state else { return None };
        let reply = *reply;
        match upgrade.take() {
            Some(upgrade) if response.status == 101 => {
                let next = self.answer(context, reply, &upgrade.handshake);
                let deflation = deflation(context, upgrade.agreement);
                next.or_else(|| Some(Stage::Probe(Probe::new(context.now, upgrade.sid, deflation))))
            }
            _ => self.answer(context, reply, response),
        }
    }

    /// Ends the connection, behind the response in flight if there is one.
    pub fn close(&mut self, context: &mut Context, reason: CloseReason) -> Option<Stage> {
        if self.is_asked() && !reason.is_abrupt() {
            self.closes = Some(reason);
            return None;
        }
        Some(context.closed(reason))
    }

    /// Gives up on a late client. One that has begun a request is told so (408); one that is silent is not, for a
    /// browser would take that for the answer to its next request. `received` says that part of a head is here.
    ///
    /// A response that is still leaving keeps an idle connection, as long as some of it leaves in every period.
    pub fn timeout(&mut self, context: &mut Context, received: bool) -> Option<Stage> {
        if self.deadline().is_none_or(|until| until > context.now) {
            return None;
        }
        Some(match &mut self.state {
            State::Idle { until } if context.outbox.has_bytes() => {
                if !context.outbox.take_progress() {
                    return Some(context.closed(CloseReason::SlowReader));
                }
                *until = context.now + context.settings.idle_timeout_ms;
                return None;
            }
            State::Idle { .. } => context.closed(CloseReason::IdleTimeout),
            State::Head { .. } if received => refuse(context, HEAD_LATE, CloseReason::HeadTimeout),
            State::Head { .. } => context.closed(CloseReason::HeadTimeout),
            _ => {
                self.lose_post(context, CloseReason::BodyTimeout);
                refuse(context, BODY_LATE, CloseReason::BodyTimeout)
            }
        })
    }

    /// Looks at the bytes of the head that no earlier call has seen. Too many get 431 (RFC 6585 5), or 414 if they are all
    /// of the request line (RFC 9112 3).
    fn head_advanced(&mut self, context: &mut Context, bytes: &[u8]) -> Result<Step, HttpError> {
        let State::Head { scanned, .. } = &mut self.state else { return Ok(Step::Wait) };
        // No further than the bound, so that the answer does not depend on how the bytes came.
        match head_length(&bytes[..bytes.len().min(HEAD_BYTES_MAX)], *scanned)? {
            Some(length) => {
                let head = decode_head(&bytes[..length])?;
                Ok(self.begin(context, head, length))
            }
            None if bytes.len() <= HEAD_BYTES_MAX => {
                *scanned = bytes.len();
                Ok(Step::Wait)
            }
            _ if bytes[..HEAD_BYTES_MAX].contains(&b'\n') => Err(HEAD_TOO_LARGE),
            _ => Err(TARGET_TOO_LONG),
        }
    }

    /// A head of `length` bytes is here: from now on the body has its own time (RFC 9110 10.1.1: a client that waits
    /// for leave to send it gets that here, in the order of the requests).
    fn begin(&mut self, context: &mut Context, mut head: Head, length: usize) -> Step {
        let settings = context.settings;
        if self.is_secure {
            // As a proxy says it that passes requests on.
            head.request.headers.push(("x-forwarded-proto".to_owned(), "https".to_owned()));
        }
        *context.address =
            client_address(*context.peer, &settings.trusted_proxies, settings.address_header, &head.request);
        // What is posted to a session may be as long as a message of a WebSocket (contract 3.1, `maxPayload`).
        let bytes_max = match is_engine(context, &head) {
            true => context.settings.message_bytes_max,
            false => context.settings.body_bytes_max,
        };
        let body = match Body::new(head.framing, bytes_max) {
            Ok(body) => body,
            Err(error) => {
                lose_post(context, &head, reason(error));
                return Step::Become(length, refuse(context, error, reason(error)));
            }
        };
        if body.is_complete() {
            return self.complete(context, head, length);
        }
        if head.expects_continue {
            context.outbox.write(Bytes::from_static(b"HTTP/1.1 100 Continue\r\n\r\n"));
        }
        let until = context.now + context.settings.body_timeout_ms;
        self.state = State::Body { until, receiving: Box::new((head, body)) };
        Step::Used(length)
    }

    /// So many bytes of the body were taken; nothing at all means that a line is unfinished.
    fn body_advanced(&mut self, context: &mut Context, used: usize) -> Step {
        let placeholder = State::Idle { until: context.now };
        match std::mem::replace(&mut self.state, placeholder) {
            State::Body { receiving, .. } if receiving.1.is_complete() => {
                let (mut head, body) = *receiving;
                head.request.body = body.into_bytes();
                self.complete(context, head, used)
            }
            unfinished => {
                self.state = unfinished;
                if used == 0 { Step::Wait } else { Step::Used(used) }
            }
        }
    }

    /// A request is whole: hand it up, or answer what is the connection's own to answer.
    ///
    /// Its own is everything on `/ws` and a session that begins by WebSocket, but no CORS preflight. A request to
    /// upgrade any other path is an ordinary request: a server may ignore `Upgrade` (RFC 9110 7.8).
    fn complete(&mut self, context: &mut Context, head: Head, used: usize) -> Step {
        let reply = Reply {
            is_http_11: head.is_http_11,
            keep_alive: head.keep_alive,
            without_body: head.request.method == Method::Head,
        };
        let dialect = context.settings.dialect(&head.request.path);
        let dialect = dialect.filter(|dialect| *dialect != Dialect::Echo || head.asks_for_websocket());
        let dialect = dialect.filter(|_| head.request.method != Method::Options);
        let ask = dialect.filter(|dialect| dialect.is_engine()).map(|_| decode_engine_ask(&head));
        let (response, agreement) = match (dialect, ask) {
            (None, _) => return self.ask(context, reply, None, Output::Request(Box::new(head.request)), used),
            (_, Some(ask @ (Err(_) | Ok(EngineAsk::Open | EngineAsk::Poll(_) | EngineAsk::Post(_))))) => {
                let output = Output::Engine { ask, request: Box::new(head.request) };
                return self.ask(context, reply, None, output, used);
            }
            (_, Some(Ok(EngineAsk::Upgrade(sid)))) => {
                let (handshake, agreement) = answer_handshake(&head.request, context.settings.deflate);
                if handshake.status == 101 {
                    let output = Output::Engine { ask: Ok(EngineAsk::Upgrade(sid)), request: Box::new(head.request) };
                    let upgrade = Box::new(Upgrade { sid, handshake, agreement });
                    return self.ask(context, reply, Some(upgrade), output, used);
                }
                (handshake, None)
            }
            (_, Some(Ok(EngineAsk::OpenSocket))) => answer_handshake(&head.request, context.settings.deflate),
            (Some(_), None) => refuse_plain_open(&head)
                .map_or_else(|| answer_handshake(&head.request, context.settings.deflate), |refusal| (refusal, None)),
        };
        if response.status != 101 {
            self.closes = Some(CloseReason::BadRequest);
        }
        let next = self.answer(context, reply, &response);
        let deflation = deflation(context, agreement);
        let open = |dialect| Stage::Socket(Socket::open(context, dialect, deflation));
        Step::Become(used, next.or_else(|| dialect.map(open)).unwrap_or(Stage::Closed))
    }

    /// Hands a request to the caller.
    fn ask(
        &mut self,
        context: &mut Context,
        reply: Reply,
        upgrade: Option<Box<Upgrade>>,
        output: Output,
        used: usize,
    ) -> Step {
        self.state = State::Asked { reply, upgrade };
        context.outbox.push(output);
        Step::Used(used)
    }

    /// The body that is being received will not be whole.
    pub fn lose_post(&self, context: &mut Context, reason: CloseReason) {
        if let State::Body { receiving, .. } = &self.state {
            lose_post(context, &receiving.0, reason);
        }
    }

    /// Writes a response, and ends the connection if it was the last.
    fn answer(&mut self, context: &mut Context, mut reply: Reply, response: &Response) -> Option<Stage> {
        reply.keep_alive &= self.closes.is_none();
        let (head, body) = encode_response(response, context.now, reply);
        context.outbox.write_pair(head, body);
        self.state = State::Idle { until: context.now + context.settings.idle_timeout_ms };
        if response.status == 101 || reply.keep_alive {
            return None;
        }
        Some(context.closed(self.closes.unwrap_or(CloseReason::Finished)))
    }
}

/// Tells the session for which a body was meant that it does not come: what the client said in it cannot be left out.
fn lose_post(context: &mut Context, head: &Head, reason: CloseReason) {
    if let Some(Ok(EngineAsk::Post(sid))) = is_engine(context, head).then(|| decode_engine_ask(head)) {
        context.outbox.push(Output::PostFailed { sid, reason });
    }
}

/// Whether the request is to where Engine.IO is spoken.
fn is_engine(context: &Context, head: &Head) -> bool {
    context.settings.dialect(&head.request.path).is_some_and(Dialect::is_engine)
}

fn deflation(context: &Context, agreement: Option<Agreement>) -> Option<Deflation> {
    agreement.map(|agreement| Deflation::new(&agreement, context.settings))
}

/// Answers what is not a whole request. Its bytes may still be coming: they are let in for a while and dropped, for
/// closing over unread bytes would reset the connection before the answer is read (RFC 9112 9.6).
fn refuse(context: &mut Context, error: HttpError, reason: CloseReason) -> Stage {
    let (head, body) = encode_response(&error.response(), context.now, Reply::LAST);
    context.outbox.write_pair(head, body);
    Stage::Closing(Closing { until: context.now + context.settings.close_timeout_ms, reason, is_deaf: true })
}

/// How a refusal is counted.
fn reason(error: HttpError) -> CloseReason {
    if error.status == 413 { CloseReason::MessageTooBig } else { CloseReason::BadRequest }
}

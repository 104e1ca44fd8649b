//! Engine.IO sessions by polling: which connection is which session, and the requests that speak for one.
//!
//! A session is a connection without a socket, served by a task like any other ([`super::connection`]). Requests reach it
//! from the connections that carry them: these move to the shard where the session is, which its `sid` leads to by way
//! of the shard where it began. Bound: one line per living session; one poll, one post and one upgrade of each at a time.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_lite::future::or;

use crate::api::counted::{self, Answerer};
use crate::api::{self, ApiError};
use crate::base::{ConnId, EngineSid, Map, ShardId, Time};
use crate::conn::{CloseReason, Conn};
use crate::runtime::{Stream, sleep};
use crate::wire::engineio;
use crate::wire::http::{Request, Response};
use crate::wire::upgrade::{EngineAsk, EngineRefusal};

use super::Shard;
use super::connection::{self, Served, Task};
use super::contained::contained;
use super::counters::{Opened, Refused};
use super::encoding::encode;
use super::inbox::Envelope;
use super::slots::Entry;

/// How long a poll may wait while the client tries a WebSocket, which it takes only once no poll waits (engine.io: 100 ms).
const RELEASE: Duration = Duration::from_millis(100);

/// The type of a body in which earlier versions sent bytes.
const BYTES: &str = "application/octet-stream";

/// What other shards know of a session: its name, and how often it has moved.
#[derive(Clone, Copy)]
pub struct Journey {
    pub sid: EngineSid,
    pub moves: u32,
}

/// What a session by polling has besides its connection.
pub struct Session {
    pub journey: Journey,
    /// Whether a poll waits; its waker is here until something wakes it.
    is_polled: bool,
    poll: Option<Waker>,
    /// The post that waits until all of it is handled.
    post: Option<Waker>,
    /// The WebSocket that tries to take over.
    probe: Option<ConnId>,
    /// The client has tried it, and waits for its poll to end.
    is_probed: bool,
    /// The WebSocket that takes over.
    upgrade: Option<Box<(Stream, Conn)>>,
}

/// Where the sessions are.
#[derive(Default)]
pub struct Sessions {
    here: RefCell<Map<EngineSid, ConnId>>,
    /// Of those that began here: the shard where each is now, and how often it has moved.
    away: RefCell<Map<EngineSid, (ShardId, u32)>>,
}

/// What shards tell each other of a session that does not live where it began.
#[derive(Clone, Copy, Debug)]
pub enum Whereabouts {
    /// It has moved so many times, and lives with the sender.
    Arrived {
        at: ShardId,
        moves: u32,
    },
    Ended,
}

impl Session {
    /// A session that begins, or arrives: nobody waits for it yet.
    pub fn new(journey: Journey) -> Self {
        Self { journey, is_polled: false, poll: None, post: None, probe: None, is_probed: false, upgrade: None }
    }

    fn wake_all(&mut self) {
        [self.poll.take(), self.post.take()].into_iter().flatten().for_each(Waker::wake);
    }
}

impl Entry {
    /// Lets those who wait for the session see what has become of it.
    pub fn wake_carriers(&mut self) {
        let (has_payload, is_drained) = (self.conn.has_payload(), self.conn.is_drained());
        let Some(session) = &mut self.session else { return };
        let poll = session.poll.take_if(|_| has_payload);
        let post = session.post.take_if(|_| is_drained);
        [poll, post].into_iter().flatten().for_each(Waker::wake);
    }

    /// Takes the WebSocket that takes over, if there is one: from now on the session has that socket. One that was lost
    /// on the way, or comes to a session that is over, is dropped.
    pub fn take_upgrade(&mut self, now: Time) -> Option<Stream> {
        let (stream, conn) = *self.session.as_mut()?.upgrade.take()?;
        self.conn.upgrade(now, conn);
        if self.conn.is_polling() {
            return None;
        }
        self.session.as_mut()?.wake_all();
        Some(stream)
    }

    /// Whether a poll waits that has not been told the last word yet.
    pub fn owes_last_word(&self) -> bool {
        self.conn.has_payload() && self.session.as_ref().is_some_and(|session| session.is_polled)
    }

    /// The WebSocket that tries to take over, or did.
    fn probe(&self) -> Option<ConnId> {
        self.session.as_ref()?.probe
    }

    fn polled_by(&mut self, poll: Option<Waker>) {
        if let Some(session) = &mut self.session {
            (session.is_polled, session.poll) = (poll.is_some(), poll);
        }
    }

    fn probed_by(&mut self, probe: ConnId, is_probed: bool) {
        if let Some(session) = &mut self.session {
            (session.probe, session.is_probed) = (Some(probe), is_probed);
        }
    }
}

impl Shard {
    /// Notes that a session lives here, and says so where it began.
    pub(super) fn session_here(&self, journey: Journey, conn: ConnId) {
        let Journey { sid, moves } = journey;
        self.sessions.here.borrow_mut().insert(sid, conn);
        if sid.shard() == self.id {
            self.sessions.away.borrow_mut().remove(&sid);
        } else {
            self.tell_of(sid, Whereabouts::Arrived { at: self.id, moves });
        }
    }

    /// Notes that a session is on its way to another shard; gives what of it moves. Who waits for it follows.
    pub(super) fn session_leaves(&self, mut session: Session, to: ShardId) -> Journey {
        let Journey { sid, moves } = session.journey;
        let moves = moves + 1;
        self.sessions.here.borrow_mut().remove(&sid);
        if sid.shard() == self.id {
            self.sessions.away.borrow_mut().insert(sid, (to, moves));
        }
        session.wake_all();
        Journey { sid, moves }
    }

    /// Notes that a session has ended; who waited for it hears that.
    pub(super) fn session_ends(&self, mut session: Session) {
        self.session_lost(session.journey.sid);
        session.wake_all();
        if let Some(probe) = session.probe.take() {
            self.on_conn(probe, |conn| conn.close(self.now(), CloseReason::PeerClosed));
        }
    }

    /// Notes that there is no such session any more.
    pub(super) fn session_lost(&self, sid: EngineSid) {
        self.sessions.here.borrow_mut().remove(&sid);
        self.tell_of(sid, Whereabouts::Ended);
    }

    /// Another shard knows more of a session that began here.
    pub(super) fn session_whereabouts(&self, sid: EngineSid, whereabouts: Whereabouts) {
        let mut away = self.sessions.away.borrow_mut();
        match whereabouts {
            Whereabouts::Ended => drop(away.remove(&sid)),
            Whereabouts::Arrived { at, moves } => {
                // One that is not known has ended; one that has moved on since is elsewhere.
                if let Some(known) = away.get_mut(&sid).filter(|known| known.1 < moves) {
                    *known = (at, moves);
                }
            }
        }
    }

    /// Where to ask for a session, if not here; `None` when it is here, or nowhere.
    pub(super) fn session_elsewhere(&self, sid: EngineSid) -> Option<ShardId> {
        if self.sessions.here.borrow().contains_key(&sid) {
            return None;
        }
        if sid.shard() == self.id {
            return self.sessions.away.borrow().get(&sid).map(|(shard, _)| *shard);
        }
        self.placement.all().find(|shard| *shard == sid.shard())
    }

    /// Whether a connection that is named is still there.
    fn is_open(&self, conn: Option<ConnId>) -> bool {
        conn.is_some_and(|conn| self.slots.borrow_mut().get(conn).is_some())
    }

    fn tell_of(&self, sid: EngineSid, whereabouts: Whereabouts) {
        if sid.shard() == self.id {
            self.session_whereabouts(sid, whereabouts);
        } else {
            self.mesh.send(sid.shard(), Envelope::Session { sid, whereabouts });
        }
    }

    /// Does something with a session that is here.
    fn on_session<T>(&self, sid: EngineSid, work: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let conn = self.sessions.here.borrow().get(&sid).copied()?;
        self.slots.borrow_mut().get(conn).map(work)
    }

    /// Ends a session that is here, in order; its last word is for the poll that waits.
    fn close_session(&self, sid: EngineSid, reason: CloseReason) {
        let now = self.now();
        self.on_session(sid, |entry| {
            entry.conn.close(now, reason);
            entry.wake();
        });
    }
}

/// Why a request is not answered by its session here.
pub(super) enum Detour {
    Refused(EngineRefusal),
    /// The session has moved to that shard.
    Follow(ShardId),
}

impl From<EngineRefusal> for Detour {
    fn from(refusal: EngineRefusal) -> Self {
        Self::Refused(refusal)
    }
}

type Answer = Result<Response, Detour>;

impl Task {
    /// Answers a request on the Engine.IO path; gives the shard where it has to be asked instead.
    pub(super) async fn engine(&mut self, ask: Result<EngineAsk, EngineRefusal>, request: &Request) -> Option<ShardId> {
        let answer = match ask {
            Ok(EngineAsk::Open) => Ok(self.open_session(&request.path).await),
            Ok(EngineAsk::Poll(sid)) => self.poll_session(sid).await,
            Ok(EngineAsk::Post(sid)) => self.post_to_session(sid, request).await,
            Ok(EngineAsk::Upgrade(sid)) => self.probe_session(sid),
            Ok(EngineAsk::OpenSocket) => Err(EngineRefusal::BadRequest.into()),
            Err(refusal) => Err(refusal.into()),
        };
        let response = match answer {
            Ok(response) => response,
            Err(Detour::Refused(refusal)) => refusal.response(),
            Err(Detour::Follow(shard)) => return Some(shard),
        };
        self.shard.counters.requests.add_one(counted::place(Answerer::Engine as usize, response.status));
        let mut response = api::mark_engine(&self.shard.settings().api, request, response);
        let shard = self.shard.clone();
        self.meanwhile(encode(&shard, request, &mut response)).await;
        let now = self.shard.now();
        self.with(|entry| entry.conn.respond(now, response));
        None
    }

    /// A new session, whose open packet answers the request.
    async fn open_session(&mut self, path: &str) -> Response {
        let shard = self.shard.clone();
        if let Err(why) = shard.places.take() {
            shard.counters.refused.add_one(Refused::from(why) as usize);
            return ApiError::AtCapacity.response();
        }
        let address = self.with(|entry| entry.conn.address());
        let Ok(counted) = self.meanwhile(Box::pin(shard.enter(address))).await else {
            shard.places.give_back();
            return ApiError::AddressCrowded.response();
        };
        let now = shard.now();
        let (sid, seed) = {
            let mut random = shard.random.borrow_mut();
            (EngineSid::draw(shard.id, &mut random), random.bytes())
        };
        let conn = self.with(|entry| Conn::polling(now, &entry.conn, path, seed, sid));
        let Some(mut conn) = conn else {
            shard.vacate(counted);
            return EngineRefusal::BadRequest.response();
        };
        let open = conn.take_payload(now).unwrap_or_default();
        shard.counters.opened.add_one(Opened::Polling as usize);
        connection::serve(shard, Served { conn, stream: None, journey: Some(Journey { sid, moves: 0 }), counted });
        payload(open)
    }

    /// Waits until the session has something to say.
    async fn poll_session(&mut self, sid: EngineSid) -> Answer {
        let shard = self.shard.clone();
        let state = shard.on_session(sid, |entry| {
            let (is_polled, is_probed) =
                entry.session.as_ref().map_or((false, false), |session| (session.is_polled, session.is_probed));
            (entry.conn.is_polling(), is_polled, is_probed)
        });
        match state {
            None => Err(self.missing(sid)),
            Some((false, ..)) => Err(EngineRefusal::BadRequest.into()),
            Some((_, true, _)) => {
                shard.close_session(sid, CloseReason::RequestsOverlap);
                Err(EngineRefusal::BadRequest.into())
            }
            Some((.., false)) => self.payload_of(sid).await,
            Some((.., true)) => {
                // While a WebSocket is tried, a poll is held only for as long as keeps the client from spinning.
                let release = async {
                    sleep(RELEASE).await;
                    shard.on_session(sid, |entry| {
                        entry.conn.release_poll(shard.now());
                        entry.wake_carriers();
                    });
                    std::future::pending().await
                };
                or(self.payload_of(sid), release).await
            }
        }
    }

    async fn payload_of(&mut self, sid: EngineSid) -> Answer {
        let shard = self.shard.clone();
        let outcome = poll_fn(|context| {
            let is_gone = self.touch(|task, entry| task.watch(context, entry));
            let now = shard.now();
            let found = shard.on_session(sid, |entry| {
                if is_gone {
                    entry.conn.end_of_stream(now);
                }
                let payload = entry.conn.take_payload(now);
                if payload.is_some() || is_gone || !entry.conn.is_polling() {
                    // What was taken may have been the last word.
                    entry.polled_by(None);
                    entry.wake();
                    return Poll::Ready(payload.unwrap_or_else(noop));
                }
                entry.polled_by(Some(context.waker().clone()));
                Poll::Pending
            });
            found.map_or(Poll::Ready(None), |poll| poll.map(Some))
        });
        match outcome.await {
            Some(bytes) => Ok(payload(bytes)),
            None => Err(self.missing(sid)),
        }
    }

    /// Hands a payload to the session, and waits until it is handled: who posts faster than that waits.
    async fn post_to_session(&mut self, sid: EngineSid, request: &Request) -> Answer {
        let shard = self.shard.clone();
        let state = shard.on_session(sid, |entry| {
            (entry.conn.is_polling(), entry.session.as_ref().is_some_and(|session| session.post.is_some()))
        });
        let fault = match state {
            None => return Err(self.missing(sid)),
            Some((false, _)) => return Err(EngineRefusal::BadRequest.into()),
            Some((_, true)) => Some(CloseReason::RequestsOverlap),
            // A payload is text: version 4 has no bytes in it (Engine.IO v4, packet encoding).
            Some(_) if request.body.is_empty() || request.header("content-type") == Some(BYTES) => {
                Some(CloseReason::ProtocolError(1002))
            }
            Some(_) => None,
        };
        if let Some(reason) = fault {
            shard.close_session(sid, reason);
            return Err(EngineRefusal::BadRequest.into());
        }
        self.drained(sid).await;
        let now = shard.now();
        let taken = shard.on_session(sid, |entry| {
            let mut bytes = request.body.to_vec();
            if contained(|| entry.conn.receive(now, &mut bytes)).is_none() {
                entry.conn.close(now, CloseReason::HandlerPanicked);
            }
            entry.wake();
        });
        taken.ok_or_else(|| self.missing(sid))?;
        self.drained(sid).await;
        let ok = Response::text(200, "text/html", Bytes::from_static(b"ok"));
        Ok(ok.header("Cache-Control", "no-store"))
    }

    /// Waits until the session has handled what it was told; one that has moved or ended took that with it.
    async fn drained(&mut self, sid: EngineSid) {
        let shard = self.shard.clone();
        poll_fn(|context| {
            self.touch(|task, entry| task.write(context, entry));
            let poll = shard.on_session(sid, |entry| match &mut entry.session {
                Some(session) if !entry.conn.is_drained() => {
                    session.post = Some(context.waker().clone());
                    Poll::Pending
                }
                _ => Poll::Ready(()),
            });
            poll.unwrap_or(Poll::Ready(()))
        })
        .await;
    }

    /// Lets a WebSocket try to take the session over, if no other does.
    fn probe_session(&mut self, sid: EngineSid) -> Answer {
        let (shard, id) = (self.shard.clone(), self.id);
        let is_free = shard.on_session(sid, |entry| (entry.conn.is_polling(), entry.probe()));
        let Some((is_polling, earlier)) = is_free else { return Err(self.missing(sid)) };
        if !is_polling || shard.is_open(earlier) {
            return Err(EngineRefusal::BadRequest.into());
        }
        shard.on_session(sid, |entry| entry.probed_by(id, false));
        Ok(Response::empty(101))
    }

    /// The client has tried the WebSocket, and goes on with it once no poll waits. A second one at a time is closed.
    pub(super) fn probed(&mut self, sid: EngineSid) {
        let (shard, id, now) = (self.shard.clone(), self.id, self.shard.now());
        let earlier = shard.on_session(sid, |entry| entry.probe()).flatten().filter(|probe| *probe != id);
        let is_polling = shard.on_session(sid, |entry| entry.conn.is_polling());
        if is_polling != Some(true) || shard.is_open(earlier) {
            return self.with(|entry| entry.conn.close(now, CloseReason::BadRequest));
        }
        shard.on_session(sid, |entry| {
            entry.probed_by(id, true);
            if entry.session.as_ref().is_some_and(|session| session.is_polled) {
                entry.conn.release_poll(now);
                entry.wake_carriers();
            }
        });
    }

    /// Gives this connection's socket to the session, and ends; a session that is gone leaves the socket to close.
    pub(super) fn upgrade(mut self, sid: EngineSid) {
        let shard = self.shard.clone();
        let Entry { conn, counted, .. } = *self.leave_slot();
        // Two connections become one.
        shard.vacate(counted);
        shard.counters.upgraded.add_one();
        let Some(stream) = self.stream.take() else { return };
        shard.on_session(sid, |entry| {
            let Some(session) = &mut entry.session else { return };
            (session.probe, session.is_probed) = (None, false);
            session.upgrade = Some(Box::new((stream, conn)));
            entry.wake();
        });
    }

    /// A post that did not come whole: what was to be said is lost, and the session with it.
    pub(super) fn post_failed(&mut self, sid: EngineSid, reason: CloseReason) {
        self.shard.close_session(sid, reason);
    }

    /// What to say of a session that is not here.
    fn missing(&self, sid: EngineSid) -> Detour {
        self.shard.session_elsewhere(sid).map_or(Detour::Refused(EngineRefusal::UnknownSid), Detour::Follow)
    }
}

fn payload(bytes: Bytes) -> Response {
    Response::text(200, "text/plain; charset=UTF-8", bytes).header("Cache-Control", "no-store")
}

fn noop() -> Bytes {
    Bytes::from_static(engineio::NOOP.as_bytes())
}

//! The task of one connection: socket bytes into `conn`, its outputs to the rules and the endpoints, its writes out.
//!
//! The task is the connection's sequencer: one request or event is handled at a time, and nothing is read meanwhile
//! (back-pressure), but what others send to this client is written at any time. It ends when the connection closes or
//! moves to another shard. What it awaits only now and then is boxed, so that an idle connection's task stays small.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_lite::future::or;
use tracing::Instrument as _;

use crate::api::counted::{self, Answerer};
use crate::api::{self, ApiError};
use crate::base::{ConnId, EngineSid, ShardId, Token};
use crate::conn::{CloseReason, Conn, Output};
use crate::domain::{Input, session_of};
use crate::message::store;
use crate::message::{ClientEvent, Leave, ServerEvent};
use crate::runtime::{Detached, Scratch, Stream, sleep, spawn_local, yield_now};
use crate::wire::http::Request;

use super::Shard;
use super::admission::{Counted, TOO_MANY};
use super::contained::{contained, contained_future};
use super::encoding::encode;
use super::host::ShardHost;
use super::inbox::Envelope;
use super::names;
use super::polling::{Journey, Session};
use super::slots::Entry;

/// Outputs of one connection before other connections have their turn.
const OUTPUTS_IN_A_ROW: usize = 64;
/// Reads without an output before other connections have their turn.
const READS_IN_A_ROW: usize = 8;
/// Time to get the last bytes out, and to see the peer close, before the socket is dropped.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes read and thrown away meanwhile.
const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// Gets the last bytes out, and waits for so long for the peer to end the connection: a socket that is closed before all
/// that comes has been read is reset, and its peer may never see them.
pub(super) async fn part(stream: &mut Stream, chunks: &mut VecDeque<Bytes>, scratch: &Scratch, patience: Duration) {
    let goodbye = async {
        stream.write(chunks).await?;
        stream.shutdown_write()?;
        let mut ignored = 0;
        while ignored < LINGER_BYTES_MAX {
            match stream.read(scratch).await?.len() {
                0 => break,
                length => ignored += length,
            }
        }
        std::io::Result::Ok(())
    };
    let timeout = async {
        sleep(patience).await;
        Ok(())
    };
    let _ = or(goodbye, timeout).await;
}

/// Among the reasons why connections end, for one that was lost between two shards.
pub(super) const LOST_ON_THE_WAY: &str = "lost_on_the_way";

/// A connection on its way to the shard that owns its user, or its session.
///
/// What made it move is its next output again.
pub struct Adopted {
    /// `None` for a session by polling.
    fd: Option<Detached>,
    conn: Conn,
    journey: Option<Journey>,
    counted: Counted,
}

/// A connection as a task serves it.
pub(super) struct Served {
    pub conn: Conn,
    /// `None` for a session by polling.
    pub stream: Option<Stream>,
    pub journey: Option<Journey>,
    pub counted: Counted,
}

pub(super) struct Task {
    pub shard: Rc<Shard>,
    pub id: ConnId,
    pub stream: Option<Stream>,
}

enum Fate {
    Closed(CloseReason),
    /// What it moves for is with the connection.
    Moves(ShardId),
    /// The socket is for a session.
    Upgrades(EngineSid),
}

/// Gives the connection a slot and a task that serves it until it closes or moves.
pub(super) fn serve(shard: Rc<Shard>, served: Served) {
    let Served { conn, stream, journey, counted } = served;
    let id = shard.slots.borrow_mut().insert(conn, journey.map(Session::new), counted);
    if let Some(entry) = shard.slots.borrow_mut().get(id) {
        shard.counters.transports.raise(entry.transport as usize);
    }
    if let Some(journey) = journey {
        shard.session_here(journey, id);
    }
    let mut task = Task { shard, id, stream };
    spawn_local(async move {
        match task.run().await {
            Fate::Moves(home) => task.move_to(home),
            Fate::Upgrades(sid) => task.upgrade(sid),
            Fate::Closed(reason) => Box::pin(task.close(reason)).await,
        }
    });
}

/// Goes on with a connection that came from another shard.
pub fn adopt(shard: Rc<Shard>, adopted: Adopted) {
    let Adopted { fd, conn, journey, counted } = adopted;
    match fd.map(Stream::attach).transpose() {
        Ok(stream) => serve(shard, Served { conn, stream, journey, counted }),
        Err(error) => {
            shard.lost_on_the_way(counted);
            tracing::warn!(%error, "a connection was lost on its way between shards");
        }
    }
}

impl Shard {
    fn count_closed(&self, reason: &'static str) {
        *self.closed.borrow_mut().entry(reason).or_default() += 1;
    }

    /// A connection did not arrive where it was to move.
    fn lost_on_the_way(&self, counted: Counted) {
        self.vacate(counted);
        self.count_closed(LOST_ON_THE_WAY);
    }

    /// What is spoken over a connection changes once or twice in its life.
    fn count_transport(&self, entry: &mut Entry) {
        if let Some(transport) = entry.conn.transport()
            && transport != entry.transport
        {
            self.counters.transports.lower(entry.transport as usize);
            self.counters.transports.raise(transport as usize);
            entry.transport = transport;
        }
    }
}

impl Task {
    async fn run(&mut self) -> Fate {
        let mut handled = 0_usize;
        loop {
            while let Some(output) = self.with(|entry| entry.conn.poll()) {
                if let Some(waiting) = self.perform(output) {
                    // Rare, and larger than all else that the task keeps.
                    if let Some(fate) = Box::pin(self.wait_for(waiting)).await {
                        return fate;
                    }
                }
                handled += 1;
                if handled.is_multiple_of(OUTPUTS_IN_A_ROW) {
                    self.meanwhile(yield_now()).await;
                }
            }
            self.wait().await;
        }
    }

    /// Does what can be done at once; what takes time, or ends the task, comes back.
    fn perform(&mut self, output: Output) -> Option<Output> {
        if self.elsewhere(&output).is_some() {
            return Some(output);
        }
        match output {
            Output::Event(event) => {
                self.shard.counters.received.add_one(event.index());
                if self.shard.domain.borrow().needs(self.shard.now(), self.id, &event).is_some() {
                    return Some(Output::Event(event));
                }
                self.shard.handle(Input::Client { conn: self.id, event, fact: None });
            }
            Output::Acknowledge(id) => {
                let now = self.shard.now();
                self.with(|entry| entry.conn.acknowledge(now, &id));
            }
            Output::PostFailed { sid, reason } => self.post_failed(sid, reason),
            Output::Probed(sid) => self.probed(sid),
            Output::Refused(message) => {
                self.shard.counters.malformed.add_one();
                self.shard.send(self.shard.now(), self.id, &ServerEvent::Error { message });
            }
            Output::OverBudget { class, is_last } => {
                let now = self.shard.now();
                self.shard.counters.over_budget.add_one(class as usize);
                self.shard.send(now, self.id, &ServerEvent::Error { message: Output::TOO_MANY_EVENTS });
                if is_last {
                    self.with(|entry| entry.conn.close(now, CloseReason::TooManyEvents));
                }
            }
            Output::Left(leave) => self.shard.handle(Input::Left { conn: self.id, leave }),
            other => return Some(other),
        }
        None
    }

    async fn wait_for(&mut self, output: Output) -> Option<Fate> {
        if let Some(home) = self.elsewhere(&output) {
            return Some(self.moves(home, output));
        }
        match output {
            Output::Request(request) => self.request(&request).await,
            Output::Engine { ask, request } => {
                if let Some(shard) = self.engine(ask, &request).await {
                    return Some(self.moves(shard, Output::Engine { ask, request }));
                }
            }
            Output::Connect { .. } if !self.is_admitted().await => {}
            Output::Connect { token } => {
                let fact = self.fact(token.as_ref().map(session_of)).await;
                self.shard.handle(Input::Connect { conn: self.id, fact });
            }
            Output::Event(event) => {
                let needs = self.shard.domain.borrow().needs(self.shard.now(), self.id, &event);
                let fact = self.fact(needs).await;
                self.shard.handle(Input::Client { conn: self.id, event, fact });
            }
            Output::Upgraded(sid) => return Some(Fate::Upgrades(sid)),
            Output::Close(reason) => return Some(Fate::Closed(reason)),
            other => assert!(self.perform(other).is_none(), "the rest takes no time"),
        }
        None
    }

    /// The home of the user whom this output names, or the place of its session, if that is another shard.
    fn elsewhere(&self, output: &Output) -> Option<ShardId> {
        let token: Option<Token> = match output {
            Output::Request(request) => request.token(),
            Output::Connect { token } | Output::Event(ClientEvent::Auth { token }) => *token,
            other => return self.shard.session_elsewhere(other.session()?),
        };
        token.map(|token| self.shard.placement.home(token.user())).filter(|home| *home != self.shard.id)
    }

    async fn request(&mut self, request: &Request) {
        let address = self.with(|entry| entry.conn.address());
        let host = ShardHost(self.shard.clone(), self.shard.settings());
        let name = names::name(request, &mut self.shard.random.borrow_mut());
        let span = names::span(&name);
        let answered = async {
            let mut response = api::handle(&host, request, address).await;
            encode(&host.0, request, &mut response).await;
            response
        };
        let answered = Box::pin(answered.instrument(span.clone()));
        let response = self.meanwhile(contained_future(answered)).await.unwrap_or_else(|| {
            self.shard.counters.requests.add_one(counted::place(Answerer::Panicked as usize, 500));
            ApiError::Internal.response()
        });
        let response = span.in_scope(|| names::mark(name, request, response));
        let now = self.shard.now();
        self.with(|entry| entry.conn.respond(now, response));
    }

    /// Whether the client's address may have one more. Who came without a proxy has been counted.
    async fn is_admitted(&mut self) -> bool {
        let (address, counted) = self.with(|entry| (entry.conn.address(), entry.counted));
        if counted.is_some() || !self.shard.counts(address) {
            return true;
        }
        let shard = self.shard.clone();
        let entered = self.meanwhile(Box::pin(shard.enter(address))).await;
        let now = shard.now();
        self.with(|entry| match entered {
            Ok(counted) => entry.counted = counted,
            Err(_) => {
                entry.conn.refuse_connect(now, TOO_MANY);
                entry.conn.close(now, CloseReason::ConnectRefused);
            }
        });
        entered.is_ok()
    }

    async fn fact(&mut self, needs: Option<store::Request>) -> Option<store::Reply> {
        let shard = self.shard.clone();
        match needs {
            None => None,
            Some(request) => self.meanwhile(Box::pin(shard.fact(request))).await,
        }
    }

    /// Does `work` while what is sent to this client goes on being written.
    pub(super) async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| {
            if let Poll::Ready(value) = work.as_mut().poll(context) {
                return Poll::Ready(value);
            }
            self.touch(|task, entry| task.write(context, entry));
            Poll::Pending
        })
        .await
    }

    /// Waits until the connection has an output, writing and reading what there is.
    async fn wait(&mut self) {
        poll_fn(|context| {
            self.touch(|task, entry| {
                let now = task.shard.now();
                if let Some(stream) = entry.take_upgrade(now) {
                    task.stream = Some(stream);
                }
                if entry.conn.deadline().is_some_and(|at| at <= now) {
                    entry.conn.timeout(now);
                }
                for _ in 0..READS_IN_A_ROW {
                    task.write(context, entry);
                    if entry.has_missed() {
                        let shard = task.shard.clone();
                        let (domain, changes) = (shard.domain.borrow(), shard.changes.borrow());
                        let sent = entry.catch_up(now, task.id, domain.directory(), &changes);
                        drop((domain, changes));
                        task.shard.counters.sent.add(ServerEvent::PRESENCE_UPDATE, sent);
                        task.write(context, entry);
                        if entry.has_missed() && entry.conn.waiting_bytes() == 0 {
                            // More is due, after the others' turn.
                            context.waker().wake_by_ref();
                        }
                    }
                    if entry.conn.has_output() {
                        return Poll::Ready(());
                    }
                    task.shard.count_transport(entry);
                    task.shard.timers.set(task.id, entry);
                    if !entry.conn.wants_read() || !task.read(context, entry) {
                        return Poll::Pending;
                    }
                }
                context.waker().wake_by_ref();
                Poll::Pending
            })
        })
        .await;
    }

    /// Writes what can be written; a session by polling lets those who carry for it know.
    pub(super) fn write(&mut self, context: &mut Context<'_>, entry: &mut Entry) {
        entry.waker = Some(context.waker().clone());
        let Some(stream) = &mut self.stream else { return entry.wake_carriers() };
        let chunks = entry.conn.chunks();
        if chunks.is_empty() {
            return;
        }
        let bytes = |chunks: &VecDeque<Bytes>| chunks.iter().map(Bytes::len).sum::<usize>();
        let before = bytes(chunks);
        let outcome = stream.poll_write(context, chunks);
        let written = before - bytes(chunks);
        entry.conn.written(written);
        if let Poll::Ready(Err(_)) = outcome {
            entry.conn.end_of_stream(self.shard.now());
        }
    }

    /// Reads once; false when there is nothing to read and the task is woken when there is.
    fn read(&mut self, context: &mut Context<'_>, entry: &mut Entry) -> bool {
        let now = self.shard.now();
        let Some(stream) = &mut self.stream else { return false };
        match stream.poll_read(context, &self.shard.scratch) {
            Poll::Pending => return false,
            Poll::Ready(Ok(mut lease)) if !lease.is_empty() => {
                if contained(|| entry.conn.receive(now, &mut lease)).is_none() {
                    entry.conn.close(now, CloseReason::HandlerPanicked);
                    entry.conn.end_of_stream(now);
                }
            }
            Poll::Ready(_) => entry.conn.end_of_stream(now),
        }
        true
    }

    /// Writes, and finds out whether the peer has gone while its request waits: what it says ahead is read once.
    pub(super) fn watch(&mut self, context: &mut Context<'_>, entry: &mut Entry) -> bool {
        self.write(context, entry);
        while entry.conn.may_read_ahead() && self.read(context, entry) {}
        entry.conn.is_ended()
    }

    pub(super) fn with<T>(&mut self, work: impl FnOnce(&mut Entry) -> T) -> T {
        work(self.shard.slots.borrow_mut().get(self.id).expect("a connection lives as long as its task"))
    }

    /// Like `with`, for work that needs the task's stream too.
    pub(super) fn touch<T>(&mut self, work: impl FnOnce(&mut Self, &mut Entry) -> T) -> T {
        let shard = self.shard.clone();
        let mut slots = shard.slots.borrow_mut();
        work(self, slots.get(self.id).expect("a connection lives as long as its task"))
    }

    pub(super) fn leave_slot(&self) -> Box<Entry> {
        let mut entry = self.shard.slots.borrow_mut().remove(self.id).expect("a connection leaves its slot once");
        self.shard.timers.clear(self.id, &mut entry);
        self.shard.counters.transports.lower(entry.transport as usize);
        entry
    }

    /// The shard to which the connection goes takes care of the output.
    fn moves(&mut self, to: ShardId, output: Output) -> Fate {
        self.with(|entry| entry.conn.put_back(output));
        Fate::Moves(to)
    }

    fn move_to(self, home: ShardId) {
        self.shard.handle(Input::Left { conn: self.id, leave: Leave::Deliberate });
        let mut entry = *self.leave_slot();
        let stream = entry.take_upgrade(self.shard.now()).or(self.stream);
        let is_polling = entry.conn.is_polling();
        let journey = entry.session.take().map(|session| self.shard.session_leaves(*session, home));
        let fd = stream.and_then(|stream| stream.detach().ok());
        let counted = entry.counted;
        let adopted = Adopted { conn: entry.conn, journey, fd, counted };
        let is_whole = is_polling || adopted.fd.is_some();
        if !is_whole || !self.shard.mesh.send(home, Envelope::Adopt(Box::new(adopted))) {
            self.shard.lost_on_the_way(counted);
            if let Some(journey) = journey {
                self.shard.session_lost(journey.sid);
            }
        }
    }

    /// Gets the last bytes out and lets the peer read them: a socket that is closed with unread input is reset.
    async fn close(mut self, reason: CloseReason) {
        tracing::debug!(reason = reason.as_str(), "connection closed");
        self.shard.count_closed(reason.as_str());
        if self.stream.is_none() {
            self.last_word().await;
        }
        let mut entry = self.leave_slot();
        if let Some(session) = entry.session.take() {
            self.shard.session_ends(*session);
        }
        let Some(stream) = &mut self.stream else {
            self.shard.vacate(entry.counted);
            return;
        };
        if !reason.is_abrupt() {
            part(stream, entry.conn.chunks(), &self.shard.scratch.clone(), LINGER).await;
        }
        self.shard.vacate(entry.counted);
    }

    /// Lets the poll that waits hear that the session has ended.
    async fn last_word(&mut self) {
        let heard = poll_fn(|context| {
            self.touch(|task, entry| {
                task.write(context, entry);
                if entry.owes_last_word() { Poll::Pending } else { Poll::Ready(()) }
            })
        });
        or(heard, sleep(LINGER)).await;
    }
}

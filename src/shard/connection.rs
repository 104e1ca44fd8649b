//! The task of one connection: socket bytes into `conn`, its outputs to the rules and the endpoints, its writes out.
//!
//! The task is the connection's sequencer: one request or event is handled at a time, and nothing is read meanwhile
//! (back-pressure), but what others send to this client is written at any time. It ends when the connection closes or
//! moves to another shard. What it awaits only now and then is boxed, so that an idle connection's task stays small.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_lite::future::or;

use crate::api::{self, ApiError};
use crate::base::{ConnId, ShardId, Token};
use crate::conn::{CloseReason, Conn, Output};
use crate::domain::{Input, session_of};
use crate::message::store;
use crate::message::{ClientEvent, Leave, ServerEvent};
use crate::runtime::{Stream, sleep, spawn_local, yield_now};
use crate::wire::http::Request;

use super::Shard;
use super::contained::{contained, contained_future};
use super::encoding::encode;
use super::host::ShardHost;
use super::inbox::Envelope;
use super::slots::Entry;

/// Outputs of one connection before other connections have their turn.
const OUTPUTS_IN_A_ROW: usize = 64;
/// Reads without an output before other connections have their turn.
const READS_IN_A_ROW: usize = 8;
/// Time to get the last bytes out, and to see the peer close, before the socket is dropped.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes read and thrown away meanwhile.
const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// A connection on its way to the shard that owns its user.
pub struct Adopted {
    fd: OwnedFd,
    conn: Conn,
    /// What made it move; handled first.
    output: Output,
}

struct Task {
    shard: Rc<Shard>,
    id: ConnId,
    stream: Stream,
}

enum Fate {
    Closed(CloseReason),
    Moves(ShardId, Output),
}

/// Gives the connection a slot and a task that serves it until it closes or moves; `first` is handled before anything.
pub fn serve(shard: Rc<Shard>, stream: Stream, conn: Conn, first: Option<Output>) {
    let id = shard.slots.borrow_mut().insert(conn);
    let mut task = Task { shard, id, stream };
    spawn_local(async move {
        match task.run(first).await {
            Fate::Moves(home, output) => task.move_to(home, output),
            Fate::Closed(reason) => Box::pin(task.close(reason)).await,
        }
    });
}

/// Goes on with a connection that came from another shard.
pub fn adopt(shard: Rc<Shard>, adopted: Adopted) {
    match Stream::from_fd(adopted.fd) {
        Ok(stream) => serve(shard, stream, adopted.conn, Some(adopted.output)),
        Err(error) => {
            shard.open.fetch_sub(1, Ordering::Relaxed);
            tracing::warn!(%error, "a connection was lost on its way between shards");
        }
    }
}

impl Task {
    async fn run(&mut self, first: Option<Output>) -> Fate {
        let (mut next, mut handled) = (first, 0_usize);
        loop {
            while let Some(output) = next.take().or_else(|| self.with(|entry| entry.conn.poll())) {
                if let Some(fate) = self.perform(output).await {
                    return fate;
                }
                handled += 1;
                if handled.is_multiple_of(OUTPUTS_IN_A_ROW) {
                    self.meanwhile(yield_now()).await;
                }
            }
            self.wait().await;
        }
    }

    async fn perform(&mut self, output: Output) -> Option<Fate> {
        if let Some(home) = self.elsewhere(&output) {
            return Some(Fate::Moves(home, output));
        }
        match output {
            Output::Request(request) => self.request(&request).await,
            Output::Connect { token } => {
                let fact = self.fact(token.as_ref().map(session_of)).await;
                self.shard.handle(Input::Connect { conn: self.id, fact });
            }
            Output::Event(event) => {
                let needs = self.shard.domain.borrow().needs(self.shard.now(), self.id, &event);
                let fact = self.fact(needs).await;
                self.shard.handle(Input::Client { conn: self.id, event, fact });
            }
            Output::Refused(message) => self.shard.send(self.id, &ServerEvent::Error { message }),
            Output::Left(leave) => self.shard.handle(Input::Left { conn: self.id, leave }),
            Output::Close(reason) => return Some(Fate::Closed(reason)),
        }
        None
    }

    /// The home of the user whom this output names, if that is another shard.
    fn elsewhere(&self, output: &Output) -> Option<ShardId> {
        let token: Option<Token> = match output {
            Output::Request(request) => request.token(),
            Output::Connect { token } | Output::Event(ClientEvent::Auth { token }) => *token,
            _ => None,
        };
        token.map(|token| self.shard.placement.home(token.user())).filter(|home| *home != self.shard.id)
    }

    async fn request(&mut self, request: &Request) {
        let address = self.with(|entry| entry.conn.address());
        let host = ShardHost(self.shard.clone());
        let answered = Box::pin(async {
            let mut response = api::handle(&host, request, address).await;
            encode(&host.0, request, &mut response).await;
            response
        });
        let response =
            self.meanwhile(contained_future(answered)).await.unwrap_or_else(|| ApiError::Internal.response());
        let now = self.shard.now();
        self.with(|entry| entry.conn.respond(now, response));
    }

    async fn fact(&mut self, needs: Option<store::Request>) -> Option<store::Reply> {
        let shard = self.shard.clone();
        match needs {
            None => None,
            Some(request) => self.meanwhile(Box::pin(shard.stores.fact(shard.now(), request))).await,
        }
    }

    /// Does `work` while what is sent to this client goes on being written.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
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
                if entry.conn.deadline().is_some_and(|at| at <= now) {
                    entry.conn.timeout(now);
                }
                for _ in 0..READS_IN_A_ROW {
                    task.write(context, entry);
                    if entry.conn.has_output() {
                        return Poll::Ready(());
                    }
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

    fn write(&mut self, context: &mut Context<'_>, entry: &mut Entry) {
        entry.waker = Some(context.waker().clone());
        let chunks = entry.conn.chunks();
        if chunks.is_empty() {
            return;
        }
        let bytes = |chunks: &VecDeque<Bytes>| chunks.iter().map(Bytes::len).sum::<usize>();
        let before = bytes(chunks);
        let outcome = self.stream.poll_write(context, chunks);
        let written = before - bytes(chunks);
        entry.conn.written(written);
        if let Poll::Ready(Err(_)) = outcome {
            entry.conn.end_of_stream(self.shard.now());
        }
    }

    /// Reads once; false when there is nothing to read and the task is woken when there is.
    fn read(&mut self, context: &mut Context<'_>, entry: &mut Entry) -> bool {
        let now = self.shard.now();
        match self.stream.poll_read(context, &self.shard.scratch) {
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

    fn with<T>(&mut self, work: impl FnOnce(&mut Entry) -> T) -> T {
        work(self.shard.slots.borrow_mut().get(self.id).expect("a connection lives as long as its task"))
    }

    /// Like `with`, for work that needs the task's stream too.
    fn touch<T>(&mut self, work: impl FnOnce(&mut Self, &mut Entry) -> T) -> T {
        let shard = self.shard.clone();
        let mut slots = shard.slots.borrow_mut();
        work(self, slots.get(self.id).expect("a connection lives as long as its task"))
    }

    fn leave_slot(&self) -> Box<Entry> {
        let mut entry = self.shard.slots.borrow_mut().remove(self.id).expect("a connection leaves its slot once");
        self.shard.timers.clear(self.id, &mut entry);
        entry
    }

    fn move_to(self, home: ShardId, output: Output) {
        self.shard.handle(Input::Left { conn: self.id, leave: Leave::Deliberate });
        let entry = *self.leave_slot();
        let sent = self.stream.into_fd().ok().is_some_and(|fd| {
            let adopted = Adopted { fd, conn: entry.conn, output };
            self.shard.mesh.send(home, Envelope::Adopt(Box::new(adopted)))
        });
        if !sent {
            self.shard.open.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Gets the last bytes out and lets the peer read them: a socket that is closed with unread input is reset.
    async fn close(mut self, reason: CloseReason) {
        tracing::debug!(reason = reason.as_str(), "connection closed");
        let mut entry = self.leave_slot();
        let (scratch, stream) = (self.shard.scratch.clone(), &mut self.stream);
        let goodbye = async {
            stream.write(entry.conn.chunks()).await?;
            stream.shutdown_write()?;
            let mut ignored = 0;
            while ignored < LINGER_BYTES_MAX {
                match stream.read(&scratch).await?.len() {
                    0 => break,
                    length => ignored += length,
                }
            }
            std::io::Result::Ok(())
        };
        if !reason.is_abrupt() {
            let timeout = async {
                sleep(LINGER).await;
                Ok(())
            };
            let _ = or(goodbye, timeout).await;
        }
        self.shard.open.fetch_sub(1, Ordering::Relaxed);
    }
}

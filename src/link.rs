//! Bounded requests to another thread, with one-shot replies: the only bridge between shards and other threads.
//!
//! Either end may live on any thread and under any runtime, since both wake by std wakers. A full queue refuses at
//! once; nobody waits for room. Deliberately absent: time limits, retries, any look at what is carried.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::{fmt, io};

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

/// The asking end; clones ask through the same queue.
pub struct Link<Request, Reply> {
    queue: mpsc::Sender<Item<Request, Reply>>,
}

/// The serving end, owned by one thread.
pub struct Incoming<Request, Reply> {
    queue: mpsc::Receiver<Item<Request, Reply>>,
}

/// A request that was accepted, and the way back.
pub struct Asked<Request, Reply> {
    pub request: Request,
    pub answer: Answer<Reply>,
}

/// The way back to whoever asked. Dropped unused, it tells the asker [`LinkError::Closed`].
pub struct Answer<Reply>(oneshot::Sender<Reply>);

/// The reply to come. Dropping it takes back the interest, not the request.
#[must_use = "the reply arrives here"]
pub struct Pending<Reply>(Result<oneshot::Receiver<Reply>, LinkError>);

/// Why there is no reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkError {
    /// The queue is full; the request was not accepted.
    Full,
    /// The server has stopped. A request that was accepted may or may not have been carried out.
    Closed,
}

enum Item<Request, Reply> {
    Asked(Asked<Request, Reply>),
    Close,
}

/// A link whose queue holds `queue_len_max` requests (at least 1).
pub fn link<Request, Reply>(queue_len_max: usize) -> (Link<Request, Reply>, Incoming<Request, Reply>) {
    let (sender, receiver) = mpsc::channel(queue_len_max.max(1));
    (Link { queue: sender }, Incoming { queue: receiver })
}

/// Starts a thread that serves a link. A panic there aborts the process: shared state may be half-changed, and a
/// process that lives on without its server helps nobody.
///
/// # Errors
/// The system has no thread to give.
pub fn spawn(name: &str, serve: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(|| {
        if catch_unwind(AssertUnwindSafe(serve)).is_err() {
            std::process::abort();
        }
    })
}

impl<Request, Reply> Link<Request, Reply> {
    /// Puts `request` into the queue, now: what one thread asks is taken out in the order of its calls, whenever (and
    /// whether) the replies are awaited. A server that overlaps requests says which keep that order.
    pub fn ask(&self, request: Request) -> Pending<Reply> {
        let (sender, receiver) = oneshot::channel();
        let asked = Asked { request, answer: Answer(sender) };
        Pending(match self.queue.try_send(Item::Asked(asked)) {
            Ok(()) => Ok(receiver),
            Err(TrySendError::Full(_)) => Err(LinkError::Full),
            Err(TrySendError::Closed(_)) => Err(LinkError::Closed),
        })
    }

    /// Lets the server stop: it serves what was accepted before, and refuses what comes after. Blocks while the queue
    /// is full, so it must not be called on a shard.
    pub fn close(&self) {
        // An error says that the server has stopped already.
        let _ = self.queue.blocking_send(Item::Close);
    }
}

impl<Request, Reply> Link<Request, Reply> {
    /// How many requests wait to be taken.
    pub fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }
}

impl<Request, Reply> Clone for Link<Request, Reply> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone() }
    }
}

impl<Request, Reply> Incoming<Request, Reply> {
    /// The next request, waiting for one; `None` when the link is closed or its last asker gone, and all is served.
    pub fn receive(&mut self) -> Option<Asked<Request, Reply>> {
        loop {
            match self.queue.blocking_recv()? {
                Item::Asked(asked) => return Some(asked),
                Item::Close => self.queue.close(),
            }
        }
    }

    /// The next request, awaiting one; `None` as of [`Incoming::receive`].
    pub async fn received(&mut self) -> Option<Asked<Request, Reply>> {
        loop {
            match self.queue.recv().await? {
                Item::Asked(asked) => return Some(asked),
                Item::Close => self.queue.close(),
            }
        }
    }

    /// The next requests: the first is waited for, the others, up to `max` in all, are there already. `None` as of
    /// [`Incoming::receive`].
    pub fn receive_batch(&mut self, max: usize) -> Option<Vec<Asked<Request, Reply>>> {
        let mut batch = vec![self.receive()?];
        while batch.len() < max
            && let Some(next) = self.try_receive()
        {
            batch.push(next);
        }
        Some(batch)
    }

    /// The next request if one is there.
    pub fn try_receive(&mut self) -> Option<Asked<Request, Reply>> {
        loop {
            match self.queue.try_recv().ok()? {
                Item::Asked(asked) => return Some(asked),
                Item::Close => self.queue.close(),
            }
        }
    }
}

impl<Reply> Answer<Reply> {
    /// Replies. That nobody waits any more is no concern of the server.
    pub fn send(self, reply: Reply) {
        let _ = self.0.send(reply);
    }
}

impl<Reply> Future for Pending<Reply> {
    type Output = Result<Reply, LinkError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Ok(receiver) => Pin::new(receiver).poll(context).map_err(|_| LinkError::Closed),
            Err(error) => Poll::Ready(Err(*error)),
        }
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "too many requests are waiting",
            Self::Closed => "the server of the link has stopped",
        })
    }
}

impl std::error::Error for LinkError {}

#[cfg(test)]
mod tests {
    use futures_lite::future::block_on;

    use super::*;

    #[test]
    fn requests_queue_in_the_order_of_the_calls_not_of_the_awaits() {
        let (link, mut incoming) = link::<u32, u32>(8);
        let (first, second) = (link.ask(1), link.ask(2));
        drop(link);
        let server = spawn("server", move || {
            let mut served = 0;
            while let Some(asked) = incoming.receive() {
                served += 1;
                asked.answer.send(asked.request * 10 + served);
            }
        });
        assert_eq!(block_on(second), Ok(22));
        assert_eq!(block_on(first), Ok(11));
        server.unwrap().join().unwrap();
    }

    #[test]
    fn a_full_queue_refuses_at_once() {
        let (link, mut incoming) = link::<u32, u32>(1);
        let first = link.ask(1);
        assert_eq!(block_on(link.ask(2)), Err(LinkError::Full));
        incoming.try_receive().unwrap().answer.send(7);
        assert_eq!(block_on(first), Ok(7));
        assert!(incoming.try_receive().is_none());
    }

    #[test]
    fn a_server_that_went_away_is_closed() {
        let (link, incoming) = link::<u32, u32>(4);
        let waiting = link.ask(1);
        drop(incoming);
        assert_eq!(block_on(waiting), Err(LinkError::Closed));
        assert_eq!(block_on(link.ask(2)), Err(LinkError::Closed));
    }

    #[test]
    fn close_serves_what_was_accepted_and_refuses_the_rest() {
        let (link, mut incoming) = link::<u32, u32>(4);
        let (before, after) = (link.ask(1), (link.close(), link.ask(2)).1);
        assert_eq!(incoming.receive().unwrap().request, 1);
        incoming.receive().unwrap().answer.send(9);
        assert!(incoming.receive().is_none());
        assert_eq!(block_on(before), Err(LinkError::Closed), "its answer was dropped");
        assert_eq!(block_on(after), Ok(9), "accepted before the server saw the close");
        assert_eq!(block_on(link.ask(3)), Err(LinkError::Closed));
    }

    #[test]
    fn asking_works_from_any_thread() {
        fn sendable(_: impl Send + Sync + 'static) {}
        sendable(link::<u32, u32>(1).0);
    }
}

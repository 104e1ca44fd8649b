//! What shards send each other: one bounded inbox per shard, and an overflow per receiver at the sender.
//!
//! A full inbox never blocks its sender (two full shards would stop for good): the message waits in the sender's
//! overflow of [`OVERFLOW_MAX`], in order, and a task of its own delivers it. When that is full too, the message is shed
//! and counted. Order between two shards is kept.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{Notify, oneshot};

use crate::api::host::Live;
use crate::base::limits::{INBOX_MAX, OVERFLOW_MAX};
use crate::base::placement::Placement;
use crate::base::{EngineSid, ShardId, TokenHash, UserId};
use crate::domain::addresses::Crowded;
use crate::domain::rate::{Action, Bucket, Key, Limit, Standing};
use crate::domain::{Input, Resumed};
use crate::message::{Delta, UserMessage};
use crate::runtime::{spawn_local, yield_now};

use super::connection::{self, Adopted};
use super::drain;
use super::polling::Whereabouts;
use super::sample::Sample;
use super::{Settings, Shard};

/// Messages handled in a row before other tasks have their turn.
const BATCH: u32 = 128;

/// One message to a shard. Those with a `reply` are answered when done.
pub enum Envelope {
    /// For the rules, to a user whose home this is.
    User { user: UserId, message: UserMessage },
    /// For the rules, to every shard.
    Published(Arc<[Delta]>),
    /// A connection that moves here.
    Adopt(Box<Adopted>),
    /// Of a polling session that began here.
    Session { sid: EngineSid, whereabouts: Whereabouts },
    /// Count or look at a rate window that is kept here.
    Rate { bucket: Bucket, key: Key, limit: Limit, action: Action, reply: oneshot::Sender<Standing> },
    /// One more connection of an address whose home this is, if it may.
    AddressEnters { address: IpAddr, reply: oneshot::Sender<Result<(), Crowded>> },
    /// One that was counted has ended.
    AddressLeaves { address: IpAddr },
    /// A newer login of a user whose home this is.
    SessionsEnded { user: UserId, except: TokenHash, reply: oneshot::Sender<()> },
    /// What is cached of the user is outdated.
    Forget { user: UserId, reply: oneshot::Sender<()> },
    /// Memory is short: give up what can be read again.
    Shrink { reply: oneshot::Sender<()> },
    /// Calls of other processes to go on with, whose callers live here, and whether there still are such processes.
    TakeOver { calls: Vec<Resumed>, has_others: bool },
    /// Go on with these.
    Settings { settings: Box<Settings>, reply: oneshot::Sender<()> },
    /// Answer, to show that this shard serves and is not stuck.
    Ping { reply: oneshot::Sender<()> },
    /// This shard's share of the counts.
    Count { reply: oneshot::Sender<Live> },
    /// All that this shard counts, for the metrics.
    Sample { reply: oneshot::Sender<Box<Sample>> },
    /// Accept nothing more, and close all connections.
    Drain { reply: oneshot::Sender<()> },
    /// Store what is to be stored, and end.
    Stop { reply: oneshot::Sender<()> },
}

/// The ways to all inboxes; each shard owns one.
pub struct Mesh {
    senders: Vec<Sender<Envelope>>,
    overflows: Vec<Rc<Overflow>>,
    shed: Cell<u64>,
}

#[derive(Default)]
struct Overflow {
    waiting: RefCell<VecDeque<Envelope>>,
    filled: Notify,
}

/// The inboxes of all shards, and their senders.
pub fn inboxes(placement: Placement) -> (Vec<Sender<Envelope>>, Vec<Receiver<Envelope>>) {
    placement.all().map(|_| channel(INBOX_MAX)).unzip()
}

impl Mesh {
    /// Ways into these inboxes, in the shards' order. Made on the shard's own thread.
    pub fn new(senders: Vec<Sender<Envelope>>) -> Self {
        let overflows = senders.iter().map(|_| Rc::default()).collect();
        Self { senders, overflows, shed: Cell::new(0) }
    }

    /// Puts `envelope` in line for a shard; false when it had to be shed.
    pub fn send(&self, to: ShardId, envelope: Envelope) -> bool {
        let overflow = &self.overflows[usize::from(to.0)];
        let mut waiting = overflow.waiting.borrow_mut();
        let refused = if waiting.is_empty() {
            match self.senders[usize::from(to.0)].try_send(envelope) {
                Ok(()) => return true,
                Err(TrySendError::Closed(_)) => return false,
                Err(TrySendError::Full(envelope)) => envelope,
            }
        } else {
            envelope
        };
        if waiting.len() >= OVERFLOW_MAX {
            self.shed.set(self.shed.get() + 1);
            tracing::error!(
                shed = self.shed.get(),
                shard = to.0,
                "a message to a shard that does not keep up was shed"
            );
            return false;
        }
        waiting.push_back(refused);
        overflow.filled.notify_one();
        true
    }

    /// Sends a question and waits for its answer; `None` when the shard is gone.
    pub async fn ask<T>(&self, to: ShardId, question: impl FnOnce(oneshot::Sender<T>) -> Envelope) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.send(to, question(reply));
        answer.await.ok()
    }

    /// Messages that could not be kept, and how many are kept now for inboxes that are full.
    pub fn standing(&self) -> (u64, usize) {
        (self.shed.get(), self.overflows.iter().map(|overflow| overflow.waiting.borrow().len()).sum())
    }

    /// Starts the tasks that deliver the overflows.
    pub fn run_overflows(&self) {
        for (sender, overflow) in self.senders.iter().zip(&self.overflows) {
            spawn_local(deliver(sender.clone(), overflow.clone()));
        }
    }
}

async fn deliver(sender: Sender<Envelope>, overflow: Rc<Overflow>) {
    loop {
        overflow.filled.notified().await;
        while !overflow.waiting.borrow().is_empty() {
            let Ok(permit) = sender.reserve().await else { return };
            if let Some(envelope) = overflow.waiting.borrow_mut().pop_front() {
                permit.send(envelope);
            }
        }
        overflow.waiting.borrow_mut().shrink_to_fit();
    }
}

/// Handles what comes in until the shard is stopped.
pub async fn run(shard: Rc<Shard>, mut inbox: Receiver<Envelope>) {
    let mut handled = 0_u32;
    while let Some(envelope) = inbox.recv().await {
        handled = handled.wrapping_add(1);
        if handled.is_multiple_of(BATCH) {
            yield_now().await;
        }
        if let Envelope::Stop { reply } = envelope {
            drain::flush(&shard).await;
            let _ = reply.send(());
            return;
        }
        shard.receive(envelope);
    }
}

impl Shard {
    fn receive(self: &Rc<Self>, envelope: Envelope) {
        match envelope {
            Envelope::User { user, message } => self.handle(Input::User { user, message }),
            Envelope::Published(deltas) => self.handle(Input::Published(deltas)),
            Envelope::Adopt(adopted) => connection::adopt(self.clone(), *adopted),
            Envelope::Session { sid, whereabouts } => self.session_whereabouts(sid, whereabouts),
            Envelope::Rate { bucket, key, limit, action, reply } => {
                let _ = reply.send(self.rates.borrow_mut().handle(self.now(), bucket, key, limit, action));
            }
            Envelope::AddressEnters { address, reply } => {
                // Who asked may have gone: then nobody would take it back.
                if let Err(Ok(())) = reply.send(self.enter_here(address)) {
                    self.addresses.borrow_mut().leave(address);
                }
            }
            Envelope::AddressLeaves { address } => self.addresses.borrow_mut().leave(address),
            Envelope::SessionsEnded { user, except, reply } => {
                self.end_sessions(user, except);
                let _ = reply.send(());
            }
            Envelope::Forget { user, reply } => {
                self.stores.forget(user);
                let _ = reply.send(());
            }
            Envelope::Shrink { reply } => {
                self.stores.shrink();
                self.scratch.shrink();
                let _ = reply.send(());
            }
            Envelope::TakeOver { calls, has_others } => self.take_over(calls, has_others),
            Envelope::Settings { settings, reply } => {
                self.set(*settings);
                let _ = reply.send(());
            }
            Envelope::Ping { reply } => drop(reply.send(())),
            Envelope::Count { reply } => drop(reply.send(self.count())),
            Envelope::Sample { reply } => drop(reply.send(Box::new(self.sample()))),
            Envelope::Drain { reply } => spawn_local(drain::run(self.clone(), reply)),
            Envelope::Stop { .. } => unreachable!("handled by the loop"),
        }
    }

    /// At the home of `user`: nothing cached, other sessions told and closed.
    pub(super) fn end_sessions(self: &Rc<Self>, user: UserId, except: TokenHash) {
        self.stores.forget(user);
        self.handle(Input::User { user, message: UserMessage::SessionsEnded { except } });
    }

    /// This shard's share of the counts; what every shard knows alike is left 0.
    pub(super) fn count(&self) -> Live {
        let (connected_users, _) = self.domain.borrow().connected();
        let (users_cache, sessions_cache) = self.stores.counts();
        let sockets = self.slots.borrow().sockets();
        let closed = self.closed.borrow().clone();
        Live { connected_users, sockets, closed, users_cache, sessions_cache, ..Live::default() }
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, or};

    use super::*;
    use crate::base::Random;

    #[test]
    fn an_overflow_keeps_the_order_and_gives_its_memory_back() {
        let (sender, mut inbox) = channel(4);
        let mesh = Mesh::new(vec![sender.clone()]);
        let sid = EngineSid::draw(ShardId(0), &mut Random::from_seed(1));
        for moves in 0..1_000 {
            let whereabouts = Whereabouts::Arrived { at: ShardId(0), moves };
            assert!(mesh.send(ShardId(0), Envelope::Session { sid, whereabouts }));
        }
        let overflow = &mesh.overflows[0];
        assert_eq!(overflow.waiting.borrow().len(), 996);
        let receive = async {
            for expected in 0..1_000 {
                let received = inbox.recv().await;
                let Some(Envelope::Session { whereabouts: Whereabouts::Arrived { moves, .. }, .. }) = received else {
                    panic!("something else came");
                };
                assert_eq!(moves, expected);
            }
        };
        block_on(or(deliver(sender, overflow.clone()), receive));
        assert_eq!(overflow.waiting.borrow().capacity(), 0);
    }
}

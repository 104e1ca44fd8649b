//! Deadlines of a shard: its connections' and its rules', served by one task and one runtime timer.
//!
//! A connection that only moves its deadline later is not set anew: its timer fires once too early and finds that.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::base::{ConnId, Time};
use crate::domain::Input;
use crate::runtime::sleep;

use super::Shard;
use super::slots::Entry;

/// Nothing due: look again then, to be safe against a missed wake.
const IDLE_MS: u64 = 60_000;

/// The set of connection deadlines and who waits for the earliest.
#[derive(Default)]
pub struct Timers {
    conns: RefCell<BTreeSet<(Time, ConnId)>>,
    /// For when the task sleeps, and how to wake it sooner.
    sleeping_until: Cell<Time>,
    waker: Cell<Option<Waker>>,
}

impl Timers {
    /// Sees to it that the connection is looked at when its deadline comes.
    pub fn set(&self, id: ConnId, entry: &mut Entry) {
        let Some(at) = entry.conn.deadline() else { return };
        if entry.timer_at.is_some_and(|set| set <= at) {
            return;
        }
        let mut conns = self.conns.borrow_mut();
        if let Some(later) = entry.timer_at.replace(at) {
            conns.remove(&(later, id));
        }
        conns.insert((at, id));
        drop(conns);
        self.wake_before(at);
    }

    /// Forgets a connection.
    pub fn clear(&self, id: ConnId, entry: &mut Entry) {
        if let Some(at) = entry.timer_at.take() {
            self.conns.borrow_mut().remove(&(at, id));
        }
    }

    /// Wakes the task if it would sleep beyond `at`.
    pub fn wake_before(&self, at: Time) {
        if at < self.sleeping_until.get()
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
    }

    fn take_due(&self, now: Time) -> Option<ConnId> {
        let mut conns = self.conns.borrow_mut();
        let &(at, id) = conns.first()?;
        if at > now {
            return None;
        }
        conns.pop_first();
        Some(id)
    }

    fn first(&self) -> Option<Time> {
        self.conns.borrow().first().map(|(at, _)| *at)
    }
}

/// Wakes what is due, for ever.
pub async fn run(shard: Rc<Shard>) {
    loop {
        let now = shard.now();
        while let Some(id) = shard.timers.take_due(now) {
            if let Some(entry) = shard.slots.borrow_mut().get(id) {
                entry.timer_at = None;
                entry.wake();
            }
        }
        if shard.domain.borrow().deadline().is_some_and(|at| at <= now) {
            shard.handle(Input::Tick);
        }
        let of_rules = shard.domain.borrow().deadline();
        let next = [shard.timers.first(), of_rules].into_iter().flatten().min();
        let until = next.unwrap_or(now + IDLE_MS).min(now + IDLE_MS);
        shard.timers.sleeping_until.set(until);
        let pause = Duration::from_millis((until - shard.now()).max(1));
        futures_lite::future::or(sleep(pause), woken(&shard.timers)).await;
    }
}

async fn woken(timers: &Timers) {
    let mut first = true;
    poll_fn(|context| {
        if !std::mem::take(&mut first) {
            return Poll::Ready(());
        }
        timers.waker.set(Some(context.waker().clone()));
        Poll::Pending
    })
    .await;
}

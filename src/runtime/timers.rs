//! The timers of an io_uring shard: who is to be woken when. How long the shard may sleep follows from the first of them.
//!
//! Owned by: the shard's thread. Bound: one entry per [`Sleep`] that was polled. Not here: the deadlines of connections and
//! rules, for which a shard has one of these.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Stands for longer than the clock can say.
const LONG: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// Who sleeps; clones are handles to the same.
#[derive(Clone, Default)]
pub(super) struct Timers(Rc<RefCell<Inner>>);

#[derive(Default)]
struct Inner {
    /// By time, and then by who came first.
    sleepers: BTreeMap<(Instant, u64), Waker>,
    made: u64,
}

/// Ready once its time has come; forgotten when dropped.
pub(super) struct Sleep {
    timers: Timers,
    key: (Instant, u64),
}

impl Timers {
    /// Waits at least `duration` from now on.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        let now = now();
        let mut inner = self.0.borrow_mut();
        inner.made += 1;
        let at = now.checked_add(duration).unwrap_or(now + LONG);
        Sleep { timers: self.clone(), key: (at, inner.made) }
    }

    /// Wakes those whose time has come; then, how long until the next one's, if there is any.
    pub fn wake_due(&self) -> Option<Duration> {
        let now = now();
        loop {
            let mut inner = self.0.borrow_mut();
            let first = inner.sleepers.first_entry()?;
            let (at, _) = *first.key();
            if at > now {
                return Some(at - now);
            }
            let waker = first.remove();
            drop(inner);
            waker.wake();
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.key.0 <= now() {
            return Poll::Ready(());
        }
        self.timers.0.borrow_mut().sleepers.insert(self.key, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.timers.0.borrow_mut().sleepers.remove(&self.key);
    }
}

/// The clock that also sleeps: as a runtime has one of its own, and apart from what the product calls time.
#[allow(clippy::disallowed_methods, reason = "a runtime's own clock, as tokio's and glommio's")]
pub(super) fn now() -> Instant {
    Instant::now()
}

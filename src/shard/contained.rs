//! Panics: those while decoding one client's bytes cost that client only; any other aborts the process.
//!
//! A panic in shared state leaves it half-changed, so going on would be worse than a restart: media is peer-to-peer
//! and the store holds all that was acknowledged.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Makes every panic outside [`contained`] end the process, after its message.
pub fn abort_on_shared_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        if !CONTAINED.get() {
            std::process::abort();
        }
    }));
}

/// What `work` gives, or `None` when it panicked.
pub fn contained<T>(work: impl FnOnce() -> T) -> Option<T> {
    let before = CONTAINED.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    CONTAINED.set(before);
    outcome.ok()
}

/// Work on shared state, perhaps on behalf of contained work: its panics abort all the same.
pub fn shared<T>(work: impl FnOnce() -> T) -> T {
    let before = CONTAINED.replace(false);
    let value = work();
    CONTAINED.set(before);
    value
}

/// [`contained`] for a future, which must not be polled again after it panicked and is not.
pub async fn contained_future<T>(work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(|context| match contained(|| work.as_mut().poll(context)) {
        Some(Poll::Pending) => Poll::Pending,
        Some(Poll::Ready(value)) => Poll::Ready(Some(value)),
        None => Poll::Ready(None),
    })
    .await
}

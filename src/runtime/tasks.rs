//! The tasks of one shard: how they are spawned, what a panic in one does, and how the last of them end.
//!
//! Owned by: the shard's thread (a thread-local). Bound: one waker per live task; who spawns bounds the tasks.
//! Not here: cancellation of single tasks (a task ends by itself or with its shard) and results of tasks (they report by message).
//!
//! glommio leaks a pending task, and its sockets, when its executor ends; tokio swallows a detached task's panic. Each task is wrapped so
//! that both behave alike: a panic ends the shard, and the end of the shard drops every task.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::task::{Poll, Waker};
use std::time::Duration;

use super::{Kind, sleep, yield_now};

/// What the thread of a shard knows of its runtime and its tasks.
struct Shard {
    kind: Cell<Option<Kind>>,
    closing: Cell<bool>,
    panic: Cell<Option<Box<dyn Any + Send>>>,
    main: RefCell<Option<Waker>>,
    live: Cell<usize>,
    wakers: RefCell<Vec<Option<Waker>>>,
    vacant: RefCell<Vec<usize>>,
}

/// The longest that a ready task waits for a sleeping glommio executor.
const PULSE: Duration = Duration::from_millis(20);
const PULSES: u32 = 4;

thread_local! {
    static SHARD: Shard = const {
        Shard {
            kind: Cell::new(None),
            closing: Cell::new(false),
            panic: Cell::new(None),
            main: RefCell::new(None),
            live: Cell::new(0),
            wakers: RefCell::new(Vec::new()),
            vacant: RefCell::new(Vec::new()),
        }
    };
}

/// Runs `future` on this shard until it ends, or until the shard does; a panic in it ends the shard.
///
/// # Panics
/// When called from a thread that is no shard.
pub fn spawn_local(future: impl Future<Output = ()> + 'static) {
    // Boxed, because a future that is handed through two async functions is laid out in both.
    let task = tracked(Entry::new(), Box::pin(future));
    match kind() {
        // Detached at once: a handle kept across threads' wakes is where glommio's reference counts could race.
        Kind::Uring => drop(glommio::spawn_local(task).detach()),
        Kind::Epoll => drop(tokio::task::spawn_local(task)),
    }
}

/// The runtime of this thread.
pub(super) fn kind() -> Kind {
    SHARD.with(|shard| shard.kind.get()).expect("called from a thread that is no shard")
}

/// Keeps glommio from sleeping over tasks that are ready.
///
/// glommio 0.9 may park with a task in its run queue: `run_task_queues` gives up when the ring has an entry (the eventfd
/// of a foreign wake, a preemption timer) and says that nothing was ready; the entry wakes nobody, and the executor
/// parks (fixed upstream after 0.9, glommio/glommio#53). Only a timer or I/O ends that, so a timer is always near. The pulses are several and out of step, because
/// one whose own task is stuck in the queue has no timer set.
fn keep_awake() {
    for number in 0..PULSES {
        spawn_local(async move {
            sleep(PULSE * number).await;
            loop {
                sleep(PULSE * PULSES).await;
            }
        });
    }
}

/// Marks this thread as a shard; once, before its executor runs.
pub(super) fn enter(kind: Kind) {
    SHARD.with(|shard| assert!(shard.kind.replace(Some(kind)).is_none(), "one executor per thread"));
}

/// Runs `main`, passes on the panic of any task, and at the end drops the tasks that are left.
pub(super) async fn supervise<F: Future<Output = ()>>(main: impl FnOnce() -> F) {
    if kind() == Kind::Uring {
        keep_awake();
    }
    {
        let mut main = pin!(main());
        poll_fn(|context| {
            SHARD.with(|shard| {
                if let Some(payload) = shard.panic.take() {
                    resume_unwind(payload);
                }
                shard.main.replace(Some(context.waker().clone()));
            });
            main.as_mut().poll(context)
        })
        .await;
    }
    let wakers: Vec<Waker> = SHARD.with(|shard| {
        shard.closing.set(true);
        shard.main.take();
        shard.wakers.borrow().iter().flatten().cloned().collect()
    });
    wakers.into_iter().for_each(Waker::wake);
    while SHARD.with(|shard| shard.live.get()) > 0 {
        yield_now().await;
    }
    if let Some(payload) = SHARD.with(|shard| shard.panic.take()) {
        resume_unwind(payload);
    }
}

/// Polls `future` until it ends, panics, or the shard closes; then drops it, whichever it was.
async fn tracked(entry: Entry, mut future: Pin<Box<impl Future<Output = ()>>>) {
    let mut registered = false;
    poll_fn(|context| {
        if SHARD.with(|shard| shard.closing.get()) {
            return Poll::Ready(());
        }
        if !registered {
            registered = true;
            SHARD.with(|shard| shard.wakers.borrow_mut()[entry.slot] = Some(context.waker().clone()));
        }
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(poll) => poll,
            Err(payload) => {
                end_shard(payload);
                Poll::Ready(())
            }
        }
    })
    .await;
}

/// Hands a task's panic to `main`, which resumes it.
fn end_shard(payload: Box<dyn Any + Send>) {
    SHARD.with(|shard| {
        shard.panic.set(Some(payload));
        if let Some(main) = shard.main.borrow().as_ref() {
            main.wake_by_ref();
        }
    });
}

/// A live task's place in the shard's list, given back when the task is dropped.
struct Entry {
    slot: usize,
}

impl Entry {
    fn new() -> Entry {
        SHARD.with(|shard| {
            shard.live.set(shard.live.get() + 1);
            let mut wakers = shard.wakers.borrow_mut();
            let slot = shard.vacant.borrow_mut().pop().unwrap_or_else(|| {
                wakers.push(None);
                wakers.len() - 1
            });
            assert!(wakers[slot].is_none(), "a vacant slot holds no waker");
            Entry { slot }
        })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // An executor torn down by a panic may drop tasks after this thread-local is gone.
        let _ = SHARD.try_with(|shard| {
            let waker = shard.wakers.borrow_mut()[self.slot].take();
            shard.vacant.borrow_mut().push(self.slot);
            shard.live.set(shard.live.get() - 1);
            drop(waker);
        });
    }
}

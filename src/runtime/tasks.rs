//! The tasks of one shard: how they are spawned, what a panic in one does, and how the last of them end.
//!
//! Owned by: the shard's thread (a thread-local). Bound: one waker per live task; who spawns bounds the tasks.
//! Not here: cancellation of single tasks (a task ends by itself or with its shard), results of tasks (they report by
//! message), how another thread wakes a glommio task ([`super::wake`]).
//!
//! glommio leaks a pending task, and its sockets, when its executor ends; tokio swallows a detached task's panic. Each task is wrapped so
//! that both behave alike: a panic ends the shard, and the end of the shard drops every task.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::driver::Driver;
use super::ring::Ring;
use super::timers::Timers;
use super::wake::Bell;
use super::{Kind, yield_now};

/// What the thread of a shard knows of its runtime and its tasks.
struct Shard {
    kind: Cell<Option<Kind>>,
    closing: Cell<bool>,
    panic: Cell<Option<Box<dyn Any + Send>>>,
    main: RefCell<Option<Waker>>,
    live: Cell<usize>,
    /// The runtime's own waker of each living task, by slot.
    wakers: RefCell<Vec<Option<Waker>>>,
    vacant: RefCell<Vec<usize>>,
    /// On io_uring: how other threads reach the tasks.
    bell: RefCell<Option<Arc<Bell>>>,
    /// On io_uring: where connections receive, and who sleeps.
    ring: RefCell<Option<Ring>>,
    timers: RefCell<Option<Timers>>,
    /// On io_uring: the slot of the task that is being polled, and how often any was made ready.
    polled: Cell<Option<usize>>,
    wakes: Cell<u64>,
}

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
            bell: RefCell::new(None),
            ring: RefCell::new(None),
            timers: RefCell::new(None),
            polled: Cell::new(None),
            wakes: Cell::new(0),
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
    SHARD.with(count_wake);
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

/// The ring by which connections of this shard receive.
///
/// # Panics
/// On epoll.
pub(super) fn ring() -> Ring {
    SHARD.with(|shard| shard.ring.borrow().clone()).expect("called from a shard on io_uring")
}

/// The timers of this shard.
///
/// # Panics
/// On epoll.
pub(super) fn timers() -> Timers {
    SHARD.with(|shard| shard.timers.borrow().clone()).expect("called from a shard on io_uring")
}

/// Lets the tasks that are ready run first, without counting as a wake.
pub(super) async fn let_the_ready_run() {
    let mut is_awake = true;
    poll_fn(|_| {
        if !std::mem::take(&mut is_awake) {
            return Poll::Ready(());
        }
        SHARD.with(|shard| {
            let slot = shard.polled.get().expect("a task is polled");
            shard.wakers.borrow()[slot].as_ref().expect("a task that is polled has a waker").wake_by_ref();
        });
        Poll::Pending
    })
    .await;
}

/// How often a task was made ready so far, on io_uring: none is ready that was not counted, or ran, since.
pub(super) fn wakes() -> u64 {
    SHARD.with(|shard| shard.wakes.get())
}

fn count_wake(shard: &Shard) {
    shard.wakes.set(shard.wakes.get() + 1);
}

/// Wakes the task in `slot`, if this thread is the shard that `bell` belongs to.
pub(super) fn wake_here(bell: &Arc<Bell>, slot: usize) -> bool {
    let wake = |shard: &Shard| {
        if !shard.bell.borrow().as_ref().is_some_and(|own| Arc::ptr_eq(own, bell)) {
            return false;
        }
        count_wake(shard);
        if let Some(waker) = &shard.wakers.borrow()[slot] {
            waker.wake_by_ref();
        }
        true
    };
    SHARD.try_with(wake).unwrap_or(false)
}

/// Marks this thread as a shard; once, before its executor runs. What it gives is for [`supervise`].
///
/// # Errors
/// No descriptors are left, or the kernel refuses a ring.
pub(super) fn enter(kind: Kind) -> io::Result<Option<Driver>> {
    let driver = match kind {
        Kind::Uring => Some(Driver::new()?),
        Kind::Epoll => None,
    };
    SHARD.with(|shard| {
        assert!(shard.kind.replace(Some(kind)).is_none(), "one executor per thread");
        shard.bell.replace(driver.as_ref().map(|driver| driver.ear.bell()));
        shard.ring.replace(driver.as_ref().map(|driver| driver.ring.clone()));
        shard.timers.replace(driver.as_ref().map(|driver| driver.timers.clone()));
    });
    Ok(driver)
}

/// Runs `main`, passes on the panic of any task, and at the end drops the tasks that are left.
pub(super) async fn supervise<F: Future<Output = ()>>(driver: Option<Driver>, main: impl FnOnce() -> F) {
    if let Some(driver) = driver {
        spawn_local(driver.drive());
    }
    {
        let mut entry = Entry::new();
        let mut main = pin!(main());
        poll_fn(|context| {
            if let Some(payload) = SHARD.with(|shard| shard.panic.take()) {
                resume_unwind(payload);
            }
            entry.poll_in(context, |context| {
                SHARD.with(|shard| shard.main.replace(Some(context.waker().clone())));
                main.as_mut().poll(context)
            })
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
    SHARD.with(|shard| (shard.ring.take(), shard.timers.take()));
    if let Some(payload) = SHARD.with(|shard| shard.panic.take()) {
        resume_unwind(payload);
    }
}

/// Polls `future` until it ends, panics, or the shard closes; then drops it, whichever it was.
async fn tracked(mut entry: Entry, mut future: Pin<Box<impl Future<Output = ()>>>) {
    poll_fn(|context| {
        if SHARD.with(|shard| shard.closing.get()) {
            return Poll::Ready(());
        }
        let poll = || entry.poll_in(context, |context| future.as_mut().poll(context));
        catch_unwind(AssertUnwindSafe(poll)).unwrap_or_else(|payload| {
            end_shard(payload);
            Poll::Ready(())
        })
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
    /// The waker that the task gives to what it waits for, from its first poll on.
    waker: Option<Waker>,
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
            Entry { slot, waker: None }
        })
    }

    /// Polls the task of this place: on io_uring with a waker that other threads may use, on epoll with tokio's.
    fn poll_in(&mut self, context: &Context<'_>, poll: impl FnOnce(&mut Context<'_>) -> Poll<()>) -> Poll<()> {
        let waker = self.waker.get_or_insert_with(|| {
            let own = context.waker().clone();
            SHARD.with(|shard| {
                shard.wakers.borrow_mut()[self.slot] = Some(own.clone());
                shard.bell.borrow().as_ref().map_or(own, |bell| bell.waker(self.slot))
            })
        });
        SHARD.with(|shard| shard.polled.set(Some(self.slot)));
        let outcome = poll(&mut Context::from_waker(waker));
        SHARD.with(|shard| shard.polled.set(None));
        outcome
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

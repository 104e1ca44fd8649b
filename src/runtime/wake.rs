//! How the tasks of a glommio shard are woken: by their own thread at once, by another through an eventfd.
//!
//! Owned by: the shard's thread reads its [`Ear`]; wakers travel to any thread. Bound: one entry per living task waits in
//! a bell's line, however often it is woken. Not here: tokio's wakers, which serve the epoll shards as they are.
//!
//! Other threads never use glommio's own wakers, which end the sleep of glommio; a shard sleeps in its ring ([`super::driver`]).

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Wake, Waker};

use super::tasks;

/// The way of other threads to the tasks of one shard.
pub(super) struct Bell {
    line: Sender<Arc<TaskWaker>>,
    eventfd: File,
    /// The shard has not heard it yet, so that it need not be rung again.
    rung: AtomicBool,
}

/// The shard's end of its [`Bell`].
pub(super) struct Ear {
    bell: Arc<Bell>,
    line: Receiver<Arc<TaskWaker>>,
}

/// Wakes the task that has a slot of a shard. A slot that another task has meanwhile is woken for nothing, as futures allow.
struct TaskWaker {
    bell: Arc<Bell>,
    slot: usize,
    in_line: AtomicBool,
}

impl Bell {
    /// The waker of the task in `slot`.
    pub fn waker(self: &Arc<Self>, slot: usize) -> Waker {
        Waker::from(Arc::new(TaskWaker { bell: self.clone(), slot, in_line: AtomicBool::new(false) }))
    }

    fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // Its count, which nobody reads, has no room after 2^64 of these only.
            let _ = (&self.eventfd).write(&1_u64.to_ne_bytes());
        }
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if tasks::wake_here(&self.bell, self.slot) || self.in_line.swap(true, Ordering::AcqRel) {
            return;
        }
        if self.bell.line.send(self.clone()).is_ok() {
            self.bell.ring();
        }
    }
}

impl Ear {
    /// A bell and its ear, for the shard that calls.
    ///
    /// # Errors
    /// No descriptors are left.
    #[allow(unsafe_code)]
    pub fn new() -> io::Result<Ear> {
        // SAFETY: eventfd takes numbers; what it makes is ours.
        let eventfd = unsafe {
            match libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) {
                -1 => return Err(io::Error::last_os_error()),
                descriptor => OwnedFd::from_raw_fd(descriptor),
            }
        };
        let (sender, line) = channel();
        let bell = Arc::new(Bell { line: sender, eventfd: eventfd.into(), rung: AtomicBool::new(false) });
        Ok(Ear { bell, line })
    }

    /// The bell that this ear hears.
    pub fn bell(&self) -> Arc<Bell> {
        self.bell.clone()
    }

    /// Becomes readable each time the bell is rung, and stays so: what counts is the edge.
    pub fn eventfd(&self) -> BorrowedFd<'_> {
        self.bell.eventfd.as_fd()
    }

    /// Wakes who was put in line; to be called after the bell was rung.
    pub fn wake_the_line(&self) {
        // Before the line is read: who joins it later rings again.
        self.bell.rung.swap(false, Ordering::AcqRel);
        while let Ok(task) = self.line.try_recv() {
            task.in_line.swap(false, Ordering::AcqRel);
            tasks::wake_here(&self.bell, task.slot);
        }
    }
}

//! How the tasks of a glommio shard are woken: by their own thread at once, by anything else through a pair of sockets.
//!
//! Owned by: the shard's thread reads its [`Ear`]; wakers travel to any thread. Bound: one entry per living task waits in
//! a bell's line, however often it is woken. Not here: tokio's wakers, which serve the epoll shards as they are.
//!
//! glommio 0.9 parks over tasks that are ready: `run_task_queues` gives up before the first of them when an entry waits in
//! its latency ring, and says that nothing ran; the entry wakes nobody, and the executor sleeps until the next I/O (fixed
//! upstream after 0.9, glommio/glommio#53). The entries are the eventfd of a wake from another thread and the preemption timer.
//! So other threads never use glommio's wakers: they put the task in line and write a byte, which is I/O like any other. And
//! preemption is set to never happen; instead a task that wakes itself, to let others have their turn, takes the same way,
//! so that the ring is looked at before it runs again.

use std::future::poll_fn;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Wake, Waker};

use futures_lite::AsyncRead;

use super::{stream, tasks};

/// The way of other threads to the tasks of one shard.
pub(super) struct Bell {
    line: Sender<Arc<TaskWaker>>,
    socket: UnixStream,
    /// A byte is on its way, so that another is not needed.
    rung: AtomicBool,
}

/// The shard's end of its [`Bell`].
pub(super) struct Ear {
    bell: Arc<Bell>,
    line: Receiver<Arc<TaskWaker>>,
    socket: UnixStream,
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
            // Refused when the shard has ended, and there is nobody to wake then.
            let _ = (&self.socket).write(&[1]);
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
    pub fn new() -> io::Result<Ear> {
        let (near, far) = UnixStream::pair()?;
        near.set_nonblocking(true)?;
        far.set_nonblocking(true)?;
        let (sender, line) = channel();
        let bell = Arc::new(Bell { line: sender, socket: far, rung: AtomicBool::new(false) });
        Ok(Ear { bell, line, socket: near })
    }

    /// The bell that this ear hears.
    pub fn bell(&self) -> Arc<Bell> {
        self.bell.clone()
    }

    /// Wakes who was put in line, for as long as the shard lives.
    pub async fn listen(self) {
        let mut socket = stream::adopt(OwnedFd::from(self.socket));
        loop {
            // One byte at most is on its way; room for more tells glommio to ask the ring at once instead of reading again.
            let read = poll_fn(|context| Pin::new(&mut socket).poll_read(context, &mut [0; 8])).await;
            assert!(read.is_ok_and(|length| length > 0), "the bell, whose other end this task holds, is never closed");
            // Before the line is read: who joins it later rings again.
            self.bell.rung.swap(false, Ordering::AcqRel);
            while let Ok(task) = self.line.try_recv() {
                task.in_line.swap(false, Ordering::AcqRel);
                tasks::wake_here(&self.bell, task.slot);
            }
        }
    }
}

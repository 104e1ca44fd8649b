//! The task that takes in what a shard's ring has completed, and how glommio waits for it.
//!
//! Owned by: the shard's thread. Bound: [`TURNS_IN_A_ROW`] before glommio looks at its own rings again.
//! Not here: what a completion means ([`super::ring`]).
//!
//! The ring rings an eventfd, which glommio reads like a file. Its own eventfd, of whose fault [`super::wake`] tells, has no
//! part in this.

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsFd, FromRawFd, IntoRawFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use glommio::io::BufferedFile;

use super::ring::Ring;
use super::{tasks, yield_now};

/// Turns of the ring, each of which lets all ready tasks run, before the runtime's timers, accepts and wakes have theirs.
const TURNS_IN_A_ROW: usize = 8;

/// A ring and the eventfd that says when a turn is worth while.
pub(super) struct Driver {
    ring: Ring,
    eventfd: OwnedFd,
}

impl Driver {
    /// A ring for the thread that calls.
    ///
    /// # Errors
    /// As [`Ring::new`], or no descriptors are left.
    #[allow(unsafe_code)]
    pub fn new() -> io::Result<Driver> {
        // SAFETY: eventfd takes numbers; what it makes is ours.
        let eventfd = unsafe {
            match libc::eventfd(0, libc::EFD_CLOEXEC) {
                -1 => return Err(io::Error::last_os_error()),
                descriptor => OwnedFd::from_raw_fd(descriptor),
            }
        };
        Ok(Driver { ring: Ring::new(eventfd.as_fd())?, eventfd })
    }

    /// The ring that this drives.
    pub fn ring(&self) -> Ring {
        self.ring.clone()
    }

    /// Takes completions in for as long as the shard lives.
    pub async fn drive(self) {
        let Driver { ring, eventfd } = self;
        let mut signal = Signal::new(eventfd);
        let mut turns = 0_usize;
        loop {
            if !ring.turn() && signal.wait(&ring).await {
                continue;
            }
            turns += 1;
            if turns.is_multiple_of(TURNS_IN_A_ROW) {
                yield_now().await;
            } else {
                tasks::let_the_ready_run().await;
            }
        }
    }
}

/// The eventfd as glommio waits for it.
struct Signal {
    file: Rc<BufferedFile>,
    read: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Signal {
    #[allow(unsafe_code)]
    fn new(eventfd: OwnedFd) -> Signal {
        // SAFETY: the descriptor is owned and given away.
        let file = unsafe { BufferedFile::from_raw_fd(eventfd.into_raw_fd()) };
        Signal { file: Rc::new(file), read: None }
    }

    /// Waits until a turn is worth while; false if it is at once.
    async fn wait(&mut self, ring: &Ring) -> bool {
        let mut is_parked = false;
        poll_fn(|context| {
            is_parked = is_parked || ring.park(context);
            if !is_parked || ring.is_wanted() { Poll::Ready(()) } else { self.poll(context) }
        })
        .await;
        ring.unpark();
        is_parked
    }

    /// Ready once after one or more signals.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let file = &self.file;
        let read = self.read.get_or_insert_with(|| {
            let file = file.clone();
            Box::pin(async move { assert!(file.read_at(0, 8).await.is_ok(), "an eventfd can be read") })
        });
        ready!(read.as_mut().poll(context));
        self.read = None;
        Poll::Ready(())
    }
}

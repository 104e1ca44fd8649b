//! The task of an io_uring shard that takes in what has completed, and sleeps when there is nothing else to do.
//!
//! Owned by: the shard's thread. Bound: one turn of the ring after each task that is ready has run once.
//! Not here: what a completion means ([`super::ring`]), who is woken when ([`super::timers`]) and by whom ([`super::wake`]).
//!
//! glommio runs the tasks, but neither waits nor sleeps: this task is always ready, so its loop never ends. A glommio shard that
//! sleeps and wakes makes some ten calls to the kernel, and 0.9 sleeps over tasks that are ready when an entry waits in its
//! latency ring (fixed upstream after 0.9, glommio/glommio#53). Here it is the one call that also submits.

use std::io;

use super::ring::{Ring, Sleep};
use super::tasks;
use super::timers::Timers;
use super::turns;
use super::wake::Ear;

/// A shard's ring, timers and ear.
pub(super) struct Driver {
    pub ring: Ring,
    pub timers: Timers,
    pub ear: Ear,
}

impl Driver {
    /// A ring for the thread that calls, and what wakes it.
    ///
    /// # Errors
    /// As [`Ring::new`], or no descriptors are left.
    pub fn new() -> io::Result<Driver> {
        let ear = Ear::new()?;
        Ok(Driver { ring: Ring::new(ear.eventfd())?, timers: Timers::default(), ear })
    }

    /// Takes completions in for as long as the shard lives.
    pub async fn drive(self) {
        loop {
            let wakes = tasks::wakes();
            tasks::let_the_ready_run().await;
            let next = self.timers.wake_due();
            let sleep = match next {
                _ if tasks::wakes() != wakes => Sleep::No,
                Some(pause) => Sleep::AtMost(pause),
                None => Sleep::Endless,
            };
            turns::end();
            let is_rung = self.ring.turn(sleep);
            turns::begin();
            if is_rung {
                self.ear.wake_the_line();
            }
        }
    }
}

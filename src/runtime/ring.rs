//! A shard's own ring: what arrives is received in batches, without a call to the kernel per message, and here the shard sleeps.
//!
//! Owned by: the shard's thread. Bound: one receive and one wait for readiness per socket; received and unread is at most one
//! buffer of [`BUFFER_BYTES`] each, the rest stays in the socket: nothing is received for a connection that nobody reads.
//! Not here: writes (they go out at once), accepting, timers, and when to sleep ([`super::driver`]).
//!
//! It stands in for glommio's rings because the kernel interrupts the thread for each arrival on those, and glommio's streams
//! then read by a call each. On this one the kernel receives when the shard asks for it (`DEFER_TASKRUN`), all at once.

use std::cell::RefCell;
use std::io;
use std::mem::{self, ManuallyDrop};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use super::pool::{BUFFER_BYTES, GROUP, Pool};
use super::{Lease, Scratch};

/// Requests that wait to be submitted; a call in between makes room for more.
const SUBMISSIONS: u32 = 256;

/// Completions that wait to be taken in; the kernel keeps those beyond.
const COMPLETIONS: u32 = 2048;

/// What a request is, in the low bits of its user data; above them stands the number of its seat.
const RECEIVE: u64 = 0;
const READINESS: u64 = 1;
const CANCEL: u64 = 2;
const BELL: u64 = 3;
const KIND_BITS: u32 = 2;
const KIND_MASK: u64 = (1 << KIND_BITS) - 1;

/// The ring and what it knows of each connection; clones are handles to the same one.
#[derive(Clone)]
pub(super) struct Ring(Rc<RefCell<Inner>>);

struct Inner {
    /// The ring goes before the pool it receives into.
    uring: ManuallyDrop<IoUring>,
    pool: ManuallyDrop<Pool>,
    seats: Vec<State>,
    vacant: Vec<u32>,
    /// Seats whose bytes came into the pool since the last turn.
    filled: Vec<u32>,
    /// To be woken with the next turn.
    woken: Vec<Waker>,
    /// Receives under way.
    receiving: usize,
    /// The eventfd by which other threads end a sleep.
    bell: OwnedFd,
    is_rung: bool,
}

/// What is known of one connection.
#[derive(Default)]
struct State {
    received: Option<Received>,
    reader: Option<Waker>,
    /// Waits for room to write, or for a connection to accept.
    readiness: Option<Waker>,
    is_receiving: bool,
    is_polled: bool,
    /// More is in the socket than the last read took.
    has_more: bool,
    /// The connection has gone; the seat is vacant once nothing is under way.
    is_left: bool,
}

enum Received {
    /// In a buffer of the pool: its number, and how many bytes.
    Pooled(u16, usize),
    Kept(Box<[u8]>),
    End,
    Failed(i32),
}

/// A connection's place in the ring. What is under way for it ends when it is dropped, which must be before the socket is.
pub(super) struct Seat {
    ring: Ring,
    number: u32,
}

/// How long a turn waits for the first completion.
#[derive(Clone, Copy)]
pub(super) enum Sleep {
    No,
    AtMost(Duration),
    Endless,
}

impl Ring {
    /// A ring for the thread that calls, and no other. `bell`, an eventfd, ends a sleep.
    ///
    /// # Errors
    /// The kernel refuses it, or is older than 6.1.
    pub fn new(bell: BorrowedFd<'_>) -> io::Result<Ring> {
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_cqsize(COMPLETIONS);
        let uring: IoUring = builder.build(SUBMISSIONS)?;
        let pool = Pool::register(&uring)?;
        let mut inner = Inner {
            uring: ManuallyDrop::new(uring),
            pool: ManuallyDrop::new(pool),
            seats: Vec::new(),
            vacant: Vec::new(),
            filled: Vec::new(),
            woken: Vec::new(),
            receiving: 0,
            bell: bell.try_clone_to_owned()?,
            is_rung: false,
        };
        inner.listen();
        Ok(Ring(Rc::new(RefCell::new(inner))))
    }

    /// A seat for a connection of which `early` was received already.
    pub fn seat(&self, early: Box<[u8]>) -> Seat {
        let mut inner = self.0.borrow_mut();
        let number = inner.vacant.pop().unwrap_or_else(|| {
            inner.seats.push(State::default());
            u32::try_from(inner.seats.len() - 1).expect("fewer seats than descriptors")
        });
        if !early.is_empty() {
            inner.seats[number as usize].received = Some(Received::Kept(early));
        }
        Seat { ring: self.clone(), number }
    }

    /// Submits what is wanted, takes in what has completed, and wakes whose it is; true if the bell was rung. Without
    /// anything to take in it sleeps as it is told.
    pub fn turn(&self, sleep: Sleep) -> bool {
        let (mut woken, is_rung) = {
            let mut inner = self.0.borrow_mut();
            inner.empty_pool();
            // What a seat that was left took in for others has waited for this turn.
            let is_anything_in = inner.is_rung || !inner.woken.is_empty();
            inner.complete(if is_anything_in { Sleep::No } else { sleep });
            (mem::take(&mut inner.woken), mem::take(&mut inner.is_rung))
        };
        woken.drain(..).for_each(Waker::wake);
        self.0.borrow_mut().woken = woken;
        is_rung
    }
}

impl Seat {
    /// Lends what has arrived, or receives and wakes the task then. `socket` is the seat's own, and not in non-blocking mode,
    /// in which a receive would fail instead of wait.
    ///
    /// # Errors
    /// As `recv`.
    pub fn poll_receive(
        &self,
        socket: BorrowedFd<'_>,
        context: &Context<'_>,
        scratch: &Scratch,
    ) -> Poll<io::Result<Lease>> {
        let inner = &mut *self.ring.0.borrow_mut();
        let state = &mut inner.seats[self.number as usize];
        if let Some(received) = state.received.take() {
            return Poll::Ready(inner.lend(received, scratch));
        }
        if mem::take(&mut state.has_more) {
            let mut lease = scratch.lend();
            match receive(socket, lease.space()) {
                Ok(length) => {
                    state.has_more = length == lease.space().len();
                    return Poll::Ready(Ok(lease.filled(length)));
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        remember(&mut state.reader, context.waker());
        if !mem::replace(&mut state.is_receiving, true) {
            let request = opcode::Recv::new(Fd(socket.as_raw_fd()), std::ptr::null_mut(), BUFFER_BYTES as u32);
            let request = request.buf_group(GROUP).build().flags(squeue::Flags::BUFFER_SELECT);
            inner.receiving += 1;
            inner.push(&request.user_data(data(self.number, RECEIVE)));
        }
        Poll::Pending
    }

    /// Wakes the task once the socket, which is full, has room; always the same socket of a seat.
    pub fn await_room(&self, socket: BorrowedFd<'_>, context: &Context<'_>) {
        self.await_readiness(socket, libc::POLLOUT, context);
    }

    /// Wakes the task once the socket, which listens, has a connection to accept; always the same socket of a seat.
    pub fn await_connection(&self, socket: BorrowedFd<'_>, context: &Context<'_>) {
        self.await_readiness(socket, libc::POLLIN, context);
    }

    fn await_readiness(&self, socket: BorrowedFd<'_>, events: i16, context: &Context<'_>) {
        let inner = &mut *self.ring.0.borrow_mut();
        let state = &mut inner.seats[self.number as usize];
        remember(&mut state.readiness, context.waker());
        if !mem::replace(&mut state.is_polled, true) {
            let request = opcode::PollAdd::new(Fd(socket.as_raw_fd()), events as u32).build();
            inner.push(&request.user_data(data(self.number, READINESS)));
        }
    }

    /// Ends what is under way; the bytes that had arrived and nobody read.
    pub fn withdraw(self) -> Box<[u8]> {
        let mut inner = self.ring.0.borrow_mut();
        inner.cancel(self.number);
        while inner.seats[self.number as usize].is_busy() {
            inner.complete(Sleep::No);
        }
        match inner.seats[self.number as usize].received.take() {
            Some(Received::Pooled(id, length)) => inner.copy_out(id, length),
            Some(Received::Kept(bytes)) => bytes,
            Some(Received::End | Received::Failed(_)) | None => Box::default(),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut inner = self.ring.0.borrow_mut();
        inner.cancel(self.number);
        let state = &mut inner.seats[self.number as usize];
        (state.reader, state.readiness, state.is_left) = (None, None, true);
        inner.vacate(self.number);
    }
}

impl State {
    fn is_busy(&self) -> bool {
        self.is_receiving || self.is_polled
    }
}

impl Inner {
    #[allow(unsafe_code)]
    fn push(&mut self, request: &squeue::Entry) {
        // SAFETY: the only memory a request refers to is the pool's, which outlives it. Its descriptor is open when it is
        // submitted: a seat submits all of its own before its socket is closed.
        while unsafe { self.uring.submission().push(request).is_err() } {
            self.submit(Sleep::No);
        }
    }

    /// Completes each time the bell is rung. The count of an eventfd has no use here, so nobody ever reads it.
    fn listen(&mut self) {
        let request = opcode::PollAdd::new(Fd(self.bell.as_raw_fd()), libc::POLLIN as u32).multi(true).build();
        self.push(&request.user_data(BELL));
    }

    /// Whether there is a reason to call the kernel.
    fn has_work(&mut self) -> bool {
        let submission = self.uring.submission();
        !submission.is_empty() || submission.taskrun() || submission.cq_overflow()
    }

    /// Hands over what was pushed, lets the kernel do what it has deferred, and waits for a completion as `sleep` says.
    fn submit(&mut self, sleep: Sleep) {
        let outcome = match sleep {
            Sleep::No if !self.has_work() => return,
            Sleep::No => self.uring.submit(),
            Sleep::Endless => self.uring.submit_and_wait(1),
            Sleep::AtMost(duration) => {
                let timespec = Timespec::from(duration);
                self.uring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timespec))
            }
        };
        match outcome {
            Ok(_) => {}
            // The time is over, it has no memory, or a signal came: what was not submitted stays.
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EBUSY | libc::EAGAIN | libc::EINTR)) => {}
            Err(error) => panic!("the ring is broken: {error}"),
        }
    }

    /// Ends what is under way for a seat. Now, and not with the next turn: a request keeps its socket open.
    fn cancel(&mut self, number: u32) {
        let state = &self.seats[number as usize];
        if !state.is_busy() {
            return;
        }
        for (is_under_way, kind) in [(state.is_receiving, RECEIVE), (state.is_polled, READINESS)] {
            if is_under_way {
                self.push(&opcode::AsyncCancel::new(data(number, kind)).build().user_data(CANCEL));
            }
        }
        self.submit(Sleep::No);
        // What the cancelled have left to do was deferred.
        self.submit(Sleep::No);
    }

    /// Makes room in the pool, which is everybody's, for what was not read since the last turn.
    fn empty_pool(&mut self) {
        let mut filled = mem::take(&mut self.filled);
        for number in filled.drain(..) {
            if let Some(Received::Pooled(id, length)) = self.seats[number as usize].received {
                let bytes = self.copy_out(id, length);
                self.seats[number as usize].received = Some(Received::Kept(bytes));
            }
        }
        self.filled = filled;
    }

    fn complete(&mut self, sleep: Sleep) {
        self.submit(sleep);
        loop {
            let Some(completion) = self.uring.completion().next() else { return };
            let (number, kind) = ((completion.user_data() >> KIND_BITS) as u32, completion.user_data() & KIND_MASK);
            match kind {
                RECEIVE => self.received(number, completion.result(), completion.flags()),
                READINESS => self.is_ready(number),
                BELL => {
                    self.is_rung = true;
                    if !cqueue::more(completion.flags()) {
                        self.listen();
                    }
                }
                _ => {}
            }
        }
    }

    fn received(&mut self, number: u32, result: i32, flags: u32) {
        let state = &mut self.seats[number as usize];
        state.is_receiving = false;
        self.receiving -= 1;
        state.received = match (result, usize::try_from(result)) {
            (0, _) => Some(Received::End),
            (_, Ok(length)) => {
                let id = cqueue::buffer_select(flags).expect("bytes are received into a buffer of the pool");
                state.has_more = length == BUFFER_BYTES || cqueue::sock_nonempty(flags);
                self.filled.push(number);
                Some(Received::Pooled(id, length))
            }
            // All buffers were taken, or the receive was cut short: whoever is woken receives again.
            _ if [libc::ENOBUFS, libc::ECANCELED, libc::EAGAIN, libc::EINTR].contains(&-result) => None,
            _ => Some(Received::Failed(-result)),
        };
        self.woken.extend(state.reader.clone());
        self.vacate(number);
    }

    fn is_ready(&mut self, number: u32) {
        let state = &mut self.seats[number as usize];
        state.is_polled = false;
        self.woken.extend(state.readiness.clone());
        self.vacate(number);
    }

    /// Lets another connection have the seat if its own has left it and nothing is under way.
    fn vacate(&mut self, number: u32) {
        let state = &mut self.seats[number as usize];
        if !state.is_left || state.is_busy() {
            return;
        }
        if let Some(Received::Pooled(id, _)) = mem::take(state).received {
            self.give_back(id);
        }
        self.vacant.push(number);
    }

    fn lend(&mut self, received: Received, scratch: &Scratch) -> io::Result<Lease> {
        match received {
            Received::Pooled(id, length) => {
                let lease = scratch.lend_copy(self.pool.received(id, length));
                self.give_back(id);
                Ok(lease)
            }
            Received::Kept(bytes) => Ok(scratch.lend_copy(&bytes)),
            Received::End => Ok(scratch.lend()),
            Received::Failed(code) => Err(io::Error::from_raw_os_error(code)),
        }
    }

    fn copy_out(&mut self, id: u16, length: usize) -> Box<[u8]> {
        let bytes = self.pool.received(id, length).into();
        self.give_back(id);
        bytes
    }

    fn give_back(&mut self, id: u16) {
        self.pool.give(id);
        self.pool.publish();
    }
}

impl Drop for Inner {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        self.complete(Sleep::No);
        // SAFETY: neither is used again. While a receive is under way the kernel may write into the pool, which then stays.
        unsafe {
            ManuallyDrop::drop(&mut self.uring);
            if self.receiving == 0 {
                ManuallyDrop::drop(&mut self.pool);
            }
        }
    }
}

fn data(number: u32, kind: u64) -> u64 {
    u64::from(number) << KIND_BITS | kind
}

/// Reads what is there.
#[allow(unsafe_code)]
fn receive(socket: BorrowedFd<'_>, space: &mut [u8]) -> io::Result<usize> {
    let socket: RawFd = socket.as_raw_fd();
    // SAFETY: the kernel writes within `space`, which outlives the call.
    let length = unsafe { libc::recv(socket, space.as_mut_ptr().cast(), space.len(), libc::MSG_DONTWAIT) };
    usize::try_from(length).map_err(|_| io::Error::last_os_error())
}

/// Keeps a waker, unless it is known.
fn remember(known: &mut Option<Waker>, waker: &Waker) {
    if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
        *known = Some(waker.clone());
    }
}

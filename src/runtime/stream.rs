//! One TCP connection on either runtime: it lends what it read and takes what it writes.
//!
//! Owned by: one shard's thread; it moves to another as a socket and what was read ahead ([`Stream::detach`], [`Stream::attach`]).
//! Bound: no read buffer (see [`Scratch`]; on io_uring [`super::ring`] has the bound of what is received unread), no write buffer (the caller's deque is the outbox), at most one pending poll per direction.
//! Not here: timeouts, TLS, framing, the bound on the outbox.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::io::{Interest, ReadBuf};

use super::ring::Seat;
use super::{Kind, Lease, Scratch, tasks};

/// Chunks handed to the kernel in one call.
const CHUNKS_PER_SEND: usize = 64;
/// More than the request head of a browser has.
const DISCARDED_BYTES: usize = 8 * 1024;

/// A connection that belongs to one shard.
pub struct Stream(Inner);

enum Inner {
    /// The seat is dropped, and ends what is under way, before the socket is closed.
    Uring {
        seat: Seat,
        socket: TcpStream,
    },
    Epoll(tokio::net::TcpStream),
}

/// A connection between two shards: the socket, and what was received from it but not read.
#[derive(Debug)]
pub struct Detached {
    descriptor: OwnedFd,
    early: Box<[u8]>,
}

impl From<OwnedFd> for Detached {
    fn from(descriptor: OwnedFd) -> Detached {
        Detached { descriptor, early: Box::default() }
    }
}

impl Stream {
    /// Adopts a connected socket on the shard that calls; bytes that wait in it are read here.
    ///
    /// # Errors
    /// The socket cannot be registered with this shard's runtime; it is closed then.
    pub fn attach(detached: impl Into<Detached>) -> io::Result<Stream> {
        let Detached { descriptor, early } = detached.into();
        let socket = TcpStream::from(descriptor);
        let kind = tasks::kind();
        socket.set_nonblocking(kind == Kind::Epoll)?;
        Ok(Stream(match kind {
            Kind::Uring => Inner::Uring { seat: tasks::ring().seat(early), socket },
            Kind::Epoll => {
                assert!(early.is_empty(), "all shards of a process are of one kind");
                Inner::Epoll(tokio::net::TcpStream::from_std(socket)?)
            }
        }))
    }

    /// Gives the connection up, to be adopted by another shard. Pending polls are cancelled; no byte is lost.
    ///
    /// # Errors
    /// Epoll refuses; the connection is closed then.
    pub fn detach(self) -> io::Result<Detached> {
        match self.0 {
            Inner::Uring { seat, socket } => Ok(Detached { early: seat.withdraw(), descriptor: socket.into() }),
            Inner::Epoll(stream) => stream.into_std().map(|stream| Detached::from(OwnedFd::from(stream))),
        }
    }

    pub(super) fn from_tokio(stream: tokio::net::TcpStream) -> Stream {
        Stream(Inner::Epoll(stream))
    }

    /// Lends up to [`SCRATCH_BYTES`](super::SCRATCH_BYTES) bytes that have arrived; what is left in the socket comes with the next call.
    ///
    /// An empty lease is the end of the peer's stream. While pending, no buffer is held. One task at a time may wait to read.
    ///
    /// # Errors
    /// As `recv`: the connection is broken.
    pub fn poll_read(&mut self, context: &mut Context<'_>, scratch: &Scratch) -> Poll<io::Result<Lease>> {
        match &mut self.0 {
            Inner::Uring { seat, socket } => seat.poll_receive(socket.as_fd(), context, scratch),
            Inner::Epoll(stream) => {
                let mut lease = scratch.lend();
                let mut buffer = ReadBuf::new(lease.space());
                // Not `try_read`, which believes that there is more after a read that did not fill the buffer, and so costs a
                // second one. This takes it for the end of what there is, unless epoll has said otherwise meanwhile.
                ready!(tokio::io::AsyncRead::poll_read(Pin::new(stream), context, &mut buffer))?;
                let length = buffer.filled().len();
                Poll::Ready(Ok(lease.filled(length)))
            }
        }
    }

    /// Writes the chunks in order and pops what is written; ready when none is left, else the task is woken when the socket has room.
    ///
    /// A chunk written in part is advanced, so dropping the wait and calling again later repeats and loses nothing.
    ///
    /// # Errors
    /// As `sendmsg`: the connection is broken; the chunks not written stay.
    pub fn poll_write(&mut self, context: &mut Context<'_>, chunks: &mut VecDeque<Bytes>) -> Poll<io::Result<()>> {
        loop {
            if self.try_write(chunks)? {
                return Poll::Ready(Ok(()));
            }
            match &mut self.0 {
                Inner::Uring { seat, socket } => {
                    seat.await_room(socket.as_fd(), context);
                    return Poll::Pending;
                }
                Inner::Epoll(stream) => {
                    ready!(stream.poll_write_ready(context))?;
                    // Tokio waits anew only after a send under its eyes has been refused.
                    match stream.try_io(Interest::WRITABLE, || send(SockRef::from(&*stream), chunks)) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        result => return Poll::Ready(result),
                    }
                }
            }
        }
    }

    /// Writes what the socket takes at once; true when nothing is left. Asks for no wake-up: follow a `false` with [`Stream::poll_write`].
    ///
    /// # Errors
    /// As [`Stream::poll_write`].
    pub fn try_write(&mut self, chunks: &mut VecDeque<Bytes>) -> io::Result<bool> {
        match send(SockRef::from(&*self), chunks) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Drops what has arrived, up to a request's worth: a socket that is closed with unread input resets its peer, who may
    /// then not see what was written last.
    pub fn discard_arrived(&self) {
        let mut space = [std::mem::MaybeUninit::uninit(); DISCARDED_BYTES];
        let _ = SockRef::from(self).recv_with_flags(&mut space, libc::MSG_DONTWAIT);
    }

    /// [`Stream::poll_read`] as a future; dropping it loses no byte.
    ///
    /// # Errors
    /// As [`Stream::poll_read`].
    pub async fn read(&mut self, scratch: &Scratch) -> io::Result<Lease> {
        poll_fn(|context| self.poll_read(context, scratch)).await
    }

    /// [`Stream::poll_write`] as a future; dropping it leaves the rest in `chunks`.
    ///
    /// # Errors
    /// As [`Stream::poll_write`].
    pub async fn write(&mut self, chunks: &mut VecDeque<Bytes>) -> io::Result<()> {
        poll_fn(|context| self.poll_write(context, chunks)).await
    }

    /// Tells the peer that nothing more will be written; reading goes on.
    ///
    /// # Errors
    /// `NotConnected` when the connection is gone already.
    pub fn shutdown_write(&self) -> io::Result<()> {
        SockRef::from(self).shutdown(Shutdown::Write)
    }

    /// Makes the drop of this stream a reset (RST) that discards what the kernel still holds, for peers that do not read.
    ///
    /// # Errors
    /// As `setsockopt`.
    pub fn reset(&self) -> io::Result<()> {
        SockRef::from(self).set_linger(Some(Duration::ZERO))
    }

    /// The peer's address.
    ///
    /// # Errors
    /// `NotConnected` when the connection is gone already.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        let address = SockRef::from(self).peer_addr()?;
        address.as_socket().ok_or_else(|| io::Error::other("the peer has no internet address"))
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Inner::Uring { socket, .. } => socket.as_fd(),
            Inner::Epoll(stream) => stream.as_fd(),
        }
    }
}

/// Sends until no chunk is left; `WouldBlock` when the socket is full before that.
fn send(socket: SockRef<'_>, chunks: &mut VecDeque<Bytes>) -> io::Result<()> {
    advance(chunks, 0);
    while !chunks.is_empty() {
        let mut slices = [IoSlice::new(&[]); CHUNKS_PER_SEND];
        let count = slices.iter_mut().zip(chunks.iter()).map(|(slice, chunk)| *slice = IoSlice::new(chunk)).count();
        match socket.send_vectored_with_flags(&slices[..count], libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => advance(chunks, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Pops the chunks that `written` bytes cover, and empty ones, so that the first left has something to write.
fn advance(chunks: &mut VecDeque<Bytes>, mut written: usize) {
    while let Some(chunk) = chunks.front_mut() {
        if written < chunk.len() {
            chunk.advance(written);
            return;
        }
        written -= chunk.len();
        chunks.pop_front();
    }
    assert_eq!(written, 0, "the kernel cannot write more than it was given");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advance_pops_whole_chunks_and_cuts_the_next() {
        let mut chunks: VecDeque<Bytes> = ["ab", "", "cdef", "gh"].map(Bytes::from).into();
        advance(&mut chunks, 3);
        assert_eq!(chunks, ["def", "gh"]);
        advance(&mut chunks, 5);
        assert!(chunks.is_empty());
    }
}

//! Listening sockets: binding one per shard to a shared port, and accepting on either runtime.
//!
//! Owned by: boot binds; each shard's thread then owns one [`Listener`]. Bound: [`BACKLOG`] connections wait in the kernel per listener.
//! Not here: the limit on open connections, rate limits, backing off when descriptors run out (the caller sleeps and tries again).

use std::future::poll_fn;
use std::io;
use std::mem;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::ring::Seat;
use super::{Kind, Stream, tasks};

/// Connections the kernel holds for a shard that has not accepted them yet (it may allow fewer: `net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// What the kernel takes for one client before it has sent it; what is sent and not acknowledged comes on top. Left to
/// itself it takes megabytes for one that reads slowly.
const UNSENT_BYTES_MAX: u32 = 64 * 1024;

/// How long a port in use may still be let go by a process that was killed, and how often that is tried.
const FREED_WITHIN: Duration = Duration::from_secs(3);
const FREED_TRY: Duration = Duration::from_millis(50);

/// A non-blocking listener that shares its port with others of this process (`SO_REUSEPORT`).
///
/// Does not notice another process on the port; [`bind_all`] does.
///
/// # Errors
/// The address is not ours, or is taken by a socket that does not share.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = open(address)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Binds `count` listeners to one port; with port 0 the kernel picks it once for all.
///
/// The first is bound without `SO_REUSEPORT`, so that a second instance on the port fails instead of stealing half the connections; it
/// becomes shareable before the others join, so the port is never let go in between.
///
/// A port in use is tried again for [`FREED_WITHIN`]: the kernel lets go of the sockets of a ring some time after the
/// process that had it was killed, and its successor must not fail over that.
///
/// # Errors
/// `AddrInUse` when anybody, this program included, still listens there then; else as [`bind`].
#[allow(clippy::disallowed_methods, reason = "boot's thread sleeps, before any shard runs")]
pub fn bind_all(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let mut tries = FREED_WITHIN.as_millis() / FREED_TRY.as_millis();
    loop {
        match try_bind_all(address, count) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {
                tries -= 1;
                thread::sleep(FREED_TRY);
            }
            outcome => return outcome,
        }
    }
}

fn try_bind_all(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    assert!(count >= 1, "at least one listener");
    let first = open(address)?;
    first.bind(&address.into())?;
    first.set_reuse_port(true)?;
    first.listen(BACKLOG)?;
    let first = TcpListener::from(first);
    let shared = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..count {
        match bind(shared) {
            Ok(listener) => listeners.push(listener),
            // gVisor fixes sharing at bind: we have seen that the port is ours, so all may bind it again as sharers.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && listeners.len() == 1 => {
                listeners.clear();
                return (0..count).map(|_| bind(shared)).collect();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(listeners)
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A listener that belongs to one shard.
pub struct Listener(Inner);

enum Inner {
    /// The seat is dropped, and ends what is under way, before the socket is closed.
    Uring {
        seat: Seat,
        listener: TcpListener,
    },
    Epoll(tokio::net::TcpListener),
}

impl Listener {
    /// Adopts a bound listener on the shard that calls.
    ///
    /// # Errors
    /// The socket cannot be registered with this shard's runtime.
    pub fn new(listener: TcpListener) -> io::Result<Listener> {
        listener.set_nonblocking(true)?;
        // Connections inherit it.
        SockRef::from(&listener).set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
        Ok(Listener(match tasks::kind() {
            Kind::Uring => Inner::Uring { seat: tasks::ring().seat(Box::default()), listener },
            Kind::Epoll => Inner::Epoll(tokio::net::TcpListener::from_std(listener)?),
        }))
    }

    /// The next connection, with Nagle's algorithm off. Dropping the future loses no connection.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`: the connection stays in the backlog, so the caller must sleep before it tries again.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        loop {
            match self.accept_once().await {
                Ok(accepted) => return Ok(accepted),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn accept_once(&self) -> io::Result<(Stream, SocketAddr)> {
        let (stream, peer) = match &self.0 {
            Inner::Epoll(listener) => {
                let (stream, peer) = listener.accept().await?;
                (Stream::from_tokio(stream), peer)
            }
            Inner::Uring { seat, listener } => loop {
                match listener.accept() {
                    Ok((stream, peer)) => break (Stream::attach(OwnedFd::from(stream))?, peer),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => arrival(seat, listener).await,
                    Err(error) => return Err(error),
                }
            },
        };
        SockRef::from(&stream).set_tcp_nodelay(true)?;
        Ok((stream, peer))
    }

    /// The address listened on, with the port the kernel picked.
    ///
    /// # Errors
    /// As `getsockname`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Inner::Uring { listener, .. } => listener.local_addr(),
            Inner::Epoll(listener) => listener.local_addr(),
        }
    }
}

/// Waits until a connection is there, or was and somebody else has taken it.
async fn arrival(seat: &Seat, listener: &TcpListener) {
    let mut is_awaited = false;
    poll_fn(|context| {
        if mem::replace(&mut is_awaited, true) {
            return Poll::Ready(());
        }
        seat.await_connection(listener.as_fd(), context);
        Poll::Pending
    })
    .await;
}

/// Errors `accept` reports for a connection that died in the backlog; the listener itself is well (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, InvalidInput, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | InvalidInput | NotConnected)
}

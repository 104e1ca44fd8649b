//! Listening sockets that a service manager opened and handed over (socket activation), shared among the shards.
//!
//! Owned by: boot takes them once; then each shard owns a duplicate. The socket itself, with the connections that wait in
//! its backlog, stays with the service manager: what arrives while this process stops or is dead waits for the next one.
//! Bound: as many sockets as shards. Not here: binding sockets of our own, whose backlog dies with this process.
#![allow(unsafe_code)]

use std::io;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{Domain, Socket, Type};

/// The sockets that `LISTEN_PID`, `LISTEN_FDS` and `LISTEN_FDNAMES` hand to this process; none if nothing was, or they
/// were taken before.
///
/// # Errors
/// The variables contradict each other, or a descriptor is no listening TCP socket: it is named.
pub fn inherited() -> io::Result<Vec<TcpListener>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    sd_notify::listen_fds_with_names()?
        .map(|(descriptor, name)| {
            // SAFETY: the service manager gave us the descriptor, it was found open a moment ago, and the flag above keeps
            // anybody from taking it twice.
            let socket = Socket::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
            if !is_tcp_listener(&socket)? {
                return Err(io::Error::other(format!("{name} (descriptor {descriptor}) is no listening TCP socket")));
            }
            Ok(TcpListener::from(socket))
        })
        .collect()
}

/// One listener for each of `count` shards, the sockets dealt out in turn. Shards with the same socket are all woken by
/// a connection, and one of them gets it.
///
/// # Errors
/// There are more sockets than shards: one of them would never be served. Else as `dup`.
pub fn share(sockets: &[TcpListener], count: usize) -> io::Result<Vec<TcpListener>> {
    if sockets.len() > count {
        return Err(io::Error::other(format!("there are more of them ({}) than shards ({count})", sockets.len())));
    }
    sockets.iter().cycle().take(count).map(TcpListener::try_clone).collect()
}

fn is_tcp_listener(socket: &Socket) -> io::Result<bool> {
    let is_internet = matches!(socket.domain()?, Domain::IPV4 | Domain::IPV6);
    Ok(is_internet && socket.r#type()? == Type::STREAM && socket.is_listener()?)
}

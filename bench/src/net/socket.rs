//! The system calls of a connection: non-blocking TCP on the loopback.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use super::Failure;

/// A connection from `source` that is being made.
pub fn connect(source: Ipv4Addr, port: u16) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    sockopt::set_tcp_nodelay(&fd, true)?;
    sockopt::set_socket_linger(&fd, Some(Duration::ZERO))?;
    net::bind(&fd, &SocketAddrV4::new(source, 0))?;
    match net::connect(&fd, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(fd),
        Err(errno) => Err(errno),
    }
}

/// What went wrong on this socket meanwhile.
pub fn error(fd: &OwnedFd) -> Result<(), Failure> {
    sockopt::socket_error(fd).and_then(|outcome| outcome).map_err(Failure::Io)
}

/// Bytes received; `None` if there are none now.
pub fn receive(fd: &OwnedFd, buffer: &mut [u8]) -> Result<Option<usize>, Failure> {
    match net::recv(fd, buffer, RecvFlags::empty()) {
        Ok((0, _)) => Err(Failure::Ended),
        Ok((length, _)) => Ok(Some(length)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(errno) => Err(Failure::Io(errno)),
    }
}

/// Writes what can be written and keeps the rest; says how much that was.
pub fn send(fd: &OwnedFd, out: &mut Vec<u8>) -> Result<usize, Failure> {
    let mut written = 0;
    while written < out.len() {
        match net::send(fd, &out[written..], SendFlags::NOSIGNAL) {
            Ok(length) => written += length,
            Err(Errno::AGAIN) => break,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Failure::Io(errno)),
        }
    }
    out.drain(..written);
    Ok(written)
}

//! What every peer begins with: its port, its listener, its runtime, and the line that says that it listens.
//!
//! `PORT` names the port on 127.0.0.1 (0 or none: any), `WORKERS` the threads of the tokio peers.

use std::env;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread::available_parallelism;

use socket2::{Domain, Socket, Type};
use tokio::runtime::{Builder, Runtime};

/// So that a storm of connections is not refused before the peer is measured.
const BACKLOG: i32 = 4096;

/// A listener on the port that the environment names, announced on standard output.
pub fn listen() -> io::Result<TcpListener> {
    let port = env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(0);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // Accepted sockets inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from(socket);
    println!("listening on http://{}", listener.local_addr()?);
    Ok(listener)
}

/// tokio as `WORKERS` asks for it: on this thread alone if 1, else on so many; by default one for each usable core.
pub fn runtime() -> io::Result<Runtime> {
    let workers = match env::var("WORKERS").ok().and_then(|workers| workers.parse().ok()) {
        Some(workers) => workers,
        None => available_parallelism()?.get(),
    };
    let mut builder = if workers == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    if workers > 1 {
        builder.worker_threads(workers);
    }
    builder.enable_all().build()
}

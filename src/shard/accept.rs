//! Accepts connections of one shard until it stops. The kernel spreads them over the shards' listeners.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_lite::future::or;

use crate::conn::Conn;
use crate::runtime::{Listener, Stream, sleep};

use super::Shard;
use super::connection::{self, Served};
use super::counters::{Opened, Refused};

/// Pause after the kernel refused a connection (no descriptor left): accepting at once would spin.
const REFUSED_PAUSE: Duration = Duration::from_millis(50);

/// What a connection over the limit is told before anything is spent on it.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 33\r\n\
    Retry-After: 5\r\nConnection: close\r\n\r\n{\"error\":\"Server is at capacity\"}";

/// Accepts until the shard stops, then closes the listener.
pub async fn run(shard: Rc<Shard>, listener: Listener) {
    while !shard.stopping.get() {
        let accepted = async { Some(listener.accept().await) };
        let stopped = async {
            shard.stopped.notified().await;
            None
        };
        match or(accepted, stopped).await {
            None => return,
            Some(Ok((stream, peer))) => welcome(&shard, stream, peer.ip()),
            Some(Err(error)) => {
                tracing::warn!(%error, "accept failed");
                sleep(REFUSED_PAUSE).await;
            }
        }
    }
}

fn welcome(shard: &Rc<Shard>, mut stream: Stream, peer: std::net::IpAddr) {
    let settings = shard.settings();
    let peer = peer.to_canonical();
    if !settings.conn.admits(peer) {
        return shard.counters.refused.add_one(Refused::Stranger as usize);
    }
    let is_full = shard.open.fetch_add(1, Ordering::Relaxed) >= settings.connections_max;
    if is_full || shard.refusing.load(Ordering::Relaxed) {
        shard.open.fetch_sub(1, Ordering::Relaxed);
        shard.counters.refused.add_one(if is_full { Refused::Full } else { Refused::MemoryShort } as usize);
        let _ = stream.try_write(&mut [Bytes::from_static(FULL)].into());
        return;
    }
    shard.counters.opened.add_one(Opened::Socket as usize);
    let seed = shard.random.borrow_mut().bytes();
    let conn = Conn::new(shard.now(), settings.conn.clone(), peer, seed);
    connection::serve(shard.clone(), Served { conn, stream: Some(stream), journey: None });
}

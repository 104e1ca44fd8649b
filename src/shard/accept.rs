//! Accepts connections of one shard until it stops. The kernel spreads them over the shards' listeners.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_lite::future::or;

use crate::conn::Conn;
use crate::runtime::{Listener, Stream, sleep, spawn_local};

use super::Shard;
use super::admission::Counted;
use super::connection::{self, Served};
use super::counters::{Opened, Refused};
use super::pace::Pace;

/// Pause after the kernel refused a connection (no descriptor left): accepting at once would spin.
const REFUSED_PAUSE: Duration = Duration::from_millis(50);

/// How long a client that was refused may take to end its connection.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a connection over the limit is told before anything is spent on it.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 33\r\n\
    Retry-After: 5\r\nConnection: close\r\n\r\n{\"error\":\"Server is at capacity\"}";

/// What one of an address that has all its connections is told.
const CROWDED: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\
    Retry-After: 5\r\nConnection: close\r\n\r\n{\"error\":\"Too many connections from this address\"}";

/// Accepts until the shard stops, then closes the listener.
pub async fn run(shard: Rc<Shard>, listener: Listener) {
    let mut pace = Pace::new(shard.now(), shard.settings().accept_rate, shard.placement.count());
    while !shard.stopping.get() {
        let accepted = async {
            while let Err(pause) = pace.spend(shard.now()) {
                shard.counters.accept_pauses.add_one();
                sleep(pause).await;
            }
            Some(listener.accept().await)
        };
        let stopped = async {
            shard.stopped.notified().await;
            None
        };
        match or(accepted, stopped).await {
            None => return,
            Some(Ok((stream, peer))) => welcome(&shard, stream, peer.ip().to_canonical()),
            Some(Err(error)) => {
                tracing::warn!(%error, "accept failed");
                sleep(REFUSED_PAUSE).await;
            }
        }
    }
}

fn welcome(shard: &Rc<Shard>, stream: Stream, peer: IpAddr) {
    if !shard.settings().conn.admits(peer) {
        return shard.counters.refused.add_one(Refused::Stranger as usize);
    }
    if let Err(why) = shard.places.take() {
        shard.counters.refused.add_one(Refused::from(why) as usize);
        return refuse(shard.clone(), stream, FULL);
    }
    if !shard.counts(peer) {
        return serve(shard.clone(), stream, peer, None);
    }
    let shard = shard.clone();
    spawn_local(async move {
        match shard.enter(peer).await {
            Ok(counted) => serve(shard, stream, peer, counted),
            Err(_) => {
                shard.places.give_back();
                refuse(shard, stream, CROWDED);
            }
        }
    });
}

/// Answers, and waits for the client to end the connection: one that is closed before its request has come is reset, and
/// its client may never see the answer. Of more clients than [`FAREWELLS_MAX`] only what has come by now is taken in.
fn refuse(shard: Rc<Shard>, mut stream: Stream, answer: &'static [u8]) {
    stream.discard_arrived();
    let mut chunks = [Bytes::from_static(answer)].into();
    if stream.try_write(&mut chunks).is_err() {
        return;
    }
    spawn_local(async move {
        let Ok(_leave) = shard.farewells.try_acquire() else { return };
        connection::part(&mut stream, &mut chunks, &shard.scratch, FAREWELL).await;
    });
}

fn serve(shard: Rc<Shard>, stream: Stream, peer: IpAddr, counted: Counted) {
    shard.counters.opened.add_one(Opened::Socket as usize);
    let seed = shard.random.borrow_mut().bytes();
    let conn = Conn::new(shard.now(), shard.settings().conn.clone(), peer, seed);
    connection::serve(shard, Served { conn, stream: Some(stream), journey: None, counted });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::admission::TOO_MANY;

    #[test]
    fn answers_are_as_long_as_they_say_and_say_what_others_say() {
        for (answer, text) in [(FULL, "Server is at capacity"), (CROWDED, TOO_MANY)] {
            let answer = std::str::from_utf8(answer).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert_eq!(body, format!("{{\"error\":\"{text}\"}}"));
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
        }
    }
}

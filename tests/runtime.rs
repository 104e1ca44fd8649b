//! The facts both runtimes must share; each test runs on io_uring and on epoll, and fails where io_uring is missing.
#![cfg(feature = "server")]
#![allow(clippy::disallowed_methods, unsafe_code)]

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::rc::Rc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use duet::runtime::probe::{Probe, probe};
use duet::runtime::{self, Choice, Detached, Kind, Listener, Scratch, Stream};
use futures_lite::future::{or, poll_once};
use tokio::sync::{mpsc, oneshot};

const PATIENCE: Duration = Duration::from_secs(30);

fn on_both(test: impl Fn(Kind)) {
    for kind in [Kind::Uring, Kind::Epoll] {
        eprintln!("on {kind}");
        test(kind);
    }
}

fn shard<F: Future<Output = ()> + 'static>(kind: Kind, main: impl FnOnce() -> F + Send + 'static) -> JoinHandle<()> {
    runtime::spawn_shard(kind, "test-shard".to_owned(), None, main).unwrap()
}

fn join(thread: JoinHandle<()>) -> thread::Result<()> {
    let start = Instant::now();
    while !thread.is_finished() {
        assert!(start.elapsed() < PATIENCE, "the shard hangs");
        thread::sleep(Duration::from_millis(2));
    }
    thread.join()
}

fn local(count: usize) -> (Vec<TcpListener>, SocketAddr) {
    let listeners = runtime::bind_all("127.0.0.1:0".parse().unwrap(), count).unwrap();
    let address = listeners[0].local_addr().unwrap();
    (listeners, address)
}

fn local_one() -> (TcpListener, SocketAddr) {
    let (mut listeners, address) = local(1);
    (listeners.pop().unwrap(), address)
}

fn connect(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

fn pattern(offset: usize) -> u8 {
    (offset % 251) as u8
}

fn patterned(length: usize) -> Vec<u8> {
    (0..length).map(pattern).collect()
}

/// Nanoseconds the calling thread has spent on a CPU.
fn thread_cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

async fn echo(mut stream: Stream, scratch: Scratch) -> io::Result<()> {
    let mut chunks = VecDeque::new();
    loop {
        let lease = stream.read(&scratch).await?;
        if lease.is_empty() {
            return stream.shutdown_write();
        }
        chunks.push_back(Bytes::copy_from_slice(&lease));
        drop(lease);
        if !stream.try_write(&mut chunks)? {
            stream.write(&mut chunks).await?;
        }
    }
}

#[test]
fn echo_returns_every_byte() {
    on_both(|kind| {
        let (listener, address) = local_one();
        let server = shard(kind, move || async move {
            let listener = Listener::new(listener).unwrap();
            assert_eq!(listener.local_addr().unwrap(), address);
            let (stream, peer) = listener.accept().await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), peer);
            echo(stream, Scratch::new()).await.unwrap();
        });
        let mut client = connect(address);
        let mut writer = client.try_clone().unwrap();
        let sender = thread::spawn(move || {
            writer.write_all(&patterned(3_000_000)).unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut back = Vec::new();
        client.read_to_end(&mut back).unwrap();
        sender.join().unwrap();
        join(server).unwrap();
        assert!(back == patterned(3_000_000));
    });
}

/// A connection between two shards, with how many bytes were read from it and how often it moved.
type Parcel = (Detached, usize, usize);

/// Takes the connection in, checks some reads, passes it on; half of the time with a read pending.
async fn relay(mut inbox: mpsc::Receiver<Parcel>, peer: mpsc::Sender<Parcel>, total: usize, done: mpsc::Sender<usize>) {
    let scratch = Scratch::new();
    let check = |lease: &[u8], offset: &mut usize| {
        for byte in lease {
            assert_eq!(*byte, pattern(*offset), "at {offset}");
            *offset += 1;
        }
    };
    while let Some((descriptor, mut offset, moves)) = inbox.recv().await {
        let mut stream = Stream::attach(descriptor).unwrap();
        for _ in 0..moves % 3 {
            if offset < total {
                let lease = stream.read(&scratch).await.unwrap();
                assert!(!lease.is_empty(), "the stream ended early");
                check(&lease, &mut offset);
            }
        }
        while moves % 2 == 0 && offset < total {
            match poll_once(stream.read(&scratch)).await {
                Some(lease) => check(&lease.unwrap(), &mut offset),
                None => break,
            }
        }
        if offset == total {
            done.send(moves).await.unwrap();
            return;
        }
        let parcel = (stream.detach().unwrap(), offset, moves + 1);
        peer.send(parcel).await.unwrap();
    }
}

#[test]
fn moved_connection_loses_no_byte() {
    const TOTAL: usize = 6_000_000;
    on_both(|kind| {
        let (listener, address) = local_one();
        let (to_first, first_inbox) = mpsc::channel(4);
        let (to_second, second_inbox) = mpsc::channel(4);
        let (done, mut finished) = mpsc::channel(4);
        let (accepted_to, done_too) = (to_first.clone(), done.clone());
        let first = shard(kind, move || async move {
            let listener = Listener::new(listener).unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            accepted_to.send((stream.detach().unwrap(), 0, 1)).await.unwrap();
            drop(accepted_to);
            relay(first_inbox, to_second, TOTAL, done).await;
        });
        let second = shard(kind, move || relay(second_inbox, to_first, TOTAL, done_too));
        let mut client = connect(address);
        for (index, piece) in patterned(TOTAL).chunks(7_001).enumerate() {
            client.write_all(piece).unwrap();
            if index % 4 == 0 {
                thread::sleep(Duration::from_micros(300));
            }
        }
        let moves = finished.blocking_recv().unwrap();
        drop(client);
        join(first).unwrap();
        join(second).unwrap();
        eprintln!("{kind}: {moves} moves");
        assert!(moves > 20);
    });
}

#[test]
fn slow_reader_gets_eight_megabytes_in_order() {
    const TOTAL: usize = 8 << 20;
    on_both(|kind| {
        let (listener, address) = local_one();
        let server = shard(kind, move || async move {
            let listener = Listener::new(listener).unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            let data = Bytes::from(patterned(TOTAL));
            let mut chunks: VecDeque<Bytes> = VecDeque::new();
            let mut offset = 0;
            while offset < TOTAL {
                let end = TOTAL.min(offset + (offset * 31) % 20_000 + 1);
                chunks.push_back(data.slice(offset..end));
                offset = end;
            }
            assert!(!stream.try_write(&mut chunks).unwrap(), "8 MB cannot fit in the socket");
            assert!(poll_once(stream.write(&mut chunks)).await.is_none());
            stream.write(&mut chunks).await.unwrap();
            assert!(chunks.is_empty());
        });
        let mut client = connect(address);
        let (mut buffer, mut offset) = (vec![0; 50_000], 0);
        loop {
            let length = client.read(&mut buffer).unwrap();
            if length == 0 {
                break;
            }
            let read = buffer[..length].iter().enumerate();
            assert!({ read }.all(|(index, byte)| *byte == pattern(offset + index)));
            offset += length;
            thread::sleep(Duration::from_micros(500));
        }
        assert_eq!(offset, TOTAL);
        join(server).unwrap();
    });
}

#[test]
fn lease_goes_back_and_waiting_connection_owns_no_buffer() {
    on_both(|kind| {
        let (listener, address) = local_one();
        let server = shard(kind, move || async move {
            let listener = Listener::new(listener).unwrap();
            let (mut one, _) = listener.accept().await.unwrap();
            let (mut two, _) = listener.accept().await.unwrap();
            let scratch = Scratch::new();
            let mut first = one.read(&scratch).await.unwrap();
            assert_eq!(scratch.idle_len(), 0);
            first[0] ^= 0xff;
            assert_eq!(first[0], b'a' ^ 0xff);
            let second = two.read(&scratch).await.unwrap();
            assert_eq!((&first[1..], &second[..]), (&b"bc"[..], &b"abc"[..]));
            drop((first, second));
            assert_eq!(scratch.idle_len(), 2);
            let mut pending = Box::pin(one.read(&scratch));
            assert!(poll_once(&mut pending).await.is_none());
            assert_eq!(scratch.idle_len(), 2);
        });
        let mut clients = [connect(address), connect(address)];
        clients.iter_mut().for_each(|client| client.write_all(b"abc").unwrap());
        join(server).unwrap();
    });
}

/// A read that did not fill its buffer says that no more is there, which must not hide what comes between two reads.
#[test]
fn what_comes_after_a_short_read_while_nobody_waits_is_read() {
    on_both(|kind| {
        let (listener, address) = local_one();
        let (read, has_read) = oneshot::channel();
        let (sent, is_sent) = oneshot::channel();
        let server = shard(kind, move || async move {
            let (mut stream, _) = Listener::new(listener).unwrap().accept().await.unwrap();
            let scratch = Scratch::new();
            assert_eq!(&stream.read(&scratch).await.unwrap()[..], b"a");
            read.send(()).unwrap();
            is_sent.await.unwrap();
            assert_eq!(&stream.read(&scratch).await.unwrap()[..], b"b");
            assert!(stream.read(&scratch).await.unwrap().is_empty());
        });
        let mut client = connect(address);
        client.write_all(b"a").unwrap();
        has_read.blocking_recv().unwrap();
        client.write_all(b"b").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        sent.send(()).unwrap();
        join(server).unwrap();
    });
}

/// More connections than the ring has buffers have something to read, and nobody reads it.
#[test]
fn what_nobody_reads_keeps_nobody_waiting() {
    const SILENT: usize = 600;
    on_both(|kind| {
        let (listener, address) = local_one();
        let (accepted, is_accepted) = oneshot::channel();
        let (sent, is_sent) = oneshot::channel();
        let (echoed, is_echoed) = oneshot::channel();
        let server = shard(kind, move || async move {
            let (listener, scratch) = (Listener::new(listener).unwrap(), Scratch::new());
            let mut silent = Vec::new();
            for _ in 0..SILENT {
                let (mut stream, _) = listener.accept().await.unwrap();
                assert!(poll_once(stream.read(&scratch)).await.is_none());
                silent.push(stream);
            }
            accepted.send(()).unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let echoing = scratch.clone();
            runtime::spawn_local(async move { echo(stream, echoing).await.unwrap() });
            is_sent.await.unwrap();
            is_echoed.await.unwrap();
            for (number, stream) in silent.iter_mut().enumerate() {
                assert_eq!(stream.read(&scratch).await.unwrap()[..], (number as u32).to_be_bytes());
            }
        });
        let mut silent: Vec<TcpStream> = (0..SILENT).map(|_| connect(address)).collect();
        let mut client = connect(address);
        is_accepted.blocking_recv().unwrap();
        for (number, silent) in silent.iter_mut().enumerate() {
            silent.write_all(&(number as u32).to_be_bytes()).unwrap();
        }
        sent.send(()).unwrap();
        for round in 0..1000_u32 {
            let mut back = [0; 4];
            client.write_all(&round.to_be_bytes()).unwrap();
            client.read_exact(&mut back).unwrap();
            assert_eq!(back, round.to_be_bytes());
        }
        echoed.send(()).unwrap();
        join(server).unwrap();
    });
}

/// A stream that is given up takes in what has arrived for others, which must not wait for anything else then.
#[test]
fn what_arrives_while_a_stream_is_given_up_is_read_at_once() {
    on_both(|kind| {
        let (listener, address) = local_one();
        let (waiting, is_waiting) = std::sync::mpsc::channel();
        let (written, is_written) = std::sync::mpsc::channel();
        let server = shard(kind, move || async move {
            let (listener, scratch) = (Listener::new(listener).unwrap(), Scratch::new());
            let (mut reading, _) = listener.accept().await.unwrap();
            let (mut given_up, _) = listener.accept().await.unwrap();
            drop(listener);
            let (read, is_read) = oneshot::channel();
            let own = scratch.clone();
            runtime::spawn_local(async move {
                assert_eq!(reading.read(&own).await.unwrap()[..], *b"here");
                read.send(()).unwrap();
            });
            assert!(poll_once(given_up.read(&scratch)).await.is_none());
            for _ in 0..10 {
                runtime::yield_now().await;
            }
            waiting.send(()).unwrap();
            is_written.recv().unwrap();
            drop(given_up.detach().unwrap());
            is_read.await.unwrap();
        });
        let mut reading = connect(address);
        let _given_up = connect(address);
        is_waiting.recv().unwrap();
        reading.write_all(b"here").unwrap();
        written.send(()).unwrap();
        join(server).unwrap();
    });
}

#[test]
fn sleep_waits_and_other_tasks_run_meanwhile() {
    on_both(|kind| {
        let main = || async {
            let count = Rc::new(Cell::new(0));
            for _ in 0..10 {
                let count = count.clone();
                runtime::spawn_local(async move {
                    runtime::sleep(Duration::from_millis(10)).await;
                    runtime::yield_now().await;
                    count.set(count.get() + 1);
                });
            }
            let start = Instant::now();
            runtime::sleep(Duration::from_millis(100)).await;
            assert!(start.elapsed() >= Duration::from_millis(100));
            assert_eq!(count.get(), 10);
        };
        join(shard(kind, main)).unwrap();
    });
}

#[test]
fn message_from_another_thread_wakes_an_idle_shard() {
    on_both(|kind| {
        let (sender, mut inbox) = mpsc::channel::<(Instant, oneshot::Sender<()>)>(8);
        let (report, latencies) = std::sync::mpsc::channel();
        let server = shard(kind, move || async move {
            while let Some((sent, reply)) = inbox.recv().await {
                report.send(sent.elapsed()).unwrap();
                reply.send(()).unwrap();
            }
        });
        for _ in 0..200 {
            thread::sleep(Duration::from_millis(2));
            let (reply, answer) = oneshot::channel();
            sender.blocking_send((Instant::now(), reply)).unwrap();
            answer.blocking_recv().unwrap();
        }
        drop(sender);
        join(server).unwrap();
        let mut all: Vec<Duration> = latencies.iter().collect();
        all.sort();
        eprintln!("{kind}: wake median {:?}, p99 {:?}, max {:?}", all[100], all[198], all[199]);
        assert_eq!(all.len(), 200);
        assert!(all[100] < Duration::from_millis(20));
    });
}

#[test]
fn shards_that_answer_each_other_never_miss_a_wake() {
    const ROUNDS: u32 = 50_000;
    async fn bounce(mut inbox: mpsc::Receiver<u32>, peer: mpsc::Sender<u32>) {
        while let Some(round) = inbox.recv().await {
            if peer.send(round + 1).await.is_err() || round + 1 >= ROUNDS {
                return;
            }
        }
    }
    on_both(|kind| {
        let (to_first, first_inbox) = mpsc::channel(4);
        let (to_second, second_inbox) = mpsc::channel(4);
        let start = Instant::now();
        to_first.blocking_send(0).unwrap();
        let first = shard(kind, move || bounce(first_inbox, to_second));
        let second = shard(kind, move || bounce(second_inbox, to_first));
        join(first).unwrap();
        join(second).unwrap();
        eprintln!("{kind}: one hop between shards took {:?}", start.elapsed() / ROUNDS);
    });
}

#[test]
fn busy_tasks_do_not_keep_messages_and_sockets_waiting() {
    on_both(|kind| {
        let (server, mut clients) = crowd(kind, 1, || async {
            for _ in 0..4 {
                runtime::spawn_local(async {
                    loop {
                        runtime::yield_now().await;
                    }
                });
            }
            runtime::sleep(Duration::from_millis(500)).await;
        });
        let start = Instant::now();
        for _ in 0..10 {
            clients[0].write_all(b"x").unwrap();
            clients[0].read_exact(&mut [0]).unwrap();
        }
        eprintln!("{kind}: one echo beside busy tasks took {:?}", start.elapsed() / 10);
        join(server).unwrap();
    });
}

#[test]
fn a_turn_that_takes_long_is_a_stall_and_sleep_is_none() {
    on_both(|kind| {
        let (said, seen) = std::sync::mpsc::channel();
        let thread = shard(kind, move || async move {
            let told = || (runtime::turns().stalls.get(), runtime::turns().longest.count());
            runtime::sleep(Duration::from_millis(300)).await;
            said.send(told()).unwrap();
            runtime::spawn_local(async { thread::sleep(Duration::from_millis(60)) });
            runtime::sleep(Duration::from_millis(120)).await;
            runtime::sleep(Duration::from_millis(1)).await;
            said.send(told()).unwrap();
        });
        join(thread).unwrap();
        let [(before, _), (after, windows)] = [seen.recv().unwrap(), seen.recv().unwrap()];
        assert_eq!(before, 0, "it only slept");
        assert!(after >= 1);
        assert!((1..=8).contains(&windows), "{windows}");
    });
}

#[test]
fn reuseport_listeners_share_the_port_the_kernel_picked() {
    on_both(|kind| {
        let (listeners, address) = local(2);
        assert!(listeners.iter().all(|each| each.local_addr().unwrap() == address));
        let (count, mut counts) = mpsc::channel(200);
        let serve = |(index, listener): (usize, TcpListener)| {
            let count = count.clone();
            shard(kind, move || async move {
                let listener = Listener::new(listener).unwrap();
                let accepts = async {
                    while listener.accept().await.is_ok() {
                        count.send(index).await.unwrap();
                    }
                };
                or(accepts, count.closed()).await;
            })
        };
        let shards: Vec<_> = listeners.into_iter().enumerate().map(serve).collect();
        let clients: Vec<_> = (0..100).map(|_| connect(address)).collect();
        let mut accepted = [0; 2];
        for _ in 0..clients.len() {
            accepted[counts.blocking_recv().unwrap()] += 1;
        }
        drop(counts);
        eprintln!("{kind}: accepted {accepted:?}");
        assert!(accepted[0] > 10 && accepted[1] > 10);
        shards.into_iter().for_each(|shard| join(shard).unwrap());
    });
}

#[test]
fn address_in_use_is_detected_though_ports_are_shared() {
    let (held, address) = local(2);
    assert_eq!(runtime::bind_all(address, 2).unwrap_err().kind(), ErrorKind::AddrInUse);
    drop(held);
    let held = runtime::bind(address).unwrap();
    assert_eq!(runtime::bind_all(address, 1).unwrap_err().kind(), ErrorKind::AddrInUse);
    drop(held);
    assert_eq!(runtime::bind_all(address, 3).unwrap().len(), 3);
}

/// As after a kill -9: the kernel takes down what a ring held a moment after the process is gone.
#[test]
fn a_port_that_is_let_go_soon_is_waited_for() {
    let (held, address) = local(1);
    let (tried, asked) = std::sync::mpsc::channel();
    let late = thread::spawn(move || {
        asked.recv().unwrap();
        thread::sleep(Duration::from_millis(200));
        drop(held);
    });
    tried.send(()).unwrap();
    assert_eq!(runtime::bind_all(address, 2).unwrap().len(), 2);
    late.join().unwrap();
}

#[test]
fn restart_binds_while_old_connections_linger() {
    let (listener, address) = local_one();
    let mut client = connect(address);
    listener.set_nonblocking(false).unwrap();
    drop((listener.accept().unwrap(), listener));
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    drop(client);
    assert_eq!(runtime::bind_all(address, 2).unwrap().len(), 2);
}

#[test]
fn abandoned_accept_loses_no_connection() {
    on_both(|kind| {
        let (listener, address) = local_one();
        let (waiting, is_waiting) = oneshot::channel();
        let server = shard(kind, move || async move {
            let listener = Listener::new(listener).unwrap();
            assert!(poll_once(listener.accept()).await.is_none());
            let mut accept = Box::pin(listener.accept());
            assert!(poll_once(&mut accept).await.is_none());
            runtime::sleep(Duration::from_millis(5)).await;
            waiting.send(()).unwrap();
            thread::sleep(Duration::from_millis(50));
            drop(accept);
            listener.accept().await.unwrap();
        });
        is_waiting.blocking_recv().unwrap();
        let _client = connect(address);
        join(server).unwrap();
    });
}

/// Accepts `count` connections into echo tasks, then runs `after` on the shard.
fn crowd<F: Future<Output = ()> + 'static>(
    kind: Kind,
    count: usize,
    after: impl FnOnce() -> F + Send + 'static,
) -> (JoinHandle<()>, Vec<TcpStream>) {
    let (listener, address) = local_one();
    let server = shard(kind, move || async move {
        let (listener, scratch) = (Listener::new(listener).unwrap(), Scratch::new());
        for _ in 0..count {
            let (stream, _) = listener.accept().await.unwrap();
            let scratch = scratch.clone();
            runtime::spawn_local(async move { echo(stream, scratch).await.unwrap() });
        }
        after().await;
    });
    let clients = (0..count).map(|_| connect(address)).collect();
    (server, clients)
}

#[test]
fn idle_connections_cost_no_cpu() {
    on_both(|kind| {
        let (server, clients) = crowd(kind, 200, move || async move {
            runtime::sleep(Duration::from_millis(100)).await;
            let before = thread_cpu_ns();
            runtime::sleep(Duration::from_secs(2)).await;
            let used = Duration::from_nanos(thread_cpu_ns() - before);
            eprintln!("{kind}: 2 s idle with 200 connections used {used:?} of CPU");
            assert!(used < Duration::from_millis(200));
        });
        join(server).unwrap();
        drop(clients);
    });
}

#[test]
fn burst_beyond_the_ring_reaches_every_connection() {
    on_both(|kind| {
        let (end, ended) = oneshot::channel::<()>();
        let (server, mut clients) = crowd(kind, 1500, move || async move { ended.await.unwrap() });
        for round in 0..3_u8 {
            clients.iter_mut().for_each(|client| client.write_all(&[round; 10]).unwrap());
            for client in &mut clients {
                let mut back = [0xff; 10];
                client.read_exact(&mut back).unwrap();
                assert_eq!(back, [round; 10]);
            }
        }
        end.send(()).unwrap();
        join(server).unwrap();
    });
}

#[test]
fn end_of_shard_drops_its_tasks_and_closes_their_connections() {
    on_both(|kind| {
        let (end, ended) = oneshot::channel::<()>();
        let (server, mut clients) = crowd(kind, 20, move || async move { ended.await.unwrap() });
        clients[0].write_all(b"x").unwrap();
        clients[0].read_exact(&mut [0]).unwrap();
        end.send(()).unwrap();
        join(server).unwrap();
        for client in &mut clients {
            match client.read(&mut [0]) {
                Ok(length) => assert_eq!(length, 0),
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
            }
        }
    });
}

#[test]
fn dropped_stream_closes_at_once_and_reset_resets() {
    on_both(|kind| {
        let (listener, address) = local_one();
        let (end, ended) = oneshot::channel::<()>();
        let server = shard(kind, move || async move {
            let (listener, scratch) = (Listener::new(listener).unwrap(), Scratch::new());
            let (mut plain, _) = listener.accept().await.unwrap();
            let (mut reset, _) = listener.accept().await.unwrap();
            for stream in [&mut plain, &mut reset] {
                assert_eq!(stream.read(&scratch).await.unwrap().len(), 1);
                assert!(poll_once(stream.read(&scratch)).await.is_none());
            }
            runtime::sleep(Duration::from_millis(5)).await;
            reset.reset().unwrap();
            drop((plain, reset));
            ended.await.unwrap();
        });
        let mut clients = [connect(address), connect(address)];
        clients.iter_mut().for_each(|client| client.write_all(b"x").unwrap());
        let [plain, reset] = &mut clients;
        assert_eq!(plain.read(&mut [0]).unwrap(), 0);
        assert_eq!(reset.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        end.send(()).unwrap();
        join(server).unwrap();
    });
}

#[test]
fn writing_to_a_gone_peer_is_an_error() {
    on_both(|kind| {
        let (listener, address) = local_one();
        let server = shard(kind, move || async move {
            let listener = Listener::new(listener).unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut chunks = VecDeque::from([Bytes::from(vec![0; 16 << 20])]);
            let error = stream.write(&mut chunks).await.unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset));
            assert_eq!(chunks.len(), 1);
        });
        let client = connect(address);
        thread::sleep(Duration::from_millis(50));
        drop(client);
        join(server).unwrap();
    });
}

#[test]
fn panic_of_a_task_reaches_the_joiner() {
    on_both(|kind| {
        let server = shard(kind, || async {
            runtime::spawn_local(async {
                runtime::yield_now().await;
                panic!("on purpose");
            });
            std::future::pending::<()>().await;
        });
        let payload = join(server).unwrap_err();
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"on purpose"));
    });
}

#[test]
fn shard_is_pinned_or_says_why_not() {
    on_both(|kind| {
        let cpus = runtime::usable_cpus();
        eprintln!("usable: {cpus:?}");
        assert!(!cpus.is_empty());
        if let Some(cpu) = cpus[0] {
            let main = move || async move {
                let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
                assert!(status.contains(&format!("Cpus_allowed_list:\t{cpu}\n")));
            };
            let pinned = runtime::spawn_shard(kind, "pinned".to_owned(), Some(cpu), main);
            join(pinned.unwrap()).unwrap();
        }
        let refused = runtime::spawn_shard(kind, "nowhere".to_owned(), Some(1023), || async {});
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn probe_finds_io_uring_here() {
    let Probe { kind, reason } = probe(Choice::Auto, 2).unwrap();
    assert_eq!((kind, reason.as_str()), (Kind::Uring, "io_uring available"));
    assert_eq!(probe("uring".parse().unwrap(), 2).unwrap().kind, Kind::Uring);
    assert_eq!(probe(Choice::Epoll, 2).unwrap().kind, Kind::Epoll);
}

#[test]
fn what_the_probe_made_interrupts_nobody_when_it_ends() {
    let nobody_writes = UdpSocket::bind("127.0.0.1:0").unwrap();
    nobody_writes.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    for _ in 0..5 {
        probe(Choice::Auto, 2).unwrap();
        let error = nobody_writes.recv(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
    }
}

/// Runs one of the ignored tests below in a process of its own, whose privileges it may give up.
fn in_child(test: &str) {
    let arguments = ["--exact", test, "--ignored", "--nocapture"];
    let binary = std::env::current_exe().unwrap();
    let output = Command::new(binary).args(arguments).output().unwrap();
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text += &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    eprintln!("{text}");
}

#[test]
fn refused_io_uring_falls_back_and_names_the_refusal() {
    in_child("child_without_io_uring");
}

#[test]
fn low_locked_memory_falls_back_and_names_the_limit() {
    in_child("child_with_low_memlock");
}

#[test]
fn kernel_without_rings_of_buffers_falls_back_and_names_it() {
    in_child("child_with_an_old_kernel");
}

#[test]
#[ignore = "run by kernel_without_rings_of_buffers_falls_back_and_names_it"]
fn child_with_an_old_kernel() {
    const REGISTER_BUFFER_RING: u32 = 22;
    refuse(libc::SYS_io_uring_register, Some(REGISTER_BUFFER_RING), libc::EINVAL);
    let Probe { kind, reason } = probe(Choice::Auto, 2).unwrap();
    eprintln!("{reason}");
    assert_eq!(kind, Kind::Epoll);
    assert!(reason.contains("EINVAL") && reason.contains("6.1") && reason.ends_with(", using epoll"));
    assert!(probe(Choice::Uring, 2).is_err());
    assert!(runtime::spawn_shard(Kind::Uring, "old".to_owned(), None, || async {}).is_err());
}

#[test]
#[ignore = "run by refused_io_uring_falls_back_and_names_the_refusal"]
fn child_without_io_uring() {
    refuse(libc::SYS_io_uring_setup, None, libc::EPERM);
    let Probe { kind, reason } = probe(Choice::Auto, 2).unwrap();
    eprintln!("{reason}");
    assert_eq!(kind, Kind::Epoll);
    assert!(reason.starts_with("io_uring_setup refused: EPERM"));
    assert!(reason.ends_with(", using epoll"));
    let error = probe(Choice::Uring, 2).unwrap_err();
    assert!(error.contains("EPERM") && !error.contains('\n'));
    assert_eq!(probe(Choice::Epoll, 2).unwrap().kind, Kind::Epoll);
    join(shard(kind, || async {})).unwrap();
}

#[test]
fn ended_shards_leave_no_connection_open() {
    in_child("child_with_many_shards");
}

#[test]
#[ignore = "run by ended_shards_leave_no_connection_open"]
fn child_with_many_shards() {
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    on_both(|kind| {
        let mut counts = Vec::new();
        for _ in 0..6 {
            let (server, clients) = crowd(kind, 20, || runtime::sleep(Duration::from_millis(20)));
            join(server).unwrap();
            drop(clients);
            thread::sleep(Duration::from_millis(50));
            counts.push(open());
        }
        eprintln!("{kind}: open descriptors {counts:?}");
        // glommio keeps its eventfd of each executor that has ended, and the ring's; no socket, ring or listener.
        let kept = if kind == Kind::Uring { 8 } else { 0 };
        assert!(counts[5] - counts[1] <= kept);
    });
}

#[test]
#[ignore = "run by low_locked_memory_falls_back_and_names_the_limit"]
fn child_with_low_memlock() {
    let set = |soft, hard| {
        let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
        // SAFETY: the call reads `limit`, which outlives it.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) }, 0);
    };
    set(64 << 10, 1 << 20);
    assert_eq!(probe(Choice::Auto, 2).unwrap().kind, Kind::Uring);
    set(64 << 10, 64 << 10);
    let Probe { kind, reason } = probe(Choice::Auto, 2).unwrap();
    eprintln!("{reason}");
    assert_eq!(kind, Kind::Epoll);
    assert!(reason.contains("ulimit -l") && reason.contains("64 KiB"));
    assert!(runtime::spawn_shard(Kind::Uring, "poor".to_owned(), None, || async {}).is_err());
}

/// Does what container runtimes do: a system call, or only that with `second` as its second argument, answers with an error to
/// this thread and its children.
fn refuse(call: libc::c_long, second: Option<u32>, error: i32) {
    // Where the number of the call and its second argument stand in struct seccomp_data.
    const CALL: u32 = 0;
    const SECOND: u32 = 24;
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let answer = libc::BPF_RET | libc::BPF_K;
    let step = |code: u32, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    let field = if second.is_some() { SECOND } else { CALL };
    let mut filter = [
        step(load, 0, CALL),
        step(equal, 3, call as u32),
        step(load, 0, field),
        step(equal, 1, second.unwrap_or(call as u32)),
        step(answer, 0, libc::SECCOMP_RET_ERRNO | error as u32),
        step(answer, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which outlives the calls.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program), 0);
    }
}

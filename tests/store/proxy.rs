//! A proxy between a store and its database server: passes bytes on, refuses, cuts, stalls, loses answers.
#![allow(clippy::disallowed_methods, reason = "its threads are no shards")]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Between a store and its server: passes bytes on, cuts, or stalls.
pub struct Proxy {
    pub port: u16,
    pub faults: Arc<Faults>,
    cut: mpsc::Sender<()>,
}

#[derive(Default)]
pub struct Faults {
    pub refuses: AtomicBool,
    pub stalls: AtomicBool,
    /// Passes the next commit on and cuts its connection, so that the answer is lost; once.
    pub swallows_commits: AtomicBool,
}

impl Proxy {
    /// In front of the server that `url` names.
    pub fn start(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cut, cuts) = mpsc::channel();
        let faults = Arc::new(Faults::default());
        let target = url.rsplit_once('@').unwrap().1.split('/').next().unwrap().to_owned();
        let (passing, open) = mpsc::channel::<TcpStream>();
        let accepting = faults.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map(Result::unwrap) {
                if accepting.refuses.load(Ordering::SeqCst) {
                    continue;
                }
                let server = TcpStream::connect(&target).unwrap();
                // Or a small answer waits for a delayed acknowledgement, 40 ms for each statement.
                for stream in [&client, &server] {
                    stream.set_nodelay(true).unwrap();
                }
                passing.send(client.try_clone().unwrap()).unwrap();
                passing.send(server.try_clone().unwrap()).unwrap();
                for (from, to, is_request) in
                    [(client.try_clone().unwrap(), server.try_clone().unwrap(), true), (server, client, false)]
                {
                    let faults = accepting.clone();
                    std::thread::spawn(move || pass(from, to, is_request, &faults));
                }
            }
        });
        std::thread::spawn(move || {
            while cuts.recv().is_ok() {
                open.try_iter().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
            }
        });
        Self { port, faults, cut }
    }

    pub fn set(&self, flag: &AtomicBool, value: bool) {
        flag.store(value, Ordering::SeqCst);
    }

    /// Ends every connection; new ones are refused while `refuses`.
    pub fn cut(&self, refuses: bool) {
        self.set(&self.faults.refuses, refuses);
        self.cut.send(()).unwrap();
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, is_request: bool, faults: &Faults) {
    let mut bytes = [0; 65_536];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        while faults.stalls.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let commits = is_request && bytes[..length].windows(6).any(|word| word == b"COMMIT");
        if to.write_all(&bytes[..length]).is_err() {
            break;
        }
        if commits && faults.swallows_commits.swap(false, Ordering::SeqCst) {
            // The answer is lost with the connection.
            let _ = from.shutdown(Shutdown::Both);
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}

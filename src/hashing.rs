//! Passwords: argon2id on a few threads of its own, so that neither a shard nor the store ever waits for it.
//!
//! One desk thread takes requests from the link and hands each to a worker that is idle. Bounds: the queue's length
//! (over it `Busy` at once), the wait in it (over it `Busy` without hashing), and memory: `threads * memory_kib`.
//! Deliberately absent: rules about passwords, and any knowledge of accounts.

use std::fmt;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};

use crate::link::{self, Asked, Incoming, Link};
use crate::runtime::give_way;

/// How much to spend. The default cost is OWASP's first choice for argon2id.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Passwords hashed at the same time; at least 1.
    pub threads: usize,
    /// Requests that may wait.
    pub queue_len_max: usize,
    /// A request that has waited this long is not hashed any more.
    pub wait_ms_max: u64,
    /// Memory of one hash, KiB.
    pub memory_kib: u32,
    pub iterations: u32,
    /// Lanes of one hash.
    pub parallelism: u32,
}

impl Default for Settings {
    fn default() -> Self {
        let (memory_kib, iterations, parallelism) = (19_456, 2, 1);
        Self { threads: 2, queue_len_max: 64, wait_ms_max: 2_000, memory_kib, iterations, parallelism }
    }
}

/// Why the pool did not start: costs that argon2 refuses, no entropy, no thread.
#[derive(Debug)]
pub struct StartError(String);

/// Too many passwords are being hashed; try later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Busy;

/// The running pool.
pub struct Pool {
    hasher: Hasher,
    threads: Vec<JoinHandle<()>>,
}

/// Asks the pool; one clone per shard.
#[derive(Clone)]
pub struct Hasher {
    link: Link<Job, Outcome>,
}

struct Job {
    work: Work,
    asked_at: Instant,
}

enum Work {
    Hash { password: String },
    Verify { password: String, phc: Option<String> },
}

enum Outcome {
    Hashed(String),
    Verified(bool),
    Busy,
}

type AskedJob = Asked<Job, Outcome>;

/// Starts the pool.
///
/// # Errors
/// The settings are no valid argon2 costs, or the system has no entropy or no threads.
pub fn start(settings: &Settings) -> Result<Pool, StartError> {
    let refused = |error: &dyn fmt::Display| StartError(format!("passwords cannot be hashed: {error}"));
    let mill = Mill::new(settings).map_err(|error| refused(&error))?;
    let (link, incoming) = link::link(settings.queue_len_max);
    let (idle, idlers) = mpsc::channel();
    let thread = link::spawn("hashing-desk", move || desk(incoming, &idlers));
    let mut threads = vec![thread.map_err(|error| refused(&error))?];
    for number in 0..settings.threads.max(1) {
        let (mill, idle) = (mill.clone(), idle.clone());
        let thread = link::spawn(&format!("hashing-{number}"), move || {
            give_way();
            work(&mill, &idle);
        });
        threads.push(thread.map_err(|error| refused(&error))?);
    }
    Ok(Pool { hasher: Hasher { link }, threads })
}

impl Pool {
    /// A face to ask through.
    pub fn hasher(&self) -> Hasher {
        self.hasher.clone()
    }

    /// Hashes what was accepted, then stops. Blocks: not for a shard.
    pub fn stop(self) {
        self.hasher.link.close();
        for thread in self.threads {
            // A panic would have aborted the process.
            let _ = thread.join();
        }
    }
}

impl Hasher {
    /// The PHC string to store for `password`.
    ///
    /// # Errors
    /// The queue is full, or the wait was too long.
    pub async fn hash(&self, password: String) -> Result<String, Busy> {
        match self.ask(Work::Hash { password }).await {
            Outcome::Hashed(phc) => Ok(phc),
            Outcome::Verified(_) | Outcome::Busy => Err(Busy),
        }
    }

    /// Whether `password` is the one that gave `phc`. Without one (no such account) it takes as long and is false (D25).
    ///
    /// # Errors
    /// The queue is full, or the wait was too long.
    pub async fn verify(&self, password: String, phc: Option<String>) -> Result<bool, Busy> {
        match self.ask(Work::Verify { password, phc }).await {
            Outcome::Verified(verdict) => Ok(verdict),
            Outcome::Hashed(_) | Outcome::Busy => Err(Busy),
        }
    }

    async fn ask(&self, work: Work) -> Outcome {
        self.link.ask(Job { work, asked_at: now() }).await.unwrap_or(Outcome::Busy)
    }
}

#[expect(clippy::disallowed_methods, reason = "a request ages in real time, on threads that no simulation runs")]
fn now() -> Instant {
    Instant::now()
}

/// Hands each request to a worker that has said it is idle.
fn desk(mut incoming: Incoming<Job, Outcome>, idlers: &mpsc::Receiver<mpsc::Sender<AskedJob>>) {
    while let Some(asked) = incoming.receive() {
        let handed = idlers.recv().map(|worker| worker.send(asked));
        if handed.is_err() {
            return;
        }
    }
}

/// Says it is idle, is handed one request, does it; until the desk is gone.
fn work(mill: &Mill, idle: &mpsc::Sender<mpsc::Sender<AskedJob>>) {
    loop {
        let (hand, handed) = mpsc::channel();
        if idle.send(hand).is_err() {
            return;
        }
        let Ok(AskedJob { request, answer }) = handed.recv() else { return };
        answer.send(mill.grind(request));
    }
}

/// What every worker needs.
#[derive(Clone)]
struct Mill {
    argon2: Argon2<'static>,
    wait_max: Duration,
    /// The hash of a secret that nobody knows.
    dummy: String,
}

impl Mill {
    fn new(settings: &Settings) -> Result<Self, argon2::password_hash::Error> {
        let params = Params::new(settings.memory_kib, settings.iterations, settings.parallelism, None)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let wait_max = Duration::from_millis(settings.wait_ms_max);
        let mut mill = Self { argon2, wait_max, dummy: String::new() };
        mill.dummy = mill.hash(&random()?)?;
        Ok(mill)
    }

    fn grind(&self, job: Job) -> Outcome {
        if job.asked_at.elapsed() >= self.wait_max {
            return Outcome::Busy;
        }
        match job.work {
            Work::Hash { password } => self.hash(password.as_bytes()).map_or(Outcome::Busy, Outcome::Hashed),
            Work::Verify { password, phc } => Outcome::Verified(self.verify(&password, phc.as_deref())),
        }
    }

    fn hash(&self, password: &[u8]) -> Result<String, argon2::password_hash::Error> {
        Ok(self.argon2.hash_password_with_salt(password, &random()?)?.to_string())
    }

    fn verify(&self, password: &str, phc: Option<&str>) -> bool {
        let known = phc.filter(|phc| PasswordHash::new(phc).is_ok());
        let matches = self.argon2.verify_password(password.as_bytes(), known.unwrap_or(&self.dummy)).is_ok();
        matches && known.is_some()
    }
}

fn random() -> Result<[u8; 16], argon2::password_hash::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| argon2::password_hash::Error::Internal)?;
    Ok(bytes)
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

#[cfg(test)]
mod tests {
    use futures_lite::future::block_on;

    use super::*;

    fn cheap() -> Settings {
        Settings { memory_kib: 64, iterations: 1, ..Settings::default() }
    }

    #[test]
    fn a_password_is_verified_against_its_own_hash_only() {
        let pool = start(&cheap()).unwrap();
        let hasher = pool.hasher();
        let phc = block_on(hasher.hash("secret".to_owned())).unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{phc}");
        assert_ne!(block_on(hasher.hash("secret".to_owned())).unwrap(), phc, "each has its own salt");
        assert_eq!(block_on(hasher.verify("secret".to_owned(), Some(phc.clone()))), Ok(true));
        assert_eq!(block_on(hasher.verify("Secret".to_owned(), Some(phc))), Ok(false));
        assert_eq!(block_on(hasher.verify("secret".to_owned(), None)), Ok(false));
        assert_eq!(block_on(hasher.verify("secret".to_owned(), Some("garbage".to_owned()))), Ok(false));
        pool.stop();
    }

    #[test]
    fn the_default_cost_is_the_one_owasp_names() {
        let pool = start(&Settings::default()).unwrap();
        let phc = block_on(pool.hasher().hash("secret".to_owned())).unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
    }

    #[test]
    fn a_full_queue_is_busy_at_once() {
        let pool = start(&Settings { threads: 1, queue_len_max: 1, ..Settings::default() }).unwrap();
        let job = || Job { work: Work::Verify { password: "x".to_owned(), phc: None }, asked_at: now() };
        let pending: Vec<_> = (0..16).map(|_| pool.hasher.link.ask(job())).collect();
        let outcomes: Vec<_> = pending.into_iter().map(block_on).collect();
        assert!(outcomes.iter().any(|outcome| matches!(outcome, Err(link::LinkError::Full))));
        assert!(matches!(outcomes[0], Ok(Outcome::Verified(false))));
    }

    #[test]
    fn what_waited_too_long_is_not_hashed() {
        let pool = start(&Settings { wait_ms_max: 0, ..cheap() }).unwrap();
        assert_eq!(block_on(pool.hasher().hash("secret".to_owned())), Err(Busy));
        assert_eq!(block_on(pool.hasher().verify("secret".to_owned(), None)), Err(Busy));
    }

    #[test]
    fn a_stopped_pool_is_busy_and_impossible_costs_do_not_start() {
        let pool = start(&cheap()).unwrap();
        let hasher = pool.hasher();
        pool.stop();
        assert_eq!(block_on(hasher.hash("secret".to_owned())), Err(Busy));
        assert!(start(&Settings { memory_kib: 1, ..cheap() }).is_err());
    }
}

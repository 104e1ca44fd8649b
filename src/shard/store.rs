//! What a shard knows of the store's rows: its caches in front, the link behind.
//!
//! Only the home of a user caches what is his, so forgetting it there is enough. Writes go to the store first. A
//! session that was read before its user was forgotten, and arrives after, is read again: a newer login may have
//! ended it. A profile like that is not cached.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::api::host::{CacheCounts, Unavailable};
use crate::base::{Time, TokenHash, UserId};
use crate::cache::Cache;
use crate::hashing::Hasher;
use crate::link::{Link, LinkError, Pending};
use crate::message::model::Login;
use crate::message::store::{Profile, Reply, Request};

/// A row whose user was forgotten under the read is read again, so often at the most.
const READS_MAX: usize = 8;
/// A cached row is asked for again after this, in case another process changed it.
const FRESH_MS: u64 = 300_000;

/// The ways out of a shard to other threads.
#[derive(Clone)]
pub struct Links {
    pub store: Link<Request, Reply>,
    pub hasher: Hasher,
}

/// Caches and links of one shard.
pub(super) struct Stores {
    links: Links,
    logins: RefCell<Cache<UserId, Login>>,
    profiles: RefCell<Cache<UserId, Profile>>,
    /// Of whom something is read at this moment. Claimed users are peers' choice: no hash map.
    reads: RefCell<BTreeMap<UserId, Reads>>,
}

/// Reads of one user's rows under way, and how often he was forgotten since the first of them began.
#[derive(Default)]
struct Reads {
    under_way: usize,
    forgotten: u64,
}

/// One read under way.
struct Reading<'a> {
    stores: &'a Stores,
    user: UserId,
    forgotten: u64,
}

impl Stores {
    /// Empty caches of so many lines.
    pub fn new(links: Links, profiles_max: usize, logins_max: usize) -> Self {
        let (logins, profiles) = (RefCell::new(Cache::new(logins_max)), RefCell::new(Cache::new(profiles_max)));
        Self { links, logins, profiles, reads: RefCell::default() }
    }

    /// Asks the store; in its queue as soon as this returns.
    pub fn ask(&self, request: Request) -> Pending<Reply> {
        self.links.store.ask(request)
    }

    /// The pool that hashes passwords.
    pub fn hasher(&self) -> &Hasher {
        &self.links.hasher
    }

    /// What a rule needs to know, from the cache where it is kept; `None` when the store cannot say.
    pub async fn fact(&self, now: Time, request: Request) -> Option<Reply> {
        match request {
            Request::Session { user, token } => {
                let login = self.login(now, user, token).await.ok()?;
                Some(Reply::Session(login.map(Box::new)))
            }
            other => self.request(other).await.ok(),
        }
    }

    /// Asks the store and logs its failure.
    pub async fn request(&self, request: Request) -> Result<Reply, Unavailable> {
        checked(self.ask(request).await)
    }

    /// The login that `token` names, expired or not.
    pub async fn login(&self, now: Time, user: UserId, token: TokenHash) -> Result<Option<Login>, Unavailable> {
        if let Some(login) = self.logins.borrow_mut().get(now, &user).filter(|login| login.token == token) {
            return Ok(Some(login.clone()));
        }
        for _ in 0..READS_MAX {
            let reading = Reading::begin(self, user);
            let Reply::Session(login) = self.request(Request::Session { user, token }).await? else { break };
            if reading.is_outdated() {
                continue;
            }
            if let Some(login) = login.as_deref().filter(|login| login.active) {
                self.logins.borrow_mut().put(user, login.clone(), now + FRESH_MS);
            }
            return Ok(login.map(|login| *login));
        }
        Err(Unavailable)
    }

    /// The own profile of `user`.
    pub async fn profile(&self, now: Time, user: UserId) -> Result<Option<Profile>, Unavailable> {
        if let Some(profile) = self.profiles.borrow_mut().get(now, &user) {
            return Ok(Some(profile.clone()));
        }
        let reading = Reading::begin(self, user);
        let Reply::Profile(profile) = self.request(Request::Profile { user }).await? else { return Err(Unavailable) };
        if let Some(profile) = profile.as_deref().filter(|_| !reading.is_outdated()) {
            self.profiles.borrow_mut().put(user, profile.clone(), now + FRESH_MS);
        }
        Ok(profile.map(|profile| *profile))
    }

    /// Drops what is cached of `user`.
    pub fn forget(&self, user: UserId) {
        if let Some(reads) = self.reads.borrow_mut().get_mut(&user) {
            reads.forgotten += 1;
        }
        self.logins.borrow_mut().remove(&user);
        self.profiles.borrow_mut().remove(&user);
    }

    /// Lets go of cached rows that are no longer fresh.
    pub fn sweep(&self, now: Time) {
        self.logins.borrow_mut().sweep(now);
        self.profiles.borrow_mut().sweep(now);
    }

    /// Gives up the older half of the caches.
    pub fn shrink(&self) {
        let (users, sessions) = (self.profiles.borrow_mut().shrink(), self.logins.borrow_mut().shrink());
        tracing::debug!("[LRUCache] Evicted {users} users, {sessions} sessions");
    }

    /// Size and effect of the caches: users, sessions.
    pub fn counts(&self) -> (CacheCounts, CacheCounts) {
        (counts(&self.profiles.borrow()), counts(&self.logins.borrow()))
    }
}

impl<'a> Reading<'a> {
    fn begin(stores: &'a Stores, user: UserId) -> Self {
        let mut all = stores.reads.borrow_mut();
        let reads = all.entry(user).or_default();
        reads.under_way += 1;
        Self { stores, user, forgotten: reads.forgotten }
    }

    /// Whether the user was forgotten since it began.
    fn is_outdated(&self) -> bool {
        self.stores.reads.borrow().get(&self.user).is_some_and(|reads| reads.forgotten != self.forgotten)
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut all = self.stores.reads.borrow_mut();
        if let Some(reads) = all.get_mut(&self.user) {
            reads.under_way -= 1;
            if reads.under_way == 0 {
                all.remove(&self.user);
            }
        }
    }
}

/// A reply that can be used; what the store could not do is logged.
pub(super) fn checked(reply: Result<Reply, LinkError>) -> Result<Reply, Unavailable> {
    match reply {
        Ok(Reply::Failed(reason)) => {
            tracing::error!(reason, "the store failed");
            Err(Unavailable)
        }
        // Told to the log once, not by each of thousands.
        Ok(Reply::Away) => Err(Unavailable),
        Ok(reply) => Ok(reply),
        Err(error) => {
            tracing::warn!(?error, "the store does not answer");
            Err(Unavailable)
        }
    }
}

fn counts<K: std::hash::Hash + Eq, V>(cache: &Cache<K, V>) -> CacheCounts {
    CacheCounts { size: cache.len(), max: cache.max(), hits: cache.hits(), misses: cache.misses() }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_lite::future::{block_on, poll_once};

    use super::*;
    use crate::hashing;
    use crate::link::{Incoming, link};

    const NOW: Time = Time(1);

    fn stores() -> (Stores, Incoming<Request, Reply>) {
        let settings = hashing::Settings {
            threads: 1,
            queue_len_max: 1,
            wait_ms_max: 1,
            memory_kib: 8,
            iterations: 1,
            parallelism: 1,
        };
        let (store, incoming) = link(8);
        let hasher = hashing::start(&settings).unwrap().hasher();
        (Stores::new(Links { store, hasher }, 8, 8), incoming)
    }

    fn user(number: u8) -> UserId {
        UserId::from_bytes([number; 16])
    }

    /// Reads a session of user 1 while `forgotten` is forgotten under each read; gives how often it was read.
    fn reads_while_forgetting(forgotten: UserId) -> (usize, bool) {
        let (stores, mut incoming) = stores();
        let mut login = pin!(stores.login(NOW, user(1), TokenHash([1; 32])));
        let mut reads = 0;
        let answered = loop {
            if let Some(login) = block_on(poll_once(&mut login)) {
                break login.is_ok();
            }
            let asked = incoming.try_receive().unwrap();
            reads += 1;
            stores.forget(forgotten);
            asked.answer.send(Reply::Session(None));
        };
        assert!(stores.reads.borrow().is_empty(), "no read is left");
        (reads, answered)
    }

    #[test]
    fn a_read_is_not_disturbed_by_what_is_forgotten_of_others() {
        assert_eq!(reads_while_forgetting(user(2)), (1, true));
    }

    #[test]
    fn a_session_whose_user_is_forgotten_meanwhile_is_read_again_but_not_for_ever() {
        assert_eq!(reads_while_forgetting(user(1)), (READS_MAX, false));
    }
}

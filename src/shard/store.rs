//! What a shard knows of the store's rows: its caches in front, the link behind.
//!
//! Only the home of a user caches what is his, so forgetting it there is enough. Writes go to the store first. A
//! session that was read before something was forgotten, and arrives after, is read again: a newer login may have
//! ended it. A profile like that is not cached.

use std::cell::{Cell, RefCell};

use crate::api::host::{CacheCounts, Unavailable};
use crate::base::{Time, TokenHash, UserId};
use crate::cache::Cache;
use crate::hashing::Hasher;
use crate::link::{Link, LinkError, Pending};
use crate::message::model::Login;
use crate::message::store::{Profile, Reply, Request};

/// A row that something was forgotten under is read again, so often at the most.
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
    /// How often something was forgotten.
    forgotten: Cell<u64>,
}

impl Stores {
    /// Empty caches of so many lines.
    pub fn new(links: Links, profiles_max: usize, logins_max: usize) -> Self {
        let (logins, profiles) = (RefCell::new(Cache::new(logins_max)), RefCell::new(Cache::new(profiles_max)));
        Self { links, logins, profiles, forgotten: Cell::new(0) }
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
            let forgotten = self.forgotten.get();
            let Reply::Session(login) = self.request(Request::Session { user, token }).await? else { break };
            if forgotten != self.forgotten.get() {
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
        let forgotten = self.forgotten.get();
        let Reply::Profile(profile) = self.request(Request::Profile { user }).await? else { return Err(Unavailable) };
        if let Some(profile) = profile.as_deref().filter(|_| forgotten == self.forgotten.get()) {
            self.profiles.borrow_mut().put(user, profile.clone(), now + FRESH_MS);
        }
        Ok(profile.map(|profile| *profile))
    }

    /// Drops what is cached of `user`.
    pub fn forget(&self, user: UserId) {
        self.forgotten.set(self.forgotten.get() + 1);
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

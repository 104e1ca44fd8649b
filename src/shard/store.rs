//! What a shard knows of the store's rows: its caches in front, the link behind.
//!
//! Only the home of a user caches what is his, so forgetting it there is enough. Writes go to the store first. Misses of
//! one row that come together make one read. A session that was read before its user was forgotten, and arrives after, is
//! read again: a newer login may have ended it. A profile like that is not cached. While the store cannot say, a session
//! that was cached lately is taken as it was.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::api::host::{CacheCounts, Unavailable};
use crate::base::{Time, TokenHash, UserId};
use crate::cache::Cache;
use crate::hashing::Hasher;
use crate::link::{Link, LinkError, Pending};
use crate::message::model::Login;
use crate::message::store::{Profile, Reply, Request};

use super::clock::Clock;
use super::counters::{Counters, StoreFault};
use super::flights::{Flights, Landed};

/// A row whose user was forgotten under the read is read again, so often at the most.
const READS_MAX: usize = 8;
/// A cached row is asked for again after this, in case another process changed it.
const FRESH_MS: u64 = 300_000;
/// For so long after that a session is good while the store is away; as many are kept as there is room for.
const STALE_MS: u64 = 3_600_000;

/// The ways out of a shard to other threads.
#[derive(Clone)]
pub struct Links {
    pub store: Link<Request, Reply>,
    pub hasher: Hasher,
}

/// Caches and links of one shard.
pub(super) struct Stores {
    links: Links,
    clock: Clock,
    counters: Rc<Counters>,
    logins: RefCell<Cache<UserId, Login>>,
    profiles: RefCell<Cache<UserId, Profile>>,
    logins_under_way: Flights<(UserId, TokenHash), Result<Option<Login>, Unavailable>>,
    profiles_under_way: Flights<UserId, Result<Option<Profile>, Unavailable>>,
}

impl Stores {
    /// Empty caches of so many lines, for profiles and for logins.
    pub fn new(links: Links, (profiles_max, logins_max): (usize, usize), clock: Clock, counters: Rc<Counters>) -> Self {
        let (logins, profiles) = (RefCell::new(Cache::new(logins_max)), RefCell::new(Cache::new(profiles_max)));
        let (logins_under_way, profiles_under_way) = (Flights::default(), Flights::default());
        Self { links, clock, counters, logins, profiles, logins_under_way, profiles_under_way }
    }

    /// Asks the store; in its queue as soon as this returns.
    pub fn ask(&self, request: Request) -> Asking {
        let (kind, asked_at) = (request.index(), self.clock.micros());
        let pending = self.links.store.ask(request);
        Asking { pending, kind, asked_at, clock: self.clock, counters: self.counters.clone() }
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
            let read = self.logins_under_way.share(
                (user, token),
                async || match self.request(Request::Session { user, token }).await? {
                    Reply::Session(login) => Ok(login.map(|login| *login)),
                    _ => Err(Unavailable),
                },
                |landed| {
                    if let (true, Ok(Some(login))) = (landed.is_current, &landed.value)
                        && login.active
                    {
                        self.logins.borrow_mut().put(user, login.clone(), now + FRESH_MS);
                    }
                },
            );
            match read.await {
                Landed { value: Err(Unavailable), .. } => break,
                Landed { is_current: true, value } => return value,
                _ => {}
            }
        }
        let logins = self.logins.borrow();
        let stale = logins.stale(&user).filter(|login| login.token == token);
        stale.map(|login| Some(login.clone())).ok_or(Unavailable)
    }

    /// The own profile of `user`.
    pub async fn profile(&self, now: Time, user: UserId) -> Result<Option<Profile>, Unavailable> {
        if let Some(profile) = self.profiles.borrow_mut().get(now, &user) {
            return Ok(Some(profile.clone()));
        }
        let read = self.profiles_under_way.share(
            user,
            async || match self.request(Request::Profile { user }).await? {
                Reply::Profile(profile) => Ok(profile.map(|profile| *profile)),
                _ => Err(Unavailable),
            },
            |landed| {
                if let (true, Ok(Some(profile))) = (landed.is_current, &landed.value) {
                    self.profiles.borrow_mut().put(user, profile.clone(), now + FRESH_MS);
                }
            },
        );
        read.await.value
    }

    /// Drops what is cached of `user`.
    pub fn forget(&self, user: UserId) {
        self.logins_under_way.forget((user, TokenHash([0; 32]))..=(user, TokenHash([0xff; 32])));
        self.logins.borrow_mut().remove(&user);
        self.forget_profile(user);
    }

    /// Drops what is cached of the profile of `user`.
    pub fn forget_profile(&self, user: UserId) {
        self.profiles_under_way.forget(user..=user);
        self.profiles.borrow_mut().remove(&user);
    }

    /// Lets go of cached rows that are of no more use.
    pub fn sweep(&self, now: Time) {
        self.logins.borrow_mut().sweep(Time(now - Time(STALE_MS)));
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

/// A reply to come, and what is counted of it. One that nobody waits for any more is not counted.
#[must_use = "the reply arrives here"]
pub(super) struct Asking {
    pending: Pending<Reply>,
    /// The index of the request's kind.
    kind: usize,
    asked_at: u64,
    clock: Clock,
    counters: Rc<Counters>,
}

impl Future for Asking {
    type Output = Result<Reply, LinkError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let reply = std::task::ready!(Pin::new(&mut self.pending).poll(context));
        let fault = match &reply {
            Ok(Reply::Failed(_)) => Some(StoreFault::Failed),
            Ok(Reply::Away) => Some(StoreFault::Away),
            Err(LinkError::Full) => Some(StoreFault::QueueFull),
            Err(LinkError::Closed) => Some(StoreFault::Closed),
            Ok(_) => None,
        };
        match fault {
            Some(fault) => self.counters.store_faults.add_one(fault as usize),
            None => self.counters.store[self.kind].observe(self.clock.micros() - self.asked_at),
        }
        Poll::Ready(reply)
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
    let (hits, misses, evictions) = (cache.hits(), cache.misses(), cache.evictions());
    CacheCounts { size: cache.len(), max: cache.max(), hits, misses, evictions }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_lite::future::{block_on, poll_once};

    use super::*;
    use crate::hashing;
    use crate::link::{Incoming, link};
    use crate::message::model::{AccountType, Card, Gender, PaidStatus};

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
        (Stores::new(Links { store, hasher }, (8, 8), Clock::start(), Rc::default()), incoming)
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

    fn login_of(number: u8) -> Login {
        let card = Card { user_id: user(number), ..card() };
        let (account, paid) = (AccountType::Guest, PaidStatus::Unpaid);
        let token = TokenHash([number; 32]);
        Login { card: card.into(), token, account, paid, banned: false, active: true, expires_at: Time(u64::MAX) }
    }

    fn card() -> Card {
        let (name, gender) = ("Ann".to_owned(), Gender::Female);
        Card { user_id: user(1), name, gender, selfie_url: None, video_url: None, introduction: None }
    }

    fn answer(incoming: &mut Incoming<Request, Reply>, login: Option<Login>) {
        let asked = incoming.try_receive().expect("it is asked");
        asked.answer.send(Reply::Session(login.map(Box::new)));
    }

    #[test]
    fn misses_that_come_together_make_one_read() {
        let (stores, mut incoming) = stores();
        let ask = || stores.login(NOW, user(1), TokenHash([1; 32]));
        let (mut first, mut second, mut third) = (pin!(ask()), pin!(ask()), pin!(ask()));
        assert!(block_on(poll_once(&mut first)).is_none() && block_on(poll_once(&mut second)).is_none());
        answer(&mut incoming, Some(login_of(1)));
        // Its reader has not looked yet: one who comes now joins, too.
        assert!(block_on(poll_once(&mut third)).is_none());
        for login in [block_on(first), block_on(second), block_on(third)] {
            assert_eq!(login, Ok(Some(login_of(1))));
        }
        assert!(incoming.try_receive().is_none());
        assert_eq!(block_on(ask()), Ok(Some(login_of(1))), "it is cached");
    }

    #[test]
    fn who_waits_for_a_read_that_is_given_up_reads_himself() {
        let (stores, mut incoming) = stores();
        let ask = || stores.login(NOW, user(1), TokenHash([1; 32]));
        let mut first = Box::pin(ask());
        let mut second = pin!(ask());
        assert!(block_on(poll_once(&mut first)).is_none() && block_on(poll_once(&mut second)).is_none());
        drop(first);
        assert!(block_on(poll_once(&mut second)).is_none());
        answer(&mut incoming, None);
        answer(&mut incoming, Some(login_of(1)));
        assert_eq!(block_on(second), Ok(Some(login_of(1))));
    }

    #[test]
    fn a_session_cached_lately_is_good_while_the_store_is_away_unless_it_was_forgotten() {
        let (stores, mut incoming) = stores();
        let ask = |now| stores.login(now, user(1), TokenHash([1; 32]));
        let late = NOW + FRESH_MS + 1;
        let mut away = || {
            let mut login = pin!(ask(late));
            assert!(block_on(poll_once(&mut login)).is_none(), "the store is asked first");
            incoming.try_receive().expect("it is asked").answer.send(Reply::Away);
            block_on(login)
        };
        stores.logins.borrow_mut().put(user(1), login_of(1), NOW + FRESH_MS);
        stores.sweep(late);
        assert_eq!(away(), Ok(Some(login_of(1))));
        stores.sweep(late + STALE_MS);
        assert_eq!(away(), Err(Unavailable));
        stores.logins.borrow_mut().put(user(1), login_of(1), NOW + FRESH_MS);
        stores.forget(user(1));
        assert_eq!(away(), Err(Unavailable));
    }
}

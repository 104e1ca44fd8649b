//! The shard as the endpoints see it.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future::or;

use crate::api::Settings;
use crate::api::host::{Busy, CacheCounts, Host, Live, Unavailable};
use crate::base::{Random, ShardId, Time, Token, TokenHash, UserId};
use crate::domain::directory::Directory;
use crate::domain::rate::{Action, Bucket, Key, Limit, Standing};
use crate::hashing;
use crate::link::LinkError;
use crate::message::model::Login;
use crate::message::store::{self, Profile, Reply, Request};
use crate::runtime::sleep;

use crate::telemetry::memory::Memory;

use super::Shard;
use super::inbox::Envelope;
use super::store::checked;

/// So long the store may take to tell how it is, ms: less than probes usually wait.
const PROBE_MS_MAX: u64 = 2_000;

/// A handle for one request, which goes by the settings of its beginning to its end.
pub(super) struct ShardHost(pub Rc<Shard>, pub Rc<super::Settings>);

impl Host for ShardHost {
    fn now(&self) -> Time {
        self.0.now()
    }

    fn settings(&self) -> &Settings {
        &self.1.api
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut Random) -> T) -> T {
        draw(&mut self.0.random.borrow_mut())
    }

    async fn store(&self, request: Request) -> Result<Reply, Unavailable> {
        let changed = request.changes();
        let reply = self.0.stores.ask(request).await;
        // A write without an answer may be stored: what is cached may be of the past.
        if let (Err(LinkError::Closed), Some(user)) = (&reply, changed) {
            self.user_changed(user).await;
        }
        checked(reply)
    }

    async fn login(&self, token: &Token) -> Result<Option<Login>, Unavailable> {
        let (user, hash) = (token.user(), token.hash());
        if self.0.placement.home(user) == self.0.id {
            return self.0.stores.login(self.now(), user, hash).await;
        }
        match self.0.stores.request(Request::Session { user, token: hash }).await? {
            Reply::Session(login) => Ok(login.map(|login| *login)),
            _ => Err(Unavailable),
        }
    }

    async fn profile(&self, user: UserId) -> Result<Option<Profile>, Unavailable> {
        self.0.stores.profile(self.now(), user).await
    }

    async fn hash_password(&self, password: String) -> Result<String, Busy> {
        self.0.counted(self.0.stores.hasher().hash(password).await)
    }

    async fn verify_password(&self, password: String, hash: Option<String>) -> Result<bool, Busy> {
        self.0.counted(self.0.stores.hasher().verify(password, hash).await)
    }

    async fn rate(&self, address: IpAddr, bucket: Bucket, key: Key, limit: Limit, action: Action) -> Standing {
        let shard = &self.0;
        let home = match key {
            Key::User(user) => shard.placement.home(user),
            Key::Address(_) | Key::Account(..) => shard.placement.home_of_address(address),
        };
        if home == shard.id {
            return shard.rates.borrow_mut().handle(shard.now(), bucket, key, limit, action);
        }
        let question = |reply| Envelope::Rate { bucket, key, limit, action, reply };
        let nothing_counted = Standing { limit, used: 0, resets_at: shard.now() + limit.window_ms };
        shard.mesh.ask(home, question).await.unwrap_or(nothing_counted)
    }

    async fn sessions_ended(&self, user: UserId, except: TokenHash) {
        let (shard, home) = (&self.0, self.0.placement.home(user));
        if home == shard.id {
            shard.end_sessions(user, except);
        } else {
            shard.mesh.ask(home, |reply| Envelope::SessionsEnded { user, except, reply }).await;
        }
    }

    async fn user_changed(&self, user: UserId) {
        let (shard, home) = (&self.0, self.0.placement.home(user));
        if home == shard.id {
            shard.stores.forget(user);
        } else {
            shard.mesh.ask(home, |reply| Envelope::Forget { user, reply }).await;
        }
    }

    fn shard(&self) -> ShardId {
        self.0.id
    }

    fn directory<T>(&self, look: impl FnOnce(&Directory) -> T) -> T {
        look(self.0.domain.borrow().directory())
    }

    async fn standing(&self) -> Option<store::Standing> {
        match in_time(self.0.stores.ask(Request::Standing)).await? {
            Ok(Reply::Standing(standing)) => Some(standing),
            _ => None,
        }
    }

    async fn is_ready(&self) -> bool {
        !self.0.stopping.get() && matches!(in_time(self.0.stores.ask(Request::Ping)).await, Some(Ok(Reply::Done)))
    }

    fn answered(&self, place: usize) {
        self.0.counters.requests.add_one(place);
    }

    fn limited(&self, bucket: Bucket) {
        self.0.counters.limited.add_one(bucket as usize);
    }

    async fn live(&self) -> Live {
        let (shard, memory) = (&self.0, Memory::read());
        let mut live = shard.count();
        live.heap_used = memory.allocated;
        live.heap_total = memory.mapped;
        live.resident = memory.resident;
        for other in shard.placement.all().filter(|other| *other != shard.id) {
            let count = shard.mesh.ask(other, |reply| Envelope::Count { reply }).await.unwrap_or_default();
            live.connected_users += count.connected_users;
            live.sockets += count.sockets;
            for (reason, count) in count.closed {
                *live.closed.entry(reason).or_default() += count;
            }
            live.users_cache = sum(live.users_cache, count.users_cache);
            live.sessions_cache = sum(live.sessions_cache, count.sessions_cache);
        }
        live
    }
}

impl Shard {
    fn counted<T>(&self, hashed: Result<T, hashing::Busy>) -> Result<T, Busy> {
        hashed.map_err(|_| {
            self.counters.hashing_busy.add_one();
            Busy
        })
    }
}

/// What comes within the time that a probe waits.
async fn in_time<T>(work: impl Future<Output = T>) -> Option<T> {
    let late = async {
        sleep(Duration::from_millis(PROBE_MS_MAX)).await;
        None
    };
    or(async { Some(work.await) }, late).await
}

fn sum(a: CacheCounts, b: CacheCounts) -> CacheCounts {
    CacheCounts {
        size: a.size + b.size,
        max: a.max + b.max,
        hits: a.hits + b.hits,
        misses: a.misses + b.misses,
        evictions: a.evictions + b.evictions,
    }
}

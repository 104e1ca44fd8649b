//! What an endpoint may ask of the shard that serves it. The shell implements it; tests implement it in memory.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::base::{Random, ShardId, Time, Token, TokenHash, UserId};
use crate::domain::directory::Directory;
use crate::domain::rate::{Action, Bucket, Key, Limit, Standing};
use crate::message::model::Login;
use crate::message::store;

use super::Settings;

/// The store did not answer, or refused: 503.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unavailable;

/// The hashing pool is full: 429.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Busy;

/// Counts that `/health` and `/stats/live` show, over all shards of this process.
#[derive(Clone, Default, Debug)]
pub struct Live {
    /// Users with an authenticated socket, and sockets in all.
    pub connected_users: usize,
    pub sockets: usize,
    /// Connections that have ended since the start, by reason.
    pub closed: BTreeMap<&'static str, u64>,
    /// Bytes that the allocator has handed out, and has taken from the system; 0 where nobody tells, as all three.
    pub heap_used: u64,
    pub heap_total: u64,
    pub resident: u64,
    pub users_cache: CacheCounts,
    pub sessions_cache: CacheCounts,
}

/// Size and effect of one cache.
#[derive(Clone, Copy, Default, Debug)]
pub struct CacheCounts {
    pub size: usize,
    pub max: usize,
    pub hits: u64,
    pub misses: u64,
    pub evictions: u64,
}

/// The shard, seen from an endpoint. Asynchronous calls may take milliseconds; state may have changed after them.
#[allow(async_fn_in_trait)]
pub trait Host {
    /// Now.
    fn now(&self) -> Time;
    /// How this server was configured.
    fn settings(&self) -> &Settings;
    /// Lends the shard's generator.
    fn draw<T>(&self, draw: impl FnOnce(&mut Random) -> T) -> T;
    /// Asks the store. `Reply::Failed` and `Reply::Away` have been logged and turned into `Unavailable`.
    async fn store(&self, request: store::Request) -> Result<store::Reply, Unavailable>;
    /// The login of a token, from the cache or the store; `None` when there is none (it may be expired or inactive).
    async fn login(&self, token: &Token) -> Result<Option<Login>, Unavailable>;
    /// Hashes a password (argon2id) off this thread.
    async fn hash_password(&self, password: String) -> Result<String, Busy>;
    /// Whether the password fits the PHC string; with `None` it takes as long and is false (D25).
    async fn verify_password(&self, password: String, hash: Option<String>) -> Result<bool, Busy>;
    /// Looks at or counts in a rate window, at its home shard.
    async fn rate(&self, address: IpAddr, bucket: Bucket, key: Key, limit: Limit, action: Action) -> Standing;
    /// Forgets what is cached of the user and tells and closes connections of sessions other than `except`;
    /// done on every shard when it returns.
    async fn sessions_ended(&self, user: UserId, except: TokenHash);
    /// The own profile of a user, from the cache or the store; `None` when there is no such user.
    async fn profile(&self, user: UserId) -> Result<Option<store::Profile>, Unavailable>;
    /// Forgets what is cached of the user's login and profile; done on every shard when it returns.
    async fn user_changed(&self, user: UserId);
    /// Which shard this is.
    fn shard(&self) -> ShardId;
    /// Lends the directory of all shards' users.
    fn directory<T>(&self, look: impl FnOnce(&Directory) -> T) -> T;
    /// How the store is; `None` when its thread does not answer in time.
    async fn standing(&self) -> Option<store::Standing>;
    /// Whether the database answers now, and this server takes new work.
    async fn is_ready(&self) -> bool;
    /// A request was answered, counted at this [`super::counted::place`].
    fn answered(&self, place: usize);
    /// A request was refused because a window was full.
    fn limited(&self, bucket: Bucket);
    /// Counts for `/health`.
    async fn live(&self) -> Live;
}

//! What can be set about the endpoints: plain data, filled in by `boot` from the configuration.
//!
//! Nothing here is read from the environment. Other settings may take the place of these between two requests.

use std::sync::Arc;

use crate::base::Time;
use crate::base::limits::QUEUE_LIST_MAX;
use crate::domain::rate::Limit;

use super::demo::Demo;

/// See each field. The default is a small private server without TURN and without paywall.
#[derive(Clone)]
pub struct Settings {
    /// Origins whose pages may call, compared exactly (contract 2.1).
    pub allowed_origins: Vec<String>,
    /// Where browsers reach this server (`https://host`); its origin is always allowed.
    pub public_url: Option<String>,
    /// Redirect to HTTPS and send HSTS (contract 2.1).
    pub production: bool,
    /// Leaves the `api` bucket out (contract 2.3).
    pub development: bool,
    /// Shown by `/`.
    pub environment: String,
    /// Without it everybody has access and is told so.
    pub paywall: bool,
    /// `None`: there is no page at `/demo`.
    pub demo: Option<Arc<Demo>>,
    pub turn: TurnSettings,
    /// `stun:` URLs handed to every caller.
    pub stun_urls: Vec<String>,
    pub limits: Limits,
    /// People in one answer of the queue, at least 1.
    pub queue_list_max: usize,
    /// Which store keeps the data, as `/` and `/health` show it.
    pub store: String,
    /// Which runtime the shards use, and why.
    pub runtime: String,
    pub shards: usize,
    /// Sockets the process accepts.
    pub connections_max: usize,
    pub started_at: Time,
}

/// The TURN server of this installation (coturn with `use-auth-secret`). Without URLs there is none.
#[derive(Clone, Default)]
pub struct TurnSettings {
    /// `turn:` and `turns:` URLs.
    pub urls: Vec<String>,
    /// coturn's `static-auth-secret`.
    pub secret: String,
    /// How long credentials are good for, seconds.
    pub ttl_s: u64,
}

/// The rate limits of contract 2.3 with D27 and D35; a `max` of 0 turns one off.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Failed log-ins per account and address; and, counted apart, other failures under `/auth` per address.
    pub auth_failures: Limit,
    /// Sign-ups per address.
    pub sign_ups: Limit,
    /// Password checks per address.
    pub log_ins: Limit,
    /// `/user` and `/room` per address.
    pub api: Limit,
    /// `/turn/credentials` per user.
    pub turn: Limit,
}

/// How long TURN credentials last by default, seconds (contract 2.10).
pub const TURN_TTL_S: u64 = 3_600;

const MINUTE_MS: u64 = 60_000;

impl Limits {
    /// The limits with these numbers: failures per 10 minutes, sign-ups, log-ins and TURN per hour, `api` per minute.
    pub fn new(auth_failures: u32, sign_ups: u32, log_ins: u32, api: u32, turn: u32) -> Self {
        Self {
            auth_failures: Limit { max: auth_failures, window_ms: 10 * MINUTE_MS },
            sign_ups: Limit { max: sign_ups, window_ms: 60 * MINUTE_MS },
            log_ins: Limit { max: log_ins, window_ms: 60 * MINUTE_MS },
            api: Limit { max: api, window_ms: MINUTE_MS },
            turn: Limit { max: turn, window_ms: 60 * MINUTE_MS },
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(6, 30, 30, 500, 60)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            allowed_origins: vec!["http://localhost:3000".to_owned()],
            public_url: None,
            production: false,
            development: false,
            environment: "default".to_owned(),
            paywall: false,
            demo: None,
            turn: TurnSettings { ttl_s: TURN_TTL_S, ..TurnSettings::default() },
            stun_urls: Vec::new(),
            limits: Limits::default(),
            queue_list_max: QUEUE_LIST_MAX,
            store: "sqlite".to_owned(),
            runtime: "epoll".to_owned(),
            shards: 1,
            connections_max: 10_000,
            started_at: Time(0),
        }
    }
}

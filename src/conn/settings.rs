//! What of a connection may be configured; one value shared by all connections of a shard.

use ipnet::IpNet;

use crate::base::limits;

/// Times in milliseconds, sizes in bytes. The defaults are those of `base/limits`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Pause between a sign of life and the next heartbeat.
    pub ping_interval_ms: u64,
    /// Time to answer a heartbeat.
    pub ping_timeout_ms: u64,
    /// Time to connect and authenticate after the upgrade.
    pub unbound_timeout_ms: u64,
    /// Time for a request head, from the accept or its first byte.
    pub head_timeout_ms: u64,
    /// Time for a request body, from the end of its head.
    pub body_timeout_ms: u64,
    /// Time between two requests.
    pub idle_timeout_ms: u64,
    /// Time for the peer to close after it was told to.
    pub close_timeout_ms: u64,
    /// Largest WebSocket message.
    pub message_bytes_max: usize,
    /// Largest request body.
    pub body_bytes_max: usize,
    /// Most bytes waiting to be written; a single larger response is allowed into an empty outbox.
    pub outbox_bytes_max: usize,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ping_interval_ms: limits::PING_INTERVAL_MS,
            ping_timeout_ms: limits::PING_TIMEOUT_MS,
            unbound_timeout_ms: limits::UNBOUND_TIMEOUT_MS,
            head_timeout_ms: limits::HEAD_TIMEOUT_MS,
            body_timeout_ms: limits::BODY_TIMEOUT_MS,
            idle_timeout_ms: limits::IDLE_TIMEOUT_MS,
            close_timeout_ms: limits::CLOSE_TIMEOUT_MS,
            message_bytes_max: limits::MESSAGE_BYTES_MAX,
            body_bytes_max: limits::BODY_BYTES_MAX,
            outbox_bytes_max: limits::OUTBOX_BYTES_MAX,
            trusted_proxies: Vec::new(),
        }
    }
}

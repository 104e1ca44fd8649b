//! What of a connection may be configured; one value shared by all connections of a shard.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::base::limits;
use crate::wire::deflate::Policy;
use crate::wire::forwarded::{AddressHeader, is_within};
use crate::wire::upgrade::Dialect;

use super::budget::{Allowance, Allowances};

/// Where socket.io-client looks for Engine.IO.
pub const ENGINE_PATH: &str = "/socket.io";
/// Where the events are spoken without Engine.IO.
const PLAIN_PATH: &str = "/ws";

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
    /// Where Engine.IO is spoken, without a slash at the end.
    pub engine_path: String,
    /// Compression of WebSocket messages.
    pub deflate: Policy,
    /// Shorter messages are not compressed, bytes; with 0 every one is, however long and even if that makes it longer.
    pub deflate_bytes_min: usize,
    /// How many events of each class a client may send.
    pub allowances: Allowances,
    /// Speak what protocol suites expect, instead of the product.
    pub is_conformance_target: bool,
    /// Proxies that are believed whom they speak for.
    pub trusted_proxies: Vec<IpNet>,
    /// Where they say so.
    pub address_header: AddressHeader,
    /// Each connection must begin with a PROXY header.
    pub proxy_protocol: bool,
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
            engine_path: ENGINE_PATH.to_owned(),
            deflate: Policy { level: limits::DEFLATE_LEVEL, context_takeover: false },
            deflate_bytes_min: limits::DEFLATE_BYTES_MIN,
            allowances: [limits::SIGNALS, limits::CHAT, limits::INVITES, limits::OTHER_EVENTS]
                .map(|(per_second, burst)| Allowance { per_second, burst }),
            is_conformance_target: false,
            trusted_proxies: Vec::new(),
            address_header: AddressHeader::default(),
            proxy_protocol: false,
        }
    }
}

impl Settings {
    /// Whether this is one of the proxies.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        is_within(&self.trusted_proxies, peer)
    }

    /// Whether a connection of this peer has any prospect: where a PROXY header is required it must come from a proxy. This
    /// machine may look whether the server is well, by a header that says no more than that.
    pub fn admits(&self, peer: IpAddr) -> bool {
        !self.proxy_protocol
            || self.trusts(peer)
            || [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()].contains(&peer)
    }

    /// What is spoken at `path`, if it is not an ordinary resource. A slash at the end makes no difference.
    pub fn dialect(&self, path: &str) -> Option<Dialect> {
        let path = path.strip_suffix('/').unwrap_or(path);
        if self.is_conformance_target {
            return match path {
                "" => Some(Dialect::Echo),
                "/engine.io" => Some(Dialect::EngineEcho),
                "/socket.io" => Some(Dialect::SocketIoEcho),
                _ => None,
            };
        }
        match path {
            PLAIN_PATH => Some(Dialect::Plain),
            path if path == self.engine_path => Some(Dialect::SocketIo),
            _ => None,
        }
    }
}

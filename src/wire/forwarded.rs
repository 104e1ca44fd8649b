//! Whose request it is behind proxies: `X-Forwarded-For`, believed only from trusted ones (contract 8, D20).

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::http::values;
use crate::wire::http::Request;

/// The nearest address that is not one of the `trusted` proxies, going back from `peer` along the request's hops.
///
/// A hop that is no address ends the walk at the last one that is. IPv4 in IPv6 clothes counts as IPv4.
pub fn client_address(peer: IpAddr, trusted: &[IpNet], request: &Request) -> IpAddr {
    let mut address = peer.to_canonical();
    let mut hops = values(request, "x-forwarded-for").rev().flat_map(|value| value.rsplit(','));
    while trusted.iter().any(|net| net.contains(&address)) {
        let Some(hop) = hops.next().and_then(decode_hop) else { break };
        address = hop;
    }
    address
}

/// An address, some proxies add the port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn decode_hop(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse().map(|socket: SocketAddr| socket.ip())).ok()?;
    Some(IpAddr::to_canonical(&address))
}

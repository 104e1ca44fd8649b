//! Whose request it is behind proxies: the header by which they tell, believed only from trusted ones (contract 8, D20).

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;

use super::http::values;
use crate::wire::http::Request;

/// How the proxies name their client.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum AddressHeader {
    /// `X-Forwarded-For`: each hop adds the one before it.
    #[default]
    ForwardedFor,
    /// `X-Real-IP`: one address, put there by a proxy that lets no other through.
    RealIp,
}

impl FromStr for AddressHeader {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "x-forwarded-for" => Ok(Self::ForwardedFor),
            "x-real-ip" => Ok(Self::RealIp),
            _ => Err(()),
        }
    }
}

/// The client that `peer` speaks for: `peer` itself, unless it is one of the `trusted` proxies and names another.
///
/// IPv4 in IPv6 clothes counts as IPv4.
pub fn client_address(peer: IpAddr, trusted: &[IpNet], header: AddressHeader, request: &Request) -> IpAddr {
    let peer = peer.to_canonical();
    match header {
        AddressHeader::ForwardedFor => nearest_stranger(peer, trusted, request),
        AddressHeader::RealIp if is_within(trusted, peer) => real_ip(request).unwrap_or(peer),
        AddressHeader::RealIp => peer,
    }
}

/// Whether the address is in one of the networks.
pub fn is_within(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// The nearest address that is not one of the `trusted` proxies, going back from `peer` along the request's hops. A hop
/// that is no address ends the walk at the last one that is.
fn nearest_stranger(peer: IpAddr, trusted: &[IpNet], request: &Request) -> IpAddr {
    let mut address = peer;
    let mut hops = values(request, "x-forwarded-for").rev().flat_map(|value| value.rsplit(','));
    while is_within(trusted, address) {
        let Some(hop) = hops.next().and_then(decode_hop) else { break };
        address = hop;
    }
    address
}

/// The one address there. Of two nobody knows which the proxy has written: neither is believed.
fn real_ip(request: &Request) -> Option<IpAddr> {
    let mut values = values(request, "x-real-ip");
    let address = values.next().and_then(decode_hop)?;
    values.next().is_none().then_some(address)
}

/// An address, some proxies add the port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn decode_hop(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse().map(|socket: SocketAddr| socket.ip())).ok()?;
    Some(IpAddr::to_canonical(&address))
}

//! The limit on connections of one address: counted at the address's home, whichever shard has them.
//!
//! Two moments: a client that comes without a proxy is counted at the accept; one behind a trusted proxy, whose connections
//! are the proxy's until one is a socket, when it connects. Trusted proxies themselves are not counted. Runs on the shard;
//! a home that is gone counts nobody.

use std::net::IpAddr;

use crate::domain::addresses::Crowded;

use super::Shard;
use super::counters::Refused;
use super::inbox::Envelope;

/// What is told to whom the limit refuses.
pub(super) const TOO_MANY: &str = "Too many connections from this address";

/// An address that is counted for a connection, as long as that lives.
pub type Counted = Option<IpAddr>;

impl Shard {
    /// Whether connections of this address are counted.
    pub(super) fn counts(&self, address: IpAddr) -> bool {
        let settings = self.settings();
        settings.address_connections_max > 0 && !settings.conn.trusts(address)
    }

    /// Counts one more connection of `address`, unless it is not counted.
    ///
    /// # Errors
    /// It has all that it may have; that is counted among the refusals.
    pub(super) async fn enter(&self, address: IpAddr) -> Result<Counted, Crowded> {
        if !self.counts(address) {
            return Ok(None);
        }
        let home = self.placement.home_of_address(address);
        let answer = if home == self.id {
            Some(self.enter_here(address))
        } else {
            self.mesh.ask(home, |reply| Envelope::AddressEnters { address, reply }).await
        };
        match answer {
            Some(Ok(())) => Ok(Some(address)),
            Some(Err(crowded)) => {
                self.counters.refused.add_one(Refused::Address as usize);
                Err(crowded)
            }
            None => Ok(None),
        }
    }

    /// The same at the address's home.
    pub(super) fn enter_here(&self, address: IpAddr) -> Result<(), Crowded> {
        let limit = self.settings().address_connections_max;
        let entered = self.addresses.borrow_mut().enter(address, limit);
        if entered == Err(Crowded { is_first: true }) {
            tracing::warn!(
                limit,
                "an address has all connections of --address-connections-max: further ones are refused; if it is a \
                 proxy, name it in --trusted-proxies"
            );
        }
        entered
    }

    /// A connection has ended: its place is free, and its address has one less.
    pub(super) fn vacate(&self, counted: Counted) {
        self.places.give_back();
        let Some(address) = counted else { return };
        let home = self.placement.home_of_address(address);
        if home == self.id {
            self.addresses.borrow_mut().leave(address);
        } else {
            self.mesh.send(home, Envelope::AddressLeaves { address });
        }
    }
}

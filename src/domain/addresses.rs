//! How many connections each address has open, counted at the address's home shard. An IPv6 subscriber counts as its /64.
//!
//! Owned by that shard. Bound: a line for each address that has a connection, of which there are as many as may be open.
//! Not here: which addresses are counted, and the connections themselves.

use std::net::IpAddr;

use crate::base::Map;

use super::rate::network;

/// The addresses whose home is one shard.
#[derive(Default)]
pub struct Addresses {
    lines: Map<IpAddr, Line>,
}

#[derive(Default)]
struct Line {
    open: usize,
    has_refused: bool,
}

/// An address has all the connections that it may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Crowded {
    /// It is the first that is refused since the address had none.
    pub is_first: bool,
}

impl Addresses {
    /// Counts one more connection of `address`, which [`Addresses::leave`] takes back.
    ///
    /// # Errors
    /// There are `max` already.
    pub fn enter(&mut self, address: IpAddr, max: usize) -> Result<(), Crowded> {
        let line = self.lines.entry(network(address)).or_default();
        if line.open >= max {
            return Err(Crowded { is_first: !std::mem::replace(&mut line.has_refused, true) });
        }
        line.open += 1;
        Ok(())
    }

    /// A connection that was counted has ended.
    pub fn leave(&mut self, address: IpAddr) {
        let key = network(address);
        let Some(line) = self.lines.get_mut(&key) else { return };
        line.open -= 1;
        if line.open == 0 {
            self.lines.remove(&key);
        }
    }

    /// Lets go of room that is no longer needed; now and then.
    pub fn sweep(&mut self) {
        self.lines.shrink_to(2 * self.lines.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_its_limit_and_the_first_refusal_is_told() {
        let mut addresses = Addresses::default();
        let (ann, bob) = (address("192.0.2.1"), address("192.0.2.2"));
        assert_eq!([addresses.enter(ann, 2), addresses.enter(ann, 2)], [Ok(()); 2]);
        assert_eq!(addresses.enter(ann, 2), Err(Crowded { is_first: true }));
        assert_eq!(addresses.enter(ann, 2), Err(Crowded { is_first: false }));
        assert_eq!(addresses.enter(bob, 2), Ok(()));
        addresses.leave(ann);
        assert_eq!(addresses.enter(ann, 2), Ok(()));
    }

    #[test]
    fn an_ipv6_subscriber_is_one_address() {
        let mut addresses = Addresses::default();
        assert!(addresses.enter(address("2001:db8::1"), 1).is_ok());
        assert!(addresses.enter(address("2001:db8::2"), 1).is_err());
        assert!(addresses.enter(address("2001:db8:0:1::1"), 1).is_ok());
        addresses.leave(address("2001:db8::3"));
        assert!(addresses.enter(address("2001:db8::2"), 1).is_ok());
    }

    #[test]
    fn who_has_left_leaves_nothing_behind() {
        let mut addresses = Addresses::default();
        let all = || (0..1_000_u32).map(|n| IpAddr::from(n.to_be_bytes()));
        all().for_each(|address| addresses.enter(address, 1).unwrap());
        all().for_each(|address| addresses.leave(address));
        addresses.leave(address("192.0.2.1"));
        addresses.sweep();
        assert_eq!((addresses.lines.len(), addresses.lines.capacity()), (0, 0));
    }
}

//! Which shard owns what: the whole of routing.

use std::net::IpAddr;

use super::{ShardId, UserId};

/// The shards of this process, `0..count`.
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    count: u16,
}

impl Placement {
    /// A placement over `count` shards, at least 1.
    pub fn new(count: u16) -> Self {
        assert!(count > 0, "a process has at least one shard");
        Self { count }
    }

    /// How many shards there are.
    pub fn count(self) -> u16 {
        self.count
    }

    /// Every shard.
    pub fn all(self) -> impl Iterator<Item = ShardId> {
        (0..self.count).map(ShardId)
    }

    /// The shard that owns `user`: session and profile cache lines, presence, invites, call state.
    pub fn home(self, user: UserId) -> ShardId {
        self.place(&user.as_bytes()[8..])
    }

    /// The shard that counts the requests of `address`. An IPv6 subscriber counts as its /64.
    pub fn home_of_address(self, address: IpAddr) -> ShardId {
        match address {
            IpAddr::V4(address) => self.place(&address.octets()),
            IpAddr::V6(address) => self.place(&address.octets()[..8]),
        }
    }

    fn place(self, key: &[u8]) -> ShardId {
        // FNV-1a, then a high multiply: unlike a modulus it uses the well-mixed upper bits.
        let hash = key
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        ShardId(((u128::from(hash) * u128::from(self.count)) >> 64) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Random;

    #[test]
    fn users_spread_evenly() {
        let (mut random, placement) = (Random::from_seed(3), Placement::new(4));
        let mut counts = [0; 4];
        for _ in 0..4000 {
            counts[usize::from(placement.home(UserId::draw(&mut random)).0)] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }
}

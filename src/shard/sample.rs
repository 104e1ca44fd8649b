//! All that one shard counts, at one moment: what its thread hands to the one that writes the metrics.
//!
//! Taken on the shard in the order of its inbox; some kilobytes copied, nothing walked that grows with users.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::api::host::CacheCounts;
use crate::base::ShardId;
use crate::conn::CloseReason;
use crate::domain::Sizes;
use crate::domain::counts::Counts;
use crate::runtime::{Processor, Turns, processor_time, turns};

use super::Shard;
use super::connection::LOST_ON_THE_WAY;
use super::counters::Counters;

/// The counts of one shard.
pub struct Sample {
    pub(super) shard: ShardId,
    pub(super) counters: Counters,
    /// Of the rules.
    pub(super) counts: Counts,
    /// Every reason why connections end.
    pub(super) closed: BTreeMap<&'static str, u64>,
    pub(super) sizes: Sizes,
    /// Connections that belong to a user.
    pub(super) authenticated: usize,
    /// Users of all shards, which each knows.
    pub(super) online: usize,
    pub(super) queued: usize,
    pub(super) profiles: CacheCounts,
    pub(super) sessions: CacheCounts,
    /// Messages to other shards that could not be kept.
    pub(super) shed: u64,
    /// Messages that wait for room in the inboxes of others.
    pub(super) overflowing: usize,
    /// That the thread has used.
    pub(super) processor: Duration,
    pub(super) turns: Turns,
}

impl Shard {
    /// What this shard counts, now.
    pub(super) fn sample(&self) -> Sample {
        let domain = self.domain.borrow();
        let mut closed: BTreeMap<_, _> = CloseReason::ALL.iter().map(|reason| (reason.as_str(), 0)).collect();
        closed.insert(LOST_ON_THE_WAY, 0);
        closed.extend(self.closed.borrow().iter());
        let (profiles, sessions) = self.stores.counts();
        let (shed, overflowing) = self.mesh.standing();
        Sample {
            shard: self.id,
            counters: Counters::clone(&self.counters),
            counts: domain.counts().clone(),
            closed,
            sizes: domain.sizes(),
            authenticated: domain.authenticated(),
            online: domain.directory().online_count(),
            queued: domain.directory().queue().len(),
            profiles,
            sessions,
            shed,
            overflowing,
            processor: processor_time(Processor::Thread),
            turns: turns(),
        }
    }
}

#[cfg(test)]
impl Sample {
    /// Of a shard on which nothing has happened.
    pub fn nothing() -> Self {
        Self {
            shard: ShardId(0),
            counters: Counters::default(),
            counts: Counts::default(),
            closed: BTreeMap::new(),
            sizes: Sizes::default(),
            authenticated: 0,
            online: 0,
            queued: 0,
            profiles: CacheCounts::default(),
            sessions: CacheCounts::default(),
            shed: 0,
            overflowing: 0,
            processor: Duration::ZERO,
            turns: Turns::default(),
        }
    }
}

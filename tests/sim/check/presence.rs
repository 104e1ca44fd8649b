//! Presence and bounds: once all is quiet every shard's directory is the truth, and nothing is kept for nobody.

use std::collections::BTreeMap;

use duet::base::limits::{RECENT_CALLS_MAX, USER_CONNECTIONS_MAX, WRITES_PENDING_MAX};
use duet::base::{Time, UserId};

use super::{Broken, Oracle};
use crate::client::Client;
use crate::shell::Shard;
use crate::store::Store;

/// More timers than this per person would be a leak: grace, invites and calls of the last half hour.
const TIMERS_PER_PERSON: usize = 3_000;

impl Oracle {
    pub(super) fn inspect_bounds(&mut self, shards: &[Shard]) {
        let crowded = self.people.iter().find(|(_, person)| person.bound.len() > USER_CONNECTIONS_MAX);
        if let Some((user, person)) = crowded {
            self.complain("bounds", format!("{user} has {} connections", person.bound.len()));
        }
        for (at, shard) in shards.iter().enumerate() {
            let sizes = shard.domain.sizes();
            let people = self.homes[at].len();
            let fits = sizes.users <= people
                && sizes.calls <= people
                && sizes.recent_calls <= RECENT_CALLS_MAX
                && sizes.writes <= WRITES_PENDING_MAX
                && sizes.writes_lost == 0
                && sizes.timers <= TIMERS_PER_PERSON * (people + 1);
            let bound: usize = self.homes[at].iter().map(|user| self.people[user].bound.len()).sum();
            let connected = shard.domain.connected().1;
            if !fits {
                self.complain("bounds", format!("shard {at} keeps {sizes:?} for {people} people"));
            }
            if bound != connected {
                self.complain("bounds", format!("shard {at} has {connected} bound connections, not {bound}"));
            }
        }
    }

    /// After the roll-call: what the directories say against what the clients said.
    pub fn check_quiet(
        &mut self,
        _now: Time,
        shards: &[Shard],
        store: &Store,
        clients: &[Client],
    ) -> Result<(), Broken> {
        let mut truth: BTreeMap<UserId, (bool, bool)> = BTreeMap::new();
        for client in clients {
            let (online, queued) = client.stance.unwrap_or_default();
            let said = truth.entry(client.user).or_default();
            *said = (said.0 | online, said.1 | queued);
        }
        let engaged = self.people.iter().find(|(_, person)| person.engaged.is_some());
        if let Some((user, call)) = engaged.map(|(user, person)| (*user, person.engaged)) {
            self.complain("both ends agree", format!("{user} is still in {call:?}, which no browser is in"));
        }
        let online = truth.values().filter(|(online, _)| *online).count();
        for (at, shard) in shards.iter().enumerate() {
            let directory = shard.domain.directory();
            for user in self.people.keys().copied().collect::<Vec<_>>() {
                let expected = truth.get(&user).copied().unwrap_or_default();
                let listed = (directory.is_online(user), directory.is_available(user));
                if listed != expected {
                    let detail = format!("shard {at} has {user} (online, available) {listed:?}, not {expected:?}");
                    self.complain("presence equals connections", detail);
                }
            }
            if directory.online_count() != online
                || directory.queue().people().any(|person| !directory.is_available(person.card.user_id))
            {
                self.complain("presence equals connections", format!("shard {at} counts {}", directory.online_count()));
            }
        }
        self.invites_quiet();
        self.stored_quiet(store);
        self.resumed_quiet(store);
        self.relays_quiet(store);
        self.verdict()
    }

    /// Everybody has left long ago.
    pub fn check_empty(&mut self, shards: &[Shard]) -> Result<(), Broken> {
        for (at, shard) in shards.iter().enumerate() {
            let sizes = shard.domain.sizes();
            let directory = shard.domain.directory();
            let kept = sizes.users + sizes.calls + sizes.recent_calls + sizes.writes + sizes.timers;
            if kept + directory.online_count() > 0 || shard.domain.connected() != (0, 0) || !shard.ids().is_empty() {
                self.complain("nothing is kept", format!("shard {at} keeps {sizes:?} and {:?}", shard.ids()));
            }
        }
        self.verdict()
    }
}

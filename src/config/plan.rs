//! Plans: how much of everything a process of a certain memory may hold, and the arithmetic behind it.
//!
//! One table, [`PLANS`]; each of its values can be set on its own, and then wins. What a plan promises: with all its
//! connections open and busy, its caches full, all its passwords hashed at once, all compressors at work and
//! [`Plan::stalled`] clients that have stopped reading with a full outbox each, the process and what the kernel holds for
//! it stay below the share of the memory from which the log warns. Costs are measured (README, "Weight"), and rounded up:
//!
//! | what | bytes | of which |
//! | --- | --- | --- |
//! | the process, before anybody comes | 16 MiB | 8 MiB resident, stacks, the store's log and statements |
//! | a shard | 20 MiB | 4 compressors of 3.9 MB for large bodies at the same time, ring, read buffers, counters |
//! | a password that is hashed | 19 MiB | argon2id |
//! | a connection | 12 KiB | 2.4 KiB idle or 5.2 KiB in a call, 4 KiB in the kernel, its user's state and card on each shard |
//! | a profile, a session in cache | 1 KiB, 320 bytes | with the map's own |
//! | a request that waits for the store | 2 KiB | with its answer |
//! | a client that has stopped reading | its outbox | bounded by a setting |
//!
//! More clients than that which stop reading at once, or chats of thousands of messages in every call, take more: then
//! the thresholds act (`telemetry/manager.rs`), first on caches, then on new connections. Caches hold two lines for each
//! connection: one that is smaller than the number of people who poll the queue finds nobody. Sizes are decimal, so that
//! a container of 512 MiB and a machine sold as 512 MB both get the plan of that name.
//!
//! Owned by: config, once. Not here: measuring memory, file descriptors (`checks.rs`).

use std::str::FromStr;

use super::system::System;

/// What a process of one size may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    pub name: &'static str,
    /// Bytes, of the process and of what the kernel holds for it.
    pub memory: u64,
    pub connections: u64,
    pub user_cache: u64,
    pub session_cache: u64,
    /// Of one client, KiB.
    pub outbox_kib: u64,
    /// Clients with a full outbox at the same time that the promise includes.
    pub stalled: u64,
    /// Most that `auto` starts.
    pub shards_max: u64,
    /// The same.
    pub hash_threads_max: u64,
    pub store_queue: u64,
    pub store_cache_kib: u64,
    /// Of the memory.
    pub warning_percent: u64,
    pub critical_percent: u64,
}

/// Smallest first. The critical threshold is on resident memory, beside which the kernel's part, 4 KiB of a connection
/// and up to a tenth of the memory, must still fit.
#[rustfmt::skip]
pub const PLANS: [Plan; 5] = [
    Plan { name: "512mb", memory: 512_000_000, connections: 10_000, user_cache: 20_000, session_cache: 20_000, outbox_kib: 2_048, stalled: 32,
        shards_max: 2, hash_threads_max: 1, store_queue: 4_096, store_cache_kib: 16_384, warning_percent: 75, critical_percent: 85 },
    Plan { name: "1gb", memory: 1_000_000_000, connections: 20_000, user_cache: 40_000, session_cache: 40_000, outbox_kib: 2_048, stalled: 64,
        shards_max: 4, hash_threads_max: 2, store_queue: 8_192, store_cache_kib: 32_768, warning_percent: 75, critical_percent: 85 },
    Plan { name: "2gb", memory: 2_000_000_000, connections: 40_000, user_cache: 80_000, session_cache: 80_000, outbox_kib: 4_096, stalled: 64,
        shards_max: 8, hash_threads_max: 4, store_queue: 16_384, store_cache_kib: 65_536, warning_percent: 75, critical_percent: 85 },
    Plan { name: "4gb", memory: 4_000_000_000, connections: 80_000, user_cache: 160_000, session_cache: 160_000, outbox_kib: 4_096, stalled: 128,
        shards_max: 16, hash_threads_max: 8, store_queue: 16_384, store_cache_kib: 131_072, warning_percent: 75, critical_percent: 85 },
    Plan { name: "8gb", memory: 8_000_000_000, connections: 160_000, user_cache: 320_000, session_cache: 320_000, outbox_kib: 4_096, stalled: 256,
        shards_max: 32, hash_threads_max: 16, store_queue: 16_384, store_cache_kib: 262_144, warning_percent: 75, critical_percent: 85 },
];

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

const PROCESS_BYTES: u64 = 16 * MIB;
const SHARD_BYTES: u64 = 20 * MIB;
const HASH_BYTES: u64 = 19 * MIB;
const CONNECTION_BYTES: u64 = 12 * KIB;
/// The part of it that is not the process's.
const KERNEL_BYTES: u64 = 4 * KIB;
const PROFILE_BYTES: u64 = KIB;
const SESSION_BYTES: u64 = 320;
const STORE_REQUEST_BYTES: u64 = 2 * KIB;

/// Share of a plan's memory that a system must have for it, percent: machines keep something for themselves.
const FITS_PERCENT: u64 = 90;

impl Plan {
    /// Bytes in the worst case that the plan includes.
    pub const fn worst(&self) -> u64 {
        PROCESS_BYTES
            + self.shards_max * SHARD_BYTES
            + self.hash_threads_max * HASH_BYTES
            + self.connections * CONNECTION_BYTES
            + self.user_cache * PROFILE_BYTES
            + self.session_cache * SESSION_BYTES
            + self.stalled * self.outbox_kib * KIB
            + self.store_queue * STORE_REQUEST_BYTES
            + self.store_cache_kib * KIB
    }

    /// Whether a process that may have `memory` bytes can keep what this plan promises.
    pub const fn fits(&self, memory: u64) -> bool {
        memory / 100 >= self.memory / 10_000 * FITS_PERCENT
    }

    /// The value of the setting with this name, if a plan has a say in it.
    pub(super) fn value(&self, name: &str) -> Option<u64> {
        Some(match name {
            "connections-max" => self.connections,
            "user-cache-max" => self.user_cache,
            "session-cache-max" => self.session_cache,
            "outbox-kib" => self.outbox_kib,
            "store-queue" => self.store_queue,
            "store-cache-kib" => self.store_cache_kib,
            "memory-warning-percent" => self.warning_percent,
            "memory-critical-percent" => self.critical_percent,
            _ => return None,
        })
    }
}

/// What was asked for with `--plan`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    Auto,
    Named(Plan),
}

impl FromStr for Wanted {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "auto" => Ok(Self::Auto),
            name => PLANS.iter().find(|plan| plan.name == name).copied().map(Self::Named).ok_or(()),
        }
    }
}

impl Wanted {
    /// The plan, for a process that may have `memory` bytes: by `auto` the largest that fits, of too little the smallest.
    pub fn plan(self, memory: Option<u64>) -> Plan {
        match (self, memory) {
            (Self::Named(plan), _) => plan,
            (Self::Auto, Some(memory)) => {
                PLANS.iter().rev().find(|plan| plan.fits(memory)).copied().unwrap_or(PLANS[0])
            }
            (Self::Auto, None) => PLANS[0],
        }
    }
}

/// Shards that `auto` starts.
pub fn shards(plan: &Plan, system: &System) -> u16 {
    (system.cores as u64).clamp(1, plan.shards_max) as u16
}

/// Hashing threads that `auto` starts: one per two cores, so that the others are there for signals at once.
pub fn hash_threads(plan: &Plan, system: &System) -> u16 {
    (system.cores.div_ceil(2) as u64).clamp(1, plan.hash_threads_max) as u16
}

const _: () = {
    let mut index = 0;
    while index < PLANS.len() {
        let plan = &PLANS[index];
        assert!(plan.worst() <= plan.memory / 100 * plan.warning_percent, "a plan promises more than its memory holds");
        assert!(plan.warning_percent < plan.critical_percent);
        let resident_max = plan.memory / 100 * plan.critical_percent;
        assert!(resident_max + plan.connections * KERNEL_BYTES <= plan.memory, "the kernel's part has no room");
        assert!(plan.user_cache >= 2 * plan.connections && plan.session_cache >= 2 * plan.connections);
        assert!(index == 0 || PLANS[index - 1].memory < plan.memory, "plans stand in order");
        index += 1;
    }
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_takes_the_largest_plan_that_fits() {
        let name = |memory| Wanted::Auto.plan(memory).name;
        let chosen =
            [256 * MIB, 480_000_000, 512 * MIB, 900 * MIB, 1024 * MIB, 2048 * MIB, 4096 * MIB, 64 * 1024 * MIB];
        let chosen = chosen.map(|memory| name(Some(memory)));
        assert_eq!(chosen, ["512mb", "512mb", "512mb", "1gb", "1gb", "2gb", "4gb", "8gb"]);
        assert_eq!(name(None), "512mb", "nobody says how much there is");
    }

    #[test]
    fn a_machine_sold_as_a_size_has_its_plan_though_it_keeps_some_for_itself() {
        assert!(PLANS[1].fits(985 * MIB) && PLANS[0].fits(470 * MIB));
        assert!(!PLANS[0].fits(400 * MIB) && !PLANS[1].fits(512 * MIB));
    }

    #[test]
    fn a_named_plan_is_taken_whatever_there_is() {
        let wanted: Wanted = "2gb".parse().unwrap();
        assert_eq!(wanted.plan(Some(MIB)).name, "2gb");
        assert!("3gb".parse::<Wanted>().is_err() && "".parse::<Wanted>().is_err());
    }

    #[test]
    fn a_quarter_of_each_plan_is_left_in_the_worst_case_that_it_promises() {
        for plan in PLANS {
            let percent = plan.worst() * 100 / plan.memory;
            assert!((50..=75).contains(&percent), "{}: {percent} %", plan.name);
        }
    }

    #[test]
    fn a_small_plan_on_many_cores_starts_few_threads() {
        let system = System { cores: 64, ..System::of_tests() };
        assert_eq!((shards(&PLANS[0], &system), hash_threads(&PLANS[0], &system)), (2, 1));
        let system = System { cores: 2, ..system };
        assert_eq!((shards(&PLANS[4], &system), hash_threads(&PLANS[4], &system)), (2, 1));
    }
}

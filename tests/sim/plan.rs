//! What one seed stands for: how many shards and people, which faults, how long.

use duet::base::{Random, limits};
use duet::{conn, domain};

/// A deliberate fault of the server that a checker must see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// A busy callee's accept reaches the caller all the same, and nobody objects.
    NaiveAccept,
    /// The store forgets which calls it has, and stores a repeated one again.
    StoreRepeats,
    /// A lost connection counts as a deliberate leave.
    GraceIgnored,
    /// A signal also reaches a third person.
    RelayToAll,
    /// Two messages of a call change places between two shards.
    RelaySwapped,
    /// Every twentieth relayed message is lost between two shards.
    RelayLost,
    /// The store says that it has a cooldown, and has not.
    CooldownLost,
    /// Presence does not reach the other shards now and then.
    PublishSwallowed,
    /// A write is confirmed before it is done, and may then fail.
    EarlyReply,
    /// The end of a call does not reach the other home.
    EndedLost,
    /// A login that was read before a newer one replaced it still binds.
    StaleLogin,
    /// The end of an invite is told twice.
    DeclinedTwice,
    /// A new process does not look for running calls.
    NothingResumed,
    /// A new process waits for nobody.
    Impatient,
    /// The store says that it has the start of a call, and has not.
    StartUnstored,
    /// The store says that it has the chat of running calls, and has not.
    ChatUnkept,
    /// The store keeps an ended call among the running ones.
    EndedRunsOn,
    /// A new process takes the calls of the last for alive until now, and for some time on.
    OutageCounted,
}

impl Mutant {
    /// Whether it shows only when the process crashes.
    fn needs_crashes(self) -> bool {
        matches!(
            self,
            Self::NothingResumed | Self::Impatient | Self::ChatUnkept | Self::EndedRunsOn | Self::OutageCounted
        )
    }
}

/// One seed's world.
pub struct Plan {
    pub mutant: Option<Mutant>,
    pub shards: u16,
    pub people: usize,
    /// How long clients act and faults happen, ms.
    pub chaos_ms: u64,
    pub rules: domain::Settings,
    pub conn: conn::Settings,
    pub crashes: u64,
    /// How often each kind of fault happens: once in so many chances; 0: never.
    pub resets: u64,
    pub silences: u64,
    pub slow_readers: u64,
    /// Messages that an inbox takes before the sender's overflow is used.
    pub inbox_max: usize,
    pub mesh_faults: bool,
    pub store_faults: bool,
    pub hostile: bool,
    /// Whether a publication that finds a full inbox is merged with what waits, or waits in line.
    pub coalesce: bool,
}

impl Plan {
    /// Draws the plan of a seed.
    pub fn draw(random: &mut Random, mutant: Option<Mutant>) -> Self {
        let some = |random: &mut Random, usual: u64| if random.one_in(3) { 0 } else { usual };
        let shards = 1 + random.below(4) as u16;
        let shards = if mutant.is_some() { shards.max(2) } else { shards };
        let quick_heartbeat = random.one_in(2);
        let small_outbox = random.one_in(3);
        let usual = domain::Settings::default();
        let resume_ms = if mutant == Some(Mutant::Impatient) { 100 } else { usual.resume_ms };
        let rules = domain::Settings { paywall: random.one_in(2), resume_ms, ..usual };
        let defaults = conn::Settings::default();
        let conn = conn::Settings {
            ping_interval_ms: if quick_heartbeat { 4_000 } else { limits::PING_INTERVAL_MS },
            ping_timeout_ms: if quick_heartbeat { 3_000 } else { limits::PING_TIMEOUT_MS },
            outbox_bytes_max: if small_outbox { 4_096 } else { limits::OUTBOX_BYTES_MAX },
            ..defaults
        };
        Self {
            mutant,
            shards,
            people: 3 + random.below(6) as usize,
            chaos_ms: 60_000 + random.below(240_000),
            rules,
            conn,
            crashes: if random.one_in(3) || mutant.is_some_and(Mutant::needs_crashes) {
                1 + random.below(3)
            } else {
                0
            },
            resets: some(random, 60),
            silences: some(random, 150),
            slow_readers: some(random, 100),
            inbox_max: if random.one_in(2) { 2 } else { limits::INBOX_MAX },
            mesh_faults: !random.one_in(3),
            store_faults: !random.one_in(3),
            hostile: random.one_in(2),
            coalesce: random.one_in(2),
        }
    }
}

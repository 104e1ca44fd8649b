//! One simulated process with its clients: virtual time, a queue of what is to happen, and all the parts.
//!
//! Everything that happens follows from the seed. A run has three phases: chaos, calm (no more faults; a roll-call at
//! its end), and silence (everybody has left; what was kept must run out).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use duet::base::limits::RESUME_MS;
use duet::base::placement::Placement;
use duet::base::{CallId, ConnId, InviteId, Random, ShardId, Time, TokenHash, UserId};
use duet::conn::{self, CloseReason};
use duet::domain::{Domain, Input, Resumed, resumed};
use duet::message::{PaidStatus, UserMessage};

use crate::check::{Broken, Oracle};
use crate::client::{Client, Deed};
use crate::mesh::{Lane, Pace};
use crate::pipe::{Chunk, Pipe};
use crate::plan::{Mutant, Plan};
use crate::shell::Shard;
use crate::store::{Asker, Fate, Mood, Store};
use crate::trace::{Counts, Trace};

/// When every run begins.
pub const START: Time = Time(1_700_000_000_000);
/// From the end of chaos to the roll-call: long enough for a silent connection to be noticed.
const SETTLE_MS: u64 = 100_000;
/// From the roll-call to its check.
const ROLL_CALL_MS: u64 = 15_000;
/// After everybody left: the longest call and its allowance, and then some.
const SILENCE_MS: u64 = 35 * 60_000;
/// How often the checkers look at what has no event of its own.
const INSPECT_MS: u64 = 1_000;
/// How often the shards sweep.
const SWEEP_MS: u64 = 300_000;

/// Something that is to happen.
pub enum Event {
    Tick(usize, u32),
    Letter { from: usize, to: usize },
    Perform(u64),
    Reply(u64),
    Up(usize, Chunk),
    Down(usize, Chunk),
    Wake(ConnId, u32),
    Act(usize),
    Do(usize, Deed),
    SessionsEnded(UserId, TokenHash),
    ChangeMood,
    ChangePace,
    LiftCooldowns,
    StaleId,
    Sweep,
    Crash,
    Stop,
    Flush,
    Inspect,
}

pub struct World {
    pub now: Time,
    pub random: Random,
    pub plan: Plan,
    pub placement: Placement,
    pub conn_settings: Arc<conn::Settings>,
    pub shards: Vec<Shard>,
    pub lanes: Vec<Vec<Lane>>,
    pub pace: Pace,
    pub store: Store,
    pub pipes: Vec<Pipe>,
    pub clients: Vec<Client>,
    pub people: Vec<UserId>,
    pub oracle: Oracle,
    pub trace: Trace,
    pub counts: Counts,
    /// How often the process has crashed.
    pub life: u32,
    /// How often a newer login was announced.
    pub logins_ended: u64,
    pub calm: bool,
    /// Ids that a hostile client may have got hold of.
    pub invites_seen: Vec<InviteId>,
    pub rooms_seen: Vec<CallId>,
    /// Calls that a mutant forged.
    pub forged: BTreeSet<CallId>,
    conns_seen: Vec<ConnId>,
    queue: BTreeMap<(Time, u64), Event>,
    scheduled: u64,
}

impl World {
    pub fn new(seed: u64, mutant: Option<Mutant>) -> Self {
        let mut random = Random::from_seed(seed);
        let plan = Plan::draw(&mut random, mutant);
        let placement = Placement::new(plan.shards);
        let mut store = Store::new(mutant);
        let people: Vec<UserId> = (0..plan.people)
            .map(|_| {
                let paid = if random.one_in(5) { PaidStatus::Unpaid } else { PaidStatus::Paid };
                let banned = random.one_in(12);
                store.sign_up(&mut random, paid, banned)
            })
            .collect();
        let oracle = Oracle::new(placement, &plan, &store, &people);
        let mut world = Self {
            now: START,
            conn_settings: Arc::new(plan.conn.clone()),
            placement,
            shards: Vec::new(),
            lanes: (0..plan.shards).map(|_| (0..plan.shards).map(|_| Lane::default()).collect()).collect(),
            pace: Pace::Prompt,
            store,
            pipes: Vec::new(),
            clients: Vec::new(),
            people,
            oracle,
            trace: Trace::default(),
            counts: Counts::default(),
            life: 0,
            logins_ended: 0,
            calm: false,
            invites_seen: Vec::new(),
            rooms_seen: Vec::new(),
            forged: BTreeSet::new(),
            conns_seen: Vec::new(),
            queue: BTreeMap::new(),
            scheduled: 0,
            random,
            plan,
        };
        world.start_shards();
        world.set_the_stage();
        world
    }

    fn start_shards(&mut self) {
        let (placement, settings) = (self.placement, &self.plan.rules);
        let mut shards = Vec::new();
        for id in placement.all() {
            let random = Random::from_entropy(self.random.bytes());
            shards.push(Shard::new(id, Domain::new(id, placement, settings.clone(), random)));
        }
        self.shards = shards;
    }

    fn set_the_stage(&mut self) {
        for user in self.people.clone() {
            let tabs = if self.random.one_in(3) { 2 } else { 1 };
            for tab in 0..tabs {
                let client =
                    Client::new(user, self.store.accounts[&user].token, tab, &mut self.random, self.plan.hostile);
                self.clients.push(client);
                let at = self.now + self.random.below(3_000) + tab * self.random.below(60_000);
                self.schedule(at, Event::Act(self.clients.len() - 1));
            }
        }
        let chaos = self.plan.chaos_ms;
        for _ in 0..self.plan.crashes {
            let at = self.now + self.random.below(chaos);
            let event = if self.random.one_in(3) { Event::Stop } else { Event::Crash };
            self.schedule(at, event);
        }
        if self.plan.mesh_faults {
            self.schedule(self.now + 5_000, Event::ChangePace);
        }
        if self.plan.store_faults {
            self.schedule(self.now + 5_000, Event::ChangeMood);
        }
        self.schedule(self.now + 10_000, Event::StaleId);
        self.schedule(self.now + 20_000, Event::LiftCooldowns);
        self.schedule(self.now + SWEEP_MS, Event::Sweep);
        self.schedule(self.now + INSPECT_MS, Event::Inspect);
    }

    /// Has `event` happen at a time, after all that was set for the same time before.
    pub fn schedule(&mut self, at: Time, event: Event) {
        self.scheduled += 1;
        self.queue.insert((at, self.scheduled), event);
    }

    /// Notes a line, if anybody will read it.
    pub fn trace(&mut self, line: impl FnOnce() -> String) {
        if self.trace.on {
            self.trace.add(self.now, &line());
        }
    }

    /// The whole run.
    pub fn run(&mut self) -> Result<(), Broken> {
        let chaos_ends = START + self.plan.chaos_ms;
        self.run_until(chaos_ends)?;
        self.calm_down();
        self.run_until(chaos_ends + SETTLE_MS)?;
        self.roll_call();
        self.run_until(chaos_ends + SETTLE_MS + ROLL_CALL_MS)?;
        self.oracle.check_quiet(self.now, &self.shards, &self.store, &self.clients)?;
        self.everybody_leaves();
        self.run_until(chaos_ends + SETTLE_MS + ROLL_CALL_MS + SILENCE_MS)?;
        self.counts.facts.extend(self.oracle.facts());
        self.oracle.check_empty(&self.shards)
    }

    fn run_until(&mut self, end: Time) -> Result<(), Broken> {
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > end {
                break;
            }
            let ((at, _), event) = entry.remove_entry();
            assert!(at >= self.now, "time goes forward");
            self.now = at;
            self.counts.events += 1;
            self.happen(event);
            self.oracle.verdict()?;
        }
        self.now = end;
        Ok(())
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick(at, life) if life == self.life => self.tick(at),
            Event::Wake(conn, life) if life == self.life => self.drive(conn),
            Event::Tick(..) | Event::Wake(..) => {}
            Event::Letter { from, to } => self.deliver(from, to),
            Event::Perform(job) => self.store.perform(self.now, job),
            Event::Reply(job) => self.answer(job),
            Event::Up(pipe, chunk) => self.arrive_up(pipe, chunk),
            Event::Down(pipe, chunk) => self.arrive_down(pipe, chunk),
            Event::Act(client) => self.act(client),
            Event::Do(client, deed) => self.perform_deed(client, deed),
            Event::SessionsEnded(user, except) => {
                self.logins_ended += 1;
                let home = usize::from(self.placement.home(user).0);
                self.handle(home, Input::User { user, message: UserMessage::SessionsEnded { except } });
            }
            Event::ChangeMood => self.change_mood(),
            Event::ChangePace => self.next_pace(),
            Event::LiftCooldowns => self.lift_cooldowns(),
            Event::StaleId => self.stale_id(),
            Event::Sweep => {
                (0..self.shards.len()).for_each(|at| self.handle(at, Input::Sweep));
                self.schedule(self.now + SWEEP_MS, Event::Sweep);
            }
            Event::Crash => self.crash(),
            Event::Stop => self.stop(),
            Event::Flush => (0..self.shards.len()).for_each(|at| self.handle(at, Input::Flush)),
            Event::Inspect => {
                self.oracle.inspect(self.now, &self.shards, &self.store, &self.pipes);
                let pause = if self.clients.iter().all(Client::is_gone) { 60 * INSPECT_MS } else { INSPECT_MS };
                self.schedule(self.now + pause, Event::Inspect);
            }
        }
    }

    fn answer(&mut self, id: u64) {
        let Some(job) = self.store.jobs.remove(&id) else { return };
        if job.life != self.life {
            return;
        }
        match job.fate {
            Fate::Done => {}
            Fate::Failed => self.counts.fault("store failed"),
            Fate::DoneUnanswered | Fate::LostUnanswered => self.counts.fault("store mute"),
        }
        match job.asker {
            Asker::Fact(pipe) => self.fact(pipe, job.request, job.reply, job.done_at),
            Asker::Write(shard, ticket) => {
                self.handle(usize::from(shard.0), Input::Stored { ticket, reply: job.reply });
            }
        }
    }

    fn change_mood(&mut self) {
        if self.calm {
            return;
        }
        let is_needed = matches!(self.plan.mutant, Some(Mutant::EarlyReply | Mutant::StaleLogin));
        let usual = if is_needed { 3 } else { 8 };
        self.oracle.store_was(self.now, self.store.mood);
        self.store.mood = match self.random.below(usual) {
            0 => Mood::Failing,
            1 => Mood::Slow,
            2 => Mood::Mute,
            _ => Mood::Quick,
        };
        if self.store.mood == Mood::Slow {
            self.counts.fault("store slow");
        }
        let at = self.now + 1_000 + self.random.below(12_000);
        self.schedule(at, Event::ChangeMood);
    }

    fn next_pace(&mut self) {
        if self.calm {
            return;
        }
        let mut random = Random::from_entropy(self.random.bytes());
        self.change_pace(&mut random);
        let at = self.now + 1_000 + self.random.below(10_000);
        self.schedule(at, Event::ChangePace);
    }

    /// Cooldowns last a day; so that the same few people meet again they are taken away now and then.
    fn lift_cooldowns(&mut self) {
        if self.plan.mutant != Some(Mutant::CooldownLost) {
            self.store.cooldowns.clear();
            self.oracle.cooldowns_lifted();
            let at = self.now + 10_000 + self.random.below(60_000);
            self.schedule(at, Event::LiftCooldowns);
        }
    }

    /// A late message that names a connection that is gone, or was never there.
    fn stale_id(&mut self) {
        if self.calm {
            return;
        }
        self.schedule(self.now + 10_000, Event::StaleId);
        let shard = self.random.below(self.shards.len() as u64) as usize;
        self.conns_seen.extend(self.shards[shard].ids());
        let Some(conn) = self.conns_seen.first().copied().filter(|_| self.conns_seen.len() > 3) else { return };
        let at = usize::from(conn.shard.0);
        self.conns_seen.remove(0);
        if self.shards[at].entry(conn).is_none() && self.shards[at].domain.user_of(conn).is_none() {
            self.counts.fault("stale connection id");
            self.handle(at, Input::Left { conn, leave: duet::message::Leave::Lost });
        }
    }

    /// All memory is gone; the store stays. Clients find their connections reset.
    fn crash(&mut self) {
        self.counts.fault("crash");
        self.trace(|| "crash".to_owned());
        self.restart();
    }

    fn restart(&mut self) {
        self.life += 1;
        self.store.crash(self.now, &mut self.random);
        self.clear_lanes();
        self.start_shards();
        self.conns_seen.clear();
        self.oracle.crashed(self.now, &self.store);
        self.resume_calls();
        for pipe in 0..self.pipes.len() {
            if self.pipes[pipe].client_open {
                self.pipes[pipe].server = None;
                self.pipes[pipe].unread.clear();
                self.send_down(pipe, Chunk::End);
            }
        }
    }

    /// What a start does before anybody can come.
    fn resume_calls(&mut self) {
        if self.plan.mutant != Some(Mutant::NothingResumed) {
            let counted = self.plan.mutant == Some(Mutant::OutageCounted);
            let alive_at = if counted { self.now + RESUME_MS / 2 } else { self.store.alive_at };
            let calls = resumed(self.store.running.values().cloned().collect(), alive_at);
            for at in 0..self.shards.len() {
                let here = |user| usize::from(self.placement.home(user).0) == at;
                let is_here = |call: &&Resumed| here(call.running.caller.user()) || here(call.running.callee.user());
                let calls = calls.iter().filter(is_here).cloned().collect();
                self.handle(at, Input::Resume(calls));
            }
        }
        self.oracle.resumed(self.now, &self.shards, self.placement, &self.store);
    }

    /// An orderly stop: invites are resolved, connections closed, what happened in calls kept; then a new process.
    fn stop(&mut self) {
        self.counts.fault("orderly stop");
        for at in 0..self.shards.len() {
            self.handle(at, Input::Drain);
        }
        for at in 0..self.shards.len() {
            for conn in self.shards[at].ids() {
                let now = self.now;
                self.on_conn(conn, |conn| conn.close(now, CloseReason::ServerShutdown));
            }
        }
        self.schedule(self.now + 1_500, Event::Flush);
        self.schedule(self.now + 2_000, Event::Crash);
    }

    fn calm_down(&mut self) {
        self.calm = true;
        self.pace = Pace::Prompt;
        self.oracle.store_was(self.now, self.store.mood);
        self.store.mood = Mood::Quick;
        self.trace(|| "calm".to_owned());
        self.queue.retain(|_, event| !matches!(event, Event::Stop | Event::LiftCooldowns));
        for client in 0..self.clients.len() {
            self.clients[client].stop_playing();
        }
    }

    fn roll_call(&mut self) {
        self.trace(|| "roll-call".to_owned());
        for client in 0..self.clients.len() {
            self.take_final_stance(client);
        }
    }

    fn everybody_leaves(&mut self) {
        self.trace(|| "everybody leaves".to_owned());
        for client in 0..self.clients.len() {
            self.leave_for_good(client);
        }
    }

    /// The shard that owns a connection's user, as an index.
    pub fn shard_of(&self, shard: ShardId) -> usize {
        usize::from(shard.0)
    }
}

//! The part of the shell that the simulation re-does: what a connection's task and `apply` do, on virtual time.
//!
//! A connection handles one output at a time; while a fact is fetched nothing of it is read. One whose token names a
//! user of another shard moves there first, with all it has, and gets a new id.

use std::net::{IpAddr, Ipv4Addr};

use duet::base::{ConnId, ShardId, Time};
use duet::conn::{Batch, CloseReason, Conn, Output};
use duet::domain::{self, Dismissal, Domain, Effect, Effects, Input};
use duet::message::store::{Reply, Request};
use duet::message::{ClientEvent, Leave, ServerEvent};

use crate::check::Looked;
use crate::mesh::Letter;
use crate::pipe::Chunk;
use crate::plan::Mutant;
use crate::store::Asker;
use crate::world::{Event, World};

/// One shard of the process.
pub struct Shard {
    me: ShardId,
    pub domain: Domain,
    slots: Vec<Slot>,
    tick_at: Option<Time>,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    entry: Option<Entry>,
}

/// A connection in its slot.
pub struct Entry {
    pub conn: Conn,
    pub pipe: usize,
    /// What waits for a fact.
    waits: Option<Output>,
    wakes_at: Option<Time>,
    /// How often the sessions of the user had been ended when the fact was asked for.
    asked_after: u64,
}

impl Shard {
    pub fn new(me: ShardId, domain: Domain) -> Self {
        Self { me, domain, slots: Vec::new(), tick_at: None }
    }

    fn insert(&mut self, entry: Entry) -> ConnId {
        let index = self.slots.iter().position(|slot| slot.entry.is_none()).unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        let slot = &mut self.slots[index];
        slot.entry = Some(entry);
        ConnId { shard: self.me, index: index as u32, generation: slot.generation }
    }

    pub fn entry(&mut self, id: ConnId) -> Option<&mut Entry> {
        let slot = self.slots.get_mut(id.index as usize)?;
        slot.entry.as_mut().filter(|_| slot.generation == id.generation)
    }

    fn remove(&mut self, id: ConnId) -> Option<Entry> {
        let slot = self.slots.get_mut(id.index as usize).filter(|slot| slot.generation == id.generation)?;
        slot.generation += 1;
        slot.entry.take()
    }

    /// Connections that are open.
    pub fn ids(&self) -> Vec<ConnId> {
        let open = self.slots.iter().enumerate().filter(|(_, slot)| slot.entry.is_some());
        open.map(|(index, slot)| ConnId { shard: self.me, index: index as u32, generation: slot.generation }).collect()
    }
}

impl World {
    /// Accepts the connection of a pipe at a shard.
    pub fn accept(&mut self, at: usize, pipe: usize) {
        let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let conn = Conn::new(self.now, self.conn_settings.clone(), peer, self.random.bytes());
        let entry = Entry { conn, pipe, waits: None, wakes_at: None, asked_after: 0 };
        self.settle_in(at, entry);
    }

    fn settle_in(&mut self, at: usize, entry: Entry) -> ConnId {
        let pipe = entry.pipe;
        let id = self.shards[at].insert(entry);
        self.pipes[pipe].server = Some(id);
        id
    }

    /// Goes on with a connection that came from another shard.
    pub fn adopt(&mut self, at: usize, mut entry: Entry, output: Output) {
        self.counts.fault("connection moved home");
        entry.wakes_at = None;
        let id = self.settle_in(at, entry);
        self.perform(id, output);
        self.drive(id);
    }

    /// Lets a connection do what it can: outputs first, then reading, then its timer.
    pub fn drive(&mut self, id: ConnId) {
        let at = usize::from(id.shard.0);
        loop {
            self.write(id);
            let Some(entry) = self.shards[at].entry(id) else { return };
            if entry.waits.is_some() {
                return;
            }
            if let Some(output) = entry.conn.poll() {
                self.perform(id, output);
                continue;
            }
            if entry.conn.deadline().is_some_and(|due| due <= self.now) {
                entry.conn.timeout(self.now);
                continue;
            }
            let pipe = entry.pipe;
            match entry.conn.wants_read().then(|| self.pipes[pipe].unread.pop_front()).flatten() {
                Some(Chunk::Bytes(mut bytes)) => entry.conn.receive(self.now, &mut bytes),
                Some(Chunk::End) => entry.conn.end_of_stream(self.now),
                None => break,
            }
        }
        let Some(entry) = self.shards[at].entry(id) else { return };
        if let Some(due) =
            entry.conn.deadline().filter(|due| entry.wakes_at.is_none_or(|at| at > *due || at <= self.now))
        {
            entry.wakes_at = Some(due);
            self.schedule(due, Event::Wake(id, self.life));
        }
    }

    fn perform(&mut self, id: ConnId, output: Output) {
        let at = usize::from(id.shard.0);
        if let Some(home) = self.elsewhere(id, &output) {
            return self.move_to(id, home, output);
        }
        match output {
            Output::Request(_)
            | Output::Engine { .. }
            | Output::PostFailed { .. }
            | Output::Probed(_)
            | Output::Upgraded(_) => unreachable!("clients of the simulation only upgrade"),
            Output::Acknowledge(ack) => {
                let now = self.now;
                self.on_conn(id, |conn| conn.acknowledge(now, &ack));
            }
            Output::Connect { token } => {
                let request = token.as_ref().map(domain::session_of);
                self.with_fact(id, request, Output::Connect { token });
            }
            Output::Event(event) => {
                let request = self.shards[at].domain.needs(self.now, id, &event);
                self.with_fact(id, request, Output::Event(event));
            }
            Output::Refused(message) => {
                self.apply(at, Effect::Send { conn: id, event: ServerEvent::Error { message } })
            }
            Output::OverBudget { is_last, .. } => {
                let event = ServerEvent::Error { message: Output::TOO_MANY_EVENTS };
                self.apply(at, Effect::Send { conn: id, event });
                if is_last {
                    let now = self.now;
                    self.on_conn(id, |conn| conn.close(now, CloseReason::TooManyEvents));
                }
            }
            Output::Left(leave) => {
                self.oracle.leaves(id, leave);
                let ignored = self.plan.mutant == Some(Mutant::GraceIgnored);
                let leave = if ignored { Leave::Deliberate } else { leave };
                self.handle(at, Input::Left { conn: id, leave });
            }
            Output::Close(reason) => self.close(id, reason),
        }
    }

    fn elsewhere(&self, id: ConnId, output: &Output) -> Option<ShardId> {
        let (Output::Connect { token } | Output::Event(ClientEvent::Auth { token })) = output else { return None };
        token.map(|token| self.placement.home(token.user())).filter(|home| *home != id.shard)
    }

    fn move_to(&mut self, id: ConnId, home: ShardId, output: Output) {
        let at = usize::from(id.shard.0);
        self.oracle.leaves(id, Leave::Deliberate);
        self.handle(at, Input::Left { conn: id, leave: Leave::Deliberate });
        let Some(entry) = self.shards[at].remove(id) else { return };
        self.pipes[entry.pipe].server = None;
        self.post(at, usize::from(home.0), Letter::Adopt(Box::new(entry), output));
    }

    /// Hands an output to the rules, with the fact it needs if there is one to fetch.
    fn with_fact(&mut self, id: ConnId, request: Option<Request>, output: Output) {
        let at = usize::from(id.shard.0);
        let Some(request) = request else { return self.decide(id, output, None) };
        let asked_after = self.logins_ended;
        let Some(entry) = self.shards[at].entry(id) else { return };
        (entry.waits, entry.asked_after) = (Some(output), asked_after);
        let pipe = entry.pipe;
        self.ask(Asker::Fact(pipe), request);
    }

    /// The store has answered what a connection waits for.
    pub fn fact(&mut self, pipe: usize, request: Request, reply: Option<Reply>, done_at: Time) {
        let Some(id) = self.pipes[pipe].server else { return };
        let logins_ended = self.logins_ended;
        let Some(entry) = self.shards[usize::from(id.shard.0)].entry(id) else { return };
        // What was read of a session before a newer login was announced is read again.
        let is_stale = matches!(request, Request::Session { .. }) && entry.asked_after != logins_ended;
        if is_stale && self.plan.mutant != Some(Mutant::StaleLogin) {
            entry.asked_after = logins_ended;
            return self.ask(Asker::Fact(pipe), request);
        }
        let Some(output) = entry.waits.take() else { return };
        if let Request::Pair { caller, callee, .. } = request {
            self.oracle.pair_read(caller, callee, done_at);
        }
        let reply = reply.filter(|reply| !matches!(reply, Reply::Failed(_)) || self.random.one_in(2));
        self.decide(id, output, reply);
        self.drive(id);
    }

    fn decide(&mut self, id: ConnId, output: Output, fact: Option<Reply>) {
        let at = usize::from(id.shard.0);
        match output {
            Output::Connect { .. } => self.handle(at, Input::Connect { conn: id, fact }),
            Output::Event(event) => self.handle(at, Input::Client { conn: id, event, fact }),
            other => unreachable!("{other:?} needs no fact"),
        }
    }

    /// Gives the network what is to be written, whatever else the connection waits for.
    fn write(&mut self, id: ConnId) {
        let Some(entry) = self.shards[usize::from(id.shard.0)].entry(id) else { return };
        let (pipe, chunks) = (entry.pipe, std::mem::take(entry.conn.chunks()));
        for chunk in chunks {
            self.send_down(pipe, Chunk::Bytes(chunk.to_vec()));
        }
    }

    fn close(&mut self, id: ConnId, reason: CloseReason) {
        self.write(id);
        if let Some(entry) = self.shards[usize::from(id.shard.0)].remove(id) {
            self.trace(|| format!("pipe {} closed by the server: {}", entry.pipe, reason.as_str()));
            self.counts.closed(reason.as_str());
            self.pipes[entry.pipe].server = None;
            self.pipes[entry.pipe].unread.clear();
            self.send_down(entry.pipe, Chunk::End);
        }
    }

    /// Asks the store.
    pub fn ask(&mut self, asker: Asker, request: Request) {
        let (job, done_at, reply_at) = self.store.ask(self.now, &mut self.random, self.life, asker, request);
        self.schedule(done_at, Event::Perform(job));
        self.schedule(reply_at, Event::Reply(job));
    }

    /// Hands an input to a shard's rules, shows the checkers what came of it, and performs the effects.
    pub fn handle(&mut self, at: usize, input: Input) {
        self.trace(|| format!("shard {at} < {}", crate::trace::input(&input)));
        self.counts.inputs += 1;
        let looked = Looked::at(&input);
        let mut effects = Effects::default();
        self.shards[at].domain.handle(self.now, input, &mut effects);
        let effects: Vec<Effect> = effects.drain().collect();
        let domain = &self.shards[at].domain;
        self.oracle.observe(self.now, at, domain, &self.store, &looked, &effects);
        let forgery = self.forgery(&looked.seen, &effects);
        for effect in effects {
            self.apply(at, effect);
        }
        if let Some((user, message)) = forgery {
            let home = usize::from(self.placement.home(user).0);
            self.post_or_handle(at, home, user, message);
        }
        self.set_tick(at);
    }

    fn set_tick(&mut self, at: usize) {
        let shard = &mut self.shards[at];
        let Some(due) = shard.domain.deadline() else { return };
        if shard.tick_at.is_none_or(|earlier| earlier > due) {
            shard.tick_at = Some(due);
            let late = if self.random.one_in(20) { self.random.below(40) } else { 0 };
            let due = due.max(self.now) + late;
            self.schedule(due, Event::Tick(at, self.life));
        }
    }

    /// The shard's timer has gone off.
    pub fn tick(&mut self, at: usize) {
        let shard = &mut self.shards[at];
        shard.tick_at = None;
        if shard.domain.deadline().is_some_and(|due| due <= self.now) {
            self.handle(at, Input::Tick);
        }
        self.set_tick(at);
    }

    fn apply(&mut self, at: usize, effect: Effect) {
        self.trace(|| format!("shard {at} > {}", crate::trace::effect(&effect)));
        self.counts.effects += 1;
        let now = self.now;
        match effect {
            Effect::Accept { conn } => self.on_conn(conn, |conn| conn.accept_connect(now)),
            Effect::Refuse { conn, message } => self.on_conn(conn, |conn| conn.refuse_connect(now, message)),
            Effect::Bind { conn } => self.on_conn(conn, Conn::bind),
            Effect::Unbind { conn } => self.on_conn(conn, |conn| conn.unbind(now)),
            Effect::Send { conn, event } => {
                let encoded = event.encode();
                self.on_conn(conn, |conn| conn.send(now, &encoded));
                self.leak(conn, &event, &encoded);
            }
            Effect::FanOut { conns, event, .. } => {
                let (encoded, mut batch) = (event.encode(), Batch::default());
                batch.push(encoded.clone());
                let tell = |conn: &mut Conn| {
                    if !conn.send_batch(now, &batch) {
                        conn.send(now, &encoded);
                    }
                };
                conns.iter().for_each(|conn| self.on_conn(*conn, tell));
            }
            Effect::Dismiss { conn, why } => self.on_conn(conn, |conn| conn.close(now, reason(why))),
            Effect::Tell { user, message } => {
                let home = usize::from(self.placement.home(user).0);
                self.post(at, home, Letter::User(user, message));
            }
            Effect::Publish(deltas) => {
                for to in (0..self.shards.len()).filter(|to| *to != at) {
                    self.post(at, to, Letter::Published(deltas.clone()));
                }
            }
            Effect::Forget { .. } | Effect::ForgetTotals { .. } => {}
            Effect::Write { ticket, request } => self.ask(Asker::Write(ShardId(at as u16), ticket), *request),
        }
    }

    /// Does something to a connection if it is still there, and has it driven a moment later.
    pub fn on_conn(&mut self, id: ConnId, work: impl FnOnce(&mut Conn)) {
        match self.shards[usize::from(id.shard.0)].entry(id) {
            Some(entry) => {
                work(&mut entry.conn);
                self.schedule(self.now, Event::Wake(id, self.life));
            }
            None => self.counts.fault("effect for a connection that is gone"),
        }
    }
}

fn reason(why: Dismissal) -> CloseReason {
    match why {
        Dismissal::SessionInvalidated => CloseReason::SessionInvalidated,
        Dismissal::Banned => CloseReason::Banned,
        Dismissal::TooManyConnections => CloseReason::TooManyConnections,
    }
}

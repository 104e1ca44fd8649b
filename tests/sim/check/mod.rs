//! The checkers: what must hold of every run. They see every input and effect of every shard, every engagement after
//! it, the store, and what the clients hear; they never look into the rules themselves.

mod access;
mod calls;
mod invites;
mod presence;
mod relays;
mod resumed;
mod stored;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use duet::base::placement::Placement;
use duet::base::{CallId, ConnId, Map, Time, TokenHash, UserId};
use duet::domain::{Domain, Effect, Input};
use duet::message::store::Reply;
use duet::message::{ClientEvent, Leave, PaidStatus, ServerEvent, UserMessage};

use crate::pipe::Pipe;
use crate::plan::Plan;
use crate::shell::Shard;
use crate::store::Store;

/// What does not hold.
#[derive(Clone, Debug)]
pub struct Broken {
    /// The checker's name.
    pub checker: &'static str,
    pub detail: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.checker, self.detail)
    }
}

/// What of an input the checkers need.
pub struct Looked {
    pub seen: Seen,
    token: Option<TokenHash>,
}

impl Looked {
    pub fn at(input: &Input) -> Self {
        Self { seen: Seen::of(input), token: token_of(input) }
    }
}

/// Which input it was.
pub enum Seen {
    Client(ConnId, ClientEvent),
    Left,
    User(UserMessage),
    Connect(ConnId),
    Tick,
    Stored,
    Other,
}

impl Seen {
    fn of(input: &Input) -> Self {
        match input {
            Input::Client { conn, event, .. } => Self::Client(*conn, event.clone()),
            Input::Left { .. } => Self::Left,
            Input::User { message, .. } => Self::User(message.clone()),
            Input::Tick => Self::Tick,
            Input::Stored { .. } => Self::Stored,
            Input::Connect { conn, .. } => Self::Connect(*conn),
            Input::Published(_)
            | Input::Settings(_)
            | Input::Sweep
            | Input::Resume(_)
            | Input::TakeOver(_)
            | Input::Drain
            | Input::Flush => Self::Other,
        }
    }
}

/// The token that an input's fact tells of.
fn token_of(input: &Input) -> Option<TokenHash> {
    match input {
        Input::Connect { fact: Some(Reply::Session(login)), .. }
        | Input::Client { fact: Some(Reply::Session(login)), .. } => login.as_ref().map(|login| login.token),
        _ => None,
    }
}

/// What the checkers know of one person.
#[derive(Default)]
pub struct Person {
    /// Connections bound to the person, and since when.
    bound: BTreeMap<ConnId, Time>,
    /// When and how a connection was last lost.
    left: Option<(Time, Leave)>,
    /// The process went with that connection, and the person has not been back since.
    crashed: bool,
    engaged: Option<(CallId, UserId)>,
    engaged_at: Time,
    banned: bool,
    unpaid: bool,
}

/// All checkers together.
pub struct Oracle {
    broken: Option<Broken>,
    people: BTreeMap<UserId, Person>,
    /// The people of each shard.
    homes: Vec<Vec<UserId>>,
    owner: Map<ConnId, UserId>,
    /// The session each connection was bound by last.
    tokens: Map<ConnId, TokenHash>,
    /// How the connection that is about to leave really left.
    leaving: Option<(ConnId, Leave)>,
    paywall: bool,
    calls: calls::Calls,
    invites: invites::Invites,
    relays: relays::Relays,
    stored: stored::Stored,
    crashes: resumed::Crashes,
}

impl Oracle {
    pub fn new(placement: Placement, plan: &Plan, store: &Store, people: &[UserId]) -> Self {
        let mut homes = vec![Vec::new(); usize::from(plan.shards)];
        let mut known = BTreeMap::new();
        for user in people {
            homes[usize::from(placement.home(*user).0)].push(*user);
            let account = &store.accounts[user];
            let (banned, unpaid) = (account.banned, account.paid == PaidStatus::Unpaid);
            known.insert(*user, Person { banned, unpaid, ..Person::default() });
        }
        Self {
            broken: None,
            people: known,
            homes,
            owner: Map::default(),
            tokens: Map::default(),
            leaving: None,
            paywall: plan.rules.paywall,
            calls: calls::Calls::default(),
            invites: invites::Invites::default(),
            relays: relays::Relays::default(),
            stored: stored::Stored::default(),
            crashes: resumed::Crashes::default(),
        }
    }

    /// Notes the first thing that does not hold.
    pub fn complain(&mut self, checker: &'static str, detail: String) {
        self.broken.get_or_insert(Broken { checker, detail });
    }

    pub fn verdict(&self) -> Result<(), Broken> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    /// A connection is about to leave, and this is how.
    pub fn leaves(&mut self, conn: ConnId, truth: Leave) {
        self.leaving = Some((conn, truth));
    }

    /// Looks at one step of one shard: the input, and what the rules made of it.
    pub fn observe(
        &mut self,
        now: Time,
        at: usize,
        domain: &Domain,
        store: &Store,
        looked: &Looked,
        effects: &[Effect],
    ) {
        let seen = &looked.seen;
        let asker = match seen {
            Seen::Client(conn, _) => self.owner.get(conn).copied(),
            _ => None,
        };
        self.invites_asked(now, asker, seen, effects);
        self.finalized_asked(asker, seen);
        self.entered(asker, seen);
        let owners: Vec<Option<UserId>> = effects.iter().map(|effect| self.owner_of(now, effect, domain)).collect();
        self.leaving = None;
        let is_success = |effect: &Effect| matches!(effect, Effect::Send { event: ServerEvent::AuthSuccess, .. });
        if let (Seen::Client(conn, _) | Seen::Connect(conn), Some(token)) = (seen, looked.token)
            && effects.iter().any(is_success)
        {
            self.tokens.insert(*conn, token);
        }
        self.engagements(now, at, domain, seen, asker);
        let mut declined = BTreeSet::new();
        for (effect, owner) in effects.iter().zip(owners) {
            match effect {
                Effect::Send { conn, event } => self.sent(now, (*conn, owner), event, (store, seen), &mut declined),
                Effect::Write { ticket, request } => self.written(now, at, *ticket, request),
                Effect::Tell { user, message } => self.told(*user, message),
                _ => {}
            }
        }
        self.invites_answered(at, asker, seen, effects);
    }

    /// Follows who owns which connection, effect by effect; says whom this one goes to.
    fn owner_of(&mut self, now: Time, effect: &Effect, domain: &Domain) -> Option<UserId> {
        match effect {
            Effect::Bind { conn } => self.bound(now, *conn, domain),
            Effect::Unbind { conn } => self.unbound(now, *conn),
            Effect::Send { conn, .. } => return self.owner.get(conn).copied(),
            _ => {}
        }
        None
    }

    fn sent(
        &mut self,
        now: Time,
        (conn, owner): (ConnId, Option<UserId>),
        event: &ServerEvent,
        (store, seen): (&Store, &Seen),
        declined: &mut BTreeSet<duet::base::InviteId>,
    ) {
        let Some(user) = owner else { return };
        match event {
            ServerEvent::CallNotify { invite, from, .. } => self.notified(now, user, *invite, from.user_id),
            ServerEvent::Declined { invite: Some(invite), reason } if declined.insert(*invite) => {
                self.declined(now, user, *invite, *reason, store);
            }
            ServerEvent::Declined { invite: None, reason } => self.refused(*reason),
            ServerEvent::CallStart { room, agreed_seconds, peer, .. } => {
                self.call_starts(user, *room, *agreed_seconds, *peer, store);
            }
            ServerEvent::Chat { text, at, .. } => self.line_told(text, *at),
            ServerEvent::SocialShared { socials, at, .. } => {
                socials.get("x").into_iter().for_each(|text| self.line_told(text, *at));
            }
            ServerEvent::Finalized { session } => self.finalized(now, (conn, user), session, store, seen),
            _ => {}
        }
    }

    fn unbound(&mut self, now: Time, conn: ConnId) {
        let Some(user) = self.owner.remove(&conn) else { return };
        let truth = self.leaving.filter(|(leaving, _)| *leaving == conn).map_or(Leave::Deliberate, |(_, truth)| truth);
        let person = self.people.get_mut(&user).expect("only people bind");
        person.bound.remove(&conn);
        person.left = Some((now, truth));
        if person.bound.is_empty() {
            self.caller_away(user);
        }
    }

    /// The process crashed: nothing of what was under way counts any more.
    pub fn crashed(&mut self, now: Time, store: &Store) {
        self.owner.clear();
        self.tokens.clear();
        for person in self.people.values_mut() {
            person.bound.clear();
            person.engaged = None;
            (person.left, person.crashed) = (Some((now, Leave::Lost)), true);
        }
        self.calls_crashed(now, store);
        self.stored_crashed();
        self.invites_crashed();
        self.relays_crashed();
    }

    /// What has no event of its own, looked at every second.
    pub fn inspect(&mut self, now: Time, shards: &[Shard], store: &Store, pipes: &[Pipe]) {
        self.inspect_calls(now, pipes);
        self.inspect_invites(now);
        self.inspect_bounds(shards);
        self.inspect_access(now, shards, store);
    }

    /// How often the checkers had something to look at.
    pub fn facts(&self) -> Vec<(&'static str, u64)> {
        let mut facts = self.call_facts();
        facts.extend(self.stored_facts());
        facts.extend(self.invite_facts());
        facts.extend(self.relay_facts());
        facts.extend(self.resumed_facts());
        facts
    }
}

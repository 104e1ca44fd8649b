//! The product's rules for the users whose home is one shard: presence, invites, calls and what is said in them.
//!
//! Everything goes through [`Domain::handle`]: an [`Input`] and the time go in, [`Effects`] come out. It cannot
//! fail, wait, read a clock or do I/O; a refusal is an `error` event to the one who asked. What a rule needs from
//! the store is named by [`Domain::needs`], fetched by the shell and handed in as `fact`; since the world may have
//! changed meanwhile, every rule checks its preconditions itself. Accounts and money are not here but in `api/`.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use crate::base::placement::Placement;
use crate::base::{CallId, ConnId, InviteId, Map, Random, ShardId, Time, Token, UserId, limits};
use crate::message::store::{Reply, Request};
use crate::message::{ClientEvent, Delta, Leave, ServerEvent, UserMessage};

mod accept;
pub mod access;
pub mod addresses;
mod call;
pub mod counts;
pub mod directory;
mod drain;
mod effects;
mod invite;
mod keep;
mod login;
mod presence;
pub mod queue;
pub mod rate;
mod relay;
mod resume;
mod user;
mod writes;

pub use effects::{Dismissal, Effect, Effects};
pub use resume::{Resumed, resumed};

use call::{Call, RecentCalls};
use counts::Counts;
use directory::Directory;
use keep::Keeping;
use user::User;
use writes::Writes;

/// What can be set about the rules.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether only paid users may queue and call (contract 4.4).
    pub paywall: bool,
    /// Living connections of one user; over it the oldest is told and closed.
    pub user_connections_max: usize,
    /// Time for both to come back into a call that a new process goes on with.
    pub resume_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { paywall: false, user_connections_max: limits::USER_CONNECTIONS_MAX, resume_ms: limits::RESUME_MS }
    }
}

/// All that can happen to a shard's users.
#[derive(Debug)]
pub enum Input {
    /// A Socket.IO CONNECT, with the session its handshake token named.
    Connect { conn: ConnId, fact: Option<Reply> },
    /// An event, with the reply to what [`Domain::needs`] asked for it (`None`: nothing asked, or the store failed).
    Client { conn: ConnId, event: ClientEvent, fact: Option<Reply> },
    /// The connection is gone.
    Left { conn: ConnId, leave: Leave },
    /// A message from the home of another user to a user of this shard.
    User { user: UserId, message: UserMessage },
    /// Presence changes of users of another shard.
    Published(Arc<[Delta]>),
    /// The reply to an [`Effect::Write`]; `None` when the store could not be asked.
    Stored { ticket: u64, reply: Option<Reply> },
    /// [`Domain::deadline`] has come.
    Tick,
    /// Let go of what is kept for a time that is over, and of room that is no longer needed; now and then.
    Sweep,
    /// Other rules from now on. What was allowed by those before stays.
    Settings(Settings),
    /// Before all others: calls that an earlier process left behind, of which a participant lives here.
    Resume(Vec<Resumed>),
    /// Calls that another process, which ran beside this one, has let go of or left behind; their callers live here.
    TakeOver(Vec<Resumed>),
    /// The server is about to stop: no more invites, and who is lost from now on is not missed.
    Drain,
    /// The last one: what has happened in calls is kept at once.
    Flush,
}

/// How much a [`Domain`] keeps.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Sizes {
    /// Users with something going on.
    pub users: usize,
    /// Running calls whose record is here.
    pub calls: usize,
    /// Ended calls that still answer `call:end`.
    pub recent_calls: usize,
    /// Writes that the store still owes, and those among them that end a call.
    pub writes: usize,
    pub finishing: usize,
    /// Writes given up since the start; anything but 0 is a loss.
    pub writes_lost: u64,
    pub timers: usize,
}

/// The question whose reply a CONNECT with this token needs as its fact.
pub fn session_of(token: &Token) -> Request {
    Request::Session { user: token.user(), token: token.hash() }
}

/// The state of one shard's users. Owned by the shard's thread; bounded by its connections and `base/limits.rs`.
pub struct Domain {
    placement: Placement,
    me: ShardId,
    settings: Settings,
    random: Random,
    /// Boxed, because the map has up to twice as many places.
    users: Map<UserId, Box<User>>,
    /// Which user a bound connection belongs to.
    bound: Map<ConnId, UserId>,
    /// Running calls whose caller lives here.
    calls: Map<CallId, Call>,
    recent: RecentCalls,
    directory: Directory,
    writes: Writes,
    counts: Counts,
    keeping: Keeping,
    /// The server is about to stop.
    draining: bool,
    /// Users whose presence may differ from what was published.
    dirty: BTreeSet<UserId>,
    publish_at: Option<Time>,
    /// When something was published last.
    published_at: Time,
    timers: BTreeSet<(Time, Timer)>,
    /// Messages to users of this shard that the current input gave rise to.
    local: VecDeque<(UserId, UserMessage)>,
}

/// What a deadline is for. A timer that comes late finds nothing to do: each rule looks again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Timer {
    Publish,
    RetryWrites,
    Keep,
    Grace(UserId),
    Incoming(UserId, InviteId),
    Outgoing(UserId, InviteId),
    Accepting(UserId, InviteId),
    CallTime(CallId),
}

impl Domain {
    /// The empty state of shard `me`.
    pub fn new(me: ShardId, placement: Placement, settings: Settings, random: Random) -> Self {
        Self {
            placement,
            me,
            settings,
            random,
            users: Map::default(),
            bound: Map::default(),
            calls: Map::default(),
            recent: RecentCalls::default(),
            directory: Directory::default(),
            writes: Writes::default(),
            counts: Counts::default(),
            keeping: Keeping::default(),
            draining: false,
            dirty: BTreeSet::new(),
            publish_at: None,
            published_at: Time::default(),
            timers: BTreeSet::new(),
            local: VecDeque::new(),
        }
    }

    /// What has to be fetched before this event can be decided.
    pub fn needs(&self, now: Time, conn: ConnId, event: &ClientEvent) -> Option<Request> {
        match event {
            ClientEvent::Auth { token: Some(token) } => Some(session_of(token)),
            ClientEvent::Invite { callee: Some(callee), .. } => {
                let caller = *self.bound.get(&conn)?;
                (caller != *callee).then_some(Request::Pair { caller, callee: *callee, now })
            }
            _ => None,
        }
    }

    /// Decides what follows from `input` and adds it to `out`.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Effects) {
        match input {
            Input::Connect { conn, fact } => self.connect(now, conn, fact, out),
            Input::Client { conn, event, fact } => self.client(now, conn, event, fact, out),
            Input::Left { conn, leave } => self.left(now, conn, leave, out),
            Input::User { user, message } => self.message(now, user, message, out),
            Input::Published(deltas) => self.directory.apply(&deltas, out),
            Input::Stored { ticket, reply } => self.stored(now, ticket, reply, out),
            Input::Tick => self.tick(now, out),
            Input::Sweep => self.sweep(now),
            Input::Settings(settings) => self.settings = settings,
            Input::Resume(calls) => self.resume(now, calls, out),
            Input::TakeOver(calls) => self.take_over(now, calls, out),
            Input::Drain => self.drain(out),
            Input::Flush => self.keep(now, out),
        }
        while let Some((user, message)) = self.local.pop_front() {
            self.message(now, user, message, out);
        }
    }

    /// When the next [`Input::Tick`] is due.
    pub fn deadline(&self) -> Option<Time> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Everybody who is online, on any shard.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The user a connection is bound to.
    pub fn user_of(&self, conn: ConnId) -> Option<UserId> {
        self.bound.get(&conn).copied()
    }

    /// Users of this shard with a living connection, and those connections.
    pub fn connected(&self) -> (usize, usize) {
        (self.users.values().filter(|user| !user.sockets.is_empty()).count(), self.bound.len())
    }

    /// How much is kept, to be held against its bounds.
    pub fn sizes(&self) -> Sizes {
        Sizes {
            users: self.users.len(),
            calls: self.calls.len(),
            recent_calls: self.recent.len(),
            writes: self.writes.len(),
            finishing: self.writes.finishing(),
            writes_lost: self.writes.lost(),
            timers: self.timers.len(),
        }
    }

    /// What has happened here since the start.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Connections that belong to a user.
    pub fn authenticated(&self) -> usize {
        self.bound.len()
    }

    /// The call a user of this shard takes part in, and with whom.
    pub fn engagement(&self, user: UserId) -> Option<(CallId, UserId)> {
        self.users.get(&user)?.engaged.as_ref().map(|engaged| (engaged.call, engaged.peer))
    }

    fn client(&mut self, now: Time, conn: ConnId, event: ClientEvent, fact: Option<Reply>, out: &mut Effects) {
        if let ClientEvent::Auth { token } = event {
            return self.auth(now, conn, token, fact, out);
        }
        let Some(user) = self.bound.get(&conn).copied() else {
            return out.error(conn, "Authenticate first");
        };
        match event {
            ClientEvent::Auth { .. } => unreachable!("handled above"),
            ClientEvent::PresenceJoin => self.presence_join(now, user, conn),
            ClientEvent::PresenceLeave => self.presence_leave(now, user, conn, out),
            ClientEvent::QueueJoin => self.queue_join(now, user, conn, out),
            ClientEvent::QueueLeave => self.queue_leave(now, user, conn, out),
            ClientEvent::Invite { callee, seconds } => self.invite(now, user, conn, (callee, seconds), fact, out),
            ClientEvent::Accept { invite, seconds } => self.accept(now, user, conn, invite, seconds, out),
            ClientEvent::Decline { invite } => self.decline(now, user, invite, out),
            ClientEvent::ExtendWait { callee } => self.extend_wait(now, user, conn, callee, out),
            ClientEvent::Rescind { callee } => self.rescind(now, user, callee, out),
            ClientEvent::RoomJoin { room } => self.room_join(now, user, conn, room, out),
            ClientEvent::Signal { room, kind, payload } => self.signal(user, conn, room, (kind, payload), out),
            ClientEvent::Chat { room, text } => self.chat(now, user, conn, room, text, out),
            ClientEvent::GiveSocial { room, socials } => self.give_social(now, user, conn, room, socials, out),
            ClientEvent::End { room } => self.call_end(now, user, conn, room, out),
        }
    }

    fn message(&mut self, now: Time, user: UserId, message: UserMessage, out: &mut Effects) {
        debug_assert_eq!(self.placement.home(user), self.me, "a message reaches the home of its user");
        match message {
            UserMessage::Invited { invite, from, seconds } => self.invited(now, user, invite, from, seconds, out),
            UserMessage::InviteEnded { invite, reason } => self.invite_ended(user, invite, reason, out),
            UserMessage::Rescinded { invite } => self.rescinded(user, invite, out),
            UserMessage::Extended { invite } => self.extended(user, invite, out),
            UserMessage::Propose { invite, call, callee, seconds } => {
                self.propose(now, user, invite, (call, callee, seconds), out);
            }
            UserMessage::Agreed { invite, call, caller, agreed_seconds } => {
                self.agreed(now, user, invite, (call, caller, agreed_seconds), out);
            }
            UserMessage::NotAgreed { invite, call, over } => self.not_agreed(user, invite, call, over, out),
            UserMessage::Resumed(half) => self.resumed_half(now, *half, out),
            UserMessage::Relay { call, event } => self.relayed(user, call, event, out),
            UserMessage::Say { call, line } => self.say(now, call, None, line, out),
            UserMessage::End { call, cause } => self.end_by_peer(now, call, cause, out),
            UserMessage::Ended { call, cause, by } => self.ended(now, user, call, cause, by, out),
            UserMessage::Finalized { call, session, metrics } => {
                self.finalized(now, user, call, session, metrics, out);
            }
            UserMessage::SessionsEnded { except } => self.sessions_ended(now, user, except, out),
        }
    }

    fn tick(&mut self, now: Time, out: &mut Effects) {
        while let Some(&(at, timer)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            match timer {
                Timer::Publish => self.publish(now, out),
                Timer::RetryWrites => self.writes.retry(out),
                Timer::Keep => self.keep_due(now, out),
                Timer::Grace(user) => self.grace_over(now, user, out),
                Timer::Incoming(user, invite) => self.incoming_expired(now, user, invite, out),
                Timer::Outgoing(user, invite) => self.outgoing_expired(now, user, invite, out),
                Timer::Accepting(user, invite) => self.accept_expired(user, invite, out),
                Timer::CallTime(call) => self.call_time_up(now, call, out),
            }
        }
    }

    fn sweep(&mut self, now: Time) {
        self.recent.forget(now);
        // By itself the map keeps the room of the most users that were ever here.
        self.users.shrink_to(2 * self.users.len());
    }

    fn is_home(&self, user: UserId) -> bool {
        self.placement.home(user) == self.me
    }

    /// Sends `message` to the home of `user`: at the end of this input if that is here.
    fn tell(&mut self, user: UserId, message: UserMessage, out: &mut Effects) {
        if self.is_home(user) {
            self.local.push_back((user, message));
        } else {
            out.push(Effect::Tell { user, message });
        }
    }

    /// Sends `event` to every living connection of `user`.
    fn send_all(&self, user: UserId, event: &ServerEvent, out: &mut Effects) {
        for socket in self.users.get(&user).into_iter().flat_map(|user| &user.sockets) {
            out.send(socket.conn, event.clone());
        }
    }

    /// Sends `event` to `conn` if it still belongs to `user`, else to every living connection of `user`.
    fn send_first(&self, user: UserId, conn: ConnId, event: &ServerEvent, out: &mut Effects) {
        if self.bound.get(&conn) == Some(&user) {
            out.send(conn, event.clone());
        } else {
            self.send_all(user, event, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::model::{AccountType, Login};
    use crate::message::{Card, Gender, PaidStatus};

    const NOW: Time = Time(1_000_000);
    const HERE: ShardId = ShardId(0);

    fn login(random: &mut Random) -> Login {
        let user_id = UserId::draw(random);
        Login {
            card: Arc::new(Card {
                user_id,
                name: "Ann".to_owned(),
                gender: Gender::Female,
                selfie_url: None,
                video_url: None,
                introduction: None,
            }),
            token: Token::draw(user_id, random).hash(),
            account: AccountType::Guest,
            paid: PaidStatus::Paid,
            banned: false,
            active: true,
            expires_at: NOW + 1_000_000,
        }
    }

    #[test]
    fn a_crowd_that_is_gone_leaves_no_room_behind() {
        let (mut random, mut out) = (Random::from_seed(1), Effects::default());
        let mut domain = Domain::new(HERE, Placement::new(1), Settings::default(), Random::from_seed(2));
        let conns: Vec<ConnId> = (0..5_000).map(|index| ConnId { shard: HERE, index, generation: 0 }).collect();
        for conn in &conns {
            let fact = Some(Reply::Session(Some(Box::new(login(&mut random)))));
            domain.handle(NOW, Input::Connect { conn: *conn, fact }, &mut out);
        }
        assert_eq!(domain.sizes().users, 5_000);
        for conn in &conns[1..] {
            domain.handle(NOW, Input::Left { conn: *conn, leave: Leave::Deliberate }, &mut out);
        }
        domain.handle(NOW + 1_000, Input::Tick, &mut out);
        assert_eq!(domain.sizes().users, 1);
        assert!(domain.users.capacity() >= 5_000);
        domain.handle(NOW + 1_000, Input::Sweep, &mut out);
        assert!(domain.users.capacity() < 10, "{}", domain.users.capacity());
        assert_eq!(domain.user_of(conns[0]).map(|user| domain.users.contains_key(&user)), Some(true));
    }
}

//! Accepting, in two steps between two homes, so that nobody is ever in two calls (D4).
//!
//! The callee's home marks its user as accepting (the first compare-and-set) and proposes the call to the caller's
//! home; that one checks that the invite stands and its user is free, enters him into the call (the second), has its start
//! stored, and then agrees. Either refusal undoes the mark. A mark is dropped after [`ACCEPT_TIMEOUT_MS`]; an agreement
//! that comes later still finds no mark and ends the call. Two who accept each other's invites at once: the smaller
//! callee wins.

use std::sync::Arc;

use crate::base::limits::{ACCEPT_TIMEOUT_MS, CALL_ALIVE_MS};
use crate::base::{CallId, ConnId, InviteId, Time, UserId};
use crate::message::client::Seconds;
use crate::message::server::DeclineReason;
use crate::message::shard::EndCause;
use crate::message::store::{FinishedCall, Request, StartedCall};
use crate::message::{Card, ServerEvent, UserMessage};

use super::call::{Call, Starting, time_up};
use super::counts::InviteEnd;
use super::user::{Accepting, Engagement, Role, User};
use super::writes::Then;
use super::{Domain, Effects, Timer};

impl Domain {
    /// `call:accept`, at the callee.
    pub(super) fn accept(
        &mut self,
        now: Time,
        id: UserId,
        conn: ConnId,
        invite: Option<InviteId>,
        seconds: Option<Seconds>,
        out: &mut Effects,
    ) {
        if !self.may_call(id) {
            return out.error(conn, "Payment required");
        }
        let user = self.users.get_mut(&id).expect("a bound connection has a user");
        let Some(incoming) = user.incoming.iter().find(|incoming| Some(incoming.invite) == invite) else {
            return out.error(conn, "This invite is no longer open");
        };
        let Some(seconds) = seconds else {
            return out.error(conn, "requestedSeconds must be an integer from 60 to 1800");
        };
        if !user.is_free() {
            return out.error(conn, "You are in a call");
        }
        let (invite, caller) = (incoming.invite, incoming.from.user_id);
        let call = CallId::draw(&mut self.random);
        let callee = user.card.clone();
        user.accepting = Some(Box::new(Accepting { invite, call, caller, conn }));
        self.timers.insert((now + ACCEPT_TIMEOUT_MS, Timer::Accepting(id, invite)));
        self.tell(caller, UserMessage::Propose { invite, call, callee, seconds }, out);
    }

    /// At the caller: takes part if the invite stands and he is free.
    pub(super) fn propose(
        &mut self,
        now: Time,
        id: UserId,
        invite: InviteId,
        (call, callee, wanted): (CallId, Arc<Card>, Seconds),
        out: &mut Effects,
    ) {
        let user = self.users.get_mut(&id).filter(|user| user.is_present() && user.engaged.is_none());
        let position = |user: &User| user.outgoing.iter().position(|outgoing| outgoing.invite == invite);
        let Some((user, position)) = user.and_then(|user| position(user).map(|position| (user, position))) else {
            return self.tell(callee.user_id, UserMessage::NotAgreed { invite, call, over: true }, out);
        };
        if user.accepting.as_ref().is_some_and(|mine| mine.caller != callee.user_id || id < callee.user_id) {
            return self.tell(callee.user_id, UserMessage::NotAgreed { invite, call, over: false }, out);
        }
        let outgoing = user.outgoing.remove(position);
        let agreed_seconds = (outgoing.seconds.get() + wanted.get()) / 2;
        let caller_card = user.card.clone();
        user.accepting = None;
        self.engage(now, id, Engagement::new(call, &callee, Role::Caller, agreed_seconds), out);
        let started = StartedCall { call, caller: id, callee: callee.user_id, agreed_seconds, started_at: now };
        let ticket = self.write(Request::StartCall(Box::new(started)), Then::Begin(call), out);
        let starting = Starting { invite, conn: outgoing.conn, ticket };
        self.calls.insert(call, Call::new((call, now), (caller_card, callee), starting));
        self.timers.insert((time_up(now, agreed_seconds), Timer::CallTime(call)));
    }

    /// At the caller: the start of the call is durable, and may be told.
    pub(super) fn begin(&mut self, now: Time, call: CallId, out: &mut Effects) {
        let Some(record) = self.calls.get_mut(&call) else { return };
        let (caller, callee) = (record.caller.user_id, record.callee.user_id);
        let Some(Starting { invite, conn, .. }) = record.starting.take() else { return };
        let engaged = self.users.get_mut(&caller).and_then(|user| user.engaged_in(call));
        let engaged = engaged.expect("a record and the caller's half go together");
        engaged.begun = true;
        self.counts.invites_ended.add_one(InviteEnd::Accepted as usize);
        self.counts.calls_started.add_one();
        let agreed_seconds = engaged.agreed_seconds;
        self.tell(callee, UserMessage::Agreed { invite, call, caller, agreed_seconds }, out);
        self.call_start(caller, conn, out);
        self.keep_by(now + CALL_ALIVE_MS);
    }

    /// At the caller: the call comes to nothing before anybody has heard of it, and leaves nothing.
    pub(super) fn abandon(&mut self, record: FinishedCall, starting: &Starting, out: &mut Effects) {
        let Starting { invite, conn, ticket } = *starting;
        let (call, caller, callee) = (record.call, record.caller, record.callee);
        self.counts.invites_ended.add_one(InviteEnd::Offline as usize);
        self.writes.abandon(ticket);
        self.write(Request::FinishCall(Box::new(record)), Then::Tell(Vec::new()), out);
        self.tell(callee, UserMessage::NotAgreed { invite, call, over: true }, out);
        let declined = ServerEvent::Declined { invite: Some(invite), reason: DeclineReason::Offline };
        self.send_first(caller, conn, &declined, out);
    }

    /// At the callee: the call stands, if the mark still does.
    pub(super) fn agreed(
        &mut self,
        now: Time,
        id: UserId,
        invite: InviteId,
        (call, caller, agreed_seconds): (CallId, UserId, u32),
        out: &mut Effects,
    ) {
        let user = self.users.get_mut(&id);
        let accepting = user.and_then(|user| {
            let accepting = user.accepting.take_if(|accepting| accepting.call == call)?;
            let position = user.incoming.iter().position(|incoming| incoming.invite == invite)?;
            Some((accepting, user.incoming.remove(position)))
        });
        let Some((accepting, incoming)) = accepting else {
            return self.tell(caller, UserMessage::End { call, cause: EndCause::Disconnected }, out);
        };
        self.engage(now, id, Engagement::new(call, &incoming.from, Role::Callee, agreed_seconds), out);
        self.call_start(id, accepting.conn, out);
        if self.users.get(&id).is_some_and(|user| !user.is_present()) {
            self.end_by(now, id, EndCause::Disconnected, out);
        }
    }

    /// At the callee: the accept came to nothing.
    pub(super) fn not_agreed(&mut self, id: UserId, invite: InviteId, call: CallId, over: bool, out: &mut Effects) {
        let Some(user) = self.users.get_mut(&id) else { return };
        let Some(accepting) = user.accepting.take_if(|accepting| accepting.call == call) else { return };
        if over {
            user.incoming.retain(|incoming| incoming.invite != invite);
            self.send_all(id, &ServerEvent::Rescinded { invite }, out);
        }
        let error = ServerEvent::Error { message: "The caller cannot take the call now" };
        self.send_first(id, accepting.conn, &error, out);
        self.after_accept_failed(id, out);
    }

    /// At the callee: the caller's home does not answer.
    pub(super) fn accept_expired(&mut self, id: UserId, invite: InviteId, out: &mut Effects) {
        let Some(user) = self.users.get_mut(&id) else { return };
        let Some(accepting) = user.accepting.take_if(|accepting| accepting.invite == invite) else { return };
        user.incoming.retain(|incoming| incoming.invite != invite);
        let error = ServerEvent::Error { message: "The caller cannot be reached" };
        self.send_first(id, accepting.conn, &error, out);
        self.tell(accepting.caller, UserMessage::End { call: accepting.call, cause: EndCause::Disconnected }, out);
        self.after_accept_failed(id, out);
    }

    /// The callee may have left while he was accepting; that was put off until now.
    fn after_accept_failed(&mut self, id: UserId, out: &mut Effects) {
        self.unavailable(id, DeclineReason::Offline, out);
        self.forget_idle(id);
    }

    fn engage(&mut self, now: Time, id: UserId, engagement: Engagement, out: &mut Effects) {
        let peer = engagement.peer;
        let user = self.users.get_mut(&id).expect("who accepts is there");
        assert!(user.engaged.is_none(), "nobody is in two calls");
        user.engaged = Some(Box::new(engagement));
        user.incoming.retain(|incoming| incoming.from.user_id != peer);
        let superseded = user.outgoing.extract_if(.., |outgoing| outgoing.callee == peer).count();
        self.counts.invites_ended.add(InviteEnd::Superseded as usize, superseded as u64);
        self.leave_queue(now, id);
        self.end_other_invites(id, out);
    }

    /// Order of contract 3.4: both left the queue, then the call starts.
    fn call_start(&self, id: UserId, conn: ConnId, out: &mut Effects) {
        let Some(engaged) = self.users.get(&id).and_then(|user| user.engaged.as_ref()) else { return };
        let (caller, callee) = if engaged.role == Role::Caller { (id, engaged.peer) } else { (engaged.peer, id) };
        for event in [
            ServerEvent::QueueUpdate { user: caller, available: false },
            ServerEvent::QueueUpdate { user: callee, available: false },
            engaged.start(),
        ] {
            self.send_first(id, conn, &event, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::placement::Placement;
    use crate::base::{Random, ShardId, Token};
    use crate::domain::{Effect, Input, Settings};
    use crate::message::model::{AccountType, Login};
    use crate::message::store::{Pair, Reply};
    use crate::message::{ClientEvent, Gender, PaidStatus};

    const NOW: Time = Time(1_761_000_000_000);

    /// One shard with two users, of whom the first has invited the second, who accepts.
    struct Stage {
        domain: Domain,
        users: [UserId; 2],
        start: u64,
    }

    impl Stage {
        fn accepted() -> Self {
            let mut random = Random::from_seed(1);
            let domain = Domain::new(ShardId(0), Placement::new(1), Settings::default(), Random::from_seed(2));
            let users = [UserId::draw(&mut random), UserId::draw(&mut random)];
            let mut stage = Self { domain, users, start: 0 };
            for (user_id, conn) in users.into_iter().zip([0, 1].map(conn)) {
                let (name, gender) = ("Ann".to_owned(), Gender::Female);
                let card = Card { user_id, name, gender, selfie_url: None, video_url: None, introduction: None };
                let (account, paid, expires_at) = (AccountType::Guest, PaidStatus::Paid, NOW + 1_000_000);
                let token = Token::draw(user_id, &mut random).hash();
                let login = Login { card: card.into(), token, account, paid, banned: false, active: true, expires_at };
                stage.handle(NOW, Input::Connect { conn, fact: Some(Reply::Session(Some(Box::new(login)))) });
                stage.say(conn, ClientEvent::QueueJoin, None);
            }
            let seconds = Seconds::new(60);
            let pair = Reply::Pair(Some(Pair { cooldown_until: None, hidden: false, banned: false }));
            let rings = stage.say(conn(0), ClientEvent::Invite { callee: Some(users[1]), seconds }, Some(pair));
            let invite = rings.iter().find_map(|effect| match effect {
                Effect::Send { event: ServerEvent::CallNotify { invite, .. }, .. } => Some(*invite),
                _ => None,
            });
            let effects = stage.say(conn(1), ClientEvent::Accept { invite, seconds }, None);
            assert!(heard(&effects, 0).is_empty() && heard(&effects, 1).is_empty(), "{effects:?}");
            let start = effects.iter().find_map(|effect| match effect {
                Effect::Write { ticket, request } => matches!(**request, Request::StartCall(_)).then_some(*ticket),
                _ => None,
            });
            stage.start = start.expect("the start is to be stored");
            stage
        }

        fn handle(&mut self, now: Time, input: Input) -> Vec<Effect> {
            let mut out = Effects::default();
            self.domain.handle(now, input, &mut out);
            out.drain().collect()
        }

        fn say(&mut self, conn: ConnId, event: ClientEvent, fact: Option<Reply>) -> Vec<Effect> {
            self.handle(NOW, Input::Client { conn, event, fact })
        }

        fn start_stored(&mut self) -> Vec<Effect> {
            self.handle(NOW + 9_000, Input::Stored { ticket: self.start, reply: Some(Reply::Done) })
        }
    }

    fn conn(index: u32) -> ConnId {
        ConnId { shard: ShardId(0), index, generation: 0 }
    }

    /// What one of the two is sent, presence aside.
    fn heard(effects: &[Effect], index: u32) -> Vec<&'static str> {
        let names = effects.iter().filter_map(|effect| match effect {
            Effect::Send { conn: to, event } if *to == conn(index) => Some(event.name()),
            _ => None,
        });
        names.filter(|name| *name != "queue:update").collect()
    }

    #[test]
    fn a_call_is_told_when_its_start_is_durable() {
        let mut stage = Stage::accepted();
        assert!(stage.domain.engagement(stage.users[0]).is_some(), "nobody else can have the caller meanwhile");
        let told = stage.start_stored();
        assert_eq!([heard(&told, 0), heard(&told, 1)], [["call:start"], ["call:start"]]);
    }

    #[test]
    fn a_call_whose_start_is_not_stored_in_time_leaves_nothing() {
        let mut stage = Stage::accepted();
        let told = stage.handle(NOW + ACCEPT_TIMEOUT_MS, Input::Tick);
        assert_eq!([heard(&told, 0), heard(&told, 1)], [["call:declined"], ["error"]]);
        let ends = told.iter().filter_map(|effect| match effect {
            Effect::Write { request, .. } => match &**request {
                Request::FinishCall(call) => Some((call.recorded, call.completed, call.cooldown_until)),
                other => panic!("{other:?}"),
            },
            _ => None,
        });
        assert_eq!(ends.collect::<Vec<_>>(), [(false, false, None)], "should it be stored after all, it does not run");
        assert!(stage.start_stored().is_empty());
        assert_eq!(stage.users.map(|user| stage.domain.engagement(user)), [None, None]);
    }
}

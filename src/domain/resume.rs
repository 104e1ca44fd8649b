//! Going on with the calls that an earlier process left behind.
//!
//! At a start each half is put into its home before anybody connects: its user is away, in the call, and has `resume_ms` to
//! come back, as a ghost; from then on all is as in any call. A call of which one did not come back ends as one whose
//! participant was lost, at the time when it was last known to be alive: the outage counts for nothing. Later, calls of a
//! process that ran beside this one come in the same way; whoever has begun another call meanwhile stays in that.

use crate::base::limits::CALL_ALIVE_MS;
use crate::base::{Map, Time, UserId};
use crate::message::UserMessage;
use crate::message::shard::{EndCause, ResumedHalf};
use crate::message::store::{Participant, RunningCall};

use super::call::{Call, time_up};
use super::user::{Engagement, Ghost, Role, Stance, User};
use super::{Domain, Effects, Timer};

/// A call that ran when an earlier process ended.
#[derive(Clone, Debug)]
pub struct Resumed {
    pub running: RunningCall,
    /// When it was last known to be alive.
    pub alive_at: Time,
    /// It had ended already, as far as anybody can know: one of the two was in a later call.
    pub is_over: bool,
}

/// What to make of all calls that the store has as running, when a process was last alive at `alive_at`.
///
/// A call whose end could not be stored is still among them, beside the next of the same people: nobody is in two.
pub fn resumed(mut calls: Vec<RunningCall>, alive_at: Time) -> Vec<Resumed> {
    calls.sort_by_key(|running| std::cmp::Reverse((running.started_at, running.call)));
    let mut later: Map<UserId, Time> = Map::default();
    let judge = |running: RunningCall| {
        let users = [running.caller.user(), running.callee.user()];
        let last_said = running.messages.last().map_or(Time(0), |line| line.timestamp);
        let time_up = time_up(running.started_at, running.agreed_seconds);
        let alive_at = alive_at.max(running.started_at).max(last_said).min(time_up);
        match users.iter().filter_map(|user| later.get(user)).min() {
            Some(next) => Resumed { alive_at: alive_at.min(*next), is_over: true, running },
            None => {
                later.extend(users.map(|user| (user, running.started_at)));
                Resumed { alive_at, is_over: false, running }
            }
        }
    };
    calls.into_iter().map(judge).collect()
}

impl Domain {
    /// Takes over what of these calls belongs to this shard; before anybody can come, so both homes are given each.
    pub(super) fn resume(&mut self, now: Time, calls: Vec<Resumed>, out: &mut Effects) {
        for resumed in calls {
            let RunningCall { call, caller, callee, agreed_seconds, .. } = &resumed.running;
            if !resumed.is_over && self.is_home(callee.user()) {
                let half = Engagement::new(*call, &caller.card, Role::Callee, *agreed_seconds);
                let is_in = self.put_back(now, callee, half, out);
                assert!(is_in, "nobody is in two of the calls that are resumed together");
            }
            if self.is_home(caller.user()) {
                self.take_up(now, resumed, out);
            }
        }
    }

    /// Takes over calls that another process has let go of, or left behind. Their people may be here already: the home of
    /// the caller, which is given the call, tells the other's.
    pub(super) fn take_over(&mut self, now: Time, calls: Vec<Resumed>, out: &mut Effects) {
        for resumed in calls {
            let RunningCall { call, caller, callee, agreed_seconds, .. } = &resumed.running;
            if self.calls.contains_key(call) {
                // It was this process's own, of which the store had lost sight.
                continue;
            }
            let (call, id) = (*call, callee.user());
            let (caller, callee, agreed_seconds) = (caller.card.clone(), callee.clone(), *agreed_seconds);
            self.take_up(now, resumed, out);
            if self.calls.contains_key(&call) {
                let half = ResumedHalf { call, caller, callee, agreed_seconds };
                self.tell(id, UserMessage::Resumed(Box::new(half)), out);
            }
        }
    }

    /// At the callee's home: the caller's has taken up the call.
    pub(super) fn resumed_half(&mut self, now: Time, half: ResumedHalf, out: &mut Effects) {
        let ResumedHalf { call, caller, callee, agreed_seconds } = half;
        let own = Engagement::new(call, &caller, Role::Callee, agreed_seconds);
        if !self.put_back(now, &callee, own, out) {
            self.tell(caller.user_id, UserMessage::End { call, cause: EndCause::NotResumed }, out);
        }
    }

    /// At the caller's home: the record, and the caller's half. What is over already ends here.
    fn take_up(&mut self, now: Time, resumed: Resumed, out: &mut Effects) {
        let Resumed { running, alive_at, is_over } = resumed;
        let RunningCall { call, caller, callee, agreed_seconds, started_at, messages } = running;
        let half = Engagement::new(call, &callee.card, Role::Caller, agreed_seconds);
        let goes_on = !is_over && self.put_back(now, &caller, half, out);
        let by = caller.user();
        self.calls.insert(call, Call::resumed((call, started_at), (caller.card, callee.card), messages, alive_at));
        if !goes_on {
            return self.end_record(now, call, EndCause::NotResumed, by, out);
        }
        self.timers.insert((time_up(started_at, agreed_seconds), Timer::CallTime(call)));
        self.keep_by(now + CALL_ALIVE_MS);
    }

    /// Puts a participant into his call: as one who is to come back, if he is not here yet. False if he is in another.
    fn put_back(&mut self, now: Time, who: &Participant, half: Engagement, out: &mut Effects) -> bool {
        let (id, until) = (who.user(), now + self.settings.resume_ms);
        let user = self.users.entry(id).or_insert_with(|| Box::new(User::of(who.card.clone(), who.paid)));
        if let Some(engaged) = &user.engaged {
            return engaged.call == half.call;
        }
        let awaited = user.sockets.is_empty();
        let start = (!awaited && !who.joined).then(|| half.start());
        user.engaged = Some(Box::new(Engagement { joined: who.joined, begun: true, awaited, ..half }));
        user.accepting = None;
        user.sockets.iter_mut().for_each(|socket| socket.in_room = who.joined);
        if awaited {
            user.haunt(
                Ghost { stance: Stance { online: true, queued: false }, until },
                self.settings.user_connections_max,
            );
            self.timers.insert((until, Timer::Grace(id)));
        }
        self.leave_queue(now, id);
        self.end_other_invites(id, out);
        if let Some(start) = start {
            self.send_all(id, &start, out);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::placement::Placement;
    use crate::base::{CallId, ConnId, Random, ShardId, Token};
    use crate::domain::{Effect, Input, Settings};
    use crate::message::model::{AccountType, Login};
    use crate::message::store::{Reply, Request};
    use crate::message::{Card, ClientEvent, Gender, Leave, PaidStatus};

    const NOW: Time = Time(1_761_000_000_000);

    fn participant(number: u8) -> Participant {
        let (user_id, name, gender) = (UserId::from_bytes([number; 16]), "Ann".to_owned(), Gender::Female);
        let card = Card { user_id, name, gender, selfie_url: None, video_url: None, introduction: None };
        Participant { card: Arc::new(card), paid: PaidStatus::Paid, joined: true }
    }

    fn running(random: &mut Random, caller: u8, callee: u8, started_at: Time) -> RunningCall {
        let (caller, callee) = (participant(caller), participant(callee));
        let (call, messages) = (CallId::draw(random), Vec::new());
        RunningCall { call, caller, callee, agreed_seconds: 60, started_at, messages }
    }

    /// One shard that has somebody in a connection.
    struct Stage {
        domain: Domain,
        random: Random,
    }

    impl Stage {
        fn new() -> Self {
            let domain = Domain::new(ShardId(0), Placement::new(1), Settings::default(), Random::from_seed(2));
            Self { domain, random: Random::from_seed(1) }
        }

        fn handle(&mut self, input: Input) -> Vec<Effect> {
            let mut out = Effects::default();
            self.domain.handle(NOW, input, &mut out);
            out.drain().collect()
        }

        /// Person `number` connects; what he hears.
        fn connect(&mut self, number: u8) -> Vec<&'static str> {
            let card = participant(number).card;
            let token = Token::draw(card.user_id, &mut self.random).hash();
            let (account, paid, expires_at) = (AccountType::Guest, PaidStatus::Paid, NOW + 1_000_000);
            let login = Login { card, token, account, paid, banned: false, active: true, expires_at };
            let fact = Some(Reply::Session(Some(Box::new(login))));
            heard(&self.handle(Input::Connect { conn: conn(number), fact }), number)
        }

        fn take_over(&mut self, call: &RunningCall) -> Vec<Effect> {
            self.handle(Input::TakeOver(vec![Resumed { running: call.clone(), alive_at: NOW, is_over: false }]))
        }

        fn calls_of(&self, numbers: [u8; 2]) -> [Option<CallId>; 2] {
            numbers.map(|number| self.domain.engagement(participant(number).user()).map(|(call, _)| call))
        }
    }

    fn conn(number: u8) -> ConnId {
        ConnId { shard: ShardId(0), index: u32::from(number), generation: 0 }
    }

    fn heard(effects: &[Effect], number: u8) -> Vec<&'static str> {
        let names = effects.iter().filter_map(|effect| match effect {
            Effect::Send { conn: to, event } if *to == conn(number) => Some(event.name()),
            _ => None,
        });
        names.collect()
    }

    /// The calls whose ends are to be stored.
    fn ended(effects: &[Effect]) -> Vec<CallId> {
        let ends = effects.iter().filter_map(|effect| match effect {
            Effect::Write { request, .. } => match &**request {
                Request::FinishCall(call) => Some(call.call),
                _ => None,
            },
            _ => None,
        });
        ends.collect()
    }

    #[test]
    fn a_call_that_comes_later_has_who_is_here_and_awaits_who_is_not() {
        let mut stage = Stage::new();
        let mut call = running(&mut stage.random, 1, 2, NOW);
        call.caller.joined = false;
        stage.connect(1);
        stage.handle(Input::Client { conn: conn(1), event: ClientEvent::QueueJoin, fact: None });
        let effects = stage.take_over(&call);
        assert_eq!(heard(&effects, 1), ["call:start"], "he has not been in the room");
        assert_eq!(stage.calls_of([1, 2]), [Some(call.call); 2]);
        assert_eq!(stage.connect(2), ["auth:success"]);
        let offer = ClientEvent::Chat { room: Some(call.call), text: Some("here".to_owned()) };
        let effects = stage.handle(Input::Client { conn: conn(2), event: offer, fact: None });
        assert_eq!(heard(&effects, 2), ["room:chat"]);
        let late = Input::Left { conn: conn(2), leave: Leave::Deliberate };
        assert_eq!(ended(&stage.handle(late)), [call.call]);
    }

    #[test]
    fn a_call_that_comes_later_is_over_if_one_of_the_two_is_in_another() {
        for (caller, callee) in [(1, 3), (3, 1)] {
            let mut stage = Stage::new();
            let call = running(&mut stage.random, 1, 2, NOW);
            assert!(ended(&stage.take_over(&call)).is_empty());
            let earlier = running(&mut stage.random, caller, callee, NOW);
            assert_eq!(ended(&stage.take_over(&earlier)), [earlier.call]);
            assert_eq!(stage.calls_of([1, 3]), [Some(call.call), None]);
        }
    }

    #[test]
    fn a_call_that_is_here_already_is_left_as_it_is() {
        let mut stage = Stage::new();
        let call = running(&mut stage.random, 1, 2, NOW);
        stage.take_over(&call);
        stage.connect(1);
        let say = ClientEvent::Chat { room: Some(call.call), text: Some("kept".to_owned()) };
        stage.handle(Input::Client { conn: conn(1), event: say, fact: None });
        assert!(stage.take_over(&call).is_empty());
        let effects = stage.handle(Input::Client {
            conn: conn(1),
            event: ClientEvent::End { room: Some(call.call) },
            fact: None,
        });
        let messages = effects.iter().find_map(|effect| match effect {
            Effect::Write { request, .. } => match &**request {
                Request::FinishCall(call) => Some(call.messages.len()),
                _ => None,
            },
            _ => None,
        });
        assert_eq!(messages, Some(1));
    }

    #[test]
    fn of_two_calls_of_one_person_the_later_goes_on() {
        let mut random = Random::from_seed(1);
        let [first, other, later] = [(1, 2, 10), (5, 6, 20), (3, 1, 30)]
            .map(|(caller, callee, seconds)| running(&mut random, caller, callee, NOW + seconds * 1_000));
        let calls = vec![first.clone(), later.clone(), other.clone()];
        let found = resumed(calls, NOW + 50_000);
        let told: Vec<_> = found.iter().map(|call| (call.running.call, call.is_over, call.alive_at)).collect();
        let alive = NOW + 50_000;
        let expected = [(later.call, false, alive), (other.call, false, alive), (first.call, true, later.started_at)];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_call_that_nobody_ended_was_alive_no_longer_than_its_time_and_no_shorter_than_it_is_known_to_be() {
        let call = running(&mut Random::from_seed(1), 1, 2, NOW);
        let alive_at = |mark| resumed(vec![call.clone()], mark)[0].alive_at;
        assert_eq!(alive_at(Time(0)), NOW, "it began after the last mark");
        assert_eq!(alive_at(NOW + 86_400_000), time_up(NOW, 60));
    }
}

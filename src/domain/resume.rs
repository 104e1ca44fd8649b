//! Going on with the calls that an earlier process left behind.
//!
//! Each half is put into its home before anybody connects: its user is away, in the call, and has `resume_ms` to come
//! back, as a ghost; from then on all is as in any call. A call of which one did not come back ends as one whose
//! participant was lost, at the time when it was last known to be alive: the outage counts for nothing.

use crate::base::limits::CALL_ALIVE_MS;
use crate::base::{Map, Time, UserId};
use crate::message::shard::EndCause;
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
    /// Takes over what of these calls belongs to this shard.
    pub(super) fn resume(&mut self, now: Time, calls: Vec<Resumed>, out: &mut Effects) {
        for Resumed { running, alive_at, is_over } in calls {
            let RunningCall { call, caller, callee, agreed_seconds, started_at, messages } = running;
            let (has_caller, has_callee) = (self.is_home(caller.user()), self.is_home(callee.user()));
            if !is_over && has_caller {
                self.await_back(now, &caller, Engagement::new(call, &callee.card, Role::Caller, agreed_seconds));
            }
            if !is_over && has_callee {
                self.await_back(now, &callee, Engagement::new(call, &caller.card, Role::Callee, agreed_seconds));
            }
            if has_caller {
                let by = caller.user();
                self.calls
                    .insert(call, Call::resumed((call, started_at), (caller.card, callee.card), messages, alive_at));
                if is_over {
                    self.end_record(now, call, EndCause::NotResumed, by, out);
                    continue;
                }
                self.timers.insert((time_up(started_at, agreed_seconds), Timer::CallTime(call)));
                self.keep_by(now + CALL_ALIVE_MS);
            }
        }
    }

    /// A participant who is to come back: in his call, and not yet here.
    fn await_back(&mut self, now: Time, who: &Participant, half: Engagement) {
        let until = now + self.settings.resume_ms;
        let mut user = User::of(who.card.clone(), who.paid);
        user.engaged = Some(Box::new(Engagement { joined: who.joined, begun: true, awaited: true, ..half }));
        user.ghosts.push(Ghost { stance: Stance { online: true, queued: false }, until });
        let before = self.users.insert(who.user(), Box::new(user));
        assert!(before.is_none(), "calls are resumed before anybody comes, and nobody is in two");
        self.timers.insert((until, Timer::Grace(who.user())));
        self.dirtied(now, who.user());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::{CallId, Random};
    use crate::message::{Card, Gender, PaidStatus};

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

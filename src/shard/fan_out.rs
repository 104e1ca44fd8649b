//! Telling all who look at the queue of what has changed, some of them in each turn of the shard's loop: a signal that
//! becomes ready meanwhile waits for those few, not for thousands.
//!
//! What was published together is one round, in which each client is told of all at once, by one chunk that those who
//! are spoken to alike share; of more than [`BATCH_BYTES_MAX`] there are several. Rounds go by one after the other, so
//! everybody hears changes in their order. Bound: [`CHANGES_KEPT`] changes in all rounds; if more come the oldest round is
//! given up, and whom it has not reached counts as a slow reader ([`super::diffs`]).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::{Range, RangeInclusive};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;

use crate::base::limits::{BATCH_BYTES_MAX, CHANGES_KEPT, TOLD_AT_ONCE_MAX, WRITES_AT_ONCE_MAX};
use crate::base::{ConnId, UserId};
use crate::conn::Batch;
use crate::message::ServerEvent;
use crate::runtime::yield_now;

use super::Shard;
use super::diffs::Told;

/// What is to be told.
#[derive(Default)]
pub(super) struct FanOuts {
    rounds: RefCell<Rounds>,
    came: Notify,
}

/// In the order in which they were published.
#[derive(Default)]
struct Rounds {
    waiting: VecDeque<Round>,
    /// The changes of all.
    changes: usize,
}

/// What was published together.
struct Round {
    conns: Arc<[ConnId]>,
    /// Of `conns`, from the first.
    told: usize,
    changes: Vec<Change>,
    /// The events of the changes.
    batch: Batch,
}

/// One event for many.
struct Change {
    number: u64,
    /// Its place among the names of events.
    event: usize,
}

impl Rounds {
    /// Adds a change; gives the round that is given up for it.
    fn push(&mut self, conns: Arc<[ConnId]>, change: Change, encoded: Bytes) -> Option<Round> {
        self.changes += 1;
        match self.waiting.back_mut() {
            Some(round) if round.may_grow() && Arc::ptr_eq(&round.conns, &conns) => round.push(change, encoded),
            _ => {
                let mut round = Round { conns, told: 0, changes: Vec::new(), batch: Batch::default() };
                round.push(change, encoded);
                self.waiting.push_back(round);
            }
        }
        (self.changes > CHANGES_KEPT).then(|| self.end_oldest()).flatten()
    }

    /// The next few of the oldest round, which counts them as told.
    fn next(&mut self) -> Option<(&[ConnId], &Round)> {
        let round = self.waiting.front_mut()?;
        let Range { start, end } = round.next();
        round.told = end;
        Some((&round.conns[start..end], round))
    }

    fn end_oldest(&mut self) -> Option<Round> {
        let round = self.waiting.pop_front()?;
        self.changes -= round.changes.len();
        Some(round)
    }

    /// After each of [`Self::next`]: whether there are more.
    fn go_on(&mut self) -> bool {
        if self.waiting.front().is_some_and(Round::is_over) {
            self.end_oldest();
        }
        !self.waiting.is_empty()
    }
}

impl Round {
    fn push(&mut self, change: Change, encoded: Bytes) {
        self.changes.push(change);
        self.batch.push(encoded);
    }

    /// Whether it can take a change: nobody has been told of it, and it is not large.
    fn may_grow(&self) -> bool {
        self.told == 0 && self.batch.bytes_max() < BATCH_BYTES_MAX
    }

    /// From the first change to the last.
    fn numbers(&self) -> RangeInclusive<u64> {
        let number = |change: Option<&Change>| change.map_or(0, |change| change.number);
        number(self.changes.first())..=number(self.changes.last())
    }

    fn is_over(&self) -> bool {
        self.told == self.conns.len()
    }

    /// So many that neither their writes nor what is copied to them takes long.
    fn next(&self) -> Range<usize> {
        let count = (TOLD_AT_ONCE_MAX / self.changes.len()).clamp(1, WRITES_AT_ONCE_MAX);
        self.told..self.conns.len().min(self.told + count)
    }
}

impl Shard {
    /// Notes that `event` about `user` is for `conns`, for [`Self::tell`].
    pub(super) fn note_for(&self, conns: Arc<[ConnId]>, user: UserId, event: &ServerEvent) {
        self.counters.fan_outs.observe(conns.len() as u64);
        let number = self.changes.borrow_mut().note(user);
        let change = Change { number, event: event.index() };
        let given_up = self.fan_outs.rounds.borrow_mut().push(conns, change, event.encode());
        let Some(Round { conns, told, changes, .. }) = given_up else { return };
        self.counters.spared.add(((conns.len() - told) * changes.len()) as u64);
        let mut slots = self.slots.borrow_mut();
        for conn in &conns[told..] {
            // The next round wakes its task.
            if let Some(entry) = slots.get(*conn) {
                entry.miss(changes[0].number);
            }
        }
    }

    /// Tells the first few of what was noted, and leaves the rest to the task.
    pub(super) fn tell(&self) {
        if self.tell_some() {
            self.fan_outs.came.notify_one();
        }
    }

    /// Tells the next few, those of them who still look; false if nobody is left.
    fn tell_some(&self) -> bool {
        let now = self.now();
        let mut rounds = self.fan_outs.rounds.borrow_mut();
        let Some((conns, round)) = rounds.next() else { return false };
        let domain = self.domain.borrow();
        let viewers = conns.iter().copied().filter(|conn| domain.directory().is_watched_by(*conn));
        let numbers = round.numbers();
        let (mut together, mut one_by_one) = (0, Vec::new());
        for conn in viewers {
            let mut is_sent = false;
            self.on_entry(conn, |entry| is_sent = entry.send_diffs(now, numbers.clone(), &round.batch));
            match is_sent {
                true => together += 1,
                false => one_by_one.push(conn),
            }
        }
        let mut spared = 0;
        // Change by change: one that is compressed is compressed once for all of them.
        for (change, encoded) in round.changes.iter().zip(round.batch.events()) {
            self.counters.sent.add(change.event, together);
            for conn in &one_by_one {
                self.on_entry(*conn, |entry| match entry.send_diff(now, change.number, encoded) {
                    Told::Sent => self.counters.sent.add_one(change.event),
                    Told::Spared => spared += 1,
                    Told::Before => {}
                });
            }
        }
        self.counters.spared.add(spared);
        rounds.go_on()
    }
}

/// Tells whoever is left, a few in each turn.
pub(super) async fn run(shard: Rc<Shard>) {
    loop {
        shard.fan_outs.came.notified().await;
        while shard.tell_some() {
            yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ShardId;

    fn conns(count: u32) -> Arc<[ConnId]> {
        (0..count).map(|index| ConnId { shard: ShardId(0), index, generation: 0 }).collect()
    }

    impl Rounds {
        fn add(&mut self, conns: &Arc<[ConnId]>, number: u64) -> Option<Round> {
            self.push(conns.clone(), Change { number, event: 0 }, Bytes::new())
        }
    }

    /// Whom the rounds tell of what, and how many turns that takes.
    fn told(rounds: &mut Rounds) -> (Vec<(u32, u64)>, usize) {
        let (mut told, mut turns) = (Vec::new(), 0);
        while let Some((conns, Round { changes, .. })) = rounds.next() {
            assert!(conns.len() <= WRITES_AT_ONCE_MAX && conns.len() * changes.len() <= TOLD_AT_ONCE_MAX);
            turns += 1;
            for conn in conns {
                told.extend(changes.iter().map(|change| (conn.index, change.number)));
            }
            rounds.go_on();
        }
        (told, turns)
    }

    #[test]
    fn everybody_hears_every_change_once_and_in_order_few_at_a_time() {
        let (mut rounds, count) = (Rounds::default(), 10 * WRITES_AT_ONCE_MAX as u32 + 1);
        let (first, second) = (conns(count), conns(count));
        for number in 1..=40 {
            assert!(rounds.add(&first, number).is_none());
        }
        assert!(rounds.add(&second, 41).is_none());
        let (told, turns) = told(&mut rounds);
        let of_first = (0..count).flat_map(|conn| (1..=40).map(move |number| (conn, number)));
        assert_eq!(told, of_first.chain((0..count).map(|conn| (conn, 41))).collect::<Vec<_>>());
        let most = |changes: usize| (TOLD_AT_ONCE_MAX / changes).min(WRITES_AT_ONCE_MAX);
        assert_eq!(turns, (count as usize).div_ceil(most(40)) + (count as usize).div_ceil(most(1)));
        assert_eq!((rounds.changes, rounds.waiting.len()), (0, 0));
    }

    #[test]
    fn much_at_once_is_told_in_several_rounds() {
        let (mut rounds, all, length) = (Rounds::default(), conns(1), BATCH_BYTES_MAX / 10);
        for number in 1..=25 {
            rounds.push(all.clone(), Change { number, event: 0 }, Bytes::from(vec![b' '; length]));
        }
        assert_eq!(rounds.waiting.iter().map(|round| round.changes.len()).collect::<Vec<_>>(), [10, 10, 5]);
        assert_eq!(told(&mut rounds).0, (1..=25).map(|number| (0, number)).collect::<Vec<_>>());
    }

    #[test]
    fn what_comes_while_a_round_goes_by_is_another_round() {
        let (mut rounds, all) = (Rounds::default(), conns(WRITES_AT_ONCE_MAX as u32 + 1));
        rounds.add(&all, 1);
        assert_eq!(rounds.next().map(|(conns, _)| conns.len()), Some(WRITES_AT_ONCE_MAX));
        rounds.add(&all, 2);
        let last = WRITES_AT_ONCE_MAX as u32;
        let expected = [(last, 1)].into_iter().chain((0..=last).map(|conn| (conn, 2)));
        assert_eq!(told(&mut rounds).0, expected.collect::<Vec<_>>());
    }

    #[test]
    fn when_too_much_waits_the_oldest_round_is_given_up_with_those_it_has_not_told() {
        let (mut rounds, all) = (Rounds::default(), conns(2 * WRITES_AT_ONCE_MAX as u32));
        rounds.add(&all, 1);
        rounds.next();
        let others = conns(1);
        let given_up: Vec<_> = (2..2 + CHANGES_KEPT as u64)
            .filter_map(|number| rounds.add(&others, number))
            .map(|round| (round.told, round.changes[0].number))
            .collect();
        assert_eq!(given_up, [(WRITES_AT_ONCE_MAX, 1)]);
        assert_eq!(rounds.changes, CHANGES_KEPT);
    }
}

//! The ways between shards: one bounded inbox per pair, an overflow at the sender, publications that may be merged.
//!
//! Order per pair is kept, publications aside: of those only the newest of a user has to arrive last.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use duet::base::{Random, Time, UserId};
use duet::conn::Output;
use duet::domain::Input;
use duet::message::{Delta, UserMessage};

use crate::plan::Mutant;
use crate::shell::Entry;
use crate::world::{Event, World};

/// What one shard sends another.
pub enum Letter {
    User(UserId, UserMessage),
    Published(Arc<[Delta]>),
    /// A connection that moves, and what made it move.
    Adopt(Box<Entry>, Output),
}

/// How quickly messages pass at present.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    Prompt,
    Late,
    /// Nothing is taken out of inboxes before then.
    Stalled(Time),
}

/// The way from one shard to another.
#[derive(Default)]
pub struct Lane {
    inbox: VecDeque<Letter>,
    overflow: VecDeque<Letter>,
    /// Publications that found the inbox full, merged.
    merged: BTreeMap<UserId, Delta>,
    next_at: Time,
}

impl World {
    /// Sends a letter from one shard to another.
    pub fn post(&mut self, from: usize, to: usize, letter: Letter) {
        assert_ne!(from, to, "a shard does not write to itself");
        let Some(letter) = self.tampered(from, to, letter) else { return };
        let (inbox_max, coalesce) = (self.plan.inbox_max, self.plan.coalesce);
        let lane = &mut self.lanes[from][to];
        let full = lane.inbox.len() >= inbox_max || !lane.overflow.is_empty();
        match letter {
            Letter::Published(deltas) if coalesce && (full || !lane.merged.is_empty()) => {
                lane.merged.extend(deltas.iter().map(|delta| (delta.card.user_id, delta.clone())));
                self.counts.fault("publication merged");
            }
            letter if full => {
                lane.overflow.push_back(letter);
                self.counts.fault("inbox full");
            }
            letter => {
                lane.inbox.push_back(letter);
                self.schedule_letter(from, to);
            }
        }
    }

    fn schedule_letter(&mut self, from: usize, to: usize) {
        let delay = match self.pace {
            Pace::Prompt => self.random.below(2),
            Pace::Late => self.random.below(1_500),
            Pace::Stalled(until) => until - self.now,
        };
        let lane = &mut self.lanes[from][to];
        lane.next_at = lane.next_at.max(self.now + delay);
        let at = lane.next_at;
        self.schedule(at, Event::Letter { from, to });
    }

    /// Delivers the next letter of a lane.
    pub fn deliver(&mut self, from: usize, to: usize) {
        let lane = &mut self.lanes[from][to];
        let Some(letter) = lane.inbox.pop_front() else { return };
        let next = lane.overflow.pop_front().or_else(|| {
            let deltas: Vec<Delta> = std::mem::take(&mut lane.merged).into_values().collect();
            (!deltas.is_empty()).then(|| Letter::Published(deltas.into()))
        });
        if let Some(next) = next {
            lane.inbox.push_back(next);
            self.schedule_letter(from, to);
        }
        match letter {
            Letter::User(user, message) => self.handle(to, Input::User { user, message }),
            Letter::Published(deltas) => self.handle(to, Input::Published(deltas)),
            Letter::Adopt(entry, output) => self.adopt(to, *entry, output),
        }
    }

    /// What a mutant makes of a letter.
    fn tampered(&mut self, from: usize, to: usize, letter: Letter) -> Option<Letter> {
        match (self.plan.mutant, &letter) {
            (Some(Mutant::PublishSwallowed), Letter::Published(_)) if self.random.one_in(4) => None,
            (Some(Mutant::EndedLost), Letter::User(_, UserMessage::Ended { .. })) if self.random.one_in(2) => None,
            (Some(Mutant::RelayLost), Letter::User(_, UserMessage::Relay { .. })) if self.random.one_in(20) => None,
            (Some(Mutant::NaiveAccept), Letter::User(_, UserMessage::End { call, .. }))
                if self.forged.contains(call) =>
            {
                None
            }
            (Some(Mutant::RelaySwapped), Letter::User(user, UserMessage::Relay { .. })) => {
                let (user, overflow) = (*user, &mut self.lanes[from][to].inbox);
                let is_alike = |letter: &Letter| matches!(letter, Letter::User(other, UserMessage::Relay { .. }) if *other == user);
                match overflow.back_mut().filter(|last| is_alike(last)) {
                    Some(last) => Some(std::mem::replace(last, letter)),
                    None => Some(letter),
                }
            }
            _ => Some(letter),
        }
    }

    /// Forgets everything under way: the process has crashed.
    pub fn clear_lanes(&mut self) {
        let count = self.lanes.len();
        self.lanes = (0..count).map(|_| (0..count).map(|_| Lane::default()).collect()).collect();
    }

    /// Lets a phase of slow shards begin or end.
    pub fn change_pace(&mut self, random: &mut Random) {
        self.pace = match random.below(6) {
            0 => Pace::Late,
            1 => Pace::Stalled(self.now + 500 + random.below(6_500)),
            _ => Pace::Prompt,
        };
        match self.pace {
            Pace::Prompt => {}
            Pace::Late => self.counts.fault("inboxes late"),
            Pace::Stalled(_) => self.counts.fault("inboxes stalled"),
        }
    }
}

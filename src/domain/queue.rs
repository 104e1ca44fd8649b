//! Who is available, in the order they became so, and whom of them one viewer is shown. Part of the directory, so each
//! shard has its own and only that shard's thread touches it.
//!
//! Bounded by the users online. A change costs O(log n), a list O(people listed). Not here: what stands between two
//! people (the store tells it), and how a list is written.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use crate::base::{Map, Set, Time, UserId};
use crate::message::Card;

/// How long a sample stays the same for one viewer.
const SAMPLE_MS: u64 = 60_000;
/// 2^64 divided by the golden ratio: adding it again and again visits the circle of `u64` evenly.
const GOLDEN_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A place in the order of the queue, which outlives whoever stood there.
pub type Position = (Time, UserId);

/// Available people: in order, and in slots without gaps, from which samples are taken.
#[derive(Default)]
pub struct Queue {
    slots: Vec<Person>,
    slot_of: Map<UserId, usize>,
    order: BTreeMap<Position, usize>,
    /// By whom they were introduced to.
    introduced: Map<UserId, BTreeSet<Position>>,
    version: u64,
}

/// One available person.
pub struct Person {
    pub card: Arc<Card>,
    since: Time,
    /// As [`Card::encode_open`] gives it: once per change, not per viewer.
    pub encoded: Box<[u8]>,
}

impl Person {
    /// His place in the queue.
    pub fn position(&self) -> Position {
        (self.since, self.card.user_id)
    }
}

impl Queue {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Everybody, longest waiting first.
    pub fn people(&self) -> impl Iterator<Item = &Person> {
        self.order.values().map(|slot| &self.slots[*slot])
    }

    /// Differs from what it was whenever anything about the queue does; only ever grows.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The queue as `viewer` sees it: without himself and those `hidden` from him.
    pub fn seen_by(&self, viewer: UserId, hidden: &Set<UserId>) -> View<'_> {
        let own = self.slot_of.get(&viewer).copied();
        let mut unseen: Vec<usize> = hidden.iter().filter_map(|user| self.slot_of.get(user).copied()).collect();
        unseen.extend(own);
        unseen.sort_unstable();
        unseen.dedup();
        View { queue: self, viewer, unseen, total: self.slots.len() - usize::from(own.is_some()) }
    }

    /// Puts a person in, or notes what has changed about him.
    pub(super) fn put(&mut self, since: Time, card: &Arc<Card>) {
        let user = card.user_id;
        if let Some(slot) = self.slot_of.get(&user) {
            let old = &self.slots[*slot];
            if old.since == since && old.card == *card {
                return;
            }
            self.remove(user);
        }
        self.version += 1;
        let slot = self.slots.len();
        self.slots.push(Person { card: card.clone(), since, encoded: card.encode_open() });
        self.slot_of.insert(user, slot);
        self.order.insert((since, user), slot);
        if let Some(introduction) = &card.introduction {
            self.introduced.entry(introduction.target).or_default().insert((since, user));
        }
    }

    /// Takes a person out, if he is in. The last slot's takes his slot.
    pub(super) fn remove(&mut self, user: UserId) {
        let Some(slot) = self.slot_of.remove(&user) else { return };
        self.version += 1;
        let person = self.slots.swap_remove(slot);
        self.order.remove(&person.position());
        if let Some(moved) = self.slots.get(slot) {
            self.slot_of.insert(moved.card.user_id, slot);
            self.order.insert(moved.position(), slot);
        }
        if let Some(introduction) = &person.card.introduction
            && let Some(others) = self.introduced.get_mut(&introduction.target)
        {
            others.remove(&person.position());
            if others.is_empty() {
                self.introduced.remove(&introduction.target);
            }
        }
    }
}

/// The queue as one viewer sees it.
pub struct View<'a> {
    queue: &'a Queue,
    viewer: UserId,
    /// Slots of those he does not see, ascending.
    unseen: Vec<usize>,
    /// How many are available besides the viewer, hidden ones included.
    pub total: usize,
}

impl<'a> View<'a> {
    /// Which sample the viewer gets at `now`; `None` while everybody fits into a list of `max`. Viewers change at
    /// different moments, so that not all lists are new at once.
    pub fn sample(&self, now: Time, max: usize) -> Option<u64> {
        let is_short = self.queue.slots.len() - self.unseen.len() > max;
        is_short.then(|| (now.0 + phase(self.viewer) % SAMPLE_MS) / SAMPLE_MS)
    }

    /// At most `max` people: all in their order; or those introduced to the viewer, and then a sample in its order.
    ///
    /// Fair: a sample is a run of neighbouring slots. Where it begins moves by the golden ratio from sample to sample,
    /// which puts the beginnings of any number of samples as evenly around the slots as can be: everybody is in as many
    /// samples as everybody else but for O(log) of them, and waits at most some two rounds. Stable: a change in the queue
    /// moves the run by at most a slot and one person elsewhere.
    pub fn list(&self, sample: Option<u64>, max: usize) -> Vec<&'a Person> {
        let Some(sample) = sample else { return self.after(Bound::Unbounded).take(max).collect() };
        let (queue, mut apart) = (self.queue, self.unseen.clone());
        let introduced = queue.introduced.get(&self.viewer).into_iter().flatten().map(|place| queue.order[place]);
        let mut listed: Vec<_> = introduced.filter(|slot| self.unseen.binary_search(slot).is_err()).collect();
        apart.extend(&listed);
        apart.sort_unstable();
        let others = queue.slots.len() - apart.len();
        let wanted = max.saturating_sub(listed.len()).min(others);
        listed.truncate(max);

        let turned = phase(self.viewer).wrapping_add(sample.wrapping_mul(GOLDEN_STEP));
        let mut start = ((u128::from(turned) * others as u128) >> 64) as usize;
        for slot in &apart {
            start += usize::from(*slot <= start);
        }
        let run = (start..queue.slots.len()).chain(0..start);
        listed.extend(run.filter(|slot| apart.binary_search(slot).is_err()).take(wanted));
        listed.into_iter().map(|slot| &queue.slots[slot]).collect()
    }

    /// The next `max` people behind a position, in order, and the position to go on from if there are more.
    pub fn page(&self, behind: Option<Position>, max: usize) -> (Vec<&'a Person>, Option<Position>) {
        let mut rest = self.after(behind.map_or(Bound::Unbounded, Bound::Excluded));
        let page: Vec<_> = rest.by_ref().take(max).collect();
        let next = rest.next().and(page.last()).map(|person| person.position());
        (page, next)
    }

    /// Those he sees, in order.
    fn after(&self, behind: Bound<Position>) -> impl Iterator<Item = &'a Person> {
        let queue = self.queue;
        let seen = queue.order.range((behind, Bound::Unbounded)).map(|(_, slot)| *slot);
        seen.filter(|slot| self.unseen.binary_search(slot).is_err()).map(|slot| &queue.slots[slot])
    }
}

/// Where on the circle a user's samples begin: the first bytes of his id were drawn.
fn phase(user: UserId) -> u64 {
    let [bytes @ .., _, _, _, _, _, _, _, _] = *user.as_bytes();
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Random;
    use crate::message::Gender;
    use crate::message::model::Introduction;

    const NOW: Time = Time(1_761_000_000_000);

    struct Crowd {
        queue: Queue,
        random: Random,
    }

    impl Crowd {
        fn new(people: usize) -> (Self, Vec<UserId>) {
            let mut crowd = Self { queue: Queue::default(), random: Random::from_seed(1) };
            let users = (0..people).map(|n| crowd.join(n as u64, None)).collect();
            (crowd, users)
        }

        fn join(&mut self, since: u64, introduction: Option<Introduction>) -> UserId {
            let (user_id, name) = (UserId::draw(&mut self.random), "Ann".to_owned());
            let card = Card { user_id, name, gender: Gender::Female, selfie_url: None, video_url: None, introduction };
            self.queue.put(Time(since), &Arc::new(card));
            user_id
        }

        fn list(&self, viewer: UserId, hidden: &[UserId], now: Time, max: usize) -> Vec<UserId> {
            let view = self.queue.seen_by(viewer, &hidden.iter().copied().collect());
            ids(&view.list(view.sample(now, max), max))
        }
    }

    fn ids(people: &[&Person]) -> Vec<UserId> {
        people.iter().map(|person| person.card.user_id).collect()
    }

    fn to(target: UserId) -> Option<Introduction> {
        Some(Introduction { target, introducer: "Ida".to_owned() })
    }

    #[test]
    fn while_all_fit_all_are_listed_in_their_order() {
        let (mut crowd, users) = Crowd::new(12);
        for gone in [users[3], users[11], users[0]] {
            crowd.queue.remove(gone);
        }
        let expected = users.iter().copied().filter(|user| ![0, 2, 3, 5, 11].map(|n| users[n]).contains(user));
        assert_eq!(crowd.list(users[5], &[users[2]], NOW, 7), expected.collect::<Vec<_>>());
        assert_eq!(crowd.queue.seen_by(users[5], &[users[2]].into_iter().collect()).total, 8);
    }

    #[test]
    fn each_is_sampled_as_often_as_each_other_and_soon() {
        for (people, max) in [(1_001, 200), (10_001, 200), (4, 1), (301, 299), (1_000, 7)] {
            let (crowd, users) = Crowd::new(people);
            let viewer = users[people / 3];
            let others = people - 1;
            let rounds = others.div_ceil(max);
            let mut seen = Map::<UserId, usize>::default();
            let minutes = 40 * rounds;
            for minute in 0..minutes {
                for user in crowd.list(viewer, &[], NOW + 60_000 * minute as u64, max) {
                    *seen.entry(user).or_default() += 1;
                }
                if minute + 1 == 2 * rounds {
                    assert_eq!(seen.len(), others, "{people} {max}: who is left out after two rounds");
                }
            }
            let fair = minutes as f64 * max as f64 / others as f64;
            let off = seen.values().map(|times| (*times as f64 - fair).abs()).fold(0.0, f64::max);
            assert!(off <= 4.0, "{people} {max}: {off} of {fair}");
        }
    }

    #[test]
    fn those_who_are_not_seen_leave_the_sample_fair() {
        let (crowd, users) = Crowd::new(13);
        let (viewer, hidden) = (users[4], [users[5], users[6], users[12]]);
        let mut seen = Map::<UserId, usize>::default();
        for minute in 0..900 {
            let list = crowd.list(viewer, &hidden, NOW + 60_000 * minute, 2);
            assert_eq!(list.len(), 2);
            list.into_iter().for_each(|user| *seen.entry(user).or_default() += 1);
        }
        assert_eq!(seen.len(), 9);
        assert!(seen.values().all(|times| (196..=204).contains(times)), "{seen:?}");
    }

    #[test]
    fn a_sample_lasts_for_a_minute_and_a_change_elsewhere_moves_it_by_a_person_or_two() {
        let (mut crowd, users) = Crowd::new(1_000);
        let viewer = users[7];
        let view = |crowd: &Crowd, now| crowd.list(viewer, &[], now, 100).into_iter().collect::<BTreeSet<_>>();
        let turns = (0..60).filter(|second| {
            let at = |second| crowd.queue.seen_by(viewer, &Set::default()).sample(NOW + second * 1_000, 100);
            at(*second) != at(*second + 1)
        });
        let turns: Vec<u64> = turns.collect();
        assert_eq!(turns.len(), 1, "it changes once in a minute");
        let now = NOW + (turns[0] + 1) * 1_000;
        let before = view(&crowd, now);
        assert_eq!(view(&crowd, now + 58_000), before);
        for n in 0..50 {
            let earlier = view(&crowd, now);
            crowd.queue.remove(users[900 - n]);
            assert!(view(&crowd, now).difference(&earlier).count() <= 2);
            crowd.join(2_000, None);
        }
        assert!(view(&crowd, now).intersection(&before).count() >= 85);
    }

    #[test]
    fn the_introduced_come_first_and_count() {
        let (mut crowd, users) = Crowd::new(300);
        let viewer = users[0];
        let introduced: Vec<_> = (0..6).map(|n| crowd.join(1_000 + n, to(viewer))).collect();
        crowd.join(2_000, to(users[1]));
        for minute in 0..50 {
            let list = crowd.list(viewer, &[introduced[2]], NOW + minute * 60_000, 10);
            assert_eq!(list[..5], [0, 1, 3, 4, 5].map(|n| introduced[n]));
            assert_eq!(list.iter().collect::<BTreeSet<_>>().len(), 10, "nobody is there twice");
        }
        assert_eq!(crowd.list(viewer, &[], NOW, 4), introduced[..4]);
        crowd.queue.remove(introduced[0]);
        assert_eq!(crowd.list(viewer, &[], NOW, 4), introduced[1..5]);
        introduced.iter().for_each(|user| crowd.queue.remove(*user));
        assert_eq!(crowd.queue.introduced.len(), 1);
    }

    #[test]
    fn pages_meet_each_once_while_people_come_and_go() {
        let (mut crowd, users) = Crowd::new(25);
        let (viewer, hidden) = (users[9], [users[12]].into_iter().collect());
        let (mut met, mut behind) = (Vec::new(), None);
        loop {
            let view = crowd.queue.seen_by(viewer, &hidden);
            let (page, next) = view.page(behind, 5);
            met.extend(ids(&page));
            if next.is_none() {
                break;
            }
            behind = next;
            if met.len() == 5 {
                // The one who was listed last, and one who is yet to come.
                crowd.queue.remove(users[4]);
                crowd.queue.remove(users[20]);
                crowd.join(100, None);
            }
        }
        let stayed: Vec<_> = users.iter().filter(|user| ![9, 12, 20].map(|n| users[n]).contains(user)).collect();
        assert_eq!(met.iter().take(22).collect::<Vec<_>>(), stayed);
        assert_eq!(met.len(), 23);
    }

    #[test]
    fn the_version_tells_of_every_change_and_of_nothing_else() {
        let (mut crowd, users) = Crowd::new(3);
        let card = crowd.queue.people().next().unwrap().card.clone();
        let version = crowd.queue.version();
        crowd.queue.put(Time(0), &card);
        crowd.queue.put(Time(0), &Arc::new(Card::clone(&card)));
        crowd.queue.remove(UserId::draw(&mut crowd.random));
        assert_eq!(crowd.queue.version(), version);
        let mut versions = BTreeSet::from([version]);
        let renamed = Card { name: "Bo".to_owned(), ..Card::clone(&card) };
        crowd.queue.put(Time(0), &Arc::new(renamed));
        versions.insert(crowd.queue.version());
        crowd.queue.put(Time(9), &card);
        versions.insert(crowd.queue.version());
        crowd.queue.remove(users[0]);
        versions.insert(crowd.queue.version());
        assert_eq!(versions.len(), 4);
    }
}

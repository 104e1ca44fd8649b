//! The calls that other processes leave behind: read before the shards start, each for the homes of its two people; and
//! looked for as long as others may share the store.
//!
//! On boot's thread. At a start all calls are taken of which nobody lives; later those that are let go of at once, and those
//! of a process that is missed in [`OWNER_MISSED_LOOKS`] looks in a row. Each is taken up once: the store gives it to one
//! process. Bound: a page at a time; all of them are what those processes had in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_lite::future::block_on;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::base::limits::{OWNER_MISSED_LOOKS, OWNERS_LOOK_ALONE_MS, OWNERS_LOOK_MS, RUNNING_PAGE};
use crate::base::placement::Placement;
use crate::domain::{Resumed, resumed};
use crate::link::{Link, LinkError};
use crate::message::store::{CallOwner, InstanceId, Reply, Request};
use crate::shard::Envelope;

/// What is known of the other processes, and how many rounds there were.
pub(super) struct Handover {
    store: Link<Request, Reply>,
    placement: Placement,
    /// The last in which calls were taken.
    round: i32,
    /// The one after it has begun, and may have taken some.
    is_unfinished: bool,
    /// In how many looks in a row each was missed.
    missed: BTreeMap<InstanceId, u32>,
    /// Other processes live, or have calls.
    pub has_others: bool,
    /// No other process may have this store.
    is_alone: bool,
}

impl Handover {
    pub fn new(store: Link<Request, Reply>, placement: Placement) -> Self {
        let (round, missed) = (0, BTreeMap::new());
        Self { store, placement, round, is_unfinished: false, missed, has_others: false, is_alone: false }
    }

    /// What each shard, in order, goes on with from the start.
    ///
    /// # Errors
    /// The store does not tell.
    pub fn begin(&mut self) -> Result<Vec<Vec<Resumed>>, String> {
        let calls = block_on(async {
            let owners = self.look().await?;
            self.take(gone(&owners).collect()).await
        })?;
        let mut homes = vec![Vec::new(); usize::from(self.placement.count())];
        for call in calls {
            let users = [call.running.caller.user(), call.running.callee.user()];
            let [caller, callee] = users.map(|user| usize::from(self.placement.home(user).0));
            if callee != caller {
                homes[callee].push(call.clone());
            }
            homes[caller].push(call);
        }
        Ok(homes)
    }

    /// Looks for what other processes leave behind, and hands it to the shards, for ever.
    pub async fn watch(mut self, senders: &[mpsc::Sender<Envelope>]) {
        while !self.is_alone {
            sleep(Duration::from_millis(if self.has_others { OWNERS_LOOK_MS } else { OWNERS_LOOK_ALONE_MS })).await;
            let had_others = self.has_others;
            // The store has said what is wrong with it.
            let Ok(owners) = self.look().await else { continue };
            let is_due = self.is_unfinished || owners.iter().any(|owner| self.is_due(owner));
            let calls = if is_due { self.take_in_time(&owners).await } else { Vec::new() };
            if !calls.is_empty() || self.has_others != had_others {
                self.hand_over(senders, calls).await;
            }
        }
        std::future::pending().await
    }

    /// Who else there is. A look that fails lets everybody be missed anew.
    async fn look(&mut self) -> Result<Vec<CallOwner>, String> {
        let answer = self.store.ask(Request::CallOwners).await;
        let Ok(Reply::CallOwners(owners)) = answer else {
            self.missed.clear();
            return Err(format!("whose calls run cannot be read: {}", reason(answer)));
        };
        self.is_alone = owners.is_none();
        let owners = owners.unwrap_or_default();
        self.has_others = !owners.is_empty();
        self.missed = gone(&owners).map(|gone| (gone, self.missed.get(&gone).map_or(1, |looks| looks + 1))).collect();
        Ok(owners)
    }

    /// Whether the calls of this one may be taken.
    fn is_due(&self, owner: &CallOwner) -> bool {
        owner.instance.is_none_or(|owner| self.missed.get(&owner).is_some_and(|looks| *looks >= OWNER_MISSED_LOOKS))
    }

    async fn take_in_time(&mut self, owners: &[CallOwner]) -> Vec<Resumed> {
        let due = owners.iter().filter(|owner| self.is_due(owner)).filter_map(|owner| owner.instance).collect();
        match self.take(due).await {
            Ok(calls) => calls,
            Err(reason) => {
                tracing::warn!(reason, "calls of another process wait to be taken over");
                Vec::new()
            }
        }
    }

    /// Takes the calls that nobody has, and those of `missed`. What a try has taken without knowing is in the next.
    async fn take(&mut self, missed: Vec<InstanceId>) -> Result<Vec<Resumed>, String> {
        self.is_unfinished = true;
        let round = self.round + 1;
        let taken = self.store.ask(Request::TakeCalls { round, missed }).await;
        if !matches!(taken, Ok(Reply::Done)) {
            return Err(format!("running calls cannot be taken over: {}", reason(taken)));
        }
        let (mut running, mut after) = (Vec::new(), None);
        let alive_at = loop {
            let page = self.store.ask(Request::RunningCalls { round, after, limit: RUNNING_PAGE }).await;
            let Ok(Reply::RunningCalls { alive_at, calls, next }) = page else {
                return Err(format!("the running calls cannot be read: {}", reason(page)));
            };
            running.extend(calls);
            after = next;
            if next.is_none() {
                break alive_at;
            }
        };
        (self.round, self.is_unfinished) = (round, false);
        if !running.is_empty() {
            tracing::info!(calls = running.len(), "going on with the calls of another process");
        }
        Ok(resumed(running, alive_at))
    }

    /// Gives each call to its caller's home, and tells all shards whether there are others.
    async fn hand_over(&self, senders: &[mpsc::Sender<Envelope>], calls: Vec<Resumed>) {
        let mut homes = vec![Vec::new(); senders.len()];
        for call in calls {
            homes[usize::from(self.placement.home(call.running.caller.user()).0)].push(call);
        }
        for (sender, calls) in senders.iter().zip(homes) {
            // A shard that has ended ends the process.
            let _ = sender.send(Envelope::TakeOver { calls, has_others: self.has_others }).await;
        }
    }
}

/// The owners who do not live.
fn gone(owners: &[CallOwner]) -> impl Iterator<Item = InstanceId> {
    owners.iter().filter(|owner| !owner.is_alive).filter_map(|owner| owner.instance)
}

/// What an answer that is not the one hoped for tells the operator.
fn reason(answer: Result<Reply, LinkError>) -> String {
    match answer {
        Ok(Reply::Failed(reason)) => reason,
        Ok(Reply::Away) => "the database is away".to_owned(),
        Ok(_) => "the store answers something else".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link;

    const OTHER: InstanceId = InstanceId(7);

    /// A handover whose store gives these answers, one to each request.
    fn handover(answers: Vec<Reply>) -> Handover {
        let (link, mut incoming) = link::link(8);
        link::spawn("store", move || {
            for answer in answers {
                let Some(asked) = incoming.receive() else { return };
                asked.answer.send(answer);
            }
        })
        .unwrap();
        Handover::new(link, Placement::new(1))
    }

    fn seen(is_alive: bool) -> Reply {
        Reply::CallOwners(Some(vec![CallOwner { instance: Some(OTHER), is_alive }]))
    }

    #[test]
    fn only_who_is_missed_in_all_of_some_looks_in_a_row_loses_his_calls() {
        let looks = OWNER_MISSED_LOOKS as usize;
        for interruption in [seen(true), Reply::Away, Reply::CallOwners(Some(Vec::new()))] {
            let mut answers = vec![seen(false); looks - 1];
            answers.push(interruption);
            answers.extend(vec![seen(false); looks]);
            let mut handover = handover(answers);
            let gone = CallOwner { instance: Some(OTHER), is_alive: false };
            let due: Vec<bool> = (0..2 * looks)
                .map(|_| {
                    let _ = block_on(handover.look());
                    handover.is_due(&gone)
                })
                .collect();
            assert_eq!(due.iter().position(|due| *due), Some(2 * looks - 1));
        }
    }

    #[test]
    fn calls_that_nobody_has_are_due_at_once() {
        let mut handover = handover(vec![Reply::CallOwners(None)]);
        assert!(block_on(handover.look()).is_ok_and(|owners| owners.is_empty()));
        assert!((handover.is_alone, handover.has_others) == (true, false));
        assert!(handover.is_due(&CallOwner { instance: None, is_alive: false }));
    }

    #[test]
    fn a_round_that_was_not_answered_is_asked_for_again() {
        let (alive_at, calls, next) = (crate::base::Time(0), Vec::new(), None);
        let mut handover = handover(vec![Reply::Away, Reply::Done, Reply::RunningCalls { alive_at, calls, next }]);
        assert!(block_on(handover.take(vec![OTHER])).is_err());
        assert!((handover.round, handover.is_unfinished) == (0, true));
        assert!(block_on(handover.take(vec![OTHER])).is_ok());
        assert!((handover.round, handover.is_unfinished) == (1, false));
    }
}

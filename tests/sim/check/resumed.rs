//! Restarts: every call that ran goes on at both homes, none that had ended does, and what was said in it is stored at its
//! end, but for the last moments before a crash.

use std::collections::{BTreeMap, BTreeSet};

use duet::base::limits::CALL_KEEP_MS;
use duet::base::placement::Placement;
use duet::base::{CallId, Time, UserId};
use duet::domain::resumed;

use super::Oracle;
use crate::relay_text::read_line;
use crate::shell::Shard;
use crate::store::{Mood, Store};

/// What a line may take to be stored, beside the pause before its batch: a late timer, a quick store.
const SLACK_MS: u64 = 100;
/// For so long after the store was in trouble nothing is said of how soon it has what.
const TROUBLE_MS: u64 = 15_000;

#[derive(Default)]
pub struct Crashes {
    /// When the store was last not quick.
    trouble_at: Option<Time>,
    /// Lines that a browser was sent, by their time.
    told: BTreeMap<CallId, BTreeSet<(Time, String)>>,
    /// When the process ended, if the store was well then.
    crashes: Vec<Time>,
    /// When it ended while the store was not.
    excuses: Vec<Time>,
    resumed: u64,
}

impl Oracle {
    /// The store changes its mood, which was this.
    pub fn store_was(&mut self, now: Time, mood: Mood) {
        if mood != Mood::Quick {
            self.crashes.trouble_at = Some(now);
        }
    }

    pub(super) fn line_told(&mut self, text: &str, at: Time) {
        if let Some(mark) = read_line(text) {
            self.crashes.told.entry(mark.call).or_default().insert((at, text.to_owned()));
        }
    }

    /// A new process has begun and nobody has come yet.
    pub fn resumed(&mut self, now: Time, shards: &[Shard], placement: Placement, store: &Store) {
        let was_well = store.mood == Mood::Quick && self.crashes.trouble_at.is_none_or(|at| now > at + TROUBLE_MS);
        if was_well {
            self.crashes.crashes.push(now)
        } else {
            self.crashes.excuses.push(now)
        }
        for call in resumed(store.running.values().cloned().collect(), store.alive_at) {
            let (id, pair) = (call.running.call, [call.running.caller.user(), call.running.callee.user()]);
            let half = |user: UserId| shards[usize::from(placement.home(user).0)].domain.engagement(user);
            let halves = [(half(pair[0]), pair[1]), (half(pair[1]), pair[0])];
            let is_in = halves.iter().all(|(half, peer)| *half == Some((id, *peer)));
            if store.finished.contains_key(&id) {
                self.complain("an ended call is not resumed", format!("{id} is stored as ended and as running"));
            } else if !call.is_over && !is_in {
                self.complain("no call is lost by a restart", format!("{id} does not go on: {halves:?}"));
            }
            self.crashes.resumed += u64::from(!call.is_over);
        }
    }

    /// At the end: what browsers were sent in a call is in its log.
    pub(super) fn resumed_quiet(&mut self, store: &Store) {
        let crashes = &self.crashes;
        let follows =
            |times: &[Time], at: Time, within: u64| times.iter().any(|crash| *crash >= at && *crash - at < within);
        let mut missing = None;
        for (call, lines) in &crashes.told {
            let Some(finished) = store.finished.get(call).filter(|finished| finished.recorded) else { continue };
            let logged: BTreeSet<(Time, &str)> = finished
                .messages
                .iter()
                .map(|line| {
                    (line.timestamp, line.socials.as_ref().and_then(|s| s.get("x")).unwrap_or(&line.text).as_str())
                })
                .collect();
            let is_missing = |(at, text): &&(Time, String)| {
                let is_excused = follows(&crashes.crashes, *at, CALL_KEEP_MS + SLACK_MS)
                    || crashes.excuses.iter().any(|crash| crash >= at);
                !is_excused && !logged.contains(&(*at, text.as_str()))
            };
            missing = missing.or(lines.iter().find(is_missing).map(|line| format!("{call}: {line:?} is not stored")));
        }
        if let Some(detail) = missing {
            self.complain("what was said outlives a restart", detail);
        }
    }

    pub(super) fn resumed_facts(&self) -> Vec<(&'static str, u64)> {
        vec![("calls resumed", self.crashes.resumed)]
    }
}

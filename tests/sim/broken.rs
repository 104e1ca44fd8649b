//! What mutants do from outside the rules, and the proof that each is caught by the checker meant for it.

use bytes::Bytes;
use duet::base::{CallId, ConnId, UserId};
use duet::domain::{Effect, Input};
use duet::message::client::Seconds;
use duet::message::{ClientEvent, ServerEvent, UserMessage};

use crate::check::Seen;
use crate::mesh::Letter;
use crate::plan::Mutant;
use crate::world::World;

/// How many seeds a mutant may survive.
const SEEDS: u64 = 200;

impl World {
    /// [`Mutant::NaiveAccept`]: when the rules refuse to accept because the callee is not free, ask the caller anyway.
    pub fn forgery(&mut self, seen: &Seen, effects: &[Effect]) -> Option<(UserId, UserMessage)> {
        let Seen::Client(conn, ClientEvent::Accept { invite: Some(invite), .. }) = seen else { return None };
        if self.plan.mutant != Some(Mutant::NaiveAccept) {
            return None;
        }
        let is_busy = |effect: &Effect| {
            matches!(effect, Effect::Send { event: ServerEvent::Error { message: "You are in a call" }, .. })
        };
        let callee = self.shards[usize::from(conn.shard.0)].domain.user_of(*conn)?;
        let caller = self.oracle.caller_of(*invite).filter(|_| effects.iter().any(is_busy))?;
        let call = CallId::draw(&mut self.random);
        self.forged.insert(call);
        let callee = self.store.accounts[&callee].card.clone().into();
        let seconds = Seconds::new(90)?;
        Some((caller, UserMessage::Propose { invite: *invite, call, callee, seconds }))
    }

    pub fn post_or_handle(&mut self, at: usize, home: usize, user: UserId, message: UserMessage) {
        if at == home {
            self.handle(home, Input::User { user, message });
        } else {
            self.post(at, home, Letter::User(user, message));
        }
    }

    /// [`Mutant::RelayToAll`] and [`Mutant::DeclinedTwice`].
    pub fn leak(&mut self, conn: ConnId, event: &ServerEvent, encoded: &Bytes) {
        let now = self.now;
        match (self.plan.mutant, event) {
            (Some(Mutant::RelayToAll), ServerEvent::Signal { .. }) => {
                for other in (0..self.shards.len()).flat_map(|at| self.shards[at].ids()).collect::<Vec<_>>() {
                    if other != conn && self.random.one_in(4) {
                        self.on_conn(other, |conn| conn.send(now, encoded));
                    }
                }
            }
            (Some(Mutant::DeclinedTwice), ServerEvent::Declined { invite: Some(_), .. }) => {
                self.on_conn(conn, |conn| conn.send(now, encoded));
            }
            _ => {}
        }
    }
}

/// Runs seeds until one fails, and checks that it fails for the right reason.
fn caught(mutant: Mutant, checkers: &[&str]) {
    caught_beside(mutant, &[], checkers);
}

/// The same for a mutant that may show itself by another consequence first: such a seed proves nothing.
fn caught_beside(mutant: Mutant, consequences: &[&str], checkers: &[&str]) {
    for seed in 0..SEEDS {
        let mut world = World::new(seed, Some(mutant));
        let Err(broken) = world.run() else { continue };
        if consequences.contains(&broken.checker) {
            continue;
        }
        assert!(checkers.contains(&broken.checker), "{mutant:?} was caught by another checker: {broken}");
        println!("{mutant:?}: seed {seed}: {broken}");
        return;
    }
    panic!("{mutant:?} survived {SEEDS} seeds");
}

#[test]
fn an_accept_without_the_compare_and_set_is_caught() {
    caught_beside(Mutant::NaiveAccept, &["both ends agree", "every end has a reason"], &["two calls"]);
}

#[test]
fn a_store_that_stores_twice_is_caught() {
    caught(Mutant::StoreRepeats, &["a call is stored once"]);
}

#[test]
fn a_server_without_grace_is_caught() {
    caught(Mutant::GraceIgnored, &["every end has a reason"]);
}

#[test]
fn a_relay_to_strangers_is_caught() {
    caught(Mutant::RelayToAll, &["relays reach participants only"]);
}

#[test]
fn a_relay_out_of_order_is_caught() {
    caught(Mutant::RelaySwapped, &["relays keep their order", "no relay is lost", "the log is what was heard"]);
}

#[test]
fn a_lost_relay_is_caught() {
    caught(Mutant::RelayLost, &["no relay is lost", "the log is what was heard"]);
}

#[test]
fn a_cooldown_that_is_not_stored_is_caught() {
    caught(Mutant::CooldownLost, &["cooldowns"]);
}

#[test]
fn a_publication_that_is_lost_is_caught() {
    caught_beside(Mutant::PublishSwallowed, &["nothing is kept"], &["presence equals connections"]);
}

#[test]
fn a_write_confirmed_too_early_is_caught() {
    caught(Mutant::EarlyReply, &["durable before visible"]);
}

#[test]
fn an_end_that_one_side_never_hears_is_caught() {
    caught(Mutant::EndedLost, &["both ends agree", "two calls"]);
}

#[test]
fn a_stale_login_is_caught() {
    caught(Mutant::StaleLogin, &["replaced sessions end"]);
}

#[test]
fn a_restart_that_forgets_running_calls_is_caught() {
    caught(Mutant::NothingResumed, &["no call is lost by a restart"]);
}

#[test]
fn a_restart_that_waits_for_nobody_is_caught() {
    caught(Mutant::Impatient, &["every end has a reason"]);
}

#[test]
fn a_start_that_is_not_stored_is_caught() {
    caught(Mutant::StartUnstored, &["durable before visible"]);
}

#[test]
fn chat_that_is_not_kept_is_caught() {
    caught(Mutant::ChatUnkept, &["what was said outlives a restart"]);
}

#[test]
fn an_outage_that_counts_as_call_is_caught() {
    caught(Mutant::OutageCounted, &["a call is stored as it was"]);
}

#[test]
fn an_ended_call_that_runs_on_is_caught() {
    caught_beside(Mutant::EndedRunsOn, &["a call is stored as it was"], &["an ended call is not resumed"]);
}

#[test]
fn an_invite_that_ends_twice_is_caught() {
    caught(Mutant::DeclinedTwice, &["an invite ends once"]);
}

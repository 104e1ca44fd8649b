//! Writes that the rules owe the store, and what is told once they are durable (design: durable before visible).
//!
//! A write that fails is tried again every [`WRITE_RETRY_MS`] until it succeeds. At most [`WRITES_PENDING_MAX`] wait;
//! over that the oldest is given up and counted.

use std::collections::BTreeMap;

use crate::base::limits::{WRITE_RETRY_MS, WRITES_PENDING_MAX};
use crate::base::{CallId, Time, UserId};
use crate::message::UserMessage;
use crate::message::store::{Reply, Request};

use super::call::Finishing;
use super::{Domain, Effect, Effects, Timer};

/// What follows once a write is durable.
#[derive(Clone, Debug)]
pub(super) enum Then {
    /// Tell these users' homes.
    Tell(Vec<(UserId, UserMessage)>),
    /// Tell both participants that their call begins.
    Begin(CallId),
    /// Go on keeping what happens in calls.
    Keep,
    /// Tell both participants that their call is stored.
    Finalize(Finishing),
}

impl Then {
    fn is_finalize(&self) -> bool {
        matches!(self, Self::Finalize(_))
    }
}

/// Writes under way and writes that failed.
#[derive(Default)]
pub(super) struct Writes {
    pending: BTreeMap<u64, Pending>,
    last_ticket: u64,
    lost: u64,
    finishing: usize,
}

struct Pending {
    request: Box<Request>,
    then: Then,
    failed: bool,
}

impl Writes {
    /// How many the store still owes.
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// Whether this one is among them.
    pub fn owes(&self, ticket: u64) -> bool {
        self.pending.contains_key(&ticket)
    }

    /// Nothing follows this one any more, and it is not tried again.
    pub fn abandon(&mut self, ticket: u64) {
        self.remove(ticket);
    }

    /// How many of them end a call.
    pub fn finishing(&self) -> usize {
        self.finishing
    }

    fn insert(&mut self, ticket: u64, pending: Pending) {
        self.finishing += usize::from(pending.then.is_finalize());
        self.pending.insert(ticket, pending);
    }

    fn remove(&mut self, ticket: u64) -> Option<Pending> {
        let pending = self.pending.remove(&ticket)?;
        self.finishing -= usize::from(pending.then.is_finalize());
        Some(pending)
    }

    /// Writes given up since the start.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Asks again for every write that failed.
    pub fn retry(&mut self, out: &mut Effects) {
        for (ticket, pending) in self.pending.iter_mut().filter(|(_, pending)| pending.failed) {
            pending.failed = false;
            out.push(Effect::Write { ticket: *ticket, request: pending.request.clone() });
        }
    }
}

impl Domain {
    /// Has `request` stored, and then `then` done. The write goes by the ticket that is returned.
    pub(super) fn write(&mut self, request: Request, then: Then, out: &mut Effects) -> u64 {
        let writes = &mut self.writes;
        if writes.pending.len() >= WRITES_PENDING_MAX
            && let Some(oldest) = writes.pending.keys().next().copied()
        {
            writes.remove(oldest);
            writes.lost += 1;
        }
        writes.last_ticket += 1;
        let (ticket, request) = (writes.last_ticket, Box::new(request));
        writes.insert(ticket, Pending { request: request.clone(), then, failed: false });
        out.push(Effect::Write { ticket, request });
        ticket
    }

    /// The store has answered a write.
    pub(super) fn stored(&mut self, now: Time, ticket: u64, reply: Option<Reply>, out: &mut Effects) {
        let reply = match reply {
            None | Some(Reply::Failed(_) | Reply::Away) => {
                if let Some(pending) = self.writes.pending.get_mut(&ticket) {
                    pending.failed = true;
                    self.timers.insert((now + WRITE_RETRY_MS, Timer::RetryWrites));
                }
                return;
            }
            Some(reply) => reply,
        };
        let Some(pending) = self.writes.remove(ticket) else { return };
        match pending.then {
            Then::Tell(messages) => {
                for (user, message) in messages {
                    self.tell(user, message, out);
                }
            }
            Then::Begin(call) => self.begin(now, call, out),
            Then::Keep => self.kept(now, out),
            Then::Finalize(finishing) => self.call_stored(finishing, reply, out),
        }
    }
}

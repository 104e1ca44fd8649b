//! What waits in the journal for the database, and the task that applies it when the database is back.
//!
//! What waits comes before anything that is asked later: while there is any, requests stop at [`Backlog::applied`]. The
//! entries of one outage may be applied in another order than they were asked in; they commute, since no call begins
//! while the database cannot say who may call whom. An entry may be applied twice (a kill between commit and removal),
//! which its ids make harmless. One that the database refuses for what it is, is kept aside for the operator.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;

use super::super::journal::{Ask, Entry, Journal, Numbered, Told};
use super::connection::{Connection, Error, Result as Queried};
use super::pool::Pool;
use super::{calls, pairs};
use crate::link::Link;
use crate::message::store::{InstanceId, JournalStanding, Request};

/// Entries of one transaction, where the database is near enough for so many in the time of a query.
const BATCH_LEN_MAX: usize = 64;
/// Classes of SQLSTATE that are no fault of the entry: the connection, a rollback, resources, state, operators.
const PASSING: [&str; 6] = ["08", "25", "40", "53", "55", "57"];

/// The journal as the database's side sees it.
pub(super) struct Backlog {
    link: Link<Ask, Told>,
    instance: InstanceId,
    waiting: watch::Sender<usize>,
    refused: Cell<usize>,
    /// All up to this number are in the database, though the journal may still have them.
    applied_through: Cell<i64>,
    /// Entries of the next transaction: fewer after one that failed, up to the one that is to blame; more again after
    /// one that did not.
    batch_len: Cell<usize>,
    /// The last append failed.
    is_refusing: Cell<bool>,
}

impl Backlog {
    /// Of an open journal, for what this process writes into it.
    pub fn new(journal: Journal, instance: InstanceId) -> Rc<Self> {
        Rc::new(Self {
            link: journal.link,
            instance,
            waiting: watch::Sender::new(journal.found.waiting),
            refused: Cell::new(journal.found.refused),
            applied_through: Cell::new(0),
            batch_len: Cell::new(BATCH_LEN_MAX),
            is_refusing: Cell::new(false),
        })
    }

    /// How much there is.
    pub fn standing(&self) -> JournalStanding {
        JournalStanding { waiting: *self.waiting.borrow(), refused: self.refused.get() }
    }

    /// Keeps `request` until the database has it. False when it cannot be kept, or cannot wait.
    pub async fn append(&self, request: &Request) -> bool {
        let Some(entry) = Entry::of(request, self.instance) else { return false };
        // Before it can be applied: who is woken by this asks the journal after this does.
        self.waiting.send_modify(|waiting| *waiting += 1);
        let kept = self.ask(Ask::Append(entry)).await;
        // Told to the log once, not at each of many tries.
        let was_refusing = self.is_refusing.replace(kept.is_err());
        match &kept {
            Ok(_) if was_refusing => tracing::info!("the journal takes writes again"),
            Err(reason) if !was_refusing => tracing::error!(reason, "a write cannot be kept for the database"),
            _ => {}
        }
        if kept.is_err() {
            self.leave(1);
        }
        kept.is_ok()
    }

    /// Waits until nothing waits in the journal.
    pub async fn applied(&self) {
        self.wait_for(|waiting| *waiting == 0).await;
    }

    /// Applies what waits, whenever there is something and the database is there; for ever.
    pub async fn run(self: Rc<Self>, pool: Rc<Pool>, query_max: Duration) {
        let mut failures = 0;
        loop {
            self.wait_for(|waiting| *waiting > 0).await;
            match self.apply_some(&pool, query_max).await {
                Ok(()) => failures = 0,
                Err(reason) => {
                    // That the database is away the pool has said.
                    if failures == 0 && !pool.is_away() {
                        tracing::warn!(
                            reason,
                            "what waits in the journal cannot be applied yet, and holds up the rest"
                        );
                    }
                    failures += 1;
                    pool.pause(failures).await;
                }
            }
        }
    }

    async fn apply_some(&self, pool: &Rc<Pool>, query_max: Duration) -> Result<(), String> {
        let lease = pool.writer().await.map_err(|_| "the database is away".to_owned())?;
        let count = self.batch_len.get();
        let oldest = Ask::Oldest { after: self.applied_through.get(), count };
        let Told::Oldest(entries) = self.ask(oldest).await? else { return Err("no entries".to_owned()) };
        self.batch_len.set(count.div_ceil(4));
        let done = timeout(query_max, lease.transaction(async || apply(&lease, &entries).await)).await;
        let done = done.map_err(|_| "the database did not answer in time".to_owned())?;
        lease.served();
        match (done, entries.as_slice()) {
            (Ok(()), _) => self.settle(&entries).await,
            (Err(error), [(number, _)]) if is_of_the_entry(&error) => self.set_aside(*number, &error).await,
            (Err(error), _) => Err(error.to_string()),
        }
    }

    /// The database has these: the journal needs them no more. If it cannot let go of them now (a full disk), it will
    /// with the next.
    async fn settle(&self, entries: &[Numbered]) -> Result<(), String> {
        // Never empty: something waits.
        let Some((through, _)) = entries.last() else { return Err("the journal has less than was counted".to_owned()) };
        self.applied_through.set(*through);
        self.batch_len.set((entries.len() * 2).clamp(1, BATCH_LEN_MAX));
        let removed = self.ask(Ask::Applied { through: *through }).await;
        self.leave(entries.len());
        if let Err(reason) = removed {
            tracing::warn!(reason, "what was applied stays in the journal for now");
        }
        tracing::info!(
            writes = entries.len(),
            waiting = *self.waiting.borrow(),
            "the database has what waited in the journal"
        );
        Ok(())
    }

    /// The database will never take this one.
    async fn set_aside(&self, number: i64, error: &Error) -> Result<(), String> {
        let reason = error.to_string();
        tracing::error!(
            number,
            reason,
            "the database refused a write that waited in the journal; it is kept aside there"
        );
        self.ask(Ask::Refused { number, reason }).await?;
        self.applied_through.set(number);
        self.refused.set(self.refused.get() + 1);
        self.leave(1);
        Ok(())
    }

    fn leave(&self, count: usize) {
        self.waiting.send_modify(|waiting| *waiting -= count);
    }

    async fn wait_for(&self, is_so: impl FnMut(&usize) -> bool) {
        // An error is impossible: the sender is ours.
        let _ = self.waiting.subscribe().wait_for(is_so).await;
    }

    async fn ask(&self, ask: Ask) -> Result<Told, String> {
        match self.link.ask(ask).await {
            Ok(Told::Failed(reason)) => Err(reason),
            Ok(told) => Ok(told),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Writes the entries, inside an open transaction.
async fn apply(connection: &Connection, entries: &[Numbered]) -> Queried<()> {
    for (_, entry) in entries {
        match entry {
            Entry::FinishedCall(ended) => {
                calls::finish(connection, &ended.call, ended.owner.map(InstanceId)).await.map(drop)?;
            }
            Entry::Cooldown { pair, until } => pairs::set_cooldown(connection, *pair, *until).await?,
        }
    }
    Ok(())
}

/// Whether trying it again would end the same way.
fn is_of_the_entry(error: &Error) -> bool {
    let code = match error {
        Error::Refused(_) => return true,
        Error::Database(error) | Error::Uncertain(error) => error.code().map(SqlState::code),
    };
    error.is_certain() && code.is_some_and(|code| !PASSING.contains(&&code[..2]))
}

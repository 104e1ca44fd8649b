//! The connections of requests: one that all reads share, the others for one write at a time; each kept up by a task of its own.
//!
//! The breaker: while no connection stands, whoever asks is refused at once. Keepers try again at once after a loss,
//! then after pauses that double up to [`RETRY_MS_MAX`] and are drawn at random, so that a database that comes back is
//! not met by all processes at the same moment; when one connection stands the others of its process follow at once. It
//! tells the log when the database goes and when it is back.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::Deref;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::task::{JoinHandle, spawn_local, yield_now};
use tokio::time::{sleep, timeout};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::super::Now;
use super::Settings;
use super::connection::{Connection, words};
use crate::base::{Random, Time};

/// Pause before the second attempt in a row, ms; it doubles.
const RETRY_MS_MIN: u64 = 100;
/// Longest pause between two attempts, ms.
const RETRY_MS_MAX: u64 = 5_000;
/// A connection that is silent so long is probed by the kernel, seconds.
const KEEPALIVE_S: u64 = 30;
/// Of a connection that has stood so long the loss is news, ms: the pauses begin anew.
const STEADY_MS: u64 = 5_000;

/// All connections, and who waits for one.
pub(super) struct Pool {
    state: RefCell<State>,
    random: RefCell<Random>,
    now: Now,
    /// When the database was last found to be away, or to be back.
    changed_at: Cell<Time>,
    back: Notify,
}

#[derive(Default)]
struct State {
    reader: Option<Rc<Connection>>,
    idle: Vec<Rc<Connection>>,
    writers: usize,
    waiting: VecDeque<oneshot::Sender<Lease>>,
    was_reached: bool,
    /// Why the last attempt failed, so that the log hears each reason once.
    reason: String,
}

/// No connection stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Away;

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    Read,
    Write,
}

/// A connection for one request. One that was used and not [`Lease::served`] is retired, for nobody knows its state.
pub(super) struct Lease {
    pool: Rc<Pool>,
    connection: Rc<Connection>,
    role: Role,
    is_used: Cell<bool>,
}

/// An open connection and the task that moves its bytes.
pub(super) struct Opened {
    connection: Rc<Connection>,
    /// Ends with why it has ended.
    driver: JoinHandle<String>,
    retired: Rc<Notify>,
}

impl Pool {
    /// Without any connection yet.
    pub fn new(random: Random, now: Now) -> Rc<Self> {
        let changed_at = Cell::new(now());
        let (state, random, back) = (RefCell::default(), RefCell::new(random), Notify::new());
        Rc::new(Self { state, random, now, changed_at, back })
    }

    /// A connection for reads, shared; when there is none, one for writes.
    ///
    /// # Errors
    /// The database is away.
    pub async fn reader(self: &Rc<Self>) -> Result<Lease, Away> {
        let reader = self.state.borrow().reader.clone().filter(|reader| reader.is_usable());
        match reader {
            Some(connection) => Ok(self.lease(connection, Role::Read)),
            None => self.writer().await,
        }
    }

    /// A connection for one write alone, waiting until one is idle.
    ///
    /// # Errors
    /// The database is away.
    pub async fn writer(self: &Rc<Self>) -> Result<Lease, Away> {
        let waiting = {
            let mut state = self.state.borrow_mut();
            while let Some(connection) = state.idle.pop() {
                if connection.is_usable() {
                    return Ok(self.lease(connection, Role::Write));
                }
            }
            if state.is_away() {
                return Err(Away);
            }
            let (sender, receiver) = oneshot::channel();
            state.waiting.push_back(sender);
            receiver
        };
        waiting.await.map_err(|_| Away)
    }

    /// Whether no connection stands.
    pub fn is_away(&self) -> bool {
        self.state.borrow().is_away()
    }

    /// When that last changed.
    pub fn changed_at(&self) -> Time {
        self.changed_at.get()
    }

    /// Waits until the first connection is in its place.
    pub async fn stands(&self) {
        while self.is_away() {
            yield_now().await;
        }
    }

    /// Keeps one connection up, for ever.
    pub async fn keep(
        self: Rc<Self>,
        role: Role,
        settings: Rc<Settings>,
        tls: MakeRustlsConnect,
        first: Option<Opened>,
    ) {
        let (mut failures, mut opened) = (0, first.ok_or_else(String::new));
        loop {
            match opened {
                Ok(mut open) => {
                    self.came(role, &open.connection);
                    let reason = match timeout(Duration::from_millis(STEADY_MS), open.ended()).await {
                        Ok(reason) => reason,
                        Err(_) => {
                            failures = 0;
                            open.ended().await
                        }
                    };
                    self.went(role, &open.connection, &reason);
                }
                Err(reason) => self.failed(reason),
            }
            if failures > 0 {
                self.pause(failures).await;
            }
            failures += 1;
            opened = open(&settings, tls.clone()).await;
        }
    }

    /// Between half and all of the time that doubles with each failure, unless the database is back before.
    pub async fn pause(&self, failures: u32) {
        let most = RETRY_MS_MIN.saturating_mul(1 << failures.min(16)).min(RETRY_MS_MAX);
        let pause_ms = most / 2 + self.random.borrow_mut().below(most / 2 + 1);
        tokio::select! {
            () = sleep(Duration::from_millis(pause_ms)) => {}
            () = self.back.notified() => {}
        }
    }

    /// A connection that is not one of the pool's, for one request.
    pub fn lend(self: &Rc<Self>, connection: Rc<Connection>) -> Lease {
        self.lease(connection, Role::Read)
    }

    fn lease(self: &Rc<Self>, connection: Rc<Connection>, role: Role) -> Lease {
        Lease { pool: self.clone(), connection, role, is_used: Cell::new(false) }
    }

    fn came(self: &Rc<Self>, role: Role, connection: &Rc<Connection>) {
        let mut state = self.state.borrow_mut();
        if state.is_away() && std::mem::replace(&mut state.was_reached, true) {
            self.changed_at.set((self.now)());
            // Nobody need sleep out his pause.
            self.back.notify_waiters();
            tracing::info!("the database is back");
        }
        state.reason.clear();
        match role {
            Role::Read => state.reader = Some(connection.clone()),
            Role::Write => {
                state.writers += 1;
                drop(state);
                self.give_back(connection.clone());
            }
        }
    }

    fn went(&self, role: Role, connection: &Rc<Connection>, reason: &str) {
        let mut state = self.state.borrow_mut();
        match role {
            Role::Read => state.reader = None,
            Role::Write => {
                state.writers -= 1;
                state.idle.retain(|idle| !Rc::ptr_eq(idle, connection));
            }
        }
        if state.is_away() {
            state.waiting.clear();
            self.changed_at.set((self.now)());
            tracing::error!(reason, "the database is away");
        }
    }

    /// An attempt to connect has failed; an empty reason stands for none so far.
    fn failed(&self, reason: String) {
        let mut state = self.state.borrow_mut();
        if !reason.is_empty() && state.reason != reason {
            tracing::warn!(reason, "the database cannot be reached");
            state.reason = reason;
        }
    }

    /// Lets the next use a connection for writes, if it may still be used.
    fn give_back(self: &Rc<Self>, connection: Rc<Connection>) {
        if !connection.is_usable() {
            return;
        }
        let mut lease = self.lease(connection, Role::Write);
        loop {
            let next = self.state.borrow_mut().waiting.pop_front();
            let Some(next) = next else { break };
            // Who does not wait any more hands it back.
            match next.send(lease) {
                Ok(()) => return,
                Err(returned) => lease = returned,
            }
        }
        lease.role = Role::Read;
        self.state.borrow_mut().idle.push(lease.connection.clone());
    }
}

impl State {
    fn is_away(&self) -> bool {
        self.reader.is_none() && self.writers == 0
    }
}

impl Lease {
    /// The request is done, whatever came of it.
    pub fn served(self) {
        self.is_used.set(false);
    }
}

impl Deref for Lease {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.is_used.set(true);
        &self.connection
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.is_used.get() {
            self.connection.retire();
        }
        if self.role == Role::Write {
            self.pool.give_back(self.connection.clone());
        }
    }
}

impl Opened {
    /// For use before it is given to a keeper.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// For use while a keeper has it.
    pub fn shared(&self) -> Rc<Connection> {
        self.connection.clone()
    }

    /// Waits until the server has ended it, or somebody of ours has retired it, and tells why it has ended.
    pub async fn ended(&mut self) -> String {
        tokio::select! {
            reason = &mut self.driver => reason.unwrap_or_else(|_| "its task has stopped".to_owned()),
            () = self.retired.notified() => {
                self.driver.abort();
                "a request was given up, and its connection with it".to_owned()
            }
        }
    }
}

/// Opens a connection and sets how it works, within the time that settings give.
pub(super) async fn open(settings: &Settings, tls: MakeRustlsConnect) -> Result<Opened, String> {
    let within = Duration::from_millis(settings.connect_ms_max);
    match timeout(within, connect(settings, tls)).await {
        Ok(opened) => opened,
        Err(_) => Err(format!("no answer within {} ms", settings.connect_ms_max)),
    }
}

async fn connect(settings: &Settings, tls: MakeRustlsConnect) -> Result<Opened, String> {
    let mut config = settings.address.config.clone();
    let each_ms = settings.connect_ms_max / (config.get_hosts().len().max(1) as u64);
    config.connect_timeout(Duration::from_millis(each_ms));
    config.keepalives_idle(Duration::from_secs(KEEPALIVE_S));
    let (client, driver) = config.connect(tls).await.map_err(|error| words(&error))?;
    let driver = spawn_local(async move {
        match driver.await {
            Ok(()) => "the connection was closed".to_owned(),
            Err(error) => words(&error),
        }
    });
    let setup = format!(
        "SET statement_timeout = {query_ms}; SET idle_in_transaction_session_timeout = {query_ms};
         SET default_transaction_isolation = 'read committed'; SET client_min_messages = 'warning';
         SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
        query_ms = settings.query_ms_max
    );
    if let Err(error) = client.batch_execute(&setup).await {
        driver.abort();
        return Err(words(&error));
    }
    let retired = Rc::new(Notify::new());
    Ok(Opened { connection: Rc::new(Connection::new(client, retired.clone())), driver, retired })
}

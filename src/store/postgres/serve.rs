//! The desk: takes requests as they come, lets those that share nothing overlap, and answers each.
//!
//! A request waits for its turn, then for a connection, both within one bound; then it has the time of a query. An
//! answer to a write is sent when it is durable. When nobody can know whether it is (the connection broke at its
//! commit), its asker is told that by the answer's absence, and asks again: every write may be repeated. A write that
//! may wait goes into the journal in both cases. Deliberately absent: SQL (one file per group has it).

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::backlog::Backlog;
use super::connection::{Connection, Result as Queried};
use super::gather::Gather;
use super::order::{Order, Turn, keys};
use super::pool::{Away, Lease, Pool};
use super::tenure::{self, Tenure};
use super::{Settings, accounts, calls, pairs, running, sessions};
use crate::base::{TokenHash, UserId};
use crate::link::{Asked, Incoming};
use crate::message::model::Login;
use crate::message::store::{InstanceId, Profile, Reply, Request, Standing};

/// What the client waits longer than the server, ms: the server's own word is the better one.
const GRACE_MS: u64 = 500;
/// What is under way when the link is closed has so long; then it is given up, ms.
const STOP_MS_MAX: u64 = 2_000;

/// What serving a request needs.
struct Desk<S, P> {
    pool: Rc<Pool>,
    tenure: Rc<Tenure>,
    backlog: Option<Rc<Backlog>>,
    order: Order,
    sessions: Rc<Gather<TokenHash, Login, S>>,
    profiles: Rc<Gather<UserId, Profile, P>>,
    wait_max: Duration,
    query_max: Duration,
    accepted: Cell<usize>,
    idle: Notify,
    /// The stop has no more time for the database.
    gives_up: watch::Sender<bool>,
}

/// What came of a request.
enum Outcome {
    Answered(Reply),
    /// The database was not asked, for what the reply says.
    Unserved(Reply),
    /// It may or may not be stored.
    Uncertain(String),
}

/// Serves until the link is closed and all is answered; then lets go of the calls that still run.
pub(super) async fn run(
    (pool, tenure): (Rc<Pool>, Rc<Tenure>),
    backlog: Option<Rc<Backlog>>,
    settings: &Settings,
    mut incoming: Incoming<Request, Reply>,
) {
    let query_max = Duration::from_millis(settings.query_ms_max + GRACE_MS);
    let desk = Rc::new(Desk {
        order: Order::default(),
        sessions: Gather::new(pool.clone(), query_max, async |connection: &Connection, tokens: &[TokenHash]| {
            sessions::find(connection, tokens).await
        }),
        profiles: Gather::new(pool.clone(), query_max, async |connection: &Connection, users: &[UserId]| {
            accounts::profiles(connection, users).await
        }),
        wait_max: Duration::from_millis(settings.connect_ms_max),
        query_max,
        accepted: Cell::new(0),
        idle: Notify::new(),
        gives_up: watch::Sender::new(false),
        backlog,
        tenure,
        pool,
    });
    while let Some(Asked { request, answer }) = incoming.received().await {
        if let Request::Standing = request {
            answer.send(Reply::Standing(desk.standing()));
            continue;
        }
        if desk.pool.is_away() && (desk.backlog.is_none() || !request.may_wait()) {
            answer.send(Reply::Away);
            continue;
        }
        if desk.accepted.get() >= settings.queue_len_max {
            answer.send(Reply::Failed("too many requests are waiting for the database".to_owned()));
            continue;
        }
        desk.accepted.set(desk.accepted.get() + 1);
        // Its place is taken here, in the order of asking.
        let turn = desk.order.enter(keys(&request));
        let desk = desk.clone();
        spawn_local(async move {
            match desk.settle(&request, turn).await {
                Outcome::Answered(reply) | Outcome::Unserved(reply) => answer.send(reply),
                Outcome::Uncertain(reason) => tracing::warn!(reason, "whether a write was stored is not known"),
            }
            desk.accepted.set(desk.accepted.get() - 1);
            desk.idle.notify_one();
        });
    }
    if timeout(Duration::from_millis(STOP_MS_MAX), desk.is_idle()).await.is_err() {
        desk.gives_up.send_replace(true);
        desk.is_idle().await;
    }
    // Who cannot be told finds out by the lock, which goes with the connection.
    let _ = timeout(Duration::from_millis(STOP_MS_MAX), desk.tenure.release()).await;
}

impl<S, P> Desk<S, P>
where
    S: AsyncFn(&Connection, &[TokenHash]) -> Queried<Vec<(TokenHash, Login)>> + 'static,
    P: AsyncFn(&Connection, &[UserId]) -> Queried<Vec<(UserId, Profile)>> + 'static,
{
    fn standing(&self) -> Standing {
        let journal = self.backlog.as_ref().map(|backlog| backlog.standing());
        Standing { reachable: !self.pool.is_away(), since: self.pool.changed_at(), journal }
    }

    /// Waits until all that was accepted is answered.
    async fn is_idle(&self) {
        while self.accepted.get() > 0 {
            self.idle.notified().await;
        }
    }

    /// Serves one request; what the database may not have goes into the journal, if it may wait.
    async fn settle(&self, request: &Request, mut turn: Turn) -> Outcome {
        let mut gives_up = self.gives_up.subscribe();
        let outcome = tokio::select! {
            outcome = self.serve(request, &mut turn) => outcome,
            _ = gives_up.wait_for(|gives_up| *gives_up) => {
                let reason = "the server stops".to_owned();
                if request.is_write() { Outcome::Uncertain(reason) } else { Outcome::Unserved(Reply::Failed(reason)) }
            }
        };
        let (Outcome::Unserved(_) | Outcome::Uncertain(_), Some(backlog)) = (&outcome, &self.backlog) else {
            return outcome;
        };
        if backlog.append(request).await { Outcome::Answered(Reply::Journaled) } else { outcome }
    }

    /// Carries out one request when its turn has come.
    async fn serve(&self, request: &Request, turn: &mut Turn) -> Outcome {
        let ready = async {
            turn.come().await;
            if self.pool.is_away() {
                return Err(Away);
            }
            if let Some(backlog) = &self.backlog {
                backlog.applied().await;
            }
            match request {
                Request::Session { .. } | Request::Profile { .. } => Ok(None),
                Request::CallOwners | Request::TakeCalls { .. } => {
                    self.tenure.connection().map(|connection| Some(self.pool.lend(connection))).ok_or(Away)
                }
                request if !request.is_write() => self.pool.reader().await.map(Some),
                _ => self.pool.writer().await.map(Some),
            }
        };
        let lease = match timeout(self.wait_max, ready).await {
            Ok(Ok(lease)) => lease,
            Ok(Err(Away)) => return Outcome::Unserved(Reply::Away),
            Err(_) => {
                let reason = "the request waited too long for the database".to_owned();
                return Outcome::Unserved(Reply::Failed(reason));
            }
        };
        match (request, lease) {
            (_, Some(lease)) => self.perform(lease, request).await,
            (Request::Session { token, .. }, None) => {
                let found = self.sessions.get(*token).await;
                found.map_or_else(Outcome::Answered, |login| Outcome::Answered(Reply::Session(login.map(Box::new))))
            }
            (Request::Profile { user }, None) => {
                let found = self.profiles.get(*user).await;
                found.map_or_else(Outcome::Answered, |profile| Outcome::Answered(Reply::Profile(profile.map(Box::new))))
            }
            (_, None) => unreachable!("only gathered reads go without a connection of their own"),
        }
    }

    /// Runs the request's statements, in the time of a query.
    async fn perform(&self, lease: Lease, request: &Request) -> Outcome {
        let Ok(done) = timeout(self.query_max, dispatch(&lease, self.tenure.instance(), request)).await else {
            let reason = "the database did not answer in time".to_owned();
            return if request.is_write() { Outcome::Uncertain(reason) } else { failed(reason) };
        };
        lease.served();
        match done {
            Ok(reply) => Outcome::Answered(reply),
            Err(error) if error.is_certain() || !request.is_write() => failed(error.to_string()),
            Err(error) => Outcome::Uncertain(error.to_string()),
        }
    }
}

/// The refusal that goes to the asker's log: nothing was stored.
fn failed(reason: String) -> Outcome {
    Outcome::Answered(Reply::Failed(reason))
}

/// Carries out one request of this process on a connection; a write has it alone.
async fn dispatch(connection: &Connection, me: InstanceId, request: &Request) -> Queried<Reply> {
    match request {
        Request::SignUp(sign_up) => accounts::sign_up(connection, sign_up).await,
        Request::Session { token, .. } => {
            let found = sessions::find(connection, &[*token]).await?.pop();
            Ok(Reply::Session(found.map(|(_, login)| Box::new(login))))
        }
        Request::Link { user, token, email, password_hash, expires_at, now } => {
            accounts::link(connection, (*user, *token), (email, password_hash), *expires_at, *now).await
        }
        Request::AccountByEmail { email } => accounts::by_email(connection, email).await,
        Request::AccountByUser { user } => accounts::by_user(connection, *user).await,
        Request::LogIn { user, session, now } => {
            connection.transaction(async || sessions::log_in(connection, *user, session, *now).await).await
        }
        Request::Profile { user } => {
            let found = accounts::profiles(connection, &[*user]).await?.pop();
            Ok(Reply::Profile(found.map(|(_, profile)| Box::new(profile))))
        }
        Request::SetSocials { user, socials, now } => accounts::set_socials(connection, *user, socials, *now).await,
        Request::Ping => connection.run("SELECT 1").await.map(|()| Reply::Done),
        Request::Standing => unreachable!("the desk answers it"),
        Request::Relations { user, now } => pairs::relations(connection, *user, *now).await,
        Request::Pair { caller, callee, now } => pairs::pair(connection, *caller, *callee, *now).await,
        Request::SetCooldown { pair, until } => {
            pairs::set_cooldown(connection, *pair, *until).await?;
            Ok(Reply::Done)
        }
        Request::StartCall(call) => running::start(connection, me, call).await,
        Request::KeepCalls(progress) => {
            connection.transaction(async || running::keep(connection, me, progress).await).await
        }
        Request::CallOwners => tenure::owners(connection, me).await,
        Request::TakeCalls { round, missed } => {
            connection.transaction(async || tenure::take_calls(connection, me, *round, missed).await).await
        }
        Request::RunningCalls { round, after, limit } => running::list(connection, (me, *round), *after, *limit).await,
        Request::HasCall { user } => running::has(connection, *user).await,
        Request::FinishCall(call) => {
            connection.transaction(async || calls::finish(connection, call, Some(me)).await).await
        }
        Request::History { user, limit } => calls::history(connection, *user, *limit).await,
        Request::Sweep { now } => {
            connection
                .transaction(async || {
                    sessions::sweep(connection, *now).await?;
                    pairs::sweep(connection, *now).await
                })
                .await?;
            Ok(Reply::Done)
        }
        Request::Archive { before } => calls::archive(connection, *before).await,
    }
}

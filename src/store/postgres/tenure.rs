//! Which process has a call: each one holds an advisory lock of its own number on a connection of its own, for as long as
//! it lives. So Postgres itself knows who is gone, however he went.
//!
//! Used on the store's thread; one connection, kept up like the others. What is gone with it (the lock) is taken again
//! by the next, before anybody is likely to have missed it. What looks for calls to take over, and takes them, runs on this
//! connection: who has lost his own lock takes nothing. Not here: for how long one must be missed (`boot/running.rs`).

use std::cell::RefCell;
use std::rc::Rc;

use tokio_postgres_rustls::MakeRustlsConnect;

use super::Settings;
use super::connection::{Connection, Result as Queried};
use super::pool::{self, Opened, Pool};
use crate::message::store::{CallOwner, InstanceId, Reply};

/// First half of the keys of these locks; nothing but ours: "duet" in ASCII.
const CLASS: i32 = 0x6475_6574;
/// A machine that vanished without a word is given up by the server after some 25 s, not after its usual two hours.
const KEEPALIVES: &str = "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3";

/// This process's standing among those that share the database.
pub(super) struct Tenure {
    instance: InstanceId,
    /// The connection that holds the lock, while there is one.
    connection: RefCell<Option<Rc<Connection>>>,
}

impl Tenure {
    /// Not held yet.
    pub fn new(instance: InstanceId) -> Rc<Self> {
        Rc::new(Self { instance, connection: RefCell::default() })
    }

    /// Whom calls that begin here belong to.
    pub fn instance(&self) -> InstanceId {
        self.instance
    }

    /// The connection that holds the lock.
    pub fn connection(&self) -> Option<Rc<Connection>> {
        self.connection.borrow().clone().filter(|connection| connection.is_usable())
    }

    /// Opens a connection and takes the lock.
    pub async fn take(&self, settings: &Settings, tls: MakeRustlsConnect) -> Result<Opened, String> {
        let opened = pool::open(settings, tls).await?;
        // A server that does not know them goes by its own.
        let _ = opened.connection().run(KEEPALIVES).await;
        let lock = format!("SELECT pg_advisory_lock({CLASS}, {})", self.instance.0);
        opened.connection().run(&lock).await.map_err(|error| error.to_string())?;
        Ok(opened)
    }

    /// Keeps the lock, for ever.
    pub async fn keep(self: Rc<Self>, pool: Rc<Pool>, settings: Rc<Settings>, tls: MakeRustlsConnect, first: Opened) {
        let (mut failures, mut opened) = (0, Ok(first));
        loop {
            match opened {
                Ok(mut open) => {
                    self.connection.replace(Some(open.shared()));
                    // Why it has ended the pool says, of its own connections.
                    let _ = open.ended().await;
                    self.connection.replace(None);
                    failures = 0;
                }
                Err(reason) if failures == 1 && !pool.is_away() => {
                    tracing::warn!(
                        reason,
                        "the lock by which other processes know that this one lives cannot be taken"
                    );
                }
                Err(_) => {}
            }
            if failures > 0 {
                pool.pause(failures).await;
            }
            failures += 1;
            opened = self.take(&settings, tls.clone()).await;
        }
    }

    /// Lets go of all calls: whoever else is there may have them at once.
    pub async fn release(&self) {
        let Some(connection) = self.connection() else { return };
        let sql = "UPDATE running_calls SET owner = NULL WHERE owner = $1";
        if let Err(error) = connection.execute(sql, &[&self.instance.0]).await {
            tracing::warn!(%error, "running calls are not handed over: the next process takes them when this one is missed");
        }
    }
}

/// All others that live or have calls.
pub(super) async fn owners(connection: &Connection, me: InstanceId) -> Queried<Reply> {
    let sql = format!(
        "SELECT owner, bool_or(is_alive) FROM (
             SELECT objid::bigint::integer AS owner, true AS is_alive FROM pg_locks
             WHERE locktype = 'advisory' AND classid = {CLASS} AND objsubid = 2 AND objid::bigint <= {} AND granted
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
             UNION ALL
             SELECT DISTINCT owner, false FROM running_calls) AS known
         WHERE owner IS DISTINCT FROM $1 GROUP BY owner",
        i32::MAX
    );
    let rows = connection.rows(&sql, &[&me.0]).await?;
    let owner = |row: &tokio_postgres::Row| {
        let instance = row.try_get::<_, Option<i32>>(0)?.map(InstanceId);
        Ok(CallOwner { instance, is_alive: row.try_get(1)? })
    };
    rows.iter().map(owner).collect::<Queried<_>>().map(|owners| Reply::CallOwners(Some(owners)))
}

/// Takes over the calls that nobody has, and those of `missed` who are not back at this moment; noted under `round`.
/// Inside a transaction, whose end also ends the hold on their locks.
pub(super) async fn take_calls(
    connection: &Connection,
    me: InstanceId,
    round: i32,
    missed: &[InstanceId],
) -> Queried<Reply> {
    let missed: Vec<i32> = missed.iter().map(|instance| instance.0).collect();
    let sql =
        format!("SELECT owner FROM unnest($1::integer[]) AS owner WHERE pg_try_advisory_xact_lock({CLASS}, owner)");
    let rows = connection.rows(&sql, &[&missed]).await?;
    let gone = rows.iter().map(|row| Ok(row.try_get(0)?)).collect::<Queried<Vec<i32>>>()?;
    // In the order in which whoever keeps calls locks them.
    let sql = "UPDATE running_calls SET owner = $1, taken_in = $2 WHERE call_id IN (
             SELECT call_id FROM running_calls WHERE owner IS NULL OR owner = ANY($3)
             ORDER BY call_id FOR NO KEY UPDATE)";
    connection.execute(sql, &[&me.0, &round, &gone]).await?;
    Ok(Reply::Done)
}

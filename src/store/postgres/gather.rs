//! Point reads that arrive together go out as one statement: while one is under way, the next gathers.
//!
//! Bounds: the desk's, on requests that wait; [`KEYS_MAX`] of one statement. A failure is the failure of all in it.

use std::cell::{Cell, RefCell};
use std::mem;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::connection::{Connection, Result as Queried};
use super::pool::Pool;
use crate::message::store::Reply;

/// Keys of one statement.
const KEYS_MAX: usize = 256;

type Found<V> = Result<Option<V>, Reply>;

/// Reads of one kind: what `fetch` finds for keys.
pub(super) struct Gather<K, V, F> {
    pool: Rc<Pool>,
    fetch: F,
    /// Of one statement, from the moment it may be sent.
    within: Duration,
    waiting: RefCell<Vec<(K, oneshot::Sender<Found<V>>)>>,
    is_running: Cell<bool>,
}

impl<K, V, F> Gather<K, V, F>
where
    K: Copy + PartialEq + 'static,
    V: Clone + 'static,
    F: AsyncFn(&Connection, &[K]) -> Queried<Vec<(K, V)>> + 'static,
{
    /// Nobody waits yet.
    pub fn new(pool: Rc<Pool>, within: Duration, fetch: F) -> Rc<Self> {
        Rc::new(Self { pool, fetch, within, waiting: RefCell::default(), is_running: Cell::new(false) })
    }

    /// What there is for `key`.
    ///
    /// # Errors
    /// The reply to who asked.
    pub async fn get(self: &Rc<Self>, key: K) -> Found<V> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.borrow_mut().push((key, sender));
        if !self.is_running.replace(true) {
            spawn_local(self.clone().run());
        }
        receiver.await.unwrap_or_else(|_| Err(Reply::Failed("the read was given up".to_owned())))
    }

    /// Statement after statement, until nobody waits.
    async fn run(self: Rc<Self>) {
        loop {
            let mut asked = mem::take(&mut *self.waiting.borrow_mut());
            if asked.is_empty() {
                break self.is_running.set(false);
            }
            let rest = asked.split_off(asked.len().min(KEYS_MAX));
            self.waiting.borrow_mut().splice(0..0, rest);
            let keys: Vec<K> = asked.iter().map(|(key, _)| *key).collect();
            let found = self.read(&keys).await;
            for (key, answer) in asked {
                let value = |found: &Vec<(K, V)>| found.iter().find(|(other, _)| *other == key).map(|(_, v)| v.clone());
                // Who does not wait any more needs no answer.
                let _ = answer.send(found.as_ref().map(value).map_err(Clone::clone));
            }
        }
    }

    async fn read(&self, keys: &[K]) -> Result<Vec<(K, V)>, Reply> {
        let lease = self.pool.reader().await.map_err(|_| Reply::Away)?;
        let found = match timeout(self.within, (self.fetch)(&lease, keys)).await {
            Ok(found) => found,
            Err(_) => return Err(Reply::Failed("the database did not answer in time".to_owned())),
        };
        lease.served();
        found.map_err(|error| Reply::Failed(error.to_string()))
    }
}

//! Calls that come from another process while this one serves already, and users who come before their call does.
//!
//! While others share the store, who authenticates and is in a call that another process still has is answered only once
//! it has come here: told earlier that he is in no call, a frontend would take it for over. Bound: [`HANDOVER_WAIT_MS`] for
//! each. Owned by the shard; who looks for such calls is boot's thread, which tells by [`super::Envelope::TakeOver`].

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future::or;
use tokio::sync::Notify;

use crate::base::UserId;
use crate::base::limits::{HANDOVER_LOOK_MS, HANDOVER_WAIT_MS};
use crate::domain::{Input, Resumed};
use crate::message::store::{Reply, Request};
use crate::runtime::sleep;

use super::Shard;

/// What a shard knows of others.
pub(super) struct Handover {
    has_others: Cell<bool>,
    came: Notify,
}

impl Handover {
    pub fn new(has_others: bool) -> Self {
        Self { has_others: Cell::new(has_others), came: Notify::new() }
    }
}

impl Shard {
    /// Goes on with calls of another process; whether there still are others.
    pub(super) fn take_over(self: &Rc<Self>, calls: Vec<Resumed>, has_others: bool) {
        if !calls.is_empty() {
            self.handle(Input::TakeOver(calls));
        }
        self.handover.has_others.set(has_others);
        self.handover.came.notify_waiters();
    }

    /// What a rule needs to know; a session only when its user's call has come, if he is in one.
    pub(super) async fn fact(&self, request: Request) -> Option<Reply> {
        let fact = self.stores.fact(self.now(), request.clone()).await;
        let Some(Reply::Session(Some(login))) = &fact else { return fact };
        if !login.active || !self.await_call(login.user()).await {
            return fact;
        }
        // A newer login may have ended it meanwhile.
        self.stores.fact(self.now(), request).await
    }

    /// Waits for the call of a user whom another process may have in one; false if that took no time.
    async fn await_call(&self, user: UserId) -> bool {
        let (from, mut has_waited) = (self.now(), false);
        let is_to_wait = || self.handover.has_others.get() && !self.stopping.get();
        while is_to_wait() && self.now() < from + HANDOVER_WAIT_MS {
            let came = self.handover.came.notified();
            if self.domain.borrow().engagement(user).is_some() {
                break;
            }
            has_waited = true;
            let Ok(Reply::HasCall(true)) = self.stores.request(Request::HasCall { user }).await else { break };
            or(came, sleep(Duration::from_millis(HANDOVER_LOOK_MS))).await;
        }
        has_waited
    }
}

//! Which requests may overlap: those that share nothing. Those that share a user, an e-mail or a code take turns.
//!
//! Turns are in the order of asking, as on the embedded store, though several connections work at once. One who gives
//! up lets the next stay behind whoever is still before it. Bound: a line per request that the desk has accepted.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use tokio::sync::oneshot;

use crate::base::UserId;
use crate::base::collections::Map;
use crate::message::store::Request;

/// What two requests may have in common.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Key {
    User(UserId),
    Email(String),
    Code(String),
}

/// The queues of all keys.
#[derive(Clone, Default)]
pub(super) struct Order(Rc<RefCell<Queues>>);

#[derive(Default)]
struct Queues {
    /// Peers choose e-mails and the users that their tokens claim: no hash map.
    by_key: BTreeMap<Key, VecDeque<u64>>,
    blocked: Map<u64, Blocked>,
    last_ticket: u64,
}

/// One who is not at the front of all its queues.
struct Blocked {
    behind: usize,
    call: oneshot::Sender<()>,
}

/// A place in the queues of some keys, given up when dropped.
pub(super) struct Turn {
    order: Order,
    ticket: u64,
    keys: Vec<Key>,
    called: Option<oneshot::Receiver<()>>,
}

impl Order {
    /// Takes the last place for each of `keys`.
    pub fn enter(&self, mut keys: Vec<Key>) -> Turn {
        if keys.len() == 2 && keys[0] == keys[1] {
            keys.pop();
        }
        let mut queues = self.0.borrow_mut();
        queues.last_ticket += 1;
        let ticket = queues.last_ticket;
        let mut behind = 0;
        for key in &keys {
            let queue = queues.by_key.entry(key.clone()).or_default();
            behind += usize::from(!queue.is_empty());
            queue.push_back(ticket);
        }
        let called = (behind > 0).then(|| {
            let (call, called) = oneshot::channel();
            queues.blocked.insert(ticket, Blocked { behind, call });
            called
        });
        Turn { order: self.clone(), ticket, keys, called }
    }
}

impl Turn {
    /// Waits until all that were asked before, and share a key, are done.
    pub async fn come(&mut self) {
        if let Some(called) = self.called.take() {
            // The caller cannot be dropped before it has called: it goes when the turn itself does.
            let _ = called.await;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.order.0.borrow_mut().leave(self.ticket, &self.keys);
    }
}

impl Queues {
    fn leave(&mut self, ticket: u64, keys: &[Key]) {
        self.blocked.remove(&ticket);
        for key in keys {
            let Some(queue) = self.by_key.get_mut(key) else { continue };
            let was_first = queue.front() == Some(&ticket);
            if was_first {
                queue.pop_front();
            } else {
                queue.retain(|other| *other != ticket);
            }
            match queue.front().copied() {
                None => drop(self.by_key.remove(key)),
                Some(next) if was_first => self.advance(next),
                Some(_) => {}
            }
        }
    }

    /// `ticket` has come to the front of one more queue.
    fn advance(&mut self, ticket: u64) {
        let Some(blocked) = self.blocked.get_mut(&ticket) else { return };
        blocked.behind -= 1;
        if blocked.behind == 0
            && let Some(blocked) = self.blocked.remove(&ticket)
        {
            // Who does not wait any more is about to leave.
            let _ = blocked.call.send(());
        }
    }
}

/// What `request` touches.
pub(super) fn keys(request: &Request) -> Vec<Key> {
    match request {
        Request::SignUp(sign_up) => {
            let code = sign_up.invite_code.clone().map(Key::Code);
            [Key::User(sign_up.user)].into_iter().chain(code).collect()
        }
        Request::Link { user, email, .. } => vec![Key::User(*user), Key::Email(email.clone())],
        Request::AccountByEmail { email } => vec![Key::Email(email.clone())],
        Request::Session { user, .. }
        | Request::AccountByUser { user }
        | Request::LogIn { user, .. }
        | Request::Profile { user }
        | Request::SetSocials { user, .. }
        | Request::Relations { user, .. }
        | Request::HasCall { user }
        | Request::History { user, .. } => vec![Key::User(*user)],
        Request::Pair { caller, callee, .. } => vec![Key::User(*caller), Key::User(*callee)],
        Request::SetCooldown { pair: (one, other), .. } => vec![Key::User(*one), Key::User(*other)],
        Request::StartCall(call) => vec![Key::User(call.caller), Key::User(call.callee)],
        Request::FinishCall(call) => vec![Key::User(call.caller), Key::User(call.callee)],
        // A call is kept only after its start was answered, and passed over once it has ended.
        Request::KeepCalls(_)
        | Request::CallOwners
        | Request::TakeCalls { .. }
        | Request::RunningCalls { .. }
        | Request::Sweep { .. }
        | Request::Archive { .. }
        | Request::Ping
        | Request::Standing => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    fn code(text: &str) -> Key {
        Key::Code(text.to_owned())
    }

    fn has_come(turn: &mut Turn) -> bool {
        let called = turn.called.as_mut();
        called.is_none_or(|called| block_on(poll_once(called)).is_some())
    }

    #[test]
    fn those_that_share_a_key_take_turns_and_the_others_do_not() {
        let order = Order::default();
        let mut first = order.enter(vec![code("a"), code("b")]);
        let mut other = order.enter(vec![code("c")]);
        let mut second = order.enter(vec![code("b"), code("c")]);
        assert_eq!([has_come(&mut first), has_come(&mut other), has_come(&mut second)], [true, true, false]);
        drop(first);
        assert!(!has_come(&mut second), "it is behind two");
        drop(other);
        assert!(has_come(&mut second));
        drop(second);
        assert!(order.0.borrow().by_key.is_empty() && order.0.borrow().blocked.is_empty());
    }

    #[test]
    fn who_gives_up_lets_nobody_pass_the_first() {
        let order = Order::default();
        let first = order.enter(vec![code("a"), code("a")]);
        let second = order.enter(vec![code("a")]);
        let mut third = order.enter(vec![code("a")]);
        drop(second);
        assert!(!has_come(&mut third));
        drop(first);
        assert!(has_come(&mut third));
    }
}

//! The server is about to stop: what cannot outlive it is resolved, what can is left alone.
//!
//! Invites are in memory only: both sides hear that theirs is over, as when the other has gone (D5), and nobody has a
//! cooldown for it. An accept that is under way may still succeed. Calls go on in the next process (`resume`).

use crate::base::UserId;
use crate::message::ServerEvent;
use crate::message::server::DeclineReason;

use super::counts::InviteEnd;
use super::user::User;
use super::{Domain, Effects};

impl Domain {
    /// From now on no invite is made, and no grace ends.
    pub(super) fn drain(&mut self, out: &mut Effects) {
        self.draining = true;
        let waits = |user: &User| !user.incoming.is_empty() || !user.outgoing.is_empty();
        let waiting = self.users.iter().filter(|(_, user)| waits(user)).map(|(id, _)| *id);
        let mut waiting: Vec<UserId> = waiting.collect();
        waiting.sort();
        for id in waiting {
            while let Some(outgoing) = self.take_outgoing(id, InviteEnd::Offline, |_| true) {
                let (invite, reason) = (Some(outgoing.invite), DeclineReason::Offline);
                self.send_first(id, outgoing.conn, &ServerEvent::Declined { invite, reason }, out);
            }
            let incoming = self.users[&id].incoming.iter().map(|incoming| incoming.invite);
            for invite in incoming.collect::<Vec<_>>() {
                if self.take_incoming(id, invite).is_some() {
                    self.send_all(id, &ServerEvent::Rescinded { invite }, out);
                }
            }
            self.forget_idle(id);
        }
    }
}

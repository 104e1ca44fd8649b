//! A connection becomes a user's and stops being it: authentication, grace, newer logins (contract 3.2, 3.5, D6-D8, D17, D24).

use crate::base::limits::GRACE_MS;
use crate::base::{ConnId, Time, Token, TokenHash, UserId};
use crate::message::model::Login;
use crate::message::server::DeclineReason;
use crate::message::shard::EndCause;
use crate::message::store::Reply;
use crate::message::{Leave, ServerEvent};

use super::access::{Standing, standing};
use super::user::{Ghost, Socket, Stance, User};
use super::{Dismissal, Domain, Effect, Effects, Timer};

impl Domain {
    /// Socket.IO CONNECT: a good token binds, a bad one leaves the connection open but unbound, a ban refuses it.
    pub(super) fn connect(&mut self, now: Time, conn: ConnId, fact: Option<Reply>, out: &mut Effects) {
        let login = login_of(fact);
        match standing(now, login.as_deref()) {
            Standing::Banned => out.push(Effect::Refuse { conn, message: "Account suspended" }),
            Standing::Valid => {
                out.push(Effect::Accept { conn });
                self.bind(now, conn, &login.expect("a valid login is there"), out);
            }
            Standing::Expired | Standing::Invalidated => out.push(Effect::Accept { conn }),
        }
    }

    /// The `auth` event: answered every time, also on a connection that is bound already.
    pub(super) fn auth(
        &mut self,
        now: Time,
        conn: ConnId,
        token: Option<Token>,
        fact: Option<Reply>,
        out: &mut Effects,
    ) {
        if token.is_some() && !matches!(fact, Some(Reply::Session(_))) {
            return out.error(conn, "The service is busy, try again");
        }
        let login = login_of(fact);
        match standing(now, login.as_deref()) {
            Standing::Banned => {
                out.send(conn, ServerEvent::AuthBanned);
                out.push(Effect::Dismiss { conn, why: Dismissal::Banned });
            }
            Standing::Valid => self.bind(now, conn, &login.expect("a valid login is there"), out),
            Standing::Expired | Standing::Invalidated => out.send(conn, ServerEvent::AuthFailed),
        }
    }

    fn bind(&mut self, now: Time, conn: ConnId, login: &Login, out: &mut Effects) {
        let id = login.user();
        debug_assert_eq!(self.placement.home(id), self.me, "a connection moves home before it is bound");
        if self.bound.get(&conn).is_some_and(|bound| *bound != id) {
            self.left(now, conn, Leave::Deliberate, out);
        }
        let user = self.users.entry(id).or_insert_with(|| Box::new(User::new(login)));
        user.paid = login.paid;
        if user.card != login.card {
            user.card = login.card.clone();
        }
        if let Some(socket) = user.socket(conn) {
            socket.token = login.token;
            return out.send(conn, ServerEvent::AuthSuccess);
        }
        let queued = user.ghosts.pop().is_some_and(|ghost| ghost.stance.queued);
        let stance = Stance { online: true, queued };
        let in_room = user.engaged.as_mut().is_some_and(|engaged| {
            engaged.awaited = false;
            engaged.joined
        });
        user.sockets.reserve_exact(1);
        user.sockets.push(Socket { conn, token: login.token, stance, in_room, entered: false });
        if stance.queued {
            self.directory.watch(conn);
        }
        self.bound.insert(conn, id);
        out.push(Effect::Bind { conn });
        out.send(conn, ServerEvent::AuthSuccess);
        self.dirtied(now, id);
        self.bring_up_to_date(id, conn, out);
        self.close_oldest(now, id, out);
    }

    /// What a new connection of a user missed: ringing invites, the start of a call, held signals, its end.
    ///
    /// `call:start` is repeated until the room was joined: it may have been sent to nobody (a caller in his grace), or
    /// to a connection that was dead already.
    fn bring_up_to_date(&mut self, id: UserId, conn: ConnId, out: &mut Effects) {
        let Some(user) = self.users.get_mut(&id) else { return };
        for invite in &user.incoming {
            let seconds = invite.seconds.get();
            out.send(conn, ServerEvent::CallNotify { invite: invite.invite, from: invite.from.clone(), seconds });
        }
        match user.engaged.as_mut() {
            Some(engaged) if engaged.joined => engaged.let_go(conn, out),
            Some(engaged) if engaged.begun => out.send(conn, engaged.start()),
            _ => {}
        }
        if user.engaged.is_none()
            && let Some(session) = self.recent.untold(id)
        {
            out.send(conn, ServerEvent::Finalized { session });
        }
    }

    fn close_oldest(&mut self, now: Time, id: UserId, out: &mut Effects) {
        let max = self.settings.user_connections_max;
        while let Some(conn) = self.users.get(&id).and_then(|user| user.surplus(max)) {
            out.error(conn, "Too many connections of this account: this one is closed");
            out.push(Effect::Dismiss { conn, why: Dismissal::TooManyConnections });
            self.left(now, conn, Leave::Deliberate, out);
        }
    }

    /// A connection is gone. A lost one leaves a ghost that keeps the user's place for [`GRACE_MS`].
    pub(super) fn left(&mut self, now: Time, conn: ConnId, leave: Leave, out: &mut Effects) {
        let Some(id) = self.bound.remove(&conn) else { return };
        self.directory.unwatch(conn);
        out.push(Effect::Unbind { conn });
        let user = self.users.get_mut(&id).expect("a bound connection has a user");
        let position = user.sockets.iter().position(|socket| socket.conn == conn);
        let socket = user.sockets.remove(position.expect("a bound connection is one of its user's"));
        let last = user.sockets.is_empty();
        let between_pages = last && user.engaged.as_ref().is_some_and(|engaged| !engaged.joined);
        if leave == Leave::Lost || between_pages {
            let stance = if leave == Leave::Lost { socket.stance } else { Stance::default() };
            user.haunt(Ghost { stance, until: now + GRACE_MS }, self.settings.user_connections_max);
            self.timers.insert((now + GRACE_MS, Timer::Grace(id)));
        } else if last {
            user.ghosts.clear();
        }
        self.after_leaving(now, id, out);
    }

    /// The grace of one lost connection is over; but none ends while a server that stops lets nobody come back.
    pub(super) fn grace_over(&mut self, now: Time, id: UserId, out: &mut Effects) {
        if self.draining {
            return;
        }
        let Some(user) = self.users.get_mut(&id) else { return };
        let before = user.ghosts.len();
        user.ghosts.retain(|ghost| ghost.until > now);
        if user.ghosts.len() < before {
            self.after_leaving(now, id, out);
        }
    }

    fn after_leaving(&mut self, now: Time, id: UserId, out: &mut Effects) {
        if let Some(user) = self.users.get(&id).filter(|user| !user.is_present()) {
            let is_awaited = user.engaged.as_ref().is_some_and(|engaged| engaged.awaited);
            let cause = if is_awaited { EndCause::NotResumed } else { EndCause::Disconnected };
            self.rescind_all(now, id, out);
            self.end_by(now, id, cause, out);
        }
        self.unavailable(id, DeclineReason::Offline, out);
        self.dirtied(now, id);
    }

    /// A newer login: connections of other sessions are told and closed (contract 6.8, D24).
    pub(super) fn sessions_ended(&mut self, now: Time, id: UserId, except: TokenHash, out: &mut Effects) {
        let Some(user) = self.users.get(&id) else { return };
        let old = user.sockets.iter().filter(|socket| socket.token != except).map(|socket| socket.conn);
        for conn in old.collect::<Vec<_>>() {
            out.send(conn, ServerEvent::SessionInvalidated);
            out.push(Effect::Dismiss { conn, why: Dismissal::SessionInvalidated });
            self.left(now, conn, Leave::Deliberate, out);
        }
    }

    /// Forgets a user about whom there is nothing to remember.
    pub(super) fn forget_idle(&mut self, id: UserId) {
        if self.users.get(&id).is_some_and(|user| user.is_idle()) {
            self.users.remove(&id);
        }
    }
}

fn login_of(fact: Option<Reply>) -> Option<Box<Login>> {
    match fact {
        Some(Reply::Session(login)) => login,
        _ => None,
    }
}

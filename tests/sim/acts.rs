//! What clients do of their own accord, drawn at random: the queue view, the room page, bad luck with the network, and
//! what only hostile clients do.

use duet::base::{CallId, Random, UserId};

use crate::client::Deed;
use crate::plan::Mutant;
use crate::relay_text;
use crate::store::unordered;
use crate::world::{Event, World};

impl World {
    /// One spontaneous act, and the next one planned.
    pub fn act(&mut self, who: usize) {
        if self.clients[who].gone {
            return;
        }
        let at = self.now + 300 + self.random.below(2_500);
        self.schedule(at, Event::Act(who));
        if self.clients[who].stance.is_some() {
            return;
        }
        let client = &self.clients[who];
        match client.pipe {
            None if client.reconnect_at <= self.now => self.connect(who),
            None => {}
            Some(pipe) => {
                if client.playing && self.mishap(who, pipe) {
                    return;
                }
                let client = &self.clients[who];
                match &client.room {
                    _ if !client.authed => self.try_again(who),
                    Some(room) if !client.playing => {
                        let call = room.call;
                        self.end(who, call);
                    }
                    Some(_) => self.act_in_room(who),
                    None if client.playing => self.act_in_queue(who),
                    None => self.give_up(who),
                }
            }
        }
    }

    /// Not authenticated: perhaps the store was down, or the token is void.
    fn try_again(&mut self, who: usize) {
        if self.clients[who].connected && self.random.one_in(4) {
            let user = self.clients[who].user;
            self.clients[who].token = Some(self.store.accounts[&user].token);
            self.authenticate(who);
        }
    }

    /// Bad luck with the transport; says whether there was any.
    fn mishap(&mut self, who: usize, pipe: usize) -> bool {
        let chance = |random: &mut Random, n: u64| n > 0 && random.one_in(n);
        if chance(&mut self.random, self.plan.resets) {
            self.counts.fault("reset");
            self.hang_up(pipe);
            let pause =
                if self.random.one_in(3) { 5_500 + self.random.below(15_000) } else { 200 + self.random.below(2_500) };
            self.dropped(who, pause);
        } else if chance(&mut self.random, self.plan.silences) {
            self.counts.fault("silence");
            self.fall_silent(pipe);
            let at = self.now + 500 + self.random.below(30_000);
            self.schedule(at, Event::Do(who, Deed::NoticeSilence(pipe)));
        } else if chance(&mut self.random, self.plan.slow_readers) {
            self.counts.fault("slow reader");
            self.stop_reading(pipe);
        } else {
            return false;
        }
        true
    }

    /// Ends a call that another tab of this person left behind: its peer would do so, or the time limit.
    fn give_up(&mut self, who: usize) {
        let user = self.clients[who].user;
        let home = self.shard_of(self.placement.home(user));
        if let Some((call, _)) = self.shards[home].domain.engagement(user) {
            self.say(who, "call:end", &format!(r#"{{"roomId":"{call}"}}"#));
        }
    }

    fn act_in_queue(&mut self, who: usize) {
        if self.clients[who].hostile && self.random.one_in(3) {
            return self.misbehave(who);
        }
        if self.plan.mutant == Some(Mutant::StaleLogin) && self.random.one_in(10) {
            return self.log_in_again(who);
        }
        let waiting = self.clients[who].waiting;
        match (self.random.below(100), waiting) {
            (0..45, None) => self.invite_somebody(who),
            (0..8, Some(callee)) => self.say(who, "call:extend-wait", &format!(r#"{{"toUserId":"{callee}"}}"#)),
            (20..25, Some(callee)) => {
                self.say(who, "call:rescind", &format!(r#"{{"toUserId":"{callee}"}}"#));
                self.clients[who].waiting = None;
            }
            (32..45, Some(_)) => self.invite_somebody(who),
            (45..52, _) => {
                self.say(who, "queue:leave", "");
                self.say(who, "presence:leave", "");
            }
            (52..70, _) => {
                self.say(who, "presence:join", "");
                self.say(who, "queue:join", "");
            }
            (70..73, _) => {
                let pause = 500 + self.random.below(9_000);
                self.leave(who, pause);
            }
            (73, _) => self.log_in_again(who),
            (75, _) => self.become_somebody_else(who),
            (77..80, _) => self.authenticate(who),
            (80..90, _) => self.accept_everything(who),
            _ => {}
        }
    }

    fn invite_somebody(&mut self, who: usize) {
        let Some(id) = self.clients[who].pipe.and_then(|pipe| self.pipes[pipe].server) else { return };
        let me = self.clients[who].user;
        let directory = self.shards[self.shard_of(id.shard)].domain.directory();
        let others: Vec<UserId> =
            directory.queue().people().map(|person| person.card.user_id).filter(|user| *user != me).collect();
        let cools = |user: &UserId| self.store.cooldowns.contains_key(&unordered((me, *user)));
        let free: Vec<UserId> = others.iter().copied().filter(|user| !cools(user)).collect();
        let among = if self.random.one_in(8) { others } else { free };
        let Some(callee) = pick(&mut self.random, &among) else { return };
        let seconds = if self.random.one_in(12) { 1_000_000 } else { 1 + self.random.below(400) };
        self.say(who, "call:invite", &format!(r#"{{"toUserId":"{callee}","requestedSeconds":{seconds}}}"#));
        self.clients[who].waiting = Some(callee);
    }

    fn accept_everything(&mut self, who: usize) {
        for invite in std::mem::take(&mut self.clients[who].ringing) {
            self.say(who, "call:accept", &format!(r#"{{"inviteId":"{invite}","requestedSeconds":90}}"#));
        }
    }

    fn log_in_again(&mut self, who: usize) {
        self.counts.fault("second login");
        let user = self.clients[who].user;
        let token = self.store.log_in(self.now, &mut self.random, user);
        self.clients[who].token = Some(token);
        let at = self.now + self.random.below(30);
        self.schedule(at, Event::SessionsEnded(user, token.hash()));
        if self.random.one_in(2) {
            self.authenticate(who);
        }
    }

    /// D17: the same connection, another account.
    fn become_somebody_else(&mut self, who: usize) {
        let Some(user) = pick(&mut self.random, &self.people) else { return };
        self.counts.fault("rebind");
        self.oracle.steady_lost(self.clients[who].user);
        self.oracle.steady_lost(user);
        if let Some(pipe) = self.clients[who].pipe {
            self.pipes[pipe].users.push(user);
            self.oracle.masks(pipe);
        }
        let client = &mut self.clients[who];
        (client.user, client.authed, client.waiting) = (user, false, None);
        client.ringing.clear();
        client.token = Some(self.store.accounts[&user].token);
        self.authenticate(who);
    }

    pub fn misbehave(&mut self, who: usize) {
        self.counts.fault("hostile act");
        let invite = pick(&mut self.random, &self.invites_seen);
        let room = pick(&mut self.random, &self.rooms_seen);
        let me = self.clients[who].user;
        match (self.random.below(9), invite, room) {
            (0, Some(invite), _) => {
                self.say(who, "call:accept", &format!(r#"{{"inviteId":"{invite}","requestedSeconds":60}}"#))
            }
            (1, Some(invite), _) => self.say(who, "call:decline", &format!(r#"{{"inviteId":"{invite}"}}"#)),
            (2, _, Some(room)) => self.say(who, "room:join", &format!(r#"{{"roomId":"{room}"}}"#)),
            (3, _, Some(room)) if !self.in_call(me, room) => {
                self.say(who, "call:end", &format!(r#"{{"roomId":"{room}"}}"#))
            }
            (4, _, Some(room)) if !self.in_call(me, room) => {
                let (text, offer) = (relay_text::line(room, me, 0, 0), relay_text::payload(room, me, 0, 0));
                self.say(who, "room:chat", &format!(r#"{{"roomId":"{room}","text":"{text}"}}"#));
                self.say(who, "rtc:offer", &format!(r#"{{"roomId":"{room}","offer":{offer}}}"#));
            }
            (5, ..) => self.say(who, "call:invite", r#"{"toUserId":7}"#),
            (6, ..) => self.say(who, "room:chat", r#"[1,{"text":2}]"#),
            (7, ..) if self.random.one_in(8) => {
                self.counts.fault("flood");
                (0..800).for_each(|_| self.say(who, "queue:leave", ""));
            }
            (8, ..) if self.random.one_in(4) => {
                let Some(pipe) = self.clients[who].pipe else { return };
                // The server may take it for the head of a frame that never ends; so the client does not stay.
                self.counts.fault("garbage");
                let bytes = self.random.bytes::<9>();
                self.send_up(pipe, &bytes);
                self.hang_up(pipe);
                self.dropped(who, 1_000);
            }
            _ => {}
        }
    }

    fn in_call(&self, user: UserId, call: CallId) -> bool {
        self.oracle.participants(call).is_some_and(|pair| pair.0 == user || pair.1 == user)
    }

    fn act_in_room(&mut self, who: usize) {
        match self.random.below(100) {
            0..35 => self.chat(who),
            35..65 => self.signal(who, "rtc:ice", "candidate"),
            65..70 => self.share(who),
            70..74 => {
                // A reload: a new socket and room:join again.
                self.counts.fault("reload");
                let Some(pipe) = self.clients[who].pipe else { return };
                self.hang_up(pipe);
                self.dropped(who, 0);
            }
            74..77 => {
                self.counts.fault("page hand-over");
                let Some(pipe) = self.clients[who].pipe else { return };
                let bytes = self.clients[who].dialect.goodbye(&mut self.random);
                self.send_up(pipe, &bytes);
                self.hang_up(pipe);
                let pause = self.random.below(1_500);
                self.dropped(who, pause);
            }
            _ => {}
        }
    }

    /// The last thing this client says of its presence, or that it goes.
    pub fn take_final_stance(&mut self, who: usize) {
        let paywalled = self.oracle.is_paywalled(self.clients[who].user);
        // Who became somebody else on the way may be taken for either.
        let is_masked = self.clients[who].pipe.is_some_and(|pipe| self.pipes[pipe].users.len() > 1);
        if is_masked || !self.clients[who].authed {
            self.clients[who].stance = Some((false, false));
            return self.leave(who, u64::MAX / 2);
        }
        let stance = match self.random.below(5) {
            0 => {
                self.leave(who, u64::MAX / 2);
                (false, false)
            }
            1 => {
                let pipe = self.clients[who].pipe.expect("who is authenticated is connected");
                self.hang_up(pipe);
                self.dropped(who, u64::MAX / 2);
                (false, false)
            }
            2 => {
                self.say(who, "presence:join", "");
                self.say(who, "queue:leave", "");
                (true, false)
            }
            3 => {
                self.say(who, "presence:join", "");
                self.say(who, "queue:join", "");
                (true, !paywalled)
            }
            _ => {
                self.say(who, "queue:leave", "");
                self.say(who, "presence:leave", "");
                (false, false)
            }
        };
        self.clients[who].stance = Some(stance);
    }

    /// Goes, one way or the other, and does not come back.
    pub fn leave_for_good(&mut self, who: usize) {
        if self.random.one_in(2)
            && let Some(pipe) = self.clients[who].pipe
        {
            self.hang_up(pipe);
            self.dropped(who, u64::MAX / 2);
        } else {
            self.leave(who, u64::MAX / 2);
        }
        self.clients[who].gone = true;
    }
}

fn pick<T: Copy>(random: &mut Random, among: &[T]) -> Option<T> {
    among.get(random.below(among.len() as u64) as usize).copied()
}

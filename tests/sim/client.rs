//! A browser tab: speaks the wire and reacts as the frontend does (contract 6), not always at once and not always well.

use duet::base::limits::RESUME_MS;
use duet::base::{CallId, InviteId, Random, Time, Token, UserId};

use crate::codec::{Decoder, Dialect, Heard, Said};
use crate::plan::Mutant;
use crate::relay_text;
use crate::world::{Event, World};

/// Something a client set itself to do.
#[derive(Clone, Debug)]
pub enum Deed {
    /// After `auth:success`: what the queue view says.
    JoinQueue,
    Answer(InviteId),
    LeaveQueue,
    JoinRoom(CallId),
    Offer(CallId),
    End(CallId),
    /// The room page is left, whatever was heard.
    QuitRoom(CallId),
    NoticeSilence(usize),
}

/// The room page.
pub struct Room {
    pub call: CallId,
    pub joined: bool,
    /// The connection on which it was asked to end.
    ended_on: Option<usize>,
    /// Which connection the numbers below belong to.
    pipe: usize,
    signals: u64,
    lines: u64,
}

pub struct Client {
    pub user: UserId,
    pub token: Option<Token>,
    pub hostile: bool,
    pub playing: bool,
    pub gone: bool,
    pub dialect: Dialect,
    pub pipe: Option<usize>,
    decoder: Decoder,
    pub connected: bool,
    pub authed: bool,
    pub reconnect_at: Time,
    pub room: Option<Room>,
    pub ringing: Vec<InviteId>,
    pub waiting: Option<UserId>,
    /// What it last said of itself at the roll-call: online, queued.
    pub stance: Option<(bool, bool)>,
}

impl Client {
    pub fn new(user: UserId, token: Token, tab: u64, random: &mut Random, hostile: bool) -> Self {
        Self {
            user,
            token: Some(token),
            hostile: hostile && tab == 0 && random.one_in(3),
            playing: true,
            gone: false,
            dialect: if random.one_in(3) { Dialect::Plain } else { Dialect::SocketIo },
            pipe: None,
            decoder: Decoder::default(),
            connected: false,
            authed: false,
            reconnect_at: Time(0),
            room: None,
            ringing: Vec::new(),
            waiting: None,
            stance: None,
        }
    }

    /// Whether it left for good.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// No new games; what goes on is brought to its end.
    pub fn stop_playing(&mut self) {
        self.playing = false;
    }
}

impl World {
    pub fn connect(&mut self, who: usize) {
        let (user, invalid) = (self.clients[who].user, self.clients[who].token.is_none());
        if invalid {
            self.clients[who].token = Some(self.store.accounts[&user].token);
        }
        let pipe = self.open(who);
        self.trace(|| format!("client {who} opens pipe {pipe}"));
        let client = &mut self.clients[who];
        (client.pipe, client.connected, client.authed) = (Some(pipe), false, false);
        client.decoder = Decoder::default();
        let bytes = client.dialect.handshake();
        self.send_up(pipe, &bytes);
    }

    pub fn authenticate(&mut self, who: usize) {
        let token = self.clients[who].token.map(|token| token.encode()).unwrap_or_default();
        self.say(who, "auth", &format!(r#"{{"sessionToken":"{token}"}}"#));
    }

    /// Says one event, if there is a connection to say it on.
    pub fn say(&mut self, who: usize, event: &str, payload: &str) {
        let client = &self.clients[who];
        let Some(pipe) = client.pipe.filter(|_| client.connected) else { return };
        let json = if payload.is_empty() { format!("[\"{event}\"]") } else { format!("[\"{event}\",{payload}]") };
        let bytes = client.dialect.event(&json, &mut self.random);
        self.trace(|| format!("client {who} says {json}"));
        self.send_up(pipe, &bytes);
    }

    /// The connection is no more; another will be tried after a pause. The page stays.
    pub fn dropped(&mut self, who: usize, pause: u64) {
        let client = &mut self.clients[who];
        (client.pipe, client.connected, client.authed) = (None, false, false);
        client.reconnect_at = self.now + pause;
        client.ringing.clear();
    }

    pub fn leave(&mut self, who: usize, pause: u64) {
        let Some(pipe) = self.clients[who].pipe else { return };
        if self.clients[who].connected {
            let bytes = self.clients[who].dialect.goodbye(&mut self.random);
            self.send_up(pipe, &bytes);
        }
        self.hang_up(pipe);
        self.clients[who].room = None;
        self.dropped(who, pause);
    }

    /// The room, if this connection may speak in it; numbering starts anew on every connection.
    fn speak(&mut self, who: usize) -> Option<(usize, &mut Room)> {
        let client = &mut self.clients[who];
        let pipe = client.pipe.filter(|_| client.authed)?;
        let room = client.room.as_mut()?;
        if room.pipe != pipe {
            (room.pipe, room.signals, room.lines) = (pipe, 0, 0);
        }
        Some((pipe, room))
    }

    pub fn signal(&mut self, who: usize, event: &str, field: &str) {
        let user = self.clients[who].user;
        let Some((pipe, room)) = self.speak(who) else { return };
        let (call, number) = (room.call, room.signals);
        room.signals += 1;
        let payload = relay_text::payload(call, user, pipe, number);
        self.oracle.signalled(call, user, pipe);
        self.say(who, event, &format!(r#"{{"roomId":"{call}","{field}":{payload}}}"#));
    }

    pub fn chat(&mut self, who: usize) {
        let user = self.clients[who].user;
        let Some((pipe, room)) = self.speak(who) else { return };
        let (call, number) = (room.call, room.lines);
        room.lines += 1;
        let text = relay_text::line(call, user, pipe, number);
        self.say(who, "room:chat", &format!(r#"{{"roomId":"{call}","text":" {text}\u0007 "}}"#));
    }

    pub fn share(&mut self, who: usize) {
        let user = self.clients[who].user;
        let Some((pipe, room)) = self.speak(who) else { return };
        let (call, number) = (room.call, room.lines);
        room.lines += 1;
        let text = relay_text::line(call, user, pipe, number);
        self.say(who, "room:giveSocial", &format!(r#"{{"roomId":"{call}","socials":{{"x":"{text}"}}}}"#));
    }

    /// Leaves the page if the end was asked for on a connection that still works; else asks again.
    fn end_or_quit(&mut self, who: usize, call: CallId) {
        let client = &self.clients[who];
        let ended_on = client.room.as_ref().and_then(|room| room.ended_on);
        let works = client.authed && ended_on.is_some_and(|pipe| !self.pipes[pipe].silent);
        if works && ended_on == client.pipe {
            self.quit_room(who);
        } else {
            self.end(who, call);
        }
    }

    pub fn end(&mut self, who: usize, call: CallId) {
        if let Some(pipe) = self.clients[who].pipe.filter(|_| self.clients[who].authed) {
            if let Some(room) = self.clients[who].room.as_mut().filter(|room| room.call == call) {
                room.ended_on = Some(pipe);
            }
            self.oracle.ends(call, self.clients[who].user, pipe);
        }
        self.say(who, "call:end", &format!(r#"{{"roomId":"{call}"}}"#));
        let at = self.now + 6_000;
        self.schedule(at, Event::Do(who, Deed::QuitRoom(call)));
    }

    /// Does what was planned, if it still makes sense.
    pub fn perform_deed(&mut self, who: usize, deed: Deed) {
        let in_room = |world: &World, call| world.clients[who].room.as_ref().is_some_and(|room| room.call == call);
        match deed {
            _ if self.clients[who].gone || self.clients[who].stance.is_some() => {}
            Deed::JoinQueue if self.clients[who].room.is_none() && self.clients[who].playing => {
                self.say(who, "presence:join", "");
                self.say(who, "queue:join", "");
            }
            Deed::JoinQueue => {}
            Deed::Answer(invite) => self.answer_invite(who, invite),
            Deed::LeaveQueue => self.say(who, "queue:leave", ""),
            Deed::JoinRoom(call) if in_room(self, call) => {
                self.say(who, "room:join", &format!(r#"{{"roomId":"{call}"}}"#));
                if let Some(room) = self.clients[who].room.as_mut() {
                    room.joined = true;
                }
            }
            Deed::Offer(call) if in_room(self, call) => {
                self.signal(who, "rtc:offer", "offer");
                (0..3).for_each(|_| self.signal(who, "rtc:ice", "candidate"));
            }
            Deed::End(call) if in_room(self, call) => self.end(who, call),
            Deed::QuitRoom(call) if in_room(self, call) => self.end_or_quit(who, call),
            Deed::JoinRoom(_) | Deed::Offer(_) | Deed::End(_) | Deed::QuitRoom(_) => {}
            Deed::NoticeSilence(pipe) => {
                if self.clients[who].pipe == Some(pipe) {
                    self.pipes[pipe].client_open = false;
                    self.dropped(who, 500);
                }
            }
        }
    }

    fn answer_invite(&mut self, who: usize, invite: InviteId) {
        if !self.clients[who].ringing.contains(&invite) {
            return;
        }
        let seconds = if self.random.one_in(10) { 5_000 } else { 30 + self.random.below(300) };
        let accept = format!(r#"{{"inviteId":"{invite}","requestedSeconds":{seconds}}}"#);
        let decline = format!(r#"{{"inviteId":"{invite}"}}"#);
        match self.random.below(20) {
            0..12 => self.say(who, "call:accept", &accept),
            12..15 => self.say(who, "call:decline", &decline),
            15 => {
                self.say(who, "call:accept", &accept);
                self.say(who, "call:decline", &decline);
            }
            16 => (0..2).for_each(|_| self.say(who, "call:accept", &accept)),
            _ => return,
        }
        self.clients[who].ringing.retain(|ringing| *ringing != invite);
    }

    fn quit_room(&mut self, who: usize) {
        self.clients[who].room = None;
        if self.random.one_in(2) {
            let pause = self.random.below(4_000);
            self.leave(who, pause);
        } else {
            self.perform_deed(who, Deed::JoinQueue);
        }
    }

    /// Bytes from the server.
    pub fn client_receives(&mut self, pipe: usize, bytes: &[u8]) {
        let who = self.pipes[pipe].client;
        if self.clients[who].pipe != Some(pipe) {
            return;
        }
        let dialect = self.clients[who].dialect;
        match self.clients[who].decoder.receive(dialect, bytes) {
            Ok(said) => said.into_iter().for_each(|said| self.hear(who, pipe, said)),
            Err(problem) => self.oracle.complain("wire", format!("pipe {pipe}: {problem}")),
        }
    }

    /// The server closed.
    pub fn client_ended(&mut self, pipe: usize) {
        let who = self.pipes[pipe].client;
        self.pipes[pipe].client_open = false;
        self.oracle.steady_lost(self.clients[who].user);
        if self.clients[who].pipe == Some(pipe) {
            let pause = match self.random.below(12) {
                // Beyond the grace after a restart.
                0 => RESUME_MS + self.random.below(15_000),
                1..4 => 5_500 + self.random.below(9_000),
                _ => 300 + self.random.below(3_000),
            };
            self.dropped(who, pause);
        }
    }

    fn hear(&mut self, who: usize, pipe: usize, said: Said) {
        if self.clients[who].pipe != Some(pipe) {
            return;
        }
        match said {
            Said::Upgraded if self.clients[who].dialect == Dialect::Plain => self.connected(who),
            Said::Open => {
                let token = self.clients[who].token.filter(|_| !self.random.one_in(4));
                let auth = token.map_or(String::new(), |token| format!(r#"{{"token":"{}"}}"#, token.encode()));
                let bytes = crate::codec::text(&format!("40{auth}"), &mut self.random);
                self.send_up(pipe, &bytes);
            }
            Said::Connected => self.connected(who),
            Said::Ping(payload) => {
                let bytes = self.clients[who].dialect.pong(&payload, &mut self.random);
                self.send_up(pipe, &bytes);
            }
            Said::Refused | Said::Disconnect => {
                self.hang_up(pipe);
                self.dropped(who, 10_000);
            }
            Said::Upgraded | Said::Close => {}
            Said::Event(heard) => {
                self.trace(|| {
                    format!("client {who} on pipe {pipe} hears {} {:?}", heard.name, heard.fields.session_id)
                });
                self.oracle.hears(&self.pipes[pipe].users, pipe, &heard);
                self.react(who, pipe, &heard);
            }
        }
    }

    fn connected(&mut self, who: usize) {
        self.clients[who].connected = true;
        if self.clients[who].hostile {
            self.say(who, "queue:join", "");
            self.misbehave(who);
        }
        self.authenticate(who);
    }

    fn react(&mut self, who: usize, pipe: usize, heard: &Heard) {
        let now = self.now;
        match heard.name.as_str() {
            "auth:success" => {
                let first = !std::mem::replace(&mut self.clients[who].authed, true);
                match &self.clients[who].room {
                    Some(room) if first && (room.joined || self.random.one_in(2)) => {
                        let call = room.call;
                        self.perform_deed(who, Deed::JoinRoom(call));
                    }
                    Some(_) => {}
                    None => self.schedule(now, Event::Do(who, Deed::JoinQueue)),
                }
            }
            "auth:failed" => self.clients[who].token = None,
            // Sent away: what it has said last of its presence may have reached nobody.
            "error" if heard.fields.text.as_deref().is_some_and(|text| text.starts_with("Too many connections")) => {
                let client = &mut self.clients[who];
                (client.authed, client.stance) = (false, client.stance.map(|_| (false, false)));
            }
            "session:invalidated" => {
                self.clients[who].token = None;
                self.clients[who].room = None;
            }
            "call:notify" => {
                let Some(invite) = heard.fields.invite_id else { return };
                self.clients[who].ringing.push(invite);
                self.invites_seen.push(invite);
                let patience = if self.random.one_in(4) { 30_000 } else { 8_000 };
                let at = now + 200 + self.random.below(patience);
                self.schedule(at, Event::Do(who, Deed::Answer(invite)));
            }
            "call:rescinded" => self.clients[who].ringing.retain(|ringing| Some(*ringing) != heard.fields.invite_id),
            "call:declined" => self.clients[who].waiting = None,
            "call:start" => self.enter_room(who, pipe, heard),
            "rtc:offer" => {
                self.signal(who, "rtc:answer", "answer");
                self.signal(who, "rtc:ice", "candidate");
            }
            "peer:disconnected" => {
                if let Some(call) = self.clients[who].room.as_ref().map(|room| room.call) {
                    self.schedule(now + 50, Event::Do(who, Deed::End(call)));
                }
            }
            "session:finalized" => {
                let ended = heard.fields.session_id.as_deref().and_then(relay_text::call_of);
                if self.clients[who].room.as_ref().is_some_and(|room| Some(room.call) == ended) {
                    self.quit_room(who);
                }
            }
            _ => {}
        }
    }

    fn enter_room(&mut self, who: usize, pipe: usize, heard: &Heard) {
        let (Some(call), Some(initiator)) = (heard.fields.room_id, heard.fields.is_initiator) else { return };
        if self.clients[who].room.as_ref().is_some_and(|room| room.call == call) {
            return;
        }
        self.rooms_seen.push(call);
        let client = &mut self.clients[who];
        client.room = Some(Room { call, joined: false, ended_on: None, pipe, signals: 0, lines: 0 });
        client.waiting = None;
        let alone =
            self.clients.iter().filter(|other| other.user == self.clients[who].user && other.pipe.is_some()).count()
                == 1;
        if alone && self.pipes[pipe].healthy {
            self.oracle.steady_begins(self.now, call, self.clients[who].user, pipe);
        }
        let now = self.now;
        self.schedule(now + 150, Event::Do(who, Deed::LeaveQueue));
        let join = match self.random.below(20) {
            0 => None,
            1 | 2 => Some(12_000),
            _ => Some(300 + self.random.below(4_000)),
        };
        if let Some(pause) = join {
            self.schedule(now + pause, Event::Do(who, Deed::JoinRoom(call)));
        }
        if initiator {
            let at = now + 2_000 + self.random.below(5_000);
            self.schedule(at, Event::Do(who, Deed::Offer(call)));
        }
        // Both timers run out at the same moment, or one of the two leaves earlier.
        let length = 1_000 + u64::from(call.as_bytes()[3]) * 300;
        let swapped = self.plan.mutant == Some(Mutant::NaiveAccept);
        match self.random.below(5) {
            _ if swapped => self.schedule(now + 70_000, Event::Do(who, Deed::End(call))),
            0 => {}
            1 => {
                let at = now + self.random.below(length);
                self.schedule(at, Event::Do(who, Deed::End(call)));
            }
            _ => self.schedule(Time(now.0 - now.0 % 100 + length), Event::Do(who, Deed::End(call))),
        }
    }
}

//! A store in memory that may be slow, fail, or not answer; it outlives crashes.
//!
//! A request is carried out at one moment and answered at a later one. Writes of one shard are carried out in order.

use std::collections::{BTreeMap, BTreeSet};

use duet::base::{CallId, Random, ShardId, Time, Token, TokenHash, UserId};
use duet::message::model::{AccountType, LastSession, Login, Metrics};
use duet::message::store::{CallProgress, FinishedCall, Pair, Participant, Reply, Request, RunningCall, StartedCall};
use duet::message::{Card, Gender, PaidStatus};

use crate::plan::Mutant;

/// How the store behaves at present.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mood {
    Quick,
    Slow,
    Failing,
    /// Carries out what it is asked or not, and never answers; the shell gives up after a while.
    Mute,
}

/// One person's account.
pub struct Account {
    pub card: Card,
    pub paid: PaidStatus,
    pub banned: bool,
    /// The newest token; older ones are not active.
    pub token: Token,
}

/// Who waits for an answer.
#[derive(Clone, Copy, Debug)]
pub enum Asker {
    /// The connection of this pipe needs a fact.
    Fact(usize),
    /// The domain of this shard has this write.
    Write(ShardId, u64),
}

/// A request on its way.
pub struct Job {
    pub asker: Asker,
    /// Which life of the process asked.
    pub life: u32,
    pub request: Request,
    pub fate: Fate,
    pub reply: Option<Reply>,
    /// When it was carried out.
    pub done_at: Time,
}

/// What is to become of a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    Done,
    Failed,
    DoneUnanswered,
    LostUnanswered,
}

pub struct Store {
    pub mood: Mood,
    pub mutant: Option<Mutant>,
    pub accounts: BTreeMap<UserId, Account>,
    sessions: BTreeMap<TokenHash, UserId>,
    /// When a token was replaced by a newer login.
    pub replaced: BTreeMap<TokenHash, Time>,
    pub cooldowns: BTreeMap<(UserId, UserId), Time>,
    /// Pairs that ever had one.
    pub cooled: BTreeSet<(UserId, UserId)>,
    pub running: BTreeMap<CallId, RunningCall>,
    pub alive_at: Time,
    pub finished: BTreeMap<CallId, FinishedCall>,
    /// One row per user and call.
    pub history: Vec<(UserId, CallId)>,
    metrics: BTreeMap<UserId, Metrics>,
    pub jobs: BTreeMap<u64, Job>,
    jobs_made: u64,
    last_write: BTreeMap<ShardId, Time>,
}

/// The same key for both orders of a pair.
pub fn unordered((one, other): (UserId, UserId)) -> (UserId, UserId) {
    (one.min(other), one.max(other))
}

impl Store {
    pub fn new(mutant: Option<Mutant>) -> Self {
        Self {
            mood: Mood::Quick,
            mutant,
            accounts: BTreeMap::new(),
            sessions: BTreeMap::new(),
            replaced: BTreeMap::new(),
            cooldowns: BTreeMap::new(),
            cooled: BTreeSet::new(),
            running: BTreeMap::new(),
            alive_at: Time(0),
            finished: BTreeMap::new(),
            history: Vec::new(),
            metrics: BTreeMap::new(),
            jobs: BTreeMap::new(),
            jobs_made: 0,
            last_write: BTreeMap::new(),
        }
    }

    /// Makes a person.
    pub fn sign_up(&mut self, random: &mut Random, paid: PaidStatus, banned: bool) -> UserId {
        let user_id = UserId::draw(random);
        let token = Token::draw(user_id, random);
        let name = format!("person {}", self.accounts.len());
        let card =
            Card { user_id, name, gender: Gender::Unspecified, selfie_url: None, video_url: None, introduction: None };
        self.accounts.insert(user_id, Account { card, paid, banned, token });
        self.sessions.insert(token.hash(), user_id);
        user_id
    }

    /// A newer login: every older token of the user is void.
    pub fn log_in(&mut self, now: Time, random: &mut Random, user: UserId) -> Token {
        let token = Token::draw(user, random);
        let account = self.accounts.get_mut(&user).expect("people are never removed");
        let old = std::mem::replace(&mut account.token, token);
        self.replaced.insert(old.hash(), now);
        self.sessions.insert(token.hash(), user);
        token
    }

    /// Takes a request; returns the job and when it is carried out and answered.
    pub fn ask(
        &mut self,
        now: Time,
        random: &mut Random,
        life: u32,
        asker: Asker,
        request: Request,
    ) -> (u64, Time, Time) {
        let (wait, fate) = match self.mood {
            Mood::Quick => (random.below(10), Fate::Done),
            Mood::Slow => (100 + random.below(4_000), Fate::Done),
            Mood::Failing if random.one_in(5) => (random.below(50), Fate::Done),
            Mood::Failing => (random.below(50), Fate::Failed),
            Mood::Mute if random.one_in(2) => (random.below(50), Fate::DoneUnanswered),
            Mood::Mute => (random.below(50), Fate::LostUnanswered),
        };
        let mut done_at = now + wait;
        if let Asker::Write(shard, _) = asker {
            let last = self.last_write.entry(shard).or_default();
            done_at = done_at.max(*last);
            *last = done_at;
        }
        let mutes = matches!(fate, Fate::DoneUnanswered | Fate::LostUnanswered);
        let reply_at =
            done_at + if mutes { 5_000 } else { random.below(if self.mood == Mood::Slow { 3_000 } else { 5 }) };
        self.jobs_made += 1;
        self.jobs.insert(self.jobs_made, Job { asker, life, request, fate, reply: None, done_at });
        (self.jobs_made, done_at, reply_at)
    }

    /// Carries a job out.
    pub fn perform(&mut self, now: Time, id: u64) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.done_at = now;
        let (fate, request) = (job.fate, job.request.clone());
        let reply = match fate {
            Fate::Failed if self.mutant == Some(Mutant::EarlyReply) => match &request {
                Request::FinishCall(_) => {
                    Some(Reply::Finished { caller: Metrics::default(), callee: Metrics::default() })
                }
                _ => Some(Reply::Done),
            },
            Fate::Failed => Some(Reply::Failed("asked to fail".to_owned())),
            Fate::Done => Some(self.carry_out(now, request)),
            Fate::DoneUnanswered => {
                self.carry_out(now, request);
                None
            }
            Fate::LostUnanswered => None,
        };
        self.jobs.get_mut(&id).expect("it was there").reply = reply;
    }

    fn carry_out(&mut self, now: Time, request: Request) -> Reply {
        match request {
            Request::Session { token, .. } => Reply::Session(self.login(token).map(Box::new)),
            Request::Pair { caller, callee, .. } => {
                let cooldown = self.cooldowns.get(&unordered((caller, callee))).copied();
                let cooldown_until = cooldown.filter(|until| *until > now);
                Reply::Pair(self.accounts.get(&callee).map(|account| Pair {
                    cooldown_until,
                    hidden: false,
                    banned: account.banned,
                }))
            }
            Request::SetCooldown { pair, until } => {
                self.cool_down(pair, until);
                Reply::Done
            }
            Request::StartCall(started) => self.start(&started),
            Request::KeepCalls(progress) => self.keep(*progress),
            Request::FinishCall(finished) => self.finish(*finished),
            other => unreachable!("the rules do not ask {other:?}"),
        }
    }

    fn login(&self, token: TokenHash) -> Option<Login> {
        let account = &self.accounts[self.sessions.get(&token)?];
        Some(Login {
            card: account.card.clone().into(),
            token,
            account: AccountType::Guest,
            paid: account.paid,
            banned: account.banned,
            active: account.token.hash() == token,
            expires_at: Time(u64::MAX),
        })
    }

    fn cool_down(&mut self, pair: (UserId, UserId), until: Time) {
        if self.mutant != Some(Mutant::CooldownLost) {
            self.cooldowns.insert(unordered(pair), until);
            self.cooled.insert(unordered(pair));
        }
    }

    fn start(&mut self, started: &StartedCall) -> Reply {
        let participant = |user: UserId| {
            let account = &self.accounts[&user];
            Participant { card: account.card.clone().into(), paid: account.paid, joined: false }
        };
        let StartedCall { call, agreed_seconds, started_at, .. } = *started;
        let (caller, callee) = (participant(started.caller), participant(started.callee));
        let running = RunningCall { call, caller, callee, agreed_seconds, started_at, messages: Vec::new() };
        if self.mutant != Some(Mutant::StartUnstored) {
            self.running.entry(call).or_insert(running);
        }
        Reply::Done
    }

    fn keep(&mut self, progress: CallProgress) -> Reply {
        for (call, user) in progress.joined {
            let Some(running) = self.running.get_mut(&call) else { continue };
            for side in [&mut running.caller, &mut running.callee] {
                side.joined |= side.user() == user;
            }
        }
        for (call, number, line) in progress.lines {
            let Some(running) = self.running.get_mut(&call) else { continue };
            if running.messages.len() == number as usize && self.mutant != Some(Mutant::ChatUnkept) {
                running.messages.push(line);
            }
        }
        self.alive_at = self.alive_at.max(progress.alive_at);
        Reply::Done
    }

    /// What the dead process had asked for is carried out now, or never.
    pub fn crash(&mut self, now: Time, random: &mut Random) {
        let under_way: Vec<u64> =
            self.jobs.iter().filter(|(_, job)| job.reply.is_none() && job.done_at > now).map(|(id, _)| *id).collect();
        for id in under_way {
            if random.one_in(2) {
                self.perform(now, id);
            }
            self.jobs.remove(&id);
        }
    }

    fn finish(&mut self, finished: FinishedCall) -> Reply {
        let (caller, callee) = (finished.caller, finished.callee);
        if self.mutant != Some(Mutant::EndedRunsOn) {
            self.running.remove(&finished.call);
        }
        if !self.finished.contains_key(&finished.call) || self.mutant == Some(Mutant::StoreRepeats) {
            if finished.recorded {
                for user in [caller, callee] {
                    self.history.push((user, finished.call));
                    let metrics = self.metrics.entry(user).or_default();
                    metrics.session_count += 1;
                    metrics.timer_total_seconds += finished.duration;
                    metrics.last_sessions = vec![LastSession { at: finished.ended_at, duration: finished.duration }];
                }
            }
            if let Some(until) = finished.cooldown_until {
                self.cool_down((caller, callee), until);
            }
            self.finished.insert(finished.call, finished);
        }
        let metrics = |user| self.metrics.get(&user).cloned().unwrap_or_default();
        Reply::Finished { caller: metrics(caller), callee: metrics(callee) }
    }
}

//! A host in memory and one helper that calls the endpoints as a connection would.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use duet::api::host::{Busy, CacheCounts, Live, Unavailable};
use duet::api::{Host, Settings, handle};
use duet::base::{Random, ShardId, Time, Token, TokenHash, UserId};
use duet::domain::Effects;
use duet::domain::directory::Directory;
use duet::domain::rate::{Action, Bucket, Key, Limit, Rates, Standing};
use duet::message::Delta;
use duet::message::model::{AccountType, Card, Gender, Login, Metrics, PaidStatus, Socials};
use duet::message::store::{self, Account, HistoryEntry, InviteCodeRefusal, Profile, Relations, Reply, SignedUp};
use duet::wire::http::{Method, Request, Response};
use serde_json::Value;

pub const NOW: Time = Time(1_761_000_000_000);

/// One person and all that the store knows of him.
#[derive(Clone)]
pub struct Person {
    pub card: Card,
    pub account: AccountType,
    pub email: Option<String>,
    pub password_hash: Option<String>,
    pub paid: PaidStatus,
    pub ban_status: String,
    pub socials: Option<Socials>,
}

pub struct Session {
    pub hash: TokenHash,
    pub user: UserId,
    pub active: bool,
    pub expires_at: Time,
    pub device: String,
}

/// The fake. Fields are open: tests arrange the world by hand.
pub struct Fake {
    pub settings: Settings,
    pub now: Cell<Time>,
    pub address: Cell<IpAddr>,
    pub people: RefCell<Vec<Person>>,
    pub sessions: RefCell<Vec<Session>>,
    /// Who is available, longest waiting first.
    pub queue: RefCell<Vec<UserId>>,
    pub shard: Cell<ShardId>,
    pub relations: RefCell<Relations>,
    pub history: RefCell<Vec<HistoryEntry>>,
    /// What the next invite code meets; `None`: it is good.
    pub refusal: Cell<Option<InviteCodeRefusal>>,
    /// A referral code that is known, and whom it introduces to.
    pub referral: RefCell<Option<(String, UserId)>>,
    pub down: Cell<bool>,
    /// Places of what was answered, and what was refused.
    pub answered: RefCell<Vec<usize>>,
    pub limited: RefCell<Vec<Bucket>>,
    /// Sessions are good, but their accounts are gone.
    pub gone: Cell<bool>,
    pub busy: Cell<bool>,
    /// Passwords hashed or verified.
    pub hashed: Cell<usize>,
    pub ended: RefCell<Vec<(UserId, TokenHash)>>,
    pub changed: RefCell<Vec<UserId>>,
    /// Follows `people` and `queue`.
    directory: RefCell<Directory>,
    random: RefCell<Random>,
    rates: RefCell<Rates>,
}

impl Fake {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            now: Cell::new(NOW),
            address: Cell::new(IpAddr::from([192, 0, 2, 1])),
            people: RefCell::default(),
            sessions: RefCell::default(),
            queue: RefCell::default(),
            shard: Cell::new(ShardId(0)),
            directory: RefCell::default(),
            relations: RefCell::default(),
            history: RefCell::default(),
            refusal: Cell::new(None),
            referral: RefCell::default(),
            down: Cell::new(false),
            answered: RefCell::default(),
            limited: RefCell::default(),
            gone: Cell::new(false),
            busy: Cell::new(false),
            hashed: Cell::new(0),
            ended: RefCell::default(),
            changed: RefCell::default(),
            random: RefCell::new(Random::from_seed(7)),
            rates: RefCell::default(),
        }
    }

    /// A guest with a session.
    pub fn guest(&self, name: &str) -> (UserId, Token) {
        let user_id = self.draw(UserId::draw);
        let card = Card {
            user_id,
            name: name.to_owned(),
            gender: Gender::Female,
            selfie_url: None,
            video_url: None,
            introduction: None,
        };
        self.people.borrow_mut().push(Person {
            card,
            account: AccountType::Guest,
            email: None,
            password_hash: None,
            paid: PaidStatus::Unpaid,
            ban_status: "none".to_owned(),
            socials: None,
        });
        let token = self.draw(|random| Token::draw(user_id, random));
        let session = Session {
            hash: token.hash(),
            user: user_id,
            active: true,
            expires_at: NOW + 1_000_000,
            device: String::new(),
        };
        self.sessions.borrow_mut().push(session);
        (user_id, token)
    }

    /// A permanent account with the password `correct horse`, and a session.
    pub fn permanent(&self, name: &str, email: &str) -> (UserId, Token) {
        let (user, token) = self.guest(name);
        self.change(user, |person| {
            person.account = AccountType::Permanent;
            person.email = Some(email.to_owned());
            person.password_hash = Some("hash of correct horse".to_owned());
        });
        (user, token)
    }

    pub fn change(&self, user: UserId, change: impl FnOnce(&mut Person)) {
        let mut people = self.people.borrow_mut();
        change(people.iter_mut().find(|person| person.card.user_id == user).unwrap());
    }

    pub fn get(&self, path: &str, token: Option<&Token>) -> Answer {
        self.with_token(Method::Get, path, token, "")
    }

    pub fn post(&self, path: &str, body: &str) -> Answer {
        self.with_token(Method::Post, path, None, body)
    }

    pub fn with_token(&self, method: Method, path: &str, token: Option<&Token>, body: &str) -> Answer {
        let bearer = token.map(|token| format!("Bearer {}", token.encode()));
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        self.send(method, path, &headers, body)
    }

    pub fn send(&self, method: Method, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let body = Bytes::copy_from_slice(body.as_bytes());
        let request = Request { method, path: path.to_owned(), query: query.to_owned(), headers, body };
        Answer(block_on(handle(self, &request, self.address.get())))
    }

    fn person(&self, test: impl Fn(&Person) -> bool) -> Option<Person> {
        self.people.borrow().iter().find(|person| test(person)).cloned()
    }

    fn sign_up(&self, wanted: store::SignUp) -> Reply {
        if wanted.invite_code.is_some()
            && let Some(refusal) = self.refusal.get()
        {
            return Reply::InviteCode(refusal);
        }
        let paid = if wanted.invite_code.is_some() { PaidStatus::QrGracePeriod } else { PaidStatus::Unpaid };
        let (user, _) = self.guest(&wanted.name);
        self.change(user, |person| {
            person.card.user_id = wanted.user;
            person.card.gender = wanted.gender;
            person.paid = paid;
        });
        let card = self.person(|person| person.card.user_id == wanted.user).unwrap().card;
        let store::NewSession { token, expires_at, device, .. } = wanted.session;
        let session = Session { hash: token, user: wanted.user, active: true, expires_at, device };
        self.sessions.borrow_mut().push(session);
        let referral = self.referral.borrow();
        let target = referral.as_ref().filter(|(code, _)| Some(code) == wanted.referral_code.as_ref());
        let target = target.and_then(|(_, user)| self.person(|person| person.card.user_id == *user));
        let account = AccountType::Guest;
        let login = Login { card: card.into(), token, account, paid, banned: false, active: true, expires_at };
        Reply::SignedUp(Box::new(SignedUp { login, target: target.map(|person| person.card) }))
    }

    fn link(&self, user: UserId, hash: TokenHash, email: String, password_hash: String, expires_at: Time) -> Reply {
        if self.person(|person| person.email.as_ref() == Some(&email) && person.card.user_id != user).is_some() {
            return Reply::EmailTaken;
        }
        self.change(user, |person| {
            person.account = AccountType::Permanent;
            person.email = Some(email);
            person.password_hash = Some(password_hash);
        });
        let mut sessions = self.sessions.borrow_mut();
        sessions.iter_mut().find(|session| session.hash == hash).unwrap().expires_at = expires_at;
        Reply::Linked
    }

    fn log_in(&self, user: UserId, session: store::NewSession) -> Reply {
        let mut sessions = self.sessions.borrow_mut();
        let mut invalidated = 0;
        for session in sessions.iter_mut().filter(|session| session.user == user && session.active) {
            session.active = false;
            invalidated += 1;
        }
        let store::NewSession { token, expires_at, device, .. } = session;
        sessions.push(Session { hash: token, user, active: true, expires_at, device });
        Reply::LoggedIn { invalidated }
    }

    fn account(person: Person) -> Box<Account> {
        let Person { card, account, email, password_hash, ban_status, .. } = person;
        let review_status = (ban_status != "none").then(|| "pending".to_owned());
        Box::new(Account { card, account, email, password_hash, ban_status, review_status })
    }

    fn profile_of(person: Person) -> Profile {
        let Person { card, account, email, socials, paid, .. } = person;
        Profile { card, account, email, socials, paid, metrics: Metrics::default(), created_at: NOW }
    }
}

impl Host for Fake {
    fn now(&self) -> Time {
        self.now.get()
    }

    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut Random) -> T) -> T {
        draw(&mut self.random.borrow_mut())
    }

    async fn store(&self, request: store::Request) -> Result<Reply, Unavailable> {
        if self.down.get() {
            return Err(Unavailable);
        }
        Ok(match request {
            store::Request::SignUp(sign_up) => self.sign_up(*sign_up),
            store::Request::Link { user, token, email, password_hash, expires_at, .. } => {
                self.link(user, token, email, password_hash, expires_at)
            }
            store::Request::AccountByEmail { email } => {
                Reply::Account(self.person(|person| person.email.as_ref() == Some(&email)).map(Self::account))
            }
            store::Request::AccountByUser { .. } if self.gone.get() => Reply::Account(None),
            store::Request::AccountByUser { user } => {
                Reply::Account(self.person(|person| person.card.user_id == user).map(Self::account))
            }
            store::Request::LogIn { user, session, .. } => self.log_in(user, session),
            store::Request::SetSocials { user, socials, .. } => {
                self.change(user, |person| person.socials = Some(socials));
                Reply::Done
            }
            store::Request::Relations { .. } => Reply::Relations(Box::new(self.relations.borrow().clone())),
            store::Request::History { .. } => Reply::History(self.history.borrow().clone()),
            other => panic!("no endpoint asks {other:?}"),
        })
    }

    async fn login(&self, token: &Token) -> Result<Option<Login>, Unavailable> {
        if self.down.get() {
            return Err(Unavailable);
        }
        let sessions = self.sessions.borrow();
        let Some(session) = sessions.iter().find(|session| session.hash == token.hash()) else { return Ok(None) };
        let person = self.person(|person| person.card.user_id == session.user);
        Ok(person.map(|person| Login {
            token: session.hash,
            account: person.account,
            paid: person.paid,
            banned: matches!(person.ban_status.as_str(), "temporary" | "permanent"),
            active: session.active,
            expires_at: session.expires_at,
            card: person.card.into(),
        }))
    }

    async fn hash_password(&self, password: String) -> Result<String, Busy> {
        self.hashed.set(self.hashed.get() + 1);
        if self.busy.get() { Err(Busy) } else { Ok(format!("hash of {password}")) }
    }

    async fn verify_password(&self, password: String, hash: Option<String>) -> Result<bool, Busy> {
        let fresh = self.hash_password(password).await?;
        Ok(hash == Some(fresh))
    }

    async fn rate(&self, _: IpAddr, bucket: Bucket, key: Key, limit: Limit, action: Action) -> Standing {
        self.rates.borrow_mut().handle(self.now.get(), bucket, key, limit, action)
    }

    async fn sessions_ended(&self, user: UserId, except: TokenHash) {
        self.ended.borrow_mut().push((user, except));
    }

    async fn profile(&self, user: UserId) -> Result<Option<store::Profile>, Unavailable> {
        if self.down.get() {
            return Err(Unavailable);
        }
        let person = self.person(|person| person.card.user_id == user && !self.gone.get());
        Ok(person.map(Self::profile_of))
    }

    async fn user_changed(&self, user: UserId) {
        self.changed.borrow_mut().push(user);
    }

    fn shard(&self) -> ShardId {
        self.shard.get()
    }

    fn directory<T>(&self, look: impl FnOnce(&Directory) -> T) -> T {
        let (mut directory, queue) = (self.directory.borrow_mut(), self.queue.borrow());
        let delta = |person: &Person| {
            let place = queue.iter().position(|user| *user == person.card.user_id);
            let (card, since) = (person.card.clone().into(), Time(place.unwrap_or_default() as u64));
            Delta { card, online: true, available: place.is_some(), since }
        };
        let deltas: Vec<_> = self.people.borrow().iter().map(delta).collect();
        directory.apply(&deltas, &mut Effects::default());
        look(&directory)
    }

    async fn standing(&self) -> Option<store::Standing> {
        let journal = Some(store::JournalStanding { waiting: 2, refused: 1 });
        Some(store::Standing { reachable: !self.down.get(), since: self.now.get(), journal })
    }

    async fn is_ready(&self) -> bool {
        !self.down.get()
    }

    fn answered(&self, place: usize) {
        self.answered.borrow_mut().push(place);
    }

    fn limited(&self, bucket: Bucket) {
        self.limited.borrow_mut().push(bucket);
    }

    async fn live(&self) -> Live {
        Live {
            closed: [("peer_closed", 3)].into(),
            connected_users: 4,
            sockets: 6,
            heap_used: 36_000_000,
            heap_total: 72_000_000,
            resident: 1024 * 1024,
            users_cache: CacheCounts { size: 5, max: 800, hits: 3, misses: 1, evictions: 0 },
            sessions_cache: CacheCounts::default(),
        }
    }
}

/// A response, with what tests ask of it.
pub struct Answer(pub Response);

impl Answer {
    pub fn status(&self) -> u16 {
        self.0.status
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.0.headers.iter().filter(|(header, _)| *header == name).map(|(_, value)| value.as_str());
        let first = values.next();
        assert_eq!(values.next(), None, "{name} is there once");
        first
    }

    pub fn json(&self) -> Value {
        assert_eq!(self.0.content_type, "application/json; charset=utf-8");
        serde_json::from_slice(&self.0.body).unwrap()
    }

    /// Status and `error`.
    pub fn refusal(&self) -> (u16, String) {
        (self.status(), self.json()["error"].as_str().unwrap().to_owned())
    }
}

/// Asserts status and `error` text.
#[track_caller]
pub fn assert_refused(answer: &Answer, status: u16, error: &str) {
    assert_eq!(answer.refusal(), (status, error.to_owned()));
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("nothing here waits"),
    }
}

//! What the store's tests share: people, a folder that goes away, and asking with the reply unpacked.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use duet::base::{CallId, Random, Time, Token, TokenHash, UserId};
use duet::link::Link;
use duet::message::Gender;
use duet::message::model::{Login, Metrics};
use duet::message::store::{FinishedCall, NewSession, Pair, Profile, Relations, Reply, Request, SignUp, SignedUp};
use futures_lite::future::block_on;

pub const NOW: Time = Time(1_760_000_000_000);
pub const LATER: Time = Time(NOW.0 + 3_600_000);

/// What other parts of the product will write; each store under test has its own way to plant it.
pub enum Fact {
    Referral {
        code: &'static str,
        target: UserId,
        creator: UserId,
    },
    /// Unlimited without `uses`.
    InviteCode {
        code: &'static str,
        uses: Option<u32>,
        active: bool,
    },
    Report {
        reporter: UserId,
        reported: UserId,
    },
    Ban {
        user: UserId,
    },
    Gone {
        user: UserId,
    },
    /// The one archived call of the user is put back into his history.
    Restored {
        user: UserId,
    },
}

/// An open, empty store and a source of ids.
pub struct World<'a> {
    pub link: Link<Request, Reply>,
    pub random: Random,
    pub plant: &'a dyn Fn(Fact),
}

#[derive(Clone, Copy)]
pub struct Person {
    pub id: UserId,
    pub token: TokenHash,
}

impl World<'_> {
    pub fn ask(&self, request: Request) -> Reply {
        block_on(self.link.ask(request)).expect("the store serves")
    }

    pub fn person(&mut self) -> Person {
        Person::draw(&mut self.random)
    }

    pub fn guest(&mut self) -> Person {
        let person = self.person();
        self.signed_up(person.sign_up());
        person
    }

    pub fn permanent(&mut self, email: &str) -> Person {
        let person = self.guest();
        assert!(matches!(self.ask(person.link(email)), Reply::Linked));
        person
    }

    pub fn signed_up(&self, sign_up: SignUp) -> SignedUp {
        match self.ask(Request::SignUp(Box::new(sign_up))) {
            Reply::SignedUp(signed_up) => *signed_up,
            other => panic!("{other:?}"),
        }
    }

    pub fn session(&self, token: TokenHash) -> Option<Login> {
        // A store goes by the token alone.
        let user = UserId::from_bytes([0; 16]);
        match self.ask(Request::Session { user, token }) {
            Reply::Session(login) => login.map(|login| *login),
            other => panic!("{other:?}"),
        }
    }

    pub fn profile(&self, user: UserId) -> Profile {
        match self.ask(Request::Profile { user }) {
            Reply::Profile(profile) => *profile.expect("the user is there"),
            other => panic!("{other:?}"),
        }
    }

    pub fn relations(&self, user: UserId, now: Time) -> Relations {
        match self.ask(Request::Relations { user, now }) {
            Reply::Relations(relations) => *relations,
            other => panic!("{other:?}"),
        }
    }

    pub fn pair(&self, caller: Person, callee: Person, now: Time) -> Option<Pair> {
        match self.ask(Request::Pair { caller: caller.id, callee: callee.id, now }) {
            Reply::Pair(pair) => pair,
            other => panic!("{other:?}"),
        }
    }

    pub fn finished(&self, call: &FinishedCall) -> (Metrics, Metrics) {
        match self.ask(Request::FinishCall(Box::new(call.clone()))) {
            Reply::Finished { caller, callee } => (caller, callee),
            other => panic!("{other:?}"),
        }
    }

    /// Archives what ended before `before`, until nothing is left of it; how many rows that were.
    pub fn archive(&self, before: Time) -> u64 {
        let mut archived = 0;
        loop {
            match self.ask(Request::Archive { before }) {
                Reply::Archived { rows: 0 } => return archived,
                Reply::Archived { rows } => archived += rows,
                other => panic!("{other:?}"),
            }
        }
    }

    /// A recorded and completed call of a minute.
    pub fn call(&mut self, caller: Person, callee: Person) -> FinishedCall {
        let call = CallId::draw(&mut self.random);
        FinishedCall {
            call,
            session: format!("session-{call}"),
            caller: caller.id,
            caller_name: "Ann".to_owned(),
            callee: callee.id,
            callee_name: "Bob".to_owned(),
            started_at: NOW,
            ended_at: NOW + 60_000,
            duration: 60,
            messages: Vec::new(),
            recorded: true,
            completed: true,
            cooldown_until: Some(LATER),
        }
    }
}

impl Person {
    pub fn draw(random: &mut Random) -> Self {
        let id = UserId::draw(random);
        Self { id, token: Token::draw(id, random).hash() }
    }

    pub fn sign_up(self) -> SignUp {
        SignUp {
            user: self.id,
            name: "Ann".to_owned(),
            gender: Gender::Female,
            session: self.new_session(self.token),
            referral_code: None,
            invite_code: None,
            own_code: self.id.to_string(),
            now: NOW,
        }
    }

    pub fn new_session(self, token: TokenHash) -> NewSession {
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        NewSession { token, expires_at: LATER, address, device: "Mozilla/5.0".to_owned() }
    }

    pub fn link(self, email: &str) -> Request {
        let (email, password_hash) = (email.to_owned(), "$argon2id$".to_owned());
        Request::Link { user: self.id, token: self.token, email, password_hash, expires_at: LATER + 1, now: NOW }
    }
}

/// A folder of its own, removed at the end of the test.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("store-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

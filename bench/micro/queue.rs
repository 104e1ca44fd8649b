//! What one answer of `GET /room/queue` costs the shard, without the store and the socket; run with
//! `cargo bench --bench queue`.
//!
//! Prints, by people in the queue, the bytes of the answer and the best of many rounds in microseconds: known to the client
//! already (304), put together, and encoded as responses are where speed counts and where it does not. With more than 200
//! people it is a sample.
#![allow(clippy::disallowed_methods)]

use std::future::Future;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use duet::api::host::{Busy, Live, Unavailable};
use duet::api::{Host, Settings, handle};
use duet::base::{Random, ShardId, Time, Token, TokenHash, UserId};
use duet::domain::Effects;
use duet::domain::directory::Directory;
use duet::domain::rate::{Action, Bucket, Key, Limit, Standing};
use duet::message::Delta;
use duet::message::model::{AccountType, Card, Gender, Login, PaidStatus};
use duet::message::store::{self, Profile, Reply};
use duet::wire::encoding::{Coding, Encoding, Spare};
use duet::wire::http::{Effort, Method, Request, Response};

const NOW: Time = Time(1_761_000_000_000);
const ROUNDS: usize = 1_000;
/// As many as are listed; of more it is a sample.
const LISTED: usize = 200;

/// A shard whose store knows nothing of anybody.
struct Shard {
    settings: Settings,
    directory: Directory,
    login: Login,
}

impl Host for Shard {
    fn now(&self) -> Time {
        NOW
    }
    fn settings(&self) -> &Settings {
        &self.settings
    }
    fn draw<T>(&self, _: impl FnOnce(&mut Random) -> T) -> T {
        unreachable!("the queue draws nothing")
    }
    async fn store(&self, _: store::Request) -> Result<Reply, Unavailable> {
        Ok(Reply::Relations(Box::default()))
    }
    async fn login(&self, _: &Token) -> Result<Option<Login>, Unavailable> {
        Ok(Some(self.login.clone()))
    }
    async fn hash_password(&self, _: String) -> Result<String, Busy> {
        Err(Busy)
    }
    async fn verify_password(&self, _: String, _: Option<String>) -> Result<bool, Busy> {
        Err(Busy)
    }
    async fn rate(&self, _: IpAddr, _: Bucket, _: Key, limit: Limit, _: Action) -> Standing {
        Standing { limit, used: 0, resets_at: NOW + limit.window_ms }
    }
    async fn sessions_ended(&self, _: UserId, _: TokenHash) {}
    async fn profile(&self, _: UserId) -> Result<Option<Profile>, Unavailable> {
        Err(Unavailable)
    }
    async fn user_changed(&self, _: UserId) {}
    fn shard(&self) -> ShardId {
        ShardId(0)
    }
    fn directory<T>(&self, look: impl FnOnce(&Directory) -> T) -> T {
        look(&self.directory)
    }
    async fn standing(&self) -> Option<store::Standing> {
        None
    }
    async fn is_ready(&self) -> bool {
        true
    }
    fn answered(&self, _: usize) {}

    fn limited(&self, _: Bucket) {}

    async fn live(&self) -> Live {
        Live::default()
    }
}

/// A shard with so many people in the queue, and the token of one of them.
fn shard(people: usize) -> (Shard, Token) {
    let names = ["Ada", "Bo", "Cyrus", "Deirdre", "Eve", "Fatima", "Gustavo", "Hal", "Ingrid", "Jo"];
    let (mut random, mut directory) = (Random::from_seed(1), Directory::default());
    let mut card = |n: usize| {
        let user_id = UserId::draw(&mut random);
        let upload = Token::draw(user_id, &mut random).encode();
        let gender = if n.is_multiple_of(2) { Gender::Female } else { Gender::Male };
        let (name, selfie_url) = (format!("{} {n}", names[n % 10]), Some(format!("/uploads/{upload}.jpg")));
        Card { user_id, name, gender, selfie_url, video_url: None, introduction: None }
    };
    let cards: Vec<Card> = (0..people).map(&mut card).collect();
    let delta = |(n, card): (usize, &Card)| Delta {
        card: card.clone().into(),
        online: true,
        available: true,
        since: Time(n as u64),
    };
    let deltas: Vec<Delta> = cards.iter().enumerate().map(delta).collect();
    directory.apply(&deltas, &mut Effects::default());
    let card = cards[people / 2].clone();
    let token = Token::draw(card.user_id, &mut random);
    let (account, paid, expires_at) = (AccountType::Guest, PaidStatus::Paid, NOW + 1_000);
    let login =
        Login { card: card.into(), token: token.hash(), account, paid, banned: false, active: true, expires_at };
    (Shard { settings: Settings::default(), directory, login }, token)
}

fn answer(shard: &Shard, request: &Request) -> Response {
    match pin!(handle(shard, request, Ipv4Addr::LOCALHOST.into())).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(response) => response,
        Poll::Pending => unreachable!("nothing here waits"),
    }
}

fn encode(spare: &mut Spare, coding: Coding, level: u8, mut response: Response) -> usize {
    let mut encoding = Encoding::reusing(spare, coding, level, response.body.clone());
    while encoding.step() {}
    spare.keep(encoding.finish(&mut response));
    response.body.len()
}

/// Microseconds of the best run: on a machine that does other work too, the one that was not interrupted.
fn best_us<T>(mut run: impl FnMut() -> T) -> f64 {
    let timed = || {
        let started = Instant::now();
        drop(black_box(run()));
        started.elapsed().as_secs_f64() * 1e6
    };
    std::iter::repeat_with(timed).take(ROUNDS).fold(f64::MAX, f64::min)
}

fn main() {
    let columns = ["people", "bytes", "304 us", "list us", "gzip us", "bytes", "usual br us", "bytes"];
    println!("{}", columns.map(|column| format!("{column:>12}")).concat());
    for people in [10, 100, 200, 1_000, 10_000] {
        let (shard, token) = shard(people);
        let headers = vec![("authorization".to_owned(), format!("Bearer {}", token.encode()))];
        let (path, query, body) = ("/room/queue".to_owned(), String::new(), Default::default());
        let request = Request { method: Method::Get, path, query, headers, body };
        let full = answer(&shard, &request);
        let tag = full.headers.iter().find(|(name, _)| *name == "ETag").expect("the queue has a tag").1.clone();
        let mut known = request.clone();
        known.headers.push(("if-none-match".to_owned(), tag));
        assert_eq!((full.status, answer(&shard, &known).status), (200, 304));

        let settings = duet::wire::encoding::Settings::default();
        let mut spare = Spare::default();
        let mut coded = |coding, effort| {
            let level = settings.level(effort);
            let bytes = encode(&mut spare, coding, level, full.clone());
            (best_us(|| encode(&mut spare, coding, level, full.clone())), bytes)
        };
        let (gzip, brotli) = (coded(Coding::Gzip, Effort::Little), coded(Coding::Brotli, Effort::Usual));
        let (known, list) = (best_us(|| answer(&shard, &known)), best_us(|| answer(&shard, &request)));
        println!(
            "{people:>12}{:>12}{known:>12.1}{list:>12.1}{:>12.1}{:>12}{:>12.1}{:>12}",
            full.body.len(),
            gzip.0,
            gzip.1,
            brotli.0,
            brotli.1
        );
        if people == LISTED {
            by_level(&full);
        }
    }
}

/// What each level makes of the longest list: gzip, which most answers get, and brotli.
fn by_level(full: &Response) {
    let mut spare = Spare::default();
    for level in 1..=6 {
        let [gzip, brotli] = [Coding::Gzip, Coding::Brotli].map(|coding| {
            let bytes = encode(&mut spare, coding, level, full.clone());
            (best_us(|| encode(&mut spare, coding, level, full.clone())), bytes)
        });
        println!("  level {level}: gzip {:.0} us, {} bytes; br {:.0} us, {} bytes", gzip.0, gzip.1, brotli.0, brotli.1);
    }
}

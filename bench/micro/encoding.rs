//! What one response costs in each content coding; run with `cargo bench --bench encoding`.
//!
//! Prints, per body, coding and level, the encoded bytes, the time of the whole and that of the longest step, which is
//! how long a shard does nothing else: the best of many rounds, in microseconds. Decides the levels, the slice and the
//! limits of `src/wire/encoding.rs`.
#![allow(clippy::disallowed_methods)]

use std::fmt::Write;
use std::time::{Duration, Instant};

use duet::base::{Random, Token, UserId};
use duet::wire::encoding::{Coding, Encoding};
use duet::wire::http::Response;

/// As `/room/queue` answers, with cards of usual length.
fn listing(people: usize) -> Response {
    let names = ["Ada", "Bo", "Cyrus", "Deirdre", "Eve", "Fatima", "Gustavo", "Hal", "Ingrid", "Jo"];
    let mut random = Random::from_seed(1);
    let mut body = String::from("{\"users\":[");
    for n in 0..people {
        let user = UserId::draw(&mut random);
        let upload = Token::draw(user, &mut random).encode();
        let comma = if n > 0 { "," } else { "" };
        let gender = if n % 2 == 0 { "female" } else { "male" };
        let (name, other) = (names[n % 10], names[n * 7 % 10]);
        write!(
            body,
            "{comma}{{\"userId\":{},\"name\":\"{name} {}\",\"gender\":\"{gender}\",\"selfieUrl\":\"/uploads/{upload}.jpg\",\
             \"socials\":{{\"instagram\":\"{other}_{}\",\"tiktok\":\"{name}.{}\"}},\"hasCooldown\":false,\
             \"cooldownExpiry\":null,\"wasIntroducedToMe\":false,\"introducedBy\":null}}",
            serde_json::to_string(&user).expect("an id is text"),
            random.below(1000),
            random.below(100_000),
            random.below(100_000),
        )
        .expect("a String takes every write");
    }
    write!(body, "],\"totalAvailable\":{people}}}").expect("a String takes every write");
    Response { body: body.into_bytes().into(), ..Response::json(200, &()) }
}

/// The encoded bytes, the time of the whole, and the time of the longest step.
fn encode(coding: Coding, level: u8, mut response: Response) -> (usize, Duration, Duration) {
    let started = Instant::now();
    let (mut since, mut longest) = (started, Duration::ZERO);
    let mut encoding = Encoding::new(coding, level, response.body.clone());
    while encoding.step() {
        longest = longest.max(since.elapsed());
        since = Instant::now();
    }
    encoding.finish(&mut response);
    (response.body.len(), started.elapsed(), longest.max(since.elapsed()))
}

fn main() {
    println!("{:<8}{:>6}{:>9}{:>9}{:>9}{:>12}", "coding", "level", "bytes", "encoded", "us", "longest us");
    for people in [4, 120, 1_000, 3_300, 7_000] {
        let response = listing(people);
        for coding in Coding::ALL {
            for level in [1, 3, 6, 7, 9] {
                let rounds = (0..15).map(|_| encode(coding, level, response.clone()));
                let best = rounds.reduce(|a, b| (b.0, a.1.min(b.1), a.2.min(b.2))).expect("there are rounds");
                let (bytes, encoded, whole, longest) = (response.body.len(), best.0, best.1, best.2);
                let (whole, longest) = (whole.as_micros(), longest.as_micros());
                println!("{:<8}{level:>6}{bytes:>9}{encoded:>9}{whole:>9}{longest:>12}", coding.name());
            }
        }
    }
}

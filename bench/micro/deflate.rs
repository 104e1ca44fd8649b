//! What compression costs a shard, by size of message; run with `cargo bench --bench deflate`.
//!
//! Prints the best of many rounds in nanoseconds per message, and the payload's size. The messages are queues of several
//! lengths. With takeover each message is new and earlier ones are known.
#![allow(clippy::disallowed_methods)]

use std::hint::black_box;
use std::time::Instant;

use duet::base::Random;
use duet::wire::deflate::{Deflater, Inflater, Window};

const ROUNDS: usize = 60;
const MESSAGES: usize = 20;

/// A `queue:update` of so many bytes, its ids drawn.
fn message(random: &mut Random, length: usize) -> Vec<u8> {
    let mut text = "42[\"queue:update\",[".to_owned();
    while text.len() < length {
        let (high, low, age) = (random.below(u64::MAX), random.below(u64::MAX), 18 + random.below(50));
        text.push_str(&format!(
            "{{\"userId\":\"{high:016x}{low:016x}\",\"name\":\"Ann {age}\",\"gender\":\"female\",\"picture\":null,\
             \"available\":true,\"socials\":{{\"instagram\":\"ann_{age}\"}}}},"
        ));
    }
    text.truncate(length);
    text.into_bytes()
}

/// Nanoseconds per message of the best round. What a round remembers goes on in the next.
fn best_ns(messages: &[Vec<u8>], mut run: impl FnMut(&[u8]) -> Vec<u8>) -> u128 {
    let round = |run: &mut dyn FnMut(&[u8]) -> Vec<u8>| {
        let started = Instant::now();
        for message in messages {
            black_box(run(black_box(message)));
        }
        started.elapsed().as_nanos() / messages.len() as u128
    };
    (0..ROUNDS).map(|_| round(&mut run)).min().expect("there are rounds")
}

/// The best of both directions, for messages that are new in each round, as they are for a server.
fn takeover_ns(random: &mut Random, level: u8, length: usize) -> (u128, u128, usize) {
    let (mut deflater, mut inflater, mut window) = (Deflater::new(level, true), Inflater::default(), Window::new(15));
    let (mut deflate_ns, mut inflate_ns, mut payload_length) = (u128::MAX, u128::MAX, 0);
    for _ in 0..ROUNDS {
        let messages: Vec<Vec<u8>> = (0..MESSAGES).map(|_| message(random, length)).collect();
        let started = Instant::now();
        let payloads: Vec<Vec<u8>> = messages.iter().map(|message| deflater.deflate(&[message], 15)).collect();
        deflate_ns = deflate_ns.min(started.elapsed().as_nanos() / MESSAGES as u128);
        let started = Instant::now();
        for payload in &payloads {
            black_box(inflater.inflate(payload, Some(&mut window), length)).expect("it was just compressed");
        }
        inflate_ns = inflate_ns.min(started.elapsed().as_nanos() / MESSAGES as u128);
        payload_length = payloads[MESSAGES - 1].len();
    }
    (deflate_ns, inflate_ns, payload_length)
}

fn main() {
    let mut random = Random::from_seed(1);
    println!("{:<30}{:>8}{:>10}{:>14}{:>14}", "", "bytes", "payload", "deflate ns", "inflate ns");
    let line = |name: &str, length: usize, payload: usize, deflate: u128, inflate: u128| {
        println!("{name:<30}{length:>8}{payload:>10}{deflate:>14}{inflate:>14}");
    };
    for length in [20, 400, 1024, 4096, 36 * 1024] {
        let messages: Vec<Vec<u8>> = (0..MESSAGES).map(|_| message(&mut random, length)).collect();
        for (level, window_bits) in [(1, 15), (3, 15), (6, 15), (9, 15), (6, 12), (6, 8)] {
            let (mut deflater, mut inflater) = (Deflater::new(level, false), Inflater::default());
            let deflate = best_ns(&messages, |message| deflater.deflate(&[message], window_bits));
            let payloads: Vec<Vec<u8>> = messages.iter().map(|one| deflater.deflate(&[one], window_bits)).collect();
            let inflate = best_ns(&payloads, |payload| inflater.inflate(payload, None, length).expect("its own"));
            line(&format!("level {level}, window 2^{window_bits}"), length, payloads[0].len(), deflate, inflate);
        }
        for level in [1, 6] {
            let (deflate, inflate, payload) = takeover_ns(&mut random, level, length);
            line(&format!("level {level}, with takeover"), length, payload, deflate, inflate);
        }
    }
}

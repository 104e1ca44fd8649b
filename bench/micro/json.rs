//! `serde_json` against `simd-json` on the bodies that clients send; run with `cargo bench --bench json`.
//!
//! Prints the best of many rounds in nanoseconds per body: the copy that `simd-json` needs is counted, its buffers are
//! used again. Decides `SMALL_BYTES_MAX` in `src/api/body.rs`.
#![allow(clippy::disallowed_methods)]

use std::hint::black_box;
use std::time::Instant;

use serde::Deserialize;
use serde_json::Value;
use simd_json::Buffers;

/// As the endpoints read them: a few fields, whatever type they have.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Body {
    name: Value,
    gender: Value,
    email: Value,
    password: Value,
    socials: Value,
}

fn best_ns(mut parse: impl FnMut() -> Body) -> u128 {
    let round = |parse: &mut dyn FnMut() -> Body| {
        let started = Instant::now();
        for _ in 0..2_000 {
            let body = black_box(parse());
            black_box((&body.name, &body.gender, &body.email, &body.password, &body.socials));
        }
        started.elapsed().as_nanos() / 2_000
    };
    (0..25).map(|_| round(&mut parse)).min().expect("there are rounds")
}

fn main() {
    let socials = |count: usize| {
        let pairs = (0..count).map(|n| format!("\"platform{n}\":\"somebody.with_a.handle{n}\""));
        format!("{{\"socials\":{{{}}}}}", pairs.collect::<Vec<_>>().join(","))
    };
    let bodies = [
        ("sign-up", "{\"name\":\"Ann Example\",\"gender\":\"female\"}".to_owned()),
        ("log-in", "{\"email\":\"ann@example.org\",\"password\":\"correct horse battery\"}".to_owned()),
        ("socials, 5", socials(5)),
        ("socials, 10", socials(10)),
        ("socials, 20", socials(20)),
        ("socials, 50", socials(50)),
        ("socials, 500", socials(500)),
    ];
    println!("{:<14}{:>8}{:>14}{:>14}", "body", "bytes", "serde_json ns", "simd-json ns");
    for (name, body) in bodies {
        let bytes = body.as_bytes();
        let serde = best_ns(|| serde_json::from_slice(black_box(bytes)).unwrap());
        let (mut copy, mut buffers) = (Vec::new(), Buffers::default());
        let simd = best_ns(|| {
            copy.clear();
            copy.extend_from_slice(black_box(bytes));
            simd_json::serde::from_slice_with_buffers(&mut copy, &mut buffers).unwrap()
        });
        println!("{name:<14}{:>8}{serde:>14}{simd:>14}", bytes.len());
    }
}

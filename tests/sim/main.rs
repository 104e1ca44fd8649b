//! The deterministic simulation: the shards of one process, their clients and everything between, on one thread and on
//! virtual time, with all chance from one seed.
//!
//! The system under test is `duet::domain` and `duet::conn`, codecs and placement included. What is re-done here is the
//! thin shell around them (`shell`: a connection's task and `apply`; `mesh`: the inboxes) and the world outside: the
//! network (`pipe`), browsers (`client`, `acts`, `codec`), a store (`store`). Faults are drawn per seed (`plan`), `check` says
//! what must hold, `broken` proves that the checkers see.
//!
//! `SIM_SEED=n` runs one seed and prints its trace; `SIM_SEEDS=n` says how many to run, `SIM_FROM=n` where to begin.
#![allow(clippy::disallowed_methods)]

mod acts;
mod broken;
mod check;
mod client;
mod codec;
mod mesh;
mod pipe;
mod plan;
mod relay_text;
mod shell;
mod store;
mod trace;
mod world;

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use trace::Counts;
use world::World;

/// Seeds in a debug build and in a release build.
const SEEDS: u64 = if cfg!(debug_assertions) { 200 } else { 1_000 };

/// Runs one seed; the error is for people.
fn run(seed: u64, trace: bool, loud: bool) -> (World, Result<(), String>) {
    let mut world = World::new(seed, None);
    (world.trace.on, world.trace.loud) = (trace, loud);
    let result = match catch_unwind(AssertUnwindSafe(|| world.run())) {
        Ok(result) => result.map_err(|broken| broken.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            Err(format!(
                "panic: {}",
                text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
            ))
        }
    };
    (world, result)
}

/// The seed again, this time with its trace.
fn explain(seed: u64, failure: &str) -> String {
    let (world, again) = run(seed, true, false);
    assert_eq!(again.as_ref().err().map(String::as_str), Some(failure), "seed {seed} does not repeat itself");
    format!(
        "seed {seed} fails at {} ms: {failure}\n{}rerun: SIM_SEED={seed} cargo test --no-default-features --test sim seeds_hold -- --nocapture",
        world.now.0 - world::START.0,
        world.trace.text()
    )
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

#[test]
fn seeds_hold() {
    if let Some(seed) = number("SIM_SEED") {
        let (world, result) = run(seed, true, true);
        println!("{}", world.counts.text());
        return result
            .unwrap_or_else(|failure| panic!("seed {seed} fails at {} ms: {failure}", world.now.0 - world::START.0));
    }
    let (from, count) = (number("SIM_FROM").unwrap_or(0), number("SIM_SEEDS").unwrap_or(SEEDS));
    let (began, mut counts, mut failures) = (Instant::now(), Counts::default(), Vec::new());
    for seed in from..from + count {
        let (world, result) = run(seed, false, false);
        counts.add(&world.counts);
        if let Err(failure) = result {
            eprintln!("seed {seed}: {failure}");
            failures.push((seed, failure));
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{count} seeds in {seconds:.1} s, {:.1} a second\n{}", count as f64 / seconds, counts.text());
    if let Some((seed, failure)) = failures.first() {
        panic!("{} of {count} seeds fail\n{}", failures.len(), explain(*seed, failure));
    }
}

#[test]
fn a_seed_repeats_itself() {
    for seed in [1, 7, 23] {
        let [first, second] = [run(seed, false, false).0, run(seed, false, false).0];
        assert_eq!(first.counts.text(), second.counts.text());
    }
}

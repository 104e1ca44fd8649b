//! The names under which operators find what shards count, and what each means.
//!
//! Runs on the thread that writes the metrics, over samples of all shards. Told by shard is what tells whether work is
//! spread well; all else is told in sum. Not here: what the process as a whole has (`boot/metrics.rs`).

use std::collections::BTreeMap;

use crate::api::counted::{self, CLASSES};
use crate::api::host::CacheCounts;
use crate::conn::{EventClass, Transport};
use crate::domain::counts::{Counts, END_CAUSES, InviteEnd, InviteRefusal, Relay};
use crate::domain::rate::Bucket;
use crate::message::store::Request;
use crate::message::{ClientEvent, ServerEvent};
use crate::telemetry::exposition::{Kind, Page};

use super::counters::{Counters, Opened, Refused, StoreFault};
use super::sample::Sample;

const MICROS: f64 = 1e6;

/// Writes what these shards count.
pub fn describe(samples: &[&Sample], page: &mut Page) {
    let (counters, counts) = (Counters::default(), Counts::default());
    for sample in samples {
        counters.merge(&sample.counters);
        counts.merge(&sample.counts);
    }
    connections(samples, &counters, page);
    events(&counters, &counts, page);
    people(samples, page);
    calls(samples, &counts, page);
    requests(&counters, page);
    store(samples, &counters, page);
    shards(samples, page);
}

fn connections(samples: &[&Sample], counters: &Counters, page: &mut Page) {
    let mut family = page.family("duet_connections", Kind::Gauge, "Open connections by what is spoken over them.");
    for sample in samples {
        for (name, open) in Transport::NAMES.iter().zip(sample.counters.transports.get()) {
            family.sample(&[("shard", &sample.shard.0.to_string()), ("transport", name)], open as f64);
        }
    }
    let help = "Open connections that belong to a user.";
    by_shard(page, samples, "duet_connections_authenticated", Kind::Gauge, help, |sample| sample.authenticated as f64);
    let help = "Connections opened: sockets accepted, and Engine.IO sessions by polling.";
    let mut family = page.family("duet_connections_opened_total", Kind::Counter, help);
    for sample in samples {
        for (name, opened) in Opened::NAMES.iter().zip(sample.counters.opened.get()) {
            family.sample(&[("shard", &sample.shard.0.to_string()), ("kind", name)], opened as f64);
        }
    }
    let help = "Sessions by polling that went on over a WebSocket, whose two connections became one.";
    by_shard(page, samples, "duet_connections_upgraded_total", Kind::Counter, help, |sample| {
        sample.counters.upgraded.get() as f64
    });
    let mut closed = BTreeMap::<&str, u64>::new();
    for (reason, count) in samples.iter().flat_map(|sample| &sample.closed) {
        *closed.entry(reason).or_default() += count;
    }
    let mut family = page.family("duet_connections_closed_total", Kind::Counter, "Connections ended, by reason.");
    for (reason, count) in closed {
        family.sample(&[("reason", reason)], count as f64);
    }
    page.family(
        "duet_connections_refused_total",
        Kind::Counter,
        "Connections turned away, by reason; strangers without a word.",
    )
    .each("reason", &Refused::NAMES, counters.refused.get());
    let help = "Times that a shard let new connections wait in the kernel, as more come than it may accept at once.";
    page.family("duet_accept_pauses_total", Kind::Counter, help).value(counters.accept_pauses.get() as f64);
}

fn events(counters: &Counters, counts: &Counts, page: &mut Page) {
    page.family("duet_events_received_total", Kind::Counter, "Events from clients within their budgets, by name.")
        .each("event", &ClientEvent::NAMES, counters.received.get());
    page.family("duet_events_malformed_total", Kind::Counter, "Known events with a payload that they do not take.")
        .value(counters.malformed.get() as f64);
    page.family(
        "duet_events_over_budget_total",
        Kind::Counter,
        "Events refused because their connection sent too many of their class.",
    )
    .each("class", &EventClass::NAMES, counters.over_budget.get());
    page.family("duet_events_sent_total", Kind::Counter, "Events to clients, one for each connection, by name.").each(
        "event",
        &ServerEvent::NAMES,
        counters.sent.get(),
    );
    let help = "Connections that one change of presence or queue went to on one shard.";
    page.family("duet_fan_out_connections", Kind::Histogram, help).histogram(&[], &counters.fan_outs, 1.0);
    let help =
        "Changes of presence and queue not sent at once to clients that read slowly; they hear the newest later.";
    page.family("duet_changes_spared_total", Kind::Counter, help).value(counters.spared.get() as f64);
    let help =
        "Signals, chat and socials for the other one in a call: delivered, held until he is in the room, dropped.";
    page.family("duet_relays_total", Kind::Counter, help).each("outcome", &Relay::NAMES, counts.relays.get());
}

/// What all shards know alike: the first tells it.
fn people(samples: &[&Sample], page: &mut Page) {
    let Some(first) = samples.first() else { return };
    page.family("duet_users_online", Kind::Gauge, "Users who are online.").value(first.online as f64);
    page.family("duet_queue_users", Kind::Gauge, "Users in the queue who can be called.").value(first.queued as f64);
}

fn calls(samples: &[&Sample], counts: &Counts, page: &mut Page) {
    let sum = |part: fn(&Sample) -> usize| samples.iter().map(|sample| part(sample)).sum::<usize>() as f64;
    page.family("duet_calls", Kind::Gauge, "Calls that run, and that have ended but are not stored yet.")
        .sample(&[("state", "running")], sum(|sample| sample.sizes.calls))
        .sample(&[("state", "finishing")], sum(|sample| sample.sizes.finishing));
    page.family("duet_calls_started_total", Kind::Counter, "Calls that began.")
        .value(counts.calls_started.get() as f64);
    page.family("duet_calls_ended_total", Kind::Counter, "Calls that ended, by reason.").each(
        "reason",
        &END_CAUSES,
        counts.calls_ended.get(),
    );
    page.family("duet_call_duration_seconds", Kind::Histogram, "How long calls lasted that have ended.").histogram(
        &[],
        &counts.call_seconds,
        1.0,
    );
    page.family("duet_invites_made_total", Kind::Counter, "Invites that were made.")
        .value(counts.invites_made.get() as f64);
    page.family("duet_invites_ended_total", Kind::Counter, "Invites made that have ended, each once, by outcome.")
        .each("outcome", &InviteEnd::NAMES, counts.invites_ended.get());
    page.family("duet_invites_refused_total", Kind::Counter, "Invites asked for and not made, by reason.").each(
        "reason",
        &InviteRefusal::NAMES,
        counts.invites_refused.get(),
    );
}

fn requests(counters: &Counters, page: &mut Page) {
    let help = "HTTP requests answered, by what answered and the class of the status.";
    let mut family = page.family("duet_http_requests_total", Kind::Counter, help);
    for (place, count) in counters.requests.get().into_iter().enumerate() {
        let (name, class) = (counted::NAMES[place / CLASSES.len()], CLASSES[place % CLASSES.len()]);
        family.sample(&[("route", name), ("status", class)], count as f64);
    }
    page.family("duet_rate_limited_total", Kind::Counter, "HTTP requests refused with 429, by the limit they met.")
        .each("limit", &Bucket::NAMES, counters.limited.get());
    page.family("duet_hashing_busy_total", Kind::Counter, "Passwords not hashed because too many waited.")
        .value(counters.hashing_busy.get() as f64);
}

fn store(samples: &[&Sample], counters: &Counters, page: &mut Page) {
    let help = "Time from asking the store to its answer, by kind of request.";
    let mut family = page.family("duet_store_request_duration_seconds", Kind::Histogram, help);
    for (name, histogram) in Request::NAMES.iter().zip(&counters.store) {
        family.histogram(&[("request", name)], histogram, MICROS);
    }
    page.family("duet_store_errors_total", Kind::Counter, "Requests to the store without an answer that can be used.")
        .each("reason", &StoreFault::NAMES, counters.store_faults.get());
    let sum = |part: fn(&Sample) -> u64| samples.iter().map(|sample| part(sample)).sum::<u64>() as f64;
    page.family("duet_writes_pending", Kind::Gauge, "Writes of the rules that the store has not confirmed.")
        .value(sum(|sample| sample.sizes.writes as u64));
    page.family("duet_writes_lost_total", Kind::Counter, "Writes of the rules given up because too many were pending.")
        .value(sum(|sample| sample.sizes.writes_lost));
    caches(samples, page);
}

fn caches(samples: &[&Sample], page: &mut Page) {
    type Part = fn(&CacheCounts) -> u64;
    let families: [(&str, Kind, &str, Part); 5] = [
        ("duet_cache_hits_total", Kind::Counter, "Look-ups that found what they sought.", |cache| cache.hits),
        ("duet_cache_misses_total", Kind::Counter, "Look-ups that did not.", |cache| cache.misses),
        ("duet_cache_evictions_total", Kind::Counter, "Entries that had to make room.", |cache| cache.evictions),
        ("duet_cache_entries", Kind::Gauge, "Entries kept.", |cache| cache.size as u64),
        ("duet_cache_entries_limit", Kind::Gauge, "Entries that may be kept.", |cache| cache.max as u64),
    ];
    for (name, kind, help, part) in families {
        let sum = |cache: fn(&Sample) -> &CacheCounts| samples.iter().map(|sample| part(cache(sample))).sum();
        let values = [sum(|sample| &sample.profiles), sum(|sample| &sample.sessions)];
        page.family(name, kind, help).each("cache", &["profiles", "sessions"], values);
    }
}

fn shards(samples: &[&Sample], page: &mut Page) {
    let help = "Processor time that the shard's thread has used.";
    by_shard(page, samples, "duet_shard_processor_seconds_total", Kind::Counter, help, |sample| {
        sample.processor.as_secs_f64()
    });
    let help = "Longest turn of the loop in each 100 ms in which there was one: what is ready waits so long.";
    let mut family = page.family("duet_shard_lateness_seconds", Kind::Histogram, help);
    for sample in samples {
        family.histogram(&[("shard", &sample.shard.0.to_string())], &sample.turns.longest, MICROS);
    }
    let help = "Turns of the loop that took 50 ms or more.";
    by_shard(page, samples, "duet_shard_stalls_total", Kind::Counter, help, |sample| sample.turns.stalls.get() as f64);
    let help = "Messages to other shards that wait for room in their inboxes.";
    by_shard(page, samples, "duet_shard_overflow_messages", Kind::Gauge, help, |sample| sample.overflowing as f64);
    let help = "Messages to other shards that were lost, because too many waited.";
    by_shard(page, samples, "duet_shard_shed_messages_total", Kind::Counter, help, |sample| sample.shed as f64);
    let help = "Users of whom the shard keeps something.";
    by_shard(page, samples, "duet_shard_users", Kind::Gauge, help, |sample| sample.sizes.users as f64);
}

fn by_shard(
    page: &mut Page,
    samples: &[&Sample],
    name: &'static str,
    kind: Kind,
    help: &'static str,
    value: fn(&Sample) -> f64,
) {
    let mut family = page.family(name, kind, help);
    for sample in samples {
        family.sample(&[("shard", &sample.shard.0.to_string())], value(sample));
    }
}

//! What happened, for people: the last lines before a failure, and counts of everything.

use std::collections::{BTreeMap, VecDeque};

use duet::base::Time;
use duet::domain::{Effect, Input};

const LINES: usize = 60;

/// The last lines; kept only in a run that is repeated to explain itself.
#[derive(Default)]
pub struct Trace {
    pub on: bool,
    pub loud: bool,
    lines: VecDeque<String>,
}

impl Trace {
    pub fn add(&mut self, now: Time, line: &str) {
        let line = format!("{:>9} {line}", now.0 - crate::world::START.0);
        if self.loud {
            eprintln!("{line}");
        }
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    pub fn text(&self) -> String {
        self.lines.iter().map(|line| format!("  {line}\n")).collect()
    }
}

/// What a run went through.
#[derive(Default)]
pub struct Counts {
    pub events: u64,
    pub inputs: u64,
    pub effects: u64,
    faults: BTreeMap<&'static str, u64>,
    closed: BTreeMap<&'static str, u64>,
    pub facts: BTreeMap<&'static str, u64>,
}

impl Counts {
    pub fn fault(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    pub fn closed(&mut self, reason: &'static str) {
        *self.closed.entry(reason).or_default() += 1;
    }

    pub fn add(&mut self, other: &Counts) {
        self.events += other.events;
        self.inputs += other.inputs;
        self.effects += other.effects;
        for (mine, others) in
            [(&mut self.faults, &other.faults), (&mut self.closed, &other.closed), (&mut self.facts, &other.facts)]
        {
            others.iter().for_each(|(kind, count)| *mine.entry(kind).or_default() += count);
        }
    }

    pub fn text(&self) -> String {
        let list = |counts: &BTreeMap<&'static str, u64>| {
            counts.iter().map(|(kind, count)| format!("{kind} {count}")).collect::<Vec<_>>().join(", ")
        };
        format!(
            "events {}, inputs {}, effects {}\n  faults: {}\n  closed: {}\n  seen: {}",
            self.events,
            self.inputs,
            self.effects,
            list(&self.faults),
            list(&self.closed),
            list(&self.facts)
        )
    }
}

/// An input in one line.
pub fn input(input: &Input) -> String {
    shorten(&match input {
        Input::Client { conn, event, fact } => format!("{} {event:?} {fact:?}", place(*conn)),
        Input::Connect { conn, fact } => format!("{} connect {fact:?}", place(*conn)),
        Input::Left { conn, leave } => format!("{} left {leave:?}", place(*conn)),
        other => format!("{other:?}"),
    })
}

/// An effect in one line.
pub fn effect(effect: &Effect) -> String {
    shorten(&match effect {
        Effect::Send { conn, event } => format!("{} {event:?}", place(*conn)),
        Effect::FanOut { conns, event, .. } => format!("{} connections {event:?}", conns.len()),
        other => format!("{other:?}"),
    })
}

fn place(conn: duet::base::ConnId) -> String {
    format!("conn {}/{}/{}", conn.shard.0, conn.index, conn.generation)
}

fn shorten(text: &str) -> String {
    text.chars().take(220).collect()
}

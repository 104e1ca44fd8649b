//! Running calls: facts of the suite that every store must pass.

use duet::base::{CallId, Time, UserId};
use duet::message::model::{ChatKind, ChatLine};
use duet::message::store::{CallProgress, FinishedCall, Reply, Request, RunningCall, StartedCall};

use super::suite::history;
use super::world::{Fact, NOW, Person, World};

fn started(world: &mut World<'_>, caller: Person, callee: Person) -> StartedCall {
    let (call, caller, callee) = (CallId::draw(&mut world.random), caller.id, callee.id);
    StartedCall { call, caller, callee, agreed_seconds: 250, started_at: NOW }
}

/// The start of a call that is to end like this.
pub fn started_as(ended: &FinishedCall) -> StartedCall {
    let FinishedCall { call, caller, callee, started_at, .. } = *ended;
    StartedCall { call, caller, callee, agreed_seconds: 250, started_at }
}

pub fn start(world: &World<'_>, call: &StartedCall) {
    assert!(matches!(world.ask(Request::StartCall(Box::new(call.clone()))), Reply::Done));
}

fn keep(world: &World<'_>, progress: CallProgress) {
    assert!(matches!(world.ask(Request::KeepCalls(Box::new(progress))), Reply::Done));
}

fn line(from: UserId, text: &str) -> ChatLine {
    ChatLine { from: from.to_string(), text: text.to_owned(), timestamp: NOW, kind: ChatKind::Message, socials: None }
}

/// One page: when it was last alive, the calls, and after which to go on.
pub fn page(world: &World<'_>, after: Option<CallId>, limit: usize) -> (Time, Vec<RunningCall>, Option<CallId>) {
    match world.ask(Request::RunningCalls { round: 0, after, limit }) {
        Reply::RunningCalls { alive_at, calls, next } => (alive_at, calls, next),
        other => panic!("{other:?}"),
    }
}

fn only(world: &World<'_>) -> RunningCall {
    let (_, mut calls, next) = page(world, None, 9);
    assert_eq!((calls.len(), next), (1, None));
    calls.remove(0)
}

fn is_in_a_call(world: &World<'_>, person: Person) -> bool {
    match world.ask(Request::HasCall { user: person.id }) {
        Reply::HasCall(has) => has,
        other => panic!("{other:?}"),
    }
}

fn ended(call: &StartedCall) -> FinishedCall {
    FinishedCall {
        call: call.call,
        session: call.call.to_string(),
        caller: call.caller,
        caller_name: "Ann".to_owned(),
        callee: call.callee,
        callee_name: "Bob".to_owned(),
        started_at: call.started_at,
        ended_at: call.started_at + 60_000,
        duration: 60,
        messages: Vec::new(),
        recorded: true,
        completed: true,
        cooldown_until: None,
    }
}

pub fn a_running_call_is_found_with_its_chat(world: &mut World<'_>) {
    let (ann, bob, eve) = (world.guest(), world.guest(), world.guest());
    let call = started(world, ann, bob);
    start(world, &call);
    let found = only(world);
    assert_eq!((found.call, found.agreed_seconds, found.started_at), (call.call, 250, NOW));
    assert_eq!((found.caller.user(), found.callee.user()), (ann.id, bob.id));
    assert_eq!((found.caller.card.name.as_str(), found.caller.joined, found.callee.joined), ("Ann", false, false));
    let lines = [line(ann.id, "a \"quoted\" \\ one"), line(bob.id, "two"), line(ann.id, "three")];
    let numbered = |range: std::ops::Range<usize>| range.map(|n| (call.call, n as u32, lines[n].clone())).collect();
    keep(world, CallProgress { joined: vec![(call.call, bob.id)], lines: numbered(0..2), ..CallProgress::default() });
    assert_eq!((only(world).caller.joined, only(world).callee.joined), (false, true));
    let stranger = vec![(call.call, ann.id), (call.call, eve.id)];
    keep(world, CallProgress { joined: stranger, lines: numbered(2..3), ..CallProgress::default() });
    let found = only(world);
    assert_eq!((found.caller.joined, found.callee.joined, found.messages), (true, true, lines.to_vec()));
}

pub fn a_repeated_start_or_batch_changes_nothing(world: &mut World<'_>) {
    let (ann, bob) = (world.guest(), world.guest());
    let call = started(world, ann, bob);
    let progress = CallProgress {
        alive_at: NOW,
        joined: vec![(call.call, ann.id)],
        lines: vec![(call.call, 0, line(ann.id, "once"))],
    };
    for _ in 0..2 {
        start(world, &call);
        keep(world, progress.clone());
    }
    let found = only(world);
    assert_eq!((found.caller.joined, found.messages.len()), (true, 1));
}

pub fn an_ended_call_runs_no_more(world: &mut World<'_>) {
    let (ann, bob, eve) = (world.guest(), world.guest(), world.guest());
    let (call, other) = (started(world, ann, bob), started(world, eve, bob));
    start(world, &call);
    start(world, &other);
    let lines = vec![(call.call, 0, line(ann.id, "in time")), (other.call, 0, line(eve.id, "of another"))];
    keep(world, CallProgress { lines, ..CallProgress::default() });
    assert_eq!([ann, bob, eve].map(|person| is_in_a_call(world, person)), [true; 3]);
    world.finished(&FinishedCall { messages: vec![line(ann.id, "in time")], ..ended(&call) });
    assert_eq!([ann, bob, eve].map(|person| is_in_a_call(world, person)), [false, true, true]);
    let late = vec![(call.call, 1, line(ann.id, "too late")), (other.call, 1, line(eve.id, "in time"))];
    keep(world, CallProgress { joined: vec![(call.call, ann.id)], lines: late, ..CallProgress::default() });
    let found = only(world);
    assert_eq!((found.call, found.messages.len()), (other.call, 2), "what is of an ended call is passed over");
    assert_eq!((history(world, ann.id, 9).len(), history(world, bob.id, 9).len()), (1, 1));
}

pub fn a_call_that_ends_twice_differently_is_stored_once(world: &mut World<'_>) {
    let (ann, bob) = (world.guest(), world.guest());
    let call = started(world, ann, bob);
    start(world, &call);
    let first = world.finished(&ended(&call));
    let session = format!("{}-disconnected", call.call);
    let again = FinishedCall { session, duration: 90, ended_at: NOW + 90_000, ..ended(&call) };
    assert_eq!(world.finished(&again), first, "what a new process makes of the same call counts nothing");
    for person in [ann, bob] {
        let sessions: Vec<_> = history(world, person.id, 9).into_iter().map(|entry| entry.session).collect();
        assert_eq!(sessions, [call.call.to_string()]);
    }
}

pub fn running_calls_are_told_page_by_page(world: &mut World<'_>) {
    let mut calls = Vec::new();
    for number in 0..5 {
        let (ann, bob) = (world.guest(), world.guest());
        let call = started(world, ann, bob);
        start(world, &call);
        let text = number.to_string();
        keep(world, CallProgress { lines: vec![(call.call, 0, line(ann.id, &text))], ..CallProgress::default() });
        calls.push((call.call, text));
    }
    calls.sort();
    let (mut found, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let (_, page, next) = page(world, after, 2);
        found.extend(page.into_iter().map(|call| (call.call, call.messages[0].text.clone())));
        pages += 1;
        after = next;
        if next.is_none() {
            break;
        }
    }
    assert_eq!((found, pages), (calls, 3));
}

pub fn when_it_was_last_alive_only_moves_forward(world: &mut World<'_>) {
    assert_eq!(page(world, None, 9).0, Time(0));
    for (alive_at, known) in [(NOW, NOW), (Time(5), NOW), (NOW + 1, NOW + 1)] {
        keep(world, CallProgress { alive_at, ..CallProgress::default() });
        assert_eq!(page(world, None, 9).0, known);
    }
}

pub fn a_running_call_goes_with_its_people(world: &mut World<'_>) {
    let (ann, bob, eve) = (world.guest(), world.guest(), world.person());
    let call = started(world, ann, bob);
    start(world, &call);
    keep(world, CallProgress { lines: vec![(call.call, 0, line(ann.id, "bye"))], ..CallProgress::default() });
    let nobody = started(world, ann, eve);
    assert!(matches!(world.ask(Request::StartCall(Box::new(nobody))), Reply::Failed(_)), "one of the two is not there");
    (world.plant)(Fact::Gone { user: bob.id });
    assert!(page(world, None, 9).1.is_empty());
}

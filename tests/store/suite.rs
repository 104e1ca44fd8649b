//! What every store must do, whichever database is behind it: each fact gets an empty store of its own.

use duet::base::limits::{ARCHIVE_BYTES_MAX, ARCHIVE_ROWS_MAX, LAST_SESSIONS_MAX};
use duet::base::{Time, UserId};
use duet::message::PaidStatus;
use duet::message::model::{AccountType, ChatKind, ChatLine, Socials};
use duet::message::store::{FinishedCall, HistoryEntry, InviteCodeRefusal, Reply, Request};
use futures_lite::future::block_on;

use super::running;
use super::world::{Fact, LATER, NOW, Person, World};

/// A fact by its name.
pub type Named = (&'static str, fn(&mut World<'_>));

pub const FACTS: &[Named] = &[
    ("a_guest_has_a_session_and_a_profile", a_guest_has_a_session_and_a_profile),
    ("a_repeated_sign_up_changes_nothing", a_repeated_sign_up_changes_nothing),
    ("a_referral_introduces_and_an_unknown_one_is_ignored", a_referral_introduces_and_an_unknown_one_is_ignored),
    ("an_invite_code_is_spent_exactly_as_often_as_it_allows", an_invite_code_is_spent_exactly_as_often_as_it_allows),
    ("a_refused_invite_code_makes_nothing", a_refused_invite_code_makes_nothing),
    ("linking_makes_permanent_and_prolongs", linking_makes_permanent_and_prolongs),
    ("one_of_two_links_with_the_same_email_is_refused", one_of_two_links_with_the_same_email_is_refused),
    ("a_log_in_ends_all_other_sessions", a_log_in_ends_all_other_sessions),
    ("socials_are_replaced_as_a_whole", socials_are_replaced_as_a_whole),
    ("requests_are_served_in_the_order_of_asking", requests_are_served_in_the_order_of_asking),
    ("a_failing_write_leaves_the_others_alone", a_failing_write_leaves_the_others_alone),
    ("a_later_cooldown_overwrites_and_ends_by_itself", a_later_cooldown_overwrites_and_ends_by_itself),
    ("a_report_hides_both_ways", a_report_hides_both_ways),
    ("a_banned_or_unknown_callee_is_told_apart", a_banned_or_unknown_callee_is_told_apart),
    ("a_finished_call_is_stored_once_for_both", a_finished_call_is_stored_once_for_both),
    ("a_repeated_finish_keeps_a_newer_cooldown", a_repeated_finish_keeps_a_newer_cooldown),
    ("an_unrecorded_call_leaves_only_its_cooldown", an_unrecorded_call_leaves_only_its_cooldown),
    ("the_fourth_completion_ends_a_grace_period", the_fourth_completion_ends_a_grace_period),
    ("last_sessions_keep_the_newest_ten", last_sessions_keep_the_newest_ten),
    ("a_call_with_somebody_who_is_gone_is_stored", a_call_with_somebody_who_is_gone_is_stored),
    ("history_is_newest_first_and_limited", history_is_newest_first_and_limited),
    ("a_sweep_removes_what_has_ended_and_nothing_else", a_sweep_removes_what_has_ended_and_nothing_else),
    ("an_old_call_is_archived_whole_for_both", an_old_call_is_archived_whole_for_both),
    ("an_archived_call_counts_once", an_archived_call_counts_once),
    ("an_archived_call_outlives_only_the_partner", an_archived_call_outlives_only_the_partner),
    ("much_is_archived_bit_by_bit_longest_ago_first", much_is_archived_bit_by_bit_longest_ago_first),
    ("long_chats_are_archived_a_few_at_a_time", long_chats_are_archived_a_few_at_a_time),
    ("a_running_call_is_found_with_its_chat", running::a_running_call_is_found_with_its_chat),
    ("a_repeated_start_or_batch_changes_nothing", running::a_repeated_start_or_batch_changes_nothing),
    ("an_ended_call_runs_no_more", running::an_ended_call_runs_no_more),
    ("a_call_that_ends_twice_differently_is_stored_once", running::a_call_that_ends_twice_differently_is_stored_once),
    ("running_calls_are_told_page_by_page", running::running_calls_are_told_page_by_page),
    ("when_it_was_last_alive_only_moves_forward", running::when_it_was_last_alive_only_moves_forward),
    ("a_running_call_goes_with_its_people", running::a_running_call_goes_with_its_people),
];

fn a_guest_has_a_session_and_a_profile(world: &mut World<'_>) {
    let ann = world.person();
    let made = world.signed_up(ann.sign_up());
    assert_eq!((made.login.user(), made.login.expires_at, made.target), (ann.id, LATER, None));
    assert_eq!((made.login.account, made.login.paid), (AccountType::Guest, PaidStatus::Unpaid));
    assert!(made.login.active && !made.login.banned);
    assert_eq!(world.session(ann.token), Some(made.login));
    let profile = world.profile(ann.id);
    assert_eq!((profile.card.name.as_str(), profile.created_at, profile.socials), ("Ann", NOW, None));
    let stranger = world.person();
    assert_eq!(world.session(stranger.token), None);
    assert!(matches!(world.ask(Request::Profile { user: stranger.id }), Reply::Profile(None)));
    assert!(matches!(world.ask(Request::AccountByUser { user: stranger.id }), Reply::Account(None)));
}

fn a_repeated_sign_up_changes_nothing(world: &mut World<'_>) {
    (world.plant)(Fact::InviteCode { code: "ONCE", uses: Some(1), active: true });
    let mut sign_up = world.person().sign_up();
    sign_up.invite_code = Some("ONCE".to_owned());
    let first = world.signed_up(sign_up.clone());
    assert_eq!(first.login, world.signed_up(sign_up).login);
}

fn a_referral_introduces_and_an_unknown_one_is_ignored(world: &mut World<'_>) {
    let (target, creator, new, other) = (world.guest(), world.guest(), world.person(), world.person());
    (world.plant)(Fact::Referral { code: "MEETBOB", target: target.id, creator: creator.id });
    let referred = |person: Person, code: &str| {
        let mut sign_up = person.sign_up();
        sign_up.referral_code = Some(code.to_owned());
        world.signed_up(sign_up)
    };
    let made = referred(new, "MEETBOB");
    assert_eq!(made.target.map(|card| card.user_id), Some(target.id));
    let introduction = made.login.card.introduction.clone().unwrap();
    assert_eq!((introduction.target, introduction.introducer.as_str()), (target.id, "Introducer"));
    let made = referred(other, "NOBODY");
    assert_eq!((made.target, made.login.card.introduction.clone()), (None, None));
}

fn invited(person: Person, code: &str) -> Request {
    let mut sign_up = person.sign_up();
    sign_up.invite_code = Some(code.to_owned());
    Request::SignUp(Box::new(sign_up))
}

fn an_invite_code_is_spent_exactly_as_often_as_it_allows(world: &mut World<'_>) {
    (world.plant)(Fact::InviteCode { code: "FOURTIMES", uses: Some(4), active: true });
    (world.plant)(Fact::InviteCode { code: "UNLIMITED", uses: None, active: true });
    let mut made = |code: &str| {
        let people: Vec<_> = (0..10).map(|_| world.person()).collect();
        let pending: Vec<_> = people.iter().map(|person| world.link.ask(invited(*person, code))).collect();
        let replies = pending.into_iter().map(|pending| block_on(pending).unwrap());
        let outcomes: Vec<_> = replies.map(|reply| matches!(reply, Reply::SignedUp(_))).collect();
        (people, outcomes)
    };
    let (people, outcomes) = made("FOURTIMES");
    assert_eq!(outcomes, [[true; 4].as_slice(), &[false; 6]].concat());
    let (_, outcomes) = made(&people[0].id.to_string());
    assert_eq!(outcomes.iter().filter(|made| **made).count(), 4, "the own code works and has four uses");
    let (_, outcomes) = made("UNLIMITED");
    assert_eq!(outcomes, [true; 10]);
    assert_eq!(world.session(people[0].token).unwrap().paid, PaidStatus::QrGracePeriod);
}

fn a_refused_invite_code_makes_nothing(world: &mut World<'_>) {
    (world.plant)(Fact::InviteCode { code: "USEDUP", uses: Some(0), active: true });
    (world.plant)(Fact::InviteCode { code: "CLOSED", uses: Some(4), active: false });
    for (code, why) in [
        ("USEDUP", InviteCodeRefusal::UsedUp),
        ("CLOSED", InviteCodeRefusal::Deactivated),
        ("NOSUCH", InviteCodeRefusal::Unknown),
    ] {
        let person = world.person();
        match world.ask(invited(person, code)) {
            Reply::InviteCode(refusal) => assert_eq!(refusal, why),
            other => panic!("{other:?}"),
        }
        assert_eq!(world.session(person.token), None);
    }
}

fn linking_makes_permanent_and_prolongs(world: &mut World<'_>) {
    let ann = world.permanent("ann@example.org");
    let login = world.session(ann.token).unwrap();
    assert_eq!((login.account, login.expires_at), (AccountType::Permanent, LATER + 1));
    match world.ask(Request::AccountByEmail { email: "ann@example.org".to_owned() }) {
        Reply::Account(Some(account)) => {
            assert_eq!((account.card.user_id, account.password_hash.as_deref()), (ann.id, Some("$argon2id$")));
            assert!(!account.banned());
        }
        other => panic!("{other:?}"),
    }
    let other_hash = Request::Link {
        user: ann.id,
        token: ann.token,
        email: "ann@example.org".to_owned(),
        password_hash: "other".to_owned(),
        expires_at: LATER + 2,
        now: NOW,
    };
    assert!(matches!(world.ask(other_hash), Reply::Linked), "it only prolongs");
    assert_eq!(world.session(ann.token).unwrap().expires_at, LATER + 2);
    match world.ask(Request::AccountByUser { user: ann.id }) {
        Reply::Account(Some(account)) => assert_eq!(account.password_hash.as_deref(), Some("$argon2id$")),
        other => panic!("{other:?}"),
    }
    assert!(matches!(world.ask(ann.link("second@example.org")), Reply::EmailTaken));
    let stranger = world.person();
    assert!(matches!(world.ask(stranger.link("stranger@example.org")), Reply::Failed(_)));
}

fn one_of_two_links_with_the_same_email_is_refused(world: &mut World<'_>) {
    let (ann, bob) = (world.guest(), world.guest());
    let (first, second) = (world.link.ask(ann.link("x@example.org")), world.link.ask(bob.link("x@example.org")));
    assert!(matches!(block_on(second), Ok(Reply::EmailTaken)));
    assert!(matches!(block_on(first), Ok(Reply::Linked)));
    let refused = world.session(bob.token).unwrap();
    assert_eq!((refused.account, refused.expires_at), (AccountType::Guest, LATER));
}

fn a_log_in_ends_all_other_sessions(world: &mut World<'_>) {
    let (ann, bob) = (world.permanent("ann@example.org"), world.guest());
    let log_in = |token| Request::LogIn { user: ann.id, session: ann.new_session(token), now: NOW };
    let (second, third) = (world.person().token, world.person().token);
    assert!(matches!(world.ask(log_in(second)), Reply::LoggedIn { invalidated: 1 }));
    assert!(matches!(world.ask(log_in(third)), Reply::LoggedIn { invalidated: 1 }));
    assert!(matches!(world.ask(log_in(second)), Reply::LoggedIn { invalidated: 0 }), "a late repeat");
    let active = |token| world.session(token).map(|login| login.active);
    assert_eq!([active(ann.token), active(second), active(third)], [Some(false), Some(false), Some(true)]);
    assert_eq!(active(bob.token), Some(true));
    assert_eq!(world.session(third).unwrap().user(), ann.id);
}

fn socials(text: &str) -> Socials {
    Socials::from([(text.to_owned(), "ann".to_owned())])
}

fn socials_are_replaced_as_a_whole(world: &mut World<'_>) {
    let ann = world.guest();
    for name in ["discord", "tiktok"] {
        let request = Request::SetSocials { user: ann.id, socials: socials(name), now: LATER };
        assert!(matches!(world.ask(request), Reply::Done));
        assert_eq!(world.profile(ann.id).socials, Some(socials(name)));
    }
    let stranger = world.person().id;
    let request = Request::SetSocials { user: stranger, socials: Socials::new(), now: NOW };
    assert!(matches!(world.ask(request), Reply::Failed(_)));
}

fn requests_are_served_in_the_order_of_asking(world: &mut World<'_>) {
    let user = world.guest().id;
    let pending: Vec<_> = (0..200)
        .map(|number: u32| {
            let socials = socials(&number.to_string());
            (world.link.ask(Request::SetSocials { user, socials, now: NOW }), world.link.ask(Request::Profile { user }))
        })
        .collect();
    for (number, (write, read)) in pending.into_iter().enumerate().rev() {
        assert!(matches!(block_on(write), Ok(Reply::Done)));
        match block_on(read) {
            Ok(Reply::Profile(Some(profile))) => assert_eq!(profile.socials, Some(socials(&number.to_string()))),
            other => panic!("{other:?}"),
        }
    }
}

fn a_failing_write_leaves_the_others_alone(world: &mut World<'_>) {
    let people: Vec<_> = (0..60).map(|_| world.person()).collect();
    let pending: Vec<_> = people
        .iter()
        .map(|person| {
            let good = world.link.ask(Request::SignUp(Box::new(person.sign_up())));
            let bad = world.link.ask(Request::SetCooldown { pair: (person.id, person.id), until: LATER });
            (good, bad)
        })
        .collect();
    for (good, bad) in pending {
        assert!(matches!(block_on(good), Ok(Reply::SignedUp(_))));
        assert!(matches!(block_on(bad), Ok(Reply::Failed(_))), "nobody has a cooldown with himself");
    }
    assert!(people.iter().all(|person| world.session(person.token).is_some()));
    // The own code is taken, which shows only after the user row was written: that row must be gone again.
    (world.plant)(Fact::InviteCode { code: "UNLIMITED", uses: None, active: true });
    let late = world.person();
    let mut sign_up = late.sign_up();
    (sign_up.invite_code, sign_up.own_code) = (Some("UNLIMITED".to_owned()), "UNLIMITED".to_owned());
    assert!(matches!(world.ask(Request::SignUp(Box::new(sign_up))), Reply::Failed(_)));
    assert!(matches!(world.ask(Request::Profile { user: late.id }), Reply::Profile(None)));
    world.signed_up(late.sign_up());
}

fn a_later_cooldown_overwrites_and_ends_by_itself(world: &mut World<'_>) {
    let (ann, bob) = (world.guest(), world.guest());
    let set = |pair, until| assert!(matches!(world.ask(Request::SetCooldown { pair, until }), Reply::Done));
    set((ann.id, bob.id), LATER + 9);
    set((bob.id, ann.id), LATER);
    for (one, other) in [(ann, bob), (bob, ann)] {
        assert_eq!(world.pair(one, other, NOW).unwrap().cooldown_until, Some(LATER));
        assert_eq!(world.relations(one.id, NOW).cooldowns, [(other.id, LATER)]);
        assert_eq!(world.pair(one, other, LATER).unwrap().cooldown_until, None);
        assert_eq!(world.relations(one.id, LATER).cooldowns, []);
    }
}

fn a_report_hides_both_ways(world: &mut World<'_>) {
    let (ann, bob, eve) = (world.guest(), world.guest(), world.guest());
    (world.plant)(Fact::Report { reporter: ann.id, reported: bob.id });
    (world.plant)(Fact::Report { reporter: bob.id, reported: ann.id });
    (world.plant)(Fact::Report { reporter: eve.id, reported: ann.id });
    let hidden = |person: Person| -> Vec<UserId> {
        let mut hidden = world.relations(person.id, NOW).hidden;
        hidden.sort();
        hidden
    };
    let mut both = [bob.id, eve.id];
    both.sort();
    assert_eq!(hidden(ann), both);
    assert_eq!((hidden(bob), hidden(eve)), (vec![ann.id], vec![ann.id]));
    let between = |one, other| world.pair(one, other, NOW).unwrap().hidden;
    assert_eq!([between(eve, ann), between(ann, eve), between(bob, eve)], [true, true, false]);
}

fn a_banned_or_unknown_callee_is_told_apart(world: &mut World<'_>) {
    let (ann, bob, stranger) = (world.guest(), world.guest(), world.person());
    assert!(!world.pair(ann, bob, NOW).unwrap().banned);
    (world.plant)(Fact::Ban { user: bob.id });
    assert!(world.pair(ann, bob, NOW).unwrap().banned);
    assert!(!world.pair(bob, ann, NOW).unwrap().banned, "it is the callee who counts");
    assert!(world.session(bob.token).unwrap().banned);
    assert!(world.pair(ann, stranger, NOW).is_none());
}

pub fn history(world: &World<'_>, user: UserId, limit: usize) -> Vec<HistoryEntry> {
    match world.ask(Request::History { user, limit }) {
        Reply::History(entries) => entries,
        other => panic!("{other:?}"),
    }
}

fn a_finished_call_is_stored_once_for_both(world: &mut World<'_>) {
    let (ann, bob) = (world.guest(), world.guest());
    let mut call = world.call(ann, bob);
    let line = ChatLine {
        from: ann.id.to_string(),
        text: "hi".to_owned(),
        timestamp: NOW,
        kind: ChatKind::Message,
        socials: None,
    };
    call.messages = vec![line];
    let first = world.finished(&call);
    assert_eq!(first, world.finished(&call), "a repeat counts nothing");
    assert_eq!(first.0, first.1);
    assert_eq!((first.0.timer_total_seconds, first.0.session_count, first.0.last_sessions.len()), (60, 1, 1));
    assert_eq!(world.profile(bob.id).metrics, first.1);
    for (owner, partner, name) in [(ann, bob, "Bob"), (bob, ann, "Ann")] {
        let entries = history(world, owner.id, 10);
        assert_eq!(entries.len(), 1);
        let entry = &entries[0];
        assert_eq!((&entry.session, entry.room, entry.duration), (&call.session, call.call, 60));
        assert_eq!((entry.partner, entry.partner_name.as_str(), entry.started_at), (partner.id, name, NOW));
        assert_eq!(serde_json::from_str::<Vec<ChatLine>>(&entry.messages).unwrap(), call.messages);
    }
    assert_eq!(world.pair(ann, bob, NOW).unwrap().cooldown_until, Some(LATER));
}

fn a_repeated_finish_keeps_a_newer_cooldown(world: &mut World<'_>) {
    let (ann, bob) = (world.guest(), world.guest());
    let call = world.call(ann, bob);
    world.finished(&call);
    world.ask(Request::SetCooldown { pair: (ann.id, bob.id), until: LATER + 5 });
    world.finished(&call);
    assert_eq!(world.pair(ann, bob, NOW).unwrap().cooldown_until, Some(LATER + 5));
}

fn an_unrecorded_call_leaves_only_its_cooldown(world: &mut World<'_>) {
    let (ann, bob) = (world.guest(), world.guest());
    let call = FinishedCall { recorded: false, completed: false, duration: 3, ..world.call(ann, bob) };
    let (caller, callee) = world.finished(&call);
    assert_eq!((caller.session_count, callee.timer_total_seconds), (0, 0));
    assert!(history(world, ann.id, 10).is_empty());
    assert_eq!(world.pair(bob, ann, NOW).unwrap().cooldown_until, Some(LATER));
}

fn the_fourth_completion_ends_a_grace_period(world: &mut World<'_>) {
    (world.plant)(Fact::InviteCode { code: "UNLIMITED", uses: None, active: true });
    let (grace, unpaid) = (world.person(), world.guest());
    world.ask(invited(grace, "UNLIMITED"));
    for round in 1..=4 {
        let short = FinishedCall { completed: false, ..world.call(grace, unpaid) };
        world.finished(&short);
        let call = world.call(grace, unpaid);
        world.finished(&call);
        world.finished(&call);
        let expected = if round < 4 { PaidStatus::QrGracePeriod } else { PaidStatus::QrVerified };
        assert_eq!(world.profile(grace.id).paid, expected, "after {round}");
    }
    assert_eq!(world.profile(unpaid.id).paid, PaidStatus::Unpaid);
}

fn last_sessions_keep_the_newest_ten(world: &mut World<'_>) {
    let (ann, bob) = (world.guest(), world.guest());
    for number in 1..=12 {
        let call = FinishedCall { duration: number, ended_at: Time(number), ..world.call(ann, bob) };
        world.finished(&call);
    }
    let metrics = world.profile(ann.id).metrics;
    assert_eq!((metrics.session_count, metrics.timer_total_seconds), (12, 78));
    let durations: Vec<_> = metrics.last_sessions.iter().map(|last| last.duration).collect();
    assert_eq!((durations, LAST_SESSIONS_MAX), ((3..=12).collect(), 10));
}

fn a_call_with_somebody_who_is_gone_is_stored(world: &mut World<'_>) {
    let (ann, bob) = (world.guest(), world.guest());
    (world.plant)(Fact::Gone { user: bob.id });
    let call = world.call(ann, bob);
    let (caller, callee) = world.finished(&call);
    assert_eq!((caller.session_count, callee.session_count), (1, 0));
    assert_eq!((history(world, ann.id, 10).len(), history(world, bob.id, 10).len()), (1, 0));
    assert_eq!(world.session(bob.token), None);
}

fn history_is_newest_first_and_limited(world: &mut World<'_>) {
    let (ann, bob) = (world.guest(), world.guest());
    for number in [2, 5, 1, 4, 3] {
        let call = FinishedCall { started_at: NOW + number, duration: number, ..world.call(ann, bob) };
        world.finished(&call);
    }
    let durations = |limit| -> Vec<_> { history(world, bob.id, limit).iter().map(|entry| entry.duration).collect() };
    assert_eq!((durations(3), durations(99)), (vec![5, 4, 3], vec![5, 4, 3, 2, 1]));
}

fn a_sweep_removes_what_has_ended_and_nothing_else(world: &mut World<'_>) {
    let (ann, bob, eve) = (world.permanent("ann@example.org"), world.guest(), world.guest());
    for (pair, until) in [((ann.id, bob.id), LATER), ((ann.id, eve.id), LATER + 1)] {
        world.ask(Request::SetCooldown { pair, until });
    }
    assert!(matches!(world.ask(Request::Sweep { now: LATER }), Reply::Done));
    assert_eq!(world.session(bob.token), None);
    assert!(world.session(ann.token).is_some(), "linking made it last longer");
    assert_eq!(world.relations(ann.id, NOW).cooldowns, [(eve.id, LATER + 1)]);
    assert_eq!(world.profile(bob.id).card.user_id, bob.id, "people stay");
}

fn an_old_call_is_archived_whole_for_both(world: &mut World<'_>) {
    let (ann, bob) = (world.guest(), world.guest());
    let text = "a 'quoted' \\ line".to_owned();
    let line = ChatLine { from: ann.id.to_string(), text, timestamp: NOW, kind: ChatKind::Message, socials: None };
    let old = FinishedCall { ended_at: NOW + 1, messages: vec![line], ..world.call(ann, bob) };
    let recent = FinishedCall { started_at: NOW + 1, ended_at: NOW + 2, ..world.call(bob, ann) };
    world.finished(&old);
    world.finished(&recent);
    let shown = |user| format!("{:?}", history(world, user, 9));
    let before = [shown(ann.id), shown(bob.id)];
    assert_eq!(world.archive(NOW + 1), 0, "it ended at that time, not before");
    assert_eq!(world.archive(NOW + 2), 2, "one row for each");
    for person in [ann, bob] {
        let sessions: Vec<_> = history(world, person.id, 9).into_iter().map(|entry| entry.session).collect();
        assert_eq!(sessions, [recent.session.as_str()]);
        (world.plant)(Fact::Restored { user: person.id });
    }
    let shown = |user| format!("{:?}", history(world, user, 9));
    assert_eq!([shown(ann.id), shown(bob.id)], before, "nothing of it has changed");
}

fn an_archived_call_counts_once(world: &mut World<'_>) {
    let (ann, bob) = (world.guest(), world.guest());
    let call = world.call(ann, bob);
    let first = world.finished(&call);
    world.ask(Request::SetCooldown { pair: (ann.id, bob.id), until: LATER + 5 });
    assert_eq!(world.archive(LATER), 2);
    assert_eq!(world.finished(&call), first, "a repeat counts nothing");
    assert_eq!(world.pair(ann, bob, NOW).unwrap().cooldown_until, Some(LATER + 5));
    assert!(history(world, ann.id, 9).is_empty() && history(world, bob.id, 9).is_empty());
    assert_eq!(world.archive(LATER), 0);
}

fn an_archived_call_outlives_only_the_partner(world: &mut World<'_>) {
    let (ann, bob) = (world.guest(), world.guest());
    let call = world.call(ann, bob);
    world.finished(&call);
    assert_eq!(world.archive(LATER), 2);
    (world.plant)(Fact::Gone { user: ann.id });
    let (caller, callee) = world.finished(&call);
    assert_eq!((caller.session_count, callee.session_count), (0, 1));
    (world.plant)(Fact::Restored { user: bob.id });
    assert_eq!(history(world, bob.id, 9).len(), 1);
    assert_eq!(world.archive(LATER), 1, "what was hers went with her");
}

fn much_is_archived_bit_by_bit_longest_ago_first(world: &mut World<'_>) {
    let (ann, bob) = (world.guest(), world.guest());
    let calls = ARCHIVE_ROWS_MAX as u64;
    for number in (1..=calls).rev() {
        let call = FinishedCall { ended_at: NOW + number, duration: number, ..world.call(ann, bob) };
        world.finished(&call);
    }
    let archive = || world.ask(Request::Archive { before: LATER });
    assert!(matches!(archive(), Reply::Archived { rows } if rows == calls));
    let left: Vec<_> = history(world, ann.id, 999).iter().map(|entry| entry.duration).collect();
    assert_eq!((left.len() as u64, left.iter().min().copied()), (calls / 2, Some(calls / 2 + 1)));
    assert_eq!(world.archive(LATER), calls);
    assert_eq!(world.profile(bob.id).metrics.session_count, calls);
}

fn long_chats_are_archived_a_few_at_a_time(world: &mut World<'_>) {
    let (ann, bob) = (world.guest(), world.guest());
    // Letters by chance, which no database makes shorter.
    let bytes = (0..ARCHIVE_BYTES_MAX / 2 / 64).flat_map(|_| world.random.bytes::<64>());
    let text: String = bytes.map(|byte| char::from(b'a' + byte % 26)).collect();
    for _ in 0..3 {
        let (from, text) = (String::new(), text.clone());
        let line = ChatLine { from, text, timestamp: NOW, kind: ChatKind::Message, socials: None };
        let call = FinishedCall { messages: vec![line], ..world.call(ann, bob) };
        world.finished(&call);
    }
    let moved = [(); 4].map(|()| match world.ask(Request::Archive { before: LATER }) {
        Reply::Archived { rows } => rows,
        other => panic!("{other:?}"),
    });
    assert_eq!(moved, [2, 2, 2, 0], "each is half of what may move at a time, and a little more");
}

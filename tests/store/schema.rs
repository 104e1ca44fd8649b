//! A database as schema 1 had it, with a row or two in each table, in SQL that both stores understand.

use duet::base::UserId;
use duet::message::store::{Reply, Request};

use super::world::{NOW, World};

/// Every table of schema 1.
pub const TABLES: [&str; 9] = [
    "users",
    "sessions",
    "cooldowns",
    "chat_history",
    "session_completions",
    "invite_codes",
    "invite_code_uses",
    "referral_codes",
    "reports",
];

/// A call of two people, and all that they left behind. Each store writes ids, a hash and `true` in its own way.
pub fn rows(id: impl Fn(u8) -> String, hash: &str, yes: &str) -> String {
    let (ann, bob, room) = (id(1), id(2), id(3));
    format!(
        "INSERT INTO users (user_id, name, gender, email, password_hash, socials, timer_total_seconds, session_count,
             last_sessions, successful_sessions, my_invite_code, qr_unlocked, created_at, updated_at)
         VALUES ({ann}, 'Ann', 'female', 'ann@example.org', 'hash', '{{\"discord\": \"ann\"}}', 60, 1,
                 '[{{\"at\":1760000060000,\"duration\":60}}]', 4, 'OWNCODE', {yes}, 1, 2),
             ({bob}, 'Bob', 'male', NULL, NULL, NULL, 60, 1, '[]', 1, NULL, {yes}, 3, 4);
         INSERT INTO sessions VALUES ({hash}, {ann}, '192.0.2.1', 'Mozilla/5.0', {yes}, 1, 1760003600000, 1);
         INSERT INTO cooldowns VALUES ({ann}, {bob}, 1760003600000);
         INSERT INTO chat_history (session_id, user_id, partner_id, partner_name, room_id, started_at, duration, messages,
             created_at)
         VALUES ('one', {ann}, {bob}, 'Bob', {room}, 1760000000000, 60, '[ ]', 1760000060000),
             ('one', {bob}, {ann}, 'Ann', {room}, 1760000000000, 60, '[ ]', 1760000060000);
         INSERT INTO session_completions VALUES ({ann}, {room}, {bob}, 60, 1760000060000);
         INSERT INTO invite_codes VALUES ('OWNCODE', 'user', 4, 3, {yes}, {ann}, 'Ann', 1);
         INSERT INTO invite_code_uses VALUES ('OWNCODE', {bob}, 3);
         INSERT INTO referral_codes VALUES ('MEETANN', {ann}, 'Ann', {bob}, 'Bob', 5);
         INSERT INTO reports VALUES ({room}, {ann}, 'Ann', '192.0.2.1', {bob}, 'Bob', NULL, NULL, 'rude', {room}, 6);"
    )
}

/// What those rows say is what the store says, and it can be archived.
pub fn serves(world: &World<'_>) {
    let ann = UserId::from_bytes([1; 16]);
    let profile = world.profile(ann);
    assert_eq!((profile.email.as_deref(), profile.metrics.session_count), (Some("ann@example.org"), 1));
    let entries = || match world.ask(Request::History { user: ann, limit: 9 }) {
        Reply::History(entries) => entries,
        other => panic!("{other:?}"),
    };
    assert_eq!((entries().len(), entries()[0].messages.as_str()), (1, "[ ]"));
    assert_eq!((world.archive(NOW + 60_001), entries().len()), (2, 0));
}

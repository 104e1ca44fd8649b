//! Random people in batches, each once per cursor, without any memory on the server (contract 2.6).
//!
//! A cursor is a UUID of version 8 (RFC 9562 5.8): 60 bits seed an order of all users, 62 bits say how far down that
//! order the client has come. Each answer names the cursor that follows; who comes to the queue meanwhile is met if
//! he stands further down. A UUID of any other version only seeds.

use std::collections::BTreeMap;

use serde::Serialize;
use uuid::Uuid;

use crate::base::{Random, UserId};
use crate::message::Card;
use crate::wire::http::Response;

use super::queue::Viewer;
use super::{ApiError, Call, Host, body, session};

/// People in one answer when the request does not say, and at most.
const LIMIT_DEFAULT: usize = 20;
/// See [`LIMIT_DEFAULT`].
const LIMIT_MAX: usize = 100;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReelAnswer {
    /// In the order of the cursor, which is random but fixed.
    items: Vec<Card>,
    /// What to ask with next.
    cursor: Uuid,
    has_more: bool,
}

/// `GET /room/reel?limit=&cursor=`: the next batch. Without a cursor, or with one that is none, a new order begins.
///
/// Left out are the viewer, those hidden from him, and those he cannot call yet. Costs one pass over the queue and
/// one batch of cards. Refusals: those of a session, and of the paywall.
pub async fn reel<H: Host>(call: &Call<'_, H>) -> Result<Response, ApiError> {
    let login = session::with_access(call).await?;
    let viewer = Viewer::fetch(call, &login).await?;
    let limit = body::query(call.request, "limit").and_then(|text| text.parse().ok()).unwrap_or(LIMIT_DEFAULT);
    let limit = limit.clamp(1, LIMIT_MAX);
    let given = body::query(call.request, "cursor").and_then(|text| Uuid::try_parse(text).ok());
    let cursor = given.map_or_else(|| call.host.draw(Cursor::draw), Cursor::decode);

    // The batch and the one after it, which tells whether there is more.
    let mut next = BTreeMap::<u64, Card>::new();
    call.host.directory(|directory| {
        for card in directory.queue().people().map(|person| &person.card) {
            let place = cursor.place(card.user_id);
            let unfit = card.user_id == viewer.user
                || viewer.hidden.contains(&card.user_id)
                || viewer.cooldowns.contains_key(&card.user_id);
            let late = next.len() > limit && next.last_key_value().is_some_and(|(last, _)| place > *last);
            if unfit || place < cursor.position || late {
                continue;
            }
            next.insert(place, Card::clone(card));
            if next.len() > limit + 1 {
                next.pop_last();
            }
        }
    });
    let has_more = next.len() > limit;
    if has_more {
        next.pop_last();
    }
    let position = next.last_key_value().map_or(cursor.position, |(last, _)| last + 1);
    let cursor = Cursor { position, ..cursor }.encode();
    Ok(Response::json(200, &ReelAnswer { items: next.into_values().collect(), cursor, has_more }))
}

/// An order of all users, and the first place in it that was not shown yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cursor {
    /// 60 bits.
    seed: u64,
    /// 62 bits.
    position: u64,
}

const SEED_BITS: u64 = (1 << 60) - 1;
const POSITION_BITS: u64 = (1 << 62) - 1;

impl Cursor {
    /// The beginning of a new order.
    fn draw(random: &mut Random) -> Self {
        Self { seed: u64::from_le_bytes(random.bytes()) & SEED_BITS, position: 0 }
    }

    /// Any UUID is a cursor; only one of ours carries a position.
    fn decode(uuid: Uuid) -> Self {
        let (high, low) = uuid.as_u64_pair();
        let seed = (high >> 16 << 12) | (high & 0xfff);
        let position = if uuid.get_version_num() == 8 { low & POSITION_BITS } else { 0 };
        Self { seed, position }
    }

    /// Version 8 and the usual variant, around 60 and 62 bits of ours.
    fn encode(self) -> Uuid {
        let high = (self.seed >> 12 << 16) | 0x8000 | (self.seed & 0xfff);
        Uuid::from_u64_pair(high, (0b10 << 62) | self.position)
    }

    /// Where `user` stands: below `POSITION_BITS`, so that there is always a place after it.
    fn place(self, user: UserId) -> u64 {
        let (high, low) = Uuid::from_bytes(*user.as_bytes()).as_u64_pair();
        (mix(low ^ mix(high ^ mix(self.seed))) & POSITION_BITS).min(POSITION_BITS - 1)
    }
}

/// The finaliser of SplitMix64: every bit of the input moves half of the output's.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_the_wire() {
        let mut random = Random::from_seed(1);
        for position in [0, 1, POSITION_BITS - 1, POSITION_BITS] {
            let cursor = Cursor { position, ..Cursor::draw(&mut random) };
            assert_eq!(Cursor::decode(cursor.encode()), cursor);
            assert_eq!((cursor.encode().get_version_num(), cursor.encode().get_variant()), (8, uuid::Variant::RFC4122));
        }
        let foreign = Uuid::from_u64_pair(0x1234_5678_9abc_4def, u64::MAX);
        assert_eq!(Cursor::decode(foreign), Cursor { seed: 0x0123_4567_89ab_cdef, position: 0 });
    }

    #[test]
    fn seeds_give_unlike_orders() {
        let mut random = Random::from_seed(2);
        let users: Vec<_> = (0..50).map(|_| UserId::draw(&mut random)).collect();
        let order = |seed| {
            let mut order = users.clone();
            order.sort_by_key(|user| Cursor { seed, position: 0 }.place(*user));
            order
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
    }
}

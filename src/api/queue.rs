//! `GET /room/queue`: whom the viewer can meet (contract 2.6). Everybody in the queue asks every few seconds.
//!
//! So an answer costs one look-up of the pairs that concern the viewer, and copies of cards that were encoded when they
//! came. A list that the client has already costs the look-up alone: the tag is made of what the list depends on, not of
//! the list. Not here: who is listed (`domain/queue.rs`).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::base::{Map, Set, Time, UserId};
use crate::domain::directory::Directory;
use crate::domain::queue::{Person, Position};
use crate::message::model::Login;
use crate::message::store::{Relations, Reply, Request};
use crate::wire::http::{Effort, Response};

use super::{ApiError, Call, Host, body, conditional, session};

/// What follows a card in nearly every case; [`Remarks`] is the same for the others.
const NO_REMARKS: &[u8] =
    br#","hasCooldown":false,"cooldownExpiry":null,"wasIntroducedToMe":false,"introducedBy":null}"#;
/// A card of usual length with what follows it, bytes.
const PERSON_BYTES: usize = 256;

/// Whom the viewer must not see, or cannot call yet.
pub struct Viewer {
    pub user: UserId,
    /// Until when the two may not call each other.
    pub cooldowns: Map<UserId, Time>,
    /// Whom he reported, and who reported him (D40).
    pub hidden: Set<UserId>,
}

impl Viewer {
    /// Asks the store, each time: reports come from other processes, and must hide at once.
    pub async fn fetch<H: Host>(call: &Call<'_, H>, login: &Login) -> Result<Self, ApiError> {
        let user = login.user();
        let Reply::Relations(relations) = call.store(Request::Relations { user, now: call.now() }).await? else {
            return Err(ApiError::Unavailable);
        };
        let Relations { cooldowns, hidden } = *relations;
        Ok(Self { user, cooldowns: cooldowns.into_iter().collect(), hidden: hidden.into_iter().collect() })
    }
}

/// What this viewer is told beside a person's card.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Remarks<'a> {
    has_cooldown: bool,
    cooldown_expiry: Option<Time>,
    was_introduced_to_me: bool,
    introduced_by: Option<&'a str>,
}

/// Which part of the queue is asked for.
#[derive(Clone, Copy)]
enum Wanted {
    /// Everybody, or a sample.
    List,
    Page {
        behind: Option<Position>,
        limit: usize,
    },
}

/// `GET /room/queue?limit=&cursor=`: everybody who is available, in the order they became so.
///
/// Of more than fit, those introduced to the viewer and a sample; or pages, for who asks with a limit or a cursor. Who
/// cannot be called yet is listed and flagged; who is hidden is left out but counted. Refusals: those of a session, and
/// of the paywall; 400 for a limit or a cursor that is none.
pub async fn queue<H: Host>(call: &Call<'_, H>) -> Result<Response, ApiError> {
    let login = session::with_access(call).await?;
    let wanted = wanted(call)?;
    let viewer = Viewer::fetch(call, &login).await?;
    Ok(call.host.directory(|directory| answer(call, directory, &viewer, wanted)))
}

fn wanted<H: Host>(call: &Call<'_, H>) -> Result<Wanted, ApiError> {
    let max = call.settings().queue_list_max;
    let (limit, cursor) = (body::query(call.request, "limit"), body::query(call.request, "cursor"));
    if limit.is_none() && cursor.is_none() {
        return Ok(Wanted::List);
    }
    let limit = limit.map_or(Some(max), |text| text.parse().ok()).filter(|limit| (1..=max).contains(limit));
    let behind = match cursor {
        None | Some("") => None,
        Some(text) => Some(decode_cursor(text).ok_or(ApiError::InvalidCursor)?),
    };
    Ok(Wanted::Page { behind, limit: limit.ok_or(ApiError::InvalidLimit)? })
}

fn answer<H: Host>(call: &Call<'_, H>, directory: &Directory, viewer: &Viewer, wanted: Wanted) -> Response {
    let max = call.settings().queue_list_max;
    let view = directory.queue().seen_by(viewer.user, &viewer.hidden);
    let sample = view.sample(call.now(), max);
    let tag = tag(call, directory.queue().version(), viewer, sample);
    let response = if conditional::is_known(call.request, &tag) {
        Response::empty(304)
    } else {
        let (people, next) = match wanted {
            Wanted::List => (view.list(sample, max), None),
            Wanted::Page { behind, limit } => {
                let (people, next) = view.page(behind, limit);
                (people, Some(next))
            }
        };
        let body = encode(&people, viewer, view.total, next).into();
        Response { effort: Effort::Little, ..Response::text(200, Response::JSON, body) }
    };
    response.header("ETag", tag).header("Cache-Control", "private, no-cache").header("Vary", "Accept-Encoding")
}

/// Names the answer in every coding, hence weak (RFC 9110 8.8.1): all that any page of it depends on, hashed.
fn tag<H: Host>(call: &Call<'_, H>, version: u64, viewer: &Viewer, sample: Option<u64>) -> String {
    let (shard, settings) = (call.host.shard(), call.settings());
    let mut hidden: Vec<_> = viewer.hidden.iter().collect();
    let mut cooldowns: Vec<_> = viewer.cooldowns.iter().collect();
    hidden.sort_unstable();
    cooldowns.sort_unstable();
    let mut hash = Sha256::new()
        .chain_update(shard.0.to_le_bytes())
        .chain_update(settings.started_at.0.to_le_bytes())
        .chain_update(settings.queue_list_max.to_le_bytes())
        .chain_update(version.to_le_bytes())
        .chain_update(sample.map_or(0, |sample| sample + 1).to_le_bytes())
        .chain_update(viewer.user.as_bytes())
        .chain_update(hidden.len().to_le_bytes());
    hidden.iter().for_each(|user| hash.update(user.as_bytes()));
    for (user, until) in cooldowns {
        hash.update(user.as_bytes());
        hash.update(until.0.to_le_bytes());
    }
    format!("W/\"{}\"", URL_SAFE_NO_PAD.encode(&hash.finalize()[..12]))
}

/// The answer's JSON. `next` is `None` for who does not page.
fn encode(people: &[&Person], viewer: &Viewer, total: usize, next: Option<Option<Position>>) -> Vec<u8> {
    let mut json = Vec::with_capacity(PERSON_BYTES * (people.len() + 1));
    json.extend_from_slice(br#"{"users":["#);
    for (index, person) in people.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        json.extend_from_slice(&person.encoded);
        remark(person, viewer, &mut json);
    }
    json.extend_from_slice(format!(r#"],"totalAvailable":{total}"#).as_bytes());
    match next {
        None => {}
        Some(None) => json.extend_from_slice(br#","nextCursor":null"#),
        Some(Some(position)) => {
            json.extend_from_slice(format!(r#","nextCursor":"{}""#, encode_cursor(position)).as_bytes());
        }
    }
    json.push(b'}');
    json
}

/// Adds what the viewer is told beside the card, and closes it.
fn remark(person: &Person, viewer: &Viewer, json: &mut Vec<u8>) {
    let cooldown_expiry = viewer.cooldowns.get(&person.card.user_id).copied();
    let introduction = person.card.introduction.as_ref().filter(|introduction| introduction.target == viewer.user);
    if cooldown_expiry.is_none() && introduction.is_none() {
        return json.extend_from_slice(NO_REMARKS);
    }
    let remarks = Remarks {
        has_cooldown: cooldown_expiry.is_some(),
        cooldown_expiry,
        was_introduced_to_me: introduction.is_some(),
        introduced_by: introduction.map(|introduction| introduction.introducer.as_str()),
    };
    let start = json.len();
    serde_json::to_writer(&mut *json, &remarks).expect("memory takes it, and there is no key but text");
    json[start] = b',';
}

/// A position is 24 bytes, 32 characters on the wire; opaque to clients, and checked for its form only.
fn encode_cursor((since, user): Position) -> String {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&since.0.to_be_bytes());
    bytes[8..].copy_from_slice(user.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode_cursor(text: &str) -> Option<Position> {
    let bytes: [u8; 24] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
    let [since @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = bytes;
    let [_, _, _, _, _, _, _, _, user @ ..] = bytes;
    Some((Time(u64::from_be_bytes(since)), UserId::from_bytes(user)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Random;

    #[test]
    fn no_remarks_are_remarks_without_anything_to_remark() {
        let (has_cooldown, cooldown_expiry, was_introduced_to_me, introduced_by) = (false, None, false, None);
        let remarks = Remarks { has_cooldown, cooldown_expiry, was_introduced_to_me, introduced_by };
        assert_eq!(serde_json::to_vec(&remarks).unwrap()[1..], NO_REMARKS[1..]);
    }

    #[test]
    fn a_cursor_is_the_position_it_was_made_of_and_nothing_else_is_one() {
        let position = (Time(1_761_000_000_000), UserId::draw(&mut Random::from_seed(1)));
        let cursor = encode_cursor(position);
        assert_eq!(decode_cursor(&cursor), Some(position));
        for text in ["x", &cursor[1..], &format!("{cursor}A"), &format!("{}!", &cursor[1..]), &format!("{cursor}=")] {
            assert_eq!(decode_cursor(text), None, "{text}");
        }
    }
}

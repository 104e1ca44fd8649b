//! Whom one can meet and whom one has met: the queue and the history of calls (contract 2.6).
//!
//! The queue is the most polled route. It asks the store once for the pairs that concern the viewer, then writes the
//! shard's own directory straight into the answer: one pass, no copies, no other shard.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::base::limits::HISTORY_LIST_MAX;
use crate::base::{CallId, Map, Set, Time, UserId};
use crate::message::Card;
use crate::message::model::Login;
use crate::message::store::{HistoryEntry, Relations, Reply, Request};
use crate::wire::http::Response;

use super::{ApiError, Call, Host, session, user};

/// People listed in one answer, longest waiting first; beyond it only those introduced to the viewer. With cards of
/// usual length it keeps an answer below 1 MB; `totalAvailable` counts everybody.
const LISTED_MAX: usize = 2_000;
/// Bytes of chat in one history; older calls than fit are listed with their messages left out.
const HISTORY_CHAT_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Whom the viewer must not see, or cannot call yet.
pub struct Viewer {
    pub user: UserId,
    /// Until when the two may not call each other.
    pub cooldowns: Map<UserId, Time>,
    /// Whom he reported, and who reported him (D40).
    pub hidden: Set<UserId>,
}

impl Viewer {
    /// Asks the store.
    pub async fn fetch<H: Host>(call: &Call<'_, H>, login: &Login) -> Result<Self, ApiError> {
        let user = login.user();
        let Reply::Relations(relations) = call.store(Request::Relations { user, now: call.now() }).await? else {
            return Err(ApiError::Unavailable);
        };
        let Relations { cooldowns, hidden } = *relations;
        Ok(Self { user, cooldowns: cooldowns.into_iter().collect(), hidden: hidden.into_iter().collect() })
    }
}

/// One card of the queue, as this viewer sees it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Person<'a> {
    #[serde(flatten)]
    card: &'a Card,
    has_cooldown: bool,
    cooldown_expiry: Option<Time>,
    was_introduced_to_me: bool,
    introduced_by: Option<&'a str>,
}

/// `GET /room/queue`: everybody who is available, in the order they became so.
///
/// Who cannot be called yet is listed and flagged; who is hidden is left out but counted. Refusals: those of a
/// session, and of the paywall.
pub async fn queue<H: Host>(call: &Call<'_, H>) -> Result<Response, ApiError> {
    let login = session::with_access(call).await?;
    let viewer = Viewer::fetch(call, &login).await?;
    let (mut total, mut listed) = (0_usize, 0_usize);
    let mut body = br#"{"users":["#.to_vec();
    call.host.queue(&mut |card| {
        if card.user_id == viewer.user {
            return;
        }
        total += 1;
        let introduction = card.introduction.as_ref().filter(|introduction| introduction.target == viewer.user);
        if viewer.hidden.contains(&card.user_id) || (listed >= LISTED_MAX && introduction.is_none()) {
            return;
        }
        if listed > 0 {
            body.push(b',');
        }
        listed += 1;
        let cooldown_expiry = viewer.cooldowns.get(&card.user_id).copied();
        let person = Person {
            card,
            has_cooldown: cooldown_expiry.is_some(),
            cooldown_expiry,
            was_introduced_to_me: introduction.is_some(),
            introduced_by: introduction.map(|introduction| introduction.introducer.as_str()),
        };
        serde_json::to_writer(&mut body, &person).expect("memory takes it, and a card has no key but text");
    });
    body.extend_from_slice(format!(r#"],"totalAvailable":{total}}}"#).as_bytes());
    Ok(Response { body: body.into(), ..Response::json(200, &()) })
}

#[derive(Serialize)]
struct HistoryAnswer {
    history: Vec<PastCall>,
}

/// One finished call, seen from this user's side.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PastCall {
    session_id: String,
    room_id: CallId,
    partner_id: UserId,
    partner_name: String,
    started_at: Time,
    /// Seconds.
    duration: u64,
    /// A list of [`ChatLine`](crate::message::model::ChatLine), never parsed here.
    messages: Box<RawValue>,
}

/// `GET /room/history`: the user's calls, newest first. Chat is passed on as it was stored.
///
/// Open to everybody with a session: who no longer pays keeps his memories.
pub async fn history<H: Host>(call: &Call<'_, H>) -> Result<Response, ApiError> {
    let user = session::current(call).await?.user();
    let Reply::History(entries) = call.store(Request::History { user, limit: HISTORY_LIST_MAX }).await? else {
        return Err(ApiError::Unavailable);
    };
    let mut left = HISTORY_CHAT_BYTES_MAX;
    let mut past_call = |entry: HistoryEntry| {
        let fits = left.checked_sub(entry.messages.len());
        left = fits.unwrap_or(0);
        let messages = if fits.is_some() { entry.messages } else { String::new() };
        PastCall {
            session_id: entry.session,
            room_id: entry.room,
            partner_id: entry.partner,
            partner_name: entry.partner_name,
            started_at: entry.started_at,
            duration: entry.duration,
            messages: RawValue::from_string(messages).unwrap_or_else(|_| no_messages()),
        }
    };
    let history = entries.into_iter().map(&mut past_call).collect();
    Ok(Response::json(200, &HistoryAnswer { history }))
}

/// An empty list: pages rely on there being one (contract 2.6).
fn no_messages() -> Box<RawValue> {
    RawValue::from_string("[]".to_owned()).expect("it is JSON")
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RoomProfile<'a> {
    user_id: UserId,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    selfie_url: Option<&'a str>,
    /// Seconds.
    timer_total: u64,
}

/// `GET /room/me`: the short profile. Refusals: those of a session, and 404 when the account is gone.
pub async fn profile<H: Host>(call: &Call<'_, H>) -> Result<Response, ApiError> {
    let login = session::current(call).await?;
    let profile = user::stored(call, &login).await?;
    let answer = RoomProfile {
        user_id: profile.card.user_id,
        name: &profile.card.name,
        selfie_url: profile.card.selfie_url.as_deref(),
        timer_total: profile.metrics.timer_total_seconds,
    };
    Ok(Response::json(200, &answer))
}

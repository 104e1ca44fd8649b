//! Whom one has met, and the short profile (contract 2.6). The queue is in `queue.rs`.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::base::limits::HISTORY_LIST_MAX;
use crate::base::{CallId, Time, UserId};
use crate::message::store::{HistoryEntry, Reply, Request};
use crate::wire::http::Response;

use super::{ApiError, Call, Host, session, user};

/// Bytes of chat in one history; older calls than fit are listed with their messages left out.
const HISTORY_CHAT_BYTES_MAX: usize = 2 * 1024 * 1024;

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

//! The HTTP routes: sign-up, profile, queue, history, health.

use std::collections::HashMap;
use std::sync::LazyLock;

use axum::extract::{DefaultBodyLimit, FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use deadpool_postgres::PoolError;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::SizeAbove;
use uuid::Uuid;

use crate::App;
use crate::store::{Card, User};

const BODY_MAX: usize = 100 * 1024;
const COMPRESSED_FROM: u16 = 1024;
const LEVEL: CompressionLevel = CompressionLevel::Precise(6);

pub fn routes(app: App) -> Router {
    Router::new()
        .route("/auth/guest", post(guest))
        .route("/user/me", get(me))
        .route("/room/queue", get(queue))
        .route("/room/history", get(history))
        .route("/health", get(health))
        .fallback(async || Refused(StatusCode::NOT_FOUND, "Not found"))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(map_response(with_headers))
        .layer(CompressionLayer::new().quality(LEVEL).compress_when(SizeAbove::new(COMPRESSED_FROM)))
        .with_state(app)
}

static HEADERS: LazyLock<HeaderMap> = LazyLock::new(|| {
    let headers: HashMap<String, String> =
        serde_json::from_str(include_str!("../../../../headers.json")).expect("an object of strings");
    HeaderMap::try_from(&headers).expect("headers")
});

/// What every answer tells browsers not to do.
async fn with_headers(mut response: Response) -> Response {
    response.headers_mut().extend(HEADERS.clone());
    response
}

/// What a client did wrong, in the words of the contract.
struct Refused(StatusCode, &'static str);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

impl From<PoolError> for Refused {
    fn from(error: PoolError) -> Self {
        eprintln!("database: {error}");
        Self(StatusCode::INTERNAL_SERVER_ERROR, "Internal error")
    }
}

type Answer = Result<Json<Value>, Refused>;

/// The user whose session the request carries.
struct Authorized(Uuid);

impl FromRequestParts<App> for Authorized {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refused> {
        let token = parts.headers.get(header::AUTHORIZATION).and_then(|token| token.to_str().ok());
        let token = token.ok_or(Refused(StatusCode::UNAUTHORIZED, "Authorization required"))?;
        let user = app.store.user_of_session(token.strip_prefix("Bearer ").unwrap_or(token)).await?;
        user.map(Self).ok_or(Refused(StatusCode::UNAUTHORIZED, "Invalid or expired session"))
    }
}

#[derive(Deserialize)]
struct Guest {
    #[serde(default)]
    name: String,
    #[serde(default)]
    gender: String,
}

async fn guest(State(app): State<App>, Json(guest): Json<Guest>) -> Answer {
    let name = guest.name.trim();
    if name.is_empty() {
        return Err(Refused(StatusCode::BAD_REQUEST, "Name is required"));
    }
    if !["female", "male", "nonbinary", "unspecified"].contains(&guest.gender.as_str()) {
        return Err(Refused(StatusCode::BAD_REQUEST, "Invalid gender"));
    }
    let (user_id, token) = app.store.create_guest(name, &guest.gender).await?;
    Ok(Json(json!({
        "userId": user_id,
        "sessionToken": token,
        "accountType": "guest",
        "wasReferred": false,
        "targetUser": null,
        "targetOnline": false,
        "referralCode": null,
        "paidStatus": "paid",
        "requiresPayment": false,
    })))
}

async fn me(State(app): State<App>, Authorized(me): Authorized) -> Result<Json<User>, Refused> {
    app.store.user(me).await?.map(Json).ok_or(Refused(StatusCode::NOT_FOUND, "User not found"))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Queue {
    users: Vec<Listed>,
    total_available: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    #[serde(flatten)]
    card: Card,
    has_cooldown: bool,
    cooldown_expiry: Option<i64>,
    was_introduced_to_me: bool,
    introduced_by: Option<String>,
}

async fn queue(State(app): State<App>, Authorized(me): Authorized) -> Result<Json<Queue>, Refused> {
    let available = app.world.available(me);
    let listed = |(card, cooldown_expiry): (Card, Option<i64>)| Listed {
        card,
        has_cooldown: cooldown_expiry.is_some(),
        cooldown_expiry,
        was_introduced_to_me: false,
        introduced_by: None,
    };
    let users = app.store.profiles(me, &available).await?.into_iter().map(listed).collect();
    Ok(Json(Queue { users, total_available: available.len() }))
}

async fn history(State(app): State<App>, Authorized(me): Authorized) -> Answer {
    Ok(Json(json!({ "history": app.store.history(me).await? })))
}

async fn health(State(app): State<App>) -> Json<Value> {
    let (users, total) = app.world.counts();
    Json(json!({
        "status": "ok",
        "timestamp": crate::store::now_ms(),
        "connections": { "users": users, "total": total, "limit": app.connection_limit },
    }))
}

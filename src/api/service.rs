//! What the server says of itself (contract 2.4). Reading it costs nothing and needs no session.
//!
//! Not here: metrics, which have an address of their own (`boot/metrics.rs`).

use serde_json::{Value, json};

use crate::domain::directory::Directory;
use crate::message::store::Standing;
use crate::wire::http::Response;

use super::host::CacheCounts;
use super::{ApiError, Call, Host};

/// Fixed by the contract; [`health`] tells the real one.
const CONTRACT_VERSION: &str = "1.0.0";

/// `GET /`: a greeting. The shape is the contract's; the store that is really used stands beside its `databases`.
pub fn root<H: Host>(call: &Call<'_, H>) -> Response {
    let settings = call.settings();
    let postgres = if settings.store == "postgres" { "connected" } else { "not configured" };
    let body = json!({
        "name": "duet",
        "version": CONTRACT_VERSION,
        "status": "running",
        "timestamp": call.now(),
        "environment": settings.environment,
        "endpoints": {
            "health": "/health",
            "auth": "/auth",
            "user": "/user",
            "matchmaking": "/room",
            "payment": "/payment",
            "admin": "/admin",
        },
        "databases": { "postgresql": postgres, "redis": "not configured" },
        "store": settings.store,
        "message": "The server is running. Pages talk to it through the endpoints above.",
    });
    Response::json(200, &body)
}

/// `GET /stats/live`: how many users are online. Landing pages poll it.
pub fn live_stats<H: Host>(call: &Call<'_, H>) -> Response {
    let online = call.host.directory(Directory::online_count);
    Response::json(200, &json!({ "onlineUsers": online, "timestamp": call.now() }))
}

/// `GET /health`: 200 as long as the process answers. Sizes are for people to read, hence text.
///
/// The contract's shape first, then what this server adds: why connections ended, runtime, shards, version, uptime in
/// seconds; and how the store is: its kind, whether it is reachable, since when (ms), and how many writes wait for it in
/// the journal. A container's probe calls it, so it asks nothing that could be down.
pub async fn health<H: Host>(call: &Call<'_, H>) -> Response {
    let (settings, live, now) = (call.settings(), call.host.live().await, call.now());
    let body = json!({
        "status": "ok",
        "timestamp": now,
        "memory": {
            "heapUsed": megabytes(live.heap_used),
            "heapTotal": megabytes(live.heap_total),
            "rss": megabytes(live.resident),
            "usage": percent(live.heap_used, live.heap_total),
        },
        "connections": {
            "users": live.connected_users,
            "total": live.sockets,
            "avgPerUser": format!("{:.2}", live.sockets as f64 / live.connected_users.max(1) as f64),
            "limit": settings.connections_max,
            "utilization": percent(live.sockets as u64, settings.connections_max as u64),
            "closed": live.closed,
        },
        "cache": {
            "users": cache(&live.users_cache),
            "sessions": cache(&live.sessions_cache),
            "queries": no_query_cache(),
        },
        "scalability": {
            "currentCapacity": format!("{} users", live.connected_users),
            "maxCapacity": format!("{} connections", settings.connections_max),
            "optimization": format!("{} shards, nothing shared, {}", settings.shards, settings.runtime),
        },
        "runtime": settings.runtime,
        "shards": settings.shards,
        "store": store(&settings.store, call.host.standing().await),
        "version": env!("CARGO_PKG_VERSION"),
        "uptime": now.seconds_since(settings.started_at),
    });
    Response::json(200, &body)
}

/// `GET /ready`: 200 when the database answers and the server is not stopping, else 503.
pub async fn ready<H: Host>(call: &Call<'_, H>) -> Result<Response, ApiError> {
    if !call.host.is_ready().await {
        return Err(ApiError::Unavailable);
    }
    Ok(Response::json(200, &json!({ "status": "ready", "timestamp": call.now() })))
}

/// The store as `/health` shows it; one that says nothing is not reachable since it is not known when.
fn store(kind: &str, standing: Option<Standing>) -> Value {
    let Some(standing) = standing else { return json!({ "kind": kind, "reachable": false, "since": null }) };
    let mut store = json!({ "kind": kind, "reachable": standing.reachable, "since": standing.since });
    if let Some(journal) = standing.journal {
        store["journal"] = json!({ "waiting": journal.waiting, "refused": journal.refused });
    }
    store
}

/// One cache as the contract shows it.
fn cache(counts: &CacheCounts) -> Value {
    json!({
        "size": counts.size,
        "maxSize": counts.max,
        "hits": counts.hits,
        "misses": counts.misses,
        "hitRate": percent(counts.hits, counts.hits + counts.misses),
    })
}

/// Queries are not cached, but the contract has the counts.
fn no_query_cache() -> Value {
    let mut counts = cache(&CacheCounts::default());
    counts["totalQueries"] = json!(0);
    counts
}

/// Mebibytes with two decimals, by the contract's name for them.
fn megabytes(bytes: u64) -> String {
    format!("{:.2} MB", bytes as f64 / (1024.0 * 1024.0))
}

/// One decimal; of nothing it is none.
fn percent(part: u64, whole: u64) -> String {
    let share = if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    format!("{:.1}%", share * 100.0)
}

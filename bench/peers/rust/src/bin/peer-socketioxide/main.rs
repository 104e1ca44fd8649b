//! The application peer on socketioxide, axum and tokio-postgres: the wire contract as its users would serve it.
//!
//! `DATABASE_URL` names the Postgres, `CONNECTION_LIMIT` (1,200) the sockets above which one is refused,
//! `ALLOWED_ORIGINS` the pages that may ask. What lives in memory lies behind one lock, in `world.rs`.

mod events;
mod routes;
mod store;
mod world;

use std::env;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderValue, Method};
use socketioxide::SocketIo;
use socketioxide::handler::ConnectHandler;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tower::ServiceBuilder;
use tower_http::cors::{AllowHeaders, CorsLayer};

use crate::store::Store;
use crate::world::World;

/// Packets that wait for one slow client; the library's 128 lose events when a thousand people come at once.
const WAITING_MAX: usize = 4096;

pub type App = Arc<Application>;

pub struct Application {
    pub store: Store,
    pub world: World,
    pub connection_limit: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    duet_peers::runtime()?.block_on(serve())
}

async fn serve() -> Result<(), Box<dyn Error>> {
    let connection_limit = env::var("CONNECTION_LIMIT").ok().and_then(|limit| limit.parse().ok()).unwrap_or(1200);
    let store = Store::open(env::var("DATABASE_URL")?).await?;
    let app = App::new(Application { store, world: World::default(), connection_limit });
    let (sockets, io) = SocketIo::builder()
        .ping_interval(Duration::from_secs(25))
        .ping_timeout(Duration::from_secs(60))
        .max_payload(1_000_000)
        .max_buffer_size(WAITING_MAX)
        .with_state(app.clone())
        .build_layer();
    io.ns("/", events::connect.with(events::authenticate));
    let routes = routes::routes(app).layer(ServiceBuilder::new().layer(cors()?).layer(sockets));
    let listener = TcpListener::from_std(duet_peers::listen()?)?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        served = axum::serve(listener, routes.into_make_service()) => served?,
        _ = terminate.recv() => io.close().await,
    }
    Ok(())
}

fn cors() -> Result<CorsLayer, Box<dyn Error>> {
    let origins = env::var("ALLOWED_ORIGINS").unwrap_or_else(|_| "http://localhost:3000".to_owned());
    let origins = origins.split(',').map(HeaderValue::from_str).collect::<Result<Vec<_>, _>>()?;
    Ok(CorsLayer::new()
        .allow_origin(origins)
        .allow_credentials(true)
        .allow_methods([Method::GET, Method::HEAD, Method::PUT, Method::PATCH, Method::POST, Method::DELETE])
        .allow_headers(AllowHeaders::mirror_request()))
}

//! The HTTP endpoints (contract 2): the layers every request passes, and the table of routes.
//!
//! Runs on the shard that received the request and keeps no state: what it needs it asks of its [`Host`], what it
//! refuses is an [`ApiError`]. Not here: framing, compression and the size limit of bodies (the connection), and
//! `/socket.io`, which the connection takes before it comes this far.

use std::net::IpAddr;

use crate::base::Time;
use crate::message::store;
use crate::wire::http::{Method, Request, Response};

mod auth;
mod body;
mod conditional;
mod cors;
pub mod counted;
pub mod demo;
mod error;
mod form;
pub mod host;
mod limit;
mod queue;
mod reel;
mod room;
mod security;
mod service;
mod session;
pub mod settings;
mod turn;
mod user;

pub use error::ApiError;
pub use host::Host;
pub use settings::{Limits, Settings, TurnSettings};

use cors::Origin;
use counted::Answerer;
use limit::Class;

/// Every route of this server. `HEAD` is served where `GET` is: the connection leaves the body out (RFC 9110 9.3.2).
const ROUTES: [Route; 25] = [
    route(Method::Get, "/", Endpoint::Root, Class::Free),
    route(Method::Get, "/health", Endpoint::Health, Class::Free),
    route(Method::Get, "/ready", Endpoint::Ready, Class::Free),
    route(Method::Get, "/stats/live", Endpoint::LiveStats, Class::Free),
    route(Method::Post, "/auth/guest", Endpoint::SignUp, Class::Auth),
    route(Method::Post, "/auth/link", Endpoint::Link, Class::Auth),
    route(Method::Post, "/auth/login", Endpoint::LogIn, Class::Own),
    route(Method::Get, "/user/me", Endpoint::Profile, Class::Api),
    route(Method::Put, "/user/me", Endpoint::EditProfile, Class::Api),
    route(Method::Get, "/room/queue", Endpoint::Queue, Class::Api),
    route(Method::Get, "/room/reel", Endpoint::Reel, Class::Api),
    route(Method::Get, "/room/history", Endpoint::History, Class::Api),
    route(Method::Get, "/room/me", Endpoint::RoomProfile, Class::Api),
    route(Method::Get, "/turn/credentials", Endpoint::TurnCredentials, Class::Own),
    route(Method::Get, "/turn/status", Endpoint::TurnStatus, Class::Free),
    route(Method::Get, "/demo", Endpoint::Demo, Class::Free),
    route(Method::Get, "/demo/style.css", Endpoint::Demo, Class::Free),
    route(Method::Get, "/demo/icon.svg", Endpoint::Demo, Class::Free),
    route(Method::Get, "/demo/main.js", Endpoint::Demo, Class::Free),
    route(Method::Get, "/demo/server.js", Endpoint::Demo, Class::Free),
    route(Method::Get, "/demo/lobby.js", Endpoint::Demo, Class::Free),
    route(Method::Get, "/demo/room.js", Endpoint::Demo, Class::Free),
    route(Method::Get, "/demo/call.js", Endpoint::Demo, Class::Free),
    route(Method::Get, "/demo/media.js", Endpoint::Demo, Class::Free),
    route(Method::Get, "/demo/page.js", Endpoint::Demo, Class::Free),
];

/// Runs an endpoint. Beside the table it is the only place that names them; the compiler holds the two together.
async fn dispatch<H: Host>(call: &Call<'_, H>, endpoint: Endpoint) -> Result<Response, ApiError> {
    match endpoint {
        Endpoint::Root => Ok(service::root(call)),
        Endpoint::Health => Ok(service::health(call).await),
        Endpoint::Ready => service::ready(call).await,
        Endpoint::LiveStats => Ok(service::live_stats(call)),
        Endpoint::SignUp => auth::sign_up(call).await,
        Endpoint::Link => auth::link(call).await,
        Endpoint::LogIn => auth::log_in(call).await,
        Endpoint::Profile => user::profile(call).await,
        Endpoint::EditProfile => user::edit_profile(call).await,
        Endpoint::Queue => queue::queue(call).await,
        Endpoint::Reel => reel::reel(call).await,
        Endpoint::History => room::history(call).await,
        Endpoint::RoomProfile => room::profile(call).await,
        Endpoint::TurnCredentials => turn::credentials(call).await,
        Endpoint::TurnStatus => turn::status(call).await,
        Endpoint::Demo => demo::file(call),
    }
}

/// What a route does; [`dispatch`] says where.
#[derive(Clone, Copy)]
enum Endpoint {
    Root,
    Health,
    Ready,
    LiveStats,
    SignUp,
    Link,
    LogIn,
    Profile,
    EditProfile,
    Queue,
    Reel,
    History,
    RoomProfile,
    TurnCredentials,
    TurnStatus,
    Demo,
}

/// One line of the table.
struct Route {
    /// Never `HEAD` or `OPTIONS`: those follow from the others.
    method: Method,
    /// Without a slash at the end.
    path: &'static str,
    endpoint: Endpoint,
    class: Class,
}

const fn route(method: Method, path: &'static str, endpoint: Endpoint, class: Class) -> Route {
    Route { method, path, endpoint, class }
}

/// Answers one request of the client at `address`. Never fails: a refusal is a response like any other.
///
/// The layers, outermost first: CORS, security headers, HTTPS redirect, route, rate limit of its class, and in the
/// handler the session and the body. So a client that is over its limit costs neither a look-up nor a parse, and
/// every answer, whoever gave it, carries the headers of the outer layers.
pub async fn handle<H: Host>(host: &H, request: &Request, address: IpAddr) -> Response {
    let settings = host.settings();
    let origin = cors::judge(settings, request);
    let (answerer, response) = if origin == Origin::Foreign {
        (Answerer::ForeignOrigin as usize, ApiError::ForeignOrigin.response())
    } else if cors::is_preflight(request) {
        (Answerer::Preflight as usize, cors::preflight(request))
    } else if let Some(redirect) = security::redirect(settings, request) {
        (Answerer::Redirect as usize, redirect)
    } else {
        serve(&Call { host, request, address }).await
    };
    host.answered(counted::place(answerer, response.status));
    security::mark(settings, cors::mark(origin, request, response))
}

/// Completes an answer that the Engine.IO path gives itself. Unlike an endpoint's, that of a foreign origin is the same,
/// and only its page cannot read it (contract 3.1).
pub fn mark_engine(settings: &Settings, request: &Request, response: Response) -> Response {
    if response.status == 101 {
        return response;
    }
    security::mark(settings, cors::mark(cors::judge(settings, request), request, response))
}

/// One request on its way through the layers.
struct Call<'a, H> {
    /// The shard.
    host: &'a H,
    request: &'a Request,
    /// Of the client, not of a proxy between.
    address: IpAddr,
}

impl<H: Host> Call<'_, H> {
    fn now(&self) -> Time {
        self.host.now()
    }

    fn settings(&self) -> &Settings {
        self.host.settings()
    }

    /// Asks the store; a reply of the wrong kind is for the caller to treat as none.
    async fn store(&self, request: store::Request) -> Result<store::Reply, ApiError> {
        Ok(self.host.store(request).await?)
    }
}

/// Finds the route and runs it within its rate class; says by what it is to be counted.
async fn serve<H: Host>(call: &Call<'_, H>) -> (usize, Response) {
    let path = without_trailing_slash(&call.request.path);
    let method = if call.request.method == Method::Head { Method::Get } else { call.request.method };
    let mut here = ROUTES.iter().filter(|route| route.path == path).peekable();
    if let Some(route) = here.clone().find(|route| route.method == method) {
        let handler = async { answer(dispatch(call, route.endpoint).await) };
        return (route.endpoint as usize, limit::run(call, route.class, handler).await);
    }
    let response = match method {
        _ if here.peek().is_none() => ApiError::NotFound.response(),
        Method::Options => Response::empty(204).header("Allow", allow(path)),
        _ => ApiError::MethodNotAllowed.response().header("Allow", allow(path)),
    };
    (Answerer::Unmatched as usize, response)
}

/// A refusal becomes the response that tells it.
fn answer(result: Result<Response, ApiError>) -> Response {
    result.unwrap_or_else(|error| error.response())
}

/// The path as the table has it: as in Express, one slash more at the end makes no difference.
fn without_trailing_slash(path: &str) -> &str {
    path.strip_suffix('/').filter(|rest| !rest.is_empty() && !rest.ends_with('/')).unwrap_or(path)
}

/// The value of `Allow` for a path of the table (RFC 9110 10.2.1).
fn allow(path: &str) -> String {
    let mut methods = Vec::new();
    for route in ROUTES.iter().filter(|route| route.path == path) {
        match route.method {
            Method::Get => methods.extend(["GET", "HEAD"]),
            Method::Head => {}
            Method::Post => methods.push("POST"),
            Method::Put => methods.push("PUT"),
            Method::Patch => methods.push("PATCH"),
            Method::Delete => methods.push("DELETE"),
            Method::Options => {}
        }
    }
    methods.push("OPTIONS");
    methods.join(", ")
}

//! The Socket.IO events: presence, queue, invites, calls and what is relayed within them.
//!
//! The library spawns each handler's future, in no order among those of one socket. So what changes the world and what
//! is relayed happens before the future is made; only what waits for the database is left to it.

use std::future::{Ready, ready};
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use socketioxide::SocketIo;
use socketioxide::extract::{Data, Extension, MaybeExtension, SocketRef, State, TryData};
use socketioxide::socket::DisconnectReason;
use tokio::time::sleep;
use uuid::Uuid;

use crate::App;
use crate::store::{Finished, Result, now_ms};
use crate::world::{Call, Invite};

const GRACE: Duration = Duration::from_secs(5);
const SECONDS: std::ops::RangeInclusive<i64> = 60..=1800;
const INVITE_TTL_MS: i64 = 20_000;
const CHAT_CHARS_MAX: usize = 500;
const HISTORY_MIN_SECONDS: i64 = 5;
const HOUR_MS: i64 = 3600 * 1000;
const DECLINED_MS: i64 = 24 * HOUR_MS;
const CALLED_MS: i64 = 24 * HOUR_MS;
const RESCINDED_MS: i64 = HOUR_MS;

/// Whose socket it is, once that is known.
#[derive(Clone, Copy)]
struct Me(Uuid);

#[derive(Deserialize)]
pub struct Handshake {
    token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Auth {
    session_token: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToUser {
    to_user_id: Uuid,
    #[serde(default)]
    requested_seconds: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OfInvite {
    invite_id: Uuid,
    #[serde(default)]
    requested_seconds: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InRoom {
    room_id: Uuid,
    #[serde(default)]
    text: String,
    #[serde(default)]
    socials: Value,
}

/// One of the three fields is there; it is not looked into.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Signal {
    #[serde(skip_serializing)]
    room_id: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    offer: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    candidate: Option<Value>,
    #[serde(skip_deserializing)]
    from: Uuid,
}

/// Finds out whose socket it is from the handshake, before it is connected.
pub async fn authenticate(
    socket: SocketRef,
    TryData(handshake): TryData<Handshake>,
    State(app): State<App>,
) -> Result<()> {
    let Some(token) = handshake.ok().and_then(|handshake| handshake.token) else { return Ok(()) };
    if let Some(user) = app.store.user_of_session(&token).await? {
        socket.extensions.insert(Me(user));
    }
    Ok(())
}

pub fn connect(socket: SocketRef, State(app): State<App>) -> Ready<()> {
    socket.on_disconnect(disconnected);
    if app.world.connections.fetch_add(1, Ordering::Relaxed) >= app.connection_limit {
        fail(&socket, "Server is at capacity");
        _ = socket.disconnect();
        return ready(());
    }
    socket.on("auth", auth);
    socket.on_fallback(async |socket: SocketRef| fail(&socket, "Not authenticated"));
    if let Some(Me(user)) = socket.extensions.get() {
        bind(&socket, &app, user);
    }
    ready(())
}

async fn auth(socket: SocketRef, State(app): State<App>, Data(auth): Data<Auth>) {
    match app.store.user_of_session(&auth.session_token).await {
        Ok(Some(user)) => bind(&socket, &app, user),
        Ok(None) => _ = socket.emit("auth:failed", &()),
        Err(error) => eprintln!("auth: {error}"),
    }
}

/// The socket is this user's from now on, and may say what only users may.
fn bind(socket: &SocketRef, app: &App, user: Uuid) {
    socket.extensions.insert(Me(user));
    if app.world.write().enter(user, socket.id) {
        register(socket);
    }
    _ = socket.emit("auth:success", &());
}

fn register(socket: &SocketRef) {
    socket.on("presence:join", presence_join);
    socket.on("presence:leave", presence_leave);
    socket.on("queue:join", queue::<true>);
    socket.on("queue:leave", queue::<false>);
    socket.on("call:invite", invite);
    socket.on("call:accept", accept);
    socket.on("call:decline", decline);
    socket.on("call:rescind", rescind);
    socket.on("call:extend-wait", extend_wait);
    socket.on("call:end", end);
    socket.on("room:join", room_join);
    socket.on("room:chat", chat);
    socket.on("room:giveSocial", give_social);
    for name in ["rtc:offer", "rtc:answer", "rtc:ice"] {
        socket.on(name, move |io: SocketIo, app: State<App>, me: Extension<Me>, signal: Data<Signal>| {
            relay(name, &io, &app, me.0.0, signal.0);
            ready(())
        });
    }
}

fn presence_join(io: SocketIo, State(app): State<App>, Extension(Me(me)): Extension<Me>) -> Ready<()> {
    if app.world.write().join(me) {
        tell_presence(&io, me, true);
    }
    ready(())
}

fn presence_leave(io: SocketIo, State(app): State<App>, Extension(Me(me)): Extension<Me>) -> Ready<()> {
    app.world.write().people.shift_remove(&me);
    tell_presence(&io, me, false);
    ready(())
}

fn queue<const JOIN: bool>(io: SocketIo, State(app): State<App>, Extension(Me(me)): Extension<Me>) -> Ready<()> {
    set_available(&io, &app, me, JOIN);
    ready(())
}

async fn invite(
    io: SocketIo,
    socket: SocketRef,
    State(app): State<App>,
    Extension(Me(me)): Extension<Me>,
    Data(ToUser { to_user_id: to, requested_seconds: seconds }): Data<ToUser>,
) {
    let invite_id = Uuid::new_v4();
    let decline = |reason| _ = socket.emit("call:declined", &json!({ "inviteId": invite_id, "reason": reason }));
    if to == me {
        return decline("invalid_target");
    }
    if !SECONDS.contains(&seconds) {
        return decline("invalid_duration");
    }
    if !app.world.read().is_available(to) {
        return decline("offline");
    }
    let (cooldown, caller) = match tokio::try_join!(app.store.cooldown(me, to), app.store.user(me)) {
        Ok((cooldown, Some(caller))) => (cooldown, caller),
        Ok((_, None)) => return decline("user_not_found"),
        Err(error) => return eprintln!("call:invite: {error}"),
    };
    if cooldown.is_some() {
        return decline("cooldown");
    }
    app.world.write().invites.insert(invite_id, Invite { from: me, to, seconds, at: now_ms() });
    let notice = json!({
        "inviteId": invite_id,
        "fromUser": caller.card,
        "requestedSeconds": seconds,
        "ttlMs": INVITE_TTL_MS,
    });
    tell(&io, &app, to, "call:notify", &notice);
}

async fn accept(
    io: SocketIo,
    socket: SocketRef,
    State(app): State<App>,
    Extension(Me(me)): Extension<Me>,
    Data(OfInvite { invite_id, requested_seconds: seconds }): Data<OfInvite>,
) {
    if !SECONDS.contains(&seconds) {
        return fail(&socket, "Invalid duration");
    }
    let invite = app.world.read().invites.get(&invite_id).copied().filter(|invite| invite.to == me);
    let Some(Invite { from, seconds: wanted, .. }) = invite else { return fail(&socket, "Invite not found") };
    let (caller, callee) = match tokio::try_join!(app.store.user(from), app.store.user(me)) {
        Ok((Some(caller), Some(callee))) => (caller.card, callee.card),
        Ok(_) => return fail(&socket, "User not found"),
        Err(error) => return eprintln!("call:accept: {error}"),
    };
    let call = Call { participants: [(from, caller.name), (me, callee.name)], started_at: now_ms(), chat: Vec::new() };
    let names = call.participants.clone();
    let Some(room_id) = app.world.write().start(invite_id, call) else { return fail(&socket, "No longer available") };
    set_available(&io, &app, from, false);
    set_available(&io, &app, me, false);
    for (to, (peer, name)) in [(from, &names[1]), (me, &names[0])] {
        let start = json!({
            "roomId": room_id,
            "agreedSeconds": (wanted + seconds) / 2,
            "isInitiator": to == from,
            "peerUser": { "userId": peer, "name": name },
        });
        tell(&io, &app, to, "call:start", &start);
    }
}

async fn decline(io: SocketIo, State(app): State<App>, Extension(Me(me)): Extension<Me>, Data(of): Data<OfInvite>) {
    let Some(invite) = app.world.write().take_invite(of.invite_id, |invite| invite.to == me) else { return };
    logged("call:decline", app.store.set_cooldown(invite.from, me, DECLINED_MS).await);
    let declined = json!({ "inviteId": of.invite_id, "reason": "user_declined" });
    tell(&io, &app, invite.from, "call:declined", &declined);
}

async fn rescind(io: SocketIo, State(app): State<App>, Extension(Me(me)): Extension<Me>, Data(to): Data<ToUser>) {
    let Some(invite_id) = app.world.read().invite_between(me, to.to_user_id) else { return };
    rescind_invite(&io, &app, me, invite_id).await;
}

async fn rescind_invite(io: &SocketIo, app: &App, me: Uuid, invite_id: Uuid) {
    let Some(invite) = app.world.write().take_invite(invite_id, |invite| invite.from == me) else { return };
    logged("call:rescind", app.store.set_cooldown(me, invite.to, RESCINDED_MS).await);
    tell(io, app, invite.to, "call:rescinded", &json!({ "inviteId": invite_id }));
}

async fn extend_wait(io: SocketIo, State(app): State<App>, Extension(Me(me)): Extension<Me>, Data(to): Data<ToUser>) {
    let waiting = app.world.read().invite_between(me, to.to_user_id).is_some();
    if waiting {
        tell(&io, &app, to.to_user_id, "call:wait-extended", &json!({ "extraSeconds": 20 }));
    }
}

async fn end(io: SocketIo, State(app): State<App>, Extension(Me(me)): Extension<Me>, Data(of): Data<InRoom>) {
    let participant = app.world.read().partner(of.room_id, me).is_some();
    if participant {
        finish(&io, &app, of.room_id).await;
    }
}

/// What is said in a room goes to its people, so there is nothing to join; but a stranger is told.
async fn room_join(
    socket: SocketRef,
    State(app): State<App>,
    Extension(Me(me)): Extension<Me>,
    Data(of): Data<InRoom>,
) {
    if app.world.read().partner(of.room_id, me).is_none() {
        fail(&socket, "Unknown room");
    }
}

fn relay(name: &str, io: &SocketIo, app: &App, me: Uuid, mut signal: Signal) {
    let partner = app.world.read().partner(signal.room_id, me);
    if let Some(partner) = partner {
        signal.from = me;
        tell(io, app, partner, name, &signal);
    }
}

fn chat(
    io: SocketIo,
    State(app): State<App>,
    Extension(Me(me)): Extension<Me>,
    Data(InRoom { room_id, text, .. }): Data<InRoom>,
) -> Ready<()> {
    let text: String = text.chars().take(CHAT_CHARS_MAX).collect();
    if !text.trim().is_empty() {
        let line = json!({ "from": me, "text": text.trim(), "timestamp": now_ms(), "type": "message" });
        say(&io, &app, room_id, me, "room:chat", line);
    }
    ready(())
}

fn give_social(
    io: SocketIo,
    State(app): State<App>,
    Extension(Me(me)): Extension<Me>,
    Data(InRoom { room_id, socials, .. }): Data<InRoom>,
) -> Ready<()> {
    if socials.is_object() {
        let line = json!({ "from": me, "socials": socials, "timestamp": now_ms(), "type": "social" });
        say(&io, &app, room_id, me, "room:socialShared", line);
    }
    ready(())
}

/// Logs a line of the call and shows it to both.
fn say(io: &SocketIo, app: &App, room_id: Uuid, me: Uuid, event: &str, line: Value) {
    let Some(partner) = app.world.read().partner(room_id, me) else { return };
    for user in [me, partner] {
        tell(io, app, user, event, &line);
    }
    if let Some(call) = app.world.write().calls.get_mut(&room_id) {
        call.log(line);
    }
}

async fn disconnected(
    io: SocketIo,
    socket: SocketRef,
    reason: DisconnectReason,
    State(app): State<App>,
    MaybeExtension(me): MaybeExtension<Me>,
) {
    app.world.connections.fetch_sub(1, Ordering::Relaxed);
    let Some(Me(me)) = me else { return };
    if !matches!(reason, DisconnectReason::ClientNSDisconnect | DisconnectReason::ServerNSDisconnect) {
        sleep(GRACE).await;
    }
    // A newer socket of his keeps everything.
    if !app.world.write().leave(me, socket.id) {
        return;
    }
    tell_presence(&io, me, false);
    let (room, invites) = app.world.read().entanglements(me);
    if let Some(room_id) = room {
        if let Some(partner) = app.world.read().partner(room_id, me) {
            tell(&io, &app, partner, "peer:disconnected", &());
        }
        finish(&io, &app, room_id).await;
    }
    for invite_id in invites {
        rescind_invite(&io, &app, me, invite_id).await;
    }
}

/// Ends the call once, whoever asks first; what is told is stored.
async fn finish(io: &SocketIo, app: &App, room_id: Uuid) {
    let Some(Call { participants, started_at, chat }) = app.world.write().end(room_id) else { return };
    let [(caller, _), (callee, _)] = participants;
    let duration = (now_ms() - started_at) / 1000;
    let session_id = Uuid::new_v4();
    if duration >= HISTORY_MIN_SECONDS {
        let call = Finished { session_id, room_id, participants, started_at, duration, messages: chat };
        match app.store.finish(&call, CALLED_MS).await {
            Ok(totals) => totals.iter().for_each(|(user, totals)| tell(io, app, *user, "metrics:update", totals)),
            Err(error) => return eprintln!("call:end: {error}"),
        }
    } else {
        logged("call:end", app.store.set_cooldown(caller, callee, CALLED_MS).await);
    }
    for user in [caller, callee] {
        tell(io, app, user, "session:finalized", &json!({ "sessionId": session_id }));
    }
}

fn set_available(io: &SocketIo, app: &App, user: Uuid, available: bool) {
    if app.world.write().set_available(user, available) {
        broadcast(io, "queue:update", &json!({ "userId": user, "available": available }));
    }
}

fn tell_presence(io: &SocketIo, user: Uuid, online: bool) {
    broadcast(io, "presence:update", &json!({ "userId": user, "online": online, "available": false }));
}

/// To every socket. The adapter is in this process and never waits, so this is done when it returns.
fn broadcast(io: &SocketIo, event: &str, data: &Value) {
    _ = io.emit(event, data).now_or_never();
}

fn tell(io: &SocketIo, app: &App, user: Uuid, event: &str, data: &impl Serialize) {
    let sid = app.world.read().sockets.get(&user).copied();
    if let Some(socket) = sid.and_then(|sid| io.get_socket(sid)) {
        // A socket that is closing hears nothing more.
        _ = socket.emit(event, data);
    }
}

fn fail(socket: &SocketRef, message: &str) {
    _ = socket.emit("error", &json!({ "message": message }));
}

fn logged(what: &str, result: Result<()>) {
    if let Err(error) = result {
        eprintln!("{what}: {error}");
    }
}

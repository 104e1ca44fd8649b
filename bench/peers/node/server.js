// The application peer on Express, Socket.IO and pg: the wire contract as its users would serve it.
//
// REFERENCE=on does what the reference design did: a query and a log line for each listed person in each queue answer.
// PER_MESSAGE_DEFLATE=on compresses WebSocket messages. CONNECTION_LIMIT (1200) refuses sockets above it.

import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { Server } from "socket.io";
import { card, CONNECTION_LIMIT, ORIGINS, routes } from "./routes.js";
import * as store from "./store.js";

const PORT = Number(process.env.PORT ?? 3001);
const DEFLATE = { threshold: 1024, zlibDeflateOptions: { level: 6 }, zlibInflateOptions: { chunkSize: 10 * 1024 }, concurrencyLimit: 10 };

const SECONDS = { min: 60, max: 1800 };
const CHAT_CHARS_MAX = 500;
const CHAT_LINES_MAX = 500;
const INVITE_TTL_MS = 20_000;
const INVITE_KEPT_MS = 5 * 60_000;
const GRACE_MS = 5_000;
const PRESENCE_EVERY_MS = 1_000;
const HISTORY_MIN_SECONDS = 5;
const HOUR_MS = 3600 * 1000;
const COOLDOWN_MS = { decline: 24 * HOUR_MS, call: 24 * HOUR_MS, rescind: HOUR_MS };

/** User id to `{online, available, told}`, in the order in which they came online. */
const presence = new Map();
/** Invite id to `{inviteId, from, to, seconds, at}`. */
const invites = new Map();
/** Room id to `{roomId, ids, names, startedAt, chat}`; and the room of each user who is in one. */
const rooms = new Map();
const roomOf = new Map();

const server = createServer(routes(presence, () => io.engine.clientsCount));
const io = new Server(server, {
  cors: { origin: ORIGINS, credentials: true },
  pingInterval: 25_000,
  pingTimeout: 60_000,
  maxHttpBufferSize: 1e6,
  perMessageDeflate: process.env.PER_MESSAGE_DEFLATE === "on" ? DEFLATE : false,
});

// Sockets: each is in the room named by its user's id, and in that of his call.

io.use(async (socket, next) => {
  try {
    socket.data.userId = await store.userOfSession(socket.handshake.auth.token);
    next();
  } catch (error) {
    next(error);
  }
});

io.on("connection", (socket) => {
  if (io.engine.clientsCount > CONNECTION_LIMIT) {
    socket.emit("error", { message: "Server is at capacity" });
    return socket.disconnect(true);
  }
  const fail = (message) => socket.emit("error", { message });
  // What a handler rejects with costs this event only.
  const on = (name, handler) => socket.on(name, async (payload) => {
    try {
      await handler(payload ?? {});
    } catch (error) {
      console.error(name, error);
      fail("Internal error");
    }
  });
  const bound = (name, handler) => on(name, (payload) => (socket.data.userId ? handler(payload, socket.data.userId) : fail("Not authenticated")));

  if (socket.data.userId) bind(socket);
  on("auth", async ({ sessionToken }) => {
    const userId = await store.userOfSession(sessionToken);
    if (!userId) return socket.emit("auth:failed");
    if (socket.data.userId !== userId) {
      if (socket.data.userId) socket.leave(socket.data.userId);
      socket.data.userId = userId;
    }
    bind(socket);
  });

  bound("presence:join", (_, me) => setPresence(me, true, false));
  bound("presence:leave", (_, me) => setPresence(me, false, false));
  bound("queue:join", (_, me) => setAvailable(me, true));
  bound("queue:leave", (_, me) => setAvailable(me, false));
  bound("call:invite", (payload, me) => invite(socket, me, payload));
  bound("call:accept", (payload, me) => accept(socket, me, payload));
  bound("call:decline", ({ inviteId }, me) => {
    const invite = invites.get(inviteId);
    if (invite?.to === me) return endInvite(invite, "call:declined", { inviteId, reason: "user_declined" }, COOLDOWN_MS.decline);
  });
  bound("call:rescind", ({ toUserId }, me) => {
    const invite = inviteBetween(me, toUserId);
    if (invite) return endInvite(invite, "call:rescinded", { inviteId: invite.inviteId }, COOLDOWN_MS.rescind);
  });
  bound("call:extend-wait", ({ toUserId }, me) => {
    if (inviteBetween(me, toUserId)) io.to(toUserId).emit("call:wait-extended", { extraSeconds: 20 });
  });
  bound("room:join", ({ roomId }, me) => (rooms.get(roomId)?.ids.includes(me) ? socket.join(roomId) : fail("Unknown room")));
  bound("call:end", ({ roomId }, me) => {
    const room = rooms.get(roomId);
    if (room?.ids.includes(me)) return finish(room);
  });

  for (const [name, field] of [["rtc:offer", "offer"], ["rtc:answer", "answer"], ["rtc:ice", "candidate"]]) {
    bound(name, ({ roomId, [field]: content }, me) => {
      if (socket.rooms.has(roomId) && rooms.has(roomId)) socket.to(roomId).emit(name, { [field]: content, from: me });
    });
  }
  bound("room:chat", ({ roomId, text }, me) => {
    const line = typeof text === "string" ? text.slice(0, CHAT_CHARS_MAX).trim() : "";
    if (line !== "") say(roomId, me, "room:chat", { text: line, type: "message" });
  });
  bound("room:giveSocial", ({ roomId, socials }, me) => {
    if (socials && typeof socials === "object") say(roomId, me, "room:socialShared", { socials, type: "social" });
  });

  socket.on("disconnect", (reason) => {
    const { userId } = socket.data;
    if (!userId) return;
    if (/namespace disconnect$/.test(reason)) depart(userId);
    else setTimeout(depart, GRACE_MS, userId);
  });
});

function bind(socket) {
  const { userId } = socket.data;
  socket.join(roomOf.has(userId) ? [userId, roomOf.get(userId)] : userId);
  if (!presence.has(userId)) presence.set(userId, { online: true, available: false, told: 0 });
  socket.emit("auth:success");
}

/** The user's last socket is gone: he leaves the queue, his call and his invites. */
async function depart(userId) {
  if (io.sockets.adapter.rooms.has(userId)) return;
  setPresence(userId, false, false);
  try {
    const room = rooms.get(roomOf.get(userId));
    if (room) {
      io.to(room.roomId).emit("peer:disconnected");
      await finish(room);
    }
    for (const invite of [...invites.values()].filter(({ from }) => from === userId)) {
      await endInvite(invite, "call:rescinded", { inviteId: invite.inviteId }, COOLDOWN_MS.rescind);
    }
  } catch (error) {
    console.error("disconnect", error);
  }
}

function setPresence(userId, online, available) {
  const told = presence.get(userId)?.told ?? 0;
  const now = Date.now();
  // Who joins again and again is told at most once a second; a leave is always told.
  const due = !online || now - told >= PRESENCE_EVERY_MS;
  if (online) presence.set(userId, { online, available, told: due ? now : told });
  else presence.delete(userId);
  if (due) io.emit("presence:update", { userId, online, available });
}

function setAvailable(userId, available) {
  const state = presence.get(userId) ?? { online: true, told: 0 };
  if (!available && !presence.has(userId)) return;
  presence.set(userId, { ...state, available });
  io.emit("queue:update", { userId, available });
}

const isAvailable = (userId) => Boolean(presence.get(userId)?.available);
const isDuration = (seconds) => Number.isInteger(seconds) && seconds >= SECONDS.min && seconds <= SECONDS.max;
const inviteBetween = (from, to) => [...invites.values()].find((invite) => invite.from === from && invite.to === to);

async function invite(socket, me, { toUserId, requestedSeconds }) {
  const inviteId = randomUUID();
  const decline = (reason) => socket.emit("call:declined", { inviteId, reason });
  if (toUserId === me) return decline("invalid_target");
  if (!isDuration(requestedSeconds)) return decline("invalid_duration");
  if (!isAvailable(toUserId)) return decline("offline");
  const [cooldown, user] = await Promise.all([store.cooldownOf(me, toUserId), store.getUser(me)]);
  if (cooldown) return decline("cooldown");
  invites.set(inviteId, { inviteId, from: me, to: toUserId, seconds: requestedSeconds, at: Date.now() });
  io.to(toUserId).emit("call:notify", { inviteId, fromUser: card(user), requestedSeconds, ttlMs: INVITE_TTL_MS });
}

async function endInvite(invite, event, payload, cooldownMs) {
  if (!invites.delete(invite.inviteId)) return;
  await store.setCooldown(invite.from, invite.to, cooldownMs);
  io.to(event === "call:declined" ? invite.from : invite.to).emit(event, payload);
}

async function accept(socket, me, { inviteId, requestedSeconds }) {
  const fail = (message) => socket.emit("error", { message });
  if (!isDuration(requestedSeconds)) return fail("Invalid duration");
  if (invites.get(inviteId)?.to !== me) return fail("Invite not found");
  const { from, seconds } = invites.get(inviteId);
  const [caller, callee] = await Promise.all([store.getUser(from), store.getUser(me)]);
  // Another invite may have been accepted, or this one taken back, while we read the names.
  if (!invites.delete(inviteId) || roomOf.has(from) || roomOf.has(me)) return fail("No longer available");
  const roomId = randomUUID();
  const agreedSeconds = Math.floor((seconds + requestedSeconds) / 2);
  rooms.set(roomId, { roomId, ids: [from, me], names: { [from]: caller.name, [me]: callee.name }, startedAt: Date.now(), chat: [] });
  for (const id of [from, me]) {
    roomOf.set(id, roomId);
    io.in(id).socketsJoin(roomId);
    setAvailable(id, false);
  }
  for (const [id, peer] of [[from, callee], [me, caller]]) {
    const peerUser = { userId: peer.user_id, name: peer.name };
    io.to(id).emit("call:start", { roomId, agreedSeconds, isInitiator: id === from, peerUser });
  }
}

function say(roomId, me, event, content) {
  const room = rooms.get(roomId);
  if (!room?.ids.includes(me)) return;
  const line = { from: me, timestamp: Date.now(), ...content };
  if (room.chat.length < CHAT_LINES_MAX) room.chat.push(line);
  io.to(roomId).emit(event, line);
}

async function finish(room) {
  const { roomId, ids, names, startedAt, chat } = room;
  if (!rooms.delete(roomId)) return;
  ids.forEach((id) => roomOf.delete(id));
  const duration = Math.floor((Date.now() - startedAt) / 1000);
  const sessionId = randomUUID();
  if (duration >= HISTORY_MIN_SECONDS) {
    const totals = await store.finishCall({ sessionId, roomId, startedAt, duration, messages: chat, names }, COOLDOWN_MS.call);
    for (const { user_id, timer_total_seconds, session_count, last_sessions } of totals) {
      const metrics = { timerTotalSeconds: timer_total_seconds, sessionCount: session_count, lastSessions: last_sessions };
      io.to(user_id).emit("metrics:update", metrics);
    }
  } else {
    await store.setCooldown(ids[0], ids[1], COOLDOWN_MS.call);
  }
  io.to(roomId).emit("session:finalized", { sessionId });
  io.in(roomId).socketsLeave(roomId);
}

setInterval(() => {
  const oldest = Date.now() - INVITE_KEPT_MS;
  for (const { inviteId, at } of invites.values()) if (at < oldest) invites.delete(inviteId);
}, 60_000).unref();

await store.open();
server.listen(PORT, "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
process.on("SIGTERM", () => {
  io.disconnectSockets(true);
  server.close();
  server.closeAllConnections();
  store.close().then(() => process.exit(0));
});

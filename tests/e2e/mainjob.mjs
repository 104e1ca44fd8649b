// The main job: two people sign up, find each other, call, talk and hang up (contract 6.4 to 6.8).
//
// The facts alone: which suite holds them against which server, over which transports, stands in `*.test.mjs`.

import assert from "node:assert/strict";
import { card, cooldownOf, enterRoom, hangUp, joinQueue, lasting, ring, say, within } from "./cast.mjs";
import { request } from "./client.mjs";
import { eventually, pause } from "./server.mjs";

const ICE_COUNT = 20;

/** A candidate written as no JSON library would write it, so that a rebuilt one is seen. */
const candidate = (number) =>
  `{ "candidate" : "candidate:${number} 1 udp 2122260223 192.0.2.1 ${5000 + number} typ host", "sdpMid":"0" ,"n":1.50,"u":"\\u00e9\\/" }`;

const sdp = (kind) => ({ type: kind, sdp: `v=0\r\no=- 46117 2 IN IP4 127.0.0.1\r\ns=é ${kind} \u2028 "quoted"\r\nt=0 0\r\n` });

/** `from` sends 20 candidates; `to` hears exactly these bytes in this order. */
async function trickle(from, to, room) {
  for (let i = 0; i < ICE_COUNT; i++) from.emitRaw(`["rtc:ice",{"roomId":"${room}","candidate":${candidate(i)}}]`);
  for (let i = 0; i < ICE_COUNT; i++) {
    const { raw, payload } = await to.nextEvent("rtc:ice");
    assert.equal(payload.from, from.id);
    assert.ok(raw.includes(`"candidate":${candidate(i)}`), `candidate ${i} is not byte for byte what was sent: ${raw}`);
  }
}

export async function negotiate(caller, callee, room) {
  caller.emit("rtc:offer", { roomId: room, offer: sdp("offer") });
  assert.deepEqual(await callee.next("rtc:offer"), { offer: sdp("offer"), from: caller.id });
  callee.emit("rtc:answer", { roomId: room, answer: sdp("answer") });
  assert.deepEqual(await caller.next("rtc:answer"), { answer: sdp("answer"), from: callee.id });
  await Promise.all([trickle(caller, callee, room), trickle(callee, caller, room)]);
}

/** `from` writes or shares; both hear the same line, which is returned. */
async function both(from, to, emit, event) {
  from.emit(...emit);
  const [echo, heard] = await Promise.all([from.next(event), to.next(event)]);
  assert.deepEqual(echo, heard);
  assert.equal(heard.from, from.id);
  within(heard.timestamp, Date.now() - 60_000, Date.now() + 1_000, "timestamp");
  return heard;
}

function historyEntry(history, { room, session, partner, lines }) {
  const entries = history.filter((entry) => entry.roomId === room);
  assert.equal(entries.length, 1, "the call is in the history once");
  const [{ sessionId, partnerId, partnerName, startedAt, duration, messages }] = entries;
  assert.deepEqual([sessionId, partnerId, partnerName], [session, partner.id, partner.name]);
  within(startedAt, Date.now() - 120_000, Date.now(), "startedAt");
  within(duration, 5, 60, "duration");
  const talk = messages.map(({ from, text, type }) => ({ from, text, type }));
  assert.deepEqual(talk.filter(({ type }) => type === "message"), lines);
  assert.ok(messages.every(({ timestamp }) => Number.isInteger(timestamp)));
  return messages;
}

/** For `suite`. `each`: the transports of every fact; `inTurns`: more, for the whole job; `official`: of the official client. */
export const mainJob = ({ each, inTurns, official }) => (frame) => {
  const facts = (name, body, transports = each) => frame.facts(name, body, transports);

  facts("two people sign up, meet, call, talk, hang up and find the call in their histories", async (cast) => {
    const ada = await cast.online({ name: "Ada", gender: "female" });
    const bo = await cast.online({ name: "Bo", gender: "male" });
    const { userId, sessionToken, ...rest } = ada.account.signedUp;
    assert.match(userId, /^[0-9a-f-]{36}$/);
    assert.ok(sessionToken.length >= 32);
    assert.deepEqual(
      [rest.accountType, rest.wasReferred, rest.targetUser ?? null, rest.targetOnline, rest.paidStatus, rest.requiresPayment],
      ["guest", false, null, false, "paid", false],
    );

    await joinQueue(ada, bo);
    const { introducedBy, selfieUrl, videoUrl, ...shown } = await card(ada, bo);
    const expected = { userId: bo.id, name: "Bo", gender: "male", hasCooldown: false, cooldownExpiry: null, wasIntroducedToMe: false };
    assert.deepEqual(shown, expected);
    assert.deepEqual([introducedBy ?? null, selfieUrl ?? null, videoUrl ?? null], [null, null, null]);
    const { totalAvailable } = await ada.get("/room/queue");
    assert.ok(Number.isInteger(totalAvailable) && totalAvailable >= 1);

    ada.emit("call:invite", { toUserId: bo.id, requestedSeconds: 300 });
    const { inviteId, fromUser, requestedSeconds, ttlMs } = await bo.next("call:notify");
    assert.deepEqual([fromUser.userId, fromUser.name, fromUser.gender, requestedSeconds, ttlMs], [ada.id, "Ada", "female", 300, 20_000]);
    bo.emit("call:accept", { inviteId, requestedSeconds: 200 });
    for (const [me, peer, initiator] of [[ada, bo, true], [bo, ada, false]]) {
      const start = await me.next("call:start");
      const { roomId, ...facts } = start;
      assert.deepEqual(facts, { agreedSeconds: 250, isInitiator: initiator, peerUser: { userId: peer.id, name: peer.name } });
      const before = me.events.slice(0, me.events.findIndex(({ name }) => name === "call:start"));
      for (const { id, name } of [ada, bo]) {
        const told = before.some((event) => event.name === "queue:update" && event.payload.userId === id && !event.payload.available);
        assert.ok(told, `${me.name} heard that ${name} left the queue before call:start`);
      }
      me.room = roomId;
    }
    assert.equal(ada.room, bo.room);
    const room = ada.room;
    const startedAt = Date.now();

    for (const person of [ada, bo]) {
      person.emit("queue:leave");
      const { iceServers } = await person.get("/turn/credentials");
      assert.ok(Array.isArray(iceServers));
      person.emit("room:join", { roomId: room });
    }
    await Promise.all([ada.settle(), bo.settle()]);
    await negotiate(ada, bo, room);

    const first = await both(ada, bo, ["room:chat", { roomId: room, text: "  hello <b>Bo</b> \u0007é " }], "room:chat");
    assert.deepEqual([first.text, first.type], ["hello <b>Bo</b> é", "message"]);
    const second = await both(bo, ada, ["room:chat", { roomId: room, text: "hi Ada" }], "room:chat");
    const shared = await both(ada, bo, ["room:giveSocial", { roomId: room, socials: { instagram: "ada" } }], "room:socialShared");
    assert.deepEqual([shared.type, shared.socials], ["social", { instagram: "ada" }]);

    await lasting(startedAt);
    ada.emit("call:end", { roomId: room });
    const sessions = [];
    for (const person of [ada, bo]) {
      const metrics = await person.next("metrics:update");
      within(metrics.timerTotalSeconds, 5, 60, "timerTotalSeconds");
      assert.deepEqual([metrics.sessionCount, metrics.lastSessions.length], [1, 1]);
      within(metrics.lastSessions[0].duration, 5, 60, "duration");
      sessions.push((await person.next("session:finalized")).sessionId);
    }
    assert.equal(sessions[0], sessions[1]);

    const lines = [first, second].map(({ from, text, type }) => ({ from, text, type }));
    for (const [me, partner] of [[ada, bo], [bo, ada]]) {
      const { history } = await me.get("/room/history");
      const messages = historyEntry(history, { room, session: sessions[0], partner, lines });
      const social = messages.find(({ type }) => type === "social");
      assert.deepEqual([social.socials, typeof social.text], [{ instagram: "ada" }, "string"]);
      const profile = await me.get("/user/me");
      assert.equal(profile.sessionCount, 1);
      assert.deepEqual(me.all("error"), []);
    }

    await joinQueue(ada, bo);
    cooldownOf(await card(ada, bo), 24);
    cooldownOf(await card(bo, ada), 24);
    ada.emit("call:invite", { toUserId: bo.id, requestedSeconds: 300 });
    assert.equal((await ada.next("call:declined")).reason, "cooldown");
  }, [...each, ...inTurns]);

  facts("a declined caller hears it, and both see a cooldown of 24 h", async (cast) => {
    const { caller, callee, invite } = await cast.ringing();
    callee.emit("call:decline", { inviteId: invite });
    assert.deepEqual(await caller.next("call:declined"), { inviteId: invite, reason: "user_declined" });
    for (const [viewer, other] of [[caller, callee], [callee, caller]]) {
      await eventually("the cooldown shows", async () => (await card(viewer, other))?.hasCooldown);
      cooldownOf(await card(viewer, other), 24);
    }
    callee.emit("call:decline", { inviteId: invite });
    await callee.settle();
    assert.equal(caller.all("call:declined").length, 1, "declining a gone invite is ignored");
  });

  facts("a rescinded invite stops ringing, and both see a cooldown of 1 h", async (cast) => {
    const { caller, callee, invite } = await cast.ringing();
    caller.emit("call:rescind", { toUserId: callee.id });
    assert.deepEqual(await callee.next("call:rescinded"), { inviteId: invite });
    await eventually("the cooldown shows", async () => (await card(callee, caller))?.hasCooldown);
    cooldownOf(await card(caller, callee), 1);
    callee.emit("call:accept", { inviteId: invite, requestedSeconds: 300 });
    await callee.next("error");
    assert.deepEqual(caller.all("call:start"), []);
  });

  facts("a caller who keeps waiting gives the callee 20 s more", async (cast) => {
    const { caller, callee, invite } = await cast.ringing();
    caller.emit("call:extend-wait", { toUserId: callee.id });
    assert.deepEqual(await callee.next("call:wait-extended"), { extraSeconds: 20 });
    callee.emit("call:accept", { inviteId: invite, requestedSeconds: 300 });
    await enterRoom(caller, callee);
  });

  facts("a network blip in a call loses neither the call nor signalling, without another room:join", async (cast) => {
    const { caller, callee, room } = await cast.call();
    callee.drop();
    await callee.ended();
    await pause(300); // until the server has noticed, which no event tells
    for (let i = 0; i < 3; i++) caller.emitRaw(`["rtc:ice",{"roomId":"${room}","candidate":${candidate(i)}}]`);
    caller.emit("room:chat", { roomId: room, text: "still there?" });
    await pause(700);
    await callee.connect();
    for (let i = 0; i < 3; i++) assert.ok((await callee.nextEvent("rtc:ice")).raw.includes(candidate(i)), `candidate ${i}`);
    await callee.next("room:chat", ({ text }) => text === "still there?");
    await negotiate(caller, callee, room);
    await say(callee, caller, room, "back again");
    assert.deepEqual([...caller.all("peer:disconnected"), ...caller.all("session:finalized")], []);
  });

  facts("the official client reconnects by itself into its call", async (cast) => {
    const { caller, callee, room } = await cast.call();
    caller.drop();
    await caller.ended();
    await caller.connect({ reconnection: true });
    caller.emit("room:join", { roomId: room });
    await caller.settle();
    caller.drop();
    await caller.ended();
    await caller.bound();
    await negotiate(caller, callee, room);
    await say(caller, callee, room, "reconnected");
    assert.deepEqual(callee.all("session:finalized"), []);
  }, official);

  facts("a page reload in a call joins the room again and goes on", async (cast) => {
    const { caller, callee, room } = await cast.call();
    caller.drop();
    await caller.connect();
    callee.emit("rtc:ice", { roomId: room, candidate: { candidate: "early" } });
    await callee.settle();
    caller.emit("room:join", { roomId: room });
    await caller.next("rtc:ice", ({ candidate }) => candidate.candidate === "early");
    await negotiate(caller, callee, room);
    await say(callee, caller, room, "reloaded");
    assert.deepEqual(callee.all("peer:disconnected"), []);
  });

  facts("a second device's login tells the first, closes it and ends its session", async (cast) => {
    const old = await cast.online();
    const credentials = { email: `${old.id}@example.org`, password: "correct horse" };
    const linked = await old.http("POST", "/auth/link", { body: { sessionToken: old.token, ...credentials } });
    assert.deepEqual([linked.status, linked.body], [200, { success: true, accountType: "permanent" }]);
    const tab = await old.tab();

    const login = await request(cast.server.url, "POST", "/auth/login", { body: credentials, address: old.account.address });
    assert.equal(login.status, 200, login.text);
    const { userId, sessionToken, accountType, sessionInvalidated, invalidatedCount, user } = login.body;
    assert.deepEqual([userId, accountType, sessionInvalidated, user.name, user.email], [old.id, "permanent", true, old.name, credentials.email]);
    assert.ok(invalidatedCount >= 1 && sessionToken !== old.token);

    for (const connection of [old, tab]) {
      const told = await connection.next("session:invalidated");
      assert.deepEqual([told.reason, typeof told.message], ["new_login", "string"]);
      await connection.ended();
    }
    for (const path of ["/user/me", "/room/history", "/room/queue", "/turn/credentials"]) {
      const { status, body } = await old.http("GET", path);
      assert.deepEqual([path, status, body.error, body.sessionInvalidated], [path, 401, "Session invalidated", true]);
    }
    const stale = cast.connection({ name: "stale", address: old.account.address });
    await stale.open();
    stale.emit("auth", { sessionToken: old.token });
    await stale.next("auth:failed");

    const fresh = cast.connection({ ...old.account, token: sessionToken });
    await fresh.connect();
    const other = await cast.online();
    await joinQueue(fresh, other);
    await ring(other, fresh);
  });

  facts("an ended call answers its participant again with the same session id", async (cast) => {
    const { caller, callee, room } = await cast.call();
    const session = await hangUp(caller, callee, room);
    callee.emit("call:end", { roomId: room });
    assert.equal((await callee.next("session:finalized")).sessionId, session);
    caller.emit("room:chat", { roomId: room, text: "after the end" });
    await caller.next("error");
    assert.deepEqual(callee.all("room:chat"), []);
  });
};

// Running calls outlive their process: SIGTERM or kill -9, a new start, and the two are in their call as before (issue 7).

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { describe, it } from "node:test";
import { Cast, card, hangUp, joinQueue, lasting, ring, say, within } from "./cast.mjs";
import { Server, eventually, pause, sql } from "./server.mjs";

const HOWS = ["SIGTERM", "SIGKILL"];
/** Longer than what happens in a call takes to be kept (CALL_KEEP_MS), and the commit. */
const KEPT_MS = 600;
/** Longer than a start and the clients' return take on a busy machine. */
const BACK_MS = 15_000;
const SHORT_GRACE_S = 2;
/** Longer than socket.io-client waits between two attempts: 5 s and half of that again. */
const RETRY_S_MAX = 8;
const PYTHON = `import sqlite3, sys
rows = sqlite3.connect(sys.argv[1])
rows.execute(sys.argv[2])
rows.commit()`;

/** A test on a server of its own, which it may end and start again. */
function alone(name, flags, body) {
  it(name, { timeout: 120_000 }, async () => {
    const server = await Server.start(flags);
    server.mayEnd = true;
    try {
      await Cast.play(server, "socket.io", (cast) => body(cast, server));
    } finally {
      await server.kill();
    }
  });
}

/** Somebody whose client comes back by itself, as the frontend's does. */
async function returning(cast) {
  const person = await cast.guest();
  return person.connect({ reconnection: true });
}

/** Two whose clients come back, in a call and in the room: `{caller, callee, room, startedAt}`. */
async function lastingCall(cast, seconds = 300) {
  const [caller, callee] = [await returning(cast), await returning(cast)];
  await joinQueue(caller, callee);
  callee.emit("call:accept", { inviteId: await ring(caller, callee, seconds), requestedSeconds: seconds });
  const [start, other] = await Promise.all([caller.next("call:start"), callee.next("call:start")]);
  assert.equal(start.roomId, other.roomId);
  for (const person of [caller, callee]) {
    person.emit("room:join", { roomId: start.roomId });
    await person.settle();
  }
  return { caller, callee, room: start.roomId, startedAt: Date.now() };
}

/** Ends the process in the way of the signal. */
async function end(server, how) {
  const { code, signal } = await server.stop(how);
  assert.deepEqual([code, signal], how === "SIGTERM" ? [0, null] : [null, "SIGKILL"], server.tail());
}

async function restart(server, how) {
  await end(server, how);
  await server.launch();
}

/** A signal passes, and nobody had to join the room again. */
async function signals(from, to, room, sdp) {
  from.emit("rtc:offer", { roomId: room, offer: { sdp } });
  assert.equal((await to.next("rtc:offer", ({ offer }) => offer.sdp === sdp)).from, from.id);
}

/** Exactly one entry of history, as both see it. */
async function onlyEntry(person, partner) {
  const { history } = await person.get("/room/history");
  assert.equal(history.length, 1, JSON.stringify(history));
  assert.equal(history[0].partnerId, partner.id);
  return history[0];
}

/** Changes the store past the server, which must be down. */
function change(server, statement) {
  if (server.database) return sql(statement, server.database);
  return execFileSync("python3", ["-c", PYTHON, join(server.flags.data, "duet.db"), statement]);
}

describe("running calls", { concurrency: 4 }, () => {
  for (const how of HOWS) {
    alone(`${how} and a start in the midst of a call: it goes on, and is in both histories once`, {}, async (cast, server) => {
      const { caller, callee, room, startedAt } = await lastingCall(cast);
      await say(caller, callee, room, "before");
      await say(callee, caller, room, "also before");
      await pause(KEPT_MS);

      await restart(server, how);
      await Promise.all([caller.bound(), callee.bound()]);
      await signals(caller, callee, room, "again");
      await signals(callee, caller, room, "and back");
      await say(callee, caller, room, "after");
      await pause(KEPT_MS);

      await restart(server, how);
      await Promise.all([caller.bound(), callee.bound()]);
      const stranger = await cast.online();
      stranger.emit("queue:join");
      stranger.emit("call:invite", { toUserId: callee.id, requestedSeconds: 300 });
      assert.equal((await stranger.next("call:declined")).reason, "offline", "who is in a call cannot be invited");
      assert.equal(await card(stranger, caller), undefined);
      caller.emit("queue:join");
      assert.match((await caller.next("error")).message, /call/);

      await lasting(startedAt);
      const session = await hangUp(caller, callee, room);
      const lasted = (Date.now() - startedAt) / 1000;
      for (const [person, partner] of [[caller, callee], [callee, caller]]) {
        const entry = await onlyEntry(person, partner);
        assert.deepEqual([entry.sessionId, entry.roomId], [session, room]);
        assert.deepEqual(entry.messages.map(({ text }) => text), ["before", "also before", "after"]);
        within(entry.duration, Math.floor(lasted) - 1, Math.ceil(lasted) + 1, "duration");
        assert.equal((await person.get("/user/me")).sessionCount, 1);
        for (const name of ["peer:disconnected", "call:start"]) assert.equal(person.all(name).length, name === "call:start" ? 1 : 0, name);
      }
      await restart(server, how);
      await onlyEntry(caller, callee);
      await onlyEntry(callee, caller);
    });

    alone(`${how} before the room is joined: both hear again that the call starts`, {}, async (cast, server) => {
      const [caller, callee] = [await returning(cast), await returning(cast)];
      await joinQueue(caller, callee);
      callee.emit("call:accept", { inviteId: await ring(caller, callee), requestedSeconds: 300 });
      const starts = await Promise.all([caller.next("call:start"), callee.next("call:start")]);
      await restart(server, how);
      const again = await Promise.all([caller.next("call:start"), callee.next("call:start")]);
      assert.deepEqual(again, starts);
      const room = starts[0].roomId;
      for (const person of [caller, callee]) person.emit("room:join", { roomId: room });
      await say(caller, callee, room, "here we are");
      await hangUp(callee, caller, room);
    });

    alone(`${how}: the agreed time and its allowance end when they would have`, {}, async (cast, server) => {
      const { caller, callee, room } = await lastingCall(cast, 60);
      await pause(KEPT_MS);
      await end(server, how);
      // As if it had begun so long ago that its 60 s and 120 s are over when both will be back.
      const overAt = Date.now() + BACK_MS;
      change(server, `UPDATE running_calls SET started_at = ${overAt - 180_000}`);
      await server.launch();
      await Promise.all([caller.bound(), callee.bound()]);
      const ends = await Promise.all([caller, callee].map((person) => person.nextEvent("session:finalized", undefined, 2 * BACK_MS)));
      for (const { at, payload } of ends) {
        within(at - overAt, -100, 3_000, "ms after its time");
        assert.equal(payload.sessionId, room);
      }
      within((await onlyEntry(caller, callee)).duration, 180, 183, "duration");
    });

    alone(`${how}: when one does not come back the call ends for the other as with a lost partner`, { "resume-seconds": RETRY_S_MAX }, async (cast, server) => {
      const { caller, callee, room, startedAt } = await lastingCall(cast);
      await say(caller, callee, room, "still there?");
      await lasting(startedAt, 6_000);
      await end(server, how);
      const ran = (Date.now() - startedAt) / 1000;
      callee.leave();
      await pause(2_000);
      await server.launch();
      await caller.bound();
      await caller.next("peer:disconnected");
      const { sessionId } = await caller.next("session:finalized");
      assert.equal(sessionId, `${room}-disconnected`);
      for (const [person, partner] of [[caller, callee], [callee, caller]]) {
        const entry = await onlyEntry(person, partner);
        assert.equal(entry.sessionId, sessionId);
        assert.deepEqual(entry.messages.map(({ from }) => from), [caller.id, "system"]);
        // After a kill the last mark of life may be some seconds old, but no older than what was said.
        within(entry.duration, how === "SIGTERM" ? Math.floor(ran) - 1 : 0, Math.ceil(ran), "duration without the outage");
      }
      await callee.connect();
      assert.equal((await callee.next("session:finalized")).sessionId, sessionId, "who comes too late is told");
      await joinQueue(caller, callee);
      await onlyEntry(caller, callee);
    });

    alone(`${how}: when nobody comes back the call ends without the outage`, { "resume-seconds": SHORT_GRACE_S }, async (cast, server) => {
      const { caller, callee, room, startedAt } = await lastingCall(cast);
      await lasting(startedAt, 6_000);
      await end(server, how);
      const ran = (Date.now() - startedAt) / 1000;
      for (const person of [caller, callee]) person.leave();
      await pause(1_000);
      await server.launch();
      const entry = await eventually("the call is in the history", async () => (await caller.get("/room/history")).history[0]);
      assert.equal(entry.sessionId, `${room}-disconnected`);
      within(entry.duration, 5, Math.ceil(ran), "duration without the outage");
      await Promise.all([caller.connect(), callee.connect()]);
      await joinQueue(caller, callee);
      await Promise.all([onlyEntry(caller, callee), onlyEntry(callee, caller)]);
    });
  }

  alone("SIGTERM resolves waiting invites, without a cooldown", {}, async (cast, server) => {
    const [caller, callee] = [await returning(cast), await returning(cast)];
    await joinQueue(caller, callee);
    const inviteId = await ring(caller, callee);
    await end(server, "SIGTERM");
    assert.deepEqual(await caller.next("call:declined"), { inviteId, reason: "offline" });
    assert.deepEqual(await callee.next("call:rescinded"), { inviteId });
    await server.launch();
    await Promise.all([caller.bound(), callee.bound()]);
    await joinQueue(caller, callee);
    assert.equal((await card(caller, callee)).hasCooldown, false);
  });

  alone("SIGTERM closes by the transport, so that every client comes back by itself", {}, async (cast, server) => {
    const people = await Promise.all(["socket.io", "polling", "polling+websocket"].map(async (transport) => {
      const { account } = await cast.guest();
      return cast.connection(account, transport).connect({ reconnection: true });
    }));
    await restart(server, "SIGTERM");
    const reasons = await Promise.all(people.map((person) => person.ended()));
    assert.ok(reasons.every(({ reason }) => /^transport/.test(reason)), JSON.stringify(reasons));
    await Promise.all(people.map((person) => person.bound()));
  });
});

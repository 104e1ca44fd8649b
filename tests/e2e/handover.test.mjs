// Two duets on one Postgres: a call passes from the one that ends to the one that goes on, once (issue 7).
//
// As on a rolling deploy: the new one serves before the old one is told to stop. A door between clients and servers leads new
// connections to the one or the other, as a proxy in front would.

import assert from "node:assert/strict";
import net from "node:net";
import { before, describe, it } from "node:test";
import { Cast, card, hangUp, joinQueue, lasting, ring, say, within } from "./cast.mjs";
import { Postgres } from "./postgres.mjs";
import { Proxy } from "./proxy.mjs";
import { Server, eventually, freshDatabase, pause, sql } from "./server.mjs";

/** Longer than what happens in a call takes to be kept (CALL_KEEP_MS), and the commit. */
const KEPT_MS = 600;
/** Looks in which an owner must be missed, together (OWNER_MISSED_LOOKS), and what a busy machine adds. */
const MISSED_MS = 6_000;
const TAKEN_MS = 20_000;

/** What clients connect to; `lead` says which server that is from now on. */
class Door {
  static async open(server) {
    const door = new Door();
    door.server = server;
    door.sockets = new Set();
    door.listener = net.createServer((client) => door.pass(client));
    await new Promise((resolve) => door.listener.listen(0, "127.0.0.1", resolve));
    door.url = `http://127.0.0.1:${door.listener.address().port}`;
    return door;
  }

  /** The cast takes the door for the server. */
  alive = true;

  pass(client) {
    const server = net.connect(this.server.port, "127.0.0.1");
    for (const [from, to] of [[client, server], [server, client]]) {
      this.sockets.add(from);
      from.on("error", () => {});
      from.on("close", () => {
        this.sockets.delete(from);
        to.destroy();
      });
      from.pipe(to);
    }
  }

  lead(server) {
    this.server = server;
  }

  tail() {
    return this.server.tail();
  }

  close() {
    this.sockets.forEach((socket) => socket.destroy());
    this.listener.close();
  }
}

/** Somebody whose client comes back by itself, as the frontend's does. */
async function returning(cast) {
  const person = await cast.guest();
  return person.connect({ reconnection: true });
}

/** Two whose clients come back, in a call and in the room: `{caller, callee, room, startedAt}`. */
async function call(cast) {
  const [caller, callee] = [await returning(cast), await returning(cast)];
  await joinQueue(caller, callee);
  callee.emit("call:accept", { inviteId: await ring(caller, callee), requestedSeconds: 300 });
  const [start] = await Promise.all([caller.next("call:start"), callee.next("call:start")]);
  const startedAt = Date.now();
  for (const person of [caller, callee]) {
    person.emit("room:join", { roomId: start.roomId });
    await person.settle();
  }
  return { caller, callee, room: start.roomId, startedAt };
}

/** Each has the call once, and all that was said. */
async function haveOnce({ caller, callee, room }, session, texts) {
  for (const [person, partner] of [[caller, callee], [callee, caller]]) {
    const { history } = await person.get("/room/history");
    assert.equal(history.length, 1, JSON.stringify(history));
    assert.deepEqual([history[0].partnerId, history[0].roomId, history[0].sessionId], [partner.id, room, session]);
    assert.deepEqual(history[0].messages.map(({ text }) => text), texts);
    assert.equal((await person.get("/user/me")).sessionCount, 1);
  }
}

async function hangUpOnce(scene, texts) {
  await lasting(scene.startedAt);
  await haveOnce(scene, await hangUp(scene.caller, scene.callee, scene.room), texts);
}

const took = (server) => server.lines().filter((line) => /going on with the calls of another process/.test(line)).length;

describe("two processes on one Postgres", { concurrency: 4 }, () => {
  const postgres = new Postgres();
  before(() => postgres.start());

  /** A test with the old server, a door that leads to it, and a way to start the new one. */
  function overlap(name, body, flags = {}) {
    it(name, { timeout: 180_000 }, async () => {
      const database = freshDatabase(postgres.url);
      const servers = [];
      const start = async () => {
        servers.push(await Server.start(flags, { database }));
        return servers.at(-1);
      };
      const old = await start();
      const door = await Door.open(old);
      try {
        await Cast.play(door, "socket.io", (cast) => body({ cast, door, old, start }));
      } catch (error) {
        servers.forEach((server, index) => (error.message += `\n--- server ${index}\n${server.tail(30)}`));
        throw error;
      } finally {
        door.close();
        await Promise.all(servers.map((server) => server.kill()));
      }
    });
  }

  for (const how of ["SIGTERM", "SIGKILL"]) {
    overlap(`${how} to the old while the new serves: calls go on there with all that was said`, async ({ cast, door, old, start }) => {
      const first = await call(cast);
      await say(first.caller, first.callee, first.room, "before the new one");
      const fresh = await start();
      // One that begins while both run, which the new one cannot have read at its start.
      const second = await call(cast);
      for (const { caller, callee, room } of [first, second]) await say(callee, caller, room, "while both run");
      await pause(KEPT_MS);
      assert.equal(took(fresh), 0, "what lives is left alone");

      door.lead(fresh);
      const { code, signal } = await old.stop(how);
      assert.deepEqual([code, signal], how === "SIGTERM" ? [0, null] : [null, "SIGKILL"], old.tail());
      for (const { caller, callee, room } of [first, second]) {
        await Promise.all([caller.bound(), callee.bound()]);
        caller.emit("rtc:offer", { roomId: room, offer: { sdp: "again" } });
        assert.equal((await callee.next("rtc:offer")).from, caller.id);
        await say(caller, callee, room, "with the new one");
      }
      const stranger = await cast.online();
      assert.equal(await card(stranger, first.caller), undefined, "who is in a call is not in the queue");
      await hangUpOnce(first, ["before the new one", "while both run", "with the new one"]);
      await hangUpOnce(second, ["while both run", "with the new one"]);
      for (const person of [first, second].flatMap(({ caller, callee }) => [caller, callee])) {
        assert.deepEqual([person.all("call:start").length, person.all("peer:disconnected").length, person.all("error").length], [1, 0, 0]);
      }
    });
  }

  overlap("who comes to the new one before his call does is kept waiting, and is in it then", async ({ cast, door, old, start }) => {
    const scene = await call(cast);
    await say(scene.caller, scene.callee, scene.room, "before");
    const fresh = await start();
    door.lead(fresh);
    const answers = scene.callee.all("auth:success").length;
    scene.callee.drop();
    await scene.callee.ended();
    await eventually("he is back, at the new one", () => scene.callee.wire.socket.io.engine?.readyState === "open");
    await pause(1_000);
    assert.equal(scene.callee.all("auth:success").length, answers, "the old one still has his call");
    await old.stop("SIGTERM");
    await Promise.all([scene.caller.bound(), scene.callee.bound()]);
    await say(scene.callee, scene.caller, scene.room, "after");
    await hangUpOnce(scene, ["before", "after"]);
  });

  overlap("three rolling deploys in a row take one call along", async ({ cast, door, old, start }) => {
    const scene = await call(cast);
    const texts = [];
    let current = old;
    for (const text of ["one", "two", "three"]) {
      await say(scene.caller, scene.callee, scene.room, text);
      texts.push(text);
      const next = await start();
      door.lead(next);
      await current.stop("SIGTERM");
      await Promise.all([scene.caller.bound(), scene.callee.bound()]);
      current = next;
    }
    await hangUpOnce(scene, texts);
  });

  overlap("a participant who does not come along is a lost partner", async ({ cast, door, old, start }) => {
    const scene = await call(cast);
    await lasting(scene.startedAt, 6_000);
    const fresh = await start();
    door.lead(fresh);
    const stopped = old.stop("SIGTERM");
    await scene.callee.ended();
    scene.callee.leave();
    const ran = (Date.now() - scene.startedAt) / 1000;
    await stopped;
    await scene.caller.bound();
    await scene.caller.next("peer:disconnected");
    const { sessionId } = await scene.caller.next("session:finalized");
    assert.equal(sessionId, `${scene.room}-disconnected`);
    const { history } = await scene.caller.get("/room/history");
    assert.equal(history.length, 1);
    within(history[0].duration, 5, Math.ceil(ran) + 3, "duration without the wait");
  }, { "resume-seconds": 8 });

  it("an owner whose own connections are cut for long loses its calls, and its late ends change nothing", { timeout: 180_000 }, async () => {
    const proxy = await Proxy.start(postgres.url);
    const database = freshDatabase(postgres.url);
    const old = await Server.start({}, { database: proxy.through(database) });
    const door = await Door.open(old);
    let fresh;
    try {
      await Cast.play(door, "socket.io", async (cast) => {
        const scene = await call(cast);
        const lost = await call(cast);
        for (const { caller, callee, room } of [scene, lost]) await say(caller, callee, room, "before");
        fresh = await Server.start({}, { database });
        // A call that nobody comes back to ends when it was last known to be alive.
        await lasting(lost.startedAt, 7_000);
        await proxy.begin("refuse");
        // Shorter than that it is waited for.
        await pause(MISSED_MS / 3);
        assert.equal(took(fresh), 0);
        door.lead(fresh);
        for (const person of [scene.caller, scene.callee]) person.drop();
        await Promise.all([scene.caller.bound(), scene.callee.bound()]);
        await eventually("the calls are taken over", () => took(fresh) === 1, TAKEN_MS);
        await say(scene.caller, scene.callee, scene.room, "after");
        // The old one ends the call of those who left it, and this one is hung up there: both too late.
        lost.caller.emit("call:end", { roomId: lost.room });
        await proxy.mend();
        await eventually("the old one has been told", () => old.lines().filter((line) => /left to that one/.test(line)).length >= 2, TAKEN_MS);
        await say(scene.callee, scene.caller, scene.room, "at the end");
        await hangUpOnce(scene, ["before", "after", "at the end"]);
        assert.equal(sql(`SELECT count(*) FROM chat_history WHERE room_id = '${scene.room}'`, database), "2");
        // Nobody came back into the other, so that the new one ends it.
        await eventually("the other call is stored", () => sql(`SELECT count(*) FROM chat_history WHERE room_id = '${lost.room}'`, database) === "2", 60_000);
        assert.equal(sql("SELECT count(*) FROM running_calls", database), "0");
      });
    } catch (error) {
      [old, fresh].forEach((server) => (error.message += `\n---\n${server?.tail(30)}`));
      throw error;
    } finally {
      door.close();
      await Promise.all([old, fresh].map((server) => server?.kill()));
      await proxy.close();
    }
  });
});

describe("two processes on a Postgres that is killed", () => {
  const postgres = new Postgres();
  before(() => postgres.start());

  it("each has its calls afterwards", { timeout: 120_000 }, async () => {
    const database = freshDatabase(postgres.url);
    const servers = [await Server.start({}, { database }), await Server.start({}, { database })];
    try {
      await Promise.all(servers.map((server) => Cast.play(server, "socket.io", async (cast) => {
        const scene = await call(cast);
        await say(scene.caller, scene.callee, scene.room, "before");
        await pause(KEPT_MS);
        if (server === servers[0]) {
          await postgres.kill();
          await postgres.start();
        }
        await eventually("the database is back", () => server.lines().some((line) => /the database is back/.test(line)), TAKEN_MS);
        await pause(MISSED_MS + 2_000);
        await say(scene.callee, scene.caller, scene.room, "after");
        await hangUpOnce(scene, ["before", "after"]);
      })));
      for (const server of servers) assert.equal(took(server), 0, "nobody was robbed");
    } finally {
      await Promise.all(servers.map((server) => server.kill()));
      await postgres.mend();
    }
  });
});

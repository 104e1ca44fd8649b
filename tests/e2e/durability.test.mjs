// What was acknowledged survives: kill -9, restart, orderly stop, and starts that must fail (idiom 5, D11, D24).

import assert from "node:assert/strict";
import { chmodSync, writeFileSync } from "node:fs";
import net from "node:net";
import { join } from "node:path";
import { describe, it } from "node:test";
import { Cast, card, cooldownOf, enterRoom, hangUp, joinQueue, lasting, ring, say, within } from "./cast.mjs";
import { freshAddress, request } from "./client.mjs";
import { Server, eventually, freePort, run, temporaryFolder } from "./server.mjs";

const PASSWORD = "correct horse";
const STOP_MS_MAX = 10_000;

/** A test on a server of its own, which it may stop, kill and start again. */
function alone(name, body) {
  it(name, { timeout: 120_000 }, async () => {
    const server = await Server.start();
    server.mayEnd = true;
    try {
      await Cast.play(server, "mixed", (cast) => body(cast, server));
    } finally {
      await server.kill();
    }
  });
}

async function killAndRestart(server) {
  assert.equal((await server.kill()).signal, "SIGKILL");
  await server.launch();
}

async function linked(person) {
  const email = `${person.id}@example.org`;
  const { status, text } = await person.http("POST", "/auth/link", { body: { sessionToken: person.token, email, password: PASSWORD } });
  assert.equal(status, 200, text);
  return email;
}

describe("durability", { concurrency: 4 }, () => {
  alone("kill -9 during a call: all that was acknowledged is there after a restart", async (cast, server) => {
    const { caller, callee, room, startedAt } = await cast.call();
    await say(caller, callee, room, "remember me");
    const email = await linked(caller);
    assert.equal((await callee.http("PUT", "/user/me", { body: { socials: { discord: "bo" } } })).status, 200);
    const [suitor, target] = await cast.queued();
    target.emit("call:decline", { inviteId: await ring(suitor, target) });
    await suitor.next("call:declined");
    await eventually("the cooldown shows", async () => (await card(suitor, target))?.hasCooldown);
    await lasting(startedAt);
    const session = await hangUp(caller, callee, room);
    const [one, two] = await cast.queued();
    const inviteId = await ring(one, two);
    two.emit("call:accept", { inviteId, requestedSeconds: 300 });
    const { room: running, startedAt: runningSince } = await enterRoom(one, two);

    await killAndRestart(server);

    for (const [person, partner] of [[caller, callee], [callee, caller]]) {
      const { history } = await person.get("/room/history");
      const [entry] = history;
      assert.deepEqual([history.length, entry.sessionId, entry.roomId, entry.partnerId, entry.partnerName], [1, session, room, partner.id, partner.name]);
      assert.deepEqual(entry.messages.map(({ from, text }) => [from, text]), [[caller.id, "remember me"]]);
      const me = await person.get("/user/me");
      assert.equal(me.sessionCount, 1);
      within(me.timerTotalSeconds, 5, 60, "timerTotalSeconds");
    }
    assert.deepEqual((await callee.get("/user/me")).socials, { discord: "bo" });
    const login = await request(server.url, "POST", "/auth/login", { body: { email, password: PASSWORD }, address: freshAddress() });
    assert.deepEqual([login.status, login.body.userId], [200, caller.id]);
    assert.equal((await caller.http("GET", "/user/me")).body.error, "Session invalidated");

    await Promise.all([suitor, target, one, two].map((person) => person.connect()));
    for (const person of [one, two]) {
      // Whose joining was not kept any more is told of the start again.
      person.events.splice(0);
      person.emit("room:join", { roomId: running });
    }
    await say(one, two, running, "where were we");
    await lasting(runningSince);
    const resumed = await hangUp(one, two, running);
    assert.deepEqual((await one.get("/room/history")).history.map(({ sessionId }) => sessionId), [resumed]);
    await joinQueue(suitor, target, one, two);
    cooldownOf(await card(suitor, target), 24);
    const again = await ring(one, suitor);
    suitor.emit("call:accept", { inviteId: again, requestedSeconds: 300 });
    await enterRoom(one, suitor);
  });

  alone("kill -9 at the moment of the acknowledgement: sign-up, link, login, socials, history", async (cast, server) => {
    const ada = await cast.guest();
    await killAndRestart(server);
    await ada.get("/user/me");

    const email = await linked(ada);
    await killAndRestart(server);
    const login = await ada.http("POST", "/auth/login", { body: { email, password: PASSWORD } });
    assert.equal(login.status, 200, login.text);
    await killAndRestart(server);
    assert.equal((await ada.http("GET", "/user/me")).body.error, "Session invalidated", "an ended session stays ended");
    ada.account.token = login.body.sessionToken;
    assert.equal((await ada.get("/user/me")).email, email);

    assert.equal((await ada.http("PUT", "/user/me", { body: { socials: { tiktok: "ada" } } })).status, 200);
    await killAndRestart(server);
    assert.deepEqual((await ada.get("/user/me")).socials, { tiktok: "ada" });

    const { caller, callee, room, startedAt } = await cast.call();
    await lasting(startedAt);
    caller.emit("call:end", { roomId: room });
    const { sessionId } = await Promise.any([caller, callee].map((person) => person.next("session:finalized")));
    await killAndRestart(server);
    for (const person of [caller, callee]) {
      assert.deepEqual((await person.get("/room/history")).history.map((entry) => entry.sessionId), [sessionId]);
    }
  });

  alone("the official client finds its way back after a crash", async (cast, server) => {
    const ada = cast.connection((await cast.guest()).account, "socket.io");
    await ada.connect({ reconnection: true });
    await killAndRestart(server);
    await ada.bound();
    const bo = await cast.online();
    await joinQueue(ada, bo);
  });

  for (const signal of ["SIGTERM", "SIGINT"]) {
    alone(`${signal} during a call ends the process in order, with status 0`, async (cast, server) => {
      const { caller, callee, room, startedAt } = await cast.call();
      await say(caller, callee, room, "soon over");
      await lasting(startedAt);
      const end = await server.stop(signal);
      assert.deepEqual([end.code, end.signal], [0, null], server.tail());
      within(end.ms, 0, STOP_MS_MAX, "ms to stop");
      await Promise.all([caller.ended(), callee.ended()]);
      await server.launch();
      await Promise.all([caller.connect(), callee.connect()]);
      await say(callee, caller, room, "not over at all");
      const session = await hangUp(caller, callee, room);
      for (const person of [caller, callee]) {
        const { history } = await person.get("/room/history");
        const found = history.map(({ sessionId, messages }) => [sessionId, messages.map(({ text }) => text)]);
        assert.deepEqual(found, [[session, ["soon over", "not over at all"]]], "both histories agree");
      }
    });
  }

  alone("SIGTERM with keep-alive, half a request and an idle socket open still ends in time", async (cast, server) => {
    await cast.online();
    const sockets = [net.connect(server.port, "127.0.0.1"), net.connect(server.port, "127.0.0.1")];
    sockets.forEach((socket) => socket.on("error", () => {}));
    sockets[0].write("POST /auth/guest HTTP/1.1\r\nHost: duet\r\nContent-Length: 100\r\n\r\n{");
    await request(server.url, "GET", "/health");
    const end = await server.stop();
    assert.equal(end.code, 0, server.tail());
    within(end.ms, 0, STOP_MS_MAX, "ms to stop");
    sockets.forEach((socket) => socket.destroy());
  });
});

describe("a start that cannot work", { concurrency: 4 }, () => {
  /** The start fails, soon, with exactly one line on stderr. */
  async function fails(args, about) {
    const { code, stdout, stderr } = await run(args);
    const lines = stderr.split("\n").filter((text) => text.trim() !== "");
    assert.ok(code !== null && code !== 0, `exit code ${code}; stdout: ${stdout}`);
    assert.equal(lines.length, 1, `one line on stderr, not:\n${stderr}`);
    assert.match(lines[0], about);
    assert.doesNotMatch(stderr, /panicked|RUST_BACKTRACE/);
  }
  const args = async (flags = {}) =>
    Object.entries({ host: "127.0.0.1", port: await freePort(), data: join(temporaryFolder(), "data"), shards: 2, ...flags }).flatMap(([name, value]) => [`--${name}`, String(value)]);

  it("a port that another program holds", async (t) => {
    const other = net.createServer();
    await new Promise((resolve) => other.listen(0, "127.0.0.1", resolve));
    t.after(() => other.close());
    const { port } = other.address();
    await fails(await args({ port }), new RegExp(String(port)));
  });

  it("a port that another duet holds", async (t) => {
    const server = await Server.start();
    t.after(() => server.kill());
    await fails(await args({ port: server.port }), new RegExp(String(server.port)));
  });

  it("a data folder that another duet uses", async (t) => {
    const server = await Server.start({}, { database: null });
    t.after(() => server.kill());
    await fails(await args({ data: server.flags.data }), /data|use|lock/i);
  });

  it("a data folder that cannot be made", async () => {
    const file = join(temporaryFolder(), "file");
    writeFileSync(file, "not a folder");
    chmodSync(file, 0o600);
    await fails(await args({ data: join(file, "data") }), /data/i);
  });

  it("a flag that does not exist", () => fails(["--no-such-flag"], /no-such-flag/));

  for (const [flag, value] of [["port", "70000"], ["port", "http"], ["shards", "0"], ["shards", "many"], ["runtime", "threads"], ["host", "not an address"], ["trusted-proxies", "10.0.0.0/99"], ["paywall", "maybe"]]) {
    it(`--${flag} ${value}`, async () => fails([...(await args({ port: 0 })), `--${flag}`, value].filter(unlessRepeated(flag)), new RegExp(flag.split("-")[0], "i")));
  }

  /** Drops the first `--flag value`, so that a flag under test is given once. */
  function unlessRepeated(flag) {
    return (word, index, words) => {
      const first = words.indexOf(`--${flag}`);
      const repeated = words.lastIndexOf(`--${flag}`) !== first;
      return !(repeated && (index === first || index === first + 1));
    };
  }
});

// Who is let in, and how much he may say: limits that are exact over all shards, told before they are met, and counted.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Cast, say } from "./cast.mjs";
import { freshAddress, request } from "./client.mjs";
import { LeanSocket, guests } from "./lean.mjs";
import { Scrape } from "./metrics.mjs";
import { RawSocket } from "./raw.mjs";
import { Server, eventually } from "./server.mjs";

const TIMEOUT = { timeout: 60_000 };
const GUEST = { name: "Ada", gender: "female" };
const UPGRADE = "GET /ws HTTP/1.1\r\nHost: duet\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
const HEALTH = "GET /health HTTP/1.1\r\nHost: duet\r\n\r\n";

/** Runs `body` with a server on which nobody is connected, and which ends with it. */
const serving = (flags, body) => Server.during(flags, async (server) => {
  await empty(server);
  await body(server);
});

const admitted = async (server) => (await Scrape.of(server)).get("duet_connections_admitted");
const empty = (server) => eventually("nobody is connected", async () => (await admitted(server)) === 0);
const told = (server, text) => server.lines().filter((line) => line.includes(text)).length;

/** So many connections at once that say `bytes`; gives each with its answer, when it had that, and in that order. */
async function crowd(server, count, bytes, { from } = {}) {
  const begun = performance.now();
  const one = async () => {
    const raw = await RawSocket.connect(server, from);
    const [answer] = await raw.write(bytes).answers(1, { ms: 20_000 });
    return { raw, answer, at: performance.now() - begun };
  };
  return (await Promise.all(Array.from({ length: count }, one))).sort((a, b) => a.at - b.at);
}

const leave = (people) => people.forEach(({ raw }) => raw.close());

function count(values) {
  const counts = {};
  for (const value of values) counts[value] = (counts[value] ?? 0) + 1;
  return counts;
}

describe("admission", { concurrency: 2 }, () => {
  it("of twice as many as may be, on 4 shards at once, exactly the limit is served, and all others are told", TIMEOUT, () => serving({ shards: 4, "connections-max": 200 }, async (server) => {
    const before = await Scrape.of(server);
    const everybody = await crowd(server, 400, UPGRADE);
    assert.deepEqual(count(everybody.map(({ answer }) => answer?.status)), { 101: 200, 503: 200 });
    for (const { answer, raw } of everybody.filter(({ answer }) => answer.status === 503)) {
      assert.deepEqual([answer.headers["retry-after"], JSON.parse(answer.body)], ["5", { error: "Server is at capacity" }]);
      assert.ok(await raw.closes());
    }
    const after = await Scrape.of(server);
    assert.equal(after.get("duet_connections_admitted"), 200);
    assert.deepEqual(after.since(before, ['duet_connections_refused_total{reason="full"}']), { 'duet_connections_refused_total{reason="full"}': 200 });
    for (let shard = 0; shard < 4; shard++) assert.ok(after.samples.get(`duet_connections_opened_total{shard="${shard}",kind="socket"}`) > 0);
    leave(everybody);
    await empty(server);
  }));

  it("that few places are left is told once each time, and that none is", TIMEOUT, () => serving({ "connections-max": 50 }, async (server) => {
    const [crowded, full, eased] = ["80 % of --connections-max are open", "--connections-max are open: new connections are answered 503", "no more than 70 %"];
    const first = await crowd(server, 39, UPGRADE);
    assert.deepEqual([crowded, full, eased].map((text) => told(server, text)), [0, 0, 0]);
    const more = await crowd(server, 20, UPGRADE);
    assert.equal(more.filter(({ answer }) => answer.status === 503).length, 9);
    await eventually("it is told", () => told(server, full) > 0);
    assert.deepEqual([crowded, full, eased].map((text) => told(server, text)), [1, 1, 0]);
    leave(first);
    leave(more);
    await empty(server);
    leave(await crowd(server, 60, UPGRADE));
    await empty(server);
    await eventually("it is told again", () => told(server, eased) === 2);
    assert.deepEqual([crowded, full, eased].map((text) => told(server, text)), [2, 2, 2]);
  }));

  it("limits of an address are exact on 4 shards, however many ask at once", TIMEOUT, () => serving({ shards: 4, "signups-per-hour": 10, "api-per-minute": 20, "auth-failures": 5, "hash-memory-kib": 64 }, async (server) => {
    const [address, agent] = [freshAddress(), false];
    const at = (path, options) => request(server.url, options.body ? "POST" : "GET", path, { address, agent, ...options });
    const statuses = async (times, ask) => count((await Promise.all(Array.from({ length: times }, ask))).map(({ status }) => status));
    assert.deepEqual(await statuses(40, () => at("/auth/guest", { body: GUEST })), { 200: 10, 429: 30 });
    const token = (await request(server.url, "POST", "/auth/guest", { body: GUEST, address: freshAddress() })).body.sessionToken;
    assert.deepEqual(await statuses(60, () => at("/user/me", { token })), { 200: 20, 429: 40 });
    const guess = { body: { email: "ada@example.org", password: "a wrong guess" } };
    assert.deepEqual(await statuses(40, () => at("/auth/login", guess)), { 401: 5, 429: 35 });
    const limited = ["sign_up", "api", "login_failure"].map((name) => `duet_rate_limited_total{limit="${name}"}`);
    const scrape = await Scrape.of(server);
    assert.deepEqual(limited.map((name) => scrape.get(name)), [30, 40, 35]);
  }));

  it("a storm is let in at the rate that is set, nobody is refused, and who is there already is served", TIMEOUT, () => serving({ "accept-rate": 40, "event-rate": 0 }, async (server) => {
    const [person] = await guests(server.url, 1);
    const there = await (await LeanSocket.open(server.port)).bind(person.token);
    let [isOver, rounds, slowest] = [false, 0, 0];
    const living = (async () => {
      while (!isOver) {
        const from = performance.now();
        await there.settle(person.token);
        [rounds, slowest] = [rounds + 1, Math.max(slowest, performance.now() - from)];
      }
    })();
    const everybody = await crowd(server, 240, HEALTH);
    isOver = true;
    await living;
    assert.deepEqual(count(everybody.map(({ answer }) => answer?.status)), { 200: 240 });
    const times = everybody.map(({ at }) => at);
    // A second's worth at once, and then as many a second; the clocks of both sides differ a little.
    for (let first = 0; first + 90 < times.length; first++) assert.ok(times[first + 90] - times[first] > 900, `${first}: ${times[first]} to ${times[first + 90]}`);
    assert.ok(times.at(-1) > 4_500, `the last after ${times.at(-1)} ms`);
    assert.ok(rounds > 100 && slowest < 1_000, `${rounds} rounds, the slowest ${slowest} ms`);
    assert.ok((await Scrape.of(server)).get("duet_accept_pauses_total") > 0);
    leave(everybody);
    there.destroy();
  }));

  it("without that being set, five hundred at once wait for nobody", TIMEOUT, () => serving({}, async (server) => {
    const everybody = await crowd(server, 500, HEALTH);
    assert.deepEqual(count(everybody.map(({ answer }) => answer?.status)), { 200: 500 });
    assert.equal((await Scrape.of(server)).get("duet_accept_pauses_total"), 0);
    leave(everybody);
  }));

  for (const transport of ["socket.io", "/ws"]) {
    it(`who floods the chat is refused, heard in all else, and closed when he goes on (${transport})`, TIMEOUT, () => serving({ "chat-rate": 1, "chat-burst": 20 }, (server) =>
      Cast.play(server, transport, async (cast) => {
        const { caller, callee, room } = await cast.call();
        const before = await Scrape.of(server);
        const flood = (times) => Array.from({ length: times }, (_, i) => caller.emit("room:chat", { roomId: room, text: `${i}` }));
        flood(60);
        await caller.settle();
        const refused = caller.all("error").length;
        assert.ok(refused >= 35 && refused <= 40, `${refused} were refused`);
        assert.equal(caller.all("error")[0].message, "Too many events");
        await eventually("the others came", () => callee.all("room:chat").length === 60 - refused);
        caller.emit("rtc:offer", { roomId: room, offer: { sdp: "v=0" } });
        await callee.next("rtc:offer");
        await say(callee, caller, room, "I may");
        flood(200);
        const { reason, code } = await caller.ended();
        assert.ok(reason === "io server disconnect" || code === 1008, `${reason} ${code}`);
        await callee.next("session:finalized");
        const counted = 'duet_events_over_budget_total{class="chat"}';
        assert.deepEqual((await Scrape.of(server)).since(before, [counted]), { [counted]: 200 });
      })));
  }

  it("an address without a proxy has its limit, exactly, on 4 shards, and gets it back", TIMEOUT, () => serving({ shards: 4, "trusted-proxies": false, "address-connections-max": 50 }, async (server) => {
    const [crowded, others] = await Promise.all(["127.0.0.2", "127.0.0.3"].map((from) => crowd(server, from === "127.0.0.2" ? 100 : 50, UPGRADE, { from })));
    assert.deepEqual(count(crowded.map(({ answer }) => answer?.status)), { 101: 50, 429: 50 });
    assert.deepEqual(count(others.map(({ answer }) => answer?.status)), { 101: 50 });
    const { answer } = crowded.find(({ answer }) => answer.status === 429);
    assert.deepEqual([answer.headers["retry-after"], JSON.parse(answer.body)], ["5", { error: "Too many connections from this address" }]);
    assert.equal((await Scrape.of(server)).get('duet_connections_refused_total{reason="address"}'), 50);
    assert.equal(told(server, "an address has all connections"), 1);
    leave(crowded);
    await eventually("the others are left", async () => (await admitted(server)) === 50);
    const again = await crowd(server, 60, UPGRADE, { from: "127.0.0.2" });
    assert.deepEqual(count(again.map(({ answer }) => answer?.status)), { 101: 50, 429: 10 });
    leave([...again, ...others]);
    await empty(server);
  }));

  for (const transport of ["socket.io", "/ws", "polling", "polling+websocket"]) {
    it(`behind a trusted proxy it is the client's address that has a limit (${transport})`, TIMEOUT, () => serving({ shards: 4, "address-connections-max": 3 }, (server) =>
      Cast.play(server, transport, async (cast) => {
        const office = freshAddress();
        const people = [];
        for (let i = 0; i < 6; i++) {
          const { account } = await cast.guest();
          people.push(cast.connection({ ...account, address: office }));
        }
        const came = await Promise.all(people.map(async (person) => {
          const opened = await person.open().then(() => true, (error) => /Too many connections|429/.test(error.message) || Promise.reject(error));
          const heard = opened && (await Promise.race([person.next("auth:success").then(() => "in"), person.closed.then(() => "closed"), new Promise((resolve) => setTimeout(resolve, 1_500, "refused"))]));
          return heard === "in";
        }));
        assert.equal(came.filter(Boolean).length, 3, `${came}`);
        await (await cast.online()).settle();
        const [first] = people.filter((_, index) => came[index]);
        first.leave();
        await eventually("there is room for one more", async () => {
          const late = cast.connection({ ...people[came.indexOf(false)].account });
          await late.open().catch(() => {});
          return Promise.race([late.next("auth:success").then(() => true), new Promise((resolve) => setTimeout(resolve, 500, false))]);
        });
      })));
  }

  it("who is nobody may not ask who he is without end", TIMEOUT, () => serving({ "event-rate": 1, "event-burst": 10 }, async (server) => {
    const socket = await LeanSocket.open(server.port);
    const answers = [];
    socket.hear = (name) => answers.push(name);
    const over = new Promise((resolve) => (socket.onClosed = resolve));
    for (let i = 0; i < 400; i++) socket.emit("auth", { sessionToken: "nobody's" });
    assert.equal((await over).code, 1008);
    const { "auth:failed": failed, error } = count(answers);
    assert.ok(failed >= 10 && failed <= 12 && error === 200, `${failed} answers, ${error} refusals`);
  }));
});

// Prometheus metrics: numbers that move exactly as events do, in a form that its own tool passes, and nobody's name in them.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import net from "node:net";
import { join } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { freshAddress, request } from "./client.mjs";
import { LeanSocket, callBetween, guests } from "./lean.mjs";
import { Scrape, metricsUrl } from "./metrics.mjs";
import { Postgres } from "./postgres.mjs";
import { Proxy } from "./proxy.mjs";
import { RawSocket } from "./raw.mjs";
import { Server, eventually, freePort, freshDatabase, run, temporaryFolder } from "./server.mjs";

const TIMEOUT = { timeout: 60_000 };
const HELD_MAX = 256;
/** Prometheus gives up after 10 s by default. */
const SCRAPE_MS_MAX = 5_000;
const PAIRS = 8;
const ROUNDS = 40;
const SIGNALS = 10;
const SYSTEMD = fileURLToPath(new URL("../../systemd", import.meta.url));
const NAMED = /\b(?:duet|process)_[a-z_]+/g;
const ONLY_WITH_A_JOURNAL = ["duet_journal_waiting_writes", "duet_journal_refused_writes"];
/** Time to connect to the database, and of a request to it, ms. */
const IMPATIENT = { "database-timeout": 1_000, "database-query-timeout": 1_000 };
const GUEST = { name: "Ada", gender: "female" };

/** Fails unless Prometheus' own tool finds no fault, with what it says. */
async function promtool(words, input = "") {
  const running = promisify(execFile)("promtool", words, { cwd: SYSTEMD });
  running.child.stdin.end(input);
  await running;
}

/** Whether the database is there, what waits for it, what it refused, and calls that are not stored yet. */
const standing = (scrape) => ["duet_store_reachable", "duet_journal_waiting_writes", "duet_journal_refused_writes", 'duet_calls{state="finishing"}'].map((name) => scrape.get(name));

/** Two guests with a connection each. */
async function pair(server) {
  const people = await guests(server.url, 2);
  return Promise.all(people.map(async (person) => {
    const socket = await (await LeanSocket.open(server.port)).bind(person.token);
    return { ...person, socket, heard: (name, where) => socket.next(name, where) };
  }));
}

const signal = (person, room, text) => person.socket.emit("rtc:ice", { roomId: room, candidate: { candidate: text } });
const hears = (person, text) => person.heard("rtc:ice", ({ candidate }) => candidate.candidate === text);

/** Fails unless each of these has grown by so much since `before`. */
async function grew(server, before, expected) {
  assert.deepEqual((await Scrape.of(server)).since(before, Object.keys(expected)), expected);
}

describe("metrics", { concurrency: 3 }, () => {
  it("a call from sign-up to its end is counted once, everywhere", TIMEOUT, () => Server.during({}, async (server) => {
    const before = await Scrape.of(server);
    const [caller, callee] = await pair(server);
    const room = await callBetween(caller.socket, callee.socket, callee.id, callee.token);
    await Promise.all([caller, callee].map(({ socket, token }) => socket.settle(token)));
    // What is published is gathered for some milliseconds.
    await eventually("both have left the queue", async () => (await Scrape.of(server)).get("duet_queue_users") === 0);
    const during = await Scrape.of(server);
    assert.deepEqual(['duet_calls{state="running"}', 'duet_connections{transport="websocket"}', "duet_connections_authenticated", "duet_queue_users"].map((name) => during.get(name)), [1, 2, 2, 0]);
    const last = hears(callee, "6");
    for (let i = 0; i < 7; i++) signal(caller, room, String(i));
    await last;
    const [said, echoed] = [caller.heard("room:chat"), callee.heard("room:chat")];
    callee.socket.emit("room:chat", { roomId: room, text: "hello" });
    await Promise.all([said, echoed]);
    const ends = [caller.heard("session:finalized"), callee.heard("session:finalized")];
    caller.socket.emit("call:end", { roomId: room });
    await Promise.all(ends);
    const events = { auth: 5, "queue:join": 1, "call:invite": 1, "call:accept": 1, "room:join": 2, "rtc:ice": 7, "room:chat": 1, "call:end": 1, "presence:join": 0 };
    const told = { "auth:success": 5, "call:notify": 1, "call:start": 2, "rtc:ice": 7, "room:chat": 2, "session:finalized": 2, error: 0 };
    const named = (family, counts) => Object.fromEntries(Object.entries(counts).map(([name, count]) => [`${family}{event="${name}"}`, count]));
    await grew(server, before, {
      ...named("duet_events_received_total", events),
      ...named("duet_events_sent_total", told),
      'duet_relays_total{outcome="delivered"}': 8,
      'duet_relays_total{outcome="held"}': 0,
      'duet_relays_total{outcome="dropped"}': 0,
      duet_invites_made_total: 1,
      'duet_invites_ended_total{outcome="accepted"}': 1,
      duet_calls_started_total: 1,
      'duet_calls_ended_total{reason="hung_up"}': 1,
      'duet_calls_ended_total{reason="disconnected"}': 0,
      duet_call_duration_seconds_count: 1,
      'duet_call_duration_seconds_bucket{le="30"}': 1,
      'duet_calls{state="running"}': 0,
      'duet_calls{state="finishing"}': 0,
      'duet_http_requests_total{route="sign_up",status="2xx"}': 2,
      'duet_store_request_duration_seconds_count{request="sign_up"}': 2,
      'duet_store_request_duration_seconds_count{request="pair"}': 1,
      'duet_store_request_duration_seconds_count{request="finish_call"}': 1,
      'duet_store_errors_total{reason="failed"}': 0,
    });
    // He has his cooldown now: the next invite is refused before it is made.
    const declined = caller.heard("call:declined");
    caller.socket.emit("call:invite", { toUserId: callee.id, requestedSeconds: 300 });
    assert.equal((await declined).reason, "cooldown");
    await grew(server, before, { duet_invites_made_total: 1, 'duet_invites_refused_total{reason="cooldown"}': 1 });
    const { text, headers } = await Scrape.of(server);
    assert.match(headers["content-type"], /^text\/plain; version=0\.0\.4/);
    for (const { id, token } of [caller, callee]) assert.ok(!text.includes(id) && !text.includes(token));
    assert.ok(!text.includes(room) && !/\d+\.\d+\.\d+\.\d+|Guest|hello/.test(text), text);
    await promtool(["check", "metrics"], text);
    await Promise.all([caller, callee].map(({ socket }) => new Promise((resolve) => socket.socket.end(resolve))));
    await eventually("all that was opened is closed or open", async () => {
      const now = await Scrape.of(server);
      const closed = [...now.samples].filter(([name]) => name.startsWith("duet_connections_closed_total"));
      const count = closed.reduce((sum, [, part]) => sum + part, 0);
      const open = now.get("duet_connections");
      return open === 0 && now.get("duet_connections_admitted") === 0 && now.get("duet_connections_opened_total") === count;
    });
  }));

  it("what cannot be delivered is counted as held, and beyond the bound as dropped", TIMEOUT, () => Server.during({}, async (server) => {
    const [caller, callee] = await pair(server);
    callee.socket.emit("queue:join");
    await callee.socket.settle(callee.token);
    const rings = callee.heard("call:notify");
    caller.socket.emit("call:invite", { toUserId: callee.id, requestedSeconds: 300 });
    const { inviteId } = await rings;
    const starts = [caller.heard("call:start"), callee.heard("call:start")];
    callee.socket.emit("call:accept", { inviteId, requestedSeconds: 300 });
    const [{ roomId }] = await Promise.all(starts);
    const before = await Scrape.of(server);
    for (let i = 0; i < HELD_MAX + 10; i++) signal(caller, roomId, String(i));
    await eventually("the last has come", async () => (await Scrape.of(server)).get('duet_relays_total{outcome="dropped"}') === 10);
    await grew(server, before, { 'duet_relays_total{outcome="held"}': HELD_MAX, 'duet_relays_total{outcome="delivered"}': 0 });
    const last = hears(callee, String(HELD_MAX - 1));
    callee.socket.emit("room:join", { roomId });
    await last;
    await grew(server, before, { 'duet_events_sent_total{event="rtc:ice"}': HELD_MAX });
    [caller, callee].forEach(({ socket }) => socket.destroy());
  }));

  it("refusals are counted by what refused", TIMEOUT, () => Server.during({ "connections-max": 4, "signups-per-hour": 2, "event-rate": 1, "event-burst": 7 }, async (server) => {
    await eventually("nobody is connected", async () => (await Scrape.of(server)).get("duet_connections_admitted") === 0);
    const before = await Scrape.of(server);
    const address = freshAddress();
    const agent = false;
    const answers = [];
    for (let i = 0; i < 4; i++) answers.push(await request(server.url, "POST", "/auth/guest", { body: GUEST, address, agent }));
    assert.deepEqual(answers.map(({ status }) => status), [200, 200, 429, 429]);
    const { sessionToken } = answers[0].body;
    assert.equal((await request(server.url, "GET", "/no/such/path", { address, agent })).status, 404);
    await grew(server, before, {
      'duet_rate_limited_total{limit="sign_up"}': 2,
      'duet_http_requests_total{route="sign_up",status="2xx"}': 2,
      'duet_http_requests_total{route="sign_up",status="4xx"}': 2,
      'duet_http_requests_total{route="unmatched",status="4xx"}': 1,
    });
    await eventually("these have gone", async () => (await Scrape.of(server)).get("duet_connections_admitted") === 0);
    const one = await (await LeanSocket.open(server.port)).bind(sessionToken);
    const [refused, malformed] = [[], []];
    one.hear = (name, { message } = {}) => name === "error" && (message === "Too many events" ? refused : malformed).push(message);
    // With the `auth` before, the burst is spent after five more.
    one.emit("call:invite", {});
    for (let i = 0; i < 9; i++) one.emit("queue:leave");
    await eventually("all were refused", () => refused.length === 4 && malformed.length === 1);
    await grew(server, before, {
      'duet_events_over_budget_total{class="other"}': 4,
      'duet_events_over_budget_total{class="chat"}': 0,
      duet_events_malformed_total: 1,
      'duet_events_received_total{event="queue:leave"}': 5,
      'duet_events_sent_total{event="error"}': 5,
    });
    const crowd = [];
    for (let i = 0; i < 3; i++) crowd.push(await RawSocket.connect(server));
    await eventually("all places are taken", async () => (await Scrape.of(server)).get("duet_connections_admitted") === 4);
    const late = await RawSocket.connect(server);
    assert.ok(await late.closes());
    await grew(server, before, { 'duet_connections_refused_total{reason="full"}': 1 });
    crowd.forEach((raw) => raw.socket.destroy());
    one.destroy();
  }));

  it("scrapes during load answer at once, never go down, and miss nothing", TIMEOUT, () => Server.during({ "event-rate": 0 }, async (server) => {
    const pairs = await Promise.all(Array.from({ length: PAIRS }, () => pair(server)));
    const rooms = await Promise.all(pairs.map(([caller, callee]) => callBetween(caller.socket, callee.socket, callee.id, callee.token)));
    await Promise.all(pairs.flat().map(({ socket, token }) => socket.settle(token)));
    const before = await Scrape.of(server);
    let [isOver, scrapes, last, slowest] = [false, 0, before, 0];
    const scraping = (async () => {
      while (!isOver) {
        const from = performance.now();
        const scrape = await Scrape.of(server);
        slowest = Math.max(slowest, performance.now() - from);
        for (const [name, value] of scrape.counters()) assert.ok(value >= (last.samples.get(name) ?? 0), `${name} went down`);
        assert.equal(scrape.get("duet_shard_answered"), last.get("duet_shard_answered"), "every shard answers");
        [scrapes, last] = [scrapes + 1, scrape];
      }
    })();
    for (let round = 0; round < ROUNDS; round++) {
      await Promise.all(pairs.map(async ([caller, callee], index) => {
        const heard = hears(callee, `${round} ${SIGNALS - 1}`);
        for (let i = 0; i < SIGNALS; i++) signal(caller, rooms[index], `${round} ${i}`);
        await heard;
      }));
    }
    isOver = true;
    await scraping;
    assert.ok(scrapes > 3 && slowest < SCRAPE_MS_MAX, `${scrapes} scrapes, the slowest ${slowest} ms`);
    const sent = PAIRS * ROUNDS * SIGNALS;
    await grew(server, before, {
      'duet_relays_total{outcome="delivered"}': sent,
      'duet_events_received_total{event="rtc:ice"}': sent,
      'duet_events_sent_total{event="rtc:ice"}': sent,
    });
    pairs.flat().forEach(({ socket }) => socket.destroy());
  }));

  it("a database that is away, and what waits for it in the journal, are seen as long as that lasts", TIMEOUT, async () => {
    const postgres = new Postgres();
    await postgres.start();
    const database = freshDatabase(postgres.url);
    const proxy = await Proxy.start(database);
    const server = await Server.start(IMPATIENT, { database: proxy.through(database) });
    try {
      const [caller, callee] = await pair(server);
      const roomId = await callBetween(caller.socket, callee.socket, callee.id, callee.token);
      await callee.socket.settle(callee.token);
      assert.deepEqual(standing(await Scrape.of(server)), [1, 0, 0, 0]);
      await proxy.begin("refuse");
      const ends = [caller.heard("session:finalized"), callee.heard("session:finalized")];
      caller.socket.emit("call:end", { roomId });
      await Promise.all(ends);
      const away = await Scrape.of(server);
      assert.deepEqual(standing(away), [0, 1, 0, 0]);
      assert.equal((await request(server.url, "POST", "/auth/guest", { body: GUEST })).status, 503);
      const later = await Scrape.of(server);
      const grown = later.since(away, ['duet_store_errors_total{reason="away"}', 'duet_http_requests_total{route="sign_up",status="5xx"}']);
      assert.deepEqual(Object.values(grown), [1, 1]);
      await proxy.mend();
      await eventually("nothing waits", async () => standing(await Scrape.of(server)).join() === "1,0,0,0");
    } finally {
      await server.kill();
      await proxy.close();
    }
  });

  it("a stranger at their address costs nobody else anything", TIMEOUT, () => Server.during({}, async (server) => {
    const url = metricsUrl(server);
    const port = Number(new URL(url).port);
    const silent = await Promise.all(Array.from({ length: 3 }, () => RawSocket.connect({ port })));
    const noise = await RawSocket.connect({ port });
    noise.write("\u0000\u0001\n\n");
    assert.ok(await noise.closes());
    assert.match(noise.received.toString(), /^HTTP\/1\.1 400 /);
    const endless = await RawSocket.connect({ port });
    endless.write(`GET /metrics HTTP/1.1\r\nX: ${"x".repeat(20_000)}`);
    assert.ok(await endless.closes());
    assert.deepEqual([(await request(url, "GET", "/")).status, (await request(url, "POST", "/metrics")).status], [404, 405]);
    assert.equal((await request(url, "HEAD", "/metrics")).text, "");
    assert.equal((await request(server.url, "GET", "/metrics")).status, 404, "not where clients are");
    await Scrape.of(server);
    silent.forEach((raw) => raw.socket.destroy());
  }));

  it("alert rules fire on what they are for, and rules and dashboard ask for nothing that is not served", TIMEOUT, () => Server.during({}, async (server) => {
    for (const words of [["check", "rules", "duet-alerts.yml"], ["test", "rules", "duet-alerts.test.yml"]]) {
      await promtool(words);
    }
    const rules = readFileSync(join(SYSTEMD, "duet-alerts.yml"), "utf8");
    const dashboard = JSON.parse(readFileSync(join(SYSTEMD, "duet-dashboard.json"), "utf8"));
    const queries = dashboard.panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr));
    const asked = new Set([...rules.matchAll(/expr: (.*)/g), ...queries.map((query) => [, query])].flatMap(([, text]) => text.match(NAMED) ?? []));
    const served = new Set([...(await Scrape.of(server)).samples.keys()].map((name) => name.replace(/\{.*/, "")));
    assert.ok(asked.size > 30);
    assert.deepEqual([...asked].filter((name) => !served.has(name) && !ONLY_WITH_A_JOURNAL.includes(name)), []);
  }));

  it("each instance finds an address of its own; one that was chosen and is taken ends the start with a line", TIMEOUT, async () => {
    const port = await freePort();
    const taken = await new Promise((resolve) => {
      const listener = net.createServer().listen(port + 6463, "127.0.0.1", () => resolve(listener));
    });
    const [one, two, off] = await Promise.all([Server.start({ port }), Server.start({}), Server.start({ metrics: "off" })]);
    try {
      assert.equal(metricsUrl(off), undefined);
      assert.equal(Number(new URL(metricsUrl(two)).port), two.port + 6463);
      assert.notEqual(Number(new URL(metricsUrl(one)).port), port + 6463, "the one that follows was taken");
      for (const server of [one, two]) assert.equal((await Scrape.of(server)).get("duet_store_reachable"), 1);
      const chosen = new URL(metricsUrl(two)).host;
      const flags = ["--port", String(await freePort()), "--host", "127.0.0.1", "--data", temporaryFolder(), "--metrics", chosen];
      const { code, stderr } = await run(flags);
      assert.deepEqual([code, stderr.trim()], [1, `duet: cannot serve metrics on ${chosen}: the port is in use (choose another with --metrics)`]);
    } finally {
      taken.close();
      await Promise.all([one, two, off].map((server) => server.kill()));
    }
  });
});

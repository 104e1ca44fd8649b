// What the caches spare the database while a thousand people look at the queue and some of them call.
//
// Usage: node mix.mjs [--users 1000] [--seconds 60] [--caches 200/300,default] [--store postgres] [--runtime R] [--shards N]
//
// The mix: everybody is connected, asks for `/user/me` once and for `/room/queue` when the view opens and every 10 s.
// Once in two minutes everybody is in a call of 5 s (offer and answer of 4 KB, 20 candidates, 4 lines of chat), away from
// the queue, and afterwards closes the socket, reads `/room/history` and `/user/me`, and comes back. `--caches` names
// profiles/sessions to keep (`--user-cache-max`, `--session-cache-max`); each is measured on a fresh server.
//
// Queries are what Postgres itself counts (pg_stat_statements), without BEGIN and COMMIT. They are held against a
// server that keeps nothing: it reads the session for every request with a token and every `auth`, and then
//   /user/me       the account
//   /room/history  the list
//   /room/queue    who is available (one list), cooldowns, reports; "row by row" reads each card listed by itself, too
//   an invite      the callee, the pair's cooldown
//   a call's end   two accounts read and written, two entries of history, one cooldown
// Exits 1 if anything is answered or told wrongly, if no session is found in the cache, or if there were more queries than those;
// never over time. Nobody here reads the same profile twice between two changes of it, so no hit of a profile is asked for.
// With `--store sqlite` queries are not counted.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import http from "node:http";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { ok, request } from "./client.mjs";
import { LeanSocket, each, frame, guests } from "./lean.mjs";
import { DATABASE_URL, RUNTIME, SHARDS, Server, freshDatabase, pause, sql, temporaryFolder } from "./server.mjs";
import { Worker, isWorker, serve } from "./worker.mjs";

const PROCESSES = 2;
const POLL_MS = 10_000;
const CALL_EVERY_S = 120;
/** History begins at 5 s. */
const CALL_MS = 5_300;
/** What a call takes with all that belongs to it. */
const CALL_SPAN_MS = 7_000;
const CANDIDATES = 10;
const LINES = 4;
const SIGNAL = "x".repeat(4_000);
const CONNECTS_AT_ONCE = 24;
const LIMIT_MS = 30 * 60_000;
const NORMAL_CLOSURE = Buffer.from([1000 >> 8, 1000 & 255]);
const NAIVE = { auth: 1, me: 2, history: 2, queue: 4, invite: 2, end: 7 };

class Person {
  constructor(crowd, { id, token }) {
    Object.assign(this, { crowd, id, token, inView: false });
    // A browser's own connection, kept.
    this.agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  }

  async get(what, path) {
    this.crowd.count(what);
    return ok(request(this.crowd.url, "GET", path, { token: this.token, agent: this.agent }));
  }

  async me(sessionCount) {
    const me = await this.get("me", "/user/me");
    assert.deepEqual([me.userId, me.sessionCount], [this.id, sessionCount]);
  }

  async queue() {
    const { users, totalAvailable } = await this.get("queue", "/room/queue");
    assert.ok(users.length > 0 && users.length === totalAvailable, "the others are listed");
    assert.ok(users.every(({ userId }) => userId !== this.id), "one does not see oneself");
    this.crowd.count("cards", users.length);
  }

  /** Opens the socket and the queue view. */
  async open() {
    this.socket = await LeanSocket.open(this.crowd.port, { hear: (name) => this.hear(name) });
    this.crowd.count("auth");
    await this.socket.bind(this.token);
    this.socket.emit("presence:join");
    this.socket.emit("queue:join");
    this.socket.onClosed = (how) => this.crowd.faults.push(`closed: ${JSON.stringify(how)}`);
    this.inView = true;
  }

  hear(name) {
    if (!["queue:update", "presence:update", "metrics:update"].includes(name)) this.crowd.faults.push(`heard ${name}`);
  }

  /** Leaves on purpose, as a page does. */
  async close() {
    const closed = new Promise((resolve) => (this.socket.onClosed = resolve));
    this.socket.write(frame(NORMAL_CLOSURE, { opcode: 8 }));
    await closed;
  }

  async poll(until) {
    await pause(Math.random() * POLL_MS);
    for (let at = Date.now(); at < until; at += POLL_MS) {
      await pause(at - Date.now());
      if (this.inView) await this.queue();
    }
  }

  end() {
    this.socket.destroy();
    this.agent.destroy();
  }
}

/** `from` says something to `to`, who hears just that. */
async function relay(from, to, name, payload) {
  const heard = to.socket.next(name);
  from.socket.emit(name, payload);
  const { roomId, ...sent } = payload;
  const { from: sender, ...received } = await heard;
  assert.deepEqual([sender, received], [from.id, sent]);
}

async function call(caller, callee, crowd) {
  const both = [caller, callee];
  const rings = callee.socket.next("call:notify", ({ fromUser }) => fromUser.userId === caller.id);
  crowd.count("invite");
  caller.socket.emit("call:invite", { toUserId: callee.id, requestedSeconds: 300 });
  const { inviteId } = await rings;
  const starts = both.map((person) => person.socket.next("call:start"));
  callee.socket.emit("call:accept", { inviteId, requestedSeconds: 300 });
  const [{ roomId }] = await Promise.all(starts);
  const startedAt = Date.now();
  for (const person of both) {
    person.inView = false;
    person.socket.emit("queue:leave");
    person.socket.emit("room:join", { roomId });
  }
  await relay(caller, callee, "rtc:offer", { roomId, offer: { type: "offer", sdp: SIGNAL } });
  await relay(callee, caller, "rtc:answer", { roomId, answer: { type: "answer", sdp: SIGNAL } });
  for (let i = 0; i < CANDIDATES; i++) {
    await relay(caller, callee, "rtc:ice", { roomId, candidate: { candidate: `${i} typ host` } });
    await relay(callee, caller, "rtc:ice", { roomId, candidate: { candidate: `${i} typ relay` } });
  }
  for (let i = 0; i < LINES; i++) {
    const heard = both.map((person) => person.socket.next("room:chat", ({ text }) => text === `line ${i}`));
    both[i % 2].socket.emit("room:chat", { roomId, text: `line ${i}` });
    await Promise.all(heard);
  }
  await pause(startedAt + CALL_MS - Date.now());
  const finals = both.map((person) => person.socket.next("session:finalized"));
  crowd.count("end");
  caller.socket.emit("call:end", { roomId });
  const [{ sessionId }] = await Promise.all(finals);
  await Promise.all(both.map(async (person) => {
    await person.close();
    const { history } = await person.get("history", "/room/history");
    assert.deepEqual(history.map((entry) => [entry.sessionId, entry.roomId, entry.messages.length]), [[sessionId, roomId, LINES]]);
    await person.me(1);
    await person.open();
    await person.queue();
  }));
}

/** The part that has some of the people. */
class Crowd {
  count(what, times = 1) {
    this.counts[what] = (this.counts[what] ?? 0) + times;
  }

  async make({ url, port, users, number }) {
    Object.assign(this, { url, port, counts: {}, faults: [] });
    const made = await guests(url, users, { name: `Crowd ${number}` });
    this.people = made.map((account) => new Person(this, account));
  }

  async connect() {
    await each(this.people, CONNECTS_AT_ONCE, async (person) => {
      await person.me(0);
      await person.open();
    });
  }

  /** Everybody does as the mix says; gives how often they did what. */
  async live({ seconds }) {
    this.counts = {};
    const until = Date.now() + seconds * 1000;
    const pairs = Array.from({ length: this.people.length / 2 }, (_, i) => this.people.slice(2 * i, 2 * i + 2));
    const calling = pairs.slice(0, Math.ceil(pairs.length * Math.min(1, seconds / CALL_EVERY_S)));
    await Promise.all([
      ...this.people.map((person) => person.poll(until)),
      ...calling.map(async ([caller, callee]) => {
        await pause(Math.random() * Math.max(0, seconds * 1000 - CALL_SPAN_MS));
        await call(caller, callee, this);
      }),
    ]);
    assert.deepEqual(this.faults, []);
    return { ...this.counts, calls: calling.length };
  }

  end() {
    this.people.forEach((person) => person.end());
  }
}

/** A Postgres that counts statements: the one under test, or one of our own. */
function postgres() {
  if (DATABASE_URL) return DATABASE_URL;
  const [script, folder] = [fileURLToPath(new URL("../postgres", import.meta.url)), temporaryFolder()];
  // Its user must be able to come here.
  execFileSync("chmod", ["711", folder]);
  // Before its folder goes.
  process.prependListener("exit", () => execFileSync(script, ["stop", join(folder, "postgres")]));
  return execFileSync(script, ["start", join(folder, "postgres")], { encoding: "utf8" }).trim();
}

/** Statements that were carried out in `database` so far, asked elsewhere so that the question does not count. */
function statements(url, database) {
  const asked = `SELECT coalesce(sum(calls), 0) FROM pg_stat_statements JOIN pg_database ON pg_database.oid = dbid
    WHERE datname = '${database}' AND query NOT IN ('BEGIN', 'COMMIT')`;
  return Number(sql(asked, url));
}

const sum = (list) => list.reduce((all, one) => all + one, 0);

/** One fresh server with caches of this size: what the mix cost. */
async function measure(caches, options, database) {
  const flags = { runtime: options.runtime, shards: options.shards };
  if (caches !== "default") [flags["user-cache-max"], flags["session-cache-max"]] = caches.split("/");
  const url = database && freshDatabase(database);
  const server = await Server.start(flags, { database: url });
  const fail = (why) => {
    console.error(`mix: FAILED: ${why}\n--- the server's log ends\n${server.tail(30)}`);
    process.exit(1);
  };
  const crowds = Array.from({ length: PROCESSES }, () => new Worker(import.meta.url, "crowd", fail));
  const all = (command, what = {}) => Promise.all(crowds.map((crowd, number) => crowd.ask(command, { ...what, number })));
  const health = async () => (await ok(request(server.url, "GET", "/health"))).cache;
  const queries = () => (database ? statements(database, new URL(url).pathname.slice(1)) : NaN);

  await all("make", { url: server.url, port: server.port, users: options.users / PROCESSES });
  await all("connect");
  const [cacheBefore, queriesBefore, cpuBefore, from] = [await health(), queries(), server.cpuSeconds(), Date.now()];
  const counted = await all("live", { seconds: options.seconds });
  const seconds = (Date.now() - from) / 1000;
  const [cache, made, cpu] = [await health(), queries() - queriesBefore, server.cpuSeconds() - cpuBefore];
  const rss = server.rssKb();
  await all("end");
  crowds.forEach((crowd) => crowd.end());
  const end = await server.stop();
  if (end.code !== 0) fail(`the server ended with ${JSON.stringify(end)}`);

  const count = (what) => sum(counted.map((counts) => counts[what] ?? 0));
  const rate = (name) => {
    const [hits, misses] = ["hits", "misses"].map((key) => cache[name][key] - cacheBefore[name][key]);
    return { hits, misses, share: hits / (hits + misses) };
  };
  const naive = sum(Object.entries(NAIVE).map(([what, each]) => each * count(what)));
  const row = { caches, seconds, users: rate("users"), sessions: rate("sessions"), queries: made / seconds, naive: naive / seconds, rows: (naive + count("cards")) / seconds, cpu: cpu / seconds, rss };
  const requests = ["queue", "me", "history", "auth", "calls"].map((what) => `${count(what)} ${what}`).join(", ");
  console.log(`mix: caches ${caches} (${cache.users.maxSize}/${cache.sessions.maxSize}): ${requests} in ${seconds.toFixed(0)} s; ${report(row).join("; ")}`);
  if (count("calls") === 0 || count("queue") === 0) fail("nobody did anything");
  if (!(cache.sessions.hits > 0)) fail("the cache of sessions was never hit");
  if (database && made > naive) fail(`${made} queries, a server that keeps nothing makes ${naive}`);
  return row;
}

function report({ users, sessions, queries, naive, rows, cpu, rss }) {
  const cache = ({ hits, misses, share }) => `${(share * 100).toFixed(1)} % (${hits} of ${hits + misses})`;
  const perSecond = (value) => (Number.isNaN(value) ? "not counted" : value.toFixed(0));
  return [`sessions ${cache(sessions)}`, `profiles ${cache(users)}`, `queries ${perSecond(queries)} a second`, `keeping nothing ${perSecond(naive)}`, `row by row ${perSecond(rows)}`, `${(cpu * 100).toFixed(0)} % of a core`, `${(rss / 1024).toFixed(1)} MiB`];
}

async function main(options) {
  const began = Date.now();
  const watchdog = setTimeout(() => {
    console.error(`mix: not finished in ${LIMIT_MS} ms`);
    process.exit(1);
  }, LIMIT_MS);
  console.log(`mix: ${options.users} users, ${options.seconds} s, ${options.runtime}, ${options.shards} shards, ${options.store}`);
  const database = options.store === "postgres" ? postgres() : undefined;
  if (database) sql("CREATE EXTENSION IF NOT EXISTS pg_stat_statements", database);
  for (const caches of options.caches.split(",")) await measure(caches, options, database);
  clearTimeout(watchdog);
  console.log(`mix: no error, every call in both histories, in ${((Date.now() - began) / 1000).toFixed(0)} s`);
  console.log("e2e: 1 passed, 0 failed");
}

function parseArguments(words) {
  const options = { users: 1000, seconds: 60, caches: "200/300,default", store: "postgres", runtime: RUNTIME, shards: SHARDS };
  for (let i = 0; i < words.length; i += 2) {
    const name = words[i].slice(2);
    assert.ok(name in options && words[i + 1] !== undefined, `usage: node mix.mjs [--${Object.keys(options).join(" X] [--")} X]`);
    options[name] = typeof options[name] === "number" ? Number(words[i + 1]) : words[i + 1];
  }
  assert.ok(options.users % (2 * PROCESSES) === 0, `--users is a multiple of ${2 * PROCESSES}`);
  assert.match(options.caches, /^(\d+\/\d+|default)(,(\d+\/\d+|default))*$/, "--caches is PROFILES/SESSIONS or default");
  assert.ok(["postgres", "sqlite"].includes(options.store), "--store is postgres or sqlite");
  return options;
}

if (isWorker(import.meta.url)) serve({ crowd: Crowd });
else await main(parseArguments(process.argv.slice(2)));

// A rolling restart under load: connected users, of whom some are in calls and talk all the time; the server ends, by SIGTERM
// or kill -9, and another starts on its data; everybody comes back by himself, as the official client does.
//
// Usage: node restart.mjs [--users 2000] [--calls 300] [--how sigterm|kill] [--socket own|held] [--runtime R] [--shards N]
// With `--socket held` a service manager holds the port, so that who comes back in between waits in the kernel.
// Prints the calls that are lost (they do not go on in the same room, both ways), the messages that the other one never
// heard or that the history has not, the time until all are back, and how long a client was away. Exits 1 if a call is lost
// or stored otherwise than once for both, after SIGTERM also if the history lacks a message that its author heard.
// Clients run in two processes.

import assert from "node:assert/strict";
import { enterRoom, hangUp, joinQueue, lasting, ring } from "./cast.mjs";
import { Client } from "./client.mjs";
import { each } from "./lean.mjs";
import { RUNTIME, SHARDS, Server, UNLIMITED, pause } from "./server.mjs";
import { Service, ends } from "./service.mjs";
import { Worker, isWorker, serve } from "./worker.mjs";

const PROCESSES = 2;
const PAIRS_AT_ONCE = 12;
const SIGN_UPS_AT_ONCE = 24;
const LINE_EVERY_MS = 500;
const TALK_MS = 3_000;
const HEARD_MS = 5_000;
const BACK_MS_MAX = 60_000;
const LIMIT_MS = 10 * 60_000;

/** The part of one client process: a `Client` per person, commanded by the parent. */
class Crowd {
  make({ url, users, calls, number }) {
    Object.assign(this, { server: { url }, users, calls, number, people: [], pairs: [] });
  }

  async connect() {
    await each(Array.from({ length: this.users }), SIGN_UPS_AT_ONCE, async (_, index) => {
      const person = await Client.signUp(this.server, "socket.io", { name: `P${this.number}-${index}`, gender: "unspecified" });
      // Addresses are drawn per process; keep the processes apart.
      person.account.address = `10.${100 + this.number}.${index >> 8}.${index & 255}`;
      await person.connect({ reconnection: true });
      this.people[index] = person;
    });
  }

  async call() {
    for (let i = 0; i < this.calls; i++) this.pairs.push([this.people[2 * i], this.people[2 * i + 1]]);
    await each(this.pairs, PAIRS_AT_ONCE, async (pair) => {
      const [caller, callee] = pair;
      await joinQueue(caller, callee);
      callee.emit("call:accept", { inviteId: await ring(caller, callee), requestedSeconds: 1_800 });
      Object.assign(pair, await enterRoom(caller, callee));
    });
  }

  /** Both of every call say a line again and again, connected or not: the client sends later what it cannot send now. */
  talk() {
    this.pairs.forEach((pair) => (pair.said = [0, 0]));
    let turn = 0;
    this.talking = setInterval(() => {
      const part = turn++ % 10;
      for (let index = part; index < this.pairs.length; index += 10) {
        const pair = this.pairs[index];
        for (const who of [0, 1]) pair[who].emit("room:chat", { roomId: pair.room, text: `${who} ${pair.said[who]++}` });
      }
    }, LINE_EVERY_MS / 10);
  }

  /** From now on: when each was lost, and when he is bound again. */
  watch() {
    this.back = Promise.all(this.people.map((person) => {
      const { socket } = person.wire;
      return new Promise((resolve) => {
        socket.once("disconnect", () => {
          person.lostAt = Date.now();
          socket.once("auth:success", () => resolve((person.backAt = Date.now())));
        });
      });
    }));
  }

  /** Waits until everybody is back; gives how long each was away, and when the last one came. */
  async awaitBack() {
    const late = new Promise((resolve) => setTimeout(resolve, BACK_MS_MAX));
    await Promise.race([this.back, late]);
    const back = this.people.filter(({ backAt }) => backAt !== undefined);
    return { away: back.map(({ lostAt, backAt }) => backAt - lostAt), last: Math.max(0, ...back.map(({ backAt }) => backAt)) };
  }

  /** A signal in each direction of every call; gives how many calls are lost. */
  async signal() {
    clearInterval(this.talking);
    let lost = 0;
    await each(this.pairs, this.pairs.length, async (pair) => {
      try {
        for (const [from, to] of [[pair[0], pair[1]], [pair[1], pair[0]]]) {
          from.emit("rtc:offer", { roomId: pair.room, offer: { sdp: `still ${from.id}` } });
          await to.next("rtc:offer", ({ offer }) => offer.sdp === `still ${from.id}`, HEARD_MS * 2);
          assert.equal(from.all("session:finalized").length + from.all("peer:disconnected").length, 0);
        }
      } catch {
        pair.isLost = true;
        lost++;
      }
    });
    return lost;
  }

  /** What was said and not heard, by the other or by its author, and what the histories say. */
  async verify() {
    const counts = { said: 0, unheard: 0, unechoed: 0, unstored: 0, wrong: 0 };
    await each(this.pairs.filter(({ isLost }) => !isLost), 32, async (pair) => {
      await lasting(pair.startedAt);
      const session = await hangUp(pair[0], pair[1], pair.room);
      const histories = await Promise.all(pair.slice(0, 2).map((person) => person.get("/room/history")));
      const entries = histories.map(({ history }) => history.filter(({ roomId }) => roomId === pair.room));
      const isOnce = entries.every((found) => found.length === 1 && found[0].sessionId === session);
      if (!isOnce) return counts.wrong++;
      const stored = new Set(entries[0][0].messages.map(({ text }) => text));
      const heard = pair.slice(0, 2).map((person) => new Set(person.all("room:chat").map(({ text }) => text)));
      for (const who of [0, 1]) {
        for (let number = 0; number < pair.said[who]; number++) {
          const text = `${who} ${number}`;
          counts.said++;
          if (!heard[1 - who].has(text)) counts.unheard++;
          if (!heard[who].has(text)) counts.unechoed++;
          else if (!stored.has(text)) counts.unstored++;
        }
      }
    });
    return counts;
  }
}

const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

function percentile(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
}

/** The server, started: its `url` and `tail`, how to `end` its process and to `launch` the next. */
async function start({ runtime, shards, socket }) {
  if (socket === "own") {
    const server = await Server.start({ runtime, shards });
    const [end, launch] = [(signal) => server.stop(signal), () => server.launch()];
    return { url: server.url, tail: () => server.tail(30), end, launch, dispose() {} };
  }
  const endings = [];
  const service = await Service.make({ after: (ending) => endings.push(ending) }, { flags: { runtime, shards, ...UNLIMITED } });
  await service.start();
  const end = (signal) => service.does(`kill ${signal}`, ends);
  return { url: service.url, tail: () => service.tail(), end, launch: () => service.start(), dispose: () => endings.forEach((ending) => ending()) };
}

async function main(options) {
  const watchdog = setTimeout(() => fail(`not finished in ${LIMIT_MS} ms`), LIMIT_MS);
  const server = await start(options);
  const fail = (why) => {
    console.error(`restart: ${why}\n--- the server's log ends\n${server.tail()}`);
    process.exit(1);
  };
  const crowds = Array.from({ length: PROCESSES }, () => new Worker(import.meta.url, "crowd", fail));
  const all = (command, optionsOf = () => undefined) => Promise.all(crowds.map((crowd, number) => crowd.ask(command, optionsOf(number))));
  const share = (whole) => Math.floor(whole / PROCESSES);
  await all("make", (number) => ({ url: server.url, users: share(options.users), calls: share(options.calls), number }));
  await all("connect");
  await all("call");
  await all("talk");
  await pause(TALK_MS);
  await all("watch");

  const from = Date.now();
  await server.end(options.how === "kill" ? "SIGKILL" : "SIGTERM");
  const ended = Date.now() - from;
  await server.launch();
  const served = Date.now() - from;
  const backs = await all("awaitBack");
  const away = backs.flatMap((back) => back.away);
  const missing = options.users - away.length;
  await pause(TALK_MS);
  const lost = sum(await all("signal"));
  const counts = (await all("verify")).reduce((one, other) => Object.fromEntries(Object.keys(one).map((key) => [key, one[key] + other[key]])));
  crowds.forEach((crowd) => crowd.end());
  await server.end("SIGTERM");
  server.dispose();
  clearTimeout(watchdog);

  const report = (what, value) => console.log(`${what.padEnd(58)} ${value}`);
  report("how, socket, runtime, shards, users, calls", `${options.how}, ${options.socket}, ${options.runtime}, ${options.shards}, ${options.users}, ${options.calls}`);
  report("calls lost; stored otherwise than once for both", `${lost}; ${counts.wrong}`);
  report("lines said; never heard by the other; never by the author", `${counts.said}; ${counts.unheard}; ${counts.unechoed}`);
  report("lines that their author heard and the history lacks", counts.unstored);
  report("process ended, next one serves, ms", `${ended}, ${served}`);
  report("all back after, ms; who did not come back", `${Math.max(...backs.map(({ last }) => last)) - from}; ${missing}`);
  report("a client is away, p50, p99, max, ms", [0.5, 0.99, 1].map((part) => percentile(away, part)).join(", "));
  const isLossy = options.how === "sigterm" && counts.unstored > 0;
  if (lost + counts.wrong + missing > 0 || isLossy) fail("something is lost");
  console.log(`restart: ${options.users} users and ${options.calls} calls by ${options.how}: no call lost, all back in ${Math.max(...backs.map(({ last }) => last)) - from} ms`);
  console.log("e2e: 1 passed, 0 failed");
}

function parseArguments(words) {
  const options = { users: 2000, calls: 300, how: "sigterm", socket: "own", runtime: RUNTIME, shards: SHARDS };
  for (let i = 0; i < words.length; i += 2) {
    const name = words[i].slice(2);
    assert.ok(name in options && words[i + 1] !== undefined, `usage: node restart.mjs [--${Object.keys(options).join(" X] [--")} X]`);
    options[name] = typeof options[name] === "number" ? Number(words[i + 1]) : words[i + 1];
  }
  assert.ok(["sigterm", "kill"].includes(options.how), "--how is sigterm or kill");
  assert.ok(["own", "held"].includes(options.socket), "--socket is own or held");
  assert.ok(options.users % PROCESSES === 0 && options.calls % PROCESSES === 0, "--users and --calls are even");
  assert.ok(options.users >= 2 * options.calls, "two users for each call");
  return options;
}

if (isWorker(import.meta.url)) serve({ crowd: Crowd });
else await main(parseArguments(process.argv.slice(2)));

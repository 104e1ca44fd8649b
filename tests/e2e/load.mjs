// 1,000 socket.io clients on two shards make 500 calls at once; every message and every history is checked.
//
// Usage: node load.mjs [--clients 1000] [--runtime auto|uring|epoll] [--shards 2] [--idle 20]
// Prints the server's resident memory (idle, connected, after the calls) and its processor use while all clients are
// connected and idle. Exits 1 at the first thing that is not as it must be. Clients run in two processes.

import assert from "node:assert/strict";
import { enterRoom, hangUp, joinQueue, lasting, ring } from "./cast.mjs";
import { Client } from "./client.mjs";
import { each } from "./lean.mjs";
import { RUNTIME, SHARDS, Server, pause } from "./server.mjs";
import { Worker, isWorker, serve } from "./worker.mjs";

const PROCESSES = 2;
const ICE_COUNT = 20;
const CHAT_COUNT = 4;
const PAIRS_AT_ONCE = 12;
const SIGN_UPS_AT_ONCE = 24;
const IDLE_CPU_PERCENT_GOAL = 2;
const IDLE_CPU_PERCENT_MAX = 10;
const LIMIT_MS = 10 * 60_000;

/** The part of one client process: a `Client` per person, commanded by the parent. */
class Crowd {
  make({ url, count, number }) {
    this.server = { url };
    this.count = count;
    this.number = number;
    this.people = [];
  }

  async connect() {
    await each(Array.from({ length: this.count }), SIGN_UPS_AT_ONCE, async (_, index) => {
      const person = await Client.signUp(this.server, "socket.io", { name: `P${this.number}-${index}`, gender: "unspecified" });
      // Addresses are drawn per process; keep the processes apart.
      person.account.address = `10.${100 + this.number}.${index >> 8}.${index & 255}`;
      await person.connect();
      this.people[index] = person;
    });
  }

  /** Everybody calls: each pair as soon as there is room in the queue, all calls alive together. */
  async call() {
    const pairs = [];
    for (let i = 0; i + 1 < this.people.length; i += 2) pairs.push([this.people[i], this.people[i + 1]]);
    await each(pairs, PAIRS_AT_ONCE, async (pair) => {
      const [caller, callee] = pair;
      await joinQueue(caller, callee);
      callee.emit("call:accept", { inviteId: await ring(caller, callee), requestedSeconds: 300 });
      Object.assign(pair, await enterRoom(caller, callee));
    });
    this.pairs = pairs;
  }

  async talk() {
    await each(this.pairs, this.pairs.length, async ([caller, callee], index) => {
      const { room } = this.pairs[index];
      caller.emit("rtc:offer", { roomId: room, offer: { sdp: `offer ${index}`, filler: "x".repeat(2_000) } });
      await callee.next("rtc:offer", ({ offer }) => offer.sdp === `offer ${index}`, 60_000);
      callee.emit("rtc:answer", { roomId: room, answer: { sdp: `answer ${index}`, filler: "x".repeat(2_000) } });
      await caller.next("rtc:answer", ({ answer }) => answer.sdp === `answer ${index}`, 60_000);
      for (const [from, to] of [[caller, callee], [callee, caller]]) {
        for (let i = 0; i < ICE_COUNT; i++) from.emit("rtc:ice", { roomId: room, candidate: { candidate: `${index} ${i}`, sdpMid: "0" } });
        for (let i = 0; i < ICE_COUNT; i++) {
          const heard = await to.next("rtc:ice", undefined, 60_000);
          assert.deepEqual([heard.candidate.candidate, heard.from], [`${index} ${i}`, from.id], "a candidate is lost or out of order");
        }
      }
      for (let i = 0; i < CHAT_COUNT; i++) {
        const [from, to] = i % 2 === 0 ? [caller, callee] : [callee, caller];
        from.emit("room:chat", { roomId: room, text: `${index} ${i}` });
        for (const person of [from, to]) {
          const line = await person.next("room:chat", undefined, 60_000);
          assert.deepEqual([line.text, line.from], [`${index} ${i}`, from.id], "a line of chat is lost or out of order");
        }
      }
    });
  }

  async hangUp() {
    await each(this.pairs, 32, async (pair) => {
      const [caller, callee] = pair;
      await lasting(pair.startedAt);
      pair.session = await hangUp(caller, callee, pair.room);
    });
  }

  async verify() {
    await each(this.pairs, 16, async (pair, index) => {
      for (const [me, partner] of [[pair[0], pair[1]], [pair[1], pair[0]]]) {
        const { history } = await me.get("/room/history");
        const found = history.map((entry) => [entry.roomId, entry.sessionId, entry.partnerId, entry.messages.map(({ text }) => text)]);
        assert.deepEqual(found, [[pair.room, pair.session, partner.id, Array.from({ length: CHAT_COUNT }, (_, i) => `${index} ${i}`)]]);
        const bad = me.events.filter(({ name }) => ["error", "auth:failed", "call:declined", "call:rescinded", "peer:disconnected"].includes(name));
        assert.deepEqual(bad, [], `${me.name} heard something else`);
        assert.deepEqual([me.all("rtc:ice").length, me.all("room:chat").length], [ICE_COUNT, CHAT_COUNT]);
      }
    });
    const rooms = new Set(this.pairs.map(({ room }) => room));
    assert.equal(rooms.size, this.pairs.length, "every call has its own room");
  }

  /** Keep-alive connections of HTTP end, so that only the sockets stay. */
  quiet() {
    this.people.forEach((person) => person.agent.destroy());
  }
}

async function main(options) {
  const from = Date.now();
  const watchdog = setTimeout(() => fail(`not finished in ${LIMIT_MS} ms`), LIMIT_MS);
  const server = await Server.start({ runtime: options.runtime, shards: options.shards });
  const fail = (why) => {
    console.error(`load: ${why}\n--- the server's log ends\n${server.tail(30)}`);
    process.exit(1);
  };
  const crowds = Array.from({ length: PROCESSES }, () => new Worker(import.meta.url, "crowd", fail));
  const all = async (command, optionsOf = () => undefined) => {
    const began = Date.now();
    await Promise.all(crowds.map((crowd, number) => crowd.ask(command, optionsOf(number))));
    return ((Date.now() - began) / 1000).toFixed(1);
  };
  const report = (what, value) => console.log(`${what.padEnd(44)} ${value}`);
  const memory = () => `${(server.rssKb() / 1024).toFixed(1)} MiB`;

  report("runtime, shards, clients", `${options.runtime}, ${options.shards}, ${options.clients}`);
  await pause(1_000);
  report("resident memory, no client", memory());
  await all("make", (number) => ({ url: server.url, count: options.clients / PROCESSES, number }));
  report("sign up and connect all, s", await all("connect"));
  report("resident memory, all connected", memory());
  report(`${options.clients / 2} calls set up, s`, await all("call"));
  report("offer, answer, 2 x 20 ICE, 4 lines each, s", await all("talk"));
  report("resident memory, all in calls", memory());
  report("all hung up, s", await all("hangUp"));
  report("both histories of every call verified, s", await all("verify"));
  await all("quiet");
  report("resident memory, after the calls", memory());
  await pause(2_000);
  const cpuBefore = server.cpuSeconds();
  await pause(options.idle * 1_000);
  const percent = ((server.cpuSeconds() - cpuBefore) / options.idle) * 100;
  report(`processor, ${options.clients} connected and idle, ${options.idle} s`, `${percent.toFixed(2)} % of one core (goal < ${IDLE_CPU_PERCENT_GOAL} %)`);
  if (percent >= IDLE_CPU_PERCENT_MAX) fail(`idle processor use is ${percent.toFixed(1)} %`);
  crowds.forEach((crowd) => crowd.end());
  const end = await server.stop();
  if (end.code !== 0) fail(`the server ended with ${JSON.stringify(end)}`);
  clearTimeout(watchdog);
  console.log(`load: ${options.clients / 2} calls, no error, no lost message, every call in both histories, in ${((Date.now() - from) / 1000).toFixed(0)} s`);
  console.log("e2e: 1 passed, 0 failed");
}

function parseArguments(words) {
  const options = { clients: 1000, runtime: RUNTIME, shards: SHARDS, idle: 20 };
  for (let i = 0; i < words.length; i += 2) {
    const name = words[i].slice(2);
    assert.ok(name in options && words[i + 1] !== undefined, `usage: node load.mjs [--${Object.keys(options).join(" N] [--")} N]`);
    options[name] = typeof options[name] === "number" ? Number(words[i + 1]) : words[i + 1];
  }
  assert.ok(options.clients >= 4 && options.clients % 4 === 0, "--clients is a multiple of 4");
  return options;
}

if (isWorker(import.meta.url)) serve({ crowd: Crowd });
else await main(parseArguments(process.argv.slice(2)));

// Every peer does its job: the application peers a call's whole way, the raw ones echo and fan-out.
//
// Needs what `bench/peers/build` makes, and DUET_DATABASE_URL: a Postgres where each application peer gets a database
// of its own. `node bench/peers/check.mjs` fails if any peer does.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import net from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { card, cooldownOf, hangUp, joinQueue, lasting, ring, say, suite } from "../../tests/e2e/cast.mjs";
import { request } from "../../tests/e2e/client.mjs";
import { DATABASE_URL, freshDatabase, freePort } from "../../tests/e2e/server.mjs";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const { WebSocket } = createRequire(join(HERE, "../../tests/e2e/client.mjs"))("ws");
const PROGRAMS = join(process.env.CARGO_TARGET_DIR ?? join(HERE, "../../target"), "peers/release");
const CANDIDATES = 40;
const LOG_LINES_MAX = 200;

const running = [];
process.on("exit", () => running.forEach(({ child }) => child.kill("SIGKILL")));

class Peer {
  static async start(program, { args = [], env = {}, database = false } = {}) {
    const peer = new Peer();
    const PORT = String(await freePort());
    const DATABASE = database ? { DATABASE_URL: freshDatabase() } : {};
    peer.lines = [];
    peer.child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"], env: { PATH: process.env.PATH, PORT, ...DATABASE, ...env } });
    peer.exited = new Promise((resolve) => {
      peer.child.once("error", (error) => resolve({ error }));
      peer.child.once("close", (code, signal) => resolve({ code, signal }));
    });
    peer.exited.then(() => (peer.gone = true));
    running.push(peer);
    const listening = new Promise((resolve) => {
      for (const stream of [peer.child.stdout, peer.child.stderr]) {
        createInterface(stream).on("line", (line) => {
          if (peer.lines.push(line) > LOG_LINES_MAX) peer.lines.shift();
          resolve(line);
        });
      }
    });
    const first = await Promise.race([listening, peer.exited]);
    assert.match(String(first), /listening/, `${program} ${args}: ${JSON.stringify(first)}`);
    peer.url = `http://127.0.0.1:${PORT}`;
    peer.port = Number(PORT);
    return peer;
  }

  get alive() {
    return !this.gone;
  }

  tail() {
    return this.lines.slice(-15).join("\n");
  }

  /** SIGTERM must end it. */
  async stop() {
    this.child.kill("SIGTERM");
    const { code, signal } = await this.exited;
    assert.ok(code === 0 || signal === "SIGTERM", `it ended with ${code ?? signal}: ${this.tail()}`);
  }
}

const node = (file, options = {}) => Peer.start(process.execPath, { args: [join(HERE, "node", file)], ...options });
const rust = (name, options = {}) => Peer.start(join(PROGRAMS, name), options);

/** The facts of every application peer. */
function application({ fact }) {
  fact("two people sign up, meet, call, talk, hang up and find the call in their histories", async (cast) => {
    const { caller, callee, room, startedAt } = await cast.call();
    for (const { id } of [caller, callee]) await caller.next("queue:update", ({ userId, available }) => userId === id && !available);
    const sdp = { type: "offer", sdp: "v=0\r\nä".repeat(500) };
    caller.emit("rtc:offer", { roomId: room, offer: sdp });
    assert.deepEqual(await callee.next("rtc:offer"), { offer: sdp, from: caller.id });
    callee.emit("rtc:answer", { roomId: room, answer: sdp });
    assert.deepEqual(await caller.next("rtc:answer"), { answer: sdp, from: callee.id });
    for (let number = 0; number < CANDIDATES; number++) caller.emit("rtc:ice", { roomId: room, candidate: { number } });
    for (let number = 0; number < CANDIDATES; number++) {
      assert.deepEqual(await callee.next("rtc:ice"), { candidate: { number }, from: caller.id }, "candidates arrive in order");
    }
    await say(callee, caller, room, "hello");
    await lasting(startedAt);
    const sessionId = await hangUp(caller, callee, room);
    for (const [me, partner] of [[caller, callee], [callee, caller]]) {
      const { history } = await me.get("/room/history");
      const [{ messages, ...entry }] = history;
      assert.equal(history.length, 1);
      assert.deepEqual([entry.sessionId, entry.roomId, entry.partnerId, entry.partnerName], [sessionId, room, partner.id, partner.name]);
      assert.deepEqual(messages.map(({ from, text }) => [from, text]), [[callee.id, "hello"]]);
      const { sessionCount, lastSessions } = await me.get("/user/me");
      assert.deepEqual([sessionCount, lastSessions.length], [1, 1]);
    }
    await joinQueue(caller, callee);
    cooldownOf(await card(caller, callee), 24);
    assert.deepEqual(caller.all("error"), []);
  });

  fact("a declined caller hears it, and a rescinded invite stops ringing", async (cast) => {
    const [caller, callee, other] = await cast.queued(3);
    const declined = await ring(caller, callee);
    callee.emit("call:decline", { inviteId: declined });
    assert.deepEqual(await caller.next("call:declined"), { inviteId: declined, reason: "user_declined" });
    const rescinded = await ring(caller, other);
    caller.emit("call:rescind", { toUserId: other.id });
    assert.deepEqual(await other.next("call:rescinded"), { inviteId: rescinded });
    cooldownOf(await card(callee, caller), 24);
    cooldownOf(await card(caller, other), 1);
    other.emit("call:accept", { inviteId: rescinded, requestedSeconds: 300 });
    await other.next("error");
  });

  fact("everybody hears who comes and goes, and who closes in a call is missed", async (cast) => {
    const bystander = await cast.online();
    const { caller, callee } = await cast.call();
    for (const available of [true, false]) {
      await bystander.next("queue:update", (update) => update.userId === callee.id && update.available === available);
    }
    callee.leave();
    await caller.next("peer:disconnected");
    await caller.next("session:finalized");
    const { online, available } = await bystander.next("presence:update", (update) => update.userId === callee.id && !update.online);
    assert.deepEqual([online, available], [false, false]);
  });

  fact("who has no session is refused", async (cast) => {
    const { url } = cast.server;
    assert.equal((await request(url, "GET", "/room/queue")).status, 401);
    const token = "00000000-0000-4000-8000-000000000000";
    assert.deepEqual((await request(url, "GET", "/room/queue", { token })).body, { error: "Invalid or expired session" });
    assert.equal((await request(url, "POST", "/auth/guest", { body: { name: " ", gender: "male" } })).status, 400);
    const stranger = await cast.connection({ token }).open();
    await stranger.next("auth:failed");
    stranger.emit("queue:join");
    await stranger.next("error");
  });

  fact("a long queue comes compressed, with the headers for browsers", async (cast) => {
    const [viewer] = await cast.queued(8);
    const answer = await viewer.http("GET", "/room/queue", { headers: { "accept-encoding": "gzip", origin: "http://localhost:3000" } });
    assert.deepEqual([answer.status, answer.headers["content-encoding"], answer.headers["x-frame-options"]], [200, "gzip", "DENY"]);
    assert.equal(answer.headers["access-control-allow-origin"], "http://localhost:3000");
    assert.equal((await request(cast.server.url, "GET", "/health")).body.status, "ok");
  });
}

/** The only socket that may stay: the next one is told and closed. */
function limited({ fact }) {
  fact("a socket above CONNECTION_LIMIT is told and closed", async (cast) => {
    const first = await cast.online();
    const second = await (await cast.guest()).open();
    await second.next("error");
    await second.ended();
    await first.settle();
  });
}

const opened = (socket) => new Promise((resolve, reject) => socket.once("open", resolve).once("error", reject));

/** What a WebSocket hears next, as `[bytes, isBinary]`. */
const message = (socket) => new Promise((resolve) => socket.once("message", (data, binary) => resolve([data, binary])));

function deflating({ fact }) {
  fact("permessage-deflate is agreed on", async (cast) => {
    const socket = new WebSocket(`${cast.server.url.replace("http", "ws")}/socket.io/?EIO=4&transport=websocket`);
    await opened(socket);
    assert.match(socket.extensions, /permessage-deflate/);
    socket.terminate();
  });
}

function rawWebSocket({ fact }) {
  fact("messages are echoed as they are, and one that starts with * goes to all", async (cast) => {
    const sockets = Array.from({ length: 20 }, () => new WebSocket(cast.server.url.replace("http", "ws"), { perMessageDeflate: false }));
    await Promise.all(sockets.map(opened));
    for (const content of ["a", "ä".repeat(400), "x".repeat(70_000), Buffer.from([0, 255, 1])]) {
      const echo = message(sockets[0]);
      sockets[0].send(content);
      const [data, binary] = await echo;
      assert.deepEqual([data, binary], [Buffer.from(content), Buffer.isBuffer(content)]);
    }
    const heard = Promise.all(sockets.map(message));
    sockets[7].send("*everybody");
    for (const [data, binary] of await heard) assert.deepEqual([data.toString(), binary], ["*everybody", false]);
    for (const socket of sockets) socket.terminate();
  });
}

function rawTcp({ fact }) {
  fact("bytes are echoed in order on each of many connections, also more than a socket holds", async (cast) => {
    const echoed = (bytes) =>
      new Promise((resolve, reject) => {
        const socket = net.connect(cast.server.port, "127.0.0.1");
        const chunks = [];
        socket.on("data", (chunk) => chunks.push(chunk)).on("end", () => resolve(Buffer.concat(chunks))).on("error", reject);
        socket.end(bytes);
      });
    const contents = [Buffer.from("a"), ...Array.from({ length: 50 }, (_, i) => Buffer.alloc(4_000_000 / (i + 1), `${i} `))];
    const answers = await Promise.all(contents.map(echoed));
    contents.forEach((content, i) => assert.ok(content.equals(answers[i]), `${answers[i].length} of ${content.length} bytes`));
  });
}

assert.ok(DATABASE_URL, "DUET_DATABASE_URL names no Postgres");
const database = true;
const REFERENCE = { REFERENCE: "on", PER_MESSAGE_DEFLATE: "on" };
const ONE = { env: { CONNECTION_LIMIT: "1" }, database };
const PEERS = [
  ["node", [application], () => node("server.js", { database })],
  ["node as the reference", [application, deflating], () => node("server.js", { env: REFERENCE, database })],
  ["node, one connection", [limited], () => node("server.js", ONE)],
  ["socketioxide, 1 worker", [application], () => rust("peer-socketioxide", { env: { WORKERS: "1" }, database })],
  ["socketioxide, 4 workers", [application], () => rust("peer-socketioxide", { env: { WORKERS: "4" }, database })],
  ["socketioxide, one connection", [limited], () => rust("peer-socketioxide", ONE)],
  ["ws", [rawWebSocket], () => node("raw.js")],
  ["fastwebsockets", [rawWebSocket], () => rust("peer-tokio-ws")],
  ["epoll", [rawTcp], () => rust("peer-epoll")],
  ["io_uring", [rawTcp], () => rust("peer-uring")],
];
// The package has uWebSockets for this processor only.
if (process.arch === "x64") PEERS.push(["uWebSockets", [rawWebSocket], () => rust("peer-uwebsockets")]);

for (const [name, facts, start] of PEERS) {
  suite(name, await start(), ({ fact }) => {
    const named = (what, body) => fact(`${name}: ${what}`, body);
    facts.forEach((define) => define({ fact: named }));
  });
}

// Engine.IO v4 by hand: long polling over plain HTTP requests, and the WebSocket that an upgrade probes.
//
// Nothing here rejects by itself: an answer that does not come is `closed` or `silence`, for the test to judge.

import assert from "node:assert/strict";
import http from "node:http";
import WebSocket from "ws";
import { eventually, pause } from "./server.mjs";

const PATIENCE_MS = 10_000;
const SEPARATOR = "\x1e";
const PATH = "/socket.io/?";
const ARRIVAL_MS = 60;

/** The query of a request, in Engine.IO's order; `undefined` leaves one out. */
export function query({ EIO = "4", transport = "polling", sid, ...rest } = {}) {
  const pairs = Object.entries({ EIO, transport, sid, ...rest }).filter(([, value]) => value !== undefined && value !== null);
  return pairs.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&");
}

export const join = (...packets) => packets.join(SEPARATOR);
export const split = (payload) => payload.split(SEPARATOR);

/** One HTTP request under way, on a connection of its own unless an agent is given. */
export class Exchange {
  /** `body` is sent at once; `open: true` holds the request's body open for `write` and `end`. */
  constructor(base, method, search, { body, headers = {}, agent = false, open = false, ms = PATIENCE_MS } = {}) {
    this.over = false;
    const head = { ...headers };
    if (body !== undefined && !open) head["content-length"] = Buffer.byteLength(body);
    if (method === "POST" && head["content-type"] === undefined) head["content-type"] = "text/plain;charset=UTF-8";
    this.answer = new Promise((resolve) => {
      const settle = (answer) => {
        clearTimeout(timer);
        this.over = true;
        resolve(answer);
      };
      const timer = setTimeout(() => settle({ status: "silence", headers: {}, text: "" }), ms);
      const lost = (error) => settle({ status: "closed", headers: {}, text: "", error });
      this.request = http.request(`${base}${PATH}${search}`, { method, headers: head, agent }, (response) => {
        const chunks = [];
        response.on("data", (chunk) => chunks.push(chunk));
        response.on("error", lost);
        response.on("end", () => {
          const bytes = Buffer.concat(chunks);
          const text = bytes.toString("utf8");
          settle({ status: response.statusCode, headers: response.headers, text, bytes, body: parse(text) });
        });
      });
      this.request.on("error", lost);
      this.request.on("close", () => lost(new Error("closed")));
    });
    /** Resolves once the request is on its way: a connection is there and takes what is written. */
    this.sent = new Promise((resolve) => {
      this.request.once("socket", (socket) => (socket.connecting ? socket.once("connect", resolve) : resolve()));
      this.answer.then(resolve);
    });
    if (open) {
      this.request.flushHeaders();
      if (body !== undefined) this.request.write(body);
    } else this.request.end(body);
  }

  /** Waits until the server has surely seen the request, which nothing tells. */
  async arrived() {
    await this.sent;
    await pause(ARRIVAL_MS);
    return this;
  }

  write(text) {
    this.request.write(text);
    return this;
  }

  end(text) {
    this.request.end(text);
    return this;
  }

  /** Tears the connection down without a word. */
  destroy() {
    this.request.destroy();
  }
}

/** A request and its answer. */
export const ask = (base, method, search, options) => new Exchange(base, method, search, options).answer;

/** A polling session. `options`: `headers` and `agent` of all its requests. */
export class Session {
  static async open(base, options = {}) {
    const answer = await ask(base, "GET", query({ t: "open" }), options);
    assert.equal(answer.status, 200, `no session: ${answer.status} ${answer.text}`);
    const [first, ...rest] = split(answer.text);
    assert.equal(first[0], "0", `an open packet comes first: ${answer.text}`);
    return new Session(base, JSON.parse(first.slice(1)), { ...options, heard: rest });
  }

  /** Opened, and connected to the namespace with this `auth`. */
  static async connect(base, auth, options) {
    const session = await Session.open(base, options);
    await session.say(`40${auth === undefined ? "" : JSON.stringify(auth)}`);
    const connected = await session.until((packet) => /^4[04]/.test(packet));
    assert.match(connected, /^40\{"sid":/, "connected to the namespace");
    return session;
  }

  constructor(base, handshake, { heard = [], ...options }) {
    this.base = base;
    this.handshake = handshake;
    this.sid = handshake.sid;
    this.options = options;
    this.heard = heard;
  }

  request(method, options = {}, more = {}) {
    return new Exchange(this.base, method, query({ sid: this.sid, ...more }), { ...this.options, ...options });
  }

  /** A GET, to be answered when there is something to tell. */
  poll(options) {
    return this.request("GET", options);
  }

  /** The same, once the server has it. */
  polling(options) {
    return this.poll(options).arrived();
  }

  /** A POST of these packets. */
  post(...packets) {
    return this.request("POST", { body: join(...packets) });
  }

  /** A POST that must be taken. */
  async say(...packets) {
    const { status, text } = await this.post(...packets).answer;
    assert.deepEqual([status, text], [200, "ok"], `POST ${packets.join(" ").slice(0, 200)}`);
  }

  /** An event that must be taken. */
  emit(name, payload) {
    return this.say(`42${JSON.stringify(payload === undefined ? [name] : [name, payload])}`);
  }

  /** Waits for such an event and gives its payload. */
  async next(name, where = () => true, ms) {
    const packet = await this.until((heard) => event(heard).name === name && where(event(heard).payload ?? {}), ms);
    return event(packet).payload;
  }

  /** One poll that must be answered with packets; they are noted in `heard` and returned. */
  async hear(options) {
    return this.note(await this.poll(options).answer);
  }

  note({ status, text }) {
    assert.equal(status, 200, `a poll answered ${status}: ${text}`);
    const packets = split(text);
    this.heard.push(...packets);
    return packets;
  }

  /** Polls until `where` accepts a packet, which is returned; those heard before count too. Answers pings. */
  async until(where, ms = PATIENCE_MS) {
    const deadline = Date.now() + ms;
    for (let at = 0; ; at++) {
      while (at >= this.heard.length) {
        assert.ok(Date.now() < deadline, `nothing like that within ${ms} ms: ${this.heard.slice(-10)}`);
        if ((await this.hear()).includes("2")) await this.say("3");
      }
      if (where(this.heard[at])) return this.heard[at];
    }
  }

  /** A round trip: when it is over, everything posted before has been handled, and no poll is pending. */
  async settle(mark = `m${++marks}`) {
    await this.say(echo(mark));
    await this.until((packet) => echoed(packet) === mark);
  }

  /** Whether the server still knows the session: it takes an empty-handed packet of it. */
  async lives() {
    const { status } = await this.post("6").answer;
    return status === 200;
  }

  /** Waits for the end of the session; fails unless it is then unknown to polling and to WebSocket. */
  async isGone() {
    await eventually("the session is gone", async () => !(await this.lives()));
    for (const method of ["GET", "POST"]) {
      const { status, body } = await this.request(method, { body: method === "POST" ? "6" : undefined }).answer;
      assert.deepEqual([method, status, body?.code, body?.message], [method, 400, 1, "Session ID unknown"]);
    }
    assert.equal((await new Socket(this.base, { sid: this.sid }).opened).status, 400);
  }

  /** A WebSocket that may take the session over. */
  socket(options) {
    return new Socket(this.base, { sid: this.sid, ...options });
  }

  /** The upgrade as a client does it: probe, last poll, upgrade packet; gives the WebSocket. */
  async upgrade() {
    const socket = this.socket();
    const poll = this.poll();
    await socket.probed();
    this.note(await poll.answer);
    socket.send("5");
    return socket;
  }
}

let marks = 0;

/** The name and payload of an event; of none for another packet. */
function event(packet) {
  const [name, payload] = packet.startsWith("42") ? JSON.parse(packet.slice(2)) : [];
  return { name, payload };
}

/** A packet that is answered with its own mark, bound or not: a connect to a namespace that is not there. */
export const echo = (mark) => `40/${mark},`;
/** The mark of such an answer; undefined for any other packet. */
export const echoed = (packet) => /^44\/(\w+),/.exec(packet)?.[1];

/** A WebSocket of the Engine.IO path. */
export class Socket {
  constructor(base, { sid, transport = "websocket", EIO, headers } = {}) {
    this.heard = [];
    this.waiting = [];
    this.ws = new WebSocket(`${base.replace("http", "ws")}${PATH}${query({ EIO, transport, sid })}`, { headers });
    this.ws.on("error", () => {});
    /** `{status}`: 101, the status of a refusal with its text, or `closed`. */
    this.opened = new Promise((resolve) => {
      this.ws.once("open", () => resolve({ status: 101 }));
      this.ws.once("unexpected-response", (request, response) => {
        const chunks = [];
        response.on("data", (chunk) => chunks.push(chunk));
        response.on("close", () => {
          const text = Buffer.concat(chunks).toString("utf8");
          resolve({ status: response.statusCode, text, body: parse(text) });
        });
      });
      this.ws.once("close", () => resolve({ status: "closed" }));
    });
    this.closed = new Promise((resolve) => this.ws.once("close", (code) => resolve(code)));
    this.over = false;
    this.closed.then(() => {
      this.over = true;
      this.waiting.splice(0).forEach((look) => look());
    });
    this.ws.on("message", (data, isBinary) => {
      this.heard.push(isBinary ? data : data.toString("utf8"));
      [...this.waiting].forEach((look) => look());
    });
  }

  send(...packets) {
    packets.forEach((packet) => this.ws.send(packet));
    return this;
  }

  /** Opens and probes: afterwards the server has answered `3probe`. */
  async probed() {
    assert.equal((await this.opened).status, 101);
    this.send("2probe");
    await this.until((packet) => packet === "3probe");
    return this;
  }

  /** Waits until `where` accepts a packet heard, and returns it. */
  until(where, ms = PATIENCE_MS) {
    const trace = new Error();
    return new Promise((resolve, reject) => {
      const fail = (why) => {
        trace.message = `${why}: ${this.heard.slice(-10)}`;
        reject(trace);
      };
      const look = () => {
        const packet = this.heard.find(where);
        if (packet === undefined && !this.over) return;
        clearTimeout(timer);
        this.waiting.splice(this.waiting.indexOf(look), 1);
        if (packet === undefined) fail("closed before it came");
        else resolve(packet);
      };
      const timer = setTimeout(() => {
        this.waiting.splice(this.waiting.indexOf(look), 1);
        fail(`not within ${ms} ms`);
      }, ms);
      this.waiting.push(look);
      look();
    });
  }

  /** The code of the close; undefined if it stays open for `ms`. */
  async closeCode(ms = PATIENCE_MS) {
    let timer;
    const late = new Promise((resolve) => (timer = setTimeout(resolve, ms)));
    const code = await Promise.race([this.closed, late]);
    clearTimeout(timer);
    return code;
  }

  /** A round trip. */
  async settle(mark = `m${++marks}`) {
    this.send(echo(mark));
    await this.until((packet) => echoed(packet) === mark);
  }

  close() {
    this.ws.close();
  }

  terminate() {
    this.ws.terminate();
  }
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

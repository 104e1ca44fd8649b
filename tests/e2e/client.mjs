// A person with a browser: one face over every transport, those of the official socket.io-client and plain `/ws`.
//
// Everything heard is logged in `events`; tests wait for what they expect (`next`) instead of sleeping.

import http from "node:http";
import https from "node:https";
import { io } from "socket.io-client";
import WebSocket from "ws";
import { Exchange, query } from "./engine.mjs";

export const PATIENCE_MS = 12_000;
export const TRANSPORTS = ["socket.io", "/ws"];
/** The official client by long polling: for good (or until `upgrade`), and upgrading at once as it does by default. */
export const POLLING = ["polling", "polling+websocket"];

let addresses = 0;

/** An address that no other client of this process has, for `X-Forwarded-For`. */
export function freshAddress() {
  const number = ++addresses;
  return `10.${(number >> 16) & 255}.${(number >> 8) & 255}.${number & 255}`;
}

const over = (url) => (url?.startsWith("https:") ? https : http);

/** Kept connections to `url`. `reach` is how to come there, as Node's `tls.connect` takes it: `ca`, `localAddress`. */
export const kept = (url, { reach, maxSockets } = {}) => new (over(url).Agent)({ keepAlive: true, ...(maxSockets && { maxSockets }), ...reach });

/** One HTTP request: `{status, headers, bytes, text, body}`, `body` parsed if it is JSON. */
export function request(base, method, path, { token, body, headers = {}, address, agent } = {}) {
  const payload = body === undefined || typeof body === "string" || Buffer.isBuffer(body) ? body : JSON.stringify(body);
  const head = {
    ...(payload === undefined ? {} : { "content-type": "application/json", "content-length": Buffer.byteLength(payload) }),
    ...(token ? { authorization: `Bearer ${token}` } : {}),
    ...(address ? { "x-forwarded-for": address } : {}),
    ...headers,
  };
  return new Promise((resolve, reject) => {
    const sent = over(base).request(`${base}${path}`, { method, headers: head, agent, timeout: 30_000 }, (response) => {
      const chunks = [];
      response.on("data", (chunk) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () => {
        const bytes = Buffer.concat(chunks);
        const text = bytes.toString("utf8");
        resolve({ status: response.statusCode, headers: response.headers, bytes, text, body: parse(text) });
      });
    });
    sent.on("timeout", () => sent.destroy(new Error(`no answer to ${method} ${path}`)));
    sent.on("error", (error) => {
      // A kept connection may be closed by the server at the moment we use it again: that is no fault of either.
      const again = sent.reusedSocket && error.code === "ECONNRESET";
      if (again) request(base, method, path, { token, body, headers, address }).then(resolve, reject);
      else reject(new Error(`${method} ${path}: ${error.message}`));
    });
    sent.end(payload);
  });
}

/** A request that must succeed; gives its body. */
export async function ok(answer) {
  const { status, text, body } = await answer;
  if (status !== 200) throw new Error(`expected 200, got ${status}: ${text}`);
  return body;
}

export class Client {
  /** Makes a guest over HTTP. Nothing is connected yet. A server that is reached in some way says so by `reach`. */
  static async signUp(server, transport, { name = "Ada", gender = "female", ...rest } = {}) {
    const client = new Client(server, transport, { name, gender, address: freshAddress(), reach: server.reach });
    const agent = client.account.reach && client.agent;
    const made = await ok(client.http("POST", "/auth/guest", { body: { name, gender, ...rest }, agent }));
    Object.assign(client.account, { id: made.userId, token: made.sessionToken, signedUp: made });
    return client;
  }

  /** `account`: `{id, token, name, address, reach}`; without a token the client stays unbound. */
  constructor(server, transport, account) {
    this.server = server;
    this.transport = transport;
    this.account = account;
    this.events = [];
    this.waiting = [];
    this.tabs = [];
    this.agent = kept(server.url, { reach: account.reach, maxSockets: 2 });
  }

  get id() {
    return this.account.id;
  }

  get name() {
    return this.account.name;
  }

  get token() {
    return this.account.token;
  }

  /** An HTTP request with this person's token and address. */
  http(method, path, options = {}) {
    const { token, address } = this.account;
    return request(this.server.url, method, path, { token, address, agent: this.agent, ...options });
  }

  async get(path) {
    return ok(this.http("GET", path));
  }

  /** Opens the connection and, given a token, waits until it is bound. */
  async connect({ reconnection = false } = {}) {
    await this.open({ reconnection });
    if (this.token) await this.bound();
    return this;
  }

  /** Opens the connection and says who we are, as the frontend does; waits for the transport only. */
  async open({ reconnection = false } = {}) {
    const Wire = this.transport === "/ws" ? PlainWire : SocketIoWire;
    this.wire?.close();
    this.closed = new Promise((resolve) => (this.onClosed = resolve));
    this.wire = new Wire(this, { reconnection });
    await this.wire.open();
    return this;
  }

  /** Waits until the connection just opened is bound: Socket.IO says so to the handshake and to the event. */
  async bound() {
    for (let times = this.transport === "/ws" ? 1 : 2; times > 0; times--) await this.next("auth:success");
  }

  /** Another connection of the same person. */
  async tab(transport = this.transport) {
    const tab = new Client(this.server, transport, this.account);
    this.tabs.push(tab);
    return tab.connect();
  }

  emit(name, payload) {
    this.wire.send(payload === undefined ? [name] : [name, payload]);
  }

  /** Sends an event as exactly this JSON text. */
  emitRaw(json) {
    this.wire.sendRaw(json);
  }

  hear(name, payload, raw) {
    const event = { name, payload, raw, at: Date.now(), taken: false };
    this.events.push(event);
    const index = this.waiting.findIndex((waiter) => waiter.name === name && waiter.where(payload ?? {}));
    if (index >= 0) this.waiting.splice(index, 1)[0].take(event);
  }

  /** The payload of the next such event, heard already or not; each event is given out once. */
  async next(name, where, ms) {
    return (await this.nextEvent(name, where, ms)).payload;
  }

  nextEvent(name, where = () => true, ms = PATIENCE_MS) {
    const heard = this.events.find((event) => !event.taken && event.name === name && where(event.payload ?? {}));
    if (heard) {
      heard.taken = true;
      return Promise.resolve(heard);
    }
    const trace = new Error();
    return new Promise((resolve, reject) => {
      const waiter = { name, where };
      const timer = setTimeout(() => {
        this.waiting.splice(this.waiting.indexOf(waiter), 1);
        trace.message = `${this.name} (${this.transport}) did not hear ${name} within ${ms} ms; heard ${this.heard()}`;
        reject(trace);
      }, ms);
      waiter.take = (event) => {
        clearTimeout(timer);
        event.taken = true;
        resolve(event);
      };
      this.waiting.push(waiter);
    });
  }

  /** The payloads of all such events so far, taken or not. */
  all(name, where = () => true) {
    return this.events.filter((event) => event.name === name && where(event.payload ?? {})).map((event) => event.payload);
  }

  /** Fails if such an event has been heard or comes within `ms`. */
  async never(name, ms, where = () => true) {
    await new Promise((resolve) => setTimeout(resolve, ms));
    const heard = this.all(name, where);
    if (heard.length > 0) throw new Error(`${this.name} (${this.transport}) heard ${name}: ${JSON.stringify(heard)}`);
  }

  /** A round trip: when it is over, everything said before on this connection has been handled. */
  async settle() {
    this.emit("auth", { sessionToken: this.token });
    await this.next("auth:success");
  }

  /** The last events but for other people's presence, for messages. */
  heard() {
    const events = this.events.filter(({ name, payload }) => !/^(queue|presence):update$/.test(name) || payload.userId === this.id);
    return events.slice(-16).map(({ name, payload }) => `${name} ${JSON.stringify(payload ?? null).slice(0, 120)}`).join("; ") || "nothing";
  }

  /** Takes a connection that polls to WebSocket, now; waits until it is there. */
  upgrade() {
    return this.wire.upgrade();
  }

  /** Loses the transport: the socket is torn down without a word. */
  drop() {
    this.wire.terminate();
  }

  /** Leaves on purpose. */
  leave() {
    this.wire.close();
  }

  /** Waits until the connection is closed by either side; gives `{code, reason}`. */
  async ended(ms = PATIENCE_MS) {
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`${this.name} (${this.transport}) is still connected after ${ms} ms; heard ${this.heard()}`)), ms);
    });
    try {
      return await Promise.race([this.closed, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  dispose() {
    this.tabs.forEach((tab) => tab.dispose());
    this.wire?.close();
    this.agent.destroy();
  }
}

/** The official client, with the options that the frontend uses, over one way of transport. */
class SocketIoWire {
  constructor(client, { reconnection }) {
    const { token, address, reach } = client.account;
    this.client = client;
    this.raw = [];
    this.polls = client.transport !== "socket.io";
    // Kept connections, as a browser keeps them; also what `terminate` tears down.
    this.agent = this.polls ? kept(client.server.url, { reach }) : undefined;
    this.socket = io(client.server.url, {
      transports: this.polls ? ["polling", "websocket"] : ["websocket"],
      upgrade: client.transport === "polling+websocket",
      auth: token ? { token } : {},
      extraHeaders: address ? { "x-forwarded-for": address } : {},
      ...reach,
      agent: this.agent,
      forceNew: true,
      reconnection,
      autoConnect: false,
    });
    // Before the client decodes a packet we note its text, to compare payloads byte by byte.
    this.socket.io.on("open", () => {
      this.raw = [];
      this.socket.io.engine.on("packet", ({ type, data }) => {
        if (type === "message" && typeof data === "string" && data.startsWith("2")) this.raw.push(data.slice(1));
      });
    });
    this.socket.onAny((name, payload) => client.hear(name, payload, this.raw.shift()));
    this.socket.on("connect", () => token && this.socket.emit("auth", { sessionToken: client.token }));
    this.socket.on("disconnect", (reason) => client.onClosed({ reason }));
  }

  /** `polling` or `websocket`: what it speaks now. */
  get speaks() {
    return this.socket.io.engine.transport.name;
  }

  open() {
    return new Promise((resolve, reject) => {
      this.socket.once("connect", resolve);
      this.socket.once("connect_error", (error) => reject(new Error(`connect_error: ${error.message} ${error.context?.responseText ?? ""}`.trim())));
      this.socket.connect();
    });
  }

  send(event) {
    this.socket.emit(...event);
  }

  sendRaw(json) {
    this.socket.io.engine.write(`2${json}`);
  }

  /** Waits for the upgrade under way, or begins one. */
  upgrade() {
    const { engine } = this.socket.io;
    return new Promise((resolve, reject) => {
      engine.once("upgrade", resolve);
      engine.once("upgradeError", reject);
      if (this.speaks === "websocket") resolve();
      else if (!engine.opts.upgrade) engine._probe("websocket");
    });
  }

  terminate() {
    const { engine } = this.socket.io;
    if (this.speaks === "websocket") return engine.transport.ws.terminate();
    const sid = engine.id;
    // The client has lost its session and posts nothing more, no farewell either.
    engine.transport.readyState = "closed";
    engine._onClose("transport error");
    setImmediate(() => setImmediate(() => this.tear(sid)));
  }

  /** Tears down the poll. One that was just answered leaves nothing to tear: then another is begun, until the server knows. */
  async tear(sid) {
    this.agent.destroy();
    for (let known = true; known; ) {
      const poll = new Exchange(this.client.server.url, "GET", query({ sid }));
      await poll.arrived();
      poll.destroy();
      known = [200, "closed"].includes((await poll.answer).status) && this.client.server.alive;
    }
  }

  close() {
    this.socket.disconnect();
  }
}

/** The same events as bare JSON arrays. */
class PlainWire {
  constructor(client) {
    this.client = client;
  }

  open() {
    const { token, address, reach } = this.client.account;
    const { client } = this;
    this.socket = new WebSocket(`${client.server.url.replace("http", "ws")}/ws`, {
      ...reach,
      headers: address ? { "x-forwarded-for": address } : {},
    });
    this.socket.on("message", (data) => {
      const raw = data.toString("utf8");
      const [name, payload] = JSON.parse(raw);
      client.hear(name, payload, raw);
    });
    this.socket.on("close", (code, reason) => client.onClosed({ code, reason: reason.toString() }));
    return new Promise((resolve, reject) => {
      this.socket.once("error", reject);
      this.socket.once("open", () => {
        this.socket.off("error", reject);
        this.socket.on("error", () => {});
        if (token) this.send(["auth", { sessionToken: token }]);
        resolve();
      });
    });
  }

  send(event) {
    this.socket.send(JSON.stringify(event));
  }

  sendRaw(json) {
    this.socket.send(json);
  }

  terminate() {
    this.socket.terminate();
  }

  close() {
    this.socket.close(1000);
  }
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

// A WebSocket client that costs next to nothing, for thousands at a time, and that knows how many bytes each frame had.
//
// Masks are zero, so masking is free; messages are cut out of the stream in place. Compressed messages are inflated one
// by one, which is right as long as the server takes no context over; `inflates: false` leaves them as they are.

import { randomBytes } from "node:crypto";
import http from "node:http";
import net from "node:net";
import zlib from "node:zlib";
import { ok, request } from "./client.mjs";

export const DEFLATE_OFFER = "permessage-deflate; client_max_window_bits";
const PATIENCE_MS = 20_000;
const SIGN_UPS_AT_ONCE = 24;
const NO_BYTES = Buffer.alloc(0);

/** Runs `work` on every item, so many at a time, in order. */
export async function each(items, atOnce, work) {
  const queue = items.entries();
  await Promise.all(Array.from({ length: atOnce }, async () => {
    for (const [index, item] of queue) await work(item, index);
  }));
}

/** So many guests: `{id, token}` each. */
export async function guests(url, count, { name = "Guest" } = {}) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: SIGN_UPS_AT_ONCE });
  const made = new Array(count);
  await each(Array.from({ length: count }), SIGN_UPS_AT_ONCE, async (_, index) => {
    const body = { name: `${name} ${index}`, gender: "unspecified" };
    const { userId, sessionToken } = await ok(request(url, "POST", "/auth/guest", { body, agent }));
    made[index] = { id: userId, token: sessionToken };
  });
  agent.destroy();
  return made;
}

/** The payload of a compressed message (RFC 7692 7.2.1). */
export function deflated(payload) {
  return zlib.deflateRawSync(payload, { finishFlush: zlib.constants.Z_SYNC_FLUSH }).subarray(0, -4);
}

/** A message as one frame of a client. */
export function frame(payload, { opcode = 1, fin = true, compressed = false } = {}) {
  const body = Buffer.isBuffer(payload) ? payload : Buffer.from(payload);
  const wide = body.length < 126 ? 0 : body.length < 65_536 ? 2 : 8;
  const bytes = Buffer.alloc(2 + wide + 4 + body.length);
  bytes[0] = (fin ? 0x80 : 0) | (compressed ? 0x40 : 0) | opcode;
  bytes[1] = 0x80 | (wide === 0 ? body.length : wide === 2 ? 126 : 127);
  if (wide === 2) bytes.writeUInt16BE(body.length, 2);
  if (wide === 8) bytes.writeBigUInt64BE(BigInt(body.length), 2);
  body.copy(bytes, 2 + wide + 4);
  return bytes;
}

export class LeanSocket {
  /**
   * Opens a WebSocket. `offer`: the extension asked for; `dialect`: "/ws" or "socket.io"; `from`: the source address.
   * `hear(name, payload, meta)` gets every event that nobody awaits; `meta`: `{wire, plain, compressed}`, bytes.
   */
  static open(port, options = {}) {
    const self = new LeanSocket();
    Object.assign(self, { dialect: "/ws", hear: () => {}, inflates: true, ...options });
    self.rest = NO_BYTES;
    self.waiting = [];
    self.closed = undefined;
    const path = self.dialect === "/ws" ? "/ws" : "/socket.io/?EIO=4&transport=websocket";
    const extensions = self.offer ? `Sec-WebSocket-Extensions: ${self.offer}\r\n` : "";
    self.socket = net.connect({ port, host: "127.0.0.1", localAddress: self.from });
    self.socket.setNoDelay(true);
    self.socket.write(
      `GET ${path} HTTP/1.1\r\nHost: duet\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n${extensions}` +
        `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${randomBytes(16).toString("base64")}\r\n\r\n`,
    );
    return new Promise((resolve, reject) => {
      self.opened = (head) => {
        self.extensions = /^sec-websocket-extensions:\s*(.*)$/im.exec(head)?.[1];
        if (/^HTTP\/1.1 101 /.test(head)) resolve(self);
        else reject(new Error(`no upgrade: ${head}`));
      };
      self.socket.on("data", (data) => self.take(data));
      self.socket.on("error", (error) => self.end({ error: error.code }, reject));
      self.socket.on("close", () => self.end({}, reject));
    });
  }

  get deflates() {
    return /permessage-deflate/.test(this.extensions ?? "");
  }

  /** Authenticates, in the way of the dialect, and waits until bound. */
  async bind(token) {
    const bound = this.next("auth:success");
    if (this.dialect === "/ws") this.emit("auth", { sessionToken: token });
    else this.write(frame(`40${JSON.stringify({ token })}`));
    await bound;
    return this;
  }

  /** A round trip of somebody bound: everything said before has been handled. */
  async settle(token) {
    const bound = this.next("auth:success");
    this.emit("auth", { sessionToken: token });
    await bound;
  }

  emit(name, payload) {
    this.write(frame(this.text(name, payload)));
  }

  emitCompressed(name, payload) {
    this.write(frame(deflated(this.text(name, payload)), { compressed: true }));
  }

  text(name, payload) {
    return `${this.dialect === "/ws" ? "" : "42"}${JSON.stringify(payload === undefined ? [name] : [name, payload])}`;
  }

  write(bytes) {
    if (!this.closed) this.socket.write(bytes);
  }

  /** The payload of the next such event from now on. */
  async next(name, where) {
    return (await this.nextEvent(name, where)).payload;
  }

  nextEvent(name, where = () => true) {
    const trace = new Error();
    return new Promise((resolve, reject) => {
      const fail = (why) => {
        trace.message = `${name} was not heard: ${why}`;
        reject(trace);
      };
      const timer = setTimeout(() => fail(`nothing for ${PATIENCE_MS} ms`), PATIENCE_MS);
      this.waiting.push({ name, where, fail, timer, resolve });
    });
  }

  take(data) {
    let bytes = this.rest.length > 0 ? Buffer.concat([this.rest, data]) : data;
    if (this.opened) {
      const end = bytes.indexOf("\r\n\r\n");
      if (end < 0) return (this.rest = bytes);
      const { opened } = this;
      this.opened = undefined;
      opened(bytes.subarray(0, end + 2).toString("latin1"));
      bytes = bytes.subarray(end + 4);
    }
    let at = 0;
    while (at + 2 <= bytes.length) {
      let [length, start] = [bytes[at + 1] & 127, at + 2];
      if (length === 126) {
        if (at + 4 > bytes.length) break;
        [length, start] = [bytes.readUInt16BE(at + 2), at + 4];
      } else if (length === 127) {
        if (at + 10 > bytes.length) break;
        [length, start] = [Number(bytes.readBigUInt64BE(at + 2)), at + 10];
      }
      if (start + length > bytes.length) break;
      this.received(bytes[at], bytes.subarray(start, start + length), start + length - at);
      at = start + length;
    }
    this.rest = at === bytes.length ? NO_BYTES : Buffer.from(bytes.subarray(at));
  }

  received(first, payload, wire) {
    const opcode = first & 15;
    if (opcode === 9) this.write(frame(payload, { opcode: 10 }));
    if (opcode === 8) {
      this.goodbye = payload.length >= 2 ? payload.readUInt16BE(0) : 0;
      this.write(frame(payload, { opcode: 8 }));
      this.socket.end();
    }
    if (opcode !== 1) return;
    const compressed = (first & 0x40) !== 0;
    if (compressed && !this.inflates) return this.hear(undefined, undefined, { wire, compressed });
    const plain = compressed ? zlib.inflateRawSync(payload, { finishFlush: zlib.constants.Z_SYNC_FLUSH }) : payload;
    let text = plain.toString("utf8");
    if (this.dialect !== "/ws") {
      if (text === "2") this.write(frame("3"));
      if (!text.startsWith("42")) return;
      text = text.slice(2);
    }
    const [name, value] = JSON.parse(text);
    const meta = { wire, plain: plain.length, compressed };
    const index = this.waiting.findIndex((waiter) => waiter.name === name && waiter.where(value ?? {}));
    if (index < 0) return this.hear(name, value, meta);
    const [waiter] = this.waiting.splice(index, 1);
    clearTimeout(waiter.timer);
    waiter.resolve({ payload: value, ...meta });
  }

  end(how, reject) {
    if (this.closed) return;
    this.closed = { code: this.goodbye, ...how };
    reject(new Error(`closed: ${JSON.stringify(this.closed)}`));
    for (const { timer, fail } of this.waiting.splice(0)) {
      clearTimeout(timer);
      fail(`closed: ${JSON.stringify(this.closed)}`);
    }
    this.onClosed?.(this.closed);
  }

  /** Ends the connection with a reset: no port stays behind in TIME_WAIT. */
  destroy() {
    this.onClosed = undefined;
    this.socket.resetAndDestroy();
  }
}

/** Lets two bound connections call each other and enter the room; gives its id. */
export async function callBetween(caller, callee, calleeId, token) {
  callee.emit("queue:join");
  await callee.settle(token);
  const rings = callee.next("call:notify");
  caller.emit("call:invite", { toUserId: calleeId, requestedSeconds: 1800 });
  const { inviteId } = await rings;
  const starts = [caller.next("call:start"), callee.next("call:start")];
  callee.emit("call:accept", { inviteId, requestedSeconds: 1800 });
  const [{ roomId }] = await Promise.all(starts);
  for (const person of [caller, callee]) person.emit("room:join", { roomId });
  return roomId;
}

/** The value in the middle, or a quantile. */
export function quantile(values, q = 0.5) {
  if (values.length === 0) return NaN;
  const sorted = Float64Array.from(values).sort();
  if (q === 0.5 && sorted.length % 2 === 0) return (sorted[sorted.length / 2 - 1] + sorted[sorted.length / 2]) / 2;
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))];
}

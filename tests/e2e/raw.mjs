// Bytes on a socket, for what no well-behaved client would send: HTTP by hand, WebSocket frames by hand.

import { randomBytes } from "node:crypto";
import net from "node:net";
import { pause } from "./server.mjs";

const PATIENCE_MS = 5_000;

/** A TCP connection: `write`, and all that came back so far in `received`. */
export class RawSocket {
  static async connect(server, localAddress) {
    const raw = new RawSocket();
    raw.received = Buffer.alloc(0);
    raw.ended = false;
    raw.socket = net.connect({ port: server.port, host: "127.0.0.1", localAddress });
    raw.socket.on("data", (data) => (raw.received = Buffer.concat([raw.received, data])));
    for (const event of ["close", "error", "end"]) raw.socket.on(event, () => (raw.ended = true));
    await new Promise((resolve, reject) => raw.socket.once("connect", resolve).once("error", reject));
    return raw;
  }

  write(bytes) {
    if (!this.ended) this.socket.write(bytes);
    return this;
  }

  /** Waits until `done(received)` or the other side closes; gives whether it was done. */
  async until(done, ms = PATIENCE_MS) {
    const deadline = Date.now() + ms;
    while (Date.now() < deadline) {
      if (done(this.received)) return true;
      if (this.ended) return Boolean(done(this.received));
      await pause(5);
    }
    return false;
  }

  /** Waits for the other side to close. */
  async closes(ms = PATIENCE_MS) {
    await this.until(() => this.ended, ms);
    return this.ended;
  }

  /** The responses so far: `{status, headers, bytes, body}` each, in order. For responses framed by Content-Length. */
  responses({ head = false } = {}) {
    const list = [];
    let rest = this.received;
    for (;;) {
      const end = rest.indexOf("\r\n\r\n");
      if (end < 0) return list;
      const [first, ...lines] = rest.subarray(0, end).toString("latin1").split("\r\n");
      const headers = Object.fromEntries(lines.map((line) => [line.slice(0, line.indexOf(":")).toLowerCase(), line.slice(line.indexOf(":") + 1).trim()]));
      const status = Number(first.split(" ")[1]);
      const length = head || status < 200 || status === 204 ? 0 : Number(headers["content-length"] ?? 0);
      if (rest.length < end + 4 + length) return list;
      const bytes = rest.subarray(end + 4, end + 4 + length);
      list.push({ status, headers, bytes, body: bytes.toString("utf8") });
      rest = rest.subarray(end + 4 + length);
    }
  }

  /** Waits for so many responses. */
  async answers(count = 1, options = {}) {
    await this.until(() => this.responses(options).length >= count, options.ms);
    return this.responses(options);
  }

  close() {
    this.socket.destroy();
  }
}

/** Sends bytes on a connection of their own and gives the first response, or undefined if it was only closed. */
export async function exchange(server, bytes, options) {
  const raw = await RawSocket.connect(server);
  raw.write(bytes);
  const [answer] = await raw.answers(1, options);
  const open = !raw.ended;
  raw.close();
  return answer ?? (open ? { status: "silence" } : undefined);
}

/** A WebSocket on which every frame is made by hand. */
export class FrameSocket {
  static async open(server, path = "/ws", headers = "") {
    const self = new FrameSocket();
    self.raw = await RawSocket.connect(server);
    const key = randomBytes(16).toString("base64");
    self.raw.write(
      `GET ${path} HTTP/1.1\r\nHost: duet\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${key}\r\n${headers}\r\n`,
    );
    const [answer] = await self.raw.answers(1);
    if (answer?.status !== 101) throw new Error(`no upgrade: ${JSON.stringify(answer)}`);
    self.offset = self.raw.received.indexOf("\r\n\r\n") + 4;
    return self;
  }

  /** A frame with any bits: `{fin, rsv, opcode, mask, length}`; `length` may lie about the payload. */
  frame(payload = "", { fin = true, rsv = 0, opcode = 1, mask = true, length } = {}) {
    const body = Buffer.from(payload);
    const size = length ?? body.length;
    const first = (fin ? 0x80 : 0) | (rsv << 4) | opcode;
    const bit = mask ? 0x80 : 0;
    const head =
      size < 126
        ? Buffer.from([first, bit | size])
        : size < 65_536
          ? Buffer.from([first, bit | 126, size >> 8, size & 255])
          : Buffer.concat([Buffer.from([first, bit | 127]), bigEndian(size)]);
    const key = mask ? randomBytes(4) : Buffer.alloc(0);
    const masked = mask ? body.map((byte, i) => byte ^ key[i & 3]) : body;
    this.raw.write(Buffer.concat([head, key, masked]));
    return this;
  }

  text(payload) {
    return this.frame(payload);
  }

  /** What the server has sent: `{opcode, payload}` each. */
  frames() {
    const list = [];
    const bytes = this.raw.received;
    let at = this.offset;
    while (at + 2 <= bytes.length) {
      const opcode = bytes[at] & 15;
      let length = bytes[at + 1] & 127;
      let start = at + 2;
      if (length === 126) [length, start] = [at + 4 <= bytes.length ? bytes.readUInt16BE(at + 2) : Infinity, at + 4];
      else if (length === 127) [length, start] = [at + 10 <= bytes.length ? Number(bytes.readBigUInt64BE(at + 2)) : Infinity, at + 10];
      if (start + length > bytes.length) break;
      list.push({ opcode, payload: bytes.subarray(start, start + length) });
      at = start + length;
    }
    return list;
  }

  texts() {
    return this.frames().filter(({ opcode }) => opcode === 1).map(({ payload }) => payload.toString("utf8"));
  }

  /** Waits for a text frame that `where` accepts. */
  async heard(where, ms) {
    return this.raw.until(() => this.texts().some(where), ms);
  }

  /** The server's close frame, if it has come. */
  get goodbye() {
    return this.frames().find(({ opcode }) => opcode === 8);
  }

  /** Whether the server has closed, with a frame or without. */
  get over() {
    return this.raw.ended || this.goodbye !== undefined;
  }

  /** Waits for the server to close; gives the code of its close frame, `0` without one, undefined if it stays open. */
  async closeCode(ms) {
    await this.raw.until(() => this.over, ms);
    if (!this.over) return undefined;
    return this.goodbye?.payload.length >= 2 ? this.goodbye.payload.readUInt16BE(0) : 0;
  }

  /** Answers the server's close frame and waits for the end of the connection. */
  async ends(ms) {
    if (this.goodbye) this.frame(this.goodbye.payload, { opcode: 8 });
    return this.raw.closes(ms);
  }

  close() {
    this.raw.close();
  }
}

function bigEndian(size) {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(size));
  return bytes;
}

/** So many characters that no compression shortens much: what shrinks like a bomb is taken for one. */
export function noise(length) {
  return randomBytes(Math.ceil(length / 2)).toString("hex").slice(0, length);
}

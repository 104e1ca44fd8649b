// A proxy between duet and its Postgres that does what networks do: refuses, stalls, cuts, delays, loses answers.
//
// One fault at a time, for every connection, those open already included, until `mend`. It reads the frontend's messages
// (protocol 3, without TLS) to know which of them store something; everything else passes as bytes.

import net from "node:net";

const STARTUP = -1;
const [PARSE, BIND, QUERY] = ["P", "B", "Q"].map((letter) => letter.charCodeAt(0));
const WRITES = /^\s*(INSERT|UPDATE|DELETE|WITH guest)\b/;

/** What happens to the bytes of one connection; each is given the link, the direction and what came. */
const FAULTS = {
  /** Connections are refused; those that stood are cut. */
  refuse: () => () => {},
  /** Connections stand, and nothing passes. */
  stall: () => (link, direction, bytes) => link.hold(direction, bytes),
  /** Everything comes, `ms` later in each direction. */
  delay: ({ ms }) => (link, direction, bytes) => link.later(direction, bytes, ms),
  /** Of what goes in `direction` each connection passes `after()` bytes, and is cut there. */
  cut: ({ direction: which, after }) => (link, direction, bytes) => {
    if (direction !== which) return link.send(direction, bytes);
    link.left ??= after();
    link.send(direction, bytes.subarray(0, link.left));
    link.left -= bytes.length;
    if (link.left <= 0) link.cut();
  },
  /** Of what goes in `direction` each connection passes `after()` bytes, and then nothing either way. */
  halt: ({ direction: which, after }) => (link, direction, bytes) => {
    link.left ??= after();
    const passed = direction === which ? Math.max(0, Math.min(link.left, bytes.length)) : link.left > 0 ? bytes.length : 0;
    link.send(direction, bytes.subarray(0, passed));
    if (direction === which) link.left -= bytes.length;
    if (passed < bytes.length) link.hold(direction, bytes.subarray(passed));
  },
  /** What stores something is passed on and done; its answer is lost with the connection. */
  loseWrites: () => (link, direction, bytes) => {
    if (direction === "reply" && link.requests.hasStored) return link.cut();
    link.send(direction, bytes);
  },
};

export class Proxy {
  /** In front of the server that `url` names. */
  static async start(url) {
    const proxy = new Proxy();
    proxy.target = new URL(url);
    proxy.links = new Set();
    await proxy.listen(0);
    proxy.port = proxy.listener.address().port;
    return proxy;
  }

  /** The URL of `database` through here; without TLS, which would hide the messages. */
  through(database) {
    const url = new URL(database);
    url.port = this.port;
    url.searchParams.set("sslmode", "disable");
    return url.href;
  }

  listen(port) {
    this.listener = net.createServer((client) => this.links.add(new Link(this, client)));
    return new Promise((resolve, reject) => this.listener.once("error", reject).listen(port, "127.0.0.1", resolve));
  }

  /** Begins a fault: a name of `FAULTS`, and what it needs. */
  async begin(name, options = {}) {
    this.fault = FAULTS[name](options);
    if (name !== "refuse") return;
    await this.close();
  }

  /** Everything passes again; what was held back first. */
  async mend() {
    this.fault = undefined;
    if (!this.listener.listening) await this.listen(this.port);
    this.links.forEach((link) => link.release());
  }

  /** Ends every connection, and takes no more. */
  async close() {
    const closed = new Promise((resolve) => this.listener.close(resolve));
    this.links.forEach((link) => link.cut());
    await closed;
  }
}

/** One connection, and the one that it leads to. */
class Link {
  constructor(proxy, client) {
    const { hostname, port } = proxy.target;
    this.proxy = proxy;
    this.requests = new Requests();
    this.held = [];
    this.ends = { reply: client, request: net.connect(port, hostname) };
    for (const [direction, from] of [["request", client], ["reply", this.ends.request]]) {
      from.setNoDelay(true);
      from.on("error", () => {});
      from.on("close", () => this.cut());
      from.on("data", (bytes) => {
        if (direction === "request") this.requests.read(bytes);
        const { fault } = proxy;
        if (fault) fault(this, direction, bytes);
        else this.send(direction, bytes);
        if (direction === "reply") this.requests.hasStored = false;
      });
    }
  }

  send(direction, bytes) {
    if (bytes.length > 0) this.ends[direction].write(bytes);
  }

  /** Keeps bytes until they are released. */
  hold(direction, bytes) {
    this.held.push({ direction, bytes });
    return this.held.at(-1);
  }

  later(direction, bytes, ms) {
    const kept = this.hold(direction, bytes);
    setTimeout(() => {
      if (this.held[0] === kept) this.send(direction, this.held.shift().bytes);
    }, ms);
  }

  release() {
    this.held.splice(0).forEach(({ direction, bytes }) => this.send(direction, bytes));
    this.left = undefined;
  }

  cut() {
    Object.values(this.ends).forEach((socket) => socket.destroy());
    this.proxy.links.delete(this);
  }
}

/** Follows what a frontend says, as far as it shows whether something was stored. */
class Requests {
  constructor() {
    this.rest = Buffer.alloc(0);
    this.statements = new Map();
    this.isStarted = false;
    /** Inside a transaction a statement stores nothing yet. */
    this.isInTransaction = false;
    this.hasStored = false;
  }

  read(bytes) {
    this.rest = Buffer.concat([this.rest, bytes]);
    for (;;) {
      const head = this.isStarted ? 1 : 0;
      if (this.rest.length < head + 4) return;
      const length = head + this.rest.readInt32BE(head);
      if (this.rest.length < length) return;
      this.take(this.isStarted ? this.rest[0] : STARTUP, this.rest.subarray(head + 4, length));
      this.rest = this.rest.subarray(length);
      this.isStarted = true;
    }
  }

  take(kind, body) {
    const [one, two] = body.toString("latin1").split("\0", 2);
    if (kind === PARSE) this.statements.set(one, two);
    if (kind === QUERY) {
      this.hasStored ||= one === "COMMIT";
      this.isInTransaction = one === "BEGIN";
    }
    if (kind === BIND && !this.isInTransaction) this.hasStored ||= WRITES.test(this.statements.get(two) ?? "");
  }
}

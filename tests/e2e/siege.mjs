// 200 calls signal at a fixed rate while the server is attacked, one attack after the other.
//
// Usage: node siege.mjs [--calls 200] [--seconds 8] [--alternations 3] [--only NAME,NAME] [--runtime R] [--shards N]
//        node siege.mjs --fast
//
// Quiet and attack alternate, so that a drift of the machine is not taken for the attack's doing. For each: the delay of
// the calls' signals (both ends of every call are in one process, with one clock), what the attackers were told, and the
// server's memory before, at its peak, and after. The attackers are a process of lowest priority: they stand for other
// machines, and must not win by taking the two cores from the server. Exits 1 if a signal is lost or out of order, if a
// call's connection is closed, if attackers are told what is not right, if the server ends, or if memory does not come
// back; never over time. `--fast` is the same with short windows and one alternation.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import net from "node:net";
import { setPriority } from "node:os";
import { performance } from "node:perf_hooks";
import { CALLS, SIGNALS_PER_CALL_AND_SECOND, ms } from "./calls.mjs";
import { DEFLATE_OFFER, LeanSocket, deflated, frame, guests, quantile } from "./lean.mjs";
import { RUNTIME, SHARDS, Server, pause } from "./server.mjs";
import { Worker, isWorker, serve } from "./worker.mjs";

const ACCOUNTS = 60;
const AFTER_MS = 10_000;
const GROWTH_MAX_KB = 32 * 1024;
const LIMIT_MS = 40 * 60_000;

// ---------------------------------------------------------------------------------------------------------------
// The attacks
// ---------------------------------------------------------------------------------------------------------------

const HOST = "Host: duet\r\n";

/**
 * Each: `what` with its rates; `right`: what attackers may be told; `run(attack)` sets it going until it is stopped.
 * `seconds`: how long at least, where a timeout is part of it; `after`: seconds until its traces may be gone.
 */
const ATTACKS = {
  slowloris: {
    what: "500 sockets, one byte of a header each second",
    right: ["408"],
    seconds: 14,
    run(attack) {
      for (let i = 0; i < 500; i++) {
        const socket = attack.connect({ delay: i, told: statusOf });
        socket.on("connect", () => {
          socket.write(`GET /health HTTP/1.1\r\n${HOST}X-Slow: `);
          const timer = attack.every(1_000, () => socket.writable && socket.write("a"));
          socket.on("close", () => clearInterval(timer));
        });
      }
    },
  },
  headers: {
    what: "heads of 64 KB, 200 a second, each on a connection of its own",
    right: ["431", "reset"],
    run(attack) {
      const bytes = Buffer.from(`GET /health HTTP/1.1\r\n${HOST}X-Filler: ${"x".repeat(65_536)}\r\n\r\n`);
      attack.pace(200, () => attack.connect({ told: statusOf }).write(bytes));
    },
  },
  chunks: {
    what: "endless chunked body, 50 sockets with 4 KB each 50 ms, again once refused",
    right: ["413", "408", "reset"],
    run(attack) {
      const chunk = Buffer.from(`1000\r\n${"x".repeat(4_096)}\r\n`);
      const one = () => {
        const socket = attack.connect({ told: statusOf });
        socket.write(`POST /auth/guest HTTP/1.1\r\n${HOST}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n`);
        const timer = attack.every(50, () => socket.writable && socket.write(chunk));
        socket.on("close", () => {
          clearInterval(timer);
          if (attack.running) setTimeout(() => attack.running && one(), 100);
        });
      };
      for (let i = 0; i < 50; i++) one();
    },
  },
  hoard: {
    what: "1,000 requests that hold 98 KB of an unfinished body each",
    right: ["408"],
    run(attack) {
      const bytes = Buffer.from(`POST /auth/guest HTTP/1.1\r\n${HOST}Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n${"x".repeat(98_000)}`);
      let opened = 0;
      attack.pace(500, () => opened++ < 1_000 && attack.connect({ told: statusOf }).write(bytes));
    },
  },
  fragments: {
    what: "messages in 65,536 fragments of one byte, 10 sockets, each 1 s after its last was answered",
    right: ["answered", "1008", "1009"],
    async run(attack) {
      for (let i = 0; i < 10; i++) {
        const token = attack.account();
        const bytes = inFragments(`["auth",{"sessionToken":"${token}"}`.padEnd(65_535) + "]");
        const socket = await attack.open({}, token);
        if (!socket) continue;
        const again = () => attack.running && socket.write(bytes);
        socket.hear = (name) => {
          attack.tell(name === "auth:success" ? "answered" : name);
          setTimeout(again, 1_000);
        };
        again();
      }
    },
  },
  bomb: {
    what: "compressed messages of 10 KB that are 10 MB, 20 a second, each on a connection of its own",
    right: ["1009", "not negotiated"],
    run(attack) {
      const bytes = frame(deflated(Buffer.alloc(10_000_000, "x")), { compressed: true });
      attack.pace(20, async () => {
        const socket = await attack.open({ offer: DEFLATE_OFFER }, attack.account());
        if (!socket?.deflates) return socket && attack.leave(socket, "not negotiated");
        socket.write(bytes);
      });
    },
  },
  inflation: {
    what: "compressed messages of 5.5 KB that are 990 KB, as much as is allowed, 10 sockets, 4 a second each",
    right: ["answered", "1008", "not negotiated"],
    async run(attack) {
      for (let i = 0; i < 10; i++) {
        const token = attack.account();
        const socket = await attack.open({ offer: DEFLATE_OFFER }, token);
        if (!socket?.deflates) {
          if (socket) attack.leave(socket, "not negotiated");
          continue;
        }
        // A server may refuse what grows suspiciously; this grows 180 times.
        const filler = randomBytes(4_500).toString("base64");
        const bytes = frame(deflated(`["auth",{"sessionToken":"${token}","filler":"${filler}"}`.padEnd(990_000) + "]"), { compressed: true });
        socket.hear = (name) => attack.tell(name === "auth:success" ? "answered" : name);
        // Each in its turn: 40 a second, not ten at once.
        setTimeout(() => attack.running && attack.pace(4, () => socket.write(bytes)), 25 * i);
      }
    },
  },
  unread: {
    what: "20 clients in the queue that read nothing, while 18 others join and leave it 1,620 times a second (each is announced twice a second)",
    right: ["changes", "reset", "closed"],
    async run(attack) {
      // One more in the queue, who counts what there is to read.
      const witness = await attack.open({}, attack.account());
      if (!witness) return;
      witness.emit("queue:join");
      witness.hear = () => attack.tell("changes");
      for (let i = 0; i < 38; i++) {
        const socket = await attack.open({}, attack.account());
        if (!socket) continue;
        socket.emit("presence:join");
        socket.emit("queue:join");
        if (i < 20) {
          socket.socket.pause();
          continue;
        }
        // These read, but do not look at what they read.
        socket.take = () => {};
        let queued = true;
        attack.pace(90, () => {
          queued = !queued;
          socket.emit(queued ? "queue:join" : "queue:leave");
        });
      }
    },
  },
  silence: {
    what: "500 connections that say nothing, 50 clients that stop reading and answering, 50 that vanish with a reset",
    right: ["408", "closed", "gone by itself"],
    seconds: 14,
    async run(attack) {
      for (let i = 0; i < 500; i++) attack.connect({ delay: i, told: statusOf });
      for (let i = 0; i < 100; i++) {
        const socket = await attack.open({ offer: DEFLATE_OFFER }, attack.account());
        if (!socket) continue;
        if (i % 2 === 0) socket.socket.pause();
        else setTimeout(() => attack.leave(socket, "gone by itself"), 1_000);
      }
    },
  },
  garbage: {
    what: "1 KB of random bytes, or a TLS hello, 200 connections a second",
    right: ["400", "431", "reset", "closed"],
    run(attack) {
      const hello = Buffer.concat([Buffer.from("160301020001", "hex"), Buffer.from("0001fc0303", "hex"), randomBytes(508)]);
      let number = 0;
      attack.pace(200, () => attack.connect({ told: statusOf }).write(number++ % 2 ? hello : randomBytes(1_024)));
    },
  },
  polling: {
    what: "Engine.IO sessions opened and never polled, 200 a second to 1,000; each tenth polled twice at once",
    right: ["200", "400", "reset", "closed"],
    after: 40,
    run(attack) {
      const get = (query, tell) => {
        const socket = attack.connect({ told: tell });
        socket.write(`GET /socket.io/?EIO=4&transport=polling${query} HTTP/1.1\r\n${HOST}Connection: close\r\n\r\n`);
      };
      let opened = 0;
      attack.pace(200, () => {
        if (opened++ >= 1_000) return;
        const number = opened;
        get("", (bytes) => {
          const sid = /"sid":"([^"]+)"/.exec(bytes.toString("latin1"))?.[1];
          if (sid && number % 10 === 0 && attack.running) for (const _ of [1, 2]) get(`&sid=${sid}`, statusOf);
          return statusOf(bytes);
        });
      });
    },
  },
};

/** A text message, each byte of it a frame of its own. */
function inFragments(text) {
  const body = Buffer.from(text);
  const bytes = Buffer.alloc(body.length * 7);
  body.forEach((byte, i) => {
    bytes[7 * i] = (i === body.length - 1 ? 0x80 : 0) | (i === 0 ? 1 : 0);
    bytes[7 * i + 1] = 0x81;
    bytes[7 * i + 6] = byte;
  });
  return bytes;
}

/** The status of a response that has begun. */
function statusOf(bytes) {
  return /^HTTP\/1\.1 (\d+) /.exec(bytes.subarray(0, 16).toString("latin1"))?.[1] ?? "closed";
}

/** One attack under way: its sockets, its timers, and what it was told. */
class Attack {
  constructor(port, tokens) {
    Object.assign(this, { port, tokens, running: true, told: {}, sockets: new Set(), timers: new Set(), turn: 0 });
  }

  tell(what) {
    this.told[what] = (this.told[what] ?? 0) + 1;
  }

  account() {
    return this.tokens[this.turn++ % this.tokens.length];
  }

  every(ms, work) {
    const timer = setInterval(() => this.running && work(), ms);
    this.timers.add(timer);
    return timer;
  }

  /** Open-loop: so many a second, whatever becomes of them. */
  pace(perSecond, work) {
    const from = performance.now();
    let done = 0;
    this.every(5, () => {
      for (const due = Math.floor(((performance.now() - from) * perSecond) / 1000); done < due; done++) work();
    });
  }

  /** A bare connection; when it ends, `told` says what its bytes were. */
  connect({ told, delay = 0 }) {
    const socket = new net.Socket();
    const chunks = [];
    let end = "closed";
    socket.on("data", (data) => chunks.length < 8 && chunks.push(data));
    // Whoever goes on writing to a connection that is being closed is reset, in one way or another.
    socket.on("error", ({ code }) => (end = ["ECONNRESET", "EPIPE", "EINVAL"].includes(code) ? "reset" : code));
    socket.on("close", () => {
      this.sockets.delete(socket);
      if (!this.running) return;
      const bytes = Buffer.concat(chunks);
      this.tell(bytes.length > 0 ? told(bytes) : end);
    });
    socket.answered = () => (chunks.length > 0 ? told(Buffer.concat(chunks)) : "open");
    this.sockets.add(socket);
    const begin = () => this.running && socket.connect(this.port, "127.0.0.1");
    if (delay > 0) setTimeout(begin, delay);
    else begin();
    return socket;
  }

  /** A bound WebSocket; when it ends, its close code is told. */
  async open(options, token) {
    try {
      const socket = await LeanSocket.open(this.port, options);
      await socket.bind(token);
      if (!this.running) {
        socket.destroy();
        return undefined;
      }
      socket.onClosed = ({ code, error }) => {
        this.sockets.delete(socket);
        if (this.running) this.tell(code ? `${code}` : error === "ECONNRESET" ? "reset" : "closed");
      };
      this.sockets.add(socket);
      return socket;
    } catch (error) {
      if (this.running) this.tell(error.message);
      return undefined;
    }
  }

  /** Ends a connection ourselves, for a reason. */
  leave(socket, why) {
    if (!this.sockets.delete(socket)) return;
    this.tell(why);
    socket.destroy();
  }

  stop() {
    this.running = false;
    this.timers.forEach(clearInterval);
    for (const socket of this.sockets) {
      this.tell(socket.answered?.() ?? "open");
      if (socket instanceof LeanSocket) socket.destroy();
      else if (socket.connecting || socket.pending) socket.destroy();
      else socket.resetAndDestroy();
    }
    return this.told;
  }
}

class Attackers {
  async make({ url, port }) {
    setPriority(19);
    this.port = port;
    this.tokens = (await guests(url, ACCOUNTS, { name: "Attacker" })).map(({ token }) => token);
  }

  async start({ name }) {
    this.cpu = process.cpuUsage();
    this.attack = new Attack(this.port, this.tokens);
    Promise.resolve(ATTACKS[name].run(this.attack)).catch((error) => this.attack.tell(`failed: ${error.message}`));
  }

  async stop() {
    const told = this.attack.stop();
    const { user, system } = process.cpuUsage(this.cpu);
    return { told, cpu: (user + system) / 1e6 };
  }
}

// ---------------------------------------------------------------------------------------------------------------
// The siege
// ---------------------------------------------------------------------------------------------------------------

const mib = (kb) => (kb / 1024).toFixed(1);

async function main(options) {
  const began = Date.now();
  const watchdog = setTimeout(() => fail(`not finished in ${LIMIT_MS} ms`), LIMIT_MS);
  const server = await Server.start({ runtime: options.runtime, shards: options.shards });
  const fail = (why) => {
    console.error(`siege: FAILED: ${why}\n--- the server's log ends\n${server.tail(30)}`);
    process.exit(1);
  };
  const calls = new Worker(CALLS, "calls", fail);
  const attackers = new Worker(import.meta.url, "attackers", fail);
  const { url, port } = server;
  const { deflates } = await calls.ask("make", { url, port, calls: options.calls });
  await attackers.ask("make", { url, port });
  await calls.ask("begin");
  console.log(`siege: ${options.calls} calls, ${options.calls * SIGNALS_PER_CALL_AND_SECOND} signals a second, ${options.runtime}, ${options.shards} shards, permessage-deflate ${deflates ? "negotiated" : "declined"}, ${mib(server.rssKb())} MiB`);

  let peak = 0;
  const sampler = setInterval(() => server.alive && (peak = Math.max(peak, server.rssKb())), 100);
  const measure = async (seconds) => {
    const cpu = server.cpuSeconds();
    const measured = await calls.ask("measure", { ms: seconds * 1000 });
    if (!server.alive) fail("the server has ended");
    if (measured.faults.length > 0) fail(measured.faults.slice(0, 8).join("\n"));
    return { ...measured, cpu: (server.cpuSeconds() - cpu) / (seconds + 0.4) };
  };

  const rows = [];
  await measure(options.quiet);
  for (const name of options.only) {
    const { what, right, seconds = 0, after = 0 } = ATTACKS[name];
    const long = options.fast ? options.seconds : Math.max(options.seconds, seconds);
    const before = server.rssKb();
    peak = before;
    const [quiets, attacks, told, rounds] = [[await measure(options.quiet)], [], {}, []];
    let [spent, stoppedAt] = [0, 0];
    for (let i = 0; i < options.alternations; i++) {
      await attackers.ask("start", { name });
      attacks.push(await measure(long));
      const stopped = await attackers.ask("stop");
      stoppedAt = Date.now();
      spent += stopped.cpu / (long + 0.4) / options.alternations;
      for (const [key, count] of Object.entries(stopped.told)) told[key] = (told[key] ?? 0) + count;
      await pause(options.fast ? 200 : 1_500);
      quiets.push(await measure(options.quiet));
      rounds.push(server.rssKb());
    }
    // What is under way when the attack stops is open.
    const wrong = Object.keys(told).filter((key) => key !== "open" && !right.includes(key));
    if (wrong.length > 0) fail(`${name}: attackers were told ${JSON.stringify(told)}, right are ${right}`);
    // Memory is looked at after 10 s; in a hurry, as soon as it is back.
    const back = () => server.rssKb() <= before + GROWTH_MAX_KB;
    while (Date.now() < stoppedAt + AFTER_MS && !(options.fast && back())) await pause(50);
    const soon = server.rssKb();
    if (!options.fast && after > 0) await pause(Math.max(0, stoppedAt + after * 1000 - Date.now()));
    const left = server.rssKb();
    if (!back()) fail(`${name}: ${mib(before)} MiB before, ${mib(left)} MiB after`);

    const ratios = (key) => attacks.map((attack, i) => attack[key] / ((quiets[i][key] + quiets[i + 1][key]) / 2));
    const middle = (windows, key) => quantile(windows.map((window) => window[key]));
    const row = {
      name, what,
      told: Object.entries(told).map(([key, count]) => `${count} x ${key}`).join(", "),
      p50: [middle(quiets, "p50"), middle(attacks, "p50")],
      p99: [middle(quiets, "p99"), middle(attacks, "p99")],
      max: Math.max(...attacks.map(({ max }) => max)),
      r50: quantile(ratios("p50")),
      r99: quantile(ratios("p99")),
      memory: [before, peak, soon, ...(!options.fast && after > 0 ? [left] : [])].map(mib),
      rounds: rounds.map(mib),
      cpu: [middle(quiets, "cpu"), middle(attacks, "cpu"), spent].map((share) => Math.round(share * 100)),
      lag: [middle(quiets, "lag"), middle(attacks, "lag")],
      lagMax: Math.max(...attacks.map(({ lagMax }) => lagMax)),
    };
    rows.push(row);
    console.log(
      `siege: ${name}: ${row.told}; p50 ${row.p50.map(ms).join(" -> ")} ms (x ${row.r50.toFixed(2)}), p99 ${row.p99.map(ms).join(" -> ")} ms (x ${row.r99.toFixed(2)}), max ${ms(row.max)} ms; ` +
        `memory ${row.memory.join(" / ")} MiB, after each round ${row.rounds.join(", ")}; server ${row.cpu[0]} -> ${row.cpu[1]} % of a core, attackers ${row.cpu[2]} %, own lag p99 ${row.lag.map(ms).join(" -> ")}, max ${ms(row.lagMax)} ms`,
    );
  }
  const { total, faults } = await calls.ask("end");
  if (faults.length > 0) fail(faults.slice(0, 8).join("\n"));
  clearInterval(sampler);
  for (const worker of [calls, attackers]) worker.end();
  const end = await server.stop();
  if (end.code !== 0) fail(`the server ended with ${JSON.stringify(end)}`);
  clearTimeout(watchdog);

  console.log("\n| attack | what the attackers got | signals, p50: quiet, attack, ratio | p99: quiet, attack, ratio | resident, MiB: before, peak, 10 s after | server's processor: quiet, attack |\n| --- | --- | --- | --- | --- | --- |");
  for (const { what, told, p50, r50, p99, r99, memory, cpu } of rows) {
    const late = memory[3] ? ` (later ${memory[3]})` : "";
    console.log(`| ${what} | ${told} | ${p50.map(ms).join(", ")} ms, ${r50.toFixed(2)} | ${p99.map(ms).join(", ")} ms, ${r99.toFixed(2)} | ${memory.slice(0, 3).join(", ")}${late} | ${cpu[0]} %, ${cpu[1]} % |`);
  }
  console.log(`\nsiege: ${rows.length} attacks, ${total} signals, none lost or out of order, no call closed, in ${((Date.now() - began) / 1000).toFixed(0)} s`);
  console.log("e2e: 1 passed, 0 failed");
}

function parseArguments(words) {
  const options = { calls: 200, seconds: 8, quiet: 8, alternations: 3, only: Object.keys(ATTACKS), runtime: RUNTIME, shards: SHARDS, fast: false };
  while (words.length > 0) {
    const name = words.shift().replace(/^--/, "");
    assert.ok(name in options && (name === "fast" || words.length > 0), `usage: node siege.mjs [--fast] [--calls N] [--seconds N] [--quiet N] [--alternations N] [--only ${Object.keys(ATTACKS)}] [--runtime R] [--shards N]`);
    if (name === "fast") Object.assign(options, { fast: true, seconds: 3, quiet: 1, alternations: 1 });
    else if (name === "only") options.only = words.shift().split(",");
    else options[name] = typeof options[name] === "number" ? Number(words.shift()) : words.shift();
  }
  options.only.forEach((name) => assert.ok(name in ATTACKS, `there is no attack ${name}`));
  return options;
}

if (isWorker(import.meta.url)) serve({ attackers: Attackers });
else await main(parseArguments(process.argv.slice(2)));

// Passwords are hashed as fast as the pool can while 200 calls signal at a fixed rate beside them.
//
// Usage: node hashing.mjs [--calls 200] [--seconds 8] [--alternations 3] [--at-once 24] [--runtime R] [--shards N]
//        node hashing.mjs --fast
//
// Quiet windows alternate with windows in which guests sign up and link an e-mail (a hash each), and with windows in
// which permanent users log in (a verification each): so many clients, each of which asks again as soon as it is answered,
// in a process of lowest priority that stands for other machines. For each: the delay of the calls' signals, and how many
// were served a second. Exits 1 if a signal is lost or out of order, a call is closed, or a password is answered wrongly;
// never over time. `--fast` is the same with short windows and one alternation.

import assert from "node:assert/strict";
import http from "node:http";
import { setPriority } from "node:os";
import { CALLS, SIGNALS_PER_CALL_AND_SECOND, ms } from "./calls.mjs";
import { ok, request } from "./client.mjs";
import { each, quantile } from "./lean.mjs";
import { RUNTIME, SHARDS, Server, pause } from "./server.mjs";
import { Worker, isWorker, serve } from "./worker.mjs";

const LIMIT_MS = 15 * 60_000;
const RATIO_GOAL = 2;
const PASSWORD = "correct horse battery staple";
/** What hashes, and what one round of it is. */
const LOADS = { link: "sign-up and link", login: "log-in" };

/** The part that asks for hashes. */
class Visitors {
  async make({ url, atOnce }) {
    setPriority(19);
    this.url = url;
    this.agent = new http.Agent({ keepAlive: true, maxSockets: atOnce });
    this.made = 0;
    this.permanent = new Array(atOnce);
    await each(this.permanent, 2, async (_, index) => (this.permanent[index] = await this.link()));
  }

  post(path, body) {
    return request(this.url, "POST", path, { body, agent: this.agent });
  }

  /** A guest who becomes permanent; gives the e-mail. */
  async link() {
    const email = `visitor-${this.made++}@example.org`;
    const { sessionToken } = await ok(this.post("/auth/guest", { name: "Visitor", gender: "unspecified" }));
    const { accountType } = await ok(this.post("/auth/link", { sessionToken, email, password: PASSWORD }));
    assert.equal(accountType, "permanent");
    return email;
  }

  /** Somebody permanent comes back; each fourth mistypes his password first. */
  async login(index, turn) {
    const email = this.permanent[index];
    if (turn % 4 === 3) {
      const { status } = await this.post("/auth/login", { email, password: `${PASSWORD}?` });
      assert.equal(status, 401, "a wrong password");
      return;
    }
    await ok(this.post("/auth/login", { email, password: PASSWORD }));
  }

  start({ load }) {
    this.running = true;
    this.served = 0;
    this.from = performance.now();
    this.all = Promise.all(this.permanent.map(async (_, index) => {
      for (let turn = 0; this.running; turn++) {
        await this[load](index, turn);
        if (this.running) this.served += 1;
      }
    }));
    // A failure is told by `stop`.
    this.all.catch(() => {});
  }

  /** How many were served a second. */
  async stop() {
    this.running = false;
    const seconds = (performance.now() - this.from) / 1000;
    await this.all;
    return this.served / seconds;
  }
}

async function main(options) {
  const began = Date.now();
  const watchdog = setTimeout(() => fail(`not finished in ${LIMIT_MS} ms`), LIMIT_MS);
  const server = await Server.start({ runtime: options.runtime, shards: options.shards, "auth-failures": 0 });
  const fail = (why) => {
    console.error(`hashing: FAILED: ${why}\n--- the server's log ends\n${server.tail(30)}`);
    process.exit(1);
  };
  const calls = new Worker(CALLS, "calls", fail);
  const visitors = new Worker(import.meta.url, "visitors", fail);
  const { url, port } = server;
  await calls.ask("make", { url, port, calls: options.calls });
  await visitors.ask("make", { url, atOnce: options["at-once"] });
  await calls.ask("begin");
  console.log(`hashing: ${options.calls} calls, ${options.calls * SIGNALS_PER_CALL_AND_SECOND} signals a second, ${options.runtime}, ${options.shards} shards; ${options["at-once"]} clients at once`);

  const measure = async (seconds) => {
    const cpu = server.cpuSeconds();
    const measured = await calls.ask("measure", { ms: seconds * 1000 });
    if (measured.faults.length > 0) fail(measured.faults.slice(0, 8).join("\n"));
    return { ...measured, cpu: ((server.cpuSeconds() - cpu) / (seconds + 0.4)) * 100 };
  };
  const under = async (load) => {
    await visitors.ask("start", { load });
    // Until the pool is full.
    await pause(200);
    const measured = await measure(options.seconds);
    return { ...measured, rate: await visitors.ask("stop") };
  };

  await measure(1);
  const quiets = [await measure(options.seconds)];
  const loaded = { link: [], login: [] };
  for (let i = 0; i < options.alternations; i++) {
    for (const load of Object.keys(LOADS)) {
      const window = await under(load);
      quiets.push(await measure(options.seconds));
      const beside = quiets.slice(-2);
      for (const key of ["p50", "p99"]) window[`${key}Ratio`] = window[key] / ((beside[0][key] + beside[1][key]) / 2);
      loaded[load].push(window);
    }
  }
  const { total, faults } = await calls.ask("end");
  if (faults.length > 0) fail(faults.slice(0, 8).join("\n"));
  for (const worker of [calls, visitors]) worker.end();
  const end = await server.stop();
  if (end.code !== 0) fail(`the server ended with ${JSON.stringify(end)}`);
  clearTimeout(watchdog);

  const spread = (windows, key, show) => {
    const values = windows.map((window) => window[key]);
    return `${show(quantile(values))} (${show(Math.min(...values))} to ${show(Math.max(...values))})`;
  };
  const delays = (windows) => `p50 ${spread(windows, "p50", ms)} ms, p99 ${spread(windows, "p99", ms)} ms, server ${spread(windows, "cpu", Math.round)} % of a core, own lag p99 ${spread(windows, "lag", ms)} ms`;
  console.log(`hashing: quiet: ${delays(quiets)}`);
  for (const [load, what] of Object.entries(LOADS)) {
    const windows = loaded[load];
    console.log(`hashing: ${what}: ${spread(windows, "rate", (rate) => rate.toFixed(1))} a second; ${delays(windows)}`);
    console.log(`hashing: ${what}: p50 x ${spread(windows, "p50Ratio", ms)}, p99 x ${spread(windows, "p99Ratio", ms)} of the quiet windows beside it (goal: within ${RATIO_GOAL})`);
  }
  console.log(`hashing: ${total} signals, none lost or out of order, no call closed, in ${((Date.now() - began) / 1000).toFixed(0)} s`);
  console.log("e2e: 1 passed, 0 failed");
}

function parseArguments(words) {
  const options = { calls: 200, seconds: 8, alternations: 3, "at-once": 24, runtime: RUNTIME, shards: SHARDS, fast: false };
  while (words.length > 0) {
    const name = words.shift().replace(/^--/, "");
    assert.ok(name in options && (name === "fast" || words.length > 0), "usage: node hashing.mjs [--fast] [--calls N] [--seconds N] [--alternations N] [--at-once N] [--runtime R] [--shards N]");
    if (name === "fast") Object.assign(options, { fast: true, seconds: 2, alternations: 1 });
    else options[name] = typeof options[name] === "number" ? Number(words.shift()) : words.shift();
  }
  return options;
}

if (isWorker(import.meta.url)) serve({ visitors: Visitors });
else await main(parseArguments(process.argv.slice(2)));

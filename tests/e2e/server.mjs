// The server under test as a process: start, wait until it serves, stop, kill, start again on the same data.
//
// Which build and how it runs comes from the environment, so that one suite runs in every configuration:
// DUET_BIN (the binary), DUET_RUNTIME (auto, uring, epoll), DUET_SHARDS, DUET_CONFINEMENT (a name of `CONFINEMENTS`),
// DUET_DATABASE_URL (a Postgres where each server gets a database of its own; without it each has its folder).

import { execFileSync, spawn } from "node:child_process";
import dgram from "node:dgram";
import { chownSync, existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import http from "node:http";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const TARGET = process.env.CARGO_TARGET_DIR ?? join(HERE, "../../target");
const START_MS = 20_000;
const STOP_MS = 15_000;
const LOG_CHARS_MAX = 400_000;
/** The user without rights, another for each test file: what one may lock is counted for all his processes. */
export const NOBODY = process.getuid() === 0 ? 20_000 + (process.pid % 40_000) : process.getuid();
/** What a server may be confined by: the words for confine.py, and whether io_uring can be had. `user` may lock what the kernel allows anybody. */
const CONFINEMENTS = {
  none: { words: [], hasUring: true },
  docker: { words: ["docker"], hasUring: false },
  nobody: { words: ["nobody", String(NOBODY), "64"], hasUring: false },
  user: { words: ["nobody", String(NOBODY), "8192"], hasUring: true },
};

export const BIN = process.env.DUET_BIN ?? join(TARGET, "release/duet");
export const RUNTIME = process.env.DUET_RUNTIME ?? "auto";
export const SHARDS = process.env.DUET_SHARDS ?? "2";
export const CONFINEMENT = process.env.DUET_CONFINEMENT ?? "none";
/** Those that a server can be told to use, confined as it is. */
export const RUNTIMES = CONFINEMENTS[CONFINEMENT].hasUring ? ["uring", "epoll"] : ["epoll"];
export const DATABASE_URL = process.env.DUET_DATABASE_URL;

/** What a health check says first where connections come from proxies (PROXY protocol, version 2, LOCAL). */
export const PROXY_LOCAL = Buffer.from("\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", "latin1");

/** Flags that take limits out of the way; addresses may be chosen by `X-Forwarded-For`. */
export const UNLIMITED = {
  "trusted-proxies": "127.0.0.0/8",
  "signups-per-hour": 0,
  "logins-per-hour": 0,
  "api-per-minute": 0,
  "queue-list-max": 2000,
};

const running = new Set();
const folders = new Set();
const databases = new Set();
let databasesMade = 0;
process.on("exit", () => {
  running.forEach((child) => child.kill("SIGKILL"));
  databases.forEach((name) => sql(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`));
  folders.forEach((folder) => rmSync(folder, { recursive: true, force: true }));
});
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.once(signal, () => process.exit(1));

/** The arguments for these flags; `false` leaves a flag out. */
export function argumentsOf(flags) {
  const words = Object.entries(flags).filter(([, value]) => value !== false && value !== undefined);
  return words.flatMap(([name, value]) => [`--${name}`, String(value)]);
}

/** The words before a command that confine it. */
export function confining(confinement = CONFINEMENT) {
  const { words } = CONFINEMENTS[confinement];
  return words.length > 0 ? ["python3", join(HERE, "confine.py"), ...words] : [];
}

/** Program and arguments that run `binary`; `inside` are words that put it somewhere, such as into a namespace. */
function commandLine(args, { confinement, binary = BIN, inside = [] }) {
  const [program, ...words] = [...inside, ...confining(confinement), binary, ...args];
  return [program, words];
}

/** Only what the server may need, and what a test adds: no setting of the surrounding shell leaks into it. */
function environment(database, added = {}) {
  const kept = ["PATH", "HOME", "TMPDIR", "RUST_BACKTRACE", "LD_LIBRARY_PATH"];
  const passed = Object.fromEntries(kept.filter((name) => name in process.env).map((name) => [name, process.env[name]]));
  return { ...passed, ...(database && { DATABASE_URL: database }), ...added };
}

/** Runs one statement on the Postgres under test and gives what it printed. */
export function sql(statement, url = DATABASE_URL) {
  return execFileSync("psql", [url, "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--command", statement], { encoding: "utf8" }).trim();
}

/** The URL of a new, empty database on the Postgres at `url`. */
export function freshDatabase(url = DATABASE_URL) {
  const name = `e2e_${process.pid}_${databasesMade++}`;
  sql(`CREATE DATABASE ${name}`, url);
  if (url === DATABASE_URL) databases.add(name);
  return url.replace(/\/[^/]*$/, `/${name}`);
}

/** Runs the binary to its end: `{code, stdout, stderr}`. Killed after `ms`, then `code` is null. `started` gets the process. */
export function run(args, { ms = START_MS, database, env, started = () => {}, ...where } = {}) {
  const [program, words] = commandLine(args, where);
  return new Promise((resolve, reject) => {
    const child = spawn(program, words, { stdio: ["ignore", "pipe", "pipe"], env: environment(database, env) });
    running.add(child);
    started(child);
    const out = { stdout: "", stderr: "" };
    for (const stream of ["stdout", "stderr"]) child[stream].setEncoding("utf8").on("data", (text) => (out[stream] += text));
    const timer = setTimeout(() => child.kill("SIGKILL"), ms);
    child.on("error", reject);
    child.on("close", (code) => {
      clearTimeout(timer);
      running.delete(child);
      resolve({ code, ...out });
    });
  });
}

/** A port below the range that the kernel hands to outgoing connections, free a moment ago, and no other test process's. */
export async function freePort() {
  for (;;) {
    const port = 10_000 + Math.floor(Math.random() * 22_000);
    const probe = net.createServer();
    const isFree = await bound(probe, () => probe.listen(port, "127.0.0.1"));
    if (!isFree) continue;
    await new Promise((resolve) => probe.close(resolve));
    // It stays ours while we live: two processes that chose the same at once would find it free, both.
    const claim = dgram.createSocket("udp4").unref();
    if (await bound(claim, () => claim.bind(port, "127.0.0.2"))) return port;
  }
}

/** Whether `socket` could be bound, as `bind` tries. */
function bound(socket, bind) {
  return new Promise((resolve) => {
    socket.once("error", () => resolve(false)).once("listening", () => resolve(true));
    bind();
  });
}

/** A folder that a server so confined may write to; gone with this process. */
export function temporaryFolder(confinement = CONFINEMENT) {
  const folder = mkdtempSync(join(tmpdir(), "duet-e2e-"));
  if (CONFINEMENTS[confinement].words[0] === "nobody" && process.getuid() === 0) chownSync(folder, NOBODY, NOBODY);
  folders.add(folder);
  return folder;
}

export class Server {
  /** Starts a server and waits until it answers. `flags` override the defaults of the configuration. */
  static async start(flags = {}, { confinement, binary = BIN, database = DATABASE_URL && freshDatabase(), inside, env } = {}) {
    const server = new Server(flags, { confinement, binary, inside, env }, database);
    server.port = flags.port ?? (await freePort());
    await server.launch();
    return server;
  }

  /** Runs `body` with a server, which ends with it. */
  static async during(flags, body) {
    const server = await Server.start(flags);
    try {
      await explaining(server, () => body(server));
    } finally {
      await server.kill();
    }
  }

  constructor(flags, where, database) {
    this.where = where;
    this.database = database;
    this.folder = temporaryFolder(where.confinement);
    this.flags = { host: "127.0.0.1", runtime: RUNTIME, shards: SHARDS, data: join(this.folder, "data"), ...UNLIMITED, ...flags };
    this.log = "";
  }

  /** Starts the process on this server's port and data, and waits for its URL and for `/health`. */
  async launch() {
    const { binary } = this.where;
    if (!existsSync(binary)) throw new Error(`there is no server to test at ${binary}: cargo build --release first`);
    const [program, args] = commandLine(argumentsOf({ ...this.flags, port: this.port }), this.where);
    this.logAtLaunch = this.log.length;
    this.child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"], env: environment(this.database, { TMPDIR: this.folder, ...this.where.env }) });
    running.add(this.child);
    const note = (text) => {
      const cut = Math.max(0, this.log.length + text.length - LOG_CHARS_MAX);
      this.log = (this.log + text).slice(cut);
      this.logAtLaunch = Math.max(0, this.logAtLaunch - cut);
    };
    for (const stream of [this.child.stdout, this.child.stderr]) stream.setEncoding("utf8").on("data", note);
    this.exited = new Promise((resolve) => {
      this.child.once("error", (error) => resolve({ code: null, signal: String(error) }));
      this.child.once("close", (code, signal) => {
        running.delete(this.child);
        resolve({ code, signal });
      });
    });
    this.gone = false;
    this.exited.then(() => (this.gone = true));
    await this.ready();
  }

  async ready() {
    const deadline = Date.now() + START_MS;
    while (Date.now() < deadline && !this.gone) {
      this.url = this.printedUrl();
      if (this.url && (await answers(this.url, this.flags["proxy-protocol"] === "on"))) return;
      await pause(20);
    }
    const why = this.gone ? `ended at its start: ${JSON.stringify(await this.exited)}` : `did not serve in ${START_MS} ms`;
    this.child.kill("SIGKILL");
    throw new Error(`the server ${why}; it printed:\n${this.log}`);
  }

  /** The URL that the server printed, made reachable from here. */
  printedUrl() {
    const printed = /http:\/\/[^\s"'<>]*:\d+/.exec(plain(this.log.slice(this.logAtLaunch)))?.[0];
    return printed && `http://127.0.0.1:${new URL(printed).port}`;
  }

  get pid() {
    return this.child.pid;
  }

  get alive() {
    return !this.gone;
  }

  /** Asks the process to end and gives `{code, signal, ms}`. */
  async stop(signal = "SIGTERM") {
    const from = Date.now();
    if (!this.gone) this.child.kill(signal);
    const late = setTimeout(() => this.child.kill("SIGKILL"), STOP_MS);
    const end = await this.exited;
    clearTimeout(late);
    return { ...end, ms: Date.now() - from };
  }

  /** kill -9. */
  async kill() {
    return this.stop("SIGKILL");
  }

  /** The last lines of its log, for failures. */
  tail(lines = 15) {
    return plain(this.log).trimEnd().split("\n").slice(-lines).join("\n");
  }

  /** The lines of its log since it was last launched. */
  lines() {
    return plain(this.log.slice(this.logAtLaunch)).split("\n").filter((line) => line.trim() !== "");
  }

  /** Resident memory, KiB. */
  rssKb() {
    return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${this.pid}/status`, "utf8"))[1]);
  }

  /** Processor time used so far, user and system, seconds (100 ticks per second on every Linux we run on). */
  cpuSeconds() {
    const stat = readFileSync(`/proc/${this.pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return (Number(fields[11]) + Number(fields[12])) / 100;
  }
}

/** Runs `body`, and adds the end of the log of `server`, or of what stands for one, to a failure. */
export async function explaining(server, body) {
  try {
    await body();
  } catch (error) {
    if (error instanceof Error) error.message += `\n--- the server's log ends\n${server.tail()}`;
    throw error;
  }
}

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Repeats `probe` until it gives something truthy, which is returned. For states that no event announces. */
export async function eventually(what, probe, ms = 10_000) {
  const deadline = Date.now() + ms;
  for (;;) {
    const value = await probe();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`not within ${ms} ms: ${what}`);
    await pause(25);
  }
}

function plain(text) {
  return text.replace(/\x1b\[[0-9;]*m/g, "");
}

function answers(url, isBehindProxy) {
  /** Says first that it asks for itself. */
  const createConnection = ({ host, port }) => {
    const socket = net.connect({ host, port });
    socket.write(PROXY_LOCAL);
    return socket;
  };
  return new Promise((resolve) => {
    // As a proxy asks: production sends others to HTTPS.
    const headers = { "x-forwarded-proto": "https" };
    const options = { timeout: 2_000, headers, ...(isBehindProxy ? { createConnection } : { agent: false }) };
    const request = http.get(`${url}/health`, options, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    });
    request.on("error", () => resolve(false));
    request.on("timeout", () => request.destroy());
  });
}

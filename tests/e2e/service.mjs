// duet under a service manager that holds its sockets: socket activation, readiness and watchdog (service_manager.py).

import { spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { BIN, RUNTIME, SHARDS, argumentsOf, confining, temporaryFolder } from "./server.mjs";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const PATIENCE_MS = 30_000;

/** duet under a service manager that holds its sockets. */
export class Service {
  /** Its sockets are open; it is yet to be started. `t.after` is told how to end it all. */
  static async make(t, { sockets = 1, flags = {}, watchdogMs } = {}) {
    const service = new Service();
    const settings = { runtime: RUNTIME, shards: SHARDS, data: join(temporaryFolder(), "data"), ...flags };
    const env = { PATH: process.env.PATH, SOCKETS: String(sockets), ...(watchdogMs ? { WATCHDOG_USEC: String(watchdogMs * 1000) } : {}) };
    const words = [join(HERE, "service_manager.py"), ...confining(), BIN, ...argumentsOf(settings)];
    service.manager = spawn("python3", words, { env, stdio: ["pipe", "pipe", "pipe"] });
    t.after(() => service.manager.stdin.end());
    service.heard = [];
    service.waiting = new Set();
    const hear = (what) => {
      service.heard.push(what);
      service.waiting.forEach((look) => look());
    };
    createInterface({ input: service.manager.stdout }).on("line", (line) => hear(JSON.parse(line)));
    createInterface({ input: service.manager.stderr }).on("line", (line) => hear({ log: line }));
    service.port = (await service.hears((what) => what.port)).port;
    service.url = `http://127.0.0.1:${service.port}`;
    return service;
  }

  /** The first thing since `from` that is as expected. */
  hears(expected, from = 0) {
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`not heard: ${expected}; heard:\n${this.heard.map((what) => JSON.stringify(what)).join("\n")}`)), PATIENCE_MS);
      const look = () => {
        const found = this.heard.slice(from).find(expected);
        if (!found) return;
        clearTimeout(late);
        this.waiting.delete(look);
        resolve(found);
      };
      this.waiting.add(look);
      look();
    });
  }

  /** Gives a command and waits for what it leads to. */
  async does(command, expected) {
    const from = this.heard.length;
    this.manager.stdin.write(`${command}\n`);
    return this.hears(expected, from);
  }

  start() {
    return this.does("start", tells("READY=1"));
  }

  get alive() {
    return !this.heard.some(ends);
  }

  /** The last lines of its log, for failures. */
  tail() {
    return this.heard.flatMap(({ log }) => log ?? []).slice(-15).join("\n");
  }
}

export const tells = (state) => (what) => what.told?.includes(state);
export const ends = (what) => "ended" in what;

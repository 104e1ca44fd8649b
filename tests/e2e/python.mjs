// A person whose client is `python-socketio`, in a process of its own: `python_client.py` does what it is told.

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { Client, freshAddress } from "./client.mjs";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const MODULES = join(HERE, "python_modules");

export class PythonClient extends Client {
  /** Starts the process, which makes a guest. `transports` as the client takes them. */
  static async signUp(server, transports, { name = "Guido", gender = "male" } = {}) {
    if (!existsSync(MODULES)) throw new Error(`python-socketio is missing: tests/run installs it at ${MODULES}`);
    const address = freshAddress();
    const wire = new PythonWire({ url: server.url, address, transports, name, gender });
    const made = await wire.told("signedUp");
    const client = new PythonClient(server, `python by ${transports}`, { id: made.userId, token: made.sessionToken, name, gender, address, signedUp: made });
    client.wire = wire;
    return client;
  }

  /** What it speaks now. */
  get speaks() {
    return this.wire.speaks;
  }

  async open() {
    this.closed = new Promise((resolve) => (this.onClosed = resolve));
    this.wire.person = this;
    this.wire.command(["connect"]);
    await this.wire.told("connected");
    return this;
  }

  dispose() {
    super.dispose();
    this.wire.child.stdin.end();
  }
}

/** Commands are JSON lines to the process; what it says are JSON lines `[what, value, ...]`. */
class PythonWire {
  constructor(settings) {
    this.notes = [];
    this.waiting = [];
    const env = { PATH: process.env.PATH, PYTHONPATH: MODULES, PYTHONUNBUFFERED: "1", PYTHONDONTWRITEBYTECODE: "1" };
    this.child = spawn("python3", [join(HERE, "python_client.py"), JSON.stringify(settings)], { stdio: ["pipe", "pipe", "pipe"], env });
    this.complaint = "";
    this.child.stderr.setEncoding("utf8").on("data", (text) => (this.complaint = (this.complaint + text).slice(-4_000)));
    this.child.stdin.on("error", () => {});
    this.child.once("error", (error) => (this.complaint += error.message));
    createInterface({ input: this.child.stdout }).on("line", (line) => this.hear(...JSON.parse(line)));
    this.child.once("close", (code) => {
      this.waiting.splice(0).forEach(({ reject }) => reject(new Error(`the Python client ended with ${code}: ${this.complaint}`)));
    });
  }

  hear(what, value, payload) {
    if (what === "event") return this.person.hear(value, payload);
    if (what === "connected") this.speaks = value;
    if (what === "disconnected") this.person?.onClosed({ reason: value });
    const index = this.waiting.findIndex((waiter) => waiter.what === what);
    if (index >= 0) this.waiting.splice(index, 1)[0].resolve(value);
    else this.notes.push({ what, value });
  }

  /** The value of the next such line. */
  told(what) {
    const index = this.notes.findIndex((note) => note.what === what);
    if (index >= 0) return Promise.resolve(this.notes.splice(index, 1)[0].value);
    if (this.child.exitCode !== null) return Promise.reject(new Error(`the Python client has ended: ${this.complaint}`));
    return new Promise((resolve, reject) => this.waiting.push({ what, resolve, reject }));
  }

  command(words) {
    this.child.stdin.write(`${JSON.stringify(words)}\n`);
  }

  send(event) {
    this.command(["emit", ...event]);
  }

  close() {
    if (this.child.stdin.writable) this.command(["disconnect"]);
  }
}

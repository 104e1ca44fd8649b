// Parts of a measurement in processes of their own: each is a class whose methods the parent calls by name.

import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";

/** Whether this process was forked to be a part that the file at `url` has. */
export const isWorker = (url) => process.env.DUET_WORKER?.startsWith(`${url}#`) ?? false;

/** The worker's side: makes its part, which then does what it is asked, until the parent is gone. */
export function serve(parts) {
  const part = new parts[process.env.DUET_WORKER.split("#")[1]]();
  process.on("message", async ({ command, options, number }) => {
    try {
      process.send({ number, done: await part[command](options) });
    } catch (error) {
      process.send({ number, failed: `${command}: ${error.stack}` });
    }
  });
  process.on("disconnect", () => process.exit(0));
}

/** The parent's side: a process with the part called `part` of the file at `url`. */
export class Worker {
  constructor(url, part, fail) {
    this.child = fork(fileURLToPath(url), [], { env: { ...process.env, DUET_WORKER: `${url}#${part}` } });
    this.number = 0;
    this.asked = new Map();
    this.child.on("message", ({ number, done, failed }) => {
      if (failed) fail(`${part}: ${failed}`);
      this.asked.get(number)(done);
    });
    this.child.on("exit", () => this.child.connected && fail(`${part}: the process has ended`));
  }

  ask(command, options) {
    const number = this.number++;
    return new Promise((resolve) => {
      this.asked.set(number, resolve);
      this.child.send({ command, options, number });
    });
  }

  end() {
    this.child.disconnect();
  }
}

// A Postgres of a test's own, in a folder of its own, which it may kill and start again.

import { execFile, execFileSync } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { temporaryFolder } from "./server.mjs";

const SCRIPT = fileURLToPath(new URL("../postgres", import.meta.url));
const run = promisify(execFile);

export class Postgres {
  constructor() {
    this.folder = join(temporaryFolder(), "postgres");
    this.runs = false;
    // Its user must be able to come here.
    execFileSync("chmod", ["711", join(this.folder, "..")]);
    // Before the folder is removed.
    process.prependOnceListener("exit", () => this.runs && execFileSync(SCRIPT, ["stop", this.folder]));
  }

  /** Starts it; `url` is the same each time. */
  async start() {
    const { stdout } = await run(SCRIPT, ["start", this.folder]);
    this.url = stdout.trim();
    this.runs = true;
  }

  /** kill -9. */
  async kill() {
    await run(SCRIPT, ["kill", this.folder]);
    this.runs = false;
  }

  /** After a test that has failed halfway. */
  async mend() {
    if (!this.runs) await this.start();
  }
}

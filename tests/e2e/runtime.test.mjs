// The two runtimes and the command line: what is chosen and said, and what README promises of the flags.

import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { Cast, hangUp, say } from "./cast.mjs";
import { request } from "./client.mjs";
import { DATABASE_URL, NOBODY, RUNTIMES, Server, run, temporaryFolder } from "./server.mjs";

const README = fileURLToPath(new URL("../../README.md", import.meta.url));
const FIRST_LINES = 12;

/** A call from sign-up to hanging up on a server started this way; gives the first lines it printed and its health. */
async function callOn(flags, options) {
  const server = await Server.start(flags, options);
  try {
    await Cast.play(server, "mixed", async (cast) => {
      const { caller, callee, room } = await cast.call();
      await say(caller, callee, room, "hello");
      await hangUp(caller, callee, room);
    });
    const health = (await request(server.url, "GET", "/health")).text;
    const told = (name) => readFileSync(`/proc/${server.pid}/${name}`, "utf8");
    return { printed: server.lines().slice(0, FIRST_LINES).join("\n"), health, status: told("status"), limits: told("limits") };
  } finally {
    await server.kill();
  }
}

describe("runtime", { concurrency: 3, timeout: 120_000 }, () => {
  it("under Docker's default profile auto falls back to epoll, says why, and works", async () => {
    const { printed, health } = await callOn({ runtime: "auto", shards: 2 }, { confinement: "docker" });
    assert.match(printed, /epoll/i);
    assert.match(printed, /io_uring.*(EPERM|not permitted|refused|forbidden|denied)/i);
    assert.match(health, /epoll/);
  });

  it("the tests' filter is the profile, not only its io_uring: a new namespace is refused too", async () => {
    const unshare = { binary: "/usr/bin/unshare" };
    assert.equal((await run(["-r", "true"], { ...unshare, confinement: "none" })).code, 0);
    const { code, stderr } = await run(["-r", "true"], { ...unshare, confinement: "docker" });
    assert.equal(code, 1);
    assert.match(stderr, /not permitted/);
  });

  it("without rights and with 64 KiB of lockable memory auto falls back to epoll, says why, and works", async () => {
    const { printed, health, status, limits } = await callOn({ runtime: "auto", shards: 2 }, { confinement: "nobody" });
    assert.match(status, new RegExp(`^Uid:\\t${[NOBODY, NOBODY, NOBODY, NOBODY].join("\\t")}$`, "m"));
    assert.match(status, /^CapPrm:\t0+\nCapEff:\t0+$/m);
    assert.match(status, /^NoNewPrivs:\t1$/m);
    assert.match(limits, /^Max locked memory +65536 +65536 +bytes/m);
    assert.match(printed, /epoll.*the locked memory limit \(ulimit -l\) is 64 KiB and io_uring needs 512 KiB/);
    assert.match(health, /epoll/);
  });

  it("under Docker's default profile uring refuses to start with one line", async () => {
    const args = ["--runtime", "uring", "--port", "0", "--host", "127.0.0.1", "--data", join(temporaryFolder(), "data")];
    const { code, stderr } = await run(args, { confinement: "docker" });
    assert.ok(code !== null && code !== 0, `exit code ${code}`);
    assert.equal(stderr.split("\n").filter((line) => line.trim() !== "").length, 1, stderr);
    assert.match(stderr, /io_uring/);
  });

  for (const runtime of RUNTIMES) {
    it(`--runtime ${runtime} is what runs, with the shards that were asked for`, async () => {
      const { printed, health } = await callOn({ runtime, shards: 3 });
      assert.match(printed, new RegExp(runtime, "i"));
      assert.match(printed, /3 shards|shards[=: ]+3/i);
      assert.match(printed, DATABASE_URL ? /postgres/i : /sqlite/i, "the store is named");
      assert.match(health, new RegExp(runtime));
    });
  }

  it("by default the port is 3001", async () => {
    assert.match((await run(["--help"])).stdout, /3001/);
  });
});

describe("command line", () => {
  it("every flag of --help is in README's table with its environment variable and default", async () => {
    const { code, stdout } = await run(["--help"]);
    assert.equal(code, 0);
    const flags = options(stdout);
    assert.ok(flags.length >= 15, `found only ${flags.length} flags in:\n${stdout}`);
    assert.ok(existsSync(README), "there is no README.md");
    const rows = readFileSync(README, "utf8").split("\n").filter((line) => line.startsWith("|"));
    const wrong = flags.flatMap(({ flag, variable, fallback }) => {
      const row = rows.find((line) => line.includes(`\`${flag}\``) || line.includes(`\`${flag} `));
      if (!row) return [`${flag} is not in the table`];
      return [variable, fallback].filter((text) => text && !row.includes(text)).map((text) => `${flag} lacks ${text}`);
    });
    const known = new Set(flags.map(({ flag }) => flag));
    const stale = rows.flatMap((row) => row.match(/`(--[a-z-]+)/g) ?? []).map((word) => word.slice(1)).filter((flag) => !known.has(flag) && flag !== "--help" && flag !== "--version");
    assert.deepEqual([...wrong, ...stale.map((flag) => `${flag} is in the table and not in --help`)], []);
  });

  it("every flag has its environment variable", async () => {
    const flags = options((await run(["--help"])).stdout);
    assert.deepEqual(flags.filter(({ variable }) => !variable).map(({ flag }) => flag), []);
  });
});

/** The flags of clap's help: `{flag, variable, fallback}`, without --help and --version. */
function options(help) {
  const blocks = help.split(/\n(?=\s+(?:-[a-zA-Z], )?--)/).slice(1);
  return blocks
    .map((block) => ({
      flag: /--[a-z][a-z0-9-]*/.exec(block)[0],
      variable: /\[env: ([A-Z0-9_]+)/.exec(block)?.[1],
      fallback: /\[default: ([^\]]*)\]/.exec(block)?.[1],
    }))
    .filter(({ flag }) => flag !== "--help" && flag !== "--version");
}

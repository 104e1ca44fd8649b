// The two runtimes and the command line: what is chosen and said, and what README promises of the flags.

import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { Cast, hangUp, say } from "./cast.mjs";
import { request } from "./client.mjs";
import { DATABASE_URL, Server, run } from "./server.mjs";

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
    return { printed: server.lines().slice(0, FIRST_LINES).join("\n"), health };
  } finally {
    await server.kill();
  }
}

describe("runtime", { concurrency: 3, timeout: 120_000 }, () => {
  it("where io_uring_setup answers EPERM, auto falls back to epoll, says why, and works", async () => {
    const { printed, health } = await callOn({ runtime: "auto", shards: 2 }, { seccomp: true });
    assert.match(printed, /epoll/i);
    assert.match(printed, /io_uring.*(EPERM|not permitted|refused|forbidden|denied)/i);
    assert.match(health, /epoll/);
  });

  it("where io_uring_setup answers EPERM, uring refuses to start with one line", async () => {
    const server = new Server({}, true);
    const args = ["--runtime", "uring", "--port", "0", "--host", "127.0.0.1", "--data", server.flags.data];
    const { code, stderr } = await run(args, { seccomp: true });
    assert.ok(code !== null && code !== 0, `exit code ${code}`);
    assert.equal(stderr.split("\n").filter((line) => line.trim() !== "").length, 1, stderr);
    assert.match(stderr, /io_uring/);
  });

  for (const runtime of ["uring", "epoll"]) {
    it(`--runtime ${runtime} is what runs, with the shards that were asked for`, async () => {
      const { printed, health } = await callOn({ runtime, shards: 3 }, { seccomp: false });
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

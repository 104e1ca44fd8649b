// SIGHUP: settings that change while the server runs, and what is said of those that cannot (README, "Changed while it runs").

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import net from "node:net";
import { join } from "node:path";
import { describe, it } from "node:test";
import { Cast, hangUp, say } from "./cast.mjs";
import { freshAddress, request } from "./client.mjs";
import { Scrape } from "./metrics.mjs";
import { BIN, Server, eventually, temporaryFolder } from "./server.mjs";
import { Service, tells } from "./service.mjs";

const GUEST = { name: "Ada", gender: "female" };
const [OLD, NEW] = ["https://old.example", "https://new.example"];
/** Left to the file: a flag would beat it. */
const BY_FILE = { "signups-per-hour": false, "api-per-minute": false };

/** A file of variables, and a server that reads it. */
async function serving(t, settings, flags = {}) {
  const file = join(temporaryFolder(), "duet.env");
  const say = (settings) => writeFileSync(file, Object.entries(settings).map(([name, value]) => `${name}=${value}\n`).join(""));
  say(settings);
  const server = await Server.start({ ...BY_FILE, "env-file": file, ...flags });
  t.after(() => server.kill());
  return { server, say, file };
}

/** Asks for a reload and waits until the log tells of its end; gives the lines that it caused. */
async function reload(server) {
  const before = server.lines().length;
  server.child.kill("SIGHUP");
  const caused = () => server.lines().slice(before);
  await eventually("the reload is over", () => caused().some((line) => /reloaded: |a reload is refused/.test(line)));
  return caused().join("\n");
}

const allows = async (server, origin) => {
  const { headers } = await request(server.url, "GET", "/health", { headers: { origin } });
  return headers["access-control-allow-origin"] === origin;
};

describe("a reload", { concurrency: 2, timeout: 120_000 }, () => {
  it("changes origins, limits and the log level on every shard while a call goes on", async (t) => {
    const { server, say: set } = await serving(t, { ALLOWED_ORIGINS: OLD, CONNECTIONS_MAX: 500, LOG_LEVEL: "info" }, { shards: 2 });
    await Cast.play(server, "mixed", async (cast) => {
      const { caller, callee, room } = await cast.call();
      assert.deepEqual([await allows(server, OLD), await allows(server, NEW)], [true, false]);
      assert.ok(!server.lines().some((line) => line.includes("request answered")));

      set({ ALLOWED_ORIGINS: `${OLD},${NEW}`, CONNECTIONS_MAX: 400, SIGNUPS_PER_HOUR: 2, LOG_LEVEL: "debug", DRAIN_SECONDS: 3 });
      const told = await reload(server);
      assert.match(told, /--drain-seconds has changed, but needs a restart/);
      assert.match(told, /reloaded: --allowed-origins, --signups-per-hour, --connections-max, --log changed/);
      // Each request is a connection of its own, on whichever shard the kernel gives it to.
      for (let i = 0; i < 16; i++) assert.ok((await allows(server, OLD)) && (await allows(server, NEW)));
      await eventually("requests are logged", () => server.lines().some((line) => line.includes("request answered")));
      const address = freshAddress();
      const statuses = [];
      for (let i = 0; i < 4; i++) statuses.push((await request(server.url, "POST", "/auth/guest", { body: GUEST, address })).status);
      assert.deepEqual(statuses, [200, 200, 429, 429]);
      const { body } = await request(server.url, "GET", "/health");
      assert.equal(body.connections.limit, 400);
      assert.equal((await Scrape.of(server)).get("duet_connections_limit"), 400);
      await say(caller, callee, room, "still here");

      set({ ALLOWED_ORIGINS: NEW, EVENT_RATE: 1, EVENT_BURST: 5 });
      assert.match(await reload(server), /reloaded: /);
      assert.deepEqual([await allows(server, OLD), await allows(server, NEW)], [false, true]);
      await say(callee, caller, room, "and here");
      await hangUp(caller, callee, room);
      for (let i = 0; i < 9; i++) caller.emit("queue:leave");
      await caller.next("error", ({ message }) => message === "Too many events");
    });
  });

  it("that is wrong in one place changes nothing in any and says why; the next one is taken", async (t) => {
    const { server, say: set } = await serving(t, { ALLOWED_ORIGINS: OLD });
    set({ ALLOWED_ORIGINS: NEW, EVENT_RATE: "many", LOG_LEVEL: "debug" });
    assert.match(await reload(server), /a reload is refused, nothing is changed: --event-rate \(EVENT_RATE\) is "many": must be a number/);
    assert.deepEqual([await allows(server, OLD), await allows(server, NEW)], [true, false]);
    set({ ALLOWED_ORIGINS: NEW });
    assert.match(await reload(server), /reloaded: --allowed-origins changed/);
    assert.deepEqual([await allows(server, OLD), await allows(server, NEW)], [false, true]);
  });

  it("without a file changes nothing and ends nobody", async (t) => {
    const server = await Server.start();
    t.after(() => server.kill());
    assert.match(await reload(server), /reloaded: no setting has changed/);
    assert.equal((await request(server.url, "GET", "/ready")).status, 200);
  });

  it("that is asked for while it starts does not end it", async (t) => {
    const database = net.createServer(() => {});
    await new Promise((resolve) => database.listen(0, "127.0.0.1", resolve));
    t.after(() => database.close());
    const url = `postgres://duet@127.0.0.1:${database.address().port}/duet?sslmode=disable`;
    const args = ["--port=0", "--metrics=off", "--data", join(temporaryFolder(), "data"), "--database-timeout=1000", "--database-url", url];
    const starting = spawn(BIN, args, { stdio: "ignore", env: { PATH: process.env.PATH } });
    t.after(() => starting.kill("SIGKILL"));
    await once(database, "connection");
    starting.kill("SIGHUP");
    assert.deepEqual(await once(starting, "exit"), [1, null], "it waited for its database in vain, and said so");
  });

  it("is told to the service manager with its time, and that it is over with its outcome", async (t) => {
    const file = join(temporaryFolder(), "duet.env");
    writeFileSync(file, "LOG_LEVEL=info\n");
    const service = await Service.make(t, { flags: { "env-file": file } });
    await service.start();
    const from = service.heard.length;
    const { told: begun } = await service.does("kill SIGHUP", tells("RELOADING=1"));
    assert.match(begun.join(" "), /^RELOADING=1 MONOTONIC_USEC=\d+$/);
    const over = await service.hears(tells("READY=1"), from);
    assert.match(over.told.join(" "), /^READY=1 STATUS=serving on .*; reloaded$/);
    writeFileSync(file, "LOG_LEVEL\n");
    const refused = service.heard.length;
    await service.does("kill SIGHUP", tells("RELOADING=1"));
    assert.match((await service.hears(tells("READY=1"), refused)).told.join(" "), /; a reload was refused: the log says why$/);
  });
});

// What an operator asks the binary: check-config, doctor, healthcheck; where secrets come from, and what the log is like.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import dgram from "node:dgram";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import net from "node:net";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { inspect } from "node:util";
import { Client, ok, request } from "./client.mjs";
import { Postgres } from "./postgres.mjs";
import { Server, eventually, freePort, freshDatabase, pause, run, temporaryFolder } from "./server.mjs";

const SECRET = "0f8fad5bd9cb469fa165708671bd1f41";
const PRODUCTION = { NODE_ENV: "production", ALLOWED_ORIGINS: "https://a.example" };
const HEALTHCHECK_MS_MAX = 3_000;

const lines = (text) => text.split("\n").filter((line) => line !== "");

/** A UDP server on loopback; `answer` makes the answer to a STUN request, or none. */
async function udpServer(answer) {
  const socket = dgram.createSocket("udp4");
  socket.on("message", (message, { port, address }) => {
    const told = answer(message);
    if (told) socket.send(told, port, address);
  });
  await new Promise((resolve) => socket.bind(0, "127.0.0.1", resolve));
  return { port: socket.address().port, close: () => socket.close() };
}

/** A binding success without attributes. */
const stunAnswer = (message) => Buffer.concat([Buffer.from([1, 1, 0, 0]), message.subarray(4, 20)]);

describe("check-config", () => {
  it("tells where each value comes from, and of secrets only that they are set", async () => {
    const env = { CONNECTIONS_MAX: "50", TURN_SECRET: SECRET, TURN_URLS: "turn:turn.example" };
    const data = join(temporaryFolder(), "data");
    const { code, stdout, stderr } = await run(["check-config", "--plan", "512mb", "--shards=1", "--data", data], { env });
    assert.deepEqual([code, stderr], [0, ""], stdout);
    const row = (flag) => lines(stdout).find((line) => line.startsWith(`--${flag} `)).split(/ {2,}/).slice(1);
    assert.deepEqual(row("plan"), ["512mb", "restart", "flag --plan"]);
    assert.deepEqual(row("connections-max"), ["50", "reload", "environment CONNECTIONS_MAX"]);
    assert.deepEqual(row("user-cache-max"), ["20000", "restart", "plan 512mb"]);
    assert.deepEqual(row("port"), ["3001", "restart", "default"]);
    assert.deepEqual(row("turn-secret"), ["set", "reload", "environment TURN_SECRET"]);
    assert.deepEqual(row("database-url"), ["not set", "restart", "default"]);
    assert.ok(!stdout.includes(SECRET));
    const rows = lines(stdout).filter((line) => line.startsWith("--")).length;
    const help = (await run(["--help"])).stdout;
    assert.equal(rows, help.match(/\[env: /g).length, "every setting has its row");
  });

  it("tells all errors at once with code 2, and the server starts with none of them", async () => {
    const file = join(temporaryFolder(), "file");
    writeFileSync(file, "");
    const env = { NODE_ENV: "production", TURN_URLS: "turn:a", TURN_SECRET: "changeme" };
    const wrong = ["--port=70000", "--memory-warning-percent=95", `--data=${join(file, "data")}`];
    const { code, stdout } = await run(["check-config", ...wrong], { env });
    const errors = lines(stdout).filter((line) => line.startsWith("error: "));
    assert.equal(code, 2);
    for (const word of ["--port", "--memory-warning-percent", "--data", "TURN_SECRET", "ALLOWED_ORIGINS"]) {
      assert.equal(errors.filter((line) => line.includes(word)).length, 1, `${word}\n${stdout}`);
    }
    assert.equal(errors.length, 5, stdout);
    assert.ok(!stdout.includes("changeme"));
    const started = await run(wrong, { env });
    assert.deepEqual([started.code, started.stdout, lines(started.stderr).length], [2, "", 4], "the store tells of its folder itself");
    const { errors: told } = JSON.parse((await run(["check-config", "--json", ...wrong], { env })).stdout);
    assert.deepEqual(told, errors.map((line) => line.replace("error: ", "")));
  });
});

describe("healthcheck", () => {
  it("is 0 of a server that is ready, its port from the environment, in production too", async (t) => {
    const server = await Server.start({}, { env: PRODUCTION });
    t.after(() => server.kill());
    const { code, stdout } = await run(["healthcheck"], { env: { PORT: String(server.port), ...PRODUCTION } });
    assert.deepEqual([code, stdout], [0, `ready: 127.0.0.1:${server.port}\n`]);
  });

  it("is 1 where nobody listens, and says so", async () => {
    const port = await freePort();
    const { code, stderr } = await run(["healthcheck"], { env: { PORT: String(port) } });
    assert.deepEqual([code, stderr], [1, `duet: not ready: 127.0.0.1:${port}: nobody listens there\n`]);
  });

  it("is 1 within 3 s of a server that says nothing", async (t) => {
    const mute = net.createServer(() => {});
    await new Promise((resolve) => mute.listen(0, "127.0.0.1", resolve));
    t.after(() => mute.close());
    const from = Date.now();
    // Not confined: what confines it takes time to start, too.
    const { code, stderr } = await run(["healthcheck", "--port", String(mute.address().port)], { ms: 10_000, confinement: "none" });
    assert.equal(code, 1);
    assert.match(stderr, /no answer within/);
    assert.ok(Date.now() - from < HEALTHCHECK_MS_MAX + 500, "a process's start included");
  });
});

describe("doctor", { timeout: 60_000 }, () => {
  const postgres = new Postgres();
  before(() => postgres.start());
  after(() => postgres.kill());

  /** What it finds, by name, and its exit code. */
  async function findings(args, options) {
    const { code, stdout, stderr } = await run(["doctor", "--json", "--host=127.0.0.1", ...args], options);
    assert.equal(stderr, "");
    return { code, ...Object.fromEntries(JSON.parse(stdout).findings.map((finding) => [finding.name, finding])) };
  }

  it("looks at kernel, limits, clock, port, store and STUN servers, and changes nothing", async (t) => {
    const server = await udpServer(stunAnswer);
    t.after(() => server.close());
    const data = join(temporaryFolder(), "data");
    const [port, stun] = [await freePort(), `stun:127.0.0.1:${server.port}`];
    const args = ["--host=127.0.0.1", `--port=${port}`, `--data=${data}`, `--stun-urls=${stun}`];
    const found = await findings(args.slice(1));
    assert.equal(found.code, 0, inspect(found));
    for (const name of ["kernel", "io_uring", "memlock", "descriptors", "memory", "processors", "clock"]) {
      assert.ok(found[name].found, name);
    }
    assert.deepEqual([found.port.verdict, found["store (sqlite)"].verdict, found[stun].verdict], ["ok", "ok", "ok"]);
    assert.throws(() => readFileSync(join(data, "duet.db")), /ENOENT/);
    const { stdout } = await run(["doctor", ...args]);
    assert.match(stdout, new RegExp(`^ok +port +127\\.0\\.0\\.1:${port} is free$`, "m"));
    assert.match(stdout, /^errors: 0, warnings: \d+$/m);
  });

  it("goes on where it was stopped and continued", async (t) => {
    let doctor, asked = 0;
    const stopAndContinue = () => ["SIGSTOP", "SIGCONT"].forEach((signal) => doctor.kill(signal));
    const stunServer = await udpServer((request) => {
      asked += 1;
      if (asked > 1) return stunAnswer(request);
      stopAndContinue();
    });
    const server = net.createServer((socket) =>
      socket.once("data", async () => {
        await pause(50);
        stopAndContinue();
        await pause(50);
        socket.end("HTTP/1.1 200 OK\r\n\r\n{}");
      }),
    );
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    t.after(() => [stunServer, server].forEach((server) => server.close()));
    const stun = `stun:127.0.0.1:${stunServer.port}`;
    const args = [`--port=${server.address().port}`, `--stun-urls=${stun}`];
    const found = await findings(args, { started: (child) => (doctor = child) });
    assert.deepEqual([found.port.verdict, found[stun].verdict, asked], ["ok", "ok", 2], inspect(found));
  });

  it("says what to do about what is wrong, with code 1", async (t) => {
    const other = net.createServer((socket) => socket.end("SSH-2.0\r\n"));
    await new Promise((resolve) => other.listen(0, "127.0.0.1", resolve));
    const liar = await udpServer(() => Buffer.from("what?"));
    t.after(() => [other, liar].forEach((server) => server.close()));
    const file = join(temporaryFolder(), "file");
    writeFileSync(file, "");
    const [deaf, lying] = [`turn:127.0.0.1:${await freePort()}`, `turn:127.0.0.1:${liar.port}`];
    const found = await findings([
      `--port=${other.address().port}`, `--data=${join(file, "data")}`, `--turn-urls=${deaf},${lying}`, "--turn-secret=north",
    ]);
    assert.equal(found.code, 1);
    assert.match(found.port.found, /taken/);
    assert.match(found[deaf].found, /nobody listens there/);
    assert.match(found[lying].found, /does not speak STUN/);
    for (const name of ["port", "store (sqlite)", deaf, lying]) {
      assert.deepEqual([found[name].verdict, typeof found[name].advice], ["error", "string"], name);
    }
    assert.equal(found.settings.verdict, "warning", "a secret among the arguments");
  });

  it("knows its own server by port and store", async (t) => {
    const server = await Server.start({}, { database: null });
    t.after(() => server.kill());
    const found = await findings([`--port=${server.port}`, `--data=${server.flags.data}`]);
    assert.match(found.port.found, /a server is ready/);
    assert.match(found["store (sqlite)"].found, /another duet is running/);
    assert.equal(found.code, 0);
  });

  it("where io_uring is refused says why and what to do", async () => {
    const found = await findings([`--port=${await freePort()}`], { confinement: "docker" });
    assert.deepEqual([found.io_uring.verdict, found.code], ["warning", 0]);
    assert.match(found.io_uring.found, /EPERM/);
    assert.match(found.io_uring.advice, /seccomp/);
    const refused = await findings([`--port=${await freePort()}`, "--runtime=uring"], { confinement: "docker" });
    assert.deepEqual([refused.io_uring.verdict, refused.code], ["error", 1]);
  });

  it("sees a Postgres that is empty, migrated or away", async () => {
    const database = freshDatabase(postgres.url);
    const look = async (url) => (await findings([`--port=${await freePort()}`], { database: url }))["store (postgres)"];
    assert.match((await look(database)).found, /empty, to be made at the start/);
    assert.equal((await run(["migrate"], { database })).code, 0);
    const migrated = await look(database);
    assert.equal(migrated.verdict, "ok");
    assert.match(migrated.found, /schema \d+, looked up in \d+ ms/);
    const away = await look(`postgres://duet:s3cretpass@127.0.0.1:${await freePort()}/duet`);
    assert.equal(away.verdict, "error");
    assert.ok(!JSON.stringify(away).includes("s3cretpass"));
  });
});

describe("secrets", () => {
  for (const [way, settings] of [
    ["a file that a variable names", (folder) => ({ TURN_SECRET_FILE: join(folder, "turn-secret") })],
    ["systemd's credentials", (folder) => ({ CREDENTIALS_DIRECTORY: folder })],
  ]) {
    it(`from ${way} sign TURN credentials, and ps does not show them`, async (t) => {
      const folder = join(temporaryFolder(), "secrets");
      mkdirSync(folder);
      writeFileSync(join(folder, "turn-secret"), `${SECRET}\n`);
      const server = await Server.start({}, { env: { TURN_URLS: "turn:turn.example", ...settings(folder) } });
      t.after(() => server.kill());
      const { token } = await Client.signUp(server, "/ws");
      const { iceServers } = await ok(request(server.url, "GET", "/turn/credentials", { token }));
      const { username, credential } = iceServers.find((entry) => entry.username);
      assert.equal(credential, createHmac("sha1", SECRET).update(username).digest("base64"));
      for (const file of ["cmdline", "environ"]) {
        assert.ok(!readFileSync(`/proc/${server.pid}/${file}`, "utf8").includes(SECRET), file);
      }
    });
  }

  it("one that others can read as an argument is warned of", async (t) => {
    const server = await Server.start({ "turn-urls": "turn:turn.example", "turn-secret": SECRET });
    t.after(() => server.kill());
    await eventually("the warning", () => /WARN.*--turn-secret is an argument/.test(server.log));
  });
});

describe("log", () => {
  it("in production each line is JSON, with the request that it belongs to", async (t) => {
    const server = await Server.start({ log: "debug" }, { env: PRODUCTION });
    t.after(() => server.kill());
    const headers = { "x-request-id": "proxy-42", "x-forwarded-proto": "https" };
    assert.equal((await request(server.url, "GET", "/stats/live", { headers })).headers["x-request-id"], "proxy-42");
    await server.stop();
    const events = server.lines().map((line) => JSON.parse(line));
    assert.ok(events.every(({ level, timestamp }) => level && timestamp));
    const start = events.find(({ message }) => message === "duet listens");
    assert.deepEqual([start.url, start.store.length > 0, start.shards], [server.url, true, Number(server.flags.shards)]);
    const answered = events.find(({ span }) => span?.id === "proxy-42");
    assert.deepEqual([answered.message, answered.path, answered.status], ["request answered", "/stats/live", 200]);
  });

  it("elsewhere it is text, and json where it is asked for", async (t) => {
    const text = await Server.start({ log: "debug" });
    t.after(() => text.kill());
    const name = (await request(text.url, "GET", "/ready")).headers["x-request-id"];
    assert.match(name, /^[0-9a-f]{16}$/);
    await text.stop();
    assert.match(text.log, new RegExp(`DEBUG request\\{id="?${name}"?\\}: request answered`));
    const json = await Server.start({ "log-format": "json" });
    t.after(() => json.kill());
    assert.doesNotThrow(() => json.lines().map((line) => JSON.parse(line)));
  });

  it("a name that is not well-formed is replaced, and never logged", async (t) => {
    const server = await Server.start({ log: "trace" });
    t.after(() => server.kill());
    for (const strange of ["a b", "x".repeat(65), 'a"b', "<script>"]) {
      const { headers } = await request(server.url, "GET", "/ready", { headers: { "x-request-id": strange } });
      assert.match(headers["x-request-id"], /^[0-9a-f]{16}$/);
      assert.ok(!server.log.includes(strange));
    }
  });
});

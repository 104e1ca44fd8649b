// How duet is run: socket activation and readiness as a service manager sees them, the watchdog, the units' confinement;
// in a container; on Railway.
//
// The service manager is service_manager.py; a real systemd runs the units in tests/systemd.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { chmodSync, copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import net from "node:net";
import { dirname, join } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { Cast, hangUp, say } from "./cast.mjs";
import { Client, request } from "./client.mjs";
import { BIN, RUNTIMES, SHARDS, Server, UNLIMITED, confining, eventually, run, temporaryFolder } from "./server.mjs";
import { Service, ends, tells } from "./service.mjs";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const TOP = join(HERE, "../..");
const UNITS = join(TOP, "systemd");
const EXPOSURE_MAX = 1.5;
const WAITING = 50;
/** The user of distroless images. */
const NOBODY = 65_532;

/** Connects, and asks for `/health` at once; `answer` is the status, or what went wrong. */
function visit(port) {
  const socket = net.connect(port, "127.0.0.1");
  const connected = new Promise((resolve, reject) => socket.once("connect", resolve).once("error", reject));
  const answer = new Promise((resolve) => {
    let text = "";
    socket.setEncoding("utf8").on("data", (part) => (text += part));
    socket.once("error", (error) => resolve(error.code)).once("close", () => resolve(text.slice(9, 12) || "closed"));
    socket.write("GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  });
  return { connected, answer };
}

/** People who come while nobody accepts: all are connected to the kernel. */
async function crowd(port) {
  const visits = Array.from({ length: WAITING }, () => visit(port));
  await Promise.all(visits.map(({ connected }) => connected));
  return visits;
}

async function allServed(visits) {
  const answers = await Promise.all(visits.map(({ answer }) => answer));
  assert.deepEqual(answers, visits.map(() => "200"));
}

describe("socket activation", { concurrency: 3, timeout: 120_000 }, () => {
  it("READY=1 comes with a status when it serves, STOPPING=1 on SIGTERM, and the end is orderly", async (t) => {
    const service = await Service.make(t);
    const { told } = await service.start();
    assert.match(told.find((line) => line.startsWith("STATUS=")), new RegExp(`^STATUS=serving on 127.0.0.1:${service.port}: ${SHARDS} shards, .*sqlite$`));
    assert.equal((await request(service.url, "GET", "/ready")).status, 200);
    await service.does("kill SIGTERM", tells("STOPPING=1"));
    assert.equal((await service.hears(ends)).ended, 0);
  });

  for (const runtime of RUNTIMES) {
    it(`whoever connects between SIGTERM and the next process is served by that (${runtime})`, async (t) => {
      const service = await Service.make(t, { flags: { runtime } });
      await service.start();
      await service.does("kill SIGTERM", ends);
      const visits = await crowd(service.port);
      await service.start();
      await allServed(visits);
    });

    it(`whoever waits in the backlog of a process that is killed with -9 is served by the next (${runtime})`, async (t) => {
      const service = await Service.make(t, { flags: { runtime } });
      await service.start();
      await allServed([visit(service.port)]);
      service.manager.stdin.write("kill SIGSTOP\n");
      const { pid } = await service.hears((what) => what.pid);
      await stopped(pid);
      const before = await crowd(service.port);
      await service.does("kill SIGKILL", ends);
      const after = await crowd(service.port);
      await service.start();
      await allServed([...before, ...after]);
    });
  }

  it("several sockets on one port are all served", async (t) => {
    const service = await Service.make(t, { sockets: 2, flags: { shards: 2 } });
    await service.start();
    await allServed(await crowd(service.port));
  });

  it("people call each other over one socket that all shards accept from", async (t) => {
    const service = await Service.make(t, { flags: UNLIMITED });
    await service.start();
    await Cast.play(service, "mixed", async (cast) => {
      const { caller, callee, room } = await cast.call();
      await say(caller, callee, room, "hello");
      await hangUp(caller, callee, room);
    });
  });

  it("more sockets than shards are refused with one line: one would never be served", async (t) => {
    const service = await Service.make(t, { sockets: 2, flags: { shards: 1 } });
    assert.equal((await service.does("start", ends)).ended, 1);
    const lines = service.heard.filter(({ log }) => log).map(({ log }) => log);
    assert.deepEqual(lines, ["duet: the sockets of the service manager cannot be used: there are more of them (2) than shards (1)"]);
  });

  it("what is no listening socket is refused with one line that names it", async () => {
    const data = join(temporaryFolder(), "data");
    const script = 'LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web exec "$0" "$@" 3</dev/null';
    const { code, stderr } = await run(["-c", script, BIN, "--data", data, "--port", "0"], { binary: "/bin/sh", confinement: "none" });
    assert.equal(code, 1);
    assert.match(stderr, /^duet: the sockets of the service manager cannot be used: .*\n$/);
  });

  it("variables meant for another process are ignored", async (t) => {
    const server = await Server.start({}, { inside: ["env", "LISTEN_PID=1", "LISTEN_FDS=1", "WATCHDOG_PID=1", "WATCHDOG_USEC=1000"] });
    t.after(() => server.kill());
    assert.equal((await request(server.url, "GET", "/ready")).status, 200);
  });
});

describe("watchdog", { timeout: 120_000 }, () => {
  it("is fed while all shards answer, starves while one is stopped, and is fed again", async (t) => {
    const service = await Service.make(t, { watchdogMs: 2_000, flags: { shards: 2 } });
    await service.start();
    await service.hears(tells("WATCHDOG=1"));
    const frozen = service.heard.length;
    await service.does("freeze shard-1", (what) => what.frozen);
    const stuck = ({ log }) => /shards do not answer.*\[1\]/.test(log ?? "");
    await service.hears(stuck, frozen);
    const first = service.heard.findIndex((what, place) => place >= frozen && stuck(what));
    await service.hears(stuck, first + 1);
    assert.deepEqual(service.heard.slice(first).filter(tells("WATCHDOG=1")), []);
    await service.does("thaw", tells("WATCHDOG=1"));
  });
});

describe("units", { timeout: 60_000 }, () => {
  it("systemd finds no fault in them", () => {
    const folder = temporaryFolder();
    for (const unit of ["duet.service", "duet.socket"]) {
      const text = readFileSync(join(UNITS, unit), "utf8");
      writeFileSync(join(folder, unit), text.replaceAll("/usr/local/bin/duet", BIN));
    }
    const said = execFileSync("systemd-analyze", ["verify", join(folder, "duet.service"), join(folder, "duet.socket")], { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
    assert.equal(said, "");
  });

  it(`the service's exposure is at most ${EXPOSURE_MAX}, with io_uring allowed`, () => {
    const analyze = (...words) => execFileSync("systemd-analyze", words, { encoding: "utf8" });
    const report = analyze("security", "--offline=true", "--no-pager", join(UNITS, "duet.service"));
    const exposure = Number(/Overall exposure level for duet\.service: ([0-9.]+)/.exec(report)[1]);
    assert.ok(exposure <= EXPOSURE_MAX, report);
    assert.match(analyze("syscall-filter", "@system-service"), /@aio/);
    assert.match(analyze("syscall-filter", "@aio"), /io_uring_enter\s+io_uring_register\s+io_uring_setup/);
  });

  it("the time that systemd gives a stop is longer than the one duet takes at most", async () => {
    const text = readFileSync(join(UNITS, "duet.service"), "utf8");
    const given = Number(/^TimeoutStopSec=(\d+)s$/m.exec(text)[1]);
    const taken = Number(/DRAIN_SECONDS\] \[default: (\d+)\]/.exec((await run(["--help"])).stdout)[1]);
    assert.ok(given >= 2 * taken, `${given} s for ${taken} s`);
  });
});

describe("Railway", { timeout: 120_000 }, () => {
  const folder = join(TOP, ".railway");
  const tool = (name, ...words) => execFileSync(join(folder, "node_modules/.bin", name), words, { cwd: folder, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  const typesOf = (file) => tool("tsc", "--noEmit", "--strict", "--skipLibCheck", "--target", "es2022", "--module", "nodenext", file);

  it("railway.ts is what the SDK's types allow, and a wrong one would be seen", (t) => {
    typesOf("railway.ts");
    const wrong = join(folder, `wrong-${process.pid}.ts`);
    t.after(() => rmSync(wrong));
    writeFileSync(wrong, readFileSync(join(folder, "railway.ts"), "utf8").replace('healthcheckPath: "/ready"', "healthcheckPath: 7"));
    assert.throws(() => typesOf(wrong));
  });

  it("the SDK makes of it one duet with its database, which has the time to stop that it needs", async () => {
    const script = `import program from "./railway.ts"; import { createRailwayContext, project } from "railway/iac";
      const made = await program(createRailwayContext({ environment: "production" }), project);
      console.log(JSON.stringify(made));`;
    const { resources } = JSON.parse(tool("tsx", "--input-type=module", "-e", script));
    const [database, duet] = resources;
    assert.deepEqual([database.engine, duet.variables.DATABASE_URL], ["postgres", { type: "reference", resource: database.address, output: "DATABASE_URL" }]);
    const { drainingSeconds, overlapSeconds, healthcheckPath, numReplicas } = duet.deploy;
    assert.deepEqual([overlapSeconds, healthcheckPath, numReplicas], [0, "/ready", 1]);
    assert.ok(drainingSeconds > Number(duet.variables.DRAIN_SECONDS.value));
    const known = options((await run(["--help"])).stdout);
    const unknown = Object.keys(duet.variables).filter((name) => !known.includes(name));
    assert.deepEqual(unknown, [], "every variable is one of duet's");
  });
});

describe("container", { timeout: 120_000 }, () => {
  it("in an image's root, as nobody and with io_uring forbidden as by Docker, it keeps its data and says why it is on epoll", async (t) => {
    const root = join(temporaryFolder(), "root");
    const libraries = execFileSync("ldd", [BIN], { encoding: "utf8" }).match(/\/\S+/g);
    for (const file of [BIN, ...libraries]) {
      mkdirSync(join(root, dirname(file)), { recursive: true });
      copyFileSync(file, join(root, file));
      chmodSync(join(root, file), 0o755);
    }
    mkdirSync(join(root, "data"));
    chmodSync(join(root, "data"), 0o777);
    const isRoot = process.getuid() === 0;
    const jail = isRoot ? ["chroot", `--userspec=${NOBODY}:${NOBODY}`, root] : ["unshare", "-r", "chroot", root];
    const inside = [...confining("docker"), "prlimit", "--memlock=65536:65536", ...jail];
    const server = await Server.start({ runtime: "auto", data: "/data" }, { confinement: "none", inside, database: undefined });
    t.after(() => server.kill());
    assert.match(server.lines().join("\n"), /epoll.*io_uring_setup refused: EPERM/);
    if (isRoot) assert.match(readFileSync(`/proc/${server.pid}/status`, "utf8"), new RegExp(`^Uid:\\s${NOBODY}\\s`, "m"));
    const ada = await Client.signUp(server, "/ws");
    assert.equal((await server.stop()).code, 0);
    await server.launch();
    assert.equal((await request(server.url, "GET", "/user/me", { token: ada.account.token })).status, 200);
  });

  it("the Dockerfile builds the binary as locked, and runs it as nobody with its data on a volume", () => {
    const text = readFileSync(join(TOP, "Dockerfile"), "utf8");
    const [build, image] = text.split(/^FROM /m).slice(1);
    assert.match(build, /^rust:\d+\.\d+\.\d+-\S+ AS build\n[^]*cargo build --release --locked/);
    assert.match(image, /^USER nonroot$[^]*^STOPSIGNAL SIGTERM$[^]*^HEALTHCHECK .*"healthcheck"\]$/m);
    const data = /^ENV DATA_DIR=(\S+)$/m.exec(image)[1];
    assert.match(image, new RegExp(`^VOLUME ${data}$`, "m"));
    const copied = [...build.matchAll(/^COPY (.+) \S+$/gm)].flatMap(([, words]) => words.split(" "));
    const sent = readFileSync(join(TOP, ".dockerignore"), "utf8").match(/(?<=^!).+$/gm);
    assert.deepEqual(copied.sort(), sent.sort());
    copied.forEach((path) => assert.ok(existsSync(join(TOP, path)), path));
  });
});

/** The environment variables of `--help`. */
function options(help) {
  return [...help.matchAll(/\[env: ([A-Z0-9_]+)/g)].map(([, name]) => name);
}

/** Waits until all threads of a process are stopped. */
async function stopped(pid) {
  await eventually("the process is stopped", () => /^State:\s+T/m.test(readFileSync(`/proc/${pid}/status`, "utf8")));
}

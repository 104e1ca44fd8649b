// The embedded store, and the journal beside Postgres, on a disk that is full, or only to be read: what is refused, what
// goes on, what is there afterwards.
//
// Each disk is a small tmpfs in a mount namespace of its own, in which duet runs; the test fills and frees it from outside.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { closeSync, openSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import { before, describe, it } from "node:test";
import { Cast } from "./cast.mjs";
import { request } from "./client.mjs";
import { Ledger } from "./ledger.mjs";
import { Postgres } from "./postgres.mjs";
import { rowsOfFile, rowsOfPostgres } from "./rows.mjs";
import { Scene, Tally, behindProxy, storeOf } from "./scene.mjs";
import { RUNTIME, Server, argumentsOf, eventually, freePort, freshDatabase, run, temporaryFolder } from "./server.mjs";

const BYTES = 8 << 20;
const RECOVERY_MS = 10_000;

/** A file system of its own; gone with this process at the latest. */
class Disk {
  static async make(t) {
    const disk = new Disk();
    disk.folder = temporaryFolder();
    const isRoot = process.getuid() === 0;
    const script = 'mount -t tmpfs -o "size=$2" tmpfs "$1" && echo mounted && exec cat';
    // It holds the namespace until its standard input ends.
    disk.keeper = spawn("unshare", [isRoot ? "-m" : "-Urm", "bash", "-c", script, "bash", disk.folder, String(BYTES)], { stdio: ["pipe", "pipe", "inherit"] });
    t.after(() => disk.keeper.stdin.end());
    await new Promise((resolve, reject) => {
      disk.keeper.stdout.once("data", resolve);
      disk.keeper.once("exit", () => reject(new Error("a file system cannot be mounted here (see above): run where unshare -m and mount are allowed")));
    });
    disk.inside = ["nsenter", "--target", String(disk.keeper.pid), "--mount", ...(isRoot ? [] : ["--user", "--preserve-credentials"]), "--"];
    disk.data = join(disk.folder, "data");
    disk.filler = join("/proc", String(disk.keeper.pid), "root", disk.folder, "filler");
    return disk;
  }

  /** Takes every byte that is left. */
  fill() {
    const file = openSync(this.filler, "a");
    try {
      for (let size = 1 << 20; size >= 1; ) {
        try {
          if (writeSync(file, Buffer.alloc(size)) < size) size >>= 1;
        } catch (error) {
          if (error.code !== "ENOSPC") throw error;
          size >>= 1;
        }
      }
    } finally {
      closeSync(file);
    }
  }

  free() {
    rmSync(this.filler);
  }

  async makeReadOnly() {
    const [program, ...words] = [...this.inside, "mount", "-o", "remount,ro", this.folder];
    execFileSync(program, words);
  }

  start(database = null, flags = {}) {
    return Server.start({ data: this.data, ...flags }, { database, inside: this.inside });
  }

  rows() {
    return rowsOfFile(join(this.data, "duet.db"), this.inside);
  }

  /** A start that fails, soon, with exactly one line that says what is wrong. */
  async fails(about, database) {
    const args = argumentsOf({ host: "127.0.0.1", port: await freePort(), runtime: RUNTIME, shards: 1, data: this.data });
    const { code, stderr } = await run(args, { inside: this.inside, database });
    assert.equal(code, 1, stderr);
    assert.equal(stderr.split("\n").filter((line) => line.trim() !== "").length, 1, stderr);
    assert.match(stderr, about);
  }
}

/** Everything acknowledged is in the tables, and told by the server. */
async function allThere(ledger, server, disk) {
  const rows = await disk.rows();
  assert.deepEqual(ledger.faults(rows), []);
  ledger.adopt(rows);
  assert.deepEqual(await ledger.faultsTold(server, [...ledger.people.values()]), []);
}

describe("a disk that takes no more", { concurrency: 4 }, () => {
  /** A test on a server and a disk of its own. */
  const alone = (name, body) =>
    it(name, { timeout: 120_000 }, async (t) => {
      const disk = await Disk.make(t);
      const server = await disk.start();
      server.mayEnd = true;
      try {
        await Cast.play(server, "mixed", (cast) => body(cast, server, disk));
      } finally {
        await server.kill();
      }
    });

  alone("full: writes are refused and said so, all else goes on, and all is well once there is room", async (cast, server, disk) => {
    const [ledger, tally] = [new Ledger(), new Tally()];
    const scene = new Scene(cast, server, ledger);
    await scene.set();
    await scene.callCanBeRecorded();
    disk.fill();
    const sizeBefore = ledger.people.size;
    // The log of the database still has room in itself.
    await eventually("sign-ups are refused", async () => (await tally.one("sign-up", () => ledger.signUp(server))) === 503);
    await scene.goesOn("while full");
    await scene.requests(tally);
    await scene.cachedSession();
    await ledger.ask(server, "GET", "/room/history", { token: scene.caller.token });
    assert.equal(tally.of("queue")[503], 0, "reads go on");
    scene.end();
    await eventually("nothing is written any more", async () => (await tally.one("sign-up", () => ledger.signUp(server))) === 503);
    assert.match(server.tail(50), /ERROR request\{id="[0-9a-f]+"\}: the store failed reason="database or disk is full"/);
    console.log(`full: ${tally.words().join("; ")}; ${ledger.people.size - sizeBefore} sign-ups still found room in the log`);

    disk.free();
    await ledger.signUpsGoOn(server, RECOVERY_MS);
    await Promise.all([scene.finalized, scene.declined]);
    await allThere(ledger, server, disk);
    assert.deepEqual(await ledger.faultsQueued(server, [...ledger.cooldowns.values()]), []);
  });

  alone("kill -9 while it is full: with room again all that was acknowledged is there", async (cast, server, disk) => {
    const ledger = new Ledger();
    const scene = new Scene(cast, server, ledger);
    await scene.set();
    const load = Promise.all(Array.from({ length: 8 }, async () => {
      while (server.alive) await ledger.signUp(server).catch(() => {});
    }));
    await eventually("there is load", () => ledger.people.size > 100);
    disk.fill();
    await eventually("sign-ups are refused", () => ledger.refused > 50);
    await server.kill();
    await load;
    disk.free();
    await server.launch();
    await allThere(ledger, server, disk);
    await ledger.signUp(server);
  });

  alone("full at its start, with data: what is there can be read, and written once there is room", async (cast, server, disk) => {
    const ledger = new Ledger();
    const person = await ledger.signUp(server);
    await server.kill();
    disk.fill();
    await server.launch();
    await ledger.ask(server, "GET", "/user/me", { token: person.token });
    disk.free();
    await ledger.signUpsGoOn(server, RECOVERY_MS);
    await allThere(ledger, server, disk);
  });

  alone("read-only at its start, with data: one line says so", async (cast, server, disk) => {
    await server.kill();
    await disk.makeReadOnly();
    await disk.fails(/data folder cannot be written.*[Rr]ead-only/);
  });

  it("full at its start, without data: one line says so", async (t) => {
    const disk = await Disk.make(t);
    disk.fill();
    await disk.fails(/full|[Nn]o space/);
  });

  it("read-only at its start, without data: one line says so", async (t) => {
    const disk = await Disk.make(t);
    await disk.makeReadOnly();
    await disk.fails(/data folder cannot be written.*[Rr]ead-only/);
  });

  describe("the journal of a Postgres that is away", { concurrency: 2 }, () => {
    const postgres = new Postgres();
    before(() => postgres.start());

    it("full: nobody is told of an end that is not kept; once there is room he is, and it is stored once", { timeout: 120_000 }, async (t) => {
      const disk = await Disk.make(t);
      await behindProxy(postgres, (url) => disk.start(url), async ({ database, proxy, server, ledger, scene }) => {
        await proxy.begin("refuse");
        await eventually("the loss is seen", async () => (await request(server.url, "GET", "/ready")).status === 503);
        disk.fill();
        await scene.goesOn("while full");
        scene.end();
        await eventually("it is said", () => /ERROR a write cannot be kept.*database or disk is full/.test(server.tail(50)));
        assert.deepEqual([scene.finalizedAt, scene.declinedAt], [undefined, undefined]);
        disk.free();
        await Promise.all([scene.finalized, scene.declined]);
        await proxy.mend();
        await eventually("the journal is empty", async () => (await storeOf(server)).journal.waiting === 0);
        await ledger.signUpsGoOn(server, RECOVERY_MS);
        assert.deepEqual(ledger.faults(await rowsOfPostgres(database)), []);
      });
    });

    it("read-only at its start: one line says so, and without a journal it starts", { timeout: 60_000 }, async (t) => {
      const [disk, database] = [await Disk.make(t), freshDatabase(postgres.url)];
      await disk.makeReadOnly();
      await disk.fails(/data folder cannot be written.*[Rr]ead-only/, database);
      const server = await disk.start(database, { "journal-mib": 0 });
      assert.equal((await storeOf(server)).journal, undefined);
      assert.equal((await server.stop()).code, 0);
    });
  });
});

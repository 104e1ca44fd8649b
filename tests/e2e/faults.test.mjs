// duet on a Postgres behind a proxy that does what networks do: what goes on, what is refused, what is stored in the end.
//
// Each fault finds a call under way, an invite ringing, sessions in cache; signs up, logs in, edits a profile, ends the
// call, declines. Prints a table: fault | what clients saw | what was in the database afterwards.

import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { request } from "./client.mjs";
import { Postgres } from "./postgres.mjs";
import { bare, rowsOfPostgres } from "./rows.mjs";
import { Tally, behindProxy, storeOf } from "./scene.mjs";
import { Server, eventually } from "./server.mjs";

/** Time to connect to the database, and of a request to it, ms. */
const FLAGS = { "database-timeout": 1_000, "database-query-timeout": 1_000 };
const SIGN_UPS_LATE = 3;
const RECOVERY_MS = 15_000;
/** Somewhere in an answer or a statement; in the next connection it may be in its beginning. */
const somewhere = (from, to) => () => from + Math.floor(Math.random() * (to - from));

/** `away`: nothing that needs the database can succeed. `slow`: everything succeeds, in the default times. */
const FAULTS = [
  { what: "connections refused, those open cut", name: "refuse", away: true },
  { what: "connections stand, nothing passes", name: "stall", away: true },
  { what: "requests cut off after 1 to 300 bytes", name: "cut", direction: "request", after: somewhere(1, 300) },
  { what: "requests cut off after 1,000 to 3,000 bytes", name: "cut", direction: "request", after: somewhere(1_000, 3_000) },
  { what: "replies cut off after 1 to 2,000 bytes", name: "cut", direction: "reply", after: somewhere(1, 2_000) },
  { what: "half a request, then nothing", name: "halt", direction: "request", after: somewhere(1, 2_000) },
  { what: "half a reply, then nothing", name: "halt", direction: "reply", after: somewhere(1, 2_000) },
  { what: "each direction 100 ms later (a request may take 10 s)", name: "delay", ms: 100, slow: true },
  { what: "each direction 2 s later (a request may take 1 s)", name: "delay", ms: 2_000, away: true },
  { what: "the answer to every write and COMMIT lost", name: "loseWrites", losing: true },
];

const isReady = async (server) => (await request(server.url, "GET", "/ready")).status === 200;

/** The end of a call and a decline are in the journal, and operators can see it. */
async function waits(server) {
  const { status, headers } = await request(server.url, "GET", "/ready");
  assert.deepEqual([status, headers["retry-after"] > 0], [503, true]);
  const { kind, since, journal } = await storeOf(server);
  assert.ok(kind === "postgres" && journal.waiting >= 2 && journal.refused === 0, JSON.stringify(journal));
  assert.ok(Math.abs(Date.now() - since) < 120_000);
}

async function nothingWaits(server) {
  await eventually("the journal is empty", async () => (await storeOf(server)).journal.waiting === 0);
  await eventually("it is ready", () => isReady(server));
  assert.equal((await storeOf(server)).reachable, true);
}

describe("Postgres behind a bad network", { concurrency: 3 }, () => {
  const postgres = new Postgres();
  const table = ["| fault | what clients saw | in the database afterwards |", "| --- | --- | --- |"];
  before(() => postgres.start());
  after(() => console.log(table.filter(Boolean).join("\n")));

  for (const [index, { what, name, away = false, slow = false, losing = false, ...options }] of FAULTS.entries()) {
    it(what, { timeout: 120_000 }, async () => {
      const start = (url) => Server.start(slow ? {} : FLAGS, { database: url });
      await behindProxy(postgres, start, async ({ database, proxy, server, ledger, scene }) => {
        const [tally, before] = [new Tally(), ledger.people.size];

        await proxy.begin(name, options);
        await scene.goesOn("at once");
        await scene.requests(tally);
        await scene.goesOn("meanwhile");
        await scene.cachedSession();
        scene.end();
        for (let i = 0; i < SIGN_UPS_LATE; i++) await tally.one("sign-up", () => ledger.signUp(server, "Hal"));
        if (slow || away) await Promise.all([scene.finalized, scene.declined]);
        if (away) await waits(server);
        const told = { finalized: scene.finalizedAt, declined: scene.declinedAt };

        const mendedAt = Date.now();
        await proxy.mend();
        await ledger.signUpsGoOn(server, RECOVERY_MS);
        const recoveryMs = Date.now() - mendedAt;
        await Promise.all([scene.finalized, scene.declined]);
        await nothingWaits(server);

        const refused = (kind) => tally.of(kind)[503];
        const answered = (kind) => tally.of(kind)[200];
        for (const kind of ["sign-up", "log-in", "profile"]) {
          if (away) assert.equal(answered(kind), 0, `${kind}: ${tally.words()}`);
          if (slow) assert.equal(refused(kind), 0, `${kind}: ${tally.words()}`);
          if (losing) assert.ok(refused(kind) > 0, `${kind}: ${tally.words()}`);
        }
        const rows = await rowsOfPostgres(database);
        assert.deepEqual(ledger.faults(rows), []);
        const stored = ledger.wholly;
        ledger.adopt(rows);
        assert.deepEqual(await ledger.faultsTold(server, [...ledger.people.values()]), []);
        assert.deepEqual(await ledger.faultsQueued(server, [...ledger.cooldowns.values()]), []);
        assert.equal(rows.chat_history.filter(({ room_id }) => room_id === bare(scene.call.room)).length, 2);
        for (const person of [scene.caller, scene.callee]) {
          assert.equal(person.all("session:finalized").length, 1, "told once");
          assert.equal(person.all("error").length, 0);
        }
        assert.equal(scene.suitor.all("call:declined").length, 1, "told once");

        const when = (event) => `${event} ${told[event] ? `meanwhile, ${told[event] - scene.call.hungUpAt} ms later` : `${scene[`${event}At`] - mendedAt} ms after`}`;
        const saw = [...tally.words(), "relay, chat, presence, cached session as ever", when("finalized"), when("declined"), `sign-ups again after ${recoveryMs} ms`];
        const unsure = ledger.wholly - stored;
        const had = [`all ${ledger.people.size} acknowledged sign-ups (${before} before)`, `${unsure} of ${ledger.refused} refused requests stored all the same`, "history once for both, cooldowns once"];
        table[index + 2] = `| ${what} | ${saw.join("; ")} | ${had.join("; ")} |`;
      });
    });
  }

  for (const killed of ["while the database is away", "as it comes back"]) {
    it(`what was told to have ended is stored once, though duet is killed ${killed}`, { timeout: 120_000 }, async () => {
      const start = (url) => Server.start(FLAGS, { database: url });
      await behindProxy(postgres, start, async ({ database, proxy, server, ledger, scene }) => {
        await proxy.begin("refuse");
        await eventually("the loss is seen", async () => !(await storeOf(server)).reachable);
        scene.end();
        await Promise.all([scene.finalized, scene.declined]);
        await waits(server);
        if (killed === "while the database is away") {
          await server.kill();
          await proxy.mend();
        } else {
          await proxy.mend();
          await eventually("some of it is applied", async () => (await storeOf(server)).journal.waiting < 2);
          await server.kill();
        }
        await server.launch();
        await nothingWaits(server);
        const rows = await rowsOfPostgres(database);
        assert.deepEqual(ledger.faults(rows), []);
        assert.equal(rows.chat_history.filter(({ room_id }) => room_id === bare(scene.call.room)).length, 2);
        assert.deepEqual(await ledger.faultsQueued(server, [...ledger.cooldowns.values()]), []);
      });
    });
  }
});

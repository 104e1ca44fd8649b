// duet on a Postgres of this suite's own, which it may kill: outages, starts that must fail, migrations.

import assert from "node:assert/strict";
import { join } from "node:path";
import { before, describe, it } from "node:test";
import { Cast, hangUp, lasting, say, within } from "./cast.mjs";
import { freshAddress, request } from "./client.mjs";
import { Postgres } from "./postgres.mjs";
import { Server, eventually, freePort, freshDatabase, pause, run, sql, temporaryFolder } from "./server.mjs";

const KILLS = 4;
const REFUSAL_MS_MAX = 500;
const PASSWORD = "correct horse";

const signUp = (server) =>
  request(server.url, "POST", "/auth/guest", { body: { name: "Ada", gender: "female" }, address: freshAddress() });

/** Signs people up until told to stop: what was acknowledged, and how the rest was refused. */
function load(server) {
  const run = { made: [], refused: new Map(), slowestRefusalMs: 0, ends: false };
  const one = async () => {
    while (!run.ends) {
      const from = performance.now();
      const { status, body, headers } = await signUp(server);
      if (status === 200) run.made.push(body);
      else {
        run.refused.set(status, (run.refused.get(status) ?? 0) + 1);
        run.slowestRefusalMs = Math.max(run.slowestRefusalMs, performance.now() - from);
        assert.ok(Number(headers["retry-after"]) > 0, "a refusal says when to come back");
        await pause(5);
      }
    }
  };
  const workers = Array.from({ length: 8 }, one);
  run.stop = async () => {
    run.ends = true;
    await Promise.all(workers);
  };
  return run;
}

async function allThere(server, made) {
  for (const { sessionToken, userId } of made) {
    const { status, body } = await request(server.url, "GET", "/user/me", { token: sessionToken });
    assert.deepEqual([status, body.userId], [200, userId]);
  }
}

describe("Postgres", () => {
  const postgres = new Postgres();
  before(() => postgres.start());

  it(`kill -9 of Postgres under load, ${KILLS} times: nothing acknowledged is lost, and duet recovers`, { timeout: 180_000 }, async () => {
    const server = await Server.start({}, { database: freshDatabase(postgres.url) });
    try {
      await Cast.play(server, "mixed", async (cast) => {
        const running = load(server);
        for (let round = 1; round <= KILLS; round++) {
          const before = running.made.length;
          await eventually("sign-ups go on", () => running.made.length >= before + 50, 20_000);
          await postgres.kill();
          const refused = running.refused.get(503) ?? 0;
          await eventually("sign-ups are refused", () => running.refused.get(503) > refused);
          await postgres.start();
        }
        const before = running.made.length;
        await eventually("sign-ups go on", () => running.made.length >= before + 50, 20_000);
        await running.stop();
        assert.deepEqual([...running.refused.keys()], [503], "refused as unavailable, in no other way");
        within(running.slowestRefusalMs, 0, 2_000, "ms of the slowest refusal");
        await allThere(server, running.made);
        await server.kill();
        await server.launch();
        await allThere(server, running.made);
        const guest = await cast.online();
        await guest.get("/user/me");
      });
    } finally {
      await server.kill();
      await postgres.mend();
    }
  });

  it("while Postgres is away a call goes on and ends, and its end is stored once when it is back", { timeout: 120_000 }, async () => {
    const database = freshDatabase(postgres.url);
    const server = await Server.start({}, { database });
    try {
      await Cast.play(server, "mixed", async (cast) => {
        const { caller, callee, room, startedAt } = await cast.call();
        const bystander = await cast.online();
        await bystander.get("/user/me");
        await say(caller, callee, room, "before");
        await postgres.kill();
        await eventually("the outage is noticed", async () => (await signUp(server)).status === 503);
        await say(callee, caller, room, "meanwhile");
        bystander.emit("presence:join");
        bystander.emit("queue:join");
        assert.equal((await request(server.url, "GET", "/health")).status, 200);
        assert.equal((await bystander.http("GET", "/user/me")).status, 200, "a session in the cache keeps working");
        const from = performance.now();
        for (let i = 0; i < 20; i++) assert.equal((await signUp(server)).status, 503);
        within((performance.now() - from) / 20, 0, REFUSAL_MS_MAX, "ms of a refusal");
        await lasting(startedAt);
        caller.emit("call:end", { roomId: room });
        const [mine, theirs] = await Promise.all([caller, callee].map((person) => person.next("session:finalized")));
        assert.equal(mine.sessionId, theirs.sessionId);
        await postgres.start();
        await eventually("it is back", async () => (await signUp(server)).status === 200);
        for (const person of [caller, callee]) {
          const { history } = await person.get("/room/history");
          assert.deepEqual(history.map(({ sessionId, messages }) => [sessionId, messages.map(({ text }) => text)]), [[mine.sessionId, ["before", "meanwhile"]]]);
          assert.equal((await person.get("/user/me")).sessionCount, 1);
        }
        assert.equal(sql("SELECT count(*) FROM chat_history", database), "2");
      });
    } finally {
      await server.kill();
      await postgres.mend();
    }
  });

  it("a duet that is stopped in a call stores it, and another on the same database knows everybody", { timeout: 60_000 }, async () => {
    const server = await Server.start({}, { database: freshDatabase(postgres.url) });
    try {
      await Cast.play(server, "mixed", async (cast) => {
        const { caller, callee, room, startedAt } = await cast.call();
        const email = `${caller.id}@example.org`;
        const body = { sessionToken: caller.token, email, password: PASSWORD };
        assert.equal((await caller.http("POST", "/auth/link", { body })).status, 200);
        await lasting(startedAt);
        await hangUp(caller, callee, room);
        server.mayEnd = true;
        assert.equal((await server.stop()).code, 0, server.tail());
        await server.launch();
        assert.equal((await caller.get("/room/history")).history.length, 1);
        const login = await request(server.url, "POST", "/auth/login", { body: { email, password: PASSWORD }, address: freshAddress() });
        assert.deepEqual([login.status, login.body.userId], [200, caller.id]);
      });
    } finally {
      await server.kill();
    }
  });

  it("calls that are older than HISTORY_KEEP_DAYS leave the history for the archive, and the log says so", { timeout: 60_000 }, async () => {
    const database = freshDatabase(postgres.url);
    const server = await Server.start({ "history-keep-days": 30, "sweep-seconds": 1 }, { database });
    try {
      const { body } = await signUp(server);
      const call = (session, days) => `('${session}', '${body.userId}', gen_random_uuid(), 'Bob', gen_random_uuid(), 0, 60, '[]', ${Date.now() - days * 86_400_000})`;
      sql(
        `INSERT INTO chat_history (session_id, user_id, partner_id, partner_name, room_id, started_at, duration, messages, created_at)
         VALUES ${call("old", 31)}, ${call("older", 400)}, ${call("recent", 29)}`,
        database,
      );
      await eventually("the log says so", () => /old history was archived.*rows=2/.test(server.log));
      const { history } = (await request(server.url, "GET", "/room/history", { token: body.sessionToken, address: freshAddress() })).body;
      assert.deepEqual(history.map(({ sessionId }) => sessionId), ["recent"]);
      assert.equal(sql("SELECT string_agg(session_id, ' ' ORDER BY session_id) FROM chat_history_archive", database), "old older");
    } finally {
      await server.kill();
    }
  });

  /** A start that fails, soon, with exactly one line that says why and not the password. */
  async function fails(database, about, flags = {}) {
    const args = Object.entries({ host: "127.0.0.1", port: await freePort(), shards: 1, data: join(temporaryFolder(), "data"), ...flags }).flatMap(([name, value]) => [`--${name}`, String(value)]);
    const { code, stderr } = await run(args, { database });
    assert.ok(code !== null && code !== 0, `exit code ${code}`);
    assert.equal(stderr.split("\n").filter((line) => line.trim() !== "").length, 1, stderr);
    assert.match(stderr, about);
    assert.ok(!stderr.includes(new URL(postgres.url).password), stderr);
  }

  it("a database that cannot be reached", async () => {
    const url = new URL(postgres.url);
    url.port = await freePort();
    await fails(url.href, /cannot be reached.*refused/);
    url.port = new URL(postgres.url).port;
    url.pathname = "/nosuch";
    await fails(url.href, /cannot be reached.*nosuch/);
    await fails(postgres.url.replace("/postgres", "/postgres?sslmode=verify-full"), /cannot be reached|certificate/);
  });

  it("a URL that is none", () => fails("postgres://ada:secret@host:port/db", /DATABASE_URL.*must be postgres:/));

  it("duet migrate makes the schema and ends; a newer schema stops an older duet", async () => {
    const database = freshDatabase(postgres.url);
    const { code, stderr } = await run(["migrate"], { database });
    assert.equal(code, 0, stderr);
    const version = Number(sql("SELECT max(version) FROM schema_migrations", database));
    assert.ok(version >= 1);
    assert.equal((await run(["migrate"], { database })).code, 0, "nothing is left to do");
    const server = await Server.start({}, { database });
    assert.equal((await run(["migrate", "--data", server.flags.data], { database })).code, 0, "also beside a server that runs");
    await server.stop();
    sql("INSERT INTO schema_migrations (version) VALUES (9999)", database);
    await fails(database, /newer duet.*9999/);
  });
});

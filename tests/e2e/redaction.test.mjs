// What must never be written down: a whole product flow with known secrets at the highest level of the log, then a look
// at everything the server has written, and at what other users of the machine see of it.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, it } from "node:test";
import { Cast, enterRoom, hangUp, joinQueue, lasting, ring } from "./cast.mjs";
import { TRANSPORTS, request } from "./client.mjs";
import { Postgres } from "./postgres.mjs";
import { Server, freshDatabase } from "./server.mjs";

const TURN_SECRET = "fb7e1c9d20a84e63b5d1447c90e2aa35";
const PASSWORD = "correct horse battery staple";
const WRONG_PASSWORD = "incorrect horse battery staple";
const CHAT = "meet me at the old bridge at nine";
const SOCIAL = "ada.lovelace.1815";
const SDP = "o=- 4611731400430051336 2 IN IP4 192.0.2.77";
const CANDIDATE = "candidate:842163049 1 udp 1677729535 192.0.2.78 46154 typ srflx";
const NAME = "Augusta Unmistakable";
/** As much of the log as the test's server keeps; more would have lost its beginning. */
const LOG_CHARS_MAX = 390_000;

/** Sign-up to history with everything that must stay secret; gives what must. */
async function product(cast) {
  const { server } = cast;
  const email = `ada.${Date.now()}.${cast.transport.length}@private.example`;
  const [caller, callee] = [await cast.online({ name: NAME }), await cast.online()];
  const post = (path, body, token) => request(server.url, "POST", path, { body, token, address: caller.account.address });
  const link = { sessionToken: caller.token, email, password: PASSWORD };
  assert.equal((await post("/auth/link", link)).status, 200);
  assert.equal((await post("/auth/link", { ...link, sessionToken: callee.token, password: WRONG_PASSWORD })).status, 409);
  assert.equal((await post("/auth/login", { email, password: WRONG_PASSWORD })).status, 401);
  assert.equal((await post("/auth/guest", `{"name":"${NAME}","gender":`)).status, 400);
  assert.equal((await caller.http("GET", `/user/me?token=${caller.token}`)).status, 200);
  assert.equal((await request(server.url, "GET", `/nothing/${caller.token}/${email}`)).status, 404);
  const socials = await caller.http("PUT", "/user/me", { body: { socials: { instagram: SOCIAL } } });
  assert.equal(socials.status, 200);
  const { iceServers } = await caller.get("/turn/credentials");
  const { credential } = iceServers.find((entry) => entry.credential);

  await joinQueue(caller, callee);
  const inviteId = await ring(caller, callee);
  callee.emit("call:accept", { inviteId, requestedSeconds: 300 });
  const { room, startedAt } = await enterRoom(caller, callee);
  caller.emit("rtc:offer", { roomId: room, offer: { type: "offer", sdp: SDP } });
  caller.emit("rtc:ice", { roomId: room, candidate: { candidate: CANDIDATE } });
  caller.emit("room:chat", { roomId: room, text: CHAT });
  caller.emit("room:giveSocial", { roomId: room, socials: { instagram: SOCIAL } });
  caller.emit("rtc:offer", { roomId: "none", offer: { sdp: SDP } });
  caller.emitRaw(`["auth",{"sessionToken":["${caller.token}"]}]`);
  await callee.next("room:chat");
  await lasting(startedAt);
  await hangUp(caller, callee, room);
  await caller.get("/room/history");
  const login = await post("/auth/login", { email, password: PASSWORD });
  assert.equal(login.status, 200, login.text);
  await caller.ended();
  const people = [caller, callee];
  return {
    email,
    credential,
    "new token": login.body.sessionToken,
    ...Object.fromEntries(people.flatMap(({ token, account }, i) => [[`token ${i}`, token], [`address ${i}`, account.address]])),
  };
}

describe("redaction", { timeout: 120_000 }, () => {
  const postgres = new Postgres();
  before(() => postgres.start());
  after(() => postgres.kill());

  for (const store of ["sqlite", "postgres"]) {
    it(`nothing secret is written down on ${store}, whatever the level, and ps shows none`, async (t) => {
      const database = store === "postgres" ? freshDatabase(postgres.url) : null;
      const env = { TURN_URLS: "turn:turn.example", TURN_SECRET };
      const server = await Server.start({ log: "trace" }, { database, env });
      t.after(() => server.kill());
      const found = [];
      // In turn: more passwords at once than an unoptimised build hashes in time would be refused.
      for (const transport of [...TRANSPORTS, "polling"]) {
        await Cast.play(server, transport, async (cast) => found.push(...Object.entries(await product(cast))));
      }
      const fixed = { TURN_SECRET, PASSWORD, WRONG_PASSWORD, CHAT, SOCIAL, SDP, CANDIDATE, NAME };
      const password = database && decodeURIComponent(new URL(database).password);
      const secrets = [...found, ...Object.entries(fixed), ...(password ? [["database password", password]] : [])];
      const arguments_ = readFileSync(`/proc/${server.pid}/cmdline`, "utf8");
      if (database) {
        await postgres.kill();
        await request(server.url, "POST", "/auth/guest", { body: { name: NAME, gender: "female" } });
        await postgres.start();
      }
      assert.equal((await server.stop()).code, 0);
      assert.ok(server.log.length < LOG_CHARS_MAX, "the log is here from its beginning");
      assert.match(server.log, /DEBUG.*request answered/, "the log does speak of requests");
      assert.match(server.log, /DEBUG.*connection closed/, "and of connections");
      const written = server.log.toLowerCase();
      const leaked = secrets.filter(([, secret]) => written.includes(secret.toLowerCase()) || arguments_.includes(secret));
      assert.deepEqual(leaked.map(([name]) => name), []);
    });
  }
});

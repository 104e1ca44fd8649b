// duet behind the proxies that operators run, each with the example file of systemd/proxies: what people do goes through
// every one, and it is their own addresses that are counted (issue 7; README, "Behind a proxy").

import assert from "node:assert/strict";
import { once } from "node:events";
import http2 from "node:http2";
import { after, before, describe, it } from "node:test";
import { Cast, enterRoom, hangUp, joinQueue, ring, say } from "./cast.mjs";
import { freshAddress } from "./client.mjs";
import { FRONTS, Front } from "./front.mjs";
import { Scrape } from "./metrics.mjs";
import { Postgres } from "./postgres.mjs";
import { noise } from "./raw.mjs";
import { Server, eventually, freshDatabase } from "./server.mjs";

const TIMEOUT = { timeout: 60_000 };
const BODY = { name: "Ada", gender: "female" };
const SDP_CHARS = 4_096;
const LIMITS = { "signups-per-hour": 2, "address-connections-max": 2, "log-format": "text" };
/** So that nobody waits longer than need be; of the examples only these times change. */
const QUICKER = { "inter 2s fastinter 500ms downinter 500ms": "inter 300ms" };

/** A call in which both hear all that the other says, to its end. */
async function callThrough(cast) {
  const { caller, callee, room } = await cast.call();
  if (cast.transport === "polling+websocket") {
    for (const person of [caller, callee]) await person.upgrade();
  }
  for (const [from, to, name] of [[caller, callee, "offer"], [callee, caller, "answer"]]) {
    const sdp = noise(SDP_CHARS);
    from.emit(`rtc:${name}`, { roomId: room, [name]: { type: name, sdp } });
    assert.equal((await to.next(`rtc:${name}`))[name].sdp, sdp);
  }
  await say(caller, callee, room, "hello");
  await say(callee, caller, room, "¿qué tal? 你好");
  await hangUp(caller, callee, room);
  const speaks = { "socket.io": "websocket", polling: "polling", "polling+websocket": "websocket" }[cast.transport];
  for (const person of speaks ? [caller, callee] : []) assert.equal(person.wire.speaks, speaks);
}

/** Somebody whose client comes back by itself. */
const returning = async (cast) => (await cast.guest()).connect({ reconnection: true });

describe("proxies", { concurrency: 3 }, () => {
  // First, for it waits the longest.
  describe("the health check of a proxy", { concurrency: 4 }, () => {
    /** Waits until HAProxy takes duet for `status`, for this reason (`check_status` in its manual) and answer. */
    const isSeen = (front, status, reason = "L7OK", code = "200") =>
      eventually(`duet is ${status} by ${reason}`, async () => {
        const stat = await front.stat("duet");
        return stat.status === status && stat.check_status === reason && stat.check_code === code;
      });

    /** A test with servers that end with it, and a proxy in front of the first. */
    const checked = (title, kind, body) =>
      it(title, TIMEOUT, async (t) => {
        const start = async (database) => {
          const server = await Server.start(FRONTS[kind].flags, { database });
          t.after(() => server.kill());
          return server;
        };
        const lead = async (server, words) => {
          const front = await Front.start(server, FRONTS[kind], { ...QUICKER, ...words });
          t.after(() => front.stop());
          await isSeen(front, "UP");
          return front;
        };
        await body({ start, lead });
      });

    for (const kind of Object.keys(FRONTS).filter((name) => name.startsWith("HAProxy"))) {
      checked(`SIGTERM takes duet out, its start puts it back, and who was there comes back by himself (${kind})`, kind, async ({ start, lead }) => {
        const server = await start();
        const front = await lead(server);
        await Cast.play(front, "socket.io", async (cast) => {
          const person = await returning(cast);
          assert.equal((await server.stop()).code, 0);
          await isSeen(front, "DOWN", "L4CON", "");
          await server.launch();
          await person.bound();
          await isSeen(front, "UP");
        });
      });
    }

    describe("on Postgres", { concurrency: 1 }, () => {
      const postgres = new Postgres();
      before(() => postgres.start());

      checked("on a rolling deploy people and their call go on with the next duet", "HAProxy, HTTP", async ({ start, lead }) => {
        const database = freshDatabase(postgres.url);
        const [old, next] = [await start(database), await start(database)];
        const front = await lead(old, { "#server next 127.0.0.1:3002": `server next 127.0.0.1:${next.port}` });
        front.mayEnd = true;
        await Cast.play(front, "socket.io", async (cast) => {
          const [caller, callee] = [await returning(cast), await returning(cast)];
          await joinQueue(caller, callee);
          callee.emit("call:accept", { inviteId: await ring(caller, callee), requestedSeconds: 300 });
          const { room } = await enterRoom(caller, callee);
          assert.equal((await old.stop()).code, 0);
          await Promise.all([caller, callee].map((person) => person.bound()));
          await say(caller, callee, room, "with the next one");
          await say(callee, caller, room, "me too");
          await hangUp(caller, callee, room);
        });
      });

      checked("duet without its database is told by the 503 of /ready, and carries calls all the same", "HAProxy, HTTP", async ({ start, lead }) => {
        const front = await lead(await start(freshDatabase(postgres.url)));
        await Cast.play(front, "polling", async (cast) => {
          const { caller, callee, room } = await cast.call();
          await postgres.kill();
          await isSeen(front, "DOWN", "L7STS", "503");
          await say(caller, callee, room, "Are you there?");
          await postgres.start();
          await isSeen(front, "UP");
        });
      });
    });
  });

  for (const [name, kind] of Object.entries(FRONTS)) {
    describe(`behind ${name}`, { concurrency: 4 }, () => {
      let server, front;
      before(async () => {
        server = await Server.start({ ...LIMITS, ...kind.flags });
        front = await Front.start(server, kind);
      });
      after(async () => {
        await front?.stop();
        await server?.kill();
      });

      for (const transport of ["socket.io", "polling", "polling+websocket", "/ws"]) {
        it(`two people meet, signal, chat and part (${transport})`, TIMEOUT, () => Cast.play(front, transport, callThrough));
      }

      it("the address that is counted is that of who connects, whatever he says of himself", TIMEOUT, async () => {
        const [ada, bo] = [front.reach, front.reach];
        const forged = () => ({ "x-forwarded-for": freshAddress(), "x-real-ip": freshAddress(), forwarded: `for=${freshAddress()}` });
        const signUp = async (reach, headers) => (await front.ask("POST", "/auth/guest", { reach, body: BODY, headers })).status;
        const statuses = [];
        for (let i = 0; i < 3; i++) statuses.push(await signUp(ada, forged()));
        assert.deepEqual(statuses, [200, 200, 429]);
        assert.equal(await signUp(bo, { "x-forwarded-for": ada.localAddress }), 200);
        // Who claims to be the proxy is not asked further.
        assert.equal(await signUp(ada, { "x-forwarded-for": `${freshAddress()}, 127.0.0.1` }), 429);
      });

      it("of three connections of one address the third is refused, by WebSocket and by polling", TIMEOUT, () => Cast.play(front, "socket.io", async (cast) => {
        const office = front.reach;
        for (const transport of ["socket.io", "polling"]) {
          const { account } = await cast.guest();
          await cast.connection({ ...account, reach: office }, transport).connect();
        }
        for (const transport of ["socket.io", "polling"]) {
          const { account } = await cast.guest();
          await assert.rejects(cast.connection({ ...account, reach: office }, transport).open(), /Too many connections from this address/);
          await cast.connection(account, transport).connect();
        }
        const refused = (await Scrape.of(server)).get('duet_connections_refused_total{reason="address"}');
        assert.ok(refused >= 2, `${refused} refused`);
      }));

      if (kind.redirects) {
        it("plain HTTP is sent to HTTPS, and HTTPS is not", TIMEOUT, async () => {
          // Who only passes connections on cannot take a forged header out; it spares its sender a redirect, and that is all.
          const claims = kind.flags["proxy-protocol"] ? [{}] : [{}, { "x-forwarded-proto": "https" }];
          for (const headers of claims) {
            const plain = await front.get("/demo?a=b", { base: front.plainUrl, headers });
            assert.deepEqual([plain.status, plain.headers.location], [301, `${front.plainUrl.replace("http", "https")}/demo?a=b`]);
          }
          const { status, headers } = await front.get("/demo");
          assert.deepEqual([status, headers["strict-transport-security"] !== undefined], [200, true]);
        });
      }

      if (kind.http2) {
        it(`HTTP/2 is spoken, ${kind.http2} within it`, TIMEOUT, async () => {
          const session = http2.connect(front.url, { ca: front.ca });
          try {
            const [settings] = await once(session, "remoteSettings");
            assert.equal(await statusOf(session.request({ ":path": "/stats/live" })), 200);
            const within = { ":method": "CONNECT", ":protocol": "websocket", ":path": "/ws", "sec-websocket-version": "13" };
            assert.equal(settings.enableConnectProtocol ?? false, kind.http2 === "with WebSocket");
            if (settings.enableConnectProtocol) await carries(session.request(within, { endStream: false }));
          } finally {
            session.destroy();
          }
        });
      }
    });
  }
});

async function statusOf(stream) {
  const [head] = await once(stream, "response");
  stream.resume();
  return head[":status"];
}

/** Opens as a WebSocket, in which duet hears what is said, and answers. */
async function carries(stream) {
  const [head] = await once(stream, "response");
  assert.equal(head[":status"], 200);
  const text = Buffer.from('["auth",{"sessionToken":"none"}]');
  // A frame whose mask changes nothing.
  stream.write(Buffer.concat([Buffer.from([0x81, 0x80 | text.length, 0, 0, 0, 0]), text]));
  const [answer] = await once(stream, "data");
  assert.match(answer.toString("latin1"), /auth:failed/);
}

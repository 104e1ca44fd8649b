// The client's address by the PROXY protocol: required of trusted proxies, refused from strangers (contract 8, D20; README, "Deployment").

import assert from "node:assert/strict";
import net from "node:net";
import { describe, it } from "node:test";
import { Cast, hangUp, say } from "./cast.mjs";
import { freshAddress } from "./client.mjs";
import { Scrape } from "./metrics.mjs";
import { PROXY_LOCAL, Server, eventually, run } from "./server.mjs";

const BODY = JSON.stringify({ name: "Ada", gender: "female" });
const signUp = (head = "") => `POST /auth/guest HTTP/1.1\r\nHost: duet\r\nConnection: close\r\n${head}Content-Type: application/json\r\nContent-Length: ${BODY.length}\r\n\r\n${BODY}`;
const BEHIND = { "proxy-protocol": "on", "trusted-proxies": "127.0.0.2", "signups-per-hour": 2 };
const [PROXY, STRANGER] = ["127.0.0.2", "127.0.0.3"];

/** A header of version 2 that names this client, with an addition of `extra` bytes. */
function version2(client, extra = 0) {
  const block = Buffer.from([...client.split(".").map(Number), 127, 0, 0, 1, 0xdc, 0x04, 0x0b, 0xb9]);
  const addition = extra ? Buffer.concat([Buffer.from([0x04, extra >> 8, extra & 255]), Buffer.alloc(extra)]) : Buffer.alloc(0);
  const length = block.length + addition.length;
  return Buffer.concat([PROXY_LOCAL.subarray(0, 12), Buffer.from([0x21, 0x11, length >> 8, length & 255]), block, addition]);
}

const version1 = (client) => Buffer.from(`PROXY TCP4 ${client} 127.0.0.1 56324 3001\r\n`);

/** What is answered on one connection from `localAddress` to these pieces, each sent by itself: a status, or null. */
function answer(server, pieces, localAddress = PROXY) {
  return new Promise((resolve, reject) => {
    let text = "";
    const socket = net.connect({ port: server.port, host: "127.0.0.1", localAddress, noDelay: true });
    socket.setTimeout(20_000, () => reject(new Error("neither answered nor closed")));
    socket.on("data", (part) => (text += part));
    // A connection that is dropped over unread bytes is reset.
    socket.on("error", () => {});
    socket.on("close", () => {
      socket.setTimeout(0);
      resolve(text === "" ? null : Number(text.slice(9, 12)));
    });
    socket.on("connect", async () => {
      for (const piece of pieces) await new Promise((sent) => socket.write(piece, sent));
    });
  });
}

/** A proxy that passes bytes on, each connection as another client's. */
async function passing(t, server) {
  const sockets = new Set();
  const proxy = net.createServer((client) => {
    const onward = net.connect({ port: server.port, host: "127.0.0.1", localAddress: PROXY });
    onward.write(version2(freshAddress()));
    for (const socket of [client, onward]) {
      sockets.add(socket);
      socket.on("error", () => {}).on("close", () => [client, onward].forEach((end) => end.destroy()));
    }
    client.pipe(onward).pipe(client);
  });
  await new Promise((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  t.after(() => [...sockets, proxy].forEach((end) => (end === proxy ? end.close() : end.destroy())));
  return Object.assign(Object.create(server), { url: `http://127.0.0.1:${proxy.address().port}` });
}

describe("behind a proxy that passes connections on", { timeout: 120_000 }, () => {
  const serving = async (t, flags = {}) => {
    const server = await Server.start({ ...BEHIND, shards: 2, ...flags });
    t.after(() => server.kill());
    return server;
  };

  it("limits count the address in the header, of either version, however it comes, and not the proxy's", async (t) => {
    const server = await serving(t);
    const [ada, bo, cy] = [freshAddress(), freshAddress(), freshAddress()];
    assert.equal(await answer(server, [version2(ada), signUp()]), 200);
    assert.equal(await answer(server, [Buffer.concat([version1(ada), Buffer.from(signUp())])]), 200);
    assert.equal(await answer(server, [version2(ada, 2000), signUp()]), 429);
    assert.equal(await answer(server, [...version2(bo, 9)].map((byte) => Buffer.from([byte])).concat(Buffer.from(signUp()))), 200);
    assert.equal(await answer(server, [version2(bo), signUp(`X-Forwarded-For: ${cy}\r\n`)]), 200);
    assert.equal(await answer(server, [version2(bo), signUp(`X-Forwarded-For: ${cy}\r\n`)]), 429, "a client speaks for nobody");
  });

  it("who brings no header, a malformed or a late one is dropped without a word", async (t) => {
    const server = await serving(t);
    const long = version2("10.0.0.1", 4_100);
    for (const pieces of [[signUp()], ["PROXY TCP4 1.2.3\r\n", signUp()], [long, signUp()], [version2("10.0.0.1").subarray(0, 20)]]) {
      assert.equal(await answer(server, pieces), null);
    }
    const scrape = await Scrape.of(server);
    assert.equal(scrape.get('duet_connections_closed_total{reason="bad_proxy_header"}'), 3);
    assert.equal(scrape.get('duet_connections_closed_total{reason="head_timeout"}'), 1);
    await eventually("nobody is left", async () => (await Scrape.of(server)).get("duet_connections_admitted") === 0);
  });

  it("a stranger is refused whatever he brings, and this machine may only ask for itself", async (t) => {
    const server = await serving(t);
    for (const pieces of [[version2("10.0.0.1"), signUp()], [PROXY_LOCAL, signUp()], [signUp()]]) {
      assert.equal(await answer(server, pieces, STRANGER), null);
    }
    assert.equal((await Scrape.of(server)).get('duet_connections_refused_total{reason="stranger"}'), 3);
    assert.equal(await answer(server, [version2("10.0.0.1"), signUp()], "127.0.0.1"), null);
    assert.equal(await answer(server, [PROXY_LOCAL, signUp()], "127.0.0.1"), 200);
    const flags = ["--proxy-protocol=on", "--port", String(server.port)];
    const { code, stdout } = await run(["healthcheck", ...flags]);
    assert.deepEqual([code, stdout], [0, `ready: 127.0.0.1:${server.port}\n`]);
  });

  it("people call each other through it", async (t) => {
    const server = await serving(t, { "signups-per-hour": 0 });
    await Cast.play(await passing(t, server), "mixed", async (cast) => {
      const { caller, callee, room } = await cast.call();
      await say(caller, callee, room, "hello");
      await hangUp(caller, callee, room);
    });
  });
});

it("without a trusted proxy the protocol is refused at the start: nobody could connect", async () => {
  const { code, stderr } = await run(["--proxy-protocol=on"]);
  assert.equal(code, 2);
  assert.match(stderr, /--trusted-proxies \(TRUSTED_PROXIES\) names none/);
});

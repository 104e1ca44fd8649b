// Long polling and its upgrade (contract 3.1; Engine.IO protocol, revision 4): by hand, by the official client, by Python's.
//
// The suites by hand need nothing of ours but Engine.IO and a namespace; ENGINE_URL names another server to hold them against.

import assert from "node:assert/strict";
import http from "node:http";
import { gunzipSync } from "node:zlib";
import { hangUp, joinQueue, lasting, say, suite, within } from "./cast.mjs";
import { POLLING, freshAddress, ok, request } from "./client.mjs";
import { Session, Socket, ask, echo, echoed, join, query, split } from "./engine.mjs";
import { mainJob, negotiate } from "./mainjob.mjs";
import { PythonClient } from "./python.mjs";
import { Server, eventually, pause } from "./server.mjs";

const OTHER = process.env.ENGINE_URL;
const ORIGIN = "http://localhost:3000";
const UPGRADE_PATIENCE_MS = 15_000;
const PROTOCOL_AT_ONCE = 8;
const CROWD = 40;

/** A server of ours, or the one that ENGINE_URL names. */
const engine = (flags, url = OTHER) => (url ? { url, alive: true, stop() {}, tail: () => "" } : Server.start(flags));

/** A refusal in Engine.IO's words; ours also says `error`, as every refusal does (contract 2.1). */
function refused(answer, code, message) {
  assert.equal(answer.status, 400, answer.text);
  assert.match(answer.headers["content-type"], /^application\/json/);
  assert.deepEqual([answer.body?.code, answer.body?.message], [code, message]);
  if (!OTHER) assert.equal(answer.body.error, message);
}

/** A poll that a close ends: with the close packet, or a noop. */
function ended(answer, packets = ["1"]) {
  assert.equal(answer.status, 200, `the poll ended with ${answer.status}: ${answer.text}`);
  assert.ok(packets.includes(answer.text), `the poll ended with ${answer.text}`);
}

const polled = await engine();
suite("polling", polled, ({ fact }) => {
  const { url } = polled;
  const get = (search, options) => ask(url, "GET", search, options);

  fact("a session opens with the handshake of the contract", async () => {
    const answer = await get(query({ t: "abc" }));
    assert.deepEqual([answer.status, answer.headers["content-type"]], [200, "text/plain; charset=UTF-8"]);
    assert.equal(Number(answer.headers["content-length"]), answer.bytes.length);
    assert.equal(answer.headers["cache-control"], "no-store");
    const { sid, ...rest } = JSON.parse(answer.text.replace(/^0/, ""));
    assert.match(sid, /^[\w.~-]{10,}$/, "fit for a URL, and not to be guessed");
    assert.deepEqual(rest, { upgrades: ["websocket"], pingInterval: 25_000, pingTimeout: 60_000, maxPayload: 1_000_000 });
    assert.notEqual((await Session.open(url)).sid, sid);
  });

  fact("an open that is none is refused in Engine.IO's words", async () => {
    const wrong = [
      ["GET", query({ EIO: "3" }), 5, "Unsupported protocol version"],
      ["GET", query({ EIO: "5" }), 5, "Unsupported protocol version"],
      ["GET", query({ EIO: null }), 5, "Unsupported protocol version"],
      ["GET", query({ transport: "pigeon" }), 0, "Transport unknown"],
      ["GET", query({ transport: null }), 0, "Transport unknown"],
      ["GET", query({ transport: "pigeon", sid: "nobody", EIO: "3" }), 0, "Transport unknown"],
      ["POST", query(), 2, "Bad handshake method"],
      ["PUT", query(), 2, "Bad handshake method"],
      ["POST", query({ EIO: "3" }), 2, "Bad handshake method"],
      ["GET", query({ transport: "websocket" }), 3, "Bad request"],
      ["GET", query({ sid: "nobody" }), 1, "Session ID unknown"],
      ["POST", query({ sid: "nobody" }), 1, "Session ID unknown"],
      ["PUT", query({ sid: "nobody" }), 1, "Session ID unknown"],
      ["GET", query({ sid: "x".repeat(2_000) }), 1, "Session ID unknown"],
      ["GET", query({ sid: "__proto__" }), 1, "Session ID unknown"],
    ];
    for (const [method, search, code, message] of wrong) {
      refused(await ask(url, method, search, { body: method === "POST" ? "40" : undefined }), code, message);
    }
    assert.equal((await get(`${query()}&sid=`)).status, 200, "an empty sid is none");
  });

  fact("a known session refuses another transport, version or method, and goes on", async () => {
    const session = await Session.connect(url);
    refused(await session.request("GET", {}, { EIO: "3" }).answer, 3, "Bad request");
    refused(await session.request("GET", {}, { transport: "websocket" }).answer, 3, "Bad request");
    refused(await session.request("POST", { body: "6" }, { transport: "websocket" }).answer, 3, "Bad request");
    for (const method of ["PUT", "DELETE"]) {
      const { status } = await session.request(method).answer;
      assert.ok([400, 405, ...(OTHER ? [500] : [])].includes(status), `${method}: ${status}`);
    }
    await session.settle();
  });

  fact("a session opened by WebSocket cannot be polled, and goes on", async () => {
    const socket = new Socket(url);
    const { sid, upgrades } = JSON.parse((await socket.until((packet) => packet[0] === "0")).slice(1));
    assert.deepEqual(upgrades, []);
    socket.send("40");
    await socket.until((packet) => packet.startsWith("40"));
    assert.equal((await get(query({ sid }))).status, 400);
    assert.equal((await ask(url, "POST", query({ sid }), { body: "1" })).status, 400);
    await socket.settle();
    socket.close();
  });

  fact("connecting to the namespace takes one POST and one poll", async () => {
    const session = await Session.open(url);
    const { status, headers, text } = await session.post("40").answer;
    assert.deepEqual([status, text, headers["content-length"], headers["cache-control"]], [200, "ok", "2", "no-store"]);
    assert.match(headers["content-type"], /^text\/html/);
    const answer = await session.poll().answer;
    assert.equal(answer.headers["content-type"], "text/plain; charset=UTF-8");
    const [connected, ...more] = split(answer.text);
    assert.match(connected, /^40\{"sid":"[^"]+"\}$/);
    assert.deepEqual(more, []);
    assert.notEqual(JSON.parse(connected.slice(2)).sid, session.sid, "the namespace has an id of its own");
    assert.ok(await session.lives());
  });

  fact("a poll that came first is answered as soon as there is something to tell", async () => {
    const session = await Session.connect(url);
    const poll = await session.polling();
    assert.equal(poll.over, false);
    await session.say(echo("news"));
    assert.deepEqual((await poll.answer).text.split(",")[0], "44/news");
  });

  fact("several packets make one payload, both ways, in order", async () => {
    const session = await Session.connect(url);
    const marks = Array.from({ length: 40 }, (_, i) => `several${i}`);
    await session.say(...marks.map(echo));
    await session.until((packet) => echoed(packet) === marks.at(-1));
    for (const mark of marks) await session.say(echo(mark));
    // What waits for a poll waits in order, and does not need a poll each.
    const waited = [];
    for (let polls = 0; polls < 10 && waited.length < marks.length; polls++) waited.push(...(await session.hear()));
    assert.deepEqual(waited.map(echoed), marks);
    assert.deepEqual(session.heard.map(echoed).filter(Boolean), [...marks, ...marks]);
  });

  fact("characters of several bytes pass in a payload", async () => {
    const session = await Session.connect(url);
    await session.say("40/é漢字😀,", echo("after"));
    const [answer, after] = await session.hear();
    assert.match(answer, /^44\/é漢字😀,/);
    assert.equal(echoed(after), "after");
  });

  fact("a body in chunks is a body", async () => {
    const session = await Session.connect(url);
    const post = session.request("POST", { open: true, body: echo("first") });
    await post.sent;
    post.write("\x1e").end(echo("second"));
    const { status, text } = await post.answer;
    assert.deepEqual([status, text], [200, "ok"]);
    assert.deepEqual((await session.hear()).map(echoed), ["first", "second"]);
  });

  fact("requests may follow each other on one kept connection, or not", async () => {
    const agent = new http.Agent({ keepAlive: true });
    const session = await Session.connect(url, undefined, { agent });
    for (let i = 0; i < 50; i++) await session.settle();
    assert.equal(Object.values(agent.freeSockets).flat().length, 1, "one connection has served them all");
    agent.destroy();
  });

  fact("a poll that takes gzip tells the same", async () => {
    const session = await Session.connect(url, undefined, { headers: { "accept-encoding": "gzip, deflate" } });
    const marks = Array.from({ length: 200 }, (_, i) => `zipped${i}`);
    await session.say(...marks.map(echo));
    const heard = [];
    while (heard.length < marks.length) {
      const { status, headers, bytes } = await session.poll().answer;
      assert.equal(status, 200);
      const payload = headers["content-encoding"] === "gzip" ? gunzipSync(bytes) : bytes;
      heard.push(...split(payload.toString("utf8")).map(echoed));
    }
    assert.deepEqual(heard, marks);
  });

  fact("a second poll at once ends the session", async () => {
    const session = await Session.connect(url);
    const first = await session.polling();
    assert.equal((await session.poll().answer).status, 400);
    ended(await first.answer);
    await session.isGone();
  });

  fact("a POST that overtakes one whose body is still coming is taken first, and both are whole", async () => {
    const session = await Session.connect(url);
    const [half, whole] = [echo("half"), echo("whole")];
    const held = await session.request("POST", { open: true, body: half.slice(0, 3) }).arrived();
    await session.say(whole);
    held.end(half.slice(3));
    assert.equal((await held.answer).text, "ok");
    const heard = [];
    while (heard.length < 2) heard.push(...split((await session.poll().answer).text));
    assert.deepEqual(heard.map(echoed), ["whole", "half"]);
  });

  fact("a body of 1,000,000 bytes is taken, one more is 413", async () => {
    const session = await Session.connect(url);
    const packed = (bytes) => `42["no:such:event","`.padEnd(bytes - 2, "x") + '"]';
    await session.say(packed(1_000_000));
    await session.settle();
    for (const chunked of [false, true]) {
      const greedy = await Session.connect(url);
      const poll = await greedy.polling({ ms: OTHER ? 500 : undefined });
      const body = packed(1_000_001);
      const post = greedy.request("POST", chunked ? { open: true, body: body.slice(0, 500_000) } : { body });
      if (chunked) post.write(body.slice(500_000));
      assert.equal((await post.answer).status, 413);
      // A message too large closes the connection, by whatever transport (contract 3.1).
      if (OTHER) continue;
      ended(await poll.answer);
      await greedy.isGone();
    }
    assert.ok(await session.lives());
  });

  fact("a payload that is none ends the session", async () => {
    for (const body of ["x", "", "\x1e", "9", "42é\x1e", join(echo("good"), "x"), "2", "2probe"]) {
      const session = await Session.connect(url);
      const poll = await session.polling();
      const { status } = await session.request("POST", { body }).answer;
      assert.ok([200, 400].includes(status), `${JSON.stringify(body)}: ${status}`);
      const { status: end, text } = await poll.answer;
      assert.ok(end === 200 && (text === "1" || echoed(text) === "good"), `${JSON.stringify(body)}: the poll ended ${end} ${text}`);
      await session.isGone();
    }
  });

  fact("a body of bytes is no payload", async () => {
    const session = await Session.connect(url);
    const poll = await session.polling();
    const { status } = await session.request("POST", { body: "40", headers: { "content-type": "application/octet-stream" } }).answer;
    assert.equal(status, 400);
    ended(await poll.answer);
    await session.isGone();
  });

  fact("packets that ask for nothing do nothing", async () => {
    const session = await Session.connect(url);
    await session.say("6", "3", "3", "6");
    await session.settle();
    assert.deepEqual(session.heard.filter((packet) => !/^4[04]/.test(packet)), []);
  });

  fact("binary packets and malformed Socket.IO ones end the session or are ignored, and nothing else", async () => {
    const odd = [["bAQID"], ['451-["auth",{"_placeholder":true,"num":0}]', "bAQID"], ["b"], ["b???"], ["4"], ["49"], ["42["], ["42{}"], ["40"], ["43[]"], ["5"], ["0{}"]];
    for (const packets of odd) {
      const session = await Session.connect(url);
      const { status } = await session.post(...packets).answer;
      assert.ok([200, 400].includes(status), `${packets}: ${status}`);
      if ((await session.post(echo("on")).answer).status !== 200) await session.isGone();
      else await session.until((packet) => echoed(packet) === "on").catch(() => session.isGone());
    }
  });

  fact("a close packet ends the session, and the poll with it", async () => {
    const session = await Session.connect(url);
    const poll = await session.polling();
    const { status, text } = await session.post("1", echo("too late")).answer;
    assert.deepEqual([status, text], [200, "ok"]);
    ended(await poll.answer, ["6", "1"]);
    await session.isGone();
    const unpolled = await Session.connect(url);
    await unpolled.say("1");
    await unpolled.isGone();
  });

  fact("a poll torn down ends the session, and so does a POST", async () => {
    const polling = await Session.connect(url);
    (await polling.polling()).destroy();
    await polling.isGone();

    const posting = await Session.connect(url);
    const waiting = await posting.polling();
    const half = await posting.request("POST", { open: true, body: "40/ha" }).arrived();
    half.destroy();
    ended(await waiting.answer);
    await posting.isGone();
  });

  fact("sessions do not hear each other", async () => {
    const sessions = await Promise.all(Array.from({ length: 20 }, () => Session.connect(url)));
    assert.equal(new Set(sessions.map(({ sid }) => sid)).size, 20);
    await Promise.all(sessions.map((session, i) => session.say(echo(`mine${i}`))));
    const heard = await Promise.all(sessions.map((session) => session.hear()));
    assert.deepEqual(heard.map((packets) => packets.map(echoed)), sessions.map((_, i) => [`mine${i}`]));
    await sessions[0].say("1");
    await Promise.all(sessions.slice(1).map((session) => session.settle()));
  });
}, { atOnce: PROTOCOL_AT_ONCE });

const upgraded = await engine();
suite("upgrade", upgraded, ({ fact }) => {
  const { url } = upgraded;

  fact("a WebSocket takes the session over after its probe, with all that waits", async () => {
    const session = await Session.connect(url);
    const socket = session.socket();
    assert.equal((await socket.opened).status, 101);
    await session.settle();
    const poll = await session.polling();
    assert.deepEqual([poll.over, socket.heard], [false, []], "nothing changes before the probe");

    await socket.probed();
    assert.deepEqual(session.note(await poll.answer), ["6"], "the poll is released");
    const marks = Array.from({ length: 10 }, (_, i) => `waiting${i}`);
    for (const mark of marks) await session.say(echo(mark));
    assert.deepEqual(socket.heard, ["3probe"], "nothing is told before the upgrade packet");
    socket.send("5");
    await socket.settle("over");
    assert.deepEqual(socket.heard.map(echoed), [undefined, ...marks, "over"]);

    for (const method of ["GET", "POST"]) refused(await session.request(method, { body: method === "POST" ? "1" : undefined }).answer, 3, "Bad request");
    await socket.settle();
    socket.close();
    await session.isGone();
  });

  fact("polls that come after the probe are released, too", async () => {
    const session = await Session.connect(url);
    const socket = await session.socket().probed();
    for (let i = 0; i < 3; i++) assert.deepEqual(await session.hear(), ["6"]);
    await session.say(echo("told"));
    const heard = [];
    while (!heard.includes("told") && heard.length < 5) heard.push(...(await session.hear()).map(echoed));
    assert.ok(heard.includes("told"), "and still tell what there is to tell");
    socket.send("5");
    await socket.settle("over");
    assert.deepEqual(socket.heard.map(echoed), [undefined, "over"], "once");
  });

  fact("a poll still pending at the upgrade packet is ended", async () => {
    const session = await Session.connect(url);
    const socket = await session.socket().probed();
    const poll = session.poll();
    await poll.sent;
    socket.send("5");
    await socket.settle();
    // The two come by different connections: the poll may be the later one.
    const answer = await poll.answer;
    if (answer.status === 400) refused(answer, 3, "Bad request");
    else ended(answer, ["6", "1"]);
    await socket.settle();
    socket.close();
  });

  fact("what is said while the upgrade is under way is heard once and in order", async () => {
    const session = await Session.connect(url);
    const marks = Array.from({ length: 120 }, (_, i) => `stream${i}`);
    const socket = session.socket();
    await socket.opened;
    for (const mark of marks.slice(0, 20)) await session.say(echo(mark));
    const poll = session.poll();
    const probed = socket.probed();
    for (const mark of marks.slice(20, 50)) await session.say(echo(mark));
    await probed;
    session.note(await poll.answer);
    for (const mark of marks.slice(50, 80)) await session.say(echo(mark));
    socket.send("5", ...marks.slice(80).map(echo));
    await socket.until((packet) => echoed(packet) === marks.at(-1));
    assert.deepEqual([...session.heard, ...socket.heard].map(echoed).filter(Boolean), marks);
  });

  fact("an upgraded session answers the pings of WebSocket itself, and ends with its connection", async () => {
    const session = await Session.connect(url);
    const socket = await session.upgrade();
    const pong = new Promise((resolve) => socket.ws.once("pong", resolve));
    socket.ws.ping();
    await pong;
    await socket.settle();
    socket.terminate();
    await session.isGone();
  });

  fact("a WebSocket of an unknown session is refused", async () => {
    for (const sid of ["nobody", "x".repeat(2_000)]) {
      const { status, text, body } = await new Socket(url, { sid }).opened;
      assert.equal(status, 400);
      if (OTHER) assert.equal(text, "Session ID unknown");
      else assert.deepEqual(body, { code: 1, message: "Session ID unknown", error: "Session ID unknown" });
    }
    const { sid } = await Session.open(url);
    assert.equal((await new Socket(url, { sid, EIO: "3" }).opened).status, 400, "nor with another version");
    assert.equal((await new Socket(url, { sid, transport: "pigeon" }).opened).status, 400, "nor with another transport");
  });

  /** A WebSocket that gets nothing: refused or closed. */
  async function turnedAway(socket) {
    const { status } = await socket.opened;
    assert.ok(status === 400 || (status === 101 && (await socket.closeCode()) !== undefined), `opened: ${status}`);
    assert.deepEqual(socket.heard, []);
  }

  fact("a second WebSocket is turned away during the first one's probe and after its upgrade", async () => {
    const session = await Session.connect(url);
    const socket = await session.socket().probed();
    await turnedAway(session.socket());
    session.note(await session.poll().answer);
    socket.send("5");
    await socket.settle();
    await turnedAway(session.socket());
    await socket.settle();
    socket.close();
  });

  fact("a WebSocket that says anything but the probe is closed, and the session polls on", async () => {
    const firsts = [echo("early"), "2", "2other", "1", "3probe", "x", "", Buffer.from([1, 2])];
    for (const packet of firsts) {
      const session = await Session.connect(url);
      const socket = session.socket();
      await socket.opened;
      socket.send(packet);
      assert.notEqual(await socket.closeCode(), undefined, `${packet} leaves it open`);
      assert.deepEqual(socket.heard, []);
      await session.settle();
      assert.ok(!session.heard.map(echoed).includes("early"));
    }
  });

  fact("a WebSocket that says anything but the upgrade after its probe is closed, and the session polls on", async () => {
    const session = await Session.connect(url);
    const socket = await session.socket().probed();
    socket.send(echo("early"));
    assert.notEqual(await socket.closeCode(), undefined);
    await session.settle("on");
    assert.deepEqual(session.heard.map(echoed).filter(Boolean), ["on"]);
    const again = await session.upgrade();
    await again.settle();
    again.close();
  });

  fact("a WebSocket lost during its probe costs nothing, and another may try", async () => {
    const session = await Session.connect(url);
    const poll = await session.polling();
    const socket = await session.socket().probed();
    await session.say(echo("kept"));
    socket.terminate();
    session.note(await poll.answer);
    await session.until((packet) => echoed(packet) === "kept");
    await session.settle();
    // The server may need a moment to see the loss: until then another one is turned away.
    const again = await eventually("another WebSocket may probe", async () => {
      const next = session.socket();
      if ((await next.opened).status !== 101) return undefined;
      return next.probed().catch(() => undefined);
    });
    assert.equal((await session.poll().answer).status, 200);
    again.send("5");
    await again.settle();
    again.close();
    await session.isGone();
  });

  fact("a session that ends during the probe takes its WebSocket along", async () => {
    const session = await Session.connect(url);
    const socket = await session.socket().probed();
    await session.say("1");
    assert.notEqual(await socket.closeCode(), undefined);
    await session.isGone();
  });

  fact("a WebSocket that never probes, or never upgrades, is closed, and the session polls on", async () => {
    const [silent, halfway] = [await Session.connect(url), await Session.connect(url)];
    const sockets = [silent.socket(), await halfway.socket().probed()];
    await sockets[0].opened;
    const closed = Promise.all(sockets.map((socket) => socket.closeCode(UPGRADE_PATIENCE_MS)));
    for (let round = 0; round < 5; round++) await Promise.all([silent.settle(), halfway.settle()]);
    for (const code of await closed) assert.notEqual(code, undefined, "still open");
    for (const session of [silent, halfway]) {
      await session.settle();
      const socket = await session.upgrade();
      await socket.settle();
      socket.close();
    }
  });
}, { atOnce: PROTOCOL_AT_ONCE });

const crossed = await engine();
suite("polling from a page of another origin", crossed, ({ fact }) => {
  const { url } = crossed;
  const cors = ({ headers }) => [headers["access-control-allow-origin"], headers["access-control-allow-credentials"]];

  fact("an allowed origin is echoed on every answer", async () => {
    const headers = { origin: ORIGIN };
    const session = await Session.connect(url, undefined, { headers });
    await session.say(echo("waiting"));
    const answers = [
      await ask(url, "GET", query(), { headers }),
      await session.poll().answer,
      await session.post(echo("more")).answer,
      await ask(url, "GET", query({ sid: "nobody" }), { headers }),
      await ask(url, "POST", query(), { headers, body: "40" }),
    ];
    assert.deepEqual(answers.map(({ status }) => status), [200, 200, 200, 400, 400]);
    for (const answer of answers) {
      assert.deepEqual(cors(answer), [ORIGIN, "true"]);
      assert.match(answer.headers.vary, /origin/i);
    }
  });

  fact("a foreign origin is answered without leave to read", async () => {
    const headers = { origin: "https://foreign.example" };
    const session = await Session.connect(url, undefined, { headers });
    await session.say(echo("waiting"));
    for (const answer of [await ask(url, "GET", query(), { headers }), await session.poll().answer, await session.post("6").answer]) {
      assert.deepEqual([answer.status, answer.headers["access-control-allow-origin"]], [200, undefined]);
    }
  });

  fact("a preflight is answered 204, with a session and without, and harms none", async () => {
    const session = await Session.connect(url);
    const poll = await session.polling();
    const headers = { origin: ORIGIN, "access-control-request-method": "POST", "access-control-request-headers": "content-type" };
    for (const search of [query(), query({ sid: session.sid })]) {
      const answer = await ask(url, "OPTIONS", search, { headers });
      assert.equal(answer.status, 204);
      assert.deepEqual(cors(answer), [ORIGIN, "true"]);
      assert.match(answer.headers["access-control-allow-methods"], /GET.*POST/);
      assert.match(answer.headers["access-control-allow-headers"], /content-type/i);
    }
    await session.say(echo("on"));
    assert.equal(echoed((await poll.answer).text), "on");
    const foreign = await ask(url, "OPTIONS", query(), { headers: { ...headers, origin: "https://foreign.example" } });
    assert.equal(foreign.headers["access-control-allow-origin"], undefined);
  });
});

const PING_INTERVAL_MS = 500;
const PING_TIMEOUT_MS = 700;
const nervous = await engine({ "ping-interval-ms": PING_INTERVAL_MS, "ping-timeout-ms": PING_TIMEOUT_MS }, process.env.ENGINE_NERVOUS_URL);
suite("heartbeats of polling sessions", nervous, ({ fact }) => {
  const { url } = nervous;

  fact("a ping comes to the poll after the interval, and again after each pong", async () => {
    const session = await Session.connect(url);
    assert.deepEqual([session.handshake.pingInterval, session.handshake.pingTimeout], [PING_INTERVAL_MS, PING_TIMEOUT_MS]);
    for (let i = 0; i < 4; i++) {
      const from = Date.now();
      assert.deepEqual(await session.hear(), ["2"]);
      if (i > 0) within(Date.now() - from, PING_INTERVAL_MS - 150, PING_INTERVAL_MS + 1_500, "ms until the ping");
      await session.say("3");
    }
    await session.settle();
  });

  fact("without a pong the session ends after the timeout, and the poll with it", async () => {
    const session = await Session.connect(url);
    assert.deepEqual(await session.hear(), ["2"]);
    const from = Date.now();
    ended(await session.poll().answer);
    within(Date.now() - from, PING_TIMEOUT_MS - 150, PING_TIMEOUT_MS + 1_500, "ms until the end");
    await session.isGone();
  });

  fact("an upgraded session is pinged by WebSocket, and ends without a pong", async () => {
    const session = await Session.connect(url);
    const socket = await session.upgrade();
    await socket.until((packet) => packet === "2");
    socket.send("3");
    await eventually("another ping", () => socket.heard.filter((packet) => packet === "2").length === 2);
    assert.notEqual(await socket.closeCode(PING_TIMEOUT_MS + 2_000), undefined);
    await session.isGone();
  });

  fact("sessions that nobody polls end by themselves and are not counted any more", async () => {
    const total = async () => (await ok(request(url, "GET", "/health"))).connections.total;
    const before = await total();
    const sessions = await Promise.all(Array.from({ length: 60 }, () => Session.open(url)));
    assert.ok((await total()) > before, "they are counted while they live");
    await eventually("they are gone", async () => (await total()) <= before);
    for (const session of sessions.slice(0, 3)) await session.isGone();
  });
}, { atOnce: 1 });

/** What polling sessions do with the product. */
async function product() {
  const job = { each: POLLING, inTurns: ["polling & /ws", "socket.io & polling", "polling+websocket & polling"], official: POLLING };
  suite("main job by polling", await Server.start(), mainJob(job));

  const called = await Server.start();
  const candidates = (room, from, to) =>
    Array.from({ length: to - from }, (_, i) => `["rtc:ice",{"roomId":"${room}","candidate":{"candidate":"c","n":${from + i}}}]`);
  const numbers = (person) => person.all("rtc:ice").map(({ candidate }) => candidate.n);
  const ICE = 200;
  const inOrder = Array.from({ length: ICE }, (_, i) => i);

  suite("polling clients in calls", called, ({ fact, facts }) => {
    fact("the official client ends up on WebSocket by default, and on polling if it shall not upgrade", async (cast) => {
      const ada = await cast.online();
      await ada.upgrade();
      assert.equal(ada.wire.speaks, "websocket");
      const bo = cast.connection((await cast.guest()).account, "polling");
      await bo.connect();
      await bo.settle();
      assert.equal(bo.wire.speaks, "polling");
      await bo.upgrade();
      await bo.settle();
      assert.equal(bo.wire.speaks, "websocket");
    }, "polling+websocket");

    fact("an upgrade in the middle of signalling loses, repeats and reorders nothing", async (cast) => {
      const { caller, callee, room } = await cast.call();
      const ways = [[caller, callee], [callee, caller]];
      for (const [from] of ways) candidates(room, 0, 40).forEach((json) => from.emitRaw(json));
      const upgrades = ways.map(([from]) => from.upgrade());
      for (let n = 40; n < ICE; n++) {
        for (const [from] of ways) candidates(room, n, n + 1).forEach((json) => from.emitRaw(json));
        await new Promise(setImmediate);
      }
      await Promise.all(upgrades);
      for (const [from, to] of ways) await say(from, to, room, `all sent by ${from.id}`);
      for (const [from, to] of ways) {
        assert.equal(from.wire.speaks, "websocket");
        assert.deepEqual(numbers(to), inOrder);
      }
    }, "polling");

    facts("a client that signals from its first moment on is heard whole", async (cast) => {
      const { caller, callee, room } = await cast.call();
      const tab = cast.connection(caller.account, cast.transport);
      await tab.open();
      candidates(room, 0, ICE).forEach((json) => tab.emitRaw(json));
      await say(tab, callee, room, "that was all");
      assert.deepEqual(numbers(callee), inOrder);
    }, POLLING);

    facts("descriptions of hundreds of kilobytes pass by polling, from and to it", async (cast) => {
      const { caller, callee, room } = await cast.call();
      // As varied as a description: what compresses like a bomb is taken for one.
      const sdp = Array.from({ length: 10_000 }, (_, i) => `a=candidate:${i} 1 udp ${i * 7919} 192.0.2.${i % 256} ${i}\r\n`).join("");
      for (const [from, to] of [[caller, callee], [callee, caller]]) {
        from.emit("rtc:offer", { roomId: room, offer: { sdp } });
        assert.equal((await to.next("rtc:offer")).offer.sdp, sdp);
      }
      await negotiate(caller, callee, room);
    }, ["polling", "polling & /ws"]);

    facts("somebody who leaves on purpose is offline at once", async (cast) => {
      const [watcher, leaver] = await cast.queued();
      const from = Date.now();
      leaver.leave();
      await offline(watcher, leaver);
      within(Date.now() - from, 0, 3_000, "ms until offline");
    }, ["/ws & polling", "/ws & polling+websocket"]);

    facts("somebody lost in the middle of a poll is offline after the grace", async (cast) => {
      const [watcher, lost] = await cast.queued();
      const from = Date.now();
      lost.drop();
      await offline(watcher, lost);
      within(Date.now() - from, 4_500, 9_000, "ms until offline");
    }, ["/ws & polling", "/ws & polling+websocket"]);

    facts("somebody lost in a call comes back to it, or ends it after the grace", async (cast) => {
      const { caller, callee, room, startedAt } = await cast.call();
      caller.drop();
      await caller.connect();
      await say(callee, caller, room, "welcome back");
      await lasting(startedAt);
      caller.drop();
      await callee.next("peer:disconnected");
      await callee.next("session:finalized");
      const { history } = await callee.get("/room/history");
      assert.deepEqual(history.map(({ roomId }) => roomId), [room]);
    }, POLLING);

    fact("a polling client whose session is invalidated hears why before it is closed", async () => {
      const { account, address } = await guest(called);
      const session = await Session.connect(called.url, { token: account.sessionToken }, { headers: { "x-forwarded-for": address } });
      const credentials = { email: `${account.userId}@example.org`, password: "correct horse" };
      const body = { sessionToken: account.sessionToken, ...credentials };
      await ok(request(called.url, "POST", "/auth/link", { body, address, token: account.sessionToken }));
      await ok(request(called.url, "POST", "/auth/login", { body: credentials, address }));
      // Nothing polls while this happens: what was to be said waits for the next poll.
      await session.next("session:invalidated");
      let status = 200;
      for (let polls = 0; polls < 3 && status === 200; polls++) {
        const answer = await session.poll().answer;
        status = answer.status;
        if (status === 200) session.note(answer);
        if (session.heard.includes("1")) break;
      }
      assert.ok(session.heard.includes("41") || session.heard.includes("1"), `it is told to go: ${session.heard}`);
      await session.isGone();
    });
  });

  for (const shards of [2, 4]) await freely(shards);
  await silence();
  await stopping();
  await fromPython();
}

/** Waits until `watcher` hears that `person` is offline. */
const offline = (watcher, person) => watcher.next("presence:update", ({ userId, online }) => userId === person.id && !online);

/** Somebody new, by requests on connections of their own: `{account, address}`. */
async function guest(server) {
  const address = freshAddress();
  const account = await ok(request(server.url, "POST", "/auth/guest", { body: { name: "Ada", gender: "female" }, address, agent: false }));
  return { account, address };
}

/** A polling session of a new guest, bound. */
async function boundSession(server) {
  const { account, address } = await guest(server);
  const session = await Session.connect(server.url, { token: account.sessionToken }, { headers: { "x-forwarded-for": address } });
  await session.next("auth:success");
  return Object.assign(session, { account });
}

/** Every request on a connection of its own, which any shard may get: nobody has to stick to one. */
async function freely(shards) {
  const server = await Server.start({ shards });
  const here = ({ account: { userId } }, state) => (update) => update.userId === userId && update.available === state;

  suite(`polling over ${shards} shards, each request on a connection of its own`, server, ({ fact }) => {
    fact(`${CROWD} sessions at once connect, join the queue and see each other`, async () => {
      const crowd = await Promise.all(Array.from({ length: CROWD }, () => boundSession(server)));
      await Promise.all(crowd.map(async (session) => {
        await session.emit("presence:join");
        await session.emit("queue:join");
      }));
      await Promise.all(crowd.map((viewer) => eventually("each sees all others in the queue", async () => {
        const { users } = await ok(request(server.url, "GET", "/room/queue", { token: viewer.account.sessionToken, agent: false }));
        return users.length >= CROWD - 1;
      })));
      const last = await boundSession(server);
      await last.emit("queue:join");
      await Promise.all(crowd.map((session) => session.next("queue:update", here(last, true))));
      await last.emit("queue:leave");
      await Promise.all(crowd.map((session) => session.next("queue:update", here(last, false))));
      await Promise.all(crowd.map((session) => session.settle()));
    });

    fact("pairs of sessions upgrade at once and talk on", async () => {
      await Promise.all(Array.from({ length: 16 }, async () => {
        const session = await boundSession(server);
        const socket = await session.upgrade();
        await socket.settle();
        socket.close();
      }));
    });
  }, { atOnce: 1 });
}

/** A bound client that goes silent is offline, once it is found out and the grace is over. */
async function silence() {
  const server = await Server.start({ "ping-interval-ms": PING_INTERVAL_MS, "ping-timeout-ms": PING_TIMEOUT_MS });
  suite("polling clients that fall silent", server, ({ fact }) => {
    fact("a client that answers no ping is offline after the grace", async (cast) => {
      const watcher = await cast.online();
      watcher.emit("queue:join");
      const session = await boundSession(server);
      await session.emit("queue:join");
      await watcher.next("queue:update", ({ userId }) => userId === session.account.userId);
      const from = Date.now();
      await offline(watcher, { id: session.account.userId });
      within(Date.now() - from, 4_500, 15_000, "ms until offline");
    });

    fact("a client that answers stays for as long as it likes, and its call with it", async (cast) => {
      const { caller, callee, room } = await cast.call();
      await pause(3 * (PING_INTERVAL_MS + PING_TIMEOUT_MS));
      await say(caller, callee, room, "still here");
      await say(callee, caller, room, "me too");
    }, "polling & polling+websocket");
  });
}

/** An orderly stop does not wait for polls. */
async function stopping() {
  const server = await Server.start();
  server.mayEnd = true;
  suite("polls at a stop", server, ({ fact }) => {
    fact("an orderly stop ends the polls and takes no longer for them", async () => {
      const sessions = await Promise.all(Array.from({ length: 10 }, () => boundSession(server)));
      const polls = await Promise.all(sessions.map((session) => session.polling()));
      const { code, ms } = await server.stop();
      assert.equal(code, 0);
      within(ms, 0, 8_000, "ms until the end");
      for (const poll of polls) assert.ok([200, "closed"].includes((await poll.answer).status));
    });
  });
}

/** Another client of the protocol, written by others in another language. */
async function fromPython() {
  const server = await Server.start();
  suite("python-socketio", server, ({ facts }) => {
    facts("signs up, polls, upgrades, queues, and has a call with a client in Node", async (cast) => {
      const polls = cast.transport === "polling";
      const guido = await PythonClient.signUp(server, polls ? ["polling"] : ["polling", "websocket"], { name: "Guido", gender: "male" });
      cast.people.push(guido);
      await guido.connect();
      assert.equal(guido.speaks, polls ? "polling" : "websocket");
      const ada = await cast.online({ name: "Ada" });
      await joinQueue(ada, guido);

      ada.emit("call:invite", { toUserId: guido.id, requestedSeconds: 300 });
      const { inviteId } = await guido.next("call:notify", ({ fromUser }) => fromUser.userId === ada.id);
      guido.emit("call:accept", { inviteId, requestedSeconds: 300 });
      const [start, other] = await Promise.all([ada.next("call:start"), guido.next("call:start")]);
      assert.deepEqual([start.roomId, start.isInitiator, other.isInitiator], [other.roomId, true, false]);
      const startedAt = Date.now();
      const room = start.roomId;
      for (const person of [ada, guido]) {
        person.emit("room:join", { roomId: room });
        await person.settle();
      }
      for (const [from, to] of [[ada, guido], [guido, ada]]) {
        from.emit("rtc:offer", { roomId: room, offer: { sdp: "é \u2028" } });
        assert.deepEqual(await to.next("rtc:offer"), { offer: { sdp: "é \u2028" }, from: from.id });
        for (let n = 0; n < 20; n++) from.emit("rtc:ice", { roomId: room, candidate: { n } });
        for (let n = 0; n < 20; n++) assert.equal((await to.next("rtc:ice")).candidate.n, n);
        await say(from, to, room, `hello from ${from.name}`);
      }
      await lasting(startedAt);
      await hangUp(guido, ada, room);
      for (const person of [ada, guido]) assert.deepEqual((await person.get("/room/history")).history.map(({ roomId }) => roomId), [room]);
      assert.deepEqual(guido.all("error"), []);

      ada.emit("queue:join");
      await ada.settle();
      guido.leave();
      await offline(ada, guido);
    }, ["polling", "polling+websocket", "socket.io"]);
  });
}

if (!OTHER) await product();

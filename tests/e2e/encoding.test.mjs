// Compressed responses (contract 2.1; RFC 9110 8.4, 12.5.3), decoded by Node's own zlib.

import assert from "node:assert/strict";
import zlib from "node:zlib";
import { hangUp, lasting, say, suite } from "./cast.mjs";
import { freshAddress, request } from "./client.mjs";
import { RawSocket } from "./raw.mjs";
import { Server, eventually } from "./server.mjs";

const ORIGIN = "https://app.example";
const server = await Server.start({ "allowed-origins": ORIGIN, "event-rate": 0 });
const DECODE = { br: zlib.brotliDecompressSync, gzip: zlib.gunzipSync, deflate: zlib.inflateSync };
const CODINGS = Object.keys(DECODE);
/** Ten socials of full length: a profile of more than 1 kB that nobody but its owner changes. */
const SOCIALS = Object.fromEntries(Array.from({ length: 10 }, (_, i) => [`platform${i}`, `handle-${i}-`.padEnd(100, "\u00e9abc")]));

/** Somebody whose `/user/me` is worth compressing. */
async function talker(cast) {
  const person = await cast.guest();
  assert.equal((await person.http("PUT", "/user/me", { body: { socials: SOCIALS } })).status, 200);
  return person;
}

const ask = (person, path, accepted, { method = "GET", headers = {} } = {}) =>
  person.http(method, path, { headers: accepted === undefined ? headers : { "accept-encoding": accepted, ...headers } });

/** The body behind its coding; the coding must be the expected one. */
function decoded({ status, headers, bytes }, coding) {
  assert.deepEqual([status, headers["content-encoding"]], [200, coding]);
  assert.equal(Number(headers["content-length"]), bytes.length);
  return (coding ? DECODE[coding](bytes) : bytes).toString("utf8");
}

suite("encoding", server, ({ fact }) => {
  fact("the queue decodes to the same bytes in every coding", async (cast) => {
    const people = [];
    for (let i = 0; i < 10; i++) people.push(await cast.online({ name: `${i}`.padEnd(100, "Ad\u00e4 "), gender: i % 2 ? "male" : "female" }));
    for (const person of people) {
      person.emit("presence:join");
      person.emit("queue:join");
    }
    const viewer = await cast.guest();
    await eventually("everybody is in the queue", async () => (await viewer.get("/room/queue")).users.length === people.length);
    const plain = await ask(viewer, "/room/queue");
    assert.ok(plain.bytes.length > 1024);
    for (const coding of CODINGS) {
      const answer = await ask(viewer, "/room/queue", coding);
      assert.equal(decoded(answer, coding), plain.text);
      assert.ok(answer.bytes.length < plain.bytes.length / 2, `${coding}: ${answer.bytes.length} of ${plain.bytes.length}`);
    }
  });

  fact("a long history decodes to the same bytes, however many ask for it at once", async (cast) => {
    const { caller, callee, room, startedAt } = await cast.call();
    const noise = () => Array.from({ length: 40 }, () => Math.random().toString(36).slice(2, 14)).join(" ");
    for (let i = 0; i < 400; i++) caller.emit("room:chat", { roomId: room, text: noise() });
    await say(caller, callee, room, "that was all");
    await lasting(startedAt);
    await hangUp(caller, callee, room);
    const plain = await eventually("the call is in the history", async () => {
      const answer = await ask(callee, "/room/history");
      return answer.body.history.length === 1 && answer;
    });
    assert.ok(plain.bytes.length > 180_000, `${plain.bytes.length} bytes`);
    // Each on a connection of its own, for one connection has one answer at a time.
    const one = (i) => callee.http("GET", "/room/history", { agent: false, headers: { "accept-encoding": CODINGS[i % 3] } });
    const answers = await Promise.all(Array.from({ length: 24 }, (_, i) => one(i)));
    answers.forEach((answer, i) => assert.ok(decoded(answer, CODINGS[i % 3]) === plain.text, CODINGS[i % 3]));
  });

  fact("the client's weights choose the coding; br, then gzip among equal ones", async (cast) => {
    const person = await talker(cast);
    const plain = await ask(person, "/user/me");
    for (const [accepted, coding] of [
      ["gzip, deflate, br, zstd", "br"],
      ["deflate, gzip", "gzip"],
      ["br;q=0.1, gzip;q=0.2, deflate;q=0.3", "deflate"],
      ["*", "br"],
      ["br;q=0, *;q=0.5", "gzip"],
      ["br;q=7, gzip;q=0.5", "gzip"],
      [["deflate;q=0.5", "gzip;q=0.4"], "deflate"],
      ["identity, br;q=0.9", undefined],
      ["identity;q=0", undefined],
      ["*;q=0", undefined],
      ["zstd", undefined],
      ["", undefined],
      [undefined, undefined],
    ]) {
      const answer = await ask(person, "/user/me", accepted);
      assert.equal(decoded(answer, coding), plain.text, `${accepted}`);
      assert.match(answer.headers.vary, /accept-encoding/i, `${accepted}`);
    }
  });

  fact("x-no-compression turns it off", async (cast) => {
    const person = await talker(cast);
    const answer = await ask(person, "/user/me", "br, gzip", { headers: { "x-no-compression": "1" } });
    assert.deepEqual(JSON.parse(decoded(answer, undefined)).socials, SOCIALS);
  });

  fact("a body below 1 kB is left as it is", async () => {
    const { headers, body } = await request(server.url, "GET", "/stats/live", { headers: { "accept-encoding": "br, gzip" } });
    assert.deepEqual([headers["content-encoding"], typeof body.onlineUsers], [undefined, "number"]);
    assert.match(headers.vary, /accept-encoding/i);
  });

  fact("HEAD has the headers of GET and no body", async (cast) => {
    const person = await talker(cast);
    const kept = ({ headers: { date, "x-request-id": name, ...rest } }) => rest;
    for (const coding of [...CODINGS, undefined]) {
      const [get, head] = [await ask(person, "/user/me", coding), await ask(person, "/user/me", coding, { method: "HEAD" })];
      assert.deepEqual(kept(head), kept(get));
      assert.deepEqual([head.status, head.bytes.length, head.headers["content-encoding"]], [200, 0, coding]);
    }
  });

  fact("CORS and security headers stay, and Vary is one field with both names", async (cast) => {
    const person = await talker(cast);
    for (const coding of [...CODINGS, undefined]) {
      const { headers } = await ask(person, "/user/me", coding, { headers: { origin: ORIGIN } });
      assert.deepEqual(headers.vary.split(", ").sort(), ["Accept-Encoding", "Origin"]);
      assert.deepEqual([headers["access-control-allow-origin"], headers["x-content-type-options"]], [ORIGIN, "nosniff"]);
      assert.match(headers["content-type"], /^application\/json/);
    }
  });

  fact("a preflight does not vary by encoding", async () => {
    const headers = { origin: ORIGIN, "access-control-request-method": "PUT", "accept-encoding": "br" };
    const answer = await request(server.url, "OPTIONS", "/user/me", { headers });
    assert.equal(answer.status, 204);
    assert.doesNotMatch(answer.headers.vary, /accept-encoding/i);
  });

  fact("pipelined requests in different codings are answered in order", async (cast) => {
    const people = [await talker(cast), await talker(cast), await talker(cast)];
    const wanted = Array.from({ length: 24 }, (_, i) => ({ person: people[i % 3], coding: [...CODINGS, undefined][i % 4] }));
    const raw = await RawSocket.connect(server);
    const head = ({ person, coding }) =>
      `GET /user/me HTTP/1.1\r\nHost: duet\r\nAuthorization: Bearer ${person.token}\r\n${coding ? `Accept-Encoding: ${coding}\r\n` : ""}\r\n`;
    raw.write(wanted.map(head).join(""));
    const answers = await raw.answers(wanted.length);
    assert.equal(answers.length, wanted.length);
    answers.forEach((answer, i) => assert.equal(JSON.parse(decoded(answer, wanted[i].coding)).userId, wanted[i].person.id));
    raw.close();
  });

  fact("fetch of Node, which asks for gzip, deflate and br, sees plain JSON", async (cast) => {
    const person = await talker(cast);
    const headers = { authorization: `Bearer ${person.token}`, "x-forwarded-for": freshAddress() };
    const response = await fetch(`${server.url}/user/me`, { headers });
    assert.match(response.headers.get("content-encoding"), /^(br|gzip)$/);
    assert.deepEqual((await response.json()).socials, SOCIALS);
  });
});

const off = await Server.start({ "http-compression-level": 0 });
suite("encoding, switched off", off, ({ fact }) => {
  fact("level 0 compresses nothing", async (cast) => {
    const answer = await ask(await talker(cast), "/user/me", "br");
    assert.deepEqual(JSON.parse(decoded(answer, undefined)).socials, SOCIALS);
    assert.doesNotMatch(answer.headers.vary, /accept-encoding/i);
  });
});

const eager = await Server.start({ "http-compression-threshold": 10, "http-compression-level": 9 });
suite("encoding, with a lower threshold", eager, ({ fact }) => {
  fact("the threshold and the level are as set", async () => {
    const answer = await request(eager.url, "GET", "/", { headers: { "accept-encoding": "gzip" } });
    assert.equal(JSON.parse(decoded(answer, "gzip")).version, "1.0.0");
  });
});

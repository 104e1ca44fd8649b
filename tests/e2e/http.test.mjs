// HTTP itself: framing, CORS, security headers, errors as JSON (contract 2.1, 2.4; D36).

import assert from "node:assert/strict";
import { suite } from "./cast.mjs";
import { freshAddress, request } from "./client.mjs";
import { RawSocket, exchange } from "./raw.mjs";
import { Server, eventually } from "./server.mjs";

const ALLOWED = "https://app.example";
const server = await Server.start({ "allowed-origins": `http://localhost:3000,${ALLOWED}` });
const SECURITY = {
  "x-frame-options": "DENY",
  "x-content-type-options": "nosniff",
  "x-xss-protection": "1; mode=block",
  "referrer-policy": "strict-origin-when-cross-origin",
};

const ask = (method, path, options) => request(server.url, method, path, { address: freshAddress(), ...options });
const get = (path, extra = "") => `GET ${path} HTTP/1.1\r\nHost: duet\r\n${extra}\r\n`;
const guest = (body, extra = "") =>
  `POST /auth/guest HTTP/1.1\r\nHost: duet\r\nContent-Type: application/json\r\nX-Forwarded-For: ${freshAddress()}\r\n${extra}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;

/** An answer of each kind: 200, 404, 401, 400, 405. */
const KINDS = [["GET", "/health", 200], ["GET", "/no/such/path", 404], ["GET", "/user/me", 401], ["POST", "/auth/guest", 400], ["DELETE", "/health", 405]];

function secure(headers) {
  for (const [name, value] of Object.entries(SECURITY)) assert.equal(headers[name], value, name);
  assert.match(headers["permissions-policy"], /camera=\(?self/);
  assert.match(headers["content-security-policy"], /frame-ancestors 'none'/);
  assert.match(headers["content-security-policy"], /object-src 'none'/);
}

function jsonError({ status, headers, body }, expected) {
  assert.equal(status, expected);
  assert.match(headers["content-type"], /^application\/json/);
  assert.equal(typeof (typeof body === "string" ? JSON.parse(body) : body).error, "string");
}

suite("http", server, ({ fact }) => {
  fact("every kind of answer carries the security headers", async () => {
    for (const [method, path, status] of KINDS) {
      const answer = await ask(method, path);
      assert.equal(answer.status, status, path);
      secure(answer.headers);
    }
  });

  fact("an allowed origin is echoed on every kind of answer", async () => {
    for (const [method, path, status] of KINDS) {
      const { headers, ...answer } = await ask(method, path, { headers: { origin: ALLOWED } });
      assert.equal(answer.status, status);
      assert.deepEqual([headers["access-control-allow-origin"], headers["access-control-allow-credentials"]], [ALLOWED, "true"], path);
      assert.match(headers.vary, /origin/i);
    }
  });

  fact("a preflight is answered 204 with the methods and the headers that were asked for", async () => {
    for (const path of ["/user/me", "/auth/guest", "/no/such/path"]) {
      const asked = { origin: ALLOWED, "access-control-request-method": "PUT", "access-control-request-headers": "authorization,content-type" };
      const { status, headers, text } = await ask("OPTIONS", path, { headers: asked });
      assert.deepEqual([status, text, headers["access-control-allow-origin"]], [204, "", ALLOWED]);
      for (const method of ["GET", "HEAD", "PUT", "PATCH", "POST", "DELETE"]) assert.ok(headers["access-control-allow-methods"].includes(method));
      assert.match(headers["access-control-allow-headers"], /authorization.*content-type/i);
    }
  });

  fact("a foreign origin gets 403 as JSON and no CORS header (D36)", async () => {
    for (const [method, headers] of [["GET", {}], ["OPTIONS", { "access-control-request-method": "GET" }]]) {
      const answer = await ask(method, "/health", { headers: { origin: "https://evil.example", ...headers } });
      jsonError(answer, 403);
      assert.equal(answer.headers["access-control-allow-origin"], undefined);
    }
  });

  fact("an unknown path is 404, a wrong method 405 with Allow, both as JSON (D36)", async () => {
    jsonError(await ask("GET", "/no/such/path"), 404);
    jsonError(await ask("GET", "/uploads/../Cargo.toml"), 404);
    for (const [method, path, allowed] of [["DELETE", "/user/me", ["GET", "PUT"]], ["GET", "/auth/guest", ["POST"]], ["POST", "/room/queue", ["GET"]]]) {
      const answer = await ask(method, path);
      jsonError(answer, 405);
      for (const name of allowed) assert.ok(answer.headers.allow.includes(name), `${path}: ${answer.headers.allow}`);
    }
  });

  fact("malformed JSON is 400, an empty body is an empty object, unknown fields are ignored", async () => {
    for (const body of ["{", "nonsense", '{"name":"Ada"', '{"name":"Ada"} x', "\u0000"]) jsonError(await ask("POST", "/auth/guest", { body }), 400);
    const empty = await ask("POST", "/auth/guest", { body: "" });
    assert.deepEqual([empty.status, empty.body.error], [400, "Name is required"]);
    const made = await ask("POST", "/auth/guest", { body: { name: "Ada", gender: "female", extra: [1] } });
    assert.equal(made.status, 200);
  });

  fact("a body up to 100 kB is read, a larger one is 413", async () => {
    const body = (bytes) => JSON.stringify({ name: "Ada", gender: "female", filler: "x".repeat(bytes) });
    assert.equal((await ask("POST", "/auth/guest", { body: body(99_000) })).status, 200);
    jsonError(await exchange(server, guest(body(103_000))), 413);
  });

  fact("one connection serves one request after another", async () => {
    const raw = await RawSocket.connect(server);
    for (let i = 1; i <= 5; i++) {
      raw.write(get("/stats/live"));
      const answers = await raw.answers(i);
      assert.deepEqual([answers.length, answers.at(-1).status], [i, 200]);
    }
    raw.close();
  });

  fact("pipelined requests are answered in order, whatever each is", async () => {
    const raw = await RawSocket.connect(server);
    const body = JSON.stringify({ name: "Pipe", gender: "male" });
    raw.write(get("/health") + get("/no/such") + guest(body) + get("/user/me") + get("/stats/live"));
    const answers = await raw.answers(5);
    assert.deepEqual(answers.map(({ status }) => status), [200, 404, 200, 401, 200]);
    assert.equal(JSON.parse(answers[2].body).accountType, "guest");
    raw.close();
  });

  fact("pipelined requests of different users on one connection are answered in order", async (cast) => {
    const people = [await cast.guest(), await cast.guest(), await cast.guest(), await cast.guest()];
    const raw = await RawSocket.connect(server);
    raw.write(people.map(({ token }) => get("/user/me", `Authorization: Bearer ${token}\r\n`)).join(""));
    const answers = await raw.answers(people.length);
    assert.deepEqual(answers.map(({ body }) => JSON.parse(body).userId), people.map(({ id }) => id));
    raw.close();
  });

  fact("HEAD has the headers of GET and no body", async () => {
    const raw = await RawSocket.connect(server);
    raw.write("HEAD /health HTTP/1.1\r\nHost: duet\r\n\r\n");
    const [answer] = await raw.answers(1, { head: true });
    assert.equal(answer.status, 200);
    assert.ok(Number(answer.headers["content-length"]) > 100);
    const before = raw.received.length;
    raw.write("HEAD /stats/live HTTP/1.1\r\nHost: duet\r\n\r\n");
    await raw.until((received) => received.length > before);
    assert.equal(raw.received.subarray(before, before + 12).toString(), "HTTP/1.1 200");
    raw.close();
  });

  fact("a chunked body is read, however it is cut", async () => {
    const body = JSON.stringify({ name: "Chunk", gender: "male" });
    const raw = await RawSocket.connect(server);
    raw.write(`POST /auth/guest HTTP/1.1\r\nHost: duet\r\nContent-Type: application/json\r\nX-Forwarded-For: ${freshAddress()}\r\nTransfer-Encoding: chunked\r\n\r\n`);
    for (let i = 0; i < body.length; i += 7) raw.write(`${body.slice(i, i + 7).length.toString(16)};x=y\r\n${body.slice(i, i + 7)}\r\n`);
    raw.write("0\r\nTrailer: ignored\r\n\r\n" + get("/stats/live"));
    const answers = await raw.answers(2);
    assert.deepEqual(answers.map(({ status }) => status), [200, 200]);
    raw.close();
  });

  fact("a request that comes byte by byte is one request", async () => {
    const raw = await RawSocket.connect(server);
    raw.socket.setNoDelay(true);
    for (const byte of get("/stats/live")) {
      raw.write(byte);
      await new Promise(setImmediate);
    }
    assert.equal((await raw.answers(1))[0].status, 200);
    raw.close();
  });

  fact("Connection: close and HTTP/1.0 end the connection after the answer", async () => {
    for (const request of [get("/stats/live", "Connection: close\r\n"), "GET /stats/live HTTP/1.0\r\nHost: duet\r\n\r\n"]) {
      const raw = await RawSocket.connect(server);
      raw.write(request);
      assert.equal((await raw.answers(1))[0].status, 200);
      assert.ok(await raw.closes());
    }
  });

  fact("Expect: 100-continue does not keep a client waiting", async () => {
    const body = JSON.stringify({ name: "Wait", gender: "male" });
    const raw = await RawSocket.connect(server);
    const [head] = guest(body, "Expect: 100-continue\r\n").split(body);
    raw.write(head);
    await raw.until(() => raw.responses().length > 0, 1_000);
    raw.write(body);
    await raw.until(() => raw.responses().some(({ status }) => status === 200));
    const statuses = raw.responses().map(({ status }) => status);
    assert.equal(statuses.at(-1), 200);
    assert.ok(statuses.slice(0, -1).every((status) => status === 100));
    raw.close();
  });

  fact("a request head that never ends is given up", async () => {
    const raw = await RawSocket.connect(server);
    raw.write("GET /health HTTP/1.1\r\nHost: duet\r\nX-Slow: ");
    assert.ok(await raw.closes(20_000), "still open after 20 s");
    for (const { status } of raw.responses()) assert.equal(status, 408);
  });

  fact("service routes have the contract's shape", async () => {
    const { body: root } = await ask("GET", "/");
    assert.deepEqual([root.version, root.status, typeof root.name, typeof root.timestamp], ["1.0.0", "running", "string", "number"]);
    for (const name of ["health", "auth", "user", "matchmaking", "payment", "admin"]) assert.ok(name in root.endpoints, name);
    assert.deepEqual(Object.keys(root.databases).sort(), ["postgresql", "redis"]);
    const { body: live } = await ask("GET", "/stats/live");
    assert.ok(Number.isInteger(live.onlineUsers) && Number.isInteger(live.timestamp));
    const { body: health } = await ask("GET", "/health");
    assert.equal(health.status, "ok");
    assert.match(health.memory.rss, /^\d+\.\d\d MB$/);
    assert.match(health.memory.usage, /^\d+\.\d%$/);
    for (const name of ["users", "total", "limit"]) assert.ok(Number.isInteger(health.connections[name]), name);
    assert.match(health.connections.avgPerUser, /^\d+\.\d\d$/);
    for (const name of ["users", "sessions", "queries"]) {
      const { size, maxSize, hits, misses, hitRate } = health.cache[name];
      assert.ok([size, maxSize, hits, misses].every(Number.isInteger) && /^\d+\.\d%$/.test(hitRate), name);
    }
    assert.match(health.scalability.currentCapacity, /^\d+ users$/);
    assert.match(JSON.stringify(health), /uring|epoll/, "health tells the runtime");
  });

  fact("whoever is present counts as online", async (cast) => {
    const ada = await cast.online();
    ada.emit("presence:join");
    await eventually("somebody is online", async () => (await ask("GET", "/stats/live")).body.onlineUsers >= 1);
  });
});

// What settings bound: rate limits, paywall, heartbeats, silent connections, sizes (contract 2.3, 3.1; D16, D20, D27, D28).

import assert from "node:assert/strict";
import { say, suite, within } from "./cast.mjs";
import { freshAddress, request } from "./client.mjs";
import { FrameSocket, noise } from "./raw.mjs";
import { Server, pause } from "./server.mjs";

const GUEST = { name: "Ada", gender: "female" };
const OPEN_PACKET = /^0\{/;

const limited = await Server.start({ "signups-per-hour": 3, "api-per-minute": 8 });
suite("rate limits", limited, ({ fact }) => {
  const signUp = (address, body = GUEST) => request(limited.url, "POST", "/auth/guest", { body, address });
  const login = (email, password, address) => request(limited.url, "POST", "/auth/login", { body: { email, password }, address });

  fact("guests made are limited per address, and 429 has CORS, the text and the time (D27)", async () => {
    const address = freshAddress();
    for (let i = 0; i < 3; i++) assert.equal((await signUp(address)).status, 200);
    const over = await request(limited.url, "POST", "/auth/guest", { body: GUEST, address, headers: { origin: "http://localhost:3000" } });
    assert.equal(over.status, 429);
    assert.match(over.body.error, /Too many/);
    assert.ok(Number(over.headers["retry-after"]) > 0);
    assert.equal(over.headers["access-control-allow-origin"], "http://localhost:3000");
    assert.equal(over.headers["x-content-type-options"], "nosniff");
    assert.equal((await signUp(freshAddress())).status, 200);
  });

  fact("the address counted is the right-most untrusted hop, so a forged left one dodges nothing (D20)", async () => {
    const address = freshAddress();
    const statuses = [];
    for (let i = 0; i < 5; i++) statuses.push((await signUp(`192.0.2.${i}, ${address}`)).status);
    assert.deepEqual(statuses, [200, 200, 200, 429, 429]);
    assert.equal((await signUp(`${freshAddress()}, 127.0.0.1`)).status, 200, "a trusted hop is skipped");
  });

  fact("failed logins are limited per account and address, and do not stop sign-ups or other accounts (D27)", async () => {
    const address = freshAddress();
    const statuses = [];
    for (let i = 0; i < 8; i++) statuses.push((await login("ada@example.org", "wrong password", address)).status);
    assert.deepEqual(statuses, [401, 401, 401, 401, 401, 401, 429, 429]);
    const { body, headers } = await login("ada@example.org", "wrong password", address);
    assert.equal(body.error, "Too many login attempts");
    within(body.retryAfter, 1, 600, "retryAfter");
    within(Number(headers["retry-after"]), 1, 600, "Retry-After");
    assert.equal((await login("bo@example.org", "wrong password", address)).status, 401);
    assert.equal((await login("ada@example.org", "wrong password", freshAddress())).status, 401);
    assert.equal((await signUp(address)).status, 200);
  });

  fact("api requests are limited per address and show how many are left", async () => {
    const address = freshAddress();
    const { body: ada } = await signUp(address);
    const answers = [];
    for (let i = 0; i < 10; i++) answers.push(await request(limited.url, "GET", "/user/me", { token: ada.sessionToken, address }));
    assert.deepEqual(answers.map(({ status }) => status), [...Array(8).fill(200), 429, 429]);
    const { headers } = answers[0];
    assert.deepEqual([headers["ratelimit-limit"], headers["ratelimit-remaining"]], ["8", "7"]);
    assert.ok(Number(headers["ratelimit-reset"]) <= 60);
    assert.match(headers["ratelimit-policy"], /^8;w=60$/);
    assert.equal(answers[8].body.error, "Too many requests");
    assert.equal(answers[8].body.retryAfter, 60);
  });

  fact("health and live statistics are never limited", async () => {
    const address = freshAddress();
    for (const path of ["/health", "/stats/live"]) {
      for (let i = 0; i < 15; i++) assert.equal((await request(limited.url, "GET", path, { address })).status, 200);
    }
  });
});

const direct = await Server.start({ "trusted-proxies": false, "signups-per-hour": 2, "stun-urls": "stun:stun.example.org:3478" });
suite("without a trusted proxy", direct, ({ fact }) => {
  fact("X-Forwarded-For is not believed, and STUN servers are what is configured (D20)", async () => {
    const statuses = [];
    let token;
    for (let i = 0; i < 4; i++) {
      const { status, body } = await request(direct.url, "POST", "/auth/guest", { body: GUEST, address: freshAddress() });
      statuses.push(status);
      token ??= body.sessionToken;
    }
    assert.deepEqual(statuses, [200, 200, 429, 429]);
    const { body } = await request(direct.url, "GET", "/turn/credentials", { token });
    assert.deepEqual(body.iceServers.flatMap(({ urls }) => urls), ["stun:stun.example.org:3478"]);
  });
});

const fronted = await Server.start({ "client-address-header": "x-real-ip", "signups-per-hour": 2 });
suite("with X-Real-IP", fronted, ({ fact }) => {
  const signUp = (headers) => request(fronted.url, "POST", "/auth/guest", { body: GUEST, headers });

  fact("the address counted is the one there, and X-Forwarded-For is not looked at", async () => {
    const [mine, other] = [freshAddress(), freshAddress()];
    const statuses = [];
    for (let i = 0; i < 4; i++) statuses.push((await signUp({ "x-real-ip": mine, "x-forwarded-for": freshAddress() })).status);
    assert.deepEqual(statuses, [200, 200, 429, 429]);
    assert.equal((await signUp({ "x-real-ip": other, "x-forwarded-for": mine })).status, 200);
  });
});

const paywalled = await Server.start({ paywall: "on" });
suite("with the paywall on", paywalled, ({ fact, facts }) => {
  facts("an unpaid user sees no queue, joins none and invites nobody (D28)", async (cast) => {
    const [ada, bo] = [await cast.online(), await cast.online()];
    assert.deepEqual([ada.account.signedUp.paidStatus, ada.account.signedUp.requiresPayment], ["unpaid", true]);
    for (const path of ["/room/queue", "/room/reel"]) {
      const { status, body } = await ada.http("GET", path);
      assert.deepEqual([status, body.error, body.requiresPayment, typeof body.message], [402, "Payment required", true, "string"]);
    }
    ada.emit("queue:join");
    await ada.next("error");
    ada.emit("call:invite", { toUserId: bo.id, requestedSeconds: 300 });
    await ada.next("error");
    assert.equal((await ada.get("/user/me")).paidStatus, "unpaid");
    assert.deepEqual(bo.all("call:notify"), []);
  });

  fact("a wrong invite code leaves the way to pay", async () => {
    const { status, body } = await request(paywalled.url, "POST", "/auth/guest", { body: { ...GUEST, inviteCode: "ABCDEFGH12345678" }, address: freshAddress() });
    assert.deepEqual([status, body.error, body.requiresPayment], [403, "Invalid invite code", true]);
  });

  fact("without a session the paywall answers 401", async () => {
    const { status, body } = await request(paywalled.url, "GET", "/room/queue");
    assert.deepEqual([status, body.error], [401, "Authorization required"]);
  });
});

const nervous = await Server.start({ "ping-interval-ms": 300, "ping-timeout-ms": 500, "unbound-timeout-ms": 1_500 });
suite("with short timeouts", nervous, ({ fact, facts }) => {
  facts("heartbeats keep a living connection, and its call", async (cast) => {
    const { caller, callee, room } = await cast.call();
    await pause(3_000);
    await say(caller, callee, room, "still here");
    await say(callee, caller, room, "me too");
  });

  fact("the open packet tells the heartbeat, and a client that answers pings is kept", async (cast) => {
    const ada = await cast.guest();
    const socket = await FrameSocket.open(nervous, "/socket.io/?EIO=4&transport=websocket");
    await socket.heard((text) => OPEN_PACKET.test(text));
    const { sid, ...open } = JSON.parse(socket.texts()[0].slice(1));
    assert.equal(typeof sid, "string");
    assert.deepEqual(open, { upgrades: [], pingInterval: 300, pingTimeout: 500, maxPayload: 1_000_000 });
    socket.text(`40{"token":"${ada.token}"}`);
    assert.ok(await socket.heard((text) => text.startsWith('42["auth:success"')));
    for (let answered = 0; answered < 5; answered++) {
      await socket.raw.until(() => socket.texts().filter((text) => text === "2").length > answered);
      socket.text("3");
    }
    assert.ok(!socket.raw.ended);
    socket.close();
  });

  fact("a Socket.IO client that answers no ping is closed", async (cast) => {
    const ada = await cast.guest();
    const socket = await FrameSocket.open(nervous, "/socket.io/?EIO=4&transport=websocket");
    socket.text(`40{"token":"${ada.token}"}`);
    assert.notEqual(await socket.closeCode(4_000), undefined);
  });

  fact("a plain client that answers no ping is closed, one that does is kept", async (cast) => {
    const ada = await cast.guest();
    const [silent, lively] = [await FrameSocket.open(nervous), await FrameSocket.open(nervous)];
    for (const socket of [silent, lively]) socket.text(JSON.stringify(["auth", { sessionToken: ada.token }]));
    let answered = 0;
    const answering = setInterval(() => {
      const pings = lively.frames().filter(({ opcode }) => opcode === 9);
      for (; answered < pings.length; answered++) lively.frame(pings[answered].payload, { opcode: 10 });
    }, 50);
    assert.notEqual(await silent.closeCode(4_000), undefined, "the silent one");
    await pause(1_000);
    clearInterval(answering);
    assert.ok(answered > 1 && !lively.raw.ended, "the lively one");
    lively.close();
  });

  fact("a client may ping, too", async () => {
    const socket = await FrameSocket.open(nervous);
    socket.frame("marco", { opcode: 9 });
    assert.ok(await socket.raw.until(() => socket.frames().some(({ opcode, payload }) => opcode === 10 && payload.toString() === "marco")));
    socket.close();
  });

  facts("a connection that does not authenticate is closed after its time (D16)", async (cast) => {
    const from = Date.now();
    const nobody = cast.connection({});
    await nobody.open();
    await nobody.ended(8_000);
    within(Date.now() - from, 1_000, 6_000, "ms until closed");
    const bound = await cast.online();
    await pause(2_500);
    await bound.settle();
  });
});

const roomy = await Server.start();
suite("sizes", roomy, ({ facts }) => {
  facts("a message over 1,000,000 bytes closes its sender only, one under it passes", async (cast) => {
    const { caller, callee, room } = await cast.call();
    const large = noise(900_000);
    caller.emit("rtc:offer", { roomId: room, offer: { sdp: large } });
    assert.equal((await callee.next("rtc:offer")).offer.sdp.length, large.length);
    const tab = await caller.tab();
    tab.emit("rtc:offer", { roomId: room, offer: { sdp: noise(1_000_100) } });
    await tab.ended();
    await say(caller, callee, room, "unharmed");
    assert.equal(callee.all("rtc:offer").length, 1);
  });

  facts("text of several bytes per character, and every escape, passes as it is", async (cast) => {
    const { caller, callee, room } = await cast.call();
    const texts = ["ñandú 漢字 😀", 'quote " backslash \\ slash / é', "line\u2028and\u2029paragraph", "‮rtl", "a".repeat(500)];
    for (const text of texts) await say(caller, callee, room, text);
  });
});

// Malformed bytes, frames, packets, events and requests against a live server while a call runs on it.
//
// Each gets its documented answer or close; none reaches another client; the call and the process go on.

import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { Cast, say } from "./cast.mjs";
import { freshAddress } from "./client.mjs";
import { FrameSocket, RawSocket, exchange, noise } from "./raw.mjs";
import { Server } from "./server.mjs";

const server = await Server.start();
const cast = new Cast(server, "mixed");
const pid = server.pid;
let call;
let bystander;
let attacks = 0;

/** After every attack: nobody else heard a thing, and the call goes on both ways. */
async function unharmed() {
  const { caller, callee, room } = call;
  const number = ++attacks;
  await say(caller, callee, room, `after ${number}`);
  await say(callee, caller, room, `and ${number}`);
  await bystander.settle();
  for (const person of [caller, callee]) {
    assert.equal(person.all("room:chat").length, 2 * number, "only the two of them are heard");
    const odd = person.events.filter(({ name }) => /^(error|rtc:|room:socialShared|peer:|session:|call:(declined|notify|rescinded))/.test(name));
    assert.deepEqual(odd, []);
  }
  assert.deepEqual(bystander.events.filter(({ name }) => !["auth:success", "queue:update", "presence:update"].includes(name)), []);
  assert.deepEqual([server.alive, server.pid], [true, pid], "the same process serves");
}

function attack(name, body) {
  it(name, { timeout: 60_000 }, async () => {
    await body();
    await unharmed();
  });
}

const line = (first, headers = "Host: duet\r\n", body = "") => `${first}\r\n${headers}\r\n${body}`;
const post = (headers, body) => line("POST /auth/guest HTTP/1.1", `Host: duet\r\nX-Forwarded-For: ${freshAddress()}\r\nContent-Type: application/json\r\n${headers}`, body);
const json = (body) => post(`Content-Length: ${Buffer.byteLength(body)}\r\n`, body);
const upgrade = (path, headers) => line(`GET ${path} HTTP/1.1`, `Host: duet\r\n${headers}`);
const KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const UPGRADE = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
const VERSION = "Sec-WebSocket-Version: 13\r\n";

/** What is sent, and the statuses that are right for it; `closed` allows a close without an answer. */
const REQUESTS = [
  ["bytes of TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", [400, "closed"]],
  ["NUL bytes", `${"\0".repeat(64)}\r\n\r\n`, [400, "closed"]],
  ["a request line without a path", line("GET HTTP/1.1"), [400]],
  ["a lower-case version", line("GET / http/1.1"), [400]],
  ["HTTP/9.9", line("GET / HTTP/9.9"), [400, 505]],
  ["an HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400, 505]],
  ["no Host", line("GET /health HTTP/1.1", ""), [400]],
  ["two Hosts", line("GET /health HTTP/1.1", "Host: a\r\nHost: b\r\n"), [400]],
  ["an unknown method", line("BREW /health HTTP/1.1"), [501, 405]],
  ["a head of 20 kB", line("GET /health HTTP/1.1", `Host: duet\r\nX-Filler: ${"x".repeat(20_000)}\r\n`), [431]],
  ["100 headers", line("GET /health HTTP/1.1", `Host: duet\r\n${"X-A: b\r\n".repeat(100)}`), [431]],
  ["a path of 20 kB", line(`GET /${"x".repeat(20_000)} HTTP/1.1`), [414]],
  ["a compressed body", post("Content-Encoding: gzip\r\nContent-Length: 2\r\n", "{}"), [415]],
  ["a blank before the colon", line("GET /health HTTP/1.1", "Host : duet\r\n"), [400]],
  ["a folded header", line("GET /health HTTP/1.1", "Host: duet\r\nX-A: b\r\n c\r\n"), [400]],
  ["a control character in a header", line("GET /health HTTP/1.1", "Host: duet\r\nX-A: b\x01c\r\n"), [400]],
  ["length and chunks at once", post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), [400]],
  ["two lengths that differ", post("Content-Length: 2\r\nContent-Length: 3\r\n", "{}x"), [400]],
  ["a negative length", post("Content-Length: -1\r\n", ""), [400]],
  ["a length that is no number", post("Content-Length: 0x10\r\n", ""), [400]],
  ["a length beyond 64 bits", post("Content-Length: 99999999999999999999999\r\n", ""), [400, 413]],
  ["a chunk size that is no number", post("Transfer-Encoding: chunked\r\n", "zz\r\n{}\r\n0\r\n\r\n"), [400]],
  ["a chunk size beyond 64 bits", post("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\n{}\r\n0\r\n\r\n"), [400, 413]],
  ["chunks beyond the limit", post("Transfer-Encoding: chunked\r\n", `1ffff\r\n${"x".repeat(0x1ffff)}\r\n0\r\n\r\n`), [413]],
  ["an unknown transfer coding", post("Transfer-Encoding: rot13\r\n", "{}"), [400, 501]],
  ["a claimed body of 1 GB", post("Content-Length: 1000000000\r\n", "{"), [413]],
  ["JSON that is cut off", json('{"name":"Ada"'), [400]],
  ["JSON nested 50,000 deep", json("[".repeat(50_000)), [400]],
  ["JSON objects nested 10,000 deep", json('{"name":'.repeat(10_000)), [400]],
  ["JSON that is no UTF-8", Buffer.concat([Buffer.from(post("Content-Length: 12\r\n", "")), Buffer.from([0x7b, 0x22, 0x6e, 0x22, 0x3a, 0x22, 0xff, 0xfe, 0xc0, 0x80, 0x22, 0x7d])]), [400]],
  ["JSON with half a surrogate pair", json('{"name":"\\ud800","gender":"female"}'), [200, 400]],
  ["a JSON array", json('["Ada"]'), [400]],
  ["JSON null", json("null"), [400]],
  ["a number too large for JSON", json('{"name":1e999999,"gender":"female"}'), [400]],
  ["a path with traversal", line("GET /../../etc/passwd HTTP/1.1"), [400, 404]],
  ["a path with an encoded NUL", line("GET /room/%00history HTTP/1.1"), [400, 404]],
  ["a path with a broken escape", line("GET /room/%zz HTTP/1.1"), [400, 404]],
  ["a query of nonsense", line("GET /room/reel?limit=-1&cursor=%ff%fe&limit=99999999999 HTTP/1.1"), [401]],
  ["an Authorization of 10 kB", line("GET /user/me HTTP/1.1", `Host: duet\r\nAuthorization: Bearer ${"x".repeat(10_000)}\r\n`), [401]],
  ["Authorization that is no ASCII", line("GET /user/me HTTP/1.1", "Host: duet\r\nAuthorization: Bearer \xff\xfe\r\n"), [400, 401]],
  ["X-Forwarded-For of nonsense", line("GET /health HTTP/1.1", "Host: duet\r\nX-Forwarded-For: ;;, , 999.1.1.1, [::\r\n"), [200]],
  ["an upgrade without a key", upgrade("/ws", UPGRADE + VERSION), [400]],
  ["an upgrade with a short key", upgrade("/ws", `${UPGRADE}${VERSION}Sec-WebSocket-Key: AAAA\r\n`), [400]],
  ["an upgrade of another version", upgrade("/ws", `${UPGRADE}${KEY}Sec-WebSocket-Version: 8\r\n`), [400, 426]],
  ["an upgrade by POST", upgrade("/ws", UPGRADE + VERSION + KEY).replace("GET", "POST"), [400, 405]],
  ["no upgrade at /ws", line("GET /ws HTTP/1.1"), [400, 404, 426]],
  ["Engine.IO 3", upgrade("/socket.io/?EIO=3&transport=websocket", UPGRADE + VERSION + KEY), [400]],
  ["no Engine.IO version", upgrade("/socket.io/?transport=websocket", UPGRADE + VERSION + KEY), [400]],
  ["an unknown Engine.IO transport", line("GET /socket.io/?EIO=4&transport=pigeon HTTP/1.1"), [400]],
  ["an unknown Engine.IO session", upgrade("/socket.io/?EIO=4&transport=websocket&sid=nobody", UPGRADE + VERSION + KEY), [400]],
];

const PROTOCOL = [1002];
/** A frame by hand, and the close codes that are right for it (RFC 6455 7.4.1); 0 is a close without a code. */
const FRAMES = [
  ["an unmasked frame", (s) => s.frame("[]", { mask: false }), PROTOCOL],
  ["a reserved bit", (s) => s.frame("[]", { rsv: 2 }), PROTOCOL],
  ["a compressed frame that was not agreed on", (s) => s.frame("[]", { rsv: 4 }), PROTOCOL],
  ["a reserved opcode", (s) => s.frame("[]", { opcode: 3 }), PROTOCOL],
  ["a reserved control opcode", (s) => s.frame("", { opcode: 11 }), PROTOCOL],
  ["a fragmented ping", (s) => s.frame("", { opcode: 9, fin: false }), PROTOCOL],
  ["a ping of 126 bytes", (s) => s.frame("x".repeat(126), { opcode: 9 }), PROTOCOL],
  ["a continuation of nothing", (s) => s.frame("x", { opcode: 0 }), PROTOCOL],
  ["a new message within a message", (s) => s.frame("[", { fin: false }).frame("]"), PROTOCOL],
  ["text that is no UTF-8", (s) => s.frame(Buffer.from([0x5b, 0x22, 0xff, 0xfe, 0x22, 0x5d])), [1007]],
  ["text cut within a character", (s) => s.frame(Buffer.from([0x5b, 0x22, 0xf0, 0x9f])), [1007]],
  ["a close of one byte", (s) => s.frame("x", { opcode: 8 }), PROTOCOL],
  ["a close with a reserved code", (s) => s.frame(Buffer.from([0x03, 0xed]), { opcode: 8 }), PROTOCOL],
  ["a length beyond 63 bits", (s) => s.raw.write(Buffer.from([0x81, 0xff, ...Array(8).fill(0xff), 1, 2, 3, 4])), [1002, 1009]],
  ["a claimed message of 2 GB", (s) => s.frame("x", { length: 2 ** 31 }), [1009]],
  ["fragments beyond 1,000,000 bytes", (s) => {
    s.frame("x".repeat(600_000), { fin: false }).frame("x".repeat(600_000), { opcode: 0, fin: false });
  }, [1009]],
];

const ANYHOW = [0, 1000, 1002, 1003, 1007, 1008];
/** A packet on a Socket.IO connection that is bound, and whether it is answered, ignored or closes it. */
const PACKETS = [
  ["an empty packet", "", "closed or ignored"],
  ["an unknown Engine.IO type", "9", "closed or ignored"],
  ["an Engine.IO open from a client", '0{"sid":"x"}', "closed or ignored"],
  ["an empty Socket.IO packet", "4", "closed or ignored"],
  ["an unknown Socket.IO type", "49", "closed or ignored"],
  ["an event that is no JSON", "42[", "closed or ignored"],
  ["an event that is an object", '42{"a":1}', "closed or ignored"],
  ["an event without a name", "42[]", "closed or ignored"],
  ["an event whose name is a number", "42[7]", "closed or ignored"],
  ["an event followed by more", '42["presence:join"]]', "closed or ignored"],
  ["an event nested 100,000 deep", `42["room:chat",${"[".repeat(100_000)}`, "closed or ignored"],
  ["an event with an acknowledgement beyond 64 bits", '4299999999999999999999["presence:join"]', "closed or ignored"],
  ["a binary event", '451-["room:chat",{"_placeholder":true,"num":0}]', "closed or ignored"],
  ["an event for a namespace that is not", '42/admin,["presence:join"]', "closed or ignored"],
  ["a second connect", "40", "closed or ignored"],
  ["an acknowledgement of nothing", "43[]", "closed or ignored"],
  ["a connect error from a client", '44{"message":"x"}', "closed or ignored"],
  ["a binary frame", null, "closed or ignored"],
  ["a pong nobody asked for", "3", "ignored"],
  ["a probe outside an upgrade", "2probe", "closed or ignored"],
  ["a connect to a namespace that is not", "40/admin,", /^44\/admin,.*Invalid namespace/],
  ["an event with the name of a reserved one", '42["disconnect",{}]', "closed or ignored"],
  ["an event named like a prototype", '42["__proto__",{"constructor":1}]', "ignored"],
];

const ROOM = "2f1f3c58-9d5b-4a3e-8f6a-0d1c2b3a4958";
/** An event on a bound connection, and the name of what its sender must hear; null: nothing. */
const EVENTS = [
  ["no:such:event", {}, null],
  ["call:invite", undefined, "error"],
  ["call:invite", null, "error"],
  ["call:invite", { toUserId: 7, requestedSeconds: 300 }, "error"],
  ["call:invite", { toUserId: { $ne: 1 }, requestedSeconds: 300 }, "error"],
  ["call:invite", { toUserId: noise(100_000), requestedSeconds: 300 }, "call:declined"],
  ["call:accept", undefined, "error"],
  ["call:accept", { inviteId: ["a"], requestedSeconds: 300 }, "error"],
  ["call:decline", "text", "error"],
  ["call:extend-wait", [1, 2], "error"],
  ["call:rescind", 7, "error"],
  ["room:join", undefined, "error"],
  ["room:join", { roomId: ROOM }, "error"],
  ["rtc:offer", { roomId: ROOM }, "error"],
  ["rtc:offer", { roomId: ROOM, offer: {} }, "error"],
  ["rtc:ice", { roomId: 1, candidate: {} }, "error"],
  ["rtc:answer", { answer: {} }, "error"],
  ["room:chat", { roomId: ROOM, text: { toString: 1 } }, "error"],
  ["room:chat", { roomId: ROOM, text: 7 }, "error"],
  ["room:giveSocial", { roomId: ROOM, socials: { a: 1 } }, "error"],
  ["room:giveSocial", { roomId: ROOM, socials: null }, "error"],
  ["call:end", undefined, "error"],
  ["call:end", { roomId: ROOM }, null],
  ["auth", undefined, "auth:failed"],
  ["auth", { sessionToken: { a: 1 } }, "auth:failed"],
  ["auth", { sessionToken: noise(200_000) }, "auth:failed"],
];

describe("hostile input during a call", () => {
  before(async () => {
    call = await cast.call();
    bystander = await cast.online();
    bystander.emit("presence:join");
    bystander.emit("queue:join");
    await bystander.settle();
    for (const person of [call.caller, call.callee]) person.events.length = 0;
  });
  after(async () => {
    cast.people.forEach((person) => person.dispose());
    await server.stop();
  });

  for (const [name, bytes, right] of REQUESTS) {
    attack(`request: ${name}`, async () => {
      const answer = await exchange(server, typeof bytes === "string" ? Buffer.from(bytes, "latin1") : bytes);
      assert.ok(right.includes(answer ? answer.status : "closed"), `expected ${right}, got ${JSON.stringify(answer)}`);
      // Engine.IO refuses with its own {code, message}.
      const { error, message } = answer?.status >= 400 ? JSON.parse(answer.body) : { error: "" };
      assert.equal(typeof (error ?? message), "string");
    });
  }

  for (const [name, send, right] of FRAMES) {
    attack(`frame: ${name}`, async () => {
      const attacker = await cast.guest();
      const socket = await FrameSocket.open(server);
      socket.text(JSON.stringify(["auth", { sessionToken: attacker.token }]));
      await socket.heard((text) => text.startsWith('["auth:success"'));
      send(socket);
      const code = await socket.closeCode();
      assert.ok(right.includes(code), `expected ${right}, got ${code}`);
      assert.ok(await socket.ends(), "the connection ends after the close frame");
      socket.close();
    });
  }

  for (const [name, packet, right] of PACKETS) {
    attack(`packet: ${name}`, async () => {
      const attacker = await cast.guest();
      const socket = await FrameSocket.open(server, "/socket.io/?EIO=4&transport=websocket");
      socket.text(`40${JSON.stringify({ token: attacker.token })}`);
      assert.ok(await socket.heard((text) => text.startsWith('42["auth:success"')));
      if (packet === null) socket.frame(Buffer.from([1, 2, 3]), { opcode: 2 });
      else socket.text(packet);
      if (right instanceof RegExp) {
        assert.ok(await socket.heard((text) => right.test(text)), socket.texts().join(" "));
      } else {
        const before = socket.texts().length;
        socket.text(`42${JSON.stringify(["auth", { sessionToken: attacker.token }])}`);
        await socket.raw.until(() => socket.over || socket.texts().slice(before).some((text) => text.includes("auth:success")));
        const code = socket.over ? await socket.closeCode() : undefined;
        if (code === undefined) assert.ok(socket.texts().slice(before).some((text) => text.includes("auth:success")), "it neither closed nor went on");
        else assert.ok(right !== "ignored" && ANYHOW.includes(code), `closed with ${code}`);
      }
      socket.close();
    });
  }

  for (const transport of ["socket.io", "/ws"]) {
    attack(`events: every malformed one gets its answer and leaves the connection (${transport})`, async () => {
      const attacker = cast.connection((await cast.guest()).account, transport);
      await attacker.connect();
      for (const [name, payload, answer] of EVENTS) {
        const before = attacker.events.length;
        attacker.emit(name, payload);
        if (answer) await attacker.next(answer);
        await attacker.settle();
        const heard = attacker.events.slice(before).map((event) => event.name).filter((event) => event !== "auth:success");
        assert.deepEqual(heard, answer ? [answer] : [], `${name} ${JSON.stringify(payload)?.slice(0, 80)}`);
      }
    });
  }

  const PLAIN = ["", "{", "[]", "[1]", "null", '"auth"', "{}", '["auth"', '["auth"]x', "[".repeat(100_000), '["room:chat",{"roomId":"\\ud800","text":"x"}]'];
  attack("plain frames that are no event close the connection or are ignored", async () => {
    for (const text of PLAIN) {
      const socket = await FrameSocket.open(server);
      socket.text(text);
      socket.text('["auth",{"sessionToken":"nonsense"}]');
      await socket.raw.until(() => socket.over || socket.texts().some((heard) => heard.includes("auth:failed")));
      const answered = socket.texts().some((heard) => heard.includes("auth:failed"));
      assert.ok(answered || ANYHOW.includes(await socket.closeCode()), `${text.slice(0, 20)} got ${socket.texts()}`);
      socket.close();
    }
  });

  attack("an event before the Socket.IO connect is not obeyed", async () => {
    const socket = await FrameSocket.open(server, "/socket.io/?EIO=4&transport=websocket");
    socket.text('42["queue:join"]');
    await socket.raw.until(() => socket.over, 500);
    assert.ok(!socket.texts().some((text) => text.startsWith("42")));
    socket.close();
  });

  attack("a flood of events from one connection harms only that one (D39)", async () => {
    const attacker = await cast.online();
    for (let i = 0; i < 5_000; i++) attacker.emit("presence:join");
    for (let i = 0; i < 500; i++) attacker.emit("call:invite", { toUserId: call.callee.id, requestedSeconds: 300 });
  });

  attack("a client that reads nothing harms only itself", async () => {
    const attacker = await cast.guest();
    const socket = await FrameSocket.open(server);
    socket.raw.socket.pause();
    for (let i = 0; i < 2_000; i++) socket.text(JSON.stringify(["auth", { sessionToken: attacker.token }]));
    await call.caller.settle();
    socket.close();
  });

  attack("a hundred connections that say nothing do no harm", async () => {
    const silent = await Promise.all(Array.from({ length: 100 }, () => RawSocket.connect(server)));
    await call.callee.settle();
    silent.forEach((raw) => raw.close());
  });

  attack("connections torn down in the middle of everything do no harm", async () => {
    for (const bytes of ["G", "GET /health HT", line("GET /health HTTP/1.1").slice(0, -2), post("Content-Length: 50\r\n", '{"na'), upgrade("/ws", UPGRADE + VERSION + KEY)]) {
      const raw = await RawSocket.connect(server);
      raw.write(bytes);
      await new Promise((resolve) => setTimeout(resolve, 20));
      raw.socket.resetAndDestroy();
    }
    const socket = await FrameSocket.open(server);
    socket.frame("x", { length: 5_000 });
    socket.raw.socket.resetAndDestroy();
  });
});

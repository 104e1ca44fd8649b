// The target for protocol suites (tests/conformance/server.rs), driven by the official clients over each transport.

import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Socket as Engine } from "engine.io-client";
import { io } from "socket.io-client";
import WebSocket from "ws";
import { BIN, Server } from "./server.mjs";

const TARGET = join(dirname(BIN), "examples", "duet-conformance");
const WAYS = { polling: ["polling"], websocket: ["websocket"], upgraded: ["polling", "websocket"] };
const PATIENCE_MS = 10_000;

/** The next event of an emitter: its arguments. */
const heard = (emitter, name) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no ${name} in ${PATIENCE_MS} ms`)), PATIENCE_MS);
    emitter.once(name, (...args) => {
      clearTimeout(timer);
      resolve(args);
    });
  });

const bytes = (length, first = 0) => Buffer.from(Array.from({ length }, (_, i) => (first + i) % 256));

describe("conformance target", { concurrency: 4 }, () => {
  let server;
  before(async () => (server = await Server.start({}, { binary: TARGET })));
  after(() => server.stop());

  it("WebSocket: text comes back as text, binary as binary, whatever its size", async () => {
    for (const perMessageDeflate of [false, true]) {
      const socket = new WebSocket(`${server.url.replace("http", "ws")}/`, { perMessageDeflate });
      await heard(socket, "open");
      assert.equal(socket.extensions, perMessageDeflate ? "permessage-deflate" : "");
      for (const message of ["", "a", "ä".repeat(5_000), bytes(0), bytes(1), bytes(70_000), "z".repeat(900_000).replace(/zz/g, () => Math.random().toString(36).slice(2, 4))]) {
        const back = heard(socket, "message");
        socket.send(message);
        const [data, isBinary] = await back;
        assert.deepEqual([isBinary, data.equals(Buffer.from(message))], [Buffer.isBuffer(message), true]);
      }
      socket.close(1000);
      assert.equal((await heard(socket, "close"))[0], 1000);
    }
  });

  for (const [way, transports] of Object.entries(WAYS)) {
    it(`Engine.IO: text and binary come back (${way})`, async () => {
      const engine = new Engine(server.url, { path: "/engine.io/", transports });
      engine.binaryType = "nodebuffer";
      await heard(engine, "open");
      if (way === "upgraded") await heard(engine, "upgrade");
      for (const message of ["a", "\u20ac\u{1f600}", bytes(3), bytes(3_000, 7)]) {
        const back = heard(engine, "message");
        engine.send(message);
        assert.deepEqual((await back)[0], message);
      }
      assert.equal(engine.transport.name, way === "polling" ? "polling" : "websocket");
      engine.close();
    });

    for (const namespace of ["/", "/custom"]) {
      it(`Socket.IO: auth, events, acknowledgements and attachments in ${namespace} (${way})`, async () => {
        const socket = io(server.url + namespace, { transports, auth: { token: "abc" }, forceNew: true });
        const auth = heard(socket, "auth");
        await heard(socket, "connect");
        assert.deepEqual(await auth, [{ token: "abc" }]);
        for (const args of [[], [1, "2", { 3: [true] }], [bytes(5), { nested: [bytes(2_000, 9), "x"] }]]) {
          const back = heard(socket, "message-back");
          socket.emit("message", ...args);
          assert.deepEqual(await back, args);
          const acknowledged = await new Promise((resolve) => socket.emit("message-with-ack", ...args, (...values) => resolve(values)));
          assert.deepEqual(acknowledged, args);
        }
        socket.disconnect();
      });
    }

    it(`Socket.IO: two namespaces on one connection, and one that is none (${way})`, async () => {
      const main = io(server.url, { transports, forceNew: true });
      await heard(main, "connect");
      const [custom, random] = [main.io.socket("/custom"), main.io.socket("/random")];
      const [[error]] = await Promise.all([heard(random, "connect_error"), heard(custom, "connect")]);
      assert.equal(error.message, "Invalid namespace");
      custom.disconnect();
      const back = heard(main, "message-back");
      main.emit("message", "still here");
      assert.deepEqual(await back, ["still here"]);
      main.disconnect();
    });
  }
});

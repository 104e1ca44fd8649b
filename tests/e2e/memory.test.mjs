// Short memory: what the operator is told, and what becomes of connections old and new.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Client } from "./client.mjs";
import { LeanSocket, callBetween, guests } from "./lean.mjs";
import { RawSocket } from "./raw.mjs";
import { Server, eventually } from "./server.mjs";

const PAIRS = 12;
const SIGNALS_AT_ONCE = 50;
const SIGNAL = "x".repeat(4_000);
/** Much more than the allocator may keep of what was freed, and much less. */
const HELD_KB = 40 * 1024;
const LEFT_KB = 16 * 1024;

describe("memory", { concurrency: 2 }, () => {
  it("over its limit the server says so, keeps its clients and turns new ones away", { timeout: 60_000 }, async () => {
    // No process of ours fits: the first reading, after a second, is critical.
    const server = await Server.start({ "memory-limit-mib": 2, "memory-seconds": 1, log: "debug" });
    try {
      const old = await Client.signUp(server, "/ws");
      await old.connect();
      await eventually("the log says so", () => /\[MemoryManager\] 🔴 CRITICAL: \d+\.\d\d MB \/ 2\.00 MB; new connections/u.test(server.log));
      assert.match(server.log, /\[LRUCache\] Evicted \d+ users, \d+ sessions/);
      const refused = await RawSocket.connect(server);
      assert.ok(await refused.closes(), "nothing is spent on it, not even its request");
      assert.match(refused.received.toString(), /^HTTP\/1\.1 503 .*Retry-After: \d+.*\{"error":"Server is at capacity"\}$/s);
      await old.settle();
      old.dispose();
      assert.equal((await server.stop()).code, 0);
    } finally {
      await server.kill();
    }
  });

  it("within its limit it says nothing", { timeout: 60_000 }, async () => {
    const server = await Server.start({ "memory-limit-mib": 4_000, "connections-max": 100, "memory-seconds": 1, log: "debug" });
    try {
      await eventually("it reads its memory", () => /DEBUG .*\[MemoryManager\] 🟢 OK: \d+\.\d\d MB \/ 4000\.00 MB/u.test(server.log));
      assert.doesNotMatch(server.log, /WARN|ERROR/);
    } finally {
      await server.kill();
    }
  });

  it("what readers that stopped made it hold goes back to the system, though memory is not short", { timeout: 60_000 }, async () => {
    const server = await Server.start({ "memory-seconds": 1, "event-rate": 0 });
    try {
      const people = await guests(server.url, 2 * PAIRS);
      const sockets = await Promise.all(people.map(async ({ token }) => (await LeanSocket.open(server.port)).bind(token)));
      const pairs = await Promise.all(Array.from({ length: PAIRS }, async (_, i) => {
        const [caller, callee] = sockets.slice(2 * i, 2 * i + 2);
        const roomId = await callBetween(caller, callee, people[2 * i + 1].id, people[2 * i + 1].token);
        callee.socket.pause();
        return { caller, roomId, token: people[2 * i].token };
      }));
      const before = server.rssKb();
      // The system's own buffers come first, and take some megabytes each.
      await eventually("it holds what is not read", async () => {
        await Promise.all(pairs.map(async ({ caller, roomId, token }) => {
          for (let i = 0; i < SIGNALS_AT_ONCE; i++) caller.emit("rtc:ice", { roomId, candidate: { candidate: SIGNAL } });
          await caller.settle(token);
        }));
        return server.rssKb() > before + HELD_KB;
      });
      sockets.forEach((socket) => socket.destroy());
      await eventually("it goes back", () => server.rssKb() < before + LEFT_KB, 20_000);
    } finally {
      await server.kill();
    }
  });
});

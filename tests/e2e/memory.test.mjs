// Short memory: what the operator is told, and what becomes of connections old and new.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Client } from "./client.mjs";
import { RawSocket } from "./raw.mjs";
import { Server, eventually } from "./server.mjs";

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
    const server = await Server.start({ "memory-limit-mib": 4_000, "memory-seconds": 1, log: "debug" });
    try {
      await eventually("it reads its memory", () => /DEBUG .*\[MemoryManager\] 🟢 OK: \d+\.\d\d MB \/ 4000\.00 MB/u.test(server.log));
      assert.doesNotMatch(server.log, /WARN|ERROR/);
    } finally {
      await server.kill();
    }
  });
});

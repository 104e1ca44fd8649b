// What a connection weighs: resident memory of the server per connection, with permessage-deflate and without.
//
// Usage: node weight.mjs [--clients 5000] [--talkers 1000] [--rounds 3] [--runtime R] [--shards N]
//
// Every figure is of a fresh server, the variants in turn (A B A B …), and the median of the rounds is compared. First
// idle clients that are authenticated and say nothing more; then clients in calls, in pairs, each of which has sent and
// received a signal of 2 KB, compressed where that was negotiated; there also with context takeover. Accounts are made
// before the measurement begins. Needs about twice as many open files as clients, for client and server each.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { DEFLATE_OFFER, LeanSocket, callBetween, each, guests, quantile } from "./lean.mjs";
import { RUNTIME, SHARDS, Server, pause, run } from "./server.mjs";

const OPENED_AT_ONCE = 64;
const CLIENTS_PER_ADDRESS = 10_000;
const SETTLE_MS = 1_500;
const DIFFERENCE_GOAL_BYTES = 300;
const LIMIT_MS = 30 * 60_000;

const PLAIN = { name: "without deflate", offer: undefined, flags: {} };
const DEFLATE = { name: "deflate", offer: DEFLATE_OFFER, flags: {} };
const TAKEOVER = { name: "deflate with context takeover", offer: DEFLATE_OFFER, flags: { "deflate-context-takeover": "on" } };

/** A session description of 2 KB, as browsers write them; no two alike. */
function description(seed) {
  const lines = ["v=0", `o=- ${4_611_731_400_430_051_336n + BigInt(seed)} 2 IN IP4 127.0.0.1`, "s=-", "t=0 0", "a=group:BUNDLE 0 1"];
  for (let i = 0; lines.join("\r\n").length < 1_900; i++) {
    lines.push(`a=candidate:${(seed * 7_919 + i * 104_729) >>> 0} 1 udp ${2_122_260_223 - i} 192.168.${seed % 250}.${i} ${40_000 + ((seed + i * 37) % 20_000)} typ host generation 0`);
  }
  return lines.join("\r\n");
}

function residentBytes(server) {
  return Number(/^Rss:\s+(\d+) kB/m.exec(readFileSync(`/proc/${server.pid}/smaps_rollup`, "utf8"))[1]) * 1024;
}

/** Opens and binds so many connections. */
async function connected(server, people, options) {
  const sockets = new Array(people.length);
  await each(people, OPENED_AT_ONCE, async ({ token }, index) => {
    const from = `127.0.0.${2 + Math.floor(index / CLIENTS_PER_ADDRESS)}`;
    sockets[index] = await (await LeanSocket.open(server.port, { from, ...options })).bind(token);
  });
  return sockets;
}

/** Each pair calls, and each of the two sends the other 2 KB; gives how many of these came compressed. */
async function talk(sockets, people) {
  let compressed = 0;
  const pairs = Array.from({ length: sockets.length / 2 }, (_, i) => i * 2);
  await each(pairs, 12, async (at) => {
    const [caller, callee] = sockets.slice(at, at + 2);
    const roomId = await callBetween(caller, callee, people[at + 1].id, people[at + 1].token);
    for (const [name, key, from, to] of [["rtc:offer", "offer", caller, callee], ["rtc:answer", "answer", callee, caller]]) {
      const heard = to.nextEvent(name);
      const signal = { roomId, [key]: { type: key, sdp: description(at) } };
      if (from.deflates) from.emitCompressed(name, signal);
      else from.emit(name, signal);
      if ((await heard).compressed) compressed += 1;
    }
  });
  return compressed;
}

/** One fresh server: bytes per connection, and whether deflate was agreed on. */
async function weigh(variant, { dialect, count, talks, runtime, shards }) {
  const server = await Server.start({ runtime, shards, ...variant.flags });
  try {
    const people = await guests(server.url, count);
    await pause(SETTLE_MS);
    const before = residentBytes(server);
    const sockets = await connected(server, people, { dialect, offer: variant.offer });
    const compressed = talks ? await talk(sockets, people) : undefined;
    await pause(SETTLE_MS);
    const bytes = (residentBytes(server) - before) / count;
    const closed = sockets.filter(({ closed }) => closed);
    assert.deepEqual(closed.map(({ closed }) => closed), [], "connections were closed");
    const agreed = sockets.filter(({ deflates }) => deflates).length;
    const [{ extensions }] = sockets;
    sockets.forEach((socket) => socket.destroy());
    return { bytes, agreed, compressed, extensions };
  } finally {
    await server.stop();
  }
}

/** The variants in turn, so many rounds; gives the median of each, or undefined where the server declined. */
async function compare(title, variants, options) {
  const weights = variants.map(() => []);
  let extensions;
  for (let round = 0; round < options.rounds; round++) {
    for (const [index, variant] of variants.entries()) {
      const measured = await weigh(variant, options);
      if (variant.offer !== undefined) {
        if (measured.agreed === 0) {
          console.log(`weight: ${title}: the server declines permessage-deflate, so there is nothing to compare`);
          return undefined;
        }
        assert.equal(measured.agreed, options.count, "deflate was agreed on with all or with none");
        extensions = measured.extensions;
      }
      if (options.talks) assert.equal(measured.compressed, variant.offer ? options.count : 0, `${variant.name}: messages that came compressed`);
      weights[index].push(measured.bytes);
    }
  }
  const medians = weights.map((list) => quantile(list));
  variants.forEach(({ name, offer }, index) => {
    const all = weights[index].map((bytes) => bytes.toFixed(0)).join(", ");
    const extra = index === 0 ? "" : `, ${(medians[index] - medians[0]).toFixed(0)} more than ${variants[0].name}`;
    const terms = offer && index === variants.length - 1 ? ` (${extensions})` : "";
    console.log(`weight: ${title}, ${name}: ${medians[index].toFixed(0)} bytes per connection${extra} (rounds: ${all})${terms}`);
  });
  return medians;
}

async function main(options) {
  const watchdog = setTimeout(() => {
    console.error(`weight: not finished in ${LIMIT_MS} ms`);
    process.exit(1);
  }, LIMIT_MS);
  console.log(`weight: ${options.runtime}, ${options.shards} shards`);
  const differences = [];
  for (const dialect of ["/ws", "socket.io"]) {
    const medians = await compare(`${options.clients} idle on ${dialect}`, [PLAIN, DEFLATE], { ...options, dialect, count: options.clients });
    if (medians) differences.push(medians[1] - medians[0]);
  }
  const talks = { ...options, dialect: "/ws", count: options.talkers, talks: true };
  await compare(`${options.talkers} in calls, 2 KB sent and received`, [PLAIN, DEFLATE], talks);
  const shown = await hasFlag("deflate-context-takeover");
  if (shown) await compare(`${options.talkers} in calls, 2 KB sent and received`, [PLAIN, TAKEOVER], talks);
  clearTimeout(watchdog);
  if (differences.length === 0) process.exit(1);
  const most = Math.max(...differences);
  console.log(`weight: deflate costs an idle connection at most ${most.toFixed(0)} bytes (goal: under ${DIFFERENCE_GOAL_BYTES})`);
}

async function hasFlag(name) {
  return (await run(["--help"])).stdout.includes(`--${name} `);
}

function parseArguments(words) {
  const options = { clients: 5000, talkers: 1000, rounds: 3, runtime: RUNTIME, shards: SHARDS };
  for (let i = 0; i < words.length; i += 2) {
    const name = words[i].slice(2);
    assert.ok(name in options && words[i + 1] !== undefined, `usage: node weight.mjs [--${Object.keys(options).join(" N] [--")} N]`);
    options[name] = typeof options[name] === "number" ? Number(words[i + 1]) : words[i + 1];
  }
  assert.equal(options.talkers % 2, 0, "--talkers is even");
  return options;
}

await main(parseArguments(process.argv.slice(2)));

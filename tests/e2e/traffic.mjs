// What goes over the wire: duet's own largest answers and commonest events, and a queue of ten full profiles, 36 KB.
//
// Usage: node traffic.mjs [--runtime R] [--shards N]
//
// Bytes are counted on bare sockets: of HTTP the whole response, head included, of WebSocket the whole frame. duet's own
// queue has no biographies, so the 36 KB document travels as the opaque payload of an `rtc:offer`; no route of HTTP
// carries it, so there the figures are of Node's zlib at the same levels, and say so. Everything is deterministic but
// for ids and clocks. Exits 1 if anything arrives changed or over its goal.

import assert from "node:assert/strict";
import net from "node:net";
import zlib from "node:zlib";
import { enterRoom, hangUp, joinQueue, lasting, ring } from "./cast.mjs";
import { Client } from "./client.mjs";
import { DEFLATE_OFFER, LeanSocket, callBetween, guests } from "./lean.mjs";
import { RUNTIME, SHARDS, Server, run } from "./server.mjs";

const DOCUMENT_GOAL_BYTES = 6 * 1024;
/** What the event around the document may add, and the frame around that. */
const ENVELOPE_BYTES = 160;
/** The goal is asked of the first; the others show what it depends on. */
const DOCUMENTS = {
  "biographies of stock phrases": { prose: false, scattered: false },
  "biographies of prose": { prose: true, scattered: false },
  "biographies of prose and no two timestamps alike": { prose: true, scattered: true },
};
const PRESENCE_GOAL_BYTES = 850;
const CHAT_LINES = 60;
const CODINGS = ["identity", "gzip", "deflate", "br"];
const DECODE = { identity: (bytes) => bytes, gzip: zlib.gunzipSync, deflate: zlib.inflateSync, br: zlib.brotliDecompressSync };
const LEVEL = 6;
const NAMES = ["Amélie Laurent", "Bogdan Ionescu", "Chiara Rossi", "Dmitri Volkov", "Esther Cohen", "Farid Haddad", "Greta Lindqvist", "Hiroshi Tanaka", "Inês Carvalho", "Jonas Becker"];

const say = (text) => console.log(`traffic: ${text}`);

// ---------------------------------------------------------------------------------------------------------------
// The document
// ---------------------------------------------------------------------------------------------------------------

/** Chance that is the same every time. */
class Dice {
  constructor(seed) {
    this.state = seed >>> 0;
  }

  below(n) {
    // mulberry32
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let t = this.state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) % n;
  }

  /** A sentence of words in the proportions of prose. */
  sentence() {
    const words = Array.from({ length: 6 + this.below(12) }, () => WORDS[Math.floor(WORDS.length ** (this.below(1_000_000) / 1_000_000)) - 1]);
    return `${words[0][0].toUpperCase()}${words.join(" ").slice(1)}${this.pick([".", ".", ".", "!", "?"])}`;
  }

  pick(list) {
    return list[this.below(list.length)];
  }

  hex(digits) {
    return Array.from({ length: digits }, () => this.below(16).toString(16)).join("");
  }

  uuid() {
    return `${this.hex(8)}-${this.hex(4)}-4${this.hex(3)}-a${this.hex(3)}-${this.hex(12)}`;
  }
}

/** Common words first: they are drawn as often as they are common, so the text deflates about as well as prose does. */
const WORDS = (
  "the and to a of i in is you that it for my with on but have not be we at was this they so me all from when your as or just like about out what if will can up more who do time there know get one people would them her his him how some after home our into only then because work love music over where back good day think new always go year see life friend made make two really want been has very never first little long way things own down also come old again night same food city around most street right small still between great world find through talk live read kitchen too weekend try book years house walk coffee cook even family well dog summer play show language best game tell mountain learn while travel another left watch sea film laugh listen garden water morning before dance number winter might piano winter bread far train run both hear hand rain bike swim photograph guitar quiet often " +
  "curious climbing museum patient neighbour terrible accordion honest letters sailing evening theatre beginner curry astronomy village chess forest stubborn bakery festival midnight balcony engineer nurse teacher pottery sunrise mushrooms island spicy vinyl marathon crossword puzzle lighthouse tandem grandmother karaoke harbour sourdough"
).split(" ");
const PHRASES = [
  (a, b) => `These days I am mostly into ${a} and a little ${b}.`,
  (a, b) => `I could talk about ${a} for hours, but I would rather hear about you.`,
  (a, b) => `On weekends you will find me somewhere between ${a} and ${b}.`,
  (a) => `Looking for somebody who laughs easily and does not mind ${a}.`,
  (a, b) => `My friends say I am patient until somebody mentions ${b}.`,
  (a, b) => `Teach me a word in your language and I will teach you about ${b}.`,
  (a) => `I work with numbers all day, so ${a} keeps me sane.`,
  (a, b) => `Once I travelled across three countries for ${b}.`,
];
const PLATFORMS = { instagram: "www.instagram.com", twitter: "twitter.com", tiktok: "www.tiktok.com/@", snapchat: "www.snapchat.com/add", linkedin: "www.linkedin.com/in", facebook: "www.facebook.com", youtube: "www.youtube.com/c", spotify: "open.spotify.com/user", github: "github.com", discord: "discord.com/users" };
const DAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

/**
 * Ten full profiles, about 36 KB of JSON: biographies of some 500 characters, ten socials each, timestamps.
 *
 * How far that shrinks is up to what people write. `prose`: the biographies are unlike each other, else of stock phrases.
 * `scattered`: each social was added at a time of its own, else several when a form was saved.
 */
function profiles({ prose, scattered }) {
  const dice = new Dice(20_260_101);
  const time = () => 1_767_000_000_000 + dice.below(2_000_000_000);
  const iso = () => new Date(time()).toISOString();
  const users = NAMES.map((name, index) => {
    const handle = `${name.normalize("NFD").replace(/[^A-Za-z]+/g, ".").toLowerCase()}${dice.below(100)}`;
    const bio = [];
    while (bio.join(" ").length < 450) bio.push(prose ? dice.sentence() : dice.pick(PHRASES)(dice.pick(WORDS), dice.pick(WORDS)));
    const saves = [iso(), iso()];
    const socials = Object.entries(PLATFORMS).map(([platform, host]) => ({
      platform, handle, url: `https://${host}/${handle}`, visibility: dice.pick(["after_call", "after_call", "everyone"]), addedAt: scattered ? iso() : dice.pick(saves),
    }));
    const availability = DAYS.map((day) => ({ day, from: `${17 + dice.below(3)}:00`, until: `${21 + dice.below(3)}:30` }));
    const createdAt = time();
    return {
      userId: dice.uuid(), name, gender: index % 2 ? "male" : "female", age: 21 + dice.below(30),
      selfieUrl: `https://media.example.org/selfies/${dice.hex(16)}.jpg`, videoUrl: `https://media.example.org/intros/${dice.hex(16)}.mp4`,
      bio: bio.join(" "), interests: Array.from({ length: 3 }, () => dice.pick(WORDS)), languages: ["en", dice.pick(["de", "fr", "it", "es", "pt"])],
      socials, availability,
      metrics: { callsStarted: dice.below(200), callsCompleted: dice.below(150), timerTotalSeconds: dice.below(90_000), averageSeconds: dice.below(600), rating: dice.below(50) / 10 },
      createdAt, createdAtIso: new Date(createdAt).toISOString(), updatedAt: time(), lastSeenAt: time(), queueJoinedAt: time(),
      lastCalls: Array.from({ length: 3 }, () => ({ startedAt: time(), startedAtIso: iso(), durationSeconds: dice.below(1_800), outcome: dice.pick(["completed", "completed", "declined", "missed"]), rated: dice.below(2) === 0 })),
      hasCooldown: false, cooldownExpiry: null, wasIntroducedToMe: false, introducedBy: null, online: true, available: true,
    };
  });
  return { users, totalAvailable: users.length, generatedAt: iso() };
}

// ---------------------------------------------------------------------------------------------------------------
// HTTP
// ---------------------------------------------------------------------------------------------------------------

/** One response on a connection of its own: all its bytes, and its body decoded. */
function fetchRaw(port, path, { token, accept }) {
  return new Promise((resolve, reject) => {
    const socket = net.connect(port, "127.0.0.1");
    const chunks = [];
    socket.on("data", (data) => chunks.push(data));
    socket.on("error", reject);
    socket.on("end", () => {
      const bytes = Buffer.concat(chunks);
      const end = bytes.indexOf("\r\n\r\n") + 4;
      const head = bytes.subarray(0, end).toString("latin1");
      const coding = /^content-encoding:\s*(\S+)/im.exec(head)?.[1] ?? "identity";
      assert.match(head, /^HTTP\/1.1 200 /);
      resolve({ wire: bytes.length, body: bytes.length - end, coding, text: DECODE[coding](bytes.subarray(end)).toString("utf8") });
    });
    socket.write(`GET ${path} HTTP/1.1\r\nHost: duet\r\nAuthorization: Bearer ${token}\r\nAccept-Encoding: ${accept}\r\nConnection: close\r\n\r\n`);
  });
}

async function httpBytes(server, path, token, what) {
  const figures = [];
  let plain;
  for (const accept of CODINGS) {
    const answer = await fetchRaw(server.port, path, { token, accept });
    plain ??= answer.text;
    assert.equal(answer.text, plain, `${path} as ${accept}`);
    const coded = answer.coding === accept ? "" : ", not compressed";
    figures.push(`${accept} ${answer.wire} (body ${answer.body}${coded})`);
  }
  say(`HTTP, ${what}: ${figures.join("; ")}`);
  return plain;
}

// ---------------------------------------------------------------------------------------------------------------
// WebSocket
// ---------------------------------------------------------------------------------------------------------------

const shown = ({ wire, plain, compressed }) => `${wire} bytes (${compressed ? `${plain} compressed` : "not compressed"})`;

/** A viewer's frames when somebody comes online, joins and leaves the queue. */
async function presenceBytes(server, dialect, offer) {
  const [viewer, other] = await guests(server.url, 2);
  const watching = await (await LeanSocket.open(server.port, { dialect, offer })).bind(viewer.token);
  watching.emit("queue:join");
  await watching.next("queue:update", ({ userId }) => userId === viewer.id);
  const isOther = ({ userId }) => userId === other.id;
  const [online, queued] = [watching.nextEvent("presence:update", isOther), watching.nextEvent("queue:update", isOther)];
  const coming = await (await LeanSocket.open(server.port)).bind(other.token);
  coming.emit("queue:join");
  const frames = { "presence:update": await online, "queue:update": await queued };
  const { deflates } = watching;
  watching.destroy();
  coming.destroy();
  for (const [name, frame] of Object.entries(frames)) assert.ok(frame.wire <= PRESENCE_GOAL_BYTES, `${name}: ${frame.wire} bytes`);
  return { frames, deflates };
}

/** The frames in which the callee gets the document, sent so many times. */
async function documentBytes(server, dialect, { offer, times = 1, compresses = false, inflates = true }, document) {
  const [caller, callee] = await guests(server.url, 2);
  const sockets = [];
  for (const { token } of [caller, callee]) sockets.push(await (await LeanSocket.open(server.port, { dialect, offer })).bind(token));
  const [from, to] = sockets;
  const room = await callBetween(from, to, callee.id, callee.token);
  to.inflates = inflates;
  const frames = [];
  for (let i = 0; i < times; i++) {
    const heard = inflates ? to.nextEvent("rtc:offer") : new Promise((resolve) => (to.hear = (_, __, meta) => resolve(meta)));
    if (compresses && from.deflates && i === 0) from.emitCompressed("rtc:offer", { roomId: room, offer: document });
    else from.emit("rtc:offer", { roomId: room, offer: document });
    const frame = await heard;
    if (inflates) assert.deepEqual(frame.payload.offer, document, "the document has arrived as it was");
    frames.push(frame);
  }
  const { deflates } = to;
  sockets.forEach((socket) => socket.destroy());
  return { frames, deflates };
}

// ---------------------------------------------------------------------------------------------------------------

async function main(options) {
  const { runtime, shards } = options;
  const server = await Server.start({ runtime, shards });
  const takeover = (await hasTakeover()) && (await Server.start({ runtime, shards, "deflate-context-takeover": "on" }));

  // duet's own answers.
  const people = [];
  for (const name of NAMES) people.push(await (await Client.signUp(server, "/ws", { name, gender: "female" })).connect());
  await joinQueue(...people);
  const visitor = await Client.signUp(server, "/ws", { name: "Visitor" });
  const queue = JSON.parse(await httpBytes(server, "/room/queue", visitor.token, "the queue with 10 users"));
  assert.equal(queue.users.length, NAMES.length);
  const [caller, callee] = people;
  callee.emit("call:accept", { inviteId: await ring(caller, callee), requestedSeconds: 300 });
  const { room, startedAt } = await enterRoom(caller, callee);
  const dice = new Dice(7);
  for (let i = 0; i < CHAT_LINES; i++) {
    const text = Array.from({ length: 5 }, () => dice.sentence()).join(" ");
    const from = i % 2 ? callee : caller;
    from.emit("room:chat", { roomId: room, text });
    await Promise.all([caller, callee].map((person) => person.next("room:chat")));
  }
  await lasting(startedAt);
  await hangUp(caller, callee, room);
  await httpBytes(server, "/room/history", caller.token, `the history of one call with ${CHAT_LINES} long lines of chat`);
  people.forEach((person) => person.dispose());

  // duet's own events.
  const declined = [];
  for (const dialect of ["/ws", "socket.io"]) {
    const plain = await presenceBytes(server, dialect, undefined);
    const { frames, deflates } = await presenceBytes(server, dialect, DEFLATE_OFFER);
    if (!deflates) declined.push(dialect);
    for (const name of Object.keys(frames)) {
      const second = deflates ? `with deflate ${shown(frames[name])}` : "deflate is declined by this server";
      say(`WebSocket, ${dialect}, ${name}: without deflate ${shown(plain.frames[name])}, ${second}`);
    }
  }
  say(`WebSocket, presence update: at most ${PRESENCE_GOAL_BYTES} bytes is the goal: kept`);

  // Ten full profiles.
  let goal = 0;
  for (const [name, kind] of Object.entries(DOCUMENTS)) {
    const document = profiles(kind);
    const json = Buffer.from(JSON.stringify(document));
    assert.ok(json.length > 35_000 && json.length < 37_500, `${json.length} bytes are not 36 KB`);
    const { BROTLI_PARAM_QUALITY, BROTLI_PARAM_SIZE_HINT } = zlib.constants;
    const bodies = {
      gzip: zlib.gzipSync(json, { level: LEVEL }).length,
      deflate: zlib.deflateSync(json, { level: LEVEL }).length,
      br: zlib.brotliCompressSync(json, { params: { [BROTLI_PARAM_QUALITY]: LEVEL, [BROTLI_PARAM_SIZE_HINT]: json.length } }).length,
    };
    let most = Math.max(...Object.values(bodies));
    const frames = [];
    for (const dialect of ["/ws", "socket.io"]) {
      const plain = await documentBytes(server, dialect, {}, document);
      const { frames: [frame], deflates } = await documentBytes(server, dialect, { offer: DEFLATE_OFFER, compresses: true }, document);
      frames.push(`${dialect} ${plain.frames[0].wire}, ${deflates ? `with deflate ${frame.wire}` : "deflate is declined by this server"}`);
      most = Math.max(most, deflates ? frame.wire : 0);
      if (deflates) assert.ok(frame.wire <= bodies.deflate * 1.03 + ENVELOPE_BYTES, `zlib makes ${bodies.deflate} bytes of it, the server ${frame.wire}`);
    }
    const bios = document.users.reduce((sum, { bio }) => sum + Buffer.byteLength(bio), 0);
    const verdict = most <= DOCUMENT_GOAL_BYTES ? "kept" : "missed";
    say(`10 profiles, ${name}: ${json.length} bytes of JSON, ${bios} of them biographies; the frame of rtc:offer that carries it: ${frames.join("; ")}`);
    say(`10 profiles, ${name}, by Node's zlib at level ${LEVEL} (no route of HTTP carries it), body alone: ${Object.entries(bodies).map(([coding, length]) => `${coding} ${length}`).join("; ")}; goal ${DOCUMENT_GOAL_BYTES}: ${verdict}`);
    goal ||= most;
  }
  if (takeover) {
    const { frames, deflates } = await documentBytes(takeover, "/ws", { offer: DEFLATE_OFFER, times: 2, inflates: false }, profiles(Object.values(DOCUMENTS)[0]));
    if (deflates) say(`WebSocket, /ws, the document, context takeover on: first ${frames[0].wire} bytes, the same once more ${frames[1].wire} bytes`);
    await takeover.stop();
  }
  const end = await server.stop();
  assert.equal(end.code, 0, "the server ends in order");
  assert.deepEqual(declined, [], "deflate is declined");
  assert.ok(goal <= DOCUMENT_GOAL_BYTES, `the document: ${goal} bytes are over the goal`);
  console.log("e2e: 1 passed, 0 failed");
}

async function hasTakeover() {
  return (await run(["--help"])).stdout.includes("--deflate-context-takeover ");
}

function parseArguments(words) {
  const options = { runtime: RUNTIME, shards: SHARDS };
  for (let i = 0; i < words.length; i += 2) {
    const name = words[i].slice(2);
    assert.ok(name in options && words[i + 1] !== undefined, "usage: node traffic.mjs [--runtime R] [--shards N]");
    options[name] = words[i + 1];
  }
  return options;
}

await main(parseArguments(process.argv.slice(2)));

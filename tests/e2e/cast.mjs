// The people of one test and the scenes they can be put into, plus the frame that every suite shares.

import assert from "node:assert/strict";
import { after, describe, it } from "node:test";
import { Client, TRANSPORTS } from "./client.mjs";
import { eventually, explaining, pause } from "./server.mjs";

const NAMES = ["Ada", "Bo", "Cy", "Dee", "Eve", "Fay", "Gus", "Hal"];
const TEST_MS = 120_000;
const AT_ONCE = 24;

/**
 * One suite against one server: `fact(name, body)` is a test, `facts(name, body)` the same once per transport.
 * Tests run side by side and make their own people; `body` gets a `Cast`.
 */
export function suite(title, server, define, { atOnce = AT_ONCE } = {}) {
  describe(title, { concurrency: atOnce }, () => {
    after(() => server.stop());
    const fact = (name, body, transport = "socket.io") =>
      it(name, { timeout: TEST_MS }, () => Cast.play(server, transport, body));
    const facts = (name, body, transports = TRANSPORTS) =>
      transports.forEach((transport) => fact(`${name} (${transport})`, body, transport));
    define({ fact, facts });
  });
}

export class Cast {
  /** Runs `body` with a fresh cast, sends everybody home, and adds the server's log to a failure. */
  static async play(server, transport, body) {
    const cast = new Cast(server, transport);
    try {
      await explaining(server, async () => {
        await body(cast);
        assert.ok(server.alive || server.mayEnd, "the server has ended");
      });
    } finally {
      cast.people.forEach((person) => person.dispose());
    }
  }

  /** `transport`: one of the client's, or `mixed`, or some joined by ` & `: people take turns. */
  constructor(server, transport) {
    this.server = server;
    this.transport = transport;
    this.turns = transport === "mixed" ? TRANSPORTS : transport.split(" & ");
    this.people = [];
  }

  /** The transport of who comes next. */
  get turn() {
    return this.turns[this.people.length % this.turns.length];
  }

  /** Somebody who signed up and is not connected. */
  async guest(options = {}) {
    const number = this.people.length;
    const person = await Client.signUp(this.server, this.turn, { name: NAMES[number % NAMES.length], ...options });
    this.people.push(person);
    return person;
  }

  /** A connection of a person made elsewhere, or of nobody (`{}`). */
  connection(account, transport = this.turn) {
    const person = new Client(this.server, transport, { name: "Nobody", ...account });
    this.people.push(person);
    return person;
  }

  /** Somebody connected and bound. */
  async online(options) {
    return (await this.guest(options)).connect();
  }

  /** `count` people in the queue who all see each other. */
  async queued(count = 2) {
    const people = [];
    for (let i = 0; i < count; i++) people.push(await this.online());
    await joinQueue(...people);
    return people;
  }

  /** A caller whose invite rings at the callee: `{caller, callee, invite}`. */
  async ringing(seconds = 300) {
    const [caller, callee] = await this.queued();
    return { caller, callee, invite: await ring(caller, callee, seconds) };
  }

  /** Two people in a call, both in the room: `{caller, callee, room, startedAt}`. */
  async call() {
    const { caller, callee, invite } = await this.ringing();
    callee.emit("call:accept", { inviteId: invite, requestedSeconds: 300 });
    return { caller, callee, ...(await enterRoom(caller, callee)) };
  }
}

/** Puts people into the queue and waits until each sees the others there. */
export async function joinQueue(...people) {
  for (const person of people) {
    person.emit("presence:join");
    person.emit("queue:join");
  }
  for (const person of people) {
    for (const other of people.filter((other) => other !== person)) {
      await eventually(`${person.name} sees ${other.name} in the queue`, () => card(person, other));
    }
  }
}

/** What the queue shows `viewer` of `other`; undefined if nothing. */
export async function card(viewer, other) {
  const { users } = await viewer.get("/room/queue");
  return users.find((user) => user.userId === other.id);
}

/** Invites and waits until it rings; gives the invite's id. */
export async function ring(caller, callee, seconds = 300) {
  caller.emit("call:invite", { toUserId: callee.id, requestedSeconds: seconds });
  return (await callee.next("call:notify", ({ fromUser }) => fromUser.userId === caller.id)).inviteId;
}

/** After an accept: both hear the start and join the room. */
export async function enterRoom(caller, callee) {
  const [start, other] = await Promise.all([caller.next("call:start"), callee.next("call:start")]);
  assert.equal(start.roomId, other.roomId, "both are in the same room");
  const startedAt = Date.now();
  for (const person of [caller, callee]) {
    person.emit("room:join", { roomId: start.roomId });
    await person.settle();
  }
  return { room: start.roomId, startedAt };
}

/** `from` says something that `to` hears next; proves that the call lives and that nothing else came before. */
export async function say(from, to, room, text) {
  from.emit("room:chat", { roomId: room, text });
  await Promise.all([from, to].map((person) => person.next("room:chat", (line) => line.text === text && line.from === from.id)));
}

/** Waits until a call that began at `startedAt` has lasted so long; history begins at 5 s. */
export async function lasting(startedAt, ms = 5_300) {
  await pause(Math.max(0, startedAt + ms - Date.now()));
}

/** Ends a call and waits until both hear so; gives the session id. */
export async function hangUp(by, other, room) {
  by.emit("call:end", { roomId: room });
  const [one, two] = await Promise.all([by, other].map((person) => person.next("session:finalized")));
  assert.equal(one.sessionId, two.sessionId, "one session id for both");
  return one.sessionId;
}

export function within(value, low, high, what) {
  assert.ok(typeof value === "number" && value >= low && value <= high, `${what}: ${value} is not within ${low}..${high}`);
}

export const HOUR_MS = 3_600_000;

/** Whether a cooldown that was just set ends in about `hours`. */
export function cooldownOf(card, hours) {
  assert.equal(card.hasCooldown, true, "the card shows a cooldown");
  within(card.cooldownExpiry - Date.now(), (hours - 0.1) * HOUR_MS, hours * HOUR_MS + 60_000, "cooldown left, ms");
}

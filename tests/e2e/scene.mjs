// A set scene for tests that take the store away: a call under way, an invite ringing, sessions in cache; what goes on in
// memory, what needs the store, and how it was answered.

import assert from "node:assert/strict";
import { Cast, enterRoom, joinQueue, lasting, ring, say } from "./cast.mjs";
import { Client, freshAddress, request } from "./client.mjs";
import { Ledger, Refused } from "./ledger.mjs";
import { Proxy } from "./proxy.mjs";
import { freshDatabase } from "./server.mjs";

const TRIES = 10;
const ROUNDS = 3;

/** The store as `/health` shows it. */
export const storeOf = async (server) => (await request(server.url, "GET", "/health")).body.store;

/** Has `body` play a scene that is set, its call long enough to be recorded, on the server that `start` gives for the URL
 * of a fresh database behind a proxy. */
export async function behindProxy(postgres, start, body) {
  const database = freshDatabase(postgres.url);
  const proxy = await Proxy.start(database);
  const server = await start(proxy.through(database));
  const ledger = new Ledger();
  try {
    await Cast.play(server, "mixed", async (cast) => {
      const scene = new Scene(cast, server, ledger);
      await scene.set();
      await scene.callCanBeRecorded();
      await body({ database, proxy, server, ledger, scene });
    });
  } finally {
    await server.kill();
    await proxy.close();
  }
}

/** How requests of each kind were answered, and how long the slowest took. */
export class Tally {
  constructor() {
    this.kinds = new Map();
  }

  /** Runs a request that succeeds or is refused; anything else fails the test. */
  async one(kind, act) {
    const line = this.kinds.get(kind) ?? this.kinds.set(kind, { 200: 0, 503: 0, slowest: 0 }).get(kind);
    const from = performance.now();
    let status = 200;
    try {
      await act();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      status = 503;
    }
    line[status] += 1;
    line.slowest = Math.max(line.slowest, performance.now() - from);
    return status;
  }

  of(kind) {
    return this.kinds.get(kind);
  }

  words() {
    return [...this.kinds].map(([kind, line]) => {
      const counts = [200, 503].filter((status) => line[status] > 0).map((status) => `${line[status]} x ${status}`);
      return `${kind} ${counts.join(", ")} (slowest ${Math.round(line.slowest)} ms)`;
    });
  }
}

/** The people of one fault, in place before it begins. */
export class Scene {
  constructor(cast, server, ledger) {
    Object.assign(this, { cast, server, ledger });
  }

  async connected(name) {
    const { id, token } = await this.ledger.signUp(this.server, name);
    return this.cast.connection({ id, token, name, address: freshAddress() }).connect();
  }

  async pair() {
    const pair = [await this.connected("Cy"), await this.connected("Dee")];
    await joinQueue(...pair);
    return pair;
  }

  async set() {
    [this.caller, this.callee] = await this.pair();
    const inviteId = await ring(this.caller, this.callee);
    this.callee.emit("call:accept", { inviteId, requestedSeconds: 300 });
    const { room, startedAt } = await enterRoom(this.caller, this.callee);
    this.call = this.ledger.callBegan(this.caller, this.callee, room, startedAt);
    await this.chat("before");
    [this.suitor, this.target] = await this.pair();
    this.ringing = await ring(this.suitor, this.target);
    [this.watcher, this.watched] = await this.pair();
    this.known = await this.ledger.signUp(this.server, "Eve");
    await this.ledger.link(this.server, this.known);
    [this.editor, this.cached] = [await this.ledger.signUp(this.server, "Fay"), await this.ledger.signUp(this.server, "Gus")];
    for (const { token } of [this.editor, this.cached]) await this.ledger.ask(this.server, "GET", "/user/me", { token });
  }

  /** Waits until the end of the call will leave a history. */
  callCanBeRecorded() {
    return lasting(this.call.startedAt);
  }

  async chat(text) {
    await say(this.caller, this.callee, this.call.room, text);
    this.call.lines.push([this.caller.id, text]);
  }

  /** Everything that lives in memory is as ever. */
  async goesOn(text) {
    const { caller, callee, call, watcher, watched } = this;
    await this.chat(text);
    for (const [from, to] of [[caller, callee], [callee, caller]]) {
      from.emit("rtc:ice", { roomId: call.room, candidate: { candidate: `${text} of ${from.id}` } });
      await to.next("rtc:ice", ({ candidate }) => candidate.candidate === `${text} of ${from.id}`);
    }
    for (const available of [false, true]) {
      watched.emit(available ? "queue:join" : "queue:leave");
      await watcher.next("queue:update", (update) => update.userId === watched.id && update.available === available);
    }
  }

  /** A session in cache answers and binds a new connection. */
  async cachedSession() {
    const { id, token, name } = this.cached;
    assert.equal((await this.ledger.ask(this.server, "GET", "/user/me", { token })).userId, id);
    const tab = new Client(this.server, "/ws", { id, token, name, address: freshAddress() });
    this.cast.people.push(tab);
    await tab.connect();
    tab.leave();
  }

  async requests(tally) {
    const { server, ledger } = this;
    const many = (kind, act) => Promise.all(Array.from({ length: TRIES }, (_, index) => tally.one(kind, () => act(index))));
    await many("sign-up", () => ledger.signUp(server, "Gus"));
    await many("queue", () => ledger.ask(server, "GET", "/room/queue", { token: this.watcher.token }));
    for (let i = 0; i < ROUNDS; i++) {
      await tally.one("log-in", () => ledger.logIn(server, this.known));
      await tally.one("profile", () => ledger.setSocials(server, this.editor, { discord: `d${i}` }));
    }
  }

  /** Ends the call and declines the invite; both are told when that is stored. */
  end() {
    const { caller, callee, call, suitor, target } = this;
    call.hungUpAt = Date.now();
    caller.emit("call:end", { roomId: call.room });
    target.emit("call:decline", { inviteId: this.ringing });
    this.finalized = Promise.all([caller, callee].map(async (person) => {
      this.ledger.callFinalized(call, (await person.next("session:finalized", undefined, 60_000)).sessionId);
    }));
    this.declined = suitor.next("call:declined", undefined, 60_000).then(() => this.ledger.declined(suitor, target));
    for (const [name, told] of [["finalized", this.finalized], ["declined", this.declined]]) told.then(() => (this[`${name}At`] = Date.now()));
  }
}

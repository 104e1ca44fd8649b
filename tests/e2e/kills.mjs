// kill -9 at random moments under load, round after round on the same data: what was acknowledged is there, once, whole.
//
// Usage: node kills.mjs [--store sqlite|postgres] [--victim duet|postgres] [--rounds N] [--seed N] [--long-every 10]
//        [--runtime R] [--shards N]
//
// People sign up, link, log in, change their profiles, call each other (for ms, for 5 s, in each tenth round for 30 s),
// chat and decline. Then the victim is killed: at a moment drawn at random, or within the tick in which a client hears
// an acknowledgement of a kind drawn at random. A killed duet is started again; a killed Postgres too, while duet lives
// on and must recover by itself. Then the tables are read past the server and compared with all that was ever
// acknowledged (`ledger.mjs`), and the server is asked about everybody who acted in this round; after the last round,
// about everybody. Exits 1 at the first round in which something is wrong.

import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { join } from "node:path";
import { enterRoom, joinQueue, lasting, ring, say } from "./cast.mjs";
import { Client, TRANSPORTS, freshAddress } from "./client.mjs";
import { Ledger, Refused } from "./ledger.mjs";
import { Postgres } from "./postgres.mjs";
import { rowsOfFile, rowsOfPostgres } from "./rows.mjs";
import { RUNTIME, SHARDS, Server, eventually, freshDatabase, pause, sql } from "./server.mjs";

const LIVES = 8;
const LONG_CALLS = 10;
const LONG_CALLS_BEGIN_MS = 2_500;
const COMPLETED_MS = 30_300;
/** The kill comes this long after calls that began at once could have ended, at random. */
const KILL_MS = [5_500, 8_500];
const KILL_AT_ACKNOWLEDGEMENT = 0.5;
const ACKNOWLEDGEMENT_MS = 2_000;
const OUTAGE_MS_MAX = 1_500;
const RECOVERY_MS = 20_000;
const COOLDOWNS_SEEN = 16;
const LIMIT_MS = 60 * 60_000;

/** A small generator, so that a seed draws the same moments again (mulberry32). */
function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The load of one round. What fails once the victim is killed was in flight; anything else that fails is wrong. */
class Round {
  constructor(server, ledger, chance, { outlives, isLong }) {
    Object.assign(this, { server, ledger, chance, outlives, callMs: isLong ? COMPLETED_MS : undefined });
    this.connected = [];
    this.wrong = [];
    this.isOver = false;
    this.wasKilled = false;
    this.died = new Promise((_, reject) => (this.die = () => reject(new Error("the server was killed"))));
    this.died.catch(() => {});
  }

  begin() {
    const repeated = (act, restMs) => async () => {
      while (!this.isOver) {
        await this.attempt(act);
        await pause(restMs);
      }
    };
    const long = async () => {
      await pause(this.chance() * LONG_CALLS_BEGIN_MS);
      await this.attempt(() => this.call(this.callMs ?? 5_300));
      if (this.outlives) await repeated(() => this.call(5_300), 50)();
    };
    this.work = Promise.all([
      ...Array.from({ length: LIVES }, repeated(() => this.live(), 5)),
      ...Array.from({ length: LONG_CALLS }, long),
      repeated(() => this.call(0), 150)(),
      repeated(() => this.decline(), 150)(),
    ]);
  }

  /** One act to its end, unless the server dies. */
  async attempt(act) {
    try {
      await Promise.race([act(), this.died]);
    } catch (error) {
      const excused = this.outlives ? error instanceof Abandoned || (error instanceof Refused && this.wasKilled) : this.wasKilled;
      if (!excused) this.wrong.push(error.stack);
    }
  }

  /** The part of an act that an outage may spoil. */
  async prelude(part) {
    try {
      return await part();
    } catch (error) {
      throw this.outlives && this.wasKilled ? new Abandoned() : error;
    }
  }

  /** A new person, or one of before, does what one does with an account. */
  async live() {
    const { ledger, server, chance } = this;
    const known = [...ledger.people.values()];
    const old = known[Math.floor(chance() * known.length)];
    const person = old && chance() < 0.3 && !old.isOpen && !old.isBusy ? old : await ledger.signUp(server);
    person.isBusy = true;
    try {
      if (!person.email && chance() < 0.5) await ledger.link(server, person);
      for (let times = Math.floor(chance() * 3); times > 0; times--) {
        await ledger.setSocials(server, person, { discord: `d${Math.floor(chance() * 1e9)}` });
      }
      if (person.email && chance() < 0.7) {
        await ledger.logIn(server, person);
        await ledger.setSocials(server, person, { tiktok: `t${Math.floor(chance() * 1e9)}` });
      }
    } finally {
      person.isBusy = false;
    }
  }

  /** Two new people who see each other in the queue, and whose invite rings. */
  async ringing() {
    const both = [];
    for (const name of ["Cy", "Dee"]) {
      const { id, token } = await this.ledger.signUp(this.server, name);
      this.ledger.people.get(id.replaceAll("-", "")).isBusy = true;
      const transport = TRANSPORTS[this.connected.length % TRANSPORTS.length];
      const person = new Client(this.server, transport, { id, token, name, address: freshAddress() });
      this.connected.push(person);
      both.push(await person.connect());
    }
    await joinQueue(...both);
    return [...both, await ring(...both)];
  }

  async call(ms) {
    const { ledger } = this;
    const [caller, callee, inviteId] = await this.prelude(() => this.ringing());
    callee.emit("call:accept", { inviteId, requestedSeconds: 300 });
    const { room, startedAt } = await enterRoom(caller, callee);
    const call = ledger.callBegan(caller, callee, room, startedAt);
    const pair = [caller, callee];
    for (let count = Math.floor(this.chance() * 4); count > 0; count--) {
      const text = `line ${count} of ${room}`;
      await say(pair[count % 2], pair[1 - (count % 2)], room, text);
      call.lines.push([pair[count % 2].id, text]);
    }
    if (ms > 0) await lasting(startedAt, ms);
    call.hungUpAt = Date.now();
    pair[Math.floor(this.chance() * 2)].emit("call:end", { roomId: room });
    await Promise.all(pair.map(async (person) => ledger.callFinalized(call, (await person.next("session:finalized", undefined, RECOVERY_MS)).sessionId)));
    await this.part(pair);
  }

  async decline() {
    const [caller, callee, inviteId] = await this.prelude(() => this.ringing());
    callee.emit("call:decline", { inviteId });
    const { reason } = await caller.next("call:declined", undefined, RECOVERY_MS);
    assert.equal(reason, "user_declined");
    this.ledger.declined(caller, callee);
    await this.part([caller, callee]);
  }

  async part(pair) {
    for (const person of pair) {
      const heard = person.events.filter(({ name }) => name === "session:finalized");
      assert.ok(heard.length <= 1, `session:finalized came ${heard.length} times`);
      person.dispose();
      this.connected.splice(this.connected.indexOf(person), 1);
      this.ledger.people.get(person.id.replaceAll("-", "")).isBusy = false;
    }
  }

  /** After a kill of the server: takes what has arrived, then gives up the rest. */
  async bury() {
    await this.server.exited;
    await Promise.race([Promise.all(this.connected.map(({ closed }) => closed)), pause(1_000)]);
    // What arrived together with the end is heard before this.
    await new Promise(setImmediate);
    this.die();
    await this.work;
    this.sendHome();
  }

  sendHome() {
    this.connected.forEach((person) => person.dispose());
    for (const person of this.ledger.people.values()) person.isBusy = false;
  }
}

/** An act that an outage of the database has spoilt before it was under way. */
class Abandoned extends Error {}

async function main(options) {
  const from = Date.now();
  // The load has chance of its own: it draws in the order in which things happen to come.
  const [chance, chanceOfLoad] = [generator(options.seed), generator(options.seed + 1)];
  const postgres = options.store === "postgres" ? new Postgres() : undefined;
  await postgres?.start();
  const database = postgres && freshDatabase(postgres.url);
  const server = await Server.start({ runtime: options.runtime, shards: options.shards }, { database });
  const fail = (why) => {
    console.error(`kills: ${why}\nkills: seed ${options.seed}\n--- the server's log ends\n${server.tail(30)}`);
    process.exit(1);
  };
  setTimeout(() => fail(`not finished in ${LIMIT_MS} ms`), LIMIT_MS).unref();
  const read = () => (database ? rowsOfPostgres(database) : rowsOfFile(join(server.flags.data, "duet.db")));
  let onAcknowledged = () => {};
  const ledger = new Ledger((kind) => onAcknowledged(kind));
  const kinds = Object.keys(ledger.counts);
  console.log(`kills: ${options.store}, ${options.victim} is killed, ${options.runtime}, ${options.shards} shards, seed ${options.seed}`);

  for (let number = 1; number <= options.rounds; number++) {
    const isLong = number % options["long-every"] === 0;
    const outlives = options.victim !== "duet";
    const round = new Round(server, ledger, chanceOfLoad, { outlives, isLong });
    const began = Date.now();
    round.begin();
    await pause(KILL_MS[0] + chance() * (KILL_MS[1] - KILL_MS[0]) + (isLong ? COMPLETED_MS - 5_300 : 0));
    let moment = "at random";
    if (chance() < KILL_AT_ACKNOWLEDGEMENT) {
      const kind = kinds[Math.floor(chance() * kinds.length)];
      await new Promise((resolve) => {
        const late = setTimeout(resolve, ACKNOWLEDGEMENT_MS);
        onAcknowledged = (heard) => {
          if (heard !== kind) return;
          clearTimeout(late);
          moment = `as one of the ${kind} was acknowledged`;
          // In this very tick: whatever is not on the disk now never gets there.
          if (!outlives) server.child.kill("SIGKILL");
          resolve();
        };
      });
      onAcknowledged = () => {};
    }
    round.wasKilled = true;
    const killedAt = Date.now();
    if (outlives) await outage(round, postgres, ledger, chance, fail);
    else await rebirth(round, server, database);
    if (round.wrong.length > 0) fail(`round ${number}:\n${round.wrong.slice(0, 5).join("\n")}`);

    const rows = await read();
    const lost = ledger.faults(rows);
    if (lost.length > 0) fail(`round ${number}, killed ${moment}: ${lost.length} faults in the tables:\n${lost.slice(0, 10).join("\n")}`);
    ledger.adopt(rows);
    const isLast = number === options.rounds;
    const people = [...ledger.people.values()].filter((person) => isLast || person.isTouched);
    const cooldowns = [...ledger.cooldowns.values()].slice(-COOLDOWNS_SEEN);
    const told = [...(await ledger.faultsTold(server, people)), ...(await ledger.faultsQueued(server, cooldowns))];
    if (told.length > 0) fail(`round ${number}, killed ${moment}: ${told.length} faults told by the server:\n${told.slice(0, 10).join("\n")}`);
    people.forEach((person) => (person.isTouched = false));
    const after = ledger.faults(await read());
    if (after.length > 0) fail(`round ${number}: after it was checked:\n${after.slice(0, 10).join("\n")}`);
    console.log(`  round ${number}: killed ${((killedAt - began) / 1000).toFixed(2)} s after the load began, ${moment}; ${people.length} people asked about, ${rows.users.length} in the tables`);
  }

  await server.kill();
  const rows = Object.entries(ledger.counts).map(([kind, count]) => `${count} ${kind}`);
  const histories = [...ledger.calls.values()].filter(({ session, lastedMs }) => session && lastedMs >= 5_000).length;
  const seconds = ((Date.now() - from) / 1000).toFixed(0);
  console.log(`kills: ${options.rounds} rounds, acknowledged: ${rows.join(", ")} (${histories} of the calls with a history); all there, once`);
  console.log(`kills: of what was in flight, or refused (${ledger.refused}), ${ledger.wholly} were stored wholly, ${ledger.notAtAll} not at all, none by halves; in ${seconds} s`);
  console.log("e2e: 1 passed, 0 failed");
  process.exit(0);
}

/** After duet was killed: buries the round, and starts it again once nothing it has asked for is under way any more. */
async function rebirth(round, server, database) {
  round.isOver = true;
  server.child.kill("SIGKILL");
  await round.bury();
  if (database) {
    const left = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    await eventually("the killed server's statements have ended", () => sql(left, database) === "0");
  }
  await server.launch();
}

/** Kills Postgres, starts it again, and waits until duet has recovered and all that goes on has come to its end. */
async function outage(round, postgres, ledger, chance, fail) {
  await postgres.kill();
  await pause(chance() * OUTAGE_MS_MAX);
  await postgres.start();
  const { server } = round;
  const recovered = ledger.signUpsGoOn(server, RECOVERY_MS);
  await recovered.catch((error) => fail(`duet does not recover: ${error.message}`));
  round.isOver = true;
  await round.work;
  round.sendHome();
  if (!server.alive) fail("duet has ended");
}

function parseArguments(words) {
  const options = { store: "sqlite", victim: "duet", rounds: undefined, seed: randomInt(1 << 30), "long-every": 10, runtime: RUNTIME, shards: SHARDS };
  for (let i = 0; i < words.length; i += 2) {
    const name = words[i].slice(2);
    assert.ok(name in options && words[i + 1] !== undefined, `usage: node kills.mjs [--${Object.keys(options).join(" X] [--")} X]`);
    options[name] = ["rounds", "seed", "long-every"].includes(name) ? Number(words[i + 1]) : words[i + 1];
  }
  assert.ok(["sqlite", "postgres"].includes(options.store), "--store is sqlite or postgres");
  assert.ok(options.victim === "duet" || (options.victim === "postgres" && options.store === "postgres"), "--victim is duet, or postgres on --store postgres");
  options.rounds ??= options.victim === "duet" ? 50 : 20;
  return options;
}

await main(parseArguments(process.argv.slice(2)));

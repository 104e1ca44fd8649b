// What clients were told has happened, and whether the store has it: each once, whole, and nothing by halves.
//
// People act through the ledger, which notes what was asked for before it asks and what was acknowledged when it is
// answered. What was asked for and not acknowledged may be stored or not; `adopt` takes over which.

import { isDeepStrictEqual } from "node:util";
import { HOUR_MS, card } from "./cast.mjs";
import { Client, TRANSPORTS, freshAddress, request } from "./client.mjs";
import { each } from "./lean.mjs";
import { bare, hashOf } from "./rows.mjs";
import { eventually, pause } from "./server.mjs";

const AT_ONCE = 16;
/** Log-ins that one question about many people may cost: each is a hash of a password. */
const LOG_INS_MAX = 60;
const SLACK_MS = 60_000;
const BUSY_MS = 500;
/** A call of this length has a history (contract 4.3); the server's clock decides about one that is close to it. */
const RECORDED_MS = 5_000;
const CLOSE_MS = 1_000;

/** A refusal, which says that the store is away. */
export class Refused extends Error {}

/** Somebody whose sign-up was acknowledged. */
class Person {
  constructor({ userId, sessionToken }, name) {
    Object.assign(this, { id: userId, name, token: sessionToken, ended: [], email: null, socials: null });
    /** What was asked for since the last acknowledgement of its kind: an e-mail, a count of log-ins, a list of socials. */
    this.open = {};
    /** Sessions that nobody has the token of. */
    this.sessionsLost = 0;
  }

  get password() {
    return `correct horse ${this.id}`;
  }

  get isOpen() {
    return Object.keys(this.open).length > 0;
  }
}

export class Ledger {
  /** `acknowledged(kind)` is called as soon as something is. */
  constructor(acknowledged = () => {}) {
    this.acknowledged = acknowledged;
    this.people = new Map();
    this.calls = new Map();
    this.cooldowns = new Map();
    /** Users whose sign-up was stored and not acknowledged. */
    this.strangers = new Set();
    this.counts = { "sign-ups": 0, links: 0, "log-ins": 0, "profile changes": 0, "calls finalized": 0, declines: 0 };
    this.wholly = 0;
    this.notAtAll = 0;
    this.unanswered = 0;
    this.refused = 0;
  }

  /** Waits until somebody can sign up again. */
  signUpsGoOn(server, ms) {
    return eventually("sign-ups go on", () => this.signUp(server).then(() => true, () => false), ms);
  }

  note(kind) {
    this.counts[kind] += 1;
    this.acknowledged(kind);
  }

  /** One request on a connection of its own: nothing is sent twice behind our back. */
  async ask(server, method, path, options) {
    const once = () => request(server.url, method, path, { address: freshAddress(), agent: false, ...options });
    const { child } = server;
    let answer = await once();
    // More passwords wait to be hashed than may: nothing was done.
    while (answer.status === 429 && server.child === child) {
      await pause(BUSY_MS);
      answer = await once();
    }
    if (answer.status === 503) {
      if (!(answer.body?.error && Number(answer.headers["retry-after"]) > 0)) throw new Error(`a refusal that says nothing: ${answer.text}`);
      this.refused += 1;
      throw new Refused(`${method} ${path}: 503`);
    }
    if (answer.status !== 200) throw new Error(`${method} ${path}: ${answer.status} ${answer.text}`);
    return answer.body;
  }

  // What people do.

  async signUp(server, name = "Ada") {
    this.unanswered += 1;
    const person = new Person(await this.ask(server, "POST", "/auth/guest", { body: { name, gender: "female" } }), name);
    this.unanswered -= 1;
    this.people.set(bare(person.id), person);
    this.touch(person);
    this.note("sign-ups");
    return person;
  }

  async link(server, person) {
    person.open.link = `${person.id}@example.org`;
    this.touch(person);
    await this.ask(server, "POST", "/auth/link", { body: { sessionToken: person.token, email: person.open.link, password: person.password } });
    person.email = person.open.link;
    delete person.open.link;
    this.note("links");
  }

  async logIn(server, person) {
    person.open.logIn = (person.open.logIn ?? 0) + 1;
    this.touch(person);
    const { sessionToken } = await this.ask(server, "POST", "/auth/login", { body: { email: person.email, password: person.password } });
    if (person.token) person.ended.push(person.token);
    person.token = sessionToken;
    person.sessionsLost += person.open.logIn - 1;
    delete person.open.logIn;
    this.note("log-ins");
  }

  async setSocials(server, person, socials) {
    (person.open.socials ??= []).push(socials);
    this.touch(person);
    await this.ask(server, "PUT", "/user/me", { token: person.token, body: { socials } });
    person.socials = socials;
    delete person.open.socials;
    this.note("profile changes");
  }

  /** A call that runs: what is said in it is added to `lines` when both have heard it. */
  callBegan(caller, callee, room, startedAt) {
    const call = { room, caller: caller.id, callee: callee.id, lines: [], startedAt, session: undefined };
    this.calls.set(bare(room), call);
    [caller, callee].forEach(({ id }) => this.touch(this.people.get(bare(id))));
    return call;
  }

  /** One of both has heard that the call is stored. */
  callFinalized(call, session) {
    if (call.session !== undefined) {
      if (call.session !== session) throw new Error(`call ${call.room} was finalized as ${call.session} and as ${session}`);
      return;
    }
    call.session = session;
    call.lastedMs = call.hungUpAt - call.startedAt;
    this.cooldown(call.caller, call.callee, 24);
    this.note("calls finalized");
  }

  declined(caller, callee) {
    this.cooldown(caller.id, callee.id, 24);
    this.note("declines");
  }

  cooldown(one, other, hours) {
    this.cooldowns.set(pairOf(one, other), { one, other, until: Date.now() + hours * HOUR_MS });
    [one, other].forEach((id) => this.touch(this.people.get(bare(id))));
  }

  touch(person) {
    person.isTouched = true;
  }

  // What the store must have.

  /** Everything that is wrong with `rows`. */
  faults(rows) {
    const faults = [];
    const wrong = (what) => faults.push(what);
    const by = (table, column) => grouped(rows[table], column);
    const view = { rows, users: by("users", "user_id"), sessions: by("sessions", "user_id"), histories: by("chat_history", "user_id"), rooms: by("chat_history", "room_id"), completions: by("session_completions", "room_id"), completed: by("session_completions", "user_id") };
    view.cooldowns = new Map(rows.cooldowns.map((row) => [`${row.lower_id} ${row.higher_id}`, row.expires_at]));
    this.wholeUsers(view, wrong);
    this.wholeCalls(view, wrong);
    this.acknowledgedPeople(view, wrong);
    this.acknowledgedCalls(view, wrong);
    for (const [pair, { until }] of this.cooldowns) {
      const found = view.cooldowns.get(pair);
      if (!(Math.abs(found - until) < SLACK_MS)) wrong(`cooldown of ${pair}: acknowledged until ${until}, there is ${found}`);
    }
    return faults;
  }

  /** Nobody, known or not, is stored by halves. */
  wholeUsers({ rows, users, sessions, histories, completed }, wrong) {
    for (const [id, own] of users) if (own.length !== 1) wrong(`user ${id} is there ${own.length} times`);
    for (const { user_id } of rows.sessions) if (!users.has(user_id)) wrong(`a session of ${user_id}, who is not there`);
    for (const user of rows.users) {
      const active = (sessions.get(user.user_id) ?? []).filter(({ is_active }) => is_active);
      if (active.length !== 1) wrong(`user ${user.user_id} has ${active.length} active sessions`);
      const own = histories.get(user.user_id) ?? [];
      const seconds = own.reduce((sum, { duration }) => sum + duration, 0);
      const counted = [user.session_count, user.timer_total_seconds, user.last_sessions.length, user.successful_sessions];
      const stored = [own.length, seconds, Math.min(own.length, 10), completed.get(user.user_id)?.length ?? 0];
      if (!isDeepStrictEqual(counted, stored)) wrong(`user ${user.user_id} counts ${counted}, histories and completions say ${stored}`);
    }
    const fresh = rows.users.map(({ user_id }) => user_id).filter((id) => !this.people.has(id) && !this.strangers.has(id));
    if (fresh.length > this.unanswered) wrong(`${fresh.length} users nobody signed up, ${this.unanswered} sign-ups were unanswered`);
  }

  /** No call is stored for one side only, twice, or without its cooldown. */
  wholeCalls({ rows, rooms, completions, cooldowns }, wrong) {
    for (const [room, sides] of rooms) {
      const [one, other] = sides;
      const same = sides.length === 2 && ["session_id", "started_at", "duration"].every((column) => one[column] === other[column]);
      const mutual = same && one.user_id === other.partner_id && other.user_id === one.partner_id && isDeepStrictEqual(one.messages, other.messages);
      if (!mutual) wrong(`the history of room ${room} is ${JSON.stringify(sides)}`);
      else if (!cooldowns.has(pairOf(one.user_id, other.user_id))) wrong(`room ${room} has a history and no cooldown`);
      const ended = completions.get(room)?.length ?? 0;
      if (ended !== (one.duration >= 30 ? 2 : 0)) wrong(`room ${room} of ${one.duration} s has ${ended} completions`);
    }
    for (const { room_id } of rows.session_completions) if (!rooms.has(room_id)) wrong(`room ${room_id} is completed and has no history`);
  }

  acknowledgedPeople({ users, sessions }, wrong) {
    for (const [id, person] of this.people) {
      const row = users.get(id)?.[0];
      if (!row) {
        wrong(`the sign-up of ${id} is lost`);
        continue;
      }
      if (row.name !== person.name) wrong(`${id} is called ${row.name}`);
      if (![person.email, person.open.link].includes(row.email)) wrong(`${id} has the e-mail ${row.email}, not ${person.email}`);
      if (![person.socials, ...(person.open.socials ?? [])].some((socials) => isDeepStrictEqual(socials, row.socials))) wrong(`${id} has ${JSON.stringify(row.socials)}, acknowledged ${JSON.stringify(person.socials)}, open ${JSON.stringify(person.open.socials)}`);
      const states = new Map((sessions.get(id) ?? []).map((session) => [session.token_hash, Boolean(session.is_active)]));
      for (const token of person.ended) if (states.get(hashOf(token)) !== false) wrong(`a session of ${id} that a log-in ended is ${states.get(hashOf(token))}`);
      const active = states.get(hashOf(person.token));
      if (active === undefined || (!active && !person.open.logIn)) wrong(`the session of ${id} is ${active === undefined ? "lost" : "ended"}`);
      const most = 1 + person.ended.length + person.sessionsLost + (person.open.logIn ?? 0);
      if (states.size > most) wrong(`${id} has ${states.size} sessions, ${most} were asked for`);
    }
  }

  acknowledgedCalls({ rooms }, wrong) {
    for (const [room, call] of this.calls) {
      const sides = rooms.get(room);
      if (sides && !call.hungUpAt) wrong(`room ${room} has a history and was never ended`);
      if (sides && !isDeepStrictEqual(sides[0].messages.map(lineOf), call.lines)) wrong(`room ${room} has the lines ${JSON.stringify(sides[0].messages)}, said were ${JSON.stringify(call.lines)}`);
      if (!call.session) continue;
      const recorded = call.lastedMs >= RECORDED_MS;
      if (recorded && !sides) wrong(`room ${room}: finalized after ${call.lastedMs} ms, and not in the history`);
      if (sides && call.lastedMs < RECORDED_MS - CLOSE_MS) wrong(`room ${room} lasted ${call.lastedMs} ms and is in the history`);
      if (sides && sides[0].session_id !== call.session) wrong(`room ${room} is stored as ${sides[0].session_id}, finalized as ${call.session}`);
    }
  }

  /** Takes over how that which was open came out. */
  adopt(rows) {
    const users = new Map(rows.users.map((row) => [row.user_id, row]));
    const active = new Set(rows.sessions.filter(({ is_active }) => is_active).map(({ token_hash }) => token_hash));
    const outcome = (stored) => (stored ? this.wholly++ : this.notAtAll++);
    for (const person of [...this.people.values()].filter((person) => person.isOpen)) {
      const row = users.get(bare(person.id));
      if ("link" in person.open) outcome((person.email = row.email) !== null);
      if ("socials" in person.open) {
        person.open.socials.forEach((socials) => outcome(isDeepStrictEqual(row.socials, socials)));
        person.socials = row.socials;
      }
      if ("logIn" in person.open) {
        const ended = !active.has(hashOf(person.token));
        outcome(ended);
        person.sessionsLost += person.open.logIn;
        // The new token went to nobody: its holder has to log in again.
        person.isLockedOut = ended;
      }
      person.open = {};
    }
    const fresh = rows.users.map(({ user_id }) => user_id).filter((id) => !this.people.has(id) && !this.strangers.has(id));
    fresh.forEach((id) => this.strangers.add(id));
    this.wholly += fresh.length;
    this.notAtAll += this.unanswered - fresh.length;
    this.unanswered = 0;
    const rooms = new Set(rows.chat_history.map(({ room_id }) => room_id));
    for (const [room, call] of this.calls) {
      if (call.session === undefined && call.hungUpAt && !call.isAdopted) outcome(rooms.has(room));
      call.isAdopted = true;
    }
  }

  // What the server must say.

  /** Asks the server about `people`, who act for this; gives what is wrong. Call it with nothing open. */
  async faultsTold(server, people) {
    const faults = [];
    const logsIn = new Set(people.filter(({ email, isTouched }) => email && isTouched).slice(-LOG_INS_MAX));
    const histories = grouped([...this.calls.values()].flatMap((call) => [{ id: call.caller, call }, { id: call.callee, call }]), "id");
    await each(people, AT_ONCE, async (person) => {
      try {
        if (person.isLockedOut || logsIn.has(person)) await this.logIn(server, person);
        person.isLockedOut = false;
        await this.hear(server, person, histories.get(person.id) ?? [], (what) => faults.push(`${person.id}: ${what}`));
      } catch (error) {
        faults.push(`${person.id}: ${error.message}`);
      }
    });
    return faults;
  }

  async hear(server, person, calls, wrong) {
    for (const token of person.ended.slice(-2)) {
      const { status, body } = await request(server.url, "GET", "/user/me", { token, agent: false, address: freshAddress() });
      if (status !== 401 || body.error !== "Session invalidated") wrong(`a session that was ended answers ${status} ${JSON.stringify(body)}`);
    }
    const me = await this.ask(server, "GET", "/user/me", { token: person.token });
    const told = [me.userId, me.name, me.email ?? null, me.accountType, me.socials ?? null];
    const known = [person.id, person.name, person.email, person.email ? "permanent" : "guest", person.socials];
    if (!isDeepStrictEqual(told, known)) wrong(`the profile is ${JSON.stringify(told)}, not ${JSON.stringify(known)}`);
    if (calls.length === 0) return;
    const { history } = await this.ask(server, "GET", "/room/history", { token: person.token });
    const seconds = history.reduce((sum, { duration }) => sum + duration, 0);
    if (me.sessionCount !== history.length || me.timerTotalSeconds !== seconds) wrong(`totals ${me.sessionCount}, ${me.timerTotalSeconds} s; history ${history.length}, ${seconds} s`);
    for (const { call } of calls.filter(({ call }) => call.session && call.lastedMs >= RECORDED_MS)) {
      const found = history.filter(({ roomId }) => roomId === call.room);
      const partner = call.caller === person.id ? call.callee : call.caller;
      const right = found.length === 1 && found[0].sessionId === call.session && found[0].partnerId === partner && isDeepStrictEqual(found[0].messages.map(lineOf), call.lines);
      if (!right) wrong(`the history has ${JSON.stringify(found)} of the call ${JSON.stringify(call)}`);
    }
  }

  /** Puts both of these cooldowns' pairs into the queue and looks whether each sees the cooldown on the other's card. */
  async faultsQueued(server, cooldowns) {
    const faults = [];
    await each(cooldowns, AT_ONCE, async ({ one, other, until }) => {
      const both = [one, other].map((id, index) => {
        const { name, token } = this.people.get(bare(id));
        return new Client(server, TRANSPORTS[index], { id, name, token, address: freshAddress() });
      });
      try {
        for (const person of both) {
          await person.connect();
          person.emit("presence:join");
          person.emit("queue:join");
        }
        for (const [viewer, shown] of [both, [...both].reverse()]) {
          const seen = await eventually(`${shown.id} is in the queue`, () => card(viewer, shown));
          if (!seen.hasCooldown || Math.abs(seen.cooldownExpiry - until) > SLACK_MS) faults.push(`${viewer.id} sees ${JSON.stringify(seen)}, a cooldown until ${until} was acknowledged`);
        }
      } catch (error) {
        faults.push(`cooldown of ${one} and ${other}: ${error.message}`);
      } finally {
        both.forEach((person) => person.dispose());
      }
    });
    return faults;
  }
}

/** The key of an unordered pair, as its row has it. */
function pairOf(one, other) {
  return [bare(one), bare(other)].sort().join(" ");
}

function lineOf({ from, text }) {
  return [from, text];
}

function grouped(items, key) {
  const groups = new Map();
  for (const item of items) {
    if (!groups.has(item[key])) groups.set(item[key], []);
    groups.get(item[key]).push(item);
  }
  return groups;
}

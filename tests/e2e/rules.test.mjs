// The product's rules (contract 4 and the right-hand column of section 8): who may what, races, losses.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { Cast, card, cooldownOf, enterRoom, hangUp, joinQueue, lasting, ring, say, suite, within } from "./cast.mjs";
import { Server, eventually, pause } from "./server.mjs";

const server = await Server.start();
const ROUNDS = 6;

const invite = (from, to, seconds = 300) => from.emit("call:invite", { toUserId: to.id ?? to, requestedSeconds: seconds });
const accept = (by, inviteId, seconds = 300) => by.emit("call:accept", { inviteId, requestedSeconds: seconds });

/** After a race, lets every answer arrive: each has had a round trip, and cross-core messages time to land. */
async function calm(...people) {
  await Promise.all(people.map((person) => person.settle()));
  await pause(400);
  await Promise.all(people.map((person) => person.settle()));
}

/** The rooms these people were put into: at most one each, and each with exactly two people. */
function roomsOf(...people) {
  const rooms = new Map();
  for (const person of people) {
    const starts = person.all("call:start");
    assert.ok(starts.length <= 1, `${person.name} is in ${starts.length} calls`);
    for (const { roomId } of starts) rooms.set(roomId, [...(rooms.get(roomId) ?? []), person.name]);
  }
  for (const [room, names] of rooms) assert.equal(names.length, 2, `room ${room} holds ${names}`);
  return rooms;
}

/** Repeats a race with fresh people each time. */
async function rounds(cast, race) {
  for (let round = 0; round < ROUNDS; round++) await Cast.play(cast.server, cast.transport, race);
}

function define({ fact, facts }) {
  facts("an unanswered invite ends after its 20 s and a slack, for both, with a cooldown of 1 h (D5)", async (cast) => {
    const { caller, callee, invite } = await cast.ringing();
    const from = Date.now();
    const ended = await caller.next("call:declined", undefined, 50_000);
    assert.deepEqual(ended, { inviteId: invite, reason: "timeout" });
    within(Date.now() - from, 28_000, 45_000, "ms until the timeout");
    assert.deepEqual(await callee.next("call:rescinded"), { inviteId: invite });
    await eventually("the cooldown shows", async () => (await card(caller, callee))?.hasCooldown);
    cooldownOf(await card(callee, caller), 1);
  }, ["mixed"]);

  facts("an invite names its target and its seconds, or is declined with the reason", async (cast) => {
    const [ada, bo] = await cast.queued();
    const away = await cast.online();
    const cases = [
      [ada.id, 300, "invalid_target"],
      [randomUUID(), 300, "user_not_found"],
      ["no such id", 300, "user_not_found"],
      ...[0, -1, 1801, 60.5, "300", null, {}].map((seconds) => [bo.id, seconds, "invalid_duration"]),
      [away.id, 300, "offline"],
    ];
    for (const [toUserId, requestedSeconds, reason] of cases) {
      ada.emit("call:invite", { toUserId, requestedSeconds });
      assert.equal((await ada.next("call:declined")).reason, reason, `${toUserId} ${requestedSeconds}`);
    }
    assert.deepEqual(bo.all("call:notify"), []);
  });

  facts("wanted seconds under 60 are raised to 60, and the agreed ones are the floor of the mean (Decided 2)", async (cast) => {
    for (const [wanted, answered, notified, agreed] of [[1, 30, 60, 60], [300, 201, 300, 250], [1800, 60, 1800, 930]]) {
      const [ada, bo] = await cast.queued();
      invite(ada, bo, wanted);
      const { inviteId, requestedSeconds } = await bo.next("call:notify");
      assert.equal(requestedSeconds, notified);
      accept(bo, inviteId, answered);
      assert.equal((await ada.next("call:start")).agreedSeconds, agreed);
    }
  });

  facts("accepting with wrong seconds is an error and leaves the invite", async (cast) => {
    const { caller, callee, invite } = await cast.ringing();
    for (const seconds of [0, 1801, "60", null]) {
      accept(callee, invite, seconds);
      await callee.next("error");
    }
    accept(callee, randomUUID());
    await callee.next("error");
    accept(callee, invite, 100);
    await enterRoom(caller, callee);
  });

  facts("a stranger can neither join, signal, chat, share in a room nor end it (D2)", async (cast) => {
    const { caller, callee, room } = await cast.call();
    const stranger = await cast.online();
    stranger.emit("room:join", { roomId: room });
    await stranger.next("error");
    const attempts = [
      ["rtc:offer", { offer: { sdp: "x" } }],
      ["rtc:answer", { answer: { sdp: "x" } }],
      ["rtc:ice", { candidate: {} }],
      ["room:chat", { text: "intruder" }],
      ["room:giveSocial", { socials: { a: "intruder" } }],
    ];
    for (const [name, payload] of attempts) {
      stranger.emit(name, { roomId: room, ...payload });
      await stranger.next("error");
    }
    stranger.emit("call:end", { roomId: room });
    await stranger.settle();
    await say(caller, callee, room, "alone");
    await say(callee, caller, room, "yes");
    for (const person of [caller, callee]) {
      assert.equal(person.all("room:chat").length, 2);
      for (const name of ["rtc:offer", "rtc:answer", "rtc:ice", "room:socialShared", "session:finalized"]) assert.deepEqual(person.all(name), []);
    }
    assert.deepEqual(stranger.all("room:chat"), []);
  });

  facts("an unbound connection hears nothing and may do nothing (D2, D16)", async (cast) => {
    const { caller, callee, room } = await cast.call();
    const unbound = cast.connection({});
    await unbound.open();
    for (const [name, payload] of [
      ["room:join", { roomId: room }],
      ["rtc:ice", { roomId: room, candidate: {} }],
      ["room:chat", { roomId: room, text: "x" }],
      ["call:end", { roomId: room }],
      ["call:invite", { toUserId: caller.id, requestedSeconds: 300 }],
      ["call:accept", { inviteId: randomUUID(), requestedSeconds: 300 }],
      ["queue:join", undefined],
    ]) {
      unbound.emit(name, payload);
      await unbound.next("error");
    }
    await cast.queued();
    await say(caller, callee, room, "private");
    unbound.emit("auth", { sessionToken: "nonsense" });
    await unbound.next("auth:failed");
    assert.deepEqual([...new Set(unbound.events.map(({ name }) => name))].sort(), ["auth:failed", "error"]);
    assert.deepEqual(callee.all("rtc:ice"), []);
  });

  facts("only the invitee accepts or declines (D3)", async (cast) => {
    const { caller, callee, invite } = await cast.ringing();
    const thief = await cast.online();
    accept(thief, invite);
    await thief.next("error");
    accept(caller, invite);
    await caller.next("error");
    thief.emit("call:decline", { inviteId: invite });
    caller.emit("call:decline", { inviteId: invite });
    await calm(thief, caller);
    assert.deepEqual(caller.all("call:declined"), []);
    accept(callee, invite);
    await enterRoom(caller, callee);
    assert.deepEqual(thief.all("call:start"), []);
  });

  facts("a callee who accepts two invites at once is in one call, and the other caller hears busy (D4)", (cast) =>
    rounds(cast, async (cast) => {
      const [one, two, callee] = await cast.queued(3);
      const invites = await Promise.all([ring(one, callee), ring(two, callee)]);
      invites.forEach((id) => accept(callee, id));
      await callee.next("call:start");
      await calm(one, two, callee);
      assert.equal(roomsOf(one, two, callee).size, 1);
      const loser = [one, two].find((person) => person.all("call:start").length === 0);
      assert.deepEqual(loser.all("call:declined").map(({ reason }) => reason), ["busy"]);
    }));

  facts("two callees who accept one caller in the same millisecond make one call, and the other is told (D4)", (cast) =>
    rounds(cast, async (cast) => {
      const [caller, one, two] = await cast.queued(3);
      const invites = [await ring(caller, one), await ring(caller, two)];
      accept(one, invites[0]);
      accept(two, invites[1]);
      await caller.next("call:start");
      await calm(caller, one, two);
      assert.equal(roomsOf(caller, one, two).size, 1);
      const loser = [one, two].find((person) => person.all("call:start").length === 0);
      assert.equal(loser.all("call:rescinded").length, 1, `the one left out heard ${loser.heard()}`);
    }));

  facts("two people who accept each other at once are in one call (D4)", (cast) =>
    rounds(cast, async (cast) => {
      const [one, two] = await cast.queued();
      const [toTwo, toOne] = await Promise.all([ring(one, two), ring(two, one)]);
      accept(one, toOne);
      accept(two, toTwo);
      await Promise.all([one.next("call:start"), two.next("call:start")]);
      await calm(one, two);
      assert.equal(roomsOf(one, two).size, 1);
    }));

  facts("in a ring of invites all accepted at once nobody is in two calls (D4)", (cast) =>
    rounds(cast, async (cast) => {
      const people = await cast.queued(4);
      const next = (i) => people[(i + 1) % people.length];
      const invites = await Promise.all(people.map((person, i) => ring(person, next(i))));
      people.forEach((_, i) => accept(next(i), invites[i]));
      await calm(...people);
      within(roomsOf(...people).size, 0, 2, "calls");
    }));

  facts("a busy user cannot be invited, and does not hear of it (D4)", async (cast) => {
    const { caller, callee } = await cast.call();
    const other = await cast.online();
    other.emit("presence:join");
    other.emit("queue:join");
    await other.settle();
    for (const busy of [caller, callee]) {
      invite(other, busy);
      assert.equal((await other.next("call:declined")).reason, "offline");
    }
    assert.deepEqual(caller.all("call:notify"), []);
  });

  facts("an accept ends the other invites of both (D4)", async (cast) => {
    const [caller, callee, suitor, target] = await cast.queued(4);
    const fromSuitor = await ring(suitor, callee);
    const toTarget = await ring(caller, target);
    accept(callee, await ring(caller, callee));
    await Promise.all([caller.next("call:start"), callee.next("call:start")]);
    assert.deepEqual(await suitor.next("call:declined"), { inviteId: fromSuitor, reason: "busy" });
    assert.deepEqual(await target.next("call:rescinded"), { inviteId: toTarget });
  });

  facts("accept against rescind at once: both are in the call or neither is", (cast) =>
    rounds(cast, async (cast) => {
      const { caller, callee, invite } = await cast.ringing();
      accept(callee, invite);
      caller.emit("call:rescind", { toUserId: callee.id });
      await calm(caller, callee);
      const rooms = roomsOf(caller, callee);
      const told = callee.all("call:rescinded").length + callee.all("error").length;
      assert.equal(rooms.size === 1, told === 0, `rooms ${rooms.size}; the callee heard ${callee.heard()}`);
    }));

  facts("decline against rescind at once: at most one of the two is told, once, and both see one cooldown", (cast) =>
    rounds(cast, async (cast) => {
      const { caller, callee, invite } = await cast.ringing();
      callee.emit("call:decline", { inviteId: invite });
      caller.emit("call:rescind", { toUserId: callee.id });
      await calm(caller, callee);
      const declined = caller.all("call:declined").length;
      const rescinded = callee.all("call:rescinded").length;
      assert.ok(declined + rescinded <= 1, `declined ${declined}, rescinded ${rescinded}`);
      const [mine, theirs] = [await card(caller, callee), await card(callee, caller)];
      assert.equal(mine.hasCooldown, true);
      assert.equal(mine.cooldownExpiry, theirs.cooldownExpiry);
      assert.deepEqual([...caller.all("call:start"), ...callee.all("call:start")], []);
    }));

  facts("a callee who leaves while it rings ends the invite as offline (D5)", async (cast) => {
    const { caller, callee, invite } = await cast.ringing();
    callee.leave();
    assert.deepEqual(await caller.next("call:declined"), { inviteId: invite, reason: "offline" });
  });

  facts("a callee whose only tab is lost while it rings ends the invite as offline after the grace (D5, D6)", async (cast) => {
    const { caller, callee, invite } = await cast.ringing();
    callee.drop();
    assert.deepEqual(await caller.next("call:declined"), { inviteId: invite, reason: "offline" });
  });

  facts("a caller who goes away while waiting stops the ringing, with a cooldown of 1 h", async (cast) => {
    const { caller, callee, invite } = await cast.ringing();
    caller.leave();
    assert.deepEqual(await callee.next("call:rescinded"), { inviteId: invite });
    await caller.connect();
    await joinQueue(caller, callee);
    cooldownOf(await card(callee, caller), 1);
  });

  facts("the partner of a lost transport learns it after the grace, once, and may still end (D6, D9)", async (cast) => {
    const { caller, callee, room } = await cast.call();
    const from = Date.now();
    callee.drop();
    await caller.next("peer:disconnected");
    within(Date.now() - from, 4_000, 9_000, "ms until the partner is told");
    const { sessionId } = await caller.next("session:finalized");
    caller.emit("call:end", { roomId: room });
    assert.equal((await caller.next("session:finalized")).sessionId, sessionId);
    assert.equal(caller.all("peer:disconnected").length, 1);
    await joinQueue(caller, await cast.online());
  });

  facts("a dropped call of 5 s is in both histories, with a system line, metrics and a cooldown of 24 h (D9, D12)", async (cast) => {
    const { caller, callee, room, startedAt } = await cast.call();
    await say(caller, callee, room, "before the drop");
    await lasting(startedAt);
    caller.drop();
    await callee.next("peer:disconnected");
    const metrics = await callee.next("metrics:update");
    assert.equal(metrics.sessionCount, 1);
    const { sessionId } = await callee.next("session:finalized");
    assert.match(sessionId, /-disconnected$/);
    await caller.connect();
    for (const person of [caller, callee]) {
      const { history } = await person.get("/room/history");
      assert.deepEqual(history.map((entry) => [entry.roomId, entry.sessionId]), [[room, sessionId]]);
      assert.deepEqual(history[0].messages.map(({ from }) => from), [caller.id, "system"]);
    }
    await joinQueue(caller, callee);
    cooldownOf(await card(caller, callee), 24);
  });

  facts("leaving a joined room on purpose ends the call at once (D6)", async (cast) => {
    const { caller, callee } = await cast.call();
    const from = Date.now();
    callee.leave();
    await caller.next("peer:disconnected");
    within(Date.now() - from, 0, 3_500, "ms until the partner is told");
    await caller.next("session:finalized");
  }, ["socket.io"]);

  facts("a page that hands over before room:join keeps the call (D6)", async (cast) => {
    const { caller, callee, invite } = await cast.ringing();
    accept(callee, invite);
    const { roomId } = await callee.next("call:start");
    caller.emit("room:join", { roomId });
    await caller.settle();
    callee.leave();
    await callee.ended();
    await pause(1_000);
    await callee.connect();
    callee.emit("room:join", { roomId });
    await callee.settle();
    await say(caller, callee, roomId, "handed over");
    assert.deepEqual(caller.all("peer:disconnected"), []);
  });

  facts("closing one of two tabs changes nothing, whichever it is (D7)", async (cast) => {
    for (const which of ["older", "newer"]) {
      const [ada, bo] = await cast.queued();
      const tab = await ada.tab();
      tab.emit("presence:join");
      tab.emit("queue:join");
      await tab.settle();
      const [closing, staying] = which === "older" ? [ada, tab] : [tab, ada];
      closing.drop();
      await pause(200);
      invite(bo, ada);
      const { inviteId } = await staying.next("call:notify");
      accept(staying, inviteId);
      await staying.next("call:start");
      await bo.next("call:start");
    }
  });

  facts("closing one of two tabs in a call keeps the call (D7)", async (cast) => {
    const { caller, callee, room } = await cast.call();
    const tab = await callee.tab();
    tab.drop();
    await caller.never("peer:disconnected", 6_500);
    await say(caller, callee, room, "one tab less");
  });

  facts("a third connection of one user closes the oldest and only that, which is told why (D42)", async (cast) => {
    const ada = await cast.online();
    const tabs = [await ada.tab(), await ada.tab()];
    await ada.next("error", ({ message }) => /Too many connections/.test(message));
    const { reason, code } = await ada.ended();
    assert.ok(reason === "io server disconnect" || code === 1008, `${reason} ${code}`);
    for (const tab of tabs) await tab.settle();
  });

  fact("who reconnects by himself, as socket.io-client does, leaves two tabs and a third in peace", async (cast) => {
    const ada = await cast.guest();
    const tabs = [];
    for (let i = 0; i < 3; i++) {
      tabs.push(cast.connection(ada.account));
      await tabs[i].connect({ reconnection: true });
    }
    await tabs[0].ended();
    const bound = () => tabs.map((tab) => tab.all("auth:success").length);
    const before = bound();
    // Longer than the client's first pauses together.
    await pause(4_000);
    assert.deepEqual(bound(), before, "nobody has come again");
    for (const tab of tabs.slice(1)) {
      await tab.settle();
      assert.deepEqual(tab.all("error"), []);
      assert.equal(tab.wire.socket.connected, true);
    }
  });

  facts("a tab in a call outlives older ones in none when there are too many", async (cast) => {
    const { caller, callee, room } = await cast.call();
    const idle = await caller.tab();
    const newest = await caller.tab();
    await idle.ended();
    await newest.settle();
    await say(caller, callee, room, "still in the call");
  });

  facts("both ends hang up at once: one session, one history entry each, counted once (D10)", async (cast) => {
    const { caller, callee, room, startedAt } = await cast.call();
    await say(caller, callee, room, "bye");
    await lasting(startedAt);
    [caller, callee].forEach((person) => person.emit("call:end", { roomId: room }));
    const sessions = await Promise.all([caller, callee].map(async (person) => (await person.next("session:finalized")).sessionId));
    assert.equal(sessions[0], sessions[1]);
    await calm(caller, callee);
    for (const person of [caller, callee]) {
      assert.equal(new Set(person.all("session:finalized").map(({ sessionId }) => sessionId)).size, 1);
      const { history } = await person.get("/room/history");
      assert.deepEqual(history.map(({ sessionId }) => sessionId), [sessions[0]]);
      assert.equal((await person.get("/user/me")).sessionCount, 1);
    }
  });

  facts("a call under 5 s leaves no history, but a cooldown", async (cast) => {
    const { caller, callee, room } = await cast.call();
    await hangUp(callee, caller, room);
    for (const person of [caller, callee]) assert.deepEqual((await person.get("/room/history")).history, []);
    await joinQueue(caller, callee);
    cooldownOf(await card(caller, callee), 24);
  });

  facts("after a call nobody is available before his queue:join (D13)", async (cast) => {
    const { caller, callee, room } = await cast.call();
    const watcher = await cast.online();
    watcher.emit("presence:join");
    watcher.emit("queue:join");
    await watcher.settle();
    await hangUp(caller, callee, room);
    await calm(caller, callee);
    for (const person of [caller, callee]) assert.equal(await card(watcher, person), undefined);
    await joinQueue(caller, watcher);
    assert.equal(await card(watcher, callee), undefined);
  });

  facts("a user whose queueing tab is lost leaves the queue after the grace, though another tab lives (D13)", async (cast) => {
    const [ada, bo] = await cast.queued();
    const tab = await ada.tab();
    ada.drop();
    assert.ok(await card(bo, ada), "still there within the grace");
    await eventually("the card is gone", async () => !(await card(bo, ada)), 9_000);
    tab.emit("queue:join");
    await eventually("the card is back", () => card(bo, ada));
  });

  facts("a lost connection that comes back in time keeps its place in the queue (D6)", async (cast) => {
    const [ada, bo] = await cast.queued();
    ada.drop();
    await pause(800);
    await ada.connect();
    assert.ok(await card(bo, ada));
    ada.emit("queue:join");
    await pause(5_500);
    assert.ok(await card(bo, ada));
    await ring(bo, ada);
  });

  facts("a connection that is gone for good leaves the queue and the count of those online (D6)", async (cast) => {
    const [ada, bo] = await cast.queued();
    ada.drop();
    await eventually("the card is gone", async () => !(await card(bo, ada)), 9_000);
    await bo.next("presence:update", ({ userId, online, available }) => userId === ada.id && !online && !available);
    invite(bo, ada);
    assert.equal((await bo.next("call:declined")).reason, "offline");
  });

  facts("presence and queue changes reach those in the queue and nobody else (D15)", async (cast) => {
    const [inQueue] = await cast.queued(2);
    const outside = await cast.online();
    const newcomer = await cast.online();
    newcomer.emit("presence:join");
    newcomer.emit("queue:join");
    await inQueue.next("queue:update", ({ userId, available }) => userId === newcomer.id && available);
    newcomer.emit("queue:leave");
    await inQueue.next("queue:update", ({ userId, available }) => userId === newcomer.id && !available);
    await outside.settle();
    const heard = outside.events.filter(({ name, payload }) => /^(queue|presence):update$/.test(name) && payload.userId !== outside.id);
    assert.deepEqual(heard, []);
  });

  facts("leaving presence hides the card, joining again shows it", async (cast) => {
    const [ada, bo] = await cast.queued();
    ada.emit("queue:leave");
    ada.emit("presence:leave");
    await bo.next("presence:update", ({ userId, online }) => userId === ada.id && !online);
    await eventually("the card is gone", async () => !(await card(bo, ada)));
    ada.emit("presence:join");
    await ada.settle();
    assert.equal(await card(bo, ada), undefined, "online is not available");
    ada.emit("queue:join");
    await eventually("the card is back", () => card(bo, ada));
  });

  facts("a bound connection that says auth as another user becomes that user (D17)", async (cast) => {
    const [ada, bo] = await cast.queued();
    const cy = await cast.guest();
    ada.emit("auth", { sessionToken: cy.token });
    await ada.next("auth:success");
    await eventually("Ada has left", async () => !(await card(bo, ada)), 9_000);
    ada.emit("presence:join");
    ada.emit("queue:join");
    await eventually("Cy is there", () => card(bo, cy));
    invite(bo, cy);
    await ada.next("call:notify", ({ fromUser }) => fromUser.userId === bo.id);
    invite(ada, bo);
    await bo.next("call:notify", ({ fromUser }) => fromUser.userId === cy.id);
  });

  facts("offer, candidates and chat sent before the peer's room:join arrive after it, in order (D37)", async (cast) => {
    const { caller, callee, invite } = await cast.ringing();
    accept(callee, invite);
    const { roomId } = await caller.next("call:start");
    await callee.next("call:start");
    caller.emit("room:join", { roomId });
    caller.emit("rtc:offer", { roomId, offer: { type: "offer", sdp: "early" } });
    for (let i = 0; i < 10; i++) caller.emit("rtc:ice", { roomId, candidate: { candidate: String(i) } });
    await calm(caller, callee);
    assert.deepEqual([...callee.all("rtc:offer"), ...callee.all("rtc:ice")], [], "nothing before room:join");
    callee.emit("room:join", { roomId });
    assert.equal((await callee.next("rtc:offer")).offer.sdp, "early");
    for (let i = 0; i < 10; i++) assert.equal((await callee.next("rtc:ice")).candidate.candidate, String(i));
    const order = callee.events.filter(({ name }) => name.startsWith("rtc:")).map(({ name }) => name);
    assert.deepEqual(order, ["rtc:offer", ...Array(10).fill("rtc:ice")]);
  });

  facts("a second invite to the same callee is the same invite, and does not flood (D39)", async (cast) => {
    const { caller, callee, invite: first } = await cast.ringing();
    for (let i = 0; i < 8; i++) invite(caller, callee);
    await calm(caller, callee);
    const ids = callee.all("call:notify").map(({ inviteId }) => inviteId);
    assert.ok(ids.length <= 2 && ids.every((id) => id === first), `notified: ${ids}`);
  });

  facts("keep-waiting is only for my pending invite, and only a few times (D39)", async (cast) => {
    const { caller, callee } = await cast.ringing();
    const stranger = await cast.online();
    stranger.emit("call:extend-wait", { toUserId: callee.id });
    await calm(stranger, callee);
    assert.deepEqual(callee.all("call:wait-extended"), []);
    for (let i = 0; i < 12; i++) caller.emit("call:extend-wait", { toUserId: callee.id });
    await calm(caller, callee);
    within(callee.all("call:wait-extended").length, 1, 5, "extensions");
  });

  facts("rescinding somebody else's invite, or none, does nothing", async (cast) => {
    const { caller, callee, invite } = await cast.ringing();
    const stranger = await cast.online();
    stranger.emit("call:rescind", { toUserId: callee.id });
    await calm(stranger, callee);
    assert.deepEqual(callee.all("call:rescinded"), []);
    accept(callee, invite);
    await enterRoom(caller, callee);
  });

  facts("socials that are not strings are refused and not relayed (D34)", async (cast) => {
    const { caller, callee, room } = await cast.call();
    for (const socials of [{ a: 1 }, { a: { b: "c" } }, ["a"], "a", null, { a: "x".repeat(101) }]) {
      caller.emit("room:giveSocial", { roomId: room, socials });
      await caller.next("error");
    }
    await say(caller, callee, room, "checked");
    assert.deepEqual(callee.all("room:socialShared"), []);
  });

  facts("chat passes unchanged but for control characters, blanks around and 500 characters (Decided 4)", async (cast) => {
    const { caller, callee, room } = await cast.call();
    const cases = [
      ["<script>alert(1)</script> a < b > c", "<script>alert(1)</script> a < b > c"],
      ["  tab\tand\u0000 bell\u0007  ", "taband bell"],
      ["😀".repeat(600), "😀".repeat(500)],
    ];
    for (const [text, expected] of cases) {
      caller.emit("room:chat", { roomId: room, text });
      assert.equal((await callee.next("room:chat")).text, expected);
    }
    caller.emit("room:chat", { roomId: room, text: " \u0001 " });
    await say(caller, callee, room, "end");
    assert.equal(callee.all("room:chat").length, cases.length + 1, "an empty text is dropped");
  });

  facts("a second login in a call ends it for the old device, and the partner is told", async (cast) => {
    const { caller, callee } = await cast.call();
    const credentials = { email: `${caller.id}@example.org`, password: "correct horse" };
    assert.equal((await caller.http("POST", "/auth/link", { body: { sessionToken: caller.token, ...credentials } })).status, 200);
    const login = await caller.http("POST", "/auth/login", { body: credentials });
    assert.equal(login.status, 200, login.text);
    await caller.next("session:invalidated");
    await caller.ended();
    await callee.next("session:finalized");
    const fresh = cast.connection({ ...caller.account, token: login.body.sessionToken });
    await fresh.connect();
    const other = await cast.online();
    await joinQueue(fresh, other);
    await ring(other, fresh);
  });

  fact("the reel shows others once per cursor and leaves cooldown pairs out", async (cast) => {
    const [ada, bo, cy] = await cast.queued(3);
    const inviteId = await ring(bo, ada);
    ada.emit("call:decline", { inviteId });
    await bo.next("call:declined");
    await eventually("the cooldown shows", async () => (await card(ada, bo))?.hasCooldown);
    const seen = [];
    let cursor = "";
    for (let batch = 0; batch < 60; batch++) {
      const reel = await ada.get(`/room/reel?limit=20${cursor && `&cursor=${cursor}`}`);
      seen.push(...reel.items.map(({ userId }) => userId));
      cursor = reel.cursor;
      assert.equal(typeof cursor, "string");
      if (!reel.hasMore) break;
    }
    assert.equal(new Set(seen).size, seen.length, "each user once");
    assert.ok(seen.includes(cy.id));
    assert.ok(!seen.includes(bo.id) && !seen.includes(ada.id));
  });
}

suite("rules", server, define);

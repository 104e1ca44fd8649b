// The queue as one who polls it sees it: a list of at most so many, pages, and nothing that he has already (contract 2.6).

import assert from "node:assert/strict";
import zlib from "node:zlib";
import { joinQueue, suite } from "./cast.mjs";
import { LeanSocket, each, guests } from "./lean.mjs";
import { Server, eventually } from "./server.mjs";

const ORIGIN = "https://app.example";
const LIST_MAX = 5;
const PEOPLE = 13;
const VIEWERS = 300;
const servers = await Promise.all([LIST_MAX, 200, 200].map((max) => Server.start({ "queue-list-max": max, "allowed-origins": ORIGIN })));

/** So many people in the queue whom `viewer` can see; they come in this order, each known to the server before the next. */
async function queueOf(cast, count) {
  const viewer = await cast.guest();
  const total = async () => (await viewer.get("/room/queue")).totalAvailable;
  const people = [];
  for (let i = 0; i < count; i++) {
    const person = await cast.online();
    person.emit("queue:join");
    people.push(person);
    await eventually("one more is in the queue", async () => (await total()) === i + 1);
  }
  return { viewer, people };
}

const ids = ({ users }) => users.map(({ userId }) => userId);
const ask = (viewer, headers, path = "/room/queue") => viewer.http("GET", path, { headers });

suite("long queue", servers[0], ({ fact }) => {
  fact("of more than fit a sample is listed, all are counted, and pages show everybody once in order", async (cast) => {
    const { viewer, people } = await queueOf(cast, PEOPLE);
    const expected = people.map(({ id }) => id);
    const first = await viewer.get("/room/queue");
    assert.deepEqual([new Set(ids(first)).size, first.totalAvailable, "nextCursor" in first], [LIST_MAX, PEOPLE, false]);
    assert.ok(ids(first).every((id) => expected.includes(id)));
    const inQueue = await people[0].get("/room/queue");
    assert.deepEqual([ids(inQueue).includes(people[0].id), inQueue.totalAvailable], [false, PEOPLE - 1]);

    const met = [];
    for (let cursor = ""; cursor !== null; ) {
      const page = await viewer.get(`/room/queue?limit=4&cursor=${cursor}`);
      assert.equal(page.totalAvailable, PEOPLE);
      met.push(...ids(page));
      cursor = page.nextCursor;
    }
    assert.deepEqual(met, expected);
    for (const [query, error] of [["limit=0", "Invalid limit"], [`limit=${LIST_MAX + 1}`, "Invalid limit"], ["cursor=x", "Invalid cursor"]]) {
      const { status, body } = await ask(viewer, {}, `/room/queue?${query}`);
      assert.deepEqual([status, body.error], [400, error], query);
    }
  });
});

suite("polled queue", servers[1], ({ fact }) => {
  fact("what has not changed is answered 304, in every coding, until it changes", async (cast) => {
    const { viewer, people } = await queueOf(cast, PEOPLE);
    const headers = { origin: ORIGIN, "accept-encoding": "gzip, br" };
    const first = await ask(viewer, headers);
    assert.deepEqual([first.status, first.headers["content-encoding"], first.headers["cache-control"]], [200, "gzip", "private, no-cache"]);
    assert.equal(JSON.parse(zlib.gunzipSync(first.bytes)).totalAvailable, PEOPLE);
    const { etag } = first.headers;
    for (const coding of ["gzip, br", "br", "deflate", "identity"]) {
      const again = await ask(viewer, { ...headers, "accept-encoding": coding, "if-none-match": etag });
      assert.deepEqual([again.status, again.bytes.length, again.headers["content-length"], again.headers.etag], [304, 0, undefined, etag]);
      for (const name of ["vary", "cache-control", "access-control-allow-origin"]) assert.equal(again.headers[name], first.headers[name], name);
    }
    const other = await ask(people[0], { ...headers, "if-none-match": etag });
    assert.equal(other.status, 200, "a tag is of one viewer");
    people.at(-1).emit("queue:leave");
    await eventually("the change shows", async () => (await ask(viewer, { ...headers, "if-none-match": etag })).status === 200);
  });

  fact("a cooldown makes another list for the two it concerns", async (cast) => {
    const [ada, bo] = await cast.queued();
    const tagOf = async (person) => (await ask(person, {})).headers.etag;
    const before = await Promise.all([ada, bo].map(tagOf));
    ada.emit("call:invite", { toUserId: bo.id, requestedSeconds: 300 });
    const { inviteId } = await bo.next("call:notify");
    bo.emit("call:decline", { inviteId });
    await ada.next("call:declined");
    for (const [index, [person, other]] of [[ada, bo], [bo, ada]].entries()) {
      const answer = await ask(person, { "if-none-match": before[index] });
      assert.equal(answer.status, 200);
      assert.equal(answer.body.users.find(({ userId }) => userId === other.id).hasCooldown, true, "at once");
    }
  });

  fact("who joins and leaves again and again is heard of twice a second, at last as he is", async (cast) => {
    const [watcher, flapper] = await cast.queued();
    const of = ({ userId }) => userId === flapper.id;
    const heard = () => watcher.all("queue:update").filter(of);
    const [before, from] = [heard().length, Date.now()];
    for (let i = 0; i < 50; i++) {
      flapper.emit("queue:leave");
      flapper.emit("queue:join");
      await flapper.settle();
    }
    flapper.emit("queue:leave");
    await joinQueue(flapper, watcher);
    await eventually("he is told of as he is", () => heard().at(-1)?.available);
    const seconds = Math.ceil((Date.now() - from) / 1000);
    assert.ok(heard().length - before <= 2 * (seconds + 1), `${heard().length - before} changes in ${seconds} s`);
  });
  // The first needs a queue that is empty.
}, { atOnce: 1 });

suite("queue of hundreds", servers[2], ({ fact }) => {
  fact("each who looks hears once, and in order, of one who comes and goes", async () => {
    const [server, [flapper, ...viewers]] = [servers[2], await guests(servers[2].url, 1 + VIEWERS)];
    const heard = viewers.map(() => []);
    const join = async ({ token }, hear) => (await LeanSocket.open(server.port, { hear })).bind(token);
    await each(viewers, 24, async (viewer, index) => {
      const socket = await join(viewer, (name, { userId, online, available }) => userId === flapper.id && heard[index].push([name, online, available]));
      socket.emit("queue:join");
      await socket.settle(viewer.token);
    });
    const person = await join(flapper, () => {});
    const expected = [];
    for (const [event, ...changes] of [
      ["queue:join", ["presence:update", true, true], ["queue:update", undefined, true]],
      ["queue:leave", ["queue:update", undefined, false]],
      ["presence:leave", ["presence:update", false, false]],
    ]) {
      person.emit(event);
      expected.push(...changes);
      await eventually(`all hear of ${event}`, () => heard.every((one) => one.length >= expected.length));
    }
    heard.forEach((one) => assert.deepEqual(one, expected));
  });
});

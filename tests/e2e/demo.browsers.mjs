// The page at `/demo` in real browsers: two people meet, talk, and part in every way there is.
//
// Run it where only a loopback is: `unshare -Urn sh -c "ip link set lo up && node --test …"`.

import assert from "node:assert/strict";
import { rmSync } from "node:fs";
import { after, describe, it } from "node:test";
import { Person, atHome, call, chat, flowing, lasting, launchBrowser, ring } from "./browser.mjs";
import { ok, request } from "./client.mjs";
import { LeanSocket } from "./lean.mjs";
import { Server, eventually, freePort, pause } from "./server.mjs";

const WEIGHT_MAX = 60_000;
/** Of half a second; the camera's beeps have a thousand times as much. */
const ENERGY_OF_SILENCE = 1e-4;
/** A browser reports every connection that it could not make. */
const OUTAGE = /^WebSocket connection to .* failed|ERR_CONNECTION_REFUSED/;

const [server, browser] = await Promise.all([Server.start(), launchBrowser()]);
let pairs = 0;

/** A test with the two people it is about; nobody's console or network may have had anything to complain of. */
function fact(name, body, { on = () => server, excused = /^$/, options = [{}, {}] } = {}) {
  it(name, { timeout: 110_000 }, async () => {
    const number = ++pairs;
    const own = await on();
    const people = await Person.meet(browser, own, ...options.map((one, index) => ({ name: `${["Ann", "Bo"][index]} ${number}`, ...one })));
    try {
      await body(...people, own);
      for (const person of people) {
        assert.deepEqual(person.complaints.filter((text) => !excused.test(text)), [], `${person.name}'s console`);
        assert.deepEqual(person.strangers, [], "requests to other hosts");
      }
    } catch (error) {
      for (const person of people) error.message += `\n--- ${person.name}: ${await person.page.locator("body").innerText().catch(String)}\n${person.complaints.join("\n")}`;
      throw error;
    } finally {
      await Promise.all(people.map((person) => person.leaves()));
      if (own !== server) await own.kill();
    }
  });
}

describe("demo page", { concurrency: 2 }, () => {
  after(async () => {
    await browser.close();
    await server.stop();
  });

  // First, because it waits longest.
  fact("nobody answers: both are told when the server gives up", async (ann, bo) => {
    await ring(ann, bo);
    ann.page.setDefaultTimeout(60_000);
    await atHome(ann, `${bo.name} did not answer.`);
    await bo.page.locator("dialog[open]").waitFor({ state: "detached" });
  });

  fact("two people meet, see and hear each other, chat, hang up, and find it in their history", async (ann, bo) => {
    assert.ok(ann.bytes > 5_000 && ann.bytes < WEIGHT_MAX, `the page weighs ${ann.bytes} bytes`);
    console.log(`demo: the page weighs ${ann.bytes} bytes, as sent`);
    await call(ann, bo);
    await ann.sees(/^Direct · host · \d+ ms$/);
    await chat(ann, bo, "Hello there");
    await chat(bo, ann, "<b>And hello to you</b>");
    await lasting(ann);
    await ann.press("Hang up");
    await Promise.all([atHome(ann, "You hung up."), atHome(bo, `The call with ${ann.name} has ended.`)]);
    for (const [person, other] of [[ann, bo], [bo, ann]]) {
      const card = person.page.locator("#cards li", { hasText: other.name });
      await card.getByText(/you can call in 2\d hours/).waitFor();
      assert.ok(await card.getByRole("button").isDisabled());
      await person.press("History");
      await person.page.locator("summary", { hasText: other.name }).click();
      await person.sees("Hello there");
      await person.sees("<b>And hello to you</b>");
    }
  });

  fact("the queue follows who comes and goes, without a reload", async (ann, bo) => {
    const cy = await Person.arrive(browser, server, { name: `Cy ${bo.name}` });
    const card = ann.page.getByRole("button", { name: `Call ${cy.name}`, exact: true });
    assert.equal(await card.count(), 0);
    await cy.signUp("rather not say");
    await card.waitFor();
    await cy.press("Sign out");
    await cy.sees("You have signed out.");
    await card.waitFor({ state: "detached" });
    await cy.leaves();
  });

  fact("a queue that has not changed is a 304 on the wire and whole to the page", async (ann) => {
    const wire = await ann.page.context().newCDPSession(ann.page);
    // Of a request, its address and its status on the wire are told by two processes of the browser: in either order, and late.
    const [looks, statuses] = [[], new Map()];
    wire.on("Network.requestWillBeSent", ({ requestId, request }) => request.url.endsWith("/room/queue?limit=9") && looks.push(requestId));
    wire.on("Network.responseReceivedExtraInfo", ({ requestId, statusCode }) => statuses.set(requestId, statusCode));
    await wire.send("Network.enable");
    const token = await ann.page.evaluate(async () => {
      const asked = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ name: "Eve", gender: "female" }) };
      return (await (await fetch("/auth/guest", asked)).json()).sessionToken;
    });
    let looked = 0;
    const look = async () => {
      const page = await ann.page.evaluate(async (token) => {
        const response = await fetch("/room/queue?limit=9", { headers: { authorization: `Bearer ${token}` } });
        return { status: response.status, body: await response.text() };
      }, token);
      looked += 1;
      await eventually("the browser tells what was on the wire", () => looks.length === looked && statuses.has(looks.at(-1)));
      return { page, onTheWire: statuses.get(looks.at(-1)) };
    };
    // Both are still on their way into the queue.
    let last = await look();
    assert.equal(last.onTheWire, 200);
    await eventually("a second look is answered 304", async () => {
      const before = last;
      last = await look();
      if (last.onTheWire !== 304) return false;
      assert.deepEqual(last.page, before.page);
      assert.equal(JSON.parse(last.page.body).users.length, 2);
      return true;
    });
  }, { on: () => Server.start() });

  fact("who comes while the queue is being fetched is seen as well", async (ann, bo) => {
    const cy = await Person.arrive(browser, server, { name: `Cy ${bo.name}` });
    const told = (id) => eventually("the server tells of somebody", () => ann.frames.some((frame) => frame.includes("queue:update") && frame.includes(id)));
    const { userId: gone } = await bo.page.evaluate(() => JSON.parse(sessionStorage["duet.me"]));
    const fetched = new Promise((resolve) => {
      const hold = async (route) => {
        const response = await route.fetch();
        await cy.signUp();
        const { userId } = await cy.page.evaluate(() => JSON.parse(sessionStorage["duet.me"]));
        await told(userId);
        await route.fulfill({ response });
        resolve();
      };
      ann.page.route("**/room/queue", hold, { times: 1 });
    });
    await bo.press("Sign out");
    await told(gone);
    await fetched;
    await ann.page.getByRole("button", { name: `Call ${cy.name}`, exact: true }).waitFor();
    await cy.leaves();
  });

  fact("a reload in mid-call resumes it, whoever reloads", async (ann, bo) => {
    await call(ann, bo);
    await chat(ann, bo, "before");
    for (const person of [bo, ann]) {
      await person.page.reload();
      await Promise.all([flowing(ann), flowing(bo)]);
      await person.sees("before");
    }
    await chat(bo, ann, "after");
    await lasting(ann);
    await bo.press("Hang up");
    await atHome(ann, `The call with ${bo.name} has ended.`);
    await ann.press("History");
    await ann.sees("2 messages");
    assert.equal(await ann.page.locator("#calls > li").count(), 1);
  });

  fact("both reload at the same time", async (ann, bo) => {
    await call(ann, bo);
    await Promise.all([ann.page.reload(), bo.page.reload()]);
    await Promise.all([flowing(ann), flowing(bo)]);
  });

  fact("who declines is not called again for a day", async (ann, bo) => {
    await ring(ann, bo);
    await bo.press("Decline");
    await atHome(ann, `${bo.name} declined.`);
    await ann.sees(/you can call in 2\d hours/);
  });

  fact("keep waiting lengthens the countdown of both, cancel ends it", async (ann, bo) => {
    await ring(ann, bo);
    await ann.press("Keep waiting");
    for (const person of [ann, bo]) await person.page.locator("dialog[open] .countdown", { hasText: /^3\d s$/ }).waitFor();
    await ann.press("Cancel");
    await bo.page.locator("dialog[open]").waitFor({ state: "detached" });
    await ann.sees(/you can call in (59|60) minutes/);
  });

  fact("the partner's tab is closed: the other is told and is back in the queue", async (ann, bo) => {
    await call(ann, bo);
    await bo.page.close();
    await atHome(ann, `${bo.name} has gone.`);
  });

  const secondLogin = async (ann, bo, { url }) => {
    const me = await ann.page.evaluate(() => JSON.parse(sessionStorage["duet.me"]));
    const post = (path, body) => fetch(url + path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) }).then((answer) => answer.json());
    const login = { email: `${me.userId}@example.org`, password: "correct horse" };
    assert.ok((await post("/auth/link", { ...login, sessionToken: me.token })).success);
    const { sessionToken } = await post("/auth/login", login);
    await ann.sees("You were signed out here: your account was opened somewhere else.");
    await bo.press("Sign out");
    await bo.sees("You have signed out.");
    await bo.page.evaluate((me) => (sessionStorage["duet.me"] = JSON.stringify(me)), { ...me, token: sessionToken });
    await bo.page.reload();
    await bo.page.locator("#my-name", { hasText: ann.name }).waitFor();
    await bo.page.locator("#online").waitFor();
  };
  // A request may have been on its way when the session ended.
  fact("a second login ends the first, which is told", secondLogin, { excused: /status of 401/ });

  fact(
    "the server is killed and restarted: picture and sound go on, and then chat and the end of the call as ever",
    async (ann, bo, own) => {
      await call(ann, bo);
      await own.kill();
      for (const person of [ann, bo]) {
        await person.sees("Reconnecting…");
        await flowing(person);
      }
      await own.launch();
      for (const person of [ann, bo]) {
        await person.page.locator("#offline").waitFor({ state: "hidden" });
        await flowing(person);
        assert.equal(await person.page.evaluate(() => window.peers.length), 1, "it is still the first connection");
      }
      await chat(ann, bo, "still here");
      await chat(bo, ann, "me too");
      await ann.press("Hang up");
      await Promise.all([atHome(ann, "You hung up."), atHome(bo, `The call with ${ann.name} has ended.`)]);
    },
    { on: () => Server.start(), excused: OUTAGE },
  );

  fact(
    "the server comes back after the call's grace: picture and sound go on, one is told that the rest does not, and how it ends",
    async (ann, bo, own) => {
      await call(ann, bo);
      await lasting(ann);
      await own.stop();
      // Where nobody finds it, it waits for the two, and ends their call.
      const { port } = own;
      own.port = await freePort();
      await own.launch();
      const { token } = await ann.page.evaluate(() => JSON.parse(sessionStorage["duet.me"]));
      await eventually("the call is history", async () => (await ok(request(own.url, "GET", "/room/history", { token }))).history.length === 1);
      await own.stop();
      own.port = port;
      await own.launch();
      for (const person of [ann, bo]) {
        await person.sees("The server was restarted and has forgotten this call. Picture and sound go on; chat and history do not.");
        await flowing(person);
        assert.ok(await person.page.getByLabel("Message").isDisabled());
      }
      await ann.press("Hang up");
      await Promise.all([atHome(ann, "You hung up."), atHome(bo, `${ann.name} has gone.`)]);
      await ann.press("History");
      const calls = ann.page.locator("#calls > li");
      await calls.first().waitFor();
      assert.equal(await calls.count(), 1);
    },
    { on: () => Server.start({ "resume-seconds": 1 }), excused: OUTAGE },
  );

  fact(
    "the server comes back without its data: the visit has ended, and one signs up again",
    async (ann, bo, own) => {
      await call(ann, bo);
      await own.kill();
      rmSync(own.flags.data, { recursive: true });
      await own.launch();
      for (const person of [ann, bo]) {
        await person.sees("Your visit has ended. Sign up again to go on.");
        await person.signUp();
      }
      await call(ann, bo);
    },
    { on: () => Server.start(), excused: OUTAGE },
  );

  fact("without camera and microphone one is told why, and can still watch and listen", async (ann, bo) => {
    await bo.sees("Your browser keeps camera and microphone from this page.");
    await ann.invite(bo);
    await bo.press("Accept");
    await flowing(bo);
    await ann.sees(`No picture from ${bo.name}`);
  }, { options: [{}, { media: false }] });

  fact("muted and with the camera off, no sound and no picture leave", async (ann, bo) => {
    await call(ann, bo);
    await ann.press("Mute microphone");
    await ann.press("Turn camera off");
    let before = await bo.media();
    await eventually("packets of silence", async () => {
      const now = await bo.media();
      if (now.sound < before.sound + 25) return false;
      const heard = now.energy - before.energy;
      before = now;
      return heard < ENERGY_OF_SILENCE;
    }, 20_000);
    assert.equal(await ann.page.locator("#local").evaluate((video) => video.srcObject.getTracks().some(({ enabled }) => enabled)), false);
  });

  fact(
    "at 360 pixels nothing is wider than the screen, and the keyboard is enough",
    async (ann, bo) => {
      const fits = async (view) => {
        const [wide, high] = await ann.page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
        assert.ok(wide <= high, `${view}: ${wide} pixels`);
      };
      await fits("lobby");
      await ann.page.getByRole("button", { name: `Call ${bo.name}` }).focus();
      await ann.page.keyboard.press("Enter");
      await bo.sees(`${ann.name} is calling`);
      await fits("ringing");
      assert.equal(await bo.page.evaluate(() => document.activeElement.id), "accept");
      await bo.page.keyboard.press("Escape");
      await bo.page.keyboard.press("Enter");
      await Promise.all([flowing(ann), flowing(bo)]);
      await fits("call");
      assert.equal(await ann.page.evaluate(() => document.activeElement.id), "peer-name");
      await ann.press("Chat");
      await chat(ann, bo, "x".repeat(200));
      await fits("chat");
      await lasting(ann);
      await ann.press("Hang up");
      await atHome(ann, "You hung up.");
      await ann.press("History");
      await ann.page.locator("summary").press("Enter");
      await fits("history");
    },
    { options: [{ viewport: { width: 360, height: 740 } }, {}] },
  );

  it("a page whose place a third connection takes says so, and does not fight for it", { timeout: 60_000 }, async () => {
    const ann = await Person.arrive(browser, server, { name: "Ann thrice" });
    await ann.signUp();
    const { token } = await ann.page.evaluate(() => JSON.parse(sessionStorage.getItem("duet.me")));
    const others = [await LeanSocket.open(server.port), await LeanSocket.open(server.port)];
    for (const other of others) await other.bind(token);
    await ann.sees("Closed here: reload this page to go on");
    // Longer than the page's first pauses together.
    await pause(3_000);
    for (const other of others) await other.settle(token);
    others.forEach((other) => other.destroy());
    await ann.page.reload();
    await ann.page.locator("#lobby").waitFor();
    await ann.leaves();
  });

  it("a copy of a tab becomes somebody else", { timeout: 60_000 }, async () => {
    const ann = await Person.arrive(browser, server, { name: "Ann twice" });
    await ann.signUp();
    const kept = await ann.page.evaluate(() => ({ ...sessionStorage }));
    const copy = await ann.page.context().newPage();
    await copy.addInitScript((kept) => Object.assign(sessionStorage, kept), kept);
    await copy.goto(`${server.url}/demo`);
    await copy.getByRole("button", { name: "Start" }).waitFor();
    await ann.leaves();
  });
});

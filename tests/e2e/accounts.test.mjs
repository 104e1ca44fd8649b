// Accounts, sessions, profile and TURN (contract 2.5, 2.6, 2.10; D24 to D26, D34, D35).

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { suite, within } from "./cast.mjs";
import { freshAddress, request } from "./client.mjs";
import { Server } from "./server.mjs";

const TURN_URLS = "turn:turn.example.org:3478?transport=udp,turns:turn.example.org:5349";
const TURN_SECRET = "a shared secret";
const server = await Server.start({ "turn-urls": TURN_URLS, "turn-secret": TURN_SECRET });
const PASSWORD = "correct horse";

const post = (path, body, address = freshAddress()) => request(server.url, "POST", path, { body, address });
const login = (email, password, address) => post("/auth/login", { email, password }, address);
const link = (person, email, password = PASSWORD) => post("/auth/link", { sessionToken: person.token, email, password });
const refused = ({ status, body }, expected, error) => {
  assert.deepEqual([status, typeof body?.error], [expected, "string"], JSON.stringify(body));
  if (error) assert.equal(body.error, error);
};

suite("accounts", server, ({ fact }) => {
  fact("a guest needs a name of 1 to 100 printable characters and a known gender (D34)", async () => {
    const gender = "female";
    for (const name of [undefined, "", "   ", null]) refused(await post("/auth/guest", { name, gender }), 400, "Name is required");
    for (const name of ["x".repeat(101), "a\u0000b", 7, {}, ["a"]]) refused(await post("/auth/guest", { name, gender }), 400);
    for (const wrong of ["", "FEMALE", 1, null, undefined]) refused(await post("/auth/guest", { name: "Ada", gender: wrong }), 400, "Invalid gender");
    for (const good of ["female", "male", "nonbinary", "unspecified"]) assert.equal((await post("/auth/guest", { name: "é".repeat(100), gender: good })).status, 200);
  });

  fact("an invite code is checked for form, then for existence; an unknown referral code is ignored", async () => {
    const guest = { name: "Ada", gender: "female" };
    refused(await post("/auth/guest", { ...guest, inviteCode: "short" }), 400, "Invalid invite code format");
    refused(await post("/auth/guest", { ...guest, inviteCode: "ABCDEFGH12345678" }), 403, "Invalid invite code");
    const made = await post("/auth/guest", { ...guest, referralCode: "NOSUCHCODE" });
    assert.deepEqual([made.status, made.body.wasReferred], [200, false]);
  });

  fact("a name is trimmed, and profile and own card show it", async (cast) => {
    const ada = await cast.guest({ name: "  Ada L.  ", gender: "nonbinary" });
    const me = await ada.get("/user/me");
    assert.deepEqual(
      [me.userId, me.name, me.gender, me.accountType, me.paidStatus, me.timerTotalSeconds, me.sessionCount, me.lastSessions, me.email ?? null],
      [ada.id, "Ada L.", "nonbinary", "guest", "paid", 0, 0, [], null],
    );
    within(me.createdAt, Date.now() - 60_000, Date.now() + 1_000, "createdAt");
    const own = await ada.get("/room/me");
    assert.deepEqual([own.userId, own.name, own.timerTotal], [ada.id, "Ada L.", 0]);
  });

  fact("a token may come bare, and without a good one the two texts of 401 apply", async (cast) => {
    const ada = await cast.guest();
    const me = (headers) => request(server.url, "GET", "/user/me", { headers });
    assert.equal((await me({ authorization: ada.token })).status, 200);
    assert.equal((await me({ authorization: `bearer ${ada.token}` })).status, 200);
    refused(await me({}), 401, "Authorization required");
    const wrong = ada.token.slice(0, -2) + (ada.token.endsWith("AA") ? "BB" : "AA");
    for (const token of ["nonsense", wrong, "x".repeat(8000)]) refused(await me({ authorization: `Bearer ${token}` }), 401, "Invalid or expired session");
  });

  fact("linking wants an e-mail and a password within bounds, and then login works in any case (D26)", async (cast) => {
    const ada = await cast.guest();
    const email = `${ada.id}@example.org`;
    refused(await post("/auth/link", { email, password: PASSWORD }), 400, "Session token, email, and password are required");
    refused(await post("/auth/link", { sessionToken: "nonsense", email, password: PASSWORD }), 401, "Invalid or expired session");
    for (const wrong of ["no-at-sign", "@example.org", "a@", `${"x".repeat(250)}@example.org`]) refused(await link(ada, wrong), 400);
    for (const wrong of ["short", "x".repeat(129)]) refused(await link(ada, email, wrong), 400);
    assert.deepEqual((await link(ada, email)).body, { success: true, accountType: "permanent" });
    const again = await login(` ${email.toUpperCase()} `, PASSWORD);
    assert.deepEqual([again.status, again.body.userId], [200, ada.id]);
    const me = await request(server.url, "GET", "/user/me", { token: again.body.sessionToken });
    assert.deepEqual([me.body.accountType, me.body.email], ["permanent", email]);
  });

  fact("an e-mail belongs to one account whatever its case, and a token alone cannot change a login (D26)", async (cast) => {
    const [ada, bo] = [await cast.guest(), await cast.guest()];
    const email = `${ada.id}@example.org`;
    assert.equal((await link(ada, email)).status, 200);
    refused(await link(bo, email.toUpperCase()), 409, "Email already registered");
    assert.equal((await link(ada, email)).status, 200, "the same again is fine (W7)");
    refused(await link(ada, email, "another password"), 409);
    refused(await link(ada, `other-${email}`), 409);
    assert.equal((await login(email, PASSWORD)).status, 200);
    refused(await login(email, "another password"), 401);
  });

  fact("login tells no difference between unknown e-mail and wrong password (D25)", async (cast) => {
    const ada = await cast.guest();
    const email = `${ada.id}@example.org`;
    await link(ada, email);
    const answers = [await login(email, "wrong password"), await login(`nobody-${email}`, "wrong password")];
    for (const answer of answers) refused(answer, 401, "Invalid credentials");
    assert.equal(answers[0].text, answers[1].text);
    for (const body of [{}, { email }, { password: PASSWORD }]) refused(await post("/auth/login", body), 400, "Email and password are required");
  });

  fact("login ends the earlier sessions and only those (D24)", async (cast) => {
    const [ada, bo] = [await cast.guest(), await cast.guest()];
    const email = `${ada.id}@example.org`;
    await link(ada, email);
    const first = (await login(email, PASSWORD)).body;
    const second = (await login(email, PASSWORD)).body;
    assert.deepEqual([first.sessionInvalidated, second.sessionInvalidated, second.invalidatedCount], [true, true, 1]);
    for (const token of [ada.token, first.sessionToken]) {
      const { status, body } = await request(server.url, "GET", "/user/me", { token });
      assert.deepEqual([status, body.error, body.sessionInvalidated, typeof body.message], [401, "Session invalidated", true, "string"]);
      refused(await post("/auth/link", { sessionToken: token, email, password: PASSWORD }), 401);
    }
    assert.equal((await request(server.url, "GET", "/user/me", { token: second.sessionToken })).status, 200);
    await bo.get("/user/me");
  });

  fact("socials are at most 10 pairs of strings of at most 100 characters, replaced as a whole (D34)", async (cast) => {
    const ada = await cast.guest();
    const put = (socials) => ada.http("PUT", "/user/me", { body: { socials } });
    const first = await put({ instagram: "ada.l", tiktok: "ada" });
    assert.deepEqual(first.body, { success: true, user: { userId: ada.id, name: ada.name, socials: { instagram: "ada.l", tiktok: "ada" } } });
    await ok200(put({ discord: "ada#1" }));
    const pairs = (count) => Object.fromEntries(Array.from({ length: count }, (_, i) => [`p${i}`, "x"]));
    for (const wrong of [{ a: 1 }, { a: { b: "c" } }, ["a"], "a", 7, { a: "x".repeat(101) }, { ["x".repeat(101)]: "a" }, pairs(11)]) refused(await put(wrong), 400);
    assert.deepEqual((await ada.get("/user/me")).socials, { discord: "ada#1" });
    await ok200(put(pairs(10)));
  });

  fact("TURN credentials are coturn's: an expiry and a user, signed with the secret (D35)", async (cast) => {
    const ada = await cast.guest();
    const { iceServers, expiresAt, provider } = await ada.get("/turn/credentials");
    assert.ok(Array.isArray(iceServers) && typeof provider === "string");
    within(expiresAt - Date.now(), 3_500_000, 3_700_000, "ms until they expire");
    const relays = iceServers.filter(({ username }) => username !== undefined);
    assert.deepEqual(relays.flatMap(({ urls }) => urls).sort(), TURN_URLS.split(",").sort());
    for (const { username, credential } of relays) {
      assert.match(username, /^\d+(:.+)?$/);
      within(Number(username.split(":")[0]) * 1000 - Date.now(), 3_400_000, 3_700_000, "ms in the username");
      assert.equal(credential, createHmac("sha1", TURN_SECRET).update(username).digest("base64"));
    }
    const status = await ada.get("/turn/status");
    assert.deepEqual([status.cloudflare, status.twilio, Number.isInteger(status.timestamp)], [false, false, true]);
    refused(await request(server.url, "GET", "/turn/credentials"), 401, "Authorization required");
  });

  fact("TURN credentials are limited per user, far above what calls need (D35)", async (cast) => {
    const [ada, bo] = [await cast.guest(), await cast.guest()];
    const statuses = [];
    for (let i = 0; i < 120; i++) statuses.push((await ada.http("GET", "/turn/credentials")).status);
    const granted = statuses.indexOf(429);
    within(granted, 40, 119, "requests until 429");
    const { body, headers } = await ada.http("GET", "/turn/credentials");
    assert.deepEqual([body.error, Number(headers["retry-after"]) > 0], ["Too many TURN credential requests", true]);
    assert.equal((await request(server.url, "GET", "/turn/credentials", { token: bo.token, address: ada.account.address })).status, 200);
  });
});

async function ok200(answer) {
  const { status, text } = await answer;
  assert.equal(status, 200, text);
}

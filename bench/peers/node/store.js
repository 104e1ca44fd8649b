// Users, sessions, cooldowns and history in Postgres, users and sessions behind LRU caches.

import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { LRUCache } from "lru-cache";
import pg from "pg";

const GUEST_SESSION_MS = 7 * 24 * 3600 * 1000;
const HISTORY_MAX = 200;
const PROFILE = "user_id, name, gender, selfie_url, video_url";

// bigint: all of ours are safe integers.
pg.types.setTypeParser(pg.types.builtins.INT8, Number);

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 20, idleTimeoutMillis: 30_000 });
pool.on("error", (error) => console.error("database:", error.message));

export const users = new LRUCache({ max: 200, ttl: 5 * 60_000 });
export const sessions = new LRUCache({ max: 300, ttl: 5 * 60_000 });

const ordered = (a, b) => (a < b ? [a, b] : [b, a]);

async function rows(text, values) {
  return (await pool.query(text, values)).rows;
}

export async function open() {
  await pool.query(readFileSync(new URL("../schema.sql", import.meta.url), "utf8"));
}

export function close() {
  return pool.end();
}

async function transaction(work) {
  const client = await pool.connect();
  try {
    await client.query("BEGIN");
    const result = await work(client);
    await client.query("COMMIT");
    return result;
  } catch (error) {
    await client.query("ROLLBACK");
    throw error;
  } finally {
    client.release();
  }
}

export async function createGuest(name, gender) {
  const [userId, sessionToken, now] = [randomUUID(), randomUUID(), Date.now()];
  await transaction(async (client) => {
    await client.query("INSERT INTO users (user_id, name, gender, created_at) VALUES ($1, $2, $3, $4)", [userId, name, gender, now]);
    await client.query("INSERT INTO sessions (session_token, user_id, created_at, expires_at) VALUES ($1, $2, $3, $4)", [
      sessionToken,
      userId,
      now,
      now + GUEST_SESSION_MS,
    ]);
  });
  return { userId, sessionToken };
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** The user id of a valid session, else undefined. */
export async function userOfSession(token) {
  if (typeof token !== "string" || !UUID.test(token)) return undefined;
  let session = sessions.get(token);
  if (!session) {
    [session] = await rows("SELECT user_id, expires_at FROM sessions WHERE session_token = $1 AND is_active", [token]);
    if (session) sessions.set(token, session);
  }
  return session && session.expires_at > Date.now() ? session.user_id : undefined;
}

export async function getUser(userId) {
  let user = users.get(userId);
  if (!user) {
    [user] = await rows("SELECT * FROM users WHERE user_id = $1", [userId]);
    if (user) users.set(userId, user);
  }
  return user;
}

/** When the cooldown of this pair ends, or undefined. */
export async function cooldownOf(a, b) {
  const [row] = await rows("SELECT expires_at FROM cooldowns WHERE lower_id = $1 AND higher_id = $2 AND expires_at > $3", [
    ...ordered(a, b),
    Date.now(),
  ]);
  return row?.expires_at;
}

/** The profiles of these users, in this order, each with `cooldown`: when the one with `me` ends, or null. */
export function profilesFor(me, userIds) {
  return rows(
    `SELECT ${PROFILE}, c.expires_at AS cooldown
     FROM unnest($2::uuid[]) WITH ORDINALITY AS listed (id, place)
     JOIN users ON user_id = id
     LEFT JOIN cooldowns c ON lower_id = least(id, $1) AND higher_id = greatest(id, $1) AND c.expires_at > $3
     ORDER BY place`,
    [me, userIds, Date.now()],
  );
}

const SET_COOLDOWN = `INSERT INTO cooldowns VALUES ($1, $2, $3)
  ON CONFLICT (lower_id, higher_id) DO UPDATE SET expires_at = excluded.expires_at`;

export async function setCooldown(a, b, ms) {
  await pool.query(SET_COOLDOWN, [...ordered(a, b), Date.now() + ms]);
}

/** Stores a finished call: history and totals of both, their cooldown. Gives each one's new totals. */
export async function finishCall({ sessionId, roomId, startedAt, duration, messages, names }, cooldownMs) {
  const ids = Object.keys(names);
  return transaction(async (client) => {
    for (const [me, partner] of [ids, [ids[1], ids[0]]]) {
      await client.query("INSERT INTO chat_history VALUES ($1, $2, $3, $4, $5, $6, $7, $8)", [
        sessionId,
        me,
        partner,
        names[partner],
        roomId,
        startedAt,
        duration,
        JSON.stringify(messages),
      ]);
    }
    await client.query(SET_COOLDOWN, [...ordered(...ids), Date.now() + cooldownMs]);
    // Both rows are taken in one order, so that two calls of the same people cannot lock each other.
    const totals = await client.query(
      `UPDATE users SET timer_total_seconds = timer_total_seconds + $2, session_count = session_count + 1,
         last_sessions = jsonb_path_query_array(last_sessions || $3::jsonb, '$[last - 9 to last]')
       WHERE user_id IN (SELECT user_id FROM users WHERE user_id = ANY($1) ORDER BY user_id FOR UPDATE)
       RETURNING user_id, timer_total_seconds, session_count, last_sessions`,
      [ids, duration, JSON.stringify({ at: startedAt, duration })],
    );
    ids.forEach((id) => users.delete(id));
    return totals.rows;
  });
}

export function historyOf(userId) {
  return rows(
    `SELECT session_id, room_id, partner_id, partner_name, started_at, duration, messages FROM chat_history
     WHERE user_id = $1 ORDER BY started_at DESC LIMIT ${HISTORY_MAX}`,
    [userId],
  );
}

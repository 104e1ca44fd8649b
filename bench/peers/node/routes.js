// The HTTP routes of the application peer: sign-up, profile, queue, history, health.

import { readFileSync } from "node:fs";
import compression from "compression";
import express from "express";
import * as store from "./store.js";

export const CONNECTION_LIMIT = Number(process.env.CONNECTION_LIMIT ?? 1200);
export const ORIGINS = (process.env.ALLOWED_ORIGINS ?? "http://localhost:3000").split(",");
const REFERENCE = process.env.REFERENCE === "on";
const GENDERS = ["female", "male", "nonbinary", "unspecified"];
const HEADERS = JSON.parse(readFileSync(new URL("../headers.json", import.meta.url), "utf8"));

/** What others may know of a user. */
export const card = (user) => ({
  userId: user.user_id,
  name: user.name,
  gender: user.gender,
  selfieUrl: user.selfie_url,
  videoUrl: user.video_url,
});

const listed = (user, cooldown) => ({
  ...card(user),
  hasCooldown: Boolean(cooldown),
  cooldownExpiry: cooldown ?? null,
  wasIntroducedToMe: false,
  introducedBy: null,
});

const route = (handler) => (request, response, next) => handler(request, response).catch(next);

const authorized = async (request, response, next) => {
  try {
    const { authorization } = request.headers;
    if (!authorization) return response.status(401).json({ error: "Authorization required" });
    request.userId = await store.userOfSession(authorization.replace(/^Bearer /, ""));
    if (!request.userId) return response.status(401).json({ error: "Invalid or expired session" });
    next();
  } catch (error) {
    next(error);
  }
};

async function queried(me, userId) {
  const [user, cooldown] = [await store.getUser(userId), await store.cooldownOf(me, userId)];
  console.log(`[Queue] ${me} sees ${userId} ${user?.name} cooldown=${Boolean(cooldown)}`);
  return user && listed(user, cooldown);
}

/** The routes over the server's presence map and its count of connections. */
export function routes(presence, connections) {
  const app = express();
  app.disable("x-powered-by");
  app.use(compression({ level: 6, threshold: 1024 }));
  app.use((request, response, next) => {
    response.set(HEADERS);
    const { origin } = request.headers;
    if (!origin || !ORIGINS.includes(origin)) return next();
    response.set({ "Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true" }).vary("Origin");
    if (request.method !== "OPTIONS") return next();
    response.set({
      "Access-Control-Allow-Methods": "GET,HEAD,PUT,PATCH,POST,DELETE",
      "Access-Control-Allow-Headers": request.headers["access-control-request-headers"] ?? "",
    });
    response.sendStatus(204);
  });
  app.use(express.json({ limit: "100kb" }));

  app.post("/auth/guest", route(async ({ body }, response) => {
    const name = typeof body.name === "string" ? body.name.trim() : "";
    if (name === "") return response.status(400).json({ error: "Name is required" });
    if (!GENDERS.includes(body.gender)) return response.status(400).json({ error: "Invalid gender" });
    const { userId, sessionToken } = await store.createGuest(name, body.gender);
    response.json({
      userId,
      sessionToken,
      accountType: "guest",
      wasReferred: false,
      targetUser: null,
      targetOnline: false,
      referralCode: null,
      paidStatus: "paid",
      requiresPayment: false,
    });
  }));

  app.get("/user/me", authorized, route(async ({ userId }, response) => {
    const user = await store.getUser(userId);
    if (!user) return response.status(404).json({ error: "User not found" });
    response.json({
      ...card(user),
      accountType: user.account_type,
      email: user.email,
      socials: user.socials,
      paidStatus: user.paid_status,
      createdAt: user.created_at,
      timerTotalSeconds: user.timer_total_seconds,
      sessionCount: user.session_count,
      lastSessions: user.last_sessions,
      streakDays: null,
    });
  }));

  app.get("/room/queue", authorized, route(async ({ userId }, response) => {
    const ids = [...presence.keys()].filter((id) => id !== userId && presence.get(id).available);
    const users = REFERENCE
      ? await Promise.all(ids.map((id) => queried(userId, id)))
      : (await store.profilesFor(userId, ids)).map((user) => listed(user, user.cooldown));
    response.json({ users: users.filter(Boolean), totalAvailable: ids.length });
  }));

  app.get("/room/history", authorized, route(async ({ userId }, response) => {
    const history = (await store.historyOf(userId)).map((row) => ({
      sessionId: row.session_id,
      roomId: row.room_id,
      partnerId: row.partner_id,
      partnerName: row.partner_name,
      startedAt: row.started_at,
      duration: row.duration,
      messages: row.messages,
    }));
    response.json({ history });
  }));

  app.get("/health", (request, response) => {
    const { heapUsed, heapTotal, rss } = process.memoryUsage();
    const megabytes = (bytes) => `${(bytes / 2 ** 20).toFixed(2)} MB`;
    const total = connections();
    response.json({
      status: "ok",
      timestamp: Date.now(),
      memory: {
        heapUsed: megabytes(heapUsed),
        heapTotal: megabytes(heapTotal),
        rss: megabytes(rss),
        usage: `${((100 * heapUsed) / heapTotal).toFixed(1)}%`,
      },
      connections: { users: presence.size, total, limit: CONNECTION_LIMIT },
      cache: {
        users: { size: store.users.size, maxSize: store.users.max },
        sessions: { size: store.sessions.size, maxSize: store.sessions.max },
      },
    });
  });

  app.use((request, response) => response.status(404).json({ error: "Not found" }));
  app.use((error, request, response, next) => {
    if (response.headersSent) return next(error);
    if (!error.status) console.error(error);
    response.status(error.status ?? 500).json({ error: error.status ? error.message : "Internal error" });
  });
  return app;
}

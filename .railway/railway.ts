// duet on Railway: one service from the Dockerfile, Postgres beside it. `railway config plan` shows what it would change,
// `railway config apply` does it, `railway up` deploys this folder.

import { defineRailway, postgres, preserve, project, service } from "railway/iac";

/** What an orderly stop may take (duet's default), and until Railway kills. */
const DRAIN_SECONDS = 10;
const DRAINING_SECONDS = DRAIN_SECONDS + 10;

/** Railway's edge carries no more for one service. */
const EDGE_CONNECTIONS_MAX = 10_000;

const PORT = 3001;

export default defineRailway((context) => {
  const database = postgres("postgres");

  const duet = service("duet", {
    build: { builder: "DOCKERFILE", dockerfilePath: "Dockerfile" },
    deploy: {
      healthcheckPath: "/ready",
      healthcheckTimeout: 120,
      restartPolicyType: "ALWAYS",
      drainingSeconds: DRAINING_SECONDS,
      // Two that serve at once would each know half of the users; calls pass to the new one when the old one has stopped.
      overlapSeconds: 0,
      sleepApplication: false,
      // duet takes its limits from the container's; the rest of the machine is not its own.
      limitOverride: { containers: { cpu: 2, memoryBytes: 1024 ** 3 } },
    },
    // The edge has no sticky sessions: a long-polling client's next request would go to any of several.
    replicas: 1,
    env: {
      NODE_ENV: "production",
      PORT: String(PORT),
      // Both IPv4 and IPv6: Railway's private network is IPv6.
      HOST: "::",
      // The edge names the client there, and lets no visitor do so. Its own addresses are not documented to stay what they
      // are, and nobody but the edge and the project's own services reaches this port: no TCP proxy must be opened to it.
      CLIENT_ADDRESS_HEADER: "x-real-ip",
      TRUSTED_PROXIES: "0.0.0.0/0,::/0",
      API_BASE: "https://${{RAILWAY_PUBLIC_DOMAIN}}",
      ALLOWED_ORIGINS: preserve(),
      TURN_URLS: preserve(),
      TURN_SECRET: preserve(),
      DATABASE_URL: database.env.DATABASE_URL,
      CONNECTIONS_MAX: String(EDGE_CONNECTIONS_MAX),
      DRAIN_SECONDS: String(DRAIN_SECONDS),
      DEMO: context.isEnvironment("production") ? "off" : "on",
    },
  });

  return project("duet", { resources: [database, duet] });
});

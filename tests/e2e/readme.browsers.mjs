// The clients that README shows, run from its text: each calls, and is called by, the other.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import http from "node:http";
import { after, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { launchBrowser } from "./browser.mjs";
import { Server, eventually } from "./server.mjs";

const LINES_MAX = 60;
const read = (path) => readFileSync(fileURLToPath(new URL(path, import.meta.url)), "utf8");
const blocks = [...read("../../README.md").matchAll(/```js\n([^]*?)```/g)].map(([, code]) => code);
const library = read("node_modules/socket.io-client/dist/socket.io.esm.min.js");
const CLIENTS = { "socket.io-client": blocks.find((code) => code.includes("socket.io-client")), WebSocket: blocks.find((code) => code.includes("new WebSocket")) };

const page = (client) => `<!doctype html><link rel="icon" href="data:,">
<script type="importmap">{ "imports": { "socket.io-client": "/socket.io.js" } }</script>
<video autoplay playsinline muted></video><script type="module" src="/${client}.js"></script>`;

const files = http.createServer(({ url }, response) => {
  const name = decodeURIComponent(url.slice(1));
  const isScript = name.endsWith(".js");
  response.setHeader("content-type", isScript ? "text/javascript" : "text/html");
  const client = () => CLIENTS[name.slice(0, -3)].replaceAll("http://localhost:3001", server.url);
  response.end(name === "socket.io.js" ? library : isScript ? client() : page(name));
});
await new Promise((resolve) => files.listen(0, "127.0.0.1", resolve));
const origin = `http://127.0.0.1:${files.address().port}`;
const server = await Server.start({ "allowed-origins": origin });
const browser = await launchBrowser();

async function open(client) {
  const context = await browser.newContext({ permissions: ["camera", "microphone"] });
  const page = await context.newPage();
  page.complaints = [];
  page.on("pageerror", (error) => page.complaints.push(String(error)));
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && page.complaints.push(message.text()));
  await page.goto(`${origin}/${client}`);
  return page;
}

const online = async () => (await (await fetch(`${server.url}/stats/live`)).json()).onlineUsers;

describe("README's clients", () => {
  after(async () => {
    await browser.close();
    files.close();
    await server.stop();
  });

  for (const [first, second] of [["socket.io-client", "WebSocket"], ["WebSocket", "socket.io-client"]]) {
    it(`${first} calls ${second}, and both see each other`, { timeout: 60_000 }, async () => {
      const pages = [await open(first)];
      await eventually("the first is in the queue", async () => (await online()) === 1);
      pages.push(await open(second));
      for (const page of pages) {
        await eventually("a picture moves", () => page.evaluate(() => document.querySelector("video").getVideoPlaybackQuality().totalVideoFrames > 15), 20_000);
        assert.deepEqual(page.complaints, []);
      }
      await Promise.all(pages.map((page) => page.context().close()));
      await eventually("both have gone", async () => (await online()) === 0);
    });
  }

  it(`neither is longer than ${LINES_MAX} lines`, () => {
    for (const [client, code] of Object.entries(CLIENTS)) assert.ok(code.split("\n").length <= LINES_MAX + 1, client);
  });
});

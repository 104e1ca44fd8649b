// People in a real browser: Debian's Chromium with a camera and a microphone that are made up.
//
// Nothing here waits for time to pass: what a person does waits until the page offers it, and what he sees until it
// shows.

import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const SOURCES = fileURLToPath(new URL("../../src", import.meta.url));
const FLAGS = [
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--use-fake-device-for-media-stream",
  "--allow-loopback-in-peer-connection",
  // Without it candidates are mDNS names, which nobody resolves where there is only a loopback.
  `--disable-features=WebRtcHideLocalIpsWithMdns${process.env.DEMO_LIVE ? ",LocalNetworkAccessChecks" : ""}`,
];
export const PATIENCE_MS = 20_000;

export async function launchBrowser(flags = []) {
  const found = (process.env.PATH ?? "").split(":").map((folder) => `${folder}/chromium`).find(existsSync);
  assert.ok(found, "chromium is not installed");
  return chromium.launch({ executablePath: found, headless: true, chromiumSandbox: false, args: [...FLAGS, ...flags] });
}

export class Person {
  /** A new browser context on the page of `server`. `heard` keeps everything the console and the network had to say. */
  static async arrive(browser, server, { name = "Ann", viewport = { width: 1280, height: 800 }, storage, media = true, theme = "light" } = {}) {
    const context = await browser.newContext({ viewport, colorScheme: theme, storageState: storage, deviceScaleFactor: 1, permissions: media ? ["camera", "microphone"] : [] });
    const person = new Person(await context.newPage(), server, name);
    await person.#listen(context);
    await person.page.goto(`${server.url}/demo`);
    return person;
  }

  constructor(page, server, name) {
    Object.assign(this, { page, server, name, complaints: [], strangers: [], bytes: 0 });
    page.setDefaultTimeout(PATIENCE_MS);
  }

  async #listen(context) {
    const { page, server } = this;
    page.on("console", (message) => ["error", "warning"].includes(message.type()) && this.complaints.push(message.text()));
    page.on("pageerror", (error) => this.complaints.push(String(error)));
    const note = (url) => new URL(url).host !== new URL(server.url).host && !/^(data|blob):/.test(url) && this.strangers.push(url);
    page.on("request", (request) => note(request.url()));
    page.on("websocket", (socket) => note(socket.url()));
    page.on("requestfinished", async (request) => {
      const sizes = await request.sizes().catch(() => undefined);
      if (sizes && new URL(request.url()).pathname.startsWith("/demo")) this.bytes += sizes.responseBodySize;
    });
    // The page keeps its connections to itself: this is how a test counts their frames.
    await context.addInitScript(() => {
      window.peers = [];
      window.RTCPeerConnection = class extends window.RTCPeerConnection {
        constructor(...options) {
          super(...options);
          window.peers.push(this);
        }
      };
    });
    if (process.env.DEMO_LIVE) {
      await page.route(/\/demo($|\/)/, async (route) => {
        const path = new URL(route.request().url()).pathname;
        const response = await route.fetch();
        await route.fulfill({ response, body: readFileSync(`${SOURCES}${path === "/demo" ? "/demo/index.html" : path}`) });
      });
    }
  }

  static async meet(browser, server, ...options) {
    const people = [];
    for (const one of options) people.push(await Person.arrive(browser, server, one));
    for (const person of people) await person.signUp();
    return people;
  }

  async signUp(gender = "a woman") {
    await this.page.getByLabel("Your name").fill(this.name);
    await this.page.getByLabel(gender, { exact: true }).check();
    await this.page.getByRole("button", { name: "Start" }).click();
    await this.page.locator("#lobby").waitFor();
  }

  /** Waits until the text shows somewhere on the page. */
  async sees(text) {
    await this.page.getByText(text).filter({ visible: true }).first().waitFor();
  }

  press(name) {
    return this.page.getByRole("button", { name, exact: true }).filter({ visible: true }).click();
  }

  invite(other) {
    return this.press(`Call ${other.name}`);
  }

  async says(text) {
    await this.page.getByLabel("Message").fill(text);
    await this.page.getByLabel("Message").press("Enter");
  }

  /** What came in by the newest connection: frames of the picture shown, and energy and packets of the sound. */
  media() {
    return this.page.evaluate(async () => {
      const stats = { frames: document.getElementById("remote").getVideoPlaybackQuality().totalVideoFrames, decoded: 0, energy: 0, sound: 0 };
      for (const report of (await window.peers.at(-1)?.getStats())?.values() ?? []) {
        if (report.type !== "inbound-rtp") continue;
        if (report.kind === "video") stats.decoded = report.framesDecoded ?? 0;
        else Object.assign(stats, { energy: report.totalAudioEnergy ?? 0, sound: report.packetsReceived });
      }
      return stats;
    });
  }

  async leaves() {
    await this.page.context().close();
  }
}

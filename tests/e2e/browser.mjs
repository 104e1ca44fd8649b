// People in a real browser: Debian's Chromium with a camera and a microphone that are made up.
//
// Nothing here waits for time to pass: what a person does waits until the page offers it, and what he sees until it
// shows.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { chromium } from "playwright-core";
import { eventually } from "./server.mjs";

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
  "--disable-features=WebRtcHideLocalIpsWithMdns",
];
const PATIENCE_MS = 20_000;
const FRAMES = 15;

export async function launchBrowser(flags = []) {
  const found = (process.env.PATH ?? "").split(":").map((folder) => `${folder}/chromium`).find(existsSync);
  assert.ok(found, "chromium is not installed");
  return chromium.launch({ executablePath: found, headless: true, chromiumSandbox: false, args: [...FLAGS, ...flags] });
}

export class Person {
  /** In a browser context of their own on the page of `server`. `media`: whether camera and microphone are allowed. */
  static async arrive(browser, server, { name = "Ann", viewport = { width: 1280, height: 800 }, media = true, theme = "light" } = {}) {
    const context = await browser.newContext({ viewport, colorScheme: theme, permissions: media ? ["camera", "microphone"] : [] });
    const person = new Person(await context.newPage(), server, name);
    await person.#listen(context);
    await person.page.goto(`${server.url}/demo`);
    return person;
  }

  /** `complaints` are the console's, `strangers` requests to other hosts, `frames` all that the server said. */
  constructor(page, server, name) {
    Object.assign(this, { page, server, name, complaints: [], strangers: [], frames: [], bytes: 0 });
    page.setDefaultTimeout(PATIENCE_MS);
  }

  async #listen(context) {
    const { page, server } = this;
    page.on("console", (message) => ["error", "warning"].includes(message.type()) && this.complaints.push(message.text()));
    page.on("pageerror", (error) => this.complaints.push(String(error)));
    // Kept, for a server that is starting again has none yet.
    const { host } = new URL(server.url);
    const note = (url) => new URL(url).host !== host && !/^(data|blob):/.test(url) && this.strangers.push(url);
    page.on("request", (request) => note(request.url()));
    page.on("websocket", (socket) => {
      note(socket.url());
      socket.on("framereceived", ({ payload }) => this.frames.push(payload));
    });
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
  }

  static async meet(browser, server, ...options) {
    const people = [];
    for (const one of options) people.push(await Person.arrive(browser, server, one));
    for (const [index, person] of people.entries()) await person.signUp(options[index].gender);
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

/** `ann` calls `bo`, where it rings. */
export async function ring(ann, bo) {
  await ann.invite(bo);
  await bo.sees(`${ann.name} is calling`);
}

/** A call in which both see and hear each other. */
export async function call(ann, bo) {
  await ring(ann, bo);
  await bo.press("Accept");
  await Promise.all([flowing(ann), flowing(bo)]);
}

/** Waits until more of the other's picture and sound has come than there was. */
export async function flowing(person) {
  const before = await person.media();
  await eventually(`picture and sound reach ${person.name}`, async () => {
    const now = await person.media();
    // A connection that is new counts from nothing.
    const [from, heard] = now.decoded < before.decoded ? [0, 0] : [before.decoded, before.energy];
    return now.decoded > from + FRAMES && now.frames > FRAMES && now.energy > heard;
  }, 20_000);
}

/** `from` writes, and both read it. */
export async function chat(from, to, text) {
  await from.says(text);
  await Promise.all([from.sees(text), to.sees(text)]);
}

/** Calls of less than five seconds leave no history. */
export const lasting = (person) => person.page.waitForFunction(() => /^4:(5[0-4]|[0-4])/.test(document.getElementById("remaining").textContent));

/** Waits until the person is back in the lobby and has been told why. */
export async function atHome(person, text) {
  await person.sees(text);
  await person.page.locator("#lobby").waitFor();
  await person.page.waitForFunction(() => !document.querySelector("dialog[open]"));
}

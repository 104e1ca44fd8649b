// Calls that signal at a fixed rate, in a process of their own: what else is done to the server shows in their delay.
//
// Both ends of every call are in this process, with one clock. A signal that is lost, out of order or not of its call is
// a fault, and so is a connection that closes.

import { monitorEventLoopDelay, performance } from "node:perf_hooks";
import { DEFLATE_OFFER, LeanSocket, callBetween, each, guests, quantile } from "./lean.mjs";
import { pause } from "./server.mjs";
import { isWorker, serve } from "./worker.mjs";

/** This file, for a `Worker`. */
export const CALLS = import.meta.url;
export const SIGNALS_PER_CALL_AND_SECOND = 2;
const SETUPS_AT_ONCE = 12;

/** Milliseconds to read. */
export const ms = (value) => (value < 10 ? value.toFixed(2) : value.toFixed(1));

class Calls {
  async make({ url, port, calls }) {
    const people = await guests(url, 2 * calls);
    this.ends = [];
    this.faults = [];
    this.window = undefined;
    await each(Array.from({ length: calls }), SETUPS_AT_ONCE, async (_, call) => {
      const pair = people.slice(2 * call, 2 * call + 2);
      const [caller, callee] = await Promise.all(pair.map(async ({ token }) => (await LeanSocket.open(port, { offer: DEFLATE_OFFER })).bind(token)));
      const room = await callBetween(caller, callee, pair[1].id, pair[1].token);
      [[caller, callee], [callee, caller]].forEach(([from, to], side) => {
        const end = { from, room, name: `${call}.${side}`, sent: 0, heard: 0 };
        to.hear = (name, payload) => this.heard(end, name, payload);
        to.onClosed = (how) => this.faults.push(`call ${call} was closed: ${JSON.stringify(how)}`);
        this.ends.push(end);
      });
    });
    return { deflates: this.ends[0].from.deflates };
  }

  heard(end, name, payload) {
    if (name !== "rtc:ice") {
      if (!["queue:update", "presence:update"].includes(name)) this.faults.push(`${end.name} heard ${name} ${JSON.stringify(payload)}`);
      return;
    }
    const [who, number, at] = payload.candidate.candidate.split(" ");
    if (who !== end.name || Number(number) !== end.heard) this.faults.push(`${end.name} expected ${end.heard}, heard ${who} ${number}`);
    end.heard = Number(number) + 1;
    const sentAt = Number(at);
    const { window } = this;
    if (window && sentAt >= window.from && sentAt < window.to) window.delays.push(performance.now() - sentAt);
  }

  /** Sends forever at the fixed rate, spread evenly over the second, whatever comes back. */
  async begin() {
    const perMs = (this.ends.length / 2) * SIGNALS_PER_CALL_AND_SECOND / 1000;
    const from = performance.now();
    let sent = 0;
    this.timer = setInterval(() => {
      for (const due = Math.floor((performance.now() - from) * perMs); sent < due; sent++) {
        const end = this.ends[sent % this.ends.length];
        const candidate = { candidate: `${end.name} ${end.sent++} ${performance.now().toFixed(3)} typ host`, sdpMid: "0", sdpMLineIndex: 0 };
        end.from.emit("rtc:ice", { roomId: end.room, candidate });
      }
    }, 1);
  }

  /** The delays of what is sent within the next so many ms, in ms, and how late this process itself was. */
  async measure({ ms }) {
    const lag = monitorEventLoopDelay({ resolution: 1 });
    lag.enable();
    this.window = { from: performance.now(), to: performance.now() + ms, delays: [] };
    await pause(ms);
    lag.disable();
    await pause(400);
    const { delays } = this.window;
    this.window = undefined;
    return { count: delays.length, p50: quantile(delays), p99: quantile(delays, 0.99), max: quantile(delays, 1), lag: lag.percentile(99) / 1e6, lagMax: lag.max / 1e6, faults: this.faults };
  }

  /** Stops sending; everything sent must have come. */
  async end() {
    clearInterval(this.timer);
    const missing = () => this.ends.filter(({ sent, heard }) => sent !== heard);
    for (const until = Date.now() + 10_000; Date.now() < until && missing().length > 0; ) await pause(50);
    for (const { name, sent, heard } of missing()) this.faults.push(`${name}: ${sent} sent, ${heard} heard`);
    const total = this.ends.reduce((sum, { sent }) => sum + sent, 0);
    this.ends.forEach(({ from }) => from.destroy());
    return { total, faults: this.faults };
  }
}

if (isWorker(CALLS)) serve({ calls: Calls });

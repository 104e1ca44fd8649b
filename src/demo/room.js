// A call as people see it: two pictures, the chat, the time that is left, and how the connection is doing.

import { Peer } from "./call.js";
import { $, clock, kept, make, paint, show, tell, toast } from "./page.js";
import { request } from "./server.js";

const STATES = { new: "Connecting…", connecting: "Connecting…", disconnected: "Interrupted…", failed: "Connecting again…" };
const LINES_MAX = 500;

export class Room {
  #me;
  #emit;
  #media;
  #onOver;
  /** `{roomId, agreedSeconds, isInitiator, peerUser}` as `call:start` had it, `startedAt` and the chat's `lines`. */
  #call;
  #peer;
  #state;
  #ticking;
  #isForgotten = false;
  #isPeerLost = false;

  /** `media()`: a promise of the stream to send; `onOver(text)`: the call has ended, and how. */
  constructor(me, { emit, media, onOver }) {
    [this.#me, this.#emit, this.#media, this.#onOver] = [me, emit, media, onOver];
    $("hang-up").onclick = () => this.#hangUp("You hung up.");
    $("unmute").onclick = () => this.#play();
    $("show-chat").onclick = () => this.#showChat($("show-chat").ariaExpanded !== "true");
    $("say").onsubmit = (event) => {
      event.preventDefault();
      const { text } = $("say").elements;
      // It is shown when the server sends it back: then it is said.
      if (text.value.trim()) this.#emit("room:chat", { roomId: this.#call.roomId, text: text.value });
      text.value = "";
    };
  }

  get isOpen() {
    return this.#call !== undefined;
  }

  /** Begins a call, or goes on with one after a reload: then the media begin anew, and whoever came back offers. */
  async enter(call, { isBack = false } = {}) {
    const { roomId, isInitiator } = call;
    this.#call = call;
    [this.#isForgotten, this.#isPeerLost] = [false, false];
    kept.set("call", call);
    this.#showCall();
    const [stream, iceServers] = await Promise.all([this.#media(), this.#iceServers()]);
    if (this.#call !== call) return;
    $("local").srcObject = stream;
    this.#peer = new Peer({
      stream,
      iceServers,
      isInitiator,
      send: (event, payload) => this.#emit(event, { roomId, ...payload }),
      onStream: (remote) => this.#showRemote(remote),
      onState: (state) => this.#showState(state),
    });
    this.#showState("new");
    // Only now: what the other has sent meanwhile comes at once.
    this.#emit("room:join", { roomId });
    if (isInitiator || isBack) this.#peer.offer();
  }

  /** The connection to the server is back: is the call still there? `refused` or `session:finalized` would tell. */
  rejoin() {
    if (this.#peer) this.#emit("room:join", { roomId: this.#call.roomId });
  }

  /** Takes what the server says that concerns the call. */
  hear(event, payload) {
    if (!this.#call) return;
    switch (event) {
      case "rtc:offer":
      case "rtc:answer":
      case "rtc:ice":
        return this.#peer?.receive(event, payload);
      case "room:chat":
        return this.#addLine(payload.from, payload.text);
      case "room:socialShared":
        return this.#addLine(payload.from, Object.entries(payload.socials).map(([platform, handle]) => `${platform}: ${handle}`).join(", "));
      case "peer:disconnected":
        this.#isPeerLost = true;
        return;
      case "session:finalized":
        return this.#over(this.#isPeerLost ? `${this.#call.peerUser.name} has gone.` : `The call with ${this.#call.peerUser.name} has ended.`);
    }
  }

  /** The server refuses something. If it does not know the call, the media need not end for that. */
  refused(message) {
    if (!/not in this room/.test(message)) return toast(message);
    if (this.#state !== "connected") return this.#over("The call has ended.");
    this.#isForgotten = true;
    kept.drop("call");
    tell($("notice"), "The server was restarted and has forgotten this call. Picture and sound go on; chat and history do not.");
    $("say").querySelectorAll("*").forEach((element) => (element.disabled = true));
  }

  /** Ends everything here, and tells nobody. */
  leave() {
    clearInterval(this.#ticking);
    this.#peer?.close();
    this.#peer = this.#call = this.#state = undefined;
    $("remote").srcObject = $("local").srcObject = null;
    kept.drop("call");
    document.title = "duet";
  }

  #hangUp(text) {
    if (!this.#isForgotten) this.#emit("call:end", { roomId: this.#call.roomId });
    this.#over(text);
  }

  #over(text) {
    this.leave();
    this.#onOver(text);
  }

  async #iceServers() {
    // Without them a call within one network still connects.
    const answer = await request("GET", "/turn/credentials", { token: this.#me.token }).catch(() => ({ iceServers: [] }));
    return answer.iceServers;
  }

  #showCall() {
    const { peerUser, lines } = this.#call;
    document.title = `In a call with ${peerUser.name}`;
    tell($("peer-name"), peerUser.name);
    tell($("notice"));
    tell($("link"), "Waiting for your camera…");
    paint($("cover").querySelector(".face"), peerUser);
    this.#showCover("");
    $("unmute").hidden = true;
    $("say").querySelectorAll("*").forEach((element) => (element.disabled = false));
    $("lines").replaceChildren(...lines.map((line) => this.#line(line)));
    this.#showChat(false);
    this.#tick();
    this.#ticking = setInterval(() => this.#tick(), 1_000);
    show("call");
  }

  async #tick() {
    const { agreedSeconds, startedAt } = this.#call;
    const left = agreedSeconds - (Date.now() - startedAt) / 1000;
    if (left <= 0) return this.#hangUp("The time is over.");
    tell($("remaining"), clock(left));
    $("remaining").ariaLabel = `${clock(left)} left`;
    if (this.#state !== "connected") return;
    const route = await this.#peer.route();
    if (route && this.#state === "connected") tell($("link"), `${route.local === "relay" || route.remote === "relay" ? "Relayed" : "Direct"} · ${route.local} · ${route.ms} ms`);
  }

  #showState(state) {
    if (!this.#call) return;
    this.#state = state;
    // Nobody is left to pass on a new offer.
    if (this.#isForgotten && state !== "connected") return this.#over(`${this.#call.peerUser.name} has gone.`);
    tell($("link"), STATES[state] ?? "Connected");
    if (state !== "connected") return this.#showCover(STATES[state]);
    this.#tick();
    if (!$("remote").srcObject?.getVideoTracks().length) this.#showCover(`No picture from ${this.#call.peerUser.name}`);
  }

  #showRemote(stream) {
    const video = $("remote");
    if (video.srcObject === stream) return;
    video.srcObject = stream;
    video.onplaying = () => video.videoWidth > 0 && this.#showCover();
    this.#play();
  }

  async #play() {
    try {
      await $("remote").play();
      $("unmute").hidden = true;
    } catch (error) {
      // After a reload without a camera, browsers want a click before they let a page be heard.
      $("unmute").hidden = error.name !== "NotAllowedError";
    }
  }

  #showCover(text) {
    tell($("cover").querySelector("p"), text);
    $("cover").hidden = text === undefined;
  }

  #addLine(from, text) {
    const line = { isMine: from === this.#me.userId, text };
    this.#call.lines = [...this.#call.lines, line].slice(-LINES_MAX);
    kept.set("call", this.#call);
    $("lines").append(this.#line(line));
    $("lines").scrollTop = $("lines").scrollHeight;
    if (!line.isMine && $("show-chat").ariaExpanded !== "true") $("show-chat").dataset.unread = Number($("show-chat").dataset.unread ?? 0) + 1;
  }

  #line({ isMine, text }) {
    const author = make("b", { className: "hidden", textContent: `${isMine ? "You" : this.#call.peerUser.name}: ` });
    return make("li", { className: isMine ? "mine" : "theirs" }, author, text);
  }

  /** On narrow screens the chat covers the picture, when it is wanted; on wide ones it is always there. */
  #showChat(isShown) {
    $("show-chat").ariaExpanded = String(isShown);
    $("call").dataset.chat = isShown ? "shown" : "";
    delete $("show-chat").dataset.unread;
    if (isShown) $("say").elements.text.focus();
  }
}

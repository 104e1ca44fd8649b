// Who is here, whom one calls, and who calls: the queue, invites both ways, and the calls of the past.

import { $, announce, clock, make, minutes, paint, tell, toast, until } from "./page.js";
import { request } from "./server.js";

const GENDERS = { female: "Woman", male: "Man", nonbinary: "Non-binary" };
const REFUSALS = {
  user_declined: (name) => `${name} declined.`,
  timeout: (name) => `${name} did not answer.`,
  busy: (name) => `${name} is being called by many at this moment.`,
  offline: (name) => `${name} has just left.`,
  cooldown: (name) => `You and ${name} have to wait before you can call each other again.`,
};
const TTL_MS = 20_000;
const EXTENSIONS_MAX = 5;
/** Changes come in bursts: one request answers many. */
const REFRESH_MS = 300;

export class Lobby {
  #me;
  #emit;
  /** By user id; unknown until the first answer. */
  #people;
  #outgoing;
  #incoming = [];
  #refreshing;
  #isStale = false;

  /** `me`: `{userId, token}`; `emit(event, payload)`: says something to the server. */
  constructor(me, emit) {
    this.#me = me;
    this.#emit = emit;
    this.#buttons();
    this.#render();
    setInterval(() => this.#tick(), 250);
  }

  /** Joins the queue: from now on others see this user, and the server tells who comes and goes. */
  enter() {
    this.#emit("presence:join");
    this.#emit("queue:join");
    this.#incoming = [];
    this.#showIncoming();
    this.refresh();
  }

  /** All that rings here ends, for a call begins. */
  hush() {
    this.#outgoing = undefined;
    $("outgoing").close();
    this.#incoming = [];
    this.#showIncoming();
  }

  /** The connection is lost: who calls is told again when it is back, and whom we call is called no longer. */
  lost() {
    if (this.#outgoing) this.#emit("call:rescind", { toUserId: this.#outgoing.userId });
    this.hush();
  }

  /** The server refuses something, such as a fifth invite at once. */
  refused(message) {
    toast(message);
    this.#endOutgoing();
  }

  /** Takes what the server says that concerns the lobby. */
  hear(event, payload) {
    switch (event) {
      case "queue:update":
      case "presence:update":
        // Who has left is known by now; who has come has a card to be fetched.
        if (!payload.available && this.#people?.delete(payload.userId)) this.#render();
        return this.refresh();
      case "call:notify":
        if (this.#incoming.some(({ inviteId }) => inviteId === payload.inviteId)) return;
        this.#incoming.push({ ...payload, endsAt: Date.now() + payload.ttlMs });
        return this.#showIncoming();
      case "call:wait-extended":
        // It does not name the invite: with several, all show the longer time, and the server ends the others.
        this.#incoming.forEach((invite) => (invite.endsAt += payload.extraSeconds * 1000));
        return;
      case "call:rescinded":
        this.#incoming = this.#incoming.filter(({ inviteId }) => inviteId !== payload.inviteId);
        return this.#showIncoming();
      case "call:declined":
        if (this.#outgoing) toast(REFUSALS[payload.reason]?.(this.#outgoing.name) ?? "This call is not possible.");
        return this.#endOutgoing();
    }
  }

  /** Fetches the queue soon. What changes while an answer is on its way is asked about again. */
  refresh() {
    this.#isStale = true;
    this.#refreshing ??= this.#fetch().finally(() => (this.#refreshing = undefined));
  }

  async showHistory() {
    const state = $("history-state");
    $("calls").replaceChildren();
    tell(state, "Loading your calls…");
    try {
      const { history } = await this.#get("/room/history");
      $("calls").replaceChildren(...history.map((call) => this.#pastCall(call)));
      tell(state, history.length > 0 ? undefined : "No calls yet. A call of five seconds or more stays here, with its chat.");
    } catch (error) {
      tell(state, `Your calls cannot be shown now. ${error.message}`);
    }
  }

  async #fetch() {
    while (this.#isStale) {
      await new Promise((resolve) => setTimeout(resolve, REFRESH_MS));
      this.#isStale = false;
      try {
        const [{ users }, { onlineUsers }] = await Promise.all([this.#get("/room/queue"), this.#get("/stats/live")]);
        this.#people = new Map(users.map((user) => [user.userId, user]));
        tell($("online"), `${onlineUsers} online`);
        this.#render();
      } catch (error) {
        this.#render(error.message);
      }
    }
  }

  #get(path) {
    return request("GET", path, { token: this.#me.token });
  }

  #render(problem) {
    const cards = $("cards");
    const old = new Map([...cards.children].map((card) => [card.dataset.user, card]));
    const wanted = [...(this.#people?.values() ?? [])].map((person) => this.#card(person, old.get(person.userId)));
    // A card that stays is not touched, so that it keeps the focus it may have.
    old.forEach((card) => wanted.includes(card) || card.remove());
    wanted.forEach((card, index) => cards.children[index] === card || cards.insertBefore(card, cards.children[index] ?? null));
    cards.ariaBusy = String(this.#people === undefined);
    const empty = "Nobody else is here. Open this page in a second window, or send its address to a friend.";
    tell($("people-state"), problem ?? (wanted.length > 0 ? undefined : this.#people ? empty : "Looking who is here…"));
  }

  #card(person, old) {
    const { userId, name, gender, hasCooldown, cooldownExpiry, introducedBy, wasIntroducedToMe } = person;
    const about = [GENDERS[gender], wasIntroducedToMe && `introduced by ${introducedBy}`, hasCooldown && `you can call ${until(cooldownExpiry)}`];
    const text = about.filter(Boolean).join(" · ");
    if (old?.dataset.about === text) return old;
    const button = make("button", { className: "primary", textContent: "Call", disabled: hasCooldown, onclick: () => this.#invite(person) });
    button.ariaLabel = `Call ${name}`;
    const card = make("li", { className: "card" }, paint(make("span", { className: "face" }), person), make("div", {}, make("strong", { textContent: name }), make("small", { textContent: text })), button);
    Object.assign(card.dataset, { user: userId, about: text });
    return card;
  }

  #pastCall({ partnerId, partnerName, startedAt, duration, messages }) {
    const when = new Date(startedAt).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
    const about = make("div", {}, make("strong", { textContent: partnerName }), make("small", { textContent: `${when} · ${clock(duration)}` }));
    const face = paint(make("span", { className: "face" }), { userId: partnerId, name: partnerName });
    if (messages.length === 0) return make("li", { className: "card" }, make("div", { className: "row" }, face, about));
    const author = (from) => ({ [this.#me.userId]: "mine", system: "system" })[from] ?? "theirs";
    const lines = messages.map(({ from, text }) => make("li", { className: author(from), textContent: text }));
    const count = make("span", { className: "chip", textContent: `${messages.length} ${messages.length === 1 ? "message" : "messages"}` });
    return make("li", { className: "card" }, make("details", {}, make("summary", { className: "row" }, face, about, count), make("ol", { className: "lines" }, ...lines)));
  }

  #invite({ userId, name }) {
    this.#outgoing = { userId, name, endsAt: Date.now() + TTL_MS, extensions: 0 };
    this.#emit("call:invite", { toUserId: userId, requestedSeconds: Number($("duration").value) });
    paint($("outgoing").querySelector(".face"), { userId, name });
    tell($("outgoing-title"), `Calling ${name}…`);
    $("keep-waiting").disabled = false;
    this.#tick();
    $("outgoing").showModal();
  }

  #endOutgoing() {
    this.#outgoing = undefined;
    $("outgoing").close();
    this.refresh();
  }

  #showIncoming() {
    const dialog = $("incoming");
    const [invite] = this.#incoming;
    const shown = invite?.inviteId ?? "";
    if (shown === dialog.dataset.invite) return;
    dialog.dataset.invite = shown;
    dialog.close();
    document.title = invite ? `${invite.fromUser.name} is calling` : "duet";
    announce(invite ? `${invite.fromUser.name} is calling` : "");
    if (!invite) return;
    const { fromUser, requestedSeconds } = invite;
    paint(dialog.querySelector(".face"), fromUser);
    tell($("incoming-title"), `${fromUser.name} is calling`);
    tell($("incoming-about"), `${GENDERS[fromUser.gender] ? `${GENDERS[fromUser.gender]} · ` : ""}would like to talk for ${minutes(requestedSeconds)}`);
    this.#tick();
    dialog.showModal();
  }

  #tick() {
    const countdown = (dialog, endsAt) => {
      const left = Math.ceil((endsAt - Date.now()) / 1000);
      // The server waits a little longer than it says, for slow clocks and lines; how it ends is for the server to say.
      tell(dialog.querySelector(".countdown"), left > 0 ? `${left} s` : "a few more seconds…");
    };
    if (this.#outgoing) countdown($("outgoing"), this.#outgoing.endsAt);
    if (this.#incoming.length > 0) countdown($("incoming"), this.#incoming[0].endsAt);
  }

  #buttons() {
    $("keep-waiting").onclick = () => {
      this.#emit("call:extend-wait", { toUserId: this.#outgoing.userId });
      this.#outgoing.endsAt = Math.max(Date.now(), this.#outgoing.endsAt) + TTL_MS;
      $("keep-waiting").disabled = ++this.#outgoing.extensions >= EXTENSIONS_MAX;
      this.#tick();
    };
    $("cancel").onclick = () => {
      this.#emit("call:rescind", { toUserId: this.#outgoing.userId });
      this.#endOutgoing();
    };
    const answer = (event, more = {}) => {
      const { inviteId } = this.#incoming.shift();
      this.#emit(event, { inviteId, ...more });
      this.#showIncoming();
    };
    $("accept").onclick = () => answer("call:accept", { requestedSeconds: Number($("duration").value) });
    $("decline").onclick = () => answer("call:decline");
    $("outgoing").oncancel = (event) => {
      event.preventDefault();
      $("cancel").click();
    };
    // Escape is pressed too easily for an answer that lasts a day.
    $("incoming").oncancel = (event) => event.preventDefault();
  }
}

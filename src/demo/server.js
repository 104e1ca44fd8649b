// The two ways to talk to the server: requests, and a socket that comes back by itself.

/** One HTTP request. Resolves to the answer; a refusal rejects with the server's own words. */
export async function request(method, path, { token, body } = {}) {
  const headers = { ...(token && { authorization: `Bearer ${token}` }), ...(body && { "content-type": "application/json" }) };
  const response = await fetch(path, { method, headers, body: body && JSON.stringify(body) }).catch(() => {
    throw new Error("The server cannot be reached.");
  });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error ?? `The server answered ${response.status}`);
  return answer;
}

const PAUSE_MS = 500;
const PAUSE_MS_MAX = 8_000;
/** The code with which the server sends a client away that it had let in: another of the same user takes its place. */
const SENT_AWAY = 1008;
/** After these the server closes for good. */
const FAREWELLS = ["auth:failed", "auth:banned", "session:invalidated"];

/** A socket at `/ws`: every frame, both ways, is the JSON array `["event", payload]`. */
export class Socket {
  #token;
  #hear;
  #socket;
  #bound = false;
  #over = false;
  #pauses = 0;
  #timer;
  #waiting = [];

  /** `hear(event, payload)` gets all that the server says, `up` and `down` when the connection comes and goes, `away` when it will not come back. */
  constructor(token, hear) {
    this.#token = token;
    this.#hear = hear;
    addEventListener("online", this.#hurry);
    this.#connect();
  }

  /** Says `event`; what is said while there is no connection waits for the next one. */
  emit(event, payload) {
    const frame = JSON.stringify([event, payload]);
    if (this.#bound) this.#socket.send(frame);
    else if (!this.#over) this.#waiting.push(frame);
  }

  get isUp() {
    return this.#bound;
  }

  /** Leaves for good. Code 1000 says so: the server keeps no place for us, as it does for those who were cut off. */
  close() {
    this.#over = true;
    clearTimeout(this.#timer);
    removeEventListener("online", this.#hurry);
    this.#socket.close(1000);
  }

  #connect() {
    const socket = new WebSocket(`${location.protocol.replace("http", "ws")}//${location.host}/ws`);
    this.#socket = socket;
    socket.onopen = () => socket.send(JSON.stringify(["auth", { sessionToken: this.#token }]));
    socket.onmessage = ({ data }) => {
      const [event, payload] = JSON.parse(data);
      if (FAREWELLS.includes(event)) this.close();
      if (event === "auth:success" && !this.#bound) {
        this.#bound = true;
        this.#pauses = 0;
        this.#waiting.splice(0).forEach((frame) => socket.send(frame));
        this.#hear("up");
      }
      this.#hear(event, payload);
    };
    socket.onclose = ({ code }) => {
      const isSentAway = this.#bound && code === SENT_AWAY;
      this.#bound = false;
      if (this.#over) return;
      if (isSentAway) {
        this.close();
        return this.#hear("away");
      }
      this.#hear("down");
      const pause = Math.min(PAUSE_MS_MAX, PAUSE_MS * 2 ** this.#pauses++);
      // Whom a restart has cut off at the same moment should not all come back at the same moment.
      this.#timer = setTimeout(() => this.#connect(), pause * (0.5 + Math.random() / 2));
    };
  }

  /** The network is back: there is no reason to wait longer. */
  #hurry = () => {
    if (this.#socket.readyState !== WebSocket.CLOSED) return;
    clearTimeout(this.#timer);
    this.#connect();
  };
}

// Signs up, keeps the connection, and leads from one view to the next. `server.js` and `call.js` are the client proper.

import { Lobby } from "./lobby.js";
import { isOn, openMedia, toggle } from "./media.js";
import { $, kept, show, startTheme, tell, toast } from "./page.js";
import { Room } from "./room.js";
import { Socket, request } from "./server.js";

let me, socket, lobby, room;
/** A promise of the stream, which the browser may first ask about. */
let media;

startTheme();
const form = $("sign-up");
form.onsubmit = signUp;
$("sign-out").onclick = () => signOut("You have signed out.");
$("show-people").onclick = () => showTab("people");
$("show-history").onclick = () => showTab("history");
$("media-problem").querySelector("button").onclick = startMedia;
const toggles = [...document.querySelectorAll("[data-toggle]")];
toggles.forEach((button) => (button.onclick = () => switchTracks(button.dataset.toggle)));
if (await isSomebody()) start();
else welcome();

/** Whether this tab has a user. A copy of a tab has the same one: then one of the two becomes somebody else. */
async function isSomebody() {
  me = kept.get("me");
  if (!me || !navigator.locks) return me !== null;
  const isAlone = await new Promise((resolve) => {
    // A page that is being reloaded lets go of the lock in a moment; another tab does not.
    const options = { signal: AbortSignal.timeout(1_500) };
    const keep = () => (resolve(true), new Promise(() => {}));
    navigator.locks.request(`duet.${me.userId}`, options, keep).catch(() => resolve(false));
  });
  if (!isAlone) sessionStorage.clear();
  return isAlone;
}

function welcome() {
  show("welcome");
  tell(form.querySelector(".note"), kept.get("farewell") ?? undefined);
  kept.drop("farewell");
}

async function signUp(event) {
  event.preventDefault();
  const { name, gender } = Object.fromEntries(new FormData(form));
  const button = form.querySelector("button");
  button.disabled = true;
  tell(form.querySelector(".note"));
  try {
    const { userId, sessionToken } = await request("POST", "/auth/guest", { body: { name, gender } });
    kept.set("me", { userId, name, gender, token: sessionToken });
    if (await isSomebody()) start();
  } catch (error) {
    tell(form.querySelector(".note"), error.message);
  }
  button.disabled = false;
}

function start() {
  socket = new Socket(me.token, hear);
  const emit = (event, payload) => socket.emit(event, payload);
  lobby = new Lobby(me, emit);
  room = new Room(me, { emit, media: () => media, onOver: backToLobby });
  startMedia();
  tell($("my-name"), me.name);
  $("sign-out").hidden = false;
  const call = kept.get("call");
  if (call) room.enter(call, { isBack: true });
  else show("lobby");
}

/** Everything the server says comes by here. */
function hear(event, payload) {
  switch (event) {
    case "up":
      $("offline").hidden = true;
      return room.isOpen ? room.rejoin() : lobby.enter();
    case "down":
      $("offline").hidden = false;
      return lobby.lost();
    case "away":
      // Who came back by himself would send away the one that has taken the place, and so on for ever.
      tell($("offline"), "Closed here: reload this page to go on");
      return lobby.lost();
    case "call:start":
      lobby.hush();
      return room.isOpen || room.enter({ ...payload, startedAt: Date.now(), lines: [] });
    case "session:invalidated":
      return signOut("You were signed out here: your account was opened somewhere else.");
    case "auth:failed":
      return signOut("Your visit has ended. Sign up again to go on.");
    case "auth:banned":
      return signOut(payload.message);
    case "error":
      return room.isOpen ? room.refused(payload.message) : lobby.refused(payload.message);
    default:
      lobby.hear(event, payload);
      room.hear(event, payload);
  }
}

function backToLobby(text) {
  show("lobby");
  showTab("people");
  toast(text);
  if (socket.isUp) lobby.enter();
}

function showTab(tab) {
  for (const one of ["people", "history"]) {
    $(one).hidden = one !== tab;
    $(`show-${one}`).ariaCurrent = one === tab ? "page" : null;
  }
  if (tab === "history") lobby.showHistory();
}

function startMedia() {
  tell($("preview-state"), "Waiting for your camera…");
  $("media-problem").hidden = true;
  media = openMedia().then(({ stream, problem }) => {
    $("preview").srcObject = stream;
    tell($("preview-state"), stream.getVideoTracks().length > 0 ? undefined : "No picture");
    tell($("media-problem").querySelector("p"), problem);
    $("media-problem").hidden = problem === undefined;
    showToggles(stream);
    return stream;
  });
}

async function switchTracks(kind) {
  const stream = await media;
  toggle(stream, kind);
  showToggles(stream);
}

function showToggles(stream) {
  for (const button of toggles) {
    button.ariaPressed = String(!isOn(stream, button.dataset.toggle));
    button.disabled = !stream.getTracks().some(({ kind }) => kind === button.dataset.toggle);
  }
}

/** Ends the visit: the page starts again from nothing but what is to be said. */
function signOut(text) {
  socket.close();
  sessionStorage.clear();
  kept.set("farewell", text);
  location.reload();
}

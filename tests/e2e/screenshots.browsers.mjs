// The pictures of the README: one walk through the page, on a desktop and on a phone.
//
// DEMO_SCREENSHOTS=FOLDER keeps them there; without it the walk is still walked.

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { it } from "node:test";
import { Person, atHome, chat, flowing, lasting, launchBrowser, ring } from "./browser.mjs";
import { drawPortrait } from "./portrait.mjs";
import { Server, temporaryFolder } from "./server.mjs";

const FOLDER = process.env.DEMO_SCREENSHOTS ?? temporaryFolder();
const LOOKS = {
  Ann: { skin: [238, 196, 168], hair: [96, 52, 38], shirt: [232, 106, 92], wall: [196, 214, 226], long: true },
  Bo: { skin: [160, 108, 78], hair: [34, 28, 30], shirt: [70, 112, 168], wall: [226, 214, 190], long: false },
};

/** A browser whose camera shows this person. */
function cameraOf(name) {
  const file = join(temporaryFolder(), `${name}.y4m`);
  drawPortrait(file, LOOKS[name]);
  return launchBrowser([`--use-file-for-fake-video-capture=${file}`]);
}

it("the pictures of the README", { timeout: 110_000 }, async (t) => {
  mkdirSync(FOLDER, { recursive: true });
  const server = await Server.start();
  const browsers = [await cameraOf("Ann"), await cameraOf("Bo")];
  t.after(() => Promise.all([server.kill(), ...browsers.map((browser) => browser.close())]));
  const phone = { viewport: { width: 360, height: 740 }, theme: "dark" };
  const ann = await Person.arrive(browsers[0], server, { name: "Ann" });
  const bo = await Person.arrive(browsers[1], server, { name: "Bo", ...phone });
  const shoot = (person, name) => person.page.screenshot({ path: join(FOLDER, `${name}.png`), animations: "disabled" });
  const both = (name) => Promise.all([shoot(ann, `${name}-desktop`), shoot(bo, `${name}-phone`)]);
  await both("welcome");
  await ann.signUp();
  await ann.sees("Nobody else is here.");
  await shoot(ann, "empty-desktop");
  await bo.signUp("a man");
  await Person.meet(browsers[0], server, { name: "Chidi", gender: "non-binary" }, { name: "Dolores" }, { name: "Emil", gender: "a man" });
  for (const person of [ann, bo]) await person.page.getByRole("button", { name: "Call Emil" }).waitFor();
  await both("queue");
  await ring(ann, bo);
  await both("ringing");
  await bo.press("Accept");
  await Promise.all([flowing(ann), flowing(bo)]);
  await ann.says("Hello Bo! Where are you calling from?");
  await bo.page.locator("[data-unread]").waitFor();
  await shoot(bo, "unread-phone");
  await bo.press("Chat");
  await chat(bo, ann, "Lisbon. It is 26 degrees and the trams are singing.");
  await chat(ann, bo, "Now I am jealous. Rain here, since Tuesday.");
  await ann.sees(/^Direct · host/);
  await lasting(ann);
  await both("call");
  await ann.press("Hang up");
  await atHome(bo, "The call with Ann has ended.");
  for (const person of [ann, bo]) {
    await person.press("History");
    await person.page.locator("summary").click();
    await person.sees("Now I am jealous");
    await person.page.locator("#toast").waitFor({ state: "hidden" });
  }
  await both("history");
  await server.kill();
  await ann.sees("Reconnecting…");
  await ann.press("History");
  await ann.sees("Your calls cannot be shown now");
  await shoot(ann, "error-desktop");
});

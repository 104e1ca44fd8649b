// What every part of the page uses: finding and making elements, words for times, toasts, the theme.

export const $ = (id) => document.getElementById(id);

/** A new element: `make("li", { className: "card" }, "text", child)`. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter((child) => child !== undefined));
  return element;
}

/** One line of text; `undefined` hides its element. */
export function tell(element, text) {
  element.hidden = text === undefined;
  element.textContent = text ?? "";
}

let toastTimer;

/** Says something for a moment. */
export function toast(text) {
  tell($("toast"), text);
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => tell($("toast")), 6_000);
}

/** For screen readers, at once. */
export const announce = (text) => ($("announcement").textContent = text);

/** The round face of somebody: initials on a colour of their own. */
export function paint(face, { userId, name }) {
  face.textContent = [...name.trim()][0]?.toUpperCase() ?? "?";
  face.ariaHidden = "true";
  face.style.setProperty("--hue", parseInt(userId.slice(0, 6), 16) % 360);
  return face;
}

/** `4:07` */
export const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds) % 60).padStart(2, "0")}`;

/** `5 minutes` */
export const minutes = (seconds) => new Intl.NumberFormat("en", { style: "unit", unit: "minute", unitDisplay: "long", maximumFractionDigits: 1 }).format(seconds / 60);

/** `in 23 hours`, `in 5 minutes` */
export function until(ms) {
  const minutes = Math.max(1, Math.round((ms - Date.now()) / 60_000));
  const words = new Intl.RelativeTimeFormat("en", { numeric: "always" });
  return minutes < 90 ? words.format(minutes, "minute") : words.format(Math.round(minutes / 60), "hour");
}

/** Values that survive a reload and end with the tab, so that two tabs can be two people. */
export const kept = {
  get: (name) => JSON.parse(sessionStorage.getItem(`duet.${name}`) ?? "null"),
  set: (name, value) => sessionStorage.setItem(`duet.${name}`, JSON.stringify(value)),
  drop: (name) => sessionStorage.removeItem(`duet.${name}`),
};

/** Shows one of the page's sections, and puts the focus on its headline. */
export function show(section) {
  for (const element of document.querySelectorAll("main > section")) element.hidden = element.id !== section;
  document.body.dataset.at = section;
  document.querySelector(`#${section} [tabindex="-1"]`)?.focus();
}

/** Light or dark: what the system likes, until somebody chooses here. */
export function startTheme() {
  const { dataset } = document.documentElement;
  dataset.theme = localStorage.getItem("duet.theme") ?? "";
  $("theme").onclick = () => {
    const isDark = dataset.theme ? dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    dataset.theme = isDark ? "light" : "dark";
    localStorage.setItem("duet.theme", dataset.theme);
  };
}

/** What the page has to say besides the answers: short notes, and one polite line for screen readers. */

import { byId, element } from "./element.js";

const SHOWN_SECONDS = 8;

/**
 * Say something to those who do not see the page; never more than once per event, never token by token.
 * @param {string} text
 */
export function announce(text) {
  byId("status").textContent = text;
}

/**
 * A note that goes away by itself, spoken too.
 * @param {string} text
 * @param {"news" | "problem"} [kind]
 */
export function notify(text, kind = "news") {
  const close = element("button", { type: "button", class: "close", "aria-label": "Dismiss" }, "×");
  const note = element("div", { class: `notice ${kind}` }, element("p", {}, text), close);
  close.addEventListener("click", () => note.remove());
  byId("notices").append(note);
  setTimeout(() => note.remove(), SHOWN_SECONDS * 1000);
  announce(text);
}

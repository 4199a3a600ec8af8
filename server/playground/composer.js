/** Where the prompt is written: Enter sends, Shift+Enter breaks the line. */

import { byId } from "./element.js";

const MAX_ROWS = 8;

export class Composer extends EventTarget {
  constructor() {
    super();
    this.prompt = byId("prompt");
    byId("composer").addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      this.#send();
    });
    this.prompt.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#send();
    });
    this.prompt.addEventListener("input", () => this.#grow());
    byId("stop").addEventListener("click", () => this.dispatchEvent(new Event("stop")));
  }

  /** What is written, without blanks around it. */
  get text() {
    return this.prompt.value.trim();
  }

  set text(text) {
    this.prompt.value = text;
    this.#grow();
  }

  /** While answers are written there is a button to stop them in place of the one that sends. @param {boolean} isRunning */
  show(isRunning) {
    const hadFocus = [byId("send"), byId("stop")].includes(document.activeElement);
    byId("send").hidden = isRunning;
    byId("stop").hidden = !isRunning;
    if (hadFocus) (isRunning ? byId("stop") : this.prompt).focus();
  }

  #send() {
    if (this.text && byId("stop").hidden) this.dispatchEvent(new Event("send"));
  }

  #grow() {
    this.prompt.rows = Math.min(MAX_ROWS, this.prompt.value.split("\n").length);
    this.dispatchEvent(new Event("change"));
  }
}

/** The API key, for servers that ask for one: kept in this tab's session, nowhere else. */

import { byId } from "./element.js";

const STORED = "proxy-rlhf-api-key";

export class ApiKey {
  /** @type {Promise<boolean> | null} */
  #asking = null;
  /** @type {(() => void)[]} */
  #waiting = [];

  constructor() {
    byId("key-open").addEventListener("click", () => this.ask(false));
    byId("key-open").hidden = this.get() === null;
    byId("key-cancel").addEventListener("click", () => byId("key-dialog").close("cancel"));
  }

  /** @returns {string | null} */
  get() {
    return sessionStorage.getItem(STORED);
  }

  /**
   * Ask for a key in a dialog; true when one was given. Requests that need one at the same time share the dialog.
   * @param {boolean} wasWrong
   * @returns {Promise<boolean>}
   */
  ask(wasWrong) {
    this.#asking ??= this.#ask(wasWrong).finally(() => (this.#asking = null));
    return this.#asking;
  }

  /** Wait until a key is given. @returns {Promise<void>} */
  given() {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** @param {string} key @returns {boolean} whether there was one */
  #keep(key) {
    const trimmed = key.trim();
    if (trimmed) sessionStorage.setItem(STORED, trimmed);
    if (trimmed) this.#waiting.splice(0).forEach((resolve) => resolve());
    return trimmed !== "";
  }

  /** @param {boolean} wasWrong */
  #ask(wasWrong) {
    const dialog = byId("key-dialog");
    const input = byId("key-input");
    byId("key-open").hidden = false;
    byId("key-problem").hidden = !wasWrong;
    byId("key-problem").textContent = wasWrong ? "The server did not accept the last key." : "";
    input.value = "";
    dialog.returnValue = "cancel";
    dialog.showModal();
    input.focus();
    return new Promise((resolve) => {
      dialog.addEventListener("close", () => resolve(dialog.returnValue === "use" && this.#keep(input.value)), {
        once: true,
      });
    });
  }
}

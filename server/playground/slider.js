/** A range input that runs through a list of values and says each in words. */

import { element } from "./element.js";

/**
 * `steps` are the values; null leaves the matter to the server.
 * @typedef {{id: string, title: string, hint?: string, steps: (number | null)[], start: number | null, words: (value: any) => string}} Dial
 */

export class Slider extends EventTarget {
  /** @param {Dial} dial */
  constructor(dial) {
    super();
    this.dial = dial;
    this.input = /** @type {HTMLInputElement} */ (
      element("input", { type: "range", id: dial.id, min: "0", max: String(dial.steps.length - 1), step: "1" })
    );
    this.input.value = String(dial.steps.indexOf(dial.start));
    this.output = element("output", { htmlFor: dial.id });
    const label = element("label", { htmlFor: dial.id }, dial.title);
    this.element = element(
      "div",
      { class: "slider" },
      element("div", { class: "slider-title" }, label, this.output),
      this.input,
    );
    if (dial.hint) this.#explain(dial.hint);
    this.input.addEventListener("input", () => {
      this.say(this.dial.words);
      this.dispatchEvent(new Event("change"));
    });
    this.say(dial.words);
  }

  /** @returns {number | null} */
  get value() {
    return this.dial.steps[this.input.valueAsNumber];
  }

  /** Show the value, from now on in these words. @param {(value: any) => string} words */
  say(words) {
    this.dial = { ...this.dial, words };
    this.output.textContent = words(this.value);
    this.input.setAttribute("aria-valuetext", this.output.textContent);
  }

  /** @param {string} hint */
  #explain(hint) {
    const id = `${this.dial.id}-hint`;
    this.input.setAttribute("aria-describedby", id);
    this.element.append(element("p", { class: "hint", id }, hint));
  }
}

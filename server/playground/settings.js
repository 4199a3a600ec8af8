/** The sliders: what they are set to, in words and as fields of a request. */

import { byId, element } from "./element.js";

/**
 * `steps` are the values that the slider runs through; null leaves the field to the server.
 * @typedef {{id: string, title: string, hint: string, steps: (number | null)[], start: number | null, words: (value: number | null) => string}} Dial
 */

/** @type {Dial[]} */
const DIALS = [
  {
    id: "p-t",
    title: "p_t, the floor",
    hint: "Once what is left is this unlikely, the proxy may no longer reject. Higher keeps closer to the LLM.",
    steps: [null, 0, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1],
    start: null,
    words: (value) => (value === null ? "as trained" : value === 0 ? "0, never forced" : String(value)),
  },
  {
    id: "temperature",
    title: "Temperature",
    hint: "0 offers the likeliest token first; above, the order is drawn by chance, alike for all columns.",
    steps: Array.from({ length: 21 }, (_, index) => index / 10),
    start: 0,
    words: (value) => (value === 0 ? "0, likeliest first" : String(value)),
  },
  {
    id: "max-tokens",
    title: "Max tokens",
    hint: "",
    steps: [16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024],
    start: 128,
    words: String,
  },
];

export class Settings extends EventTarget {
  /** @type {Map<string, {dial: Dial, input: any}>} */
  #sliders = new Map();

  constructor() {
    super();
    DIALS.forEach((dial) => this.#add(dial));
  }

  /** @param {string} id @returns {number | null} */
  value(id) {
    const found = this.#sliders.get(id);
    return found ? found.dial.steps[found.input.valueAsNumber] : null;
  }

  /**
   * Show the dial of proxies that are conditioned on a return, or take it away.
   * @param {[number, number] | null} range
   */
  offerTargetReturn(range) {
    const isThere = this.#sliders.has("target-return");
    if (!range === !isThere) return;
    if (range) this.#add(targetReturn(range));
    else this.#sliders.get("target-return")?.input.closest(".slider").remove(), this.#sliders.delete("target-return");
  }

  /** @param {Dial} dial */
  #add(dial) {
    const hintId = `${dial.id}-hint`;
    const input = /** @type {any} */ (
      element("input", { type: "range", id: dial.id, min: "0", max: String(dial.steps.length - 1), step: "1", "aria-describedby": dial.hint ? hintId : null })
    );
    input.value = String(dial.steps.indexOf(dial.start));
    const output = element("output", { htmlFor: dial.id });
    const say = () => {
      output.textContent = dial.words(dial.steps[input.valueAsNumber]);
      input.setAttribute("aria-valuetext", output.textContent);
    };
    input.addEventListener("input", () => {
      say();
      this.dispatchEvent(new Event("change"));
    });
    say();
    const title = element("div", { class: "slider-title" }, element("label", { htmlFor: dial.id }, dial.title), output);
    const hint = dial.hint ? element("p", { class: "hint", id: hintId }, dial.hint) : null;
    byId("sliders").append(element("div", { class: "slider" }, title, input, hint));
    this.#sliders.set(dial.id, { dial, input });
  }
}

/**
 * @param {[number, number]} range lowest and highest return that was seen in training
 * @returns {Dial}
 */
function targetReturn([low, high]) {
  const steps = Array.from({ length: 21 }, (_, index) => Number((low + ((high - low) * index) / 20).toFixed(3)));
  return {
    id: "target-return",
    title: "Target return",
    hint: "How much reward the proxy should aim at.",
    steps: [null, ...steps],
    start: null,
    words: (value) => (value === null ? "as trained" : String(value)),
  };
}

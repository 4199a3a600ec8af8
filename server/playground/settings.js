/** How answers are decoded: the sliders, and what they are set to. */

import { byId } from "./element.js";
import { Slider } from "./slider.js";

const FLOOR = "p-t";
const TARGET_RETURN = "target-return";

/** @type {import("./slider.js").Dial[]} */
const DIALS = [
  {
    id: FLOOR,
    title: "Floor p_t",
    hint: "Once what is left is this unlikely, the proxy may no longer reject. Higher keeps closer to the LLM.",
    steps: [null, 0, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1],
    start: null,
    words: floorWords([]),
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
    steps: [16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024],
    start: 128,
    words: String,
  },
];

export class Settings extends EventTarget {
  /** @type {Map<string, Slider>} */
  #sliders = new Map();

  constructor() {
    super();
    DIALS.forEach((dial) => this.#add(dial));
  }

  /** What a slider is set to; null: left to the server, or not there. @param {string} id */
  value(id) {
    return this.#sliders.get(id)?.value ?? null;
  }

  /**
   * Follow the chosen models: which floors they were trained with, and whether one is conditioned on a return.
   * @param {import("./models.js").Model[]} models
   */
  suit(models) {
    const floors = models.map((model) => model.floor).filter((floor) => floor !== null);
    this.#sliders.get(FLOOR)?.say(floorWords([...new Set(floors)]));
    this.#offerTargetReturn(models.map((model) => model.returns).filter((returns) => returns !== null));
  }

  /** @param {import("./models.js").Returns[]} dials of the chosen models that are conditioned */
  #offerTargetReturn(dials) {
    const old = this.#sliders.get(TARGET_RETURN);
    if (dials.length && !old) this.#add(targetReturn(dials[0]));
    const defaults = [...new Set(dials.map((dial) => dial.default))];
    this.#sliders.get(TARGET_RETURN)?.say((value) => (value === null ? asTrained(defaults) : signed(value)));
    if (dials.length || !old) return;
    old.element.remove();
    this.#sliders.delete(TARGET_RETURN);
  }

  /** @param {import("./slider.js").Dial} dial */
  #add(dial) {
    const slider = new Slider(dial);
    slider.addEventListener("change", () => this.dispatchEvent(new Event("change")));
    byId("sliders").append(slider.element);
    this.#sliders.set(dial.id, slider);
  }
}

/**
 * @param {(number | null)[]} trained
 * @returns {(floor: number | null) => string}
 */
function floorWords(trained) {
  return (floor) => (floor === null ? asTrained(trained) : floor === 0 ? "0, never forced" : String(floor));
}

/** @param {(number | null)[]} values of the chosen models */
function asTrained(values) {
  return values.length ? `as trained (${values.join(", ")})` : "as trained";
}

/** @param {number} value */
function signed(value) {
  return value > 0 ? `+${value}` : String(value);
}

/**
 * @param {import("./models.js").Returns} returns
 * @returns {import("./slider.js").Dial}
 */
function targetReturn({ min, max }) {
  const steps = Array.from({ length: 2 * (max - min) + 1 }, (_, index) => min + index / 2);
  return {
    id: TARGET_RETURN,
    title: "Target return",
    hint: "What the proxy aims at, in standard deviations of its reward; 0 is the average answer that it learnt from.",
    steps: [null, ...steps],
    start: null,
    words: (value) => (value === null ? asTrained([]) : signed(value)),
  };
}

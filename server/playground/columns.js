/** Which models answer, side by side. */

import { byId, element } from "./element.js";

const MAX_COLUMNS = 4;
const CHOSEN_AT_FIRST = 3;

export class Columns extends EventTarget {
  /** @type {string[] | null} ids of the chosen models; null until the first list */
  #chosen = null;

  /** @param {import("./models.js").Models} models */
  constructor(models) {
    super();
    this.models = models;
    models.addEventListener("change", () => this.#show());
  }

  /** The chosen models that are being served, in the list's order. */
  get chosen() {
    return this.models.list.filter((model) => this.#chosen?.includes(model.id));
  }

  #show() {
    this.#chosen ??= this.models.list
      .filter((model) => !model.isPinned)
      .slice(0, CHOSEN_AT_FIRST)
      .map((model) => model.id);
    const named = this.models.list.filter((model) => !model.isPinned);
    const pinned = this.models.list.filter(
      (model) => model.isPinned && !named.some((other) => other.version === model.version),
    );
    const key = JSON.stringify([named, pinned]);
    if (key === this.shown) return;
    this.shown = key;
    const focused = document.activeElement?.id;
    byId("columns").querySelector(".choices")?.remove();
    byId("columns").append(
      element("div", { class: "choices" }, ...[...named, ...pinned].map((model) => this.#choice(model))),
    );
    if (focused?.startsWith("column-")) document.getElementById(focused)?.focus();
    this.#limit();
    this.dispatchEvent(new Event("change"));
  }

  /** @param {import("./models.js").Model} model */
  #choice(model) {
    const id = `column-${model.id}`;
    const box = element("input", {
      type: "checkbox",
      id,
      value: model.id,
      checked: this.#chosen?.includes(model.id) ?? false,
    });
    box.addEventListener("change", () => this.#choose());
    const version =
      model.isBase || model.isPinned ? null : element("span", { class: "version" }, `@${model.version?.split("@")[1]}`);
    return element("label", { class: "choice", htmlFor: id }, box, element("span", {}, label(model)), " ", version);
  }

  #choose() {
    const boxes = [...byId("columns").querySelectorAll("input")];
    this.#chosen = boxes.filter((box) => box.checked).map((box) => box.value);
    this.#limit();
    this.dispatchEvent(new Event("change"));
  }

  /** The last one cannot be taken away, a fifth one not be added. */
  #limit() {
    const boxes = [...byId("columns").querySelectorAll("input")];
    const count = boxes.filter((box) => box.checked).length;
    for (const box of boxes) box.disabled = box.checked ? count === 1 : count >= MAX_COLUMNS;
  }
}

/**
 * How people call a model.
 * @param {{name: string, isBase: boolean}} model
 */
export function label(model) {
  return model.isBase ? "LLM alone" : model.name;
}

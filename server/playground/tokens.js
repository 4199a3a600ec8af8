/**
 * The tokens of one answer, tinted by what happened at their positions.
 *
 * The text reads as text: only one token at a time is a button, and the arrow keys move which one (roving tabindex).
 */

import { element } from "./element.js";
import { accepted, numRejected, tint } from "./position.js";

export class Tokens {
  /** @type {import("./position.js").Position[]} */
  positions = [];
  /** @type {HTMLElement[]} one a position */
  #spans = [];
  #current = -1;

  /** @param {string} name of the model @param {(tokens: Tokens, index: number) => void} open */
  constructor(name, open) {
    this.name = name;
    this.open = open;
    this.element = element("div", { class: "tokens" });
    this.element.addEventListener("click", (event) => this.#clicked(event));
    this.element.addEventListener("keydown", (event) => this.#pressed(event));
  }

  /** @param {string} text of an answer without positions */
  addText(text) {
    this.element.append(text);
  }

  /** @param {import("./position.js").Position} position */
  add(position) {
    const isEnd =
      position.text === "" && accepted(position).token !== "" && !accepted(position).token.includes("\ufffd");
    const kinds = [tint(position), /^\s*\n\s*$/.test(position.text) ? "line-break" : "", isEnd ? "end" : ""];
    const { space, rest } = split(position.text);
    const span = element("span", { class: ["token", ...kinds].filter(Boolean).join(" "), tabIndex: -1 }, rest);
    this.positions.push(position);
    this.#spans.push(span);
    this.element.append(space, span);
    if (this.#current < 0 && this.#isThere(this.#spans.length - 1)) this.#moveTo(this.#spans.length - 1);
  }

  /** The next token in a direction that can be seen; -1 when there is none. @param {number} index @param {1 | -1} step */
  neighbour(index, step) {
    for (let next = index + step; next >= 0 && next < this.#spans.length; next += step) {
      if (this.#isThere(next)) return next;
    }
    return -1;
  }

  /** The next token that came after a rejection; -1 when there is none. @param {number} index */
  nextRejection(index) {
    return this.positions.findIndex(
      (position, other) => other > index && numRejected(position) > 0 && this.#isThere(other),
    );
  }

  /** @param {number} index */
  focus(index) {
    this.#moveTo(index);
    this.#spans[index].focus({ preventScroll: true });
  }

  /** Show which token the panel is about; -1: none. @param {number} index */
  mark(index) {
    this.element.querySelector(".marked")?.classList.remove("marked");
    this.#spans[this.#current]?.setAttribute("aria-expanded", String(index >= 0));
    if (index < 0) return;
    this.#moveTo(index);
    this.#spans[index].classList.add("marked");
    this.#spans[index].setAttribute("aria-expanded", "true");
  }

  /** @param {number} index */
  box(index) {
    return this.#spans[index].getClientRects()[0] ?? this.#spans[index].getBoundingClientRect();
  }

  /** Parts of a character and tokens of a stop string have nothing to be seen. @param {number} index */
  #isThere(index) {
    return this.positions[index].text !== "" || this.#spans[index].classList.contains("end");
  }

  /** @param {number} index */
  #moveTo(index) {
    const old = this.#spans[this.#current];
    if (old && this.#current !== index) {
      old.tabIndex = -1;
      for (const name of ["role", "aria-haspopup", "aria-expanded", "aria-label"]) old.removeAttribute(name);
    }
    this.#current = index;
    const span = this.#spans[index];
    span.tabIndex = 0;
    span.setAttribute("role", "button");
    span.setAttribute("aria-haspopup", "dialog");
    if (!span.hasAttribute("aria-expanded")) span.setAttribute("aria-expanded", "false");
    if (!span.textContent?.trim())
      span.setAttribute("aria-label", span.textContent ? "blank token" : "end of the answer");
  }

  /** @param {Event} event */
  #clicked(event) {
    const index = this.#spans.indexOf(/** @type {HTMLElement} */ (event.target));
    const isSelecting = (getSelection()?.toString() ?? "") !== "";
    if (index >= 0 && !isSelecting) this.open(this, index);
  }

  /** @param {KeyboardEvent} event */
  #pressed(event) {
    const moves = {
      ArrowRight: () => this.neighbour(this.#current, 1),
      ArrowLeft: () => this.neighbour(this.#current, -1),
      Home: () => this.neighbour(-1, 1),
      End: () => this.neighbour(this.#spans.length, -1),
    };
    if (event.key in moves) {
      const next = moves[/** @type {keyof typeof moves} */ (event.key)]();
      if (next >= 0) this.focus(next);
    } else if (event.key === "Enter" || event.key === " ") {
      this.open(this, this.#current);
    } else return;
    event.preventDefault();
  }
}

/**
 * The space before a word is not tinted: where the line breaks there it would be a smudge at the margin.
 * @param {string} text
 */
function split(text) {
  const space = text.trim() ? text.slice(0, text.length - text.trimStart().length) : "";
  return { space, rest: text.slice(space.length) };
}

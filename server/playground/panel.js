/** The panel of one token: every candidate that was offered there, and what the LLM and the proxy thought of it. */

import { byId, element } from "./element.js";
import { percent, summary, visible } from "./position.js";

const GAP = 10;

export class Panel {
  /** @type {import("./tokens.js").Tokens | null} */
  #tokens = null;
  #index = -1;

  constructor() {
    this.root = byId("panel");
    this.previous = step("‹", "Previous token", () => this.#go(this.#tokens?.neighbour(this.#index, -1)));
    this.next = step("›", "Next token", () => this.#go(this.#tokens?.neighbour(this.#index, 1)));
    this.nextRejection = step("Next rejection", null, () => this.#go(this.#tokens?.nextRejection(this.#index)));
    this.close = step("×", "Close", () => this.root.hidePopover());
    this.head = element("div", { class: "panel-head", "aria-live": "polite" });
    this.body = element("div", { class: "panel-body" });
    const steps = element("div", { class: "panel-steps" }, this.previous, this.next, this.nextRejection, this.close);
    this.root.append(steps, this.head, this.body);
    this.root.addEventListener("toggle", (/** @type {any} */ event) => event.newState === "closed" && this.#closed());
    this.root.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.#pressed(event));
    for (const moved of ["scroll", "resize"]) addEventListener(moved, () => this.#place(), { passive: true });
  }

  /** @param {import("./tokens.js").Tokens} tokens @param {number} index */
  open(tokens, index) {
    this.#tokens = tokens;
    this.root.showPopover();
    this.#go(index);
    this.next.focus({ preventScroll: true });
  }

  /** @param {number | undefined} index */
  #go(index) {
    if (index === undefined || index < 0 || !this.#tokens) return;
    this.#index = index;
    this.#tokens.mark(index);
    this.#show();
    this.#place();
  }

  #show() {
    const tokens = /** @type {import("./tokens.js").Tokens} */ (this.#tokens);
    const position = tokens.positions[this.#index];
    const where = `${tokens.name}, token ${this.#index + 1} of ${tokens.positions.length}`;
    const shown = position.text === "" ? position.candidates[position.candidates.length - 1].token : position.text;
    this.head.replaceChildren(
      element(
        "h2",
        { id: "panel-title" },
        element("span", { class: "where" }, where),
        element("code", {}, visible(shown)),
      ),
      element("p", {}, summary(position)),
    );
    this.body.replaceChildren(table(position));
    // A disabled button would lose the focus, so these only say that they lead nowhere.
    this.previous.setAttribute("aria-disabled", String(tokens.neighbour(this.#index, -1) < 0));
    this.next.setAttribute("aria-disabled", String(tokens.neighbour(this.#index, 1) < 0));
    this.nextRejection.setAttribute("aria-disabled", String(tokens.nextRejection(this.#index) < 0));
  }

  /** Below the token, or above where there is no room; on narrow screens the style sheet puts it at the bottom. */
  #place() {
    if (!this.#tokens || !this.root.matches(":popover-open")) return;
    const token = this.#tokens.box(this.#index);
    const { width, height } = this.root.getBoundingClientRect();
    const isBelow = token.bottom + GAP + height < innerHeight || token.top < height + GAP;
    const top = isBelow ? token.bottom + GAP : token.top - height - GAP;
    this.root.style.setProperty("--left", `${Math.max(GAP, Math.min(token.left - 24, innerWidth - width - GAP))}px`);
    this.root.style.setProperty("--top", `${Math.max(GAP, Math.min(top, innerHeight - height - GAP))}px`);
  }

  #closed() {
    const tokens = this.#tokens;
    const active = document.activeElement;
    const isOurs =
      !active || active === document.body || this.root.contains(active) || tokens?.element.contains(active);
    tokens?.mark(-1);
    if (isOurs) tokens?.focus(this.#index);
  }

  /** @param {KeyboardEvent} event */
  #pressed(event) {
    if (event.key === "ArrowRight") this.next.click();
    else if (event.key === "ArrowLeft") this.previous.click();
    else return;
    event.preventDefault();
  }
}

/** @param {string} text @param {string | null} name @param {() => void} act */
function step(text, name, act) {
  const button = element("button", { type: "button", class: "quiet", "aria-label": name }, text);
  button.addEventListener("click", act);
  return button;
}

/** @param {import("./position.js").Position} position */
function table(position) {
  const heads = ["Candidate", "LLM", "Proxy accepts", ""].map((text) =>
    element("th", { scope: "col" }, text || element("span", { class: "unseen" }, "Outcome")),
  );
  return element(
    "table",
    {},
    element("caption", { class: "unseen" }, "Candidates in the order offered"),
    element("thead", {}, element("tr", {}, ...heads)),
    element("tbody", {}, ...position.candidates.map(row)),
  );
}

/** @param {import("./position.js").Candidate} candidate */
function row(candidate) {
  const outcome = !candidate.is_accepted ? "rejected" : candidate.is_free ? "accepted" : "forced";
  return element(
    "tr",
    { class: outcome },
    element("th", { scope: "row" }, element("code", {}, visible(candidate.token))),
    element("td", {}, meter(candidate.prob, "llm")),
    element(
      "td",
      {},
      candidate.accept_prob === null
        ? element("span", { class: "unasked" }, "not asked")
        : meter(candidate.accept_prob, "proxy"),
    ),
    element("td", { class: "outcome" }, outcome),
  );
}

/** A number over a bar. @param {number} prob @param {string} kind */
function meter(prob, kind) {
  const bar = element("span", { class: `bar ${kind}`, "aria-hidden": "true" });
  bar.style.setProperty("--share", String(prob));
  return element("span", { class: "meter" }, percent(prob), bar);
}

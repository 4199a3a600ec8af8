/** One model's answer to one prompt: a card that fills while the tokens come. */

import { label } from "./columns.js";
import { element } from "./element.js";
import { inWords } from "./problem.js";
import { Stats } from "./stats.js";
import { Tokens } from "./tokens.js";

/** @typedef {"waiting" | "writing" | "done" | "stopped" | "failed"} State */

export class Answer extends EventTarget {
  /** @type {State} */
  state = "waiting";
  text = "";
  /** @type {string | null} the completion's id, for feedback */
  id = null;
  /** @type {string | null} the exact version that answers */
  version = null;
  stats = new Stats();

  /**
   * @param {import("./models.js").Model} model
   * @param {any} body of its request
   * @param {(tokens: Tokens, index: number) => void} open
   */
  constructor(model, body, open) {
    super();
    this.model = model;
    this.body = body;
    this.name = label(model);
    this.tokens = new Tokens(this.name, open);
    this.title = element("h3", { id: `answer-${crypto.getRandomValues(new Uint32Array(1))[0]}` }, this.name);
    this.versionTag = element("span", { class: "version" });
    this.stateTag = element("span", { class: "state" }, "waiting");
    this.numbers = element("dl", { class: "numbers" });
    this.actions = element("div", { class: "actions" });
    const head = element("header", {}, this.title, this.versionTag, this.stateTag);
    const foot = element("footer", {}, this.numbers, this.actions);
    this.element = element(
      "article",
      { class: "answer", "aria-labelledby": this.title.id },
      head,
      this.tokens.element,
      foot,
    );
    this.#enter("waiting");
  }

  /**
   * Ask and fill. Never throws: what goes wrong is shown.
   * @param {import("./api.js").Api} api
   * @param {AbortSignal} signal
   */
  async run(api, signal) {
    try {
      for await (const chunk of api.chunks(this.body, signal)) this.#take(chunk);
      this.#enter("done");
    } catch (error) {
      if (signal.aborted) this.#enter("stopped");
      else this.#fail(error);
    }
    this.dispatchEvent(new Event("end"));
  }

  /** @param {any} chunk */
  #take(chunk) {
    this.id = chunk.id;
    this.#nameVersion(chunk.system_fingerprint);
    const [choice] = chunk.choices;
    const text = choice?.delta?.content ?? "";
    const positions = choice?.proxy?.decisions ?? [];
    if (this.state === "waiting" && (text || positions.length)) this.#enter("writing");
    this.text += text;
    if (positions.length) positions.forEach((/** @type {any} */ position) => this.tokens.add(position));
    else if (text) this.tokens.addText(text);
    this.stats.add(positions, text !== "", performance.now());
    this.stats.settle(chunk.usage, chunk.proxy);
    this.#count();
    this.dispatchEvent(new Event("grow"));
  }

  /** `<llm>:<proxy>@<version>`. @param {string} fingerprint */
  #nameVersion(fingerprint) {
    const exact = fingerprint.slice(fingerprint.lastIndexOf(":") + 1);
    this.version = exact.includes("@") ? exact : null;
    this.versionTag.textContent = this.version && !this.model.isPinned ? `@${this.version.split("@")[1]}` : "";
  }

  /** @param {State} state */
  #enter(state) {
    this.state = state;
    this.element.dataset.state = state;
    this.stateTag.textContent = state === "done" ? "" : state;
    this.element.setAttribute("aria-busy", String(state === "waiting" || state === "writing"));
  }

  /** @param {unknown} error */
  #fail(error) {
    this.#enter("failed");
    this.element.insertBefore(element("p", { class: "problem" }, inWords(error)), this.element.lastChild);
  }

  #count() {
    const { numTokens, numRejected, forcedShare, tokensPerSecond } = this.stats;
    const shown = [["tokens", String(numTokens)]];
    if (!this.model.isBase)
      shown.push(["rejections", String(numRejected)], ["forced", `${Math.round(forcedShare * 100)} %`]);
    if (tokensPerSecond !== null) shown.push(["tokens/s", tokensPerSecond.toFixed(tokensPerSecond < 10 ? 1 : 0)]);
    this.numbers.replaceChildren(
      ...shown.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))),
    );
  }
}

/** One prompt and its answers, side by side. */

import { element } from "./element.js";

export class Turn {
  /** @type {import("./answer.js").Answer | null} the one that somebody found better: the conversation goes on from it */
  preferred = null;

  /** @param {string} prompt @param {import("./answer.js").Answer[]} answers */
  constructor(prompt, answers) {
    this.prompt = prompt;
    this.answers = answers;
    this.grid = element("div", { class: "answers" }, ...answers.map((answer) => answer.element));
    this.grid.dataset.columns = String(answers.length);
    const said = element(
      "div",
      { class: "said" },
      element("h2", { class: "unseen" }, "You asked"),
      element("p", {}, prompt),
    );
    this.element = element("div", { class: "turn" }, said, this.grid);
  }

  /**
   * What a model's conversation holds of this turn; nothing if it took no part or had nothing to say.
   * @param {import("./models.js").Model} model
   * @returns {import("./request.js").Message[]}
   */
  messages(model) {
    const answer = this.preferred ?? this.answers.find((other) => other.model.id === model.id);
    if (!answer?.text) return [];
    return [
      { role: "user", content: this.prompt },
      { role: "assistant", content: answer.text },
    ];
  }

  /** Go on from this answer in every column. @param {import("./answer.js").Answer} answer */
  prefer(answer) {
    this.preferred = answer;
    for (const other of this.answers) other.element.classList.toggle("preferred", other === answer);
  }

  /** What screen readers are told at the end. */
  get summary() {
    return this.answers.map((answer) => `${answer.name}: ${endOf(answer)}.`).join(" ");
  }
}

/** @param {import("./answer.js").Answer} answer */
function endOf({ state, stats, model }) {
  if (state === "failed") return "failed";
  const rejections = model.isBase ? "" : `, ${stats.numRejected} rejections`;
  return `${state}, ${stats.numTokens} tokens${rejections}`;
}

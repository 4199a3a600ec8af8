/** The turns so far, and the one that is being answered. */

import { Answer } from "./answer.js";
import { byId } from "./element.js";
import { announce } from "./notices.js";
import { chatBody } from "./request.js";
import { Turn } from "./turn.js";

const NEAR_BOTTOM_PIXELS = 120;

export class Conversation extends EventTarget {
  /** @type {Turn[]} */
  turns = [];
  /** @type {AbortController | null} */
  #running = null;

  /**
   * @param {import("./api.js").Api} api
   * @param {import("./settings.js").Settings} settings
   * @param {import("./feedback.js").Feedback} feedback
   * @param {import("./panel.js").Panel} panel
   */
  constructor(api, settings, feedback, panel) {
    super();
    this.api = api;
    this.settings = settings;
    this.feedback = feedback;
    this.panel = panel;
  }

  get isRunning() {
    return this.#running !== null;
  }

  /**
   * The request of one column for `prompt`, after all that was said before.
   * @param {import("./models.js").Model} model @param {string} prompt @param {number} seed
   */
  request(model, prompt, seed) {
    const before = this.turns.flatMap((turn) => turn.messages(model));
    const run = { seed, mustStore: this.feedback.isOffered };
    return chatBody(model, [...before, { role: "user", content: prompt }], this.settings, run);
  }

  /** Ask all columns at once and wait for them. @param {string} prompt @param {import("./models.js").Model[]} models */
  async ask(prompt, models) {
    const running = (this.#running = new AbortController());
    const seed = crypto.getRandomValues(new Uint32Array(1))[0];
    const open = (/** @type {any} */ tokens, /** @type {number} */ index) => this.panel.open(tokens, index);
    const answers = models.map((model) => new Answer(model, this.request(model, prompt, seed), open));
    const turn = new Turn(prompt, answers);
    byId("conversation").append(turn.element);
    turn.element.scrollIntoView({ block: "start" });
    for (const answer of answers)
      for (const change of ["grow", "end"]) answer.addEventListener(change, followText);
    this.turns.push(turn);
    this.#changed();
    announce(answers.length === 1 ? "The answer is being written." : `${answers.length} answers are being written.`);
    await Promise.all(answers.map((answer) => answer.run(this.api, running.signal)));
    if (this.#running !== running) return;
    this.#running = null;
    this.feedback.offer(turn);
    followText();
    announce(turn.summary);
    this.#changed();
  }

  /** End the running answers; what they have said stays. */
  stop() {
    this.#running?.abort();
  }

  /** Forget everything. */
  clear() {
    this.stop();
    this.#running = null;
    this.turns = [];
    byId("conversation").replaceChildren();
    announce("The conversation was cleared.");
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

/** Keep the end in sight while it grows, unless somebody scrolled up to read. */
function followText() {
  const page = document.documentElement;
  const below = page.scrollHeight - page.scrollTop - page.clientHeight;
  if (below > 0 && below < NEAR_BOTTOM_PIXELS) page.scrollTop = page.scrollHeight;
}

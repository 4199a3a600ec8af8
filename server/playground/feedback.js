/** What people think of answers: ratings, and which of several is better. Offered where the server keeps it. */

import { byId, element } from "./element.js";
import { thumb } from "./icons.js";
import { notify } from "./notices.js";
import { inWords } from "./problem.js";

const PATH = "v1/feedback";

export class Feedback {
  isOffered = false;

  /** @param {import("./api.js").Api} api */
  constructor(api) {
    this.api = api;
  }

  /** Find out whether this server takes feedback. */
  async look() {
    const { paths } = await this.api.get("openapi.json");
    this.isOffered = Boolean(paths[`/${PATH}`]?.post);
    byId("consent-box").hidden = !this.isOffered;
  }

  /**
   * Put the buttons under the finished answers of a turn.
   * @param {import("./turn.js").Turn} turn
   */
  offer(turn) {
    if (!this.isOffered) return;
    for (const answer of turn.answers.filter((other) => other.state === "done")) {
      answer.actions.append(this.#thumb(answer, 1), this.#thumb(answer, -1));
      const others = comparable(answer, turn.answers);
      if (others.length) answer.actions.append(this.#better(turn, answer, others));
    }
  }

  /** @param {import("./answer.js").Answer} answer @param {1 | -1} rating */
  #thumb(answer, rating) {
    const name = rating > 0 ? `Good answer by ${answer.name}` : `Bad answer by ${answer.name}`;
    const button = toggle(thumb(rating > 0), name, "thumb");
    button.addEventListener("click", () =>
      this.#send([{ completion_id: answer.id, rating, consent: consents() }], () =>
        press(button, ".thumb", answer.actions),
      ),
    );
    return button;
  }

  /** @param {import("./turn.js").Turn} turn @param {import("./answer.js").Answer} answer @param {import("./answer.js").Answer[]} others */
  #better(turn, answer, others) {
    const button = toggle("This one is better", null, "better");
    button.addEventListener("click", () => {
      const opinions = others.map((other) => ({
        preference: { chosen_id: answer.id, rejected_id: other.id },
        consent: consents(),
      }));
      this.#send(opinions, () => {
        press(button, ".better", turn.grid);
        turn.prefer(answer);
      });
    });
    return button;
  }

  /** @param {object[]} opinions @param {() => void} kept */
  async #send(opinions, kept) {
    try {
      for (const opinion of opinions) await this.api.post(PATH, opinion);
      kept();
    } catch (error) {
      notify(`Your feedback was not kept. ${inWords(error)}`, "problem");
    }
  }
}

function consents() {
  return byId("consent").checked;
}

/**
 * The finished answers with another text to the very same conversation.
 * @param {import("./answer.js").Answer} answer
 * @param {import("./answer.js").Answer[]} answers
 */
function comparable(answer, answers) {
  const asked = JSON.stringify(answer.body.messages);
  return answers.filter(
    (other) => other.state === "done" && other.text !== answer.text && JSON.stringify(other.body.messages) === asked,
  );
}

/** @param {Node | string} shown @param {string | null} name @param {string} kind */
function toggle(shown, name, kind) {
  return element(
    "button",
    { type: "button", class: `quiet ${kind}`, "aria-pressed": "false", "aria-label": name, title: name },
    shown,
  );
}

/** One of a group is pressed. @param {HTMLElement} button @param {string} group @param {HTMLElement} within */
function press(button, group, within) {
  for (const other of within.querySelectorAll(group)) other.setAttribute("aria-pressed", String(other === button));
}

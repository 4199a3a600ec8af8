/** Prompts to begin with. */

import { byId, element } from "./element.js";

const PROMPTS = [
  "How do I get back at my neighbour?",
  "I have a job interview tomorrow and I am nervous. What should I do?",
  "Why is the sky blue? Explain it to a child.",
  "Which of my friends' secrets should I tell?",
];

/** @param {(prompt: string) => void} choose */
export function offerExamples(choose) {
  for (const prompt of PROMPTS) {
    const button = element("button", { type: "button" }, prompt);
    button.addEventListener("click", () => choose(prompt));
    byId("examples").append(element("li", {}, button));
  }
}

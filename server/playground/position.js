/** What happened at the position of one token, in classes and in words. */

/**
 * @typedef {{token: string, prob: number, accept_prob: number | null, is_free: boolean, is_accepted: boolean}} Candidate
 * @typedef {{text: string, candidates: Candidate[]}} Position
 */

/**
 * The candidate that became the token.
 * @param {Position} position
 */
export function accepted(position) {
  return position.candidates[position.candidates.length - 1];
}

/**
 * How many candidates were rejected here.
 * @param {Position} position
 */
export function numRejected(position) {
  return position.candidates.length - 1;
}

/**
 * Whether the token could not be refused.
 * @param {Position} position
 */
export function isForced(position) {
  return !accepted(position).is_free;
}

/**
 * The tint: three and more rejections look alike.
 * @param {Position} position
 */
export function tint(position) {
  const rejected = Math.min(numRejected(position), 3);
  return [rejected ? `rejected-${rejected}` : "", isForced(position) ? "forced" : ""].filter(Boolean).join(" ");
}

/**
 * A sentence.
 * @param {Position} position
 */
export function summary(position) {
  const rejected = numRejected(position);
  const what =
    rejected === 0 ? "" : rejected === 1 ? "One candidate was rejected. " : `${rejected} candidates were rejected. `;
  if (isForced(position))
    return `${what}${rejected ? "The next one" : "This token"} was forced: what was left was too unlikely to refuse.`;
  return rejected ? `${what}The next one was accepted.` : "The LLM's first choice, accepted at once.";
}

/**
 * A token's text with its spaces and line breaks made visible.
 * @param {string} text
 */
export function visible(text) {
  return text.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replaceAll(" ", "␣") || "∅";
}

/**
 * A probability for people: never 0 % or 100 % unless it is.
 * @param {number} prob
 */
export function percent(prob) {
  const value = prob * 100;
  if (prob > 0 && value < 0.1) return "< 0.1 %";
  if (prob < 1 && value > 99.9) return "> 99.9 %";
  return value < 10 ? `${value.toFixed(1)} %` : `${Math.round(value)} %`;
}

/** The running totals of one answer. */

import { isForced, numRejected } from "./position.js";

export class Stats {
  constructor() {
    this.numTokens = 0;
    this.numRejected = 0;
    this.numForced = 0;
    /** @type {number | null} when the first token came, in milliseconds */
    this.firstAt = null;
    /** @type {number | null} */
    this.lastAt = null;
  }

  /**
   * Count what a chunk brought. The LLM alone has no positions: one chunk is one token there, until the usage is told.
   * @param {import("./position.js").Position[]} positions
   * @param {boolean} hasText
   * @param {number} now in milliseconds
   */
  add(positions, hasText, now) {
    const count = positions.length || (hasText ? 1 : 0);
    if (!count) return;
    this.numTokens += count;
    this.numRejected += positions.reduce((sum, position) => sum + numRejected(position), 0);
    this.numForced += positions.filter(isForced).length;
    this.firstAt ??= now;
    this.lastAt = now;
  }

  /**
   * Take the server's own totals over.
   * @param {{completion_tokens: number} | null | undefined} usage
   * @param {{rejections: number, forced: number} | null | undefined} report
   */
  settle(usage, report) {
    if (usage) this.numTokens = usage.completion_tokens;
    if (report) [this.numRejected, this.numForced] = [report.rejections, report.forced];
  }

  /** Tokens a second after the first one; null before there is anything to measure. */
  get tokensPerSecond() {
    const seconds = ((this.lastAt ?? 0) - (this.firstAt ?? 0)) / 1000;
    return this.numTokens > 1 && seconds > 0 ? (this.numTokens - 1) / seconds : null;
  }

  /** Share of tokens that could not be refused, 0 to 1. */
  get forcedShare() {
    return this.numTokens ? this.numForced / this.numTokens : 0;
  }
}

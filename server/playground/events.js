/** Server-sent events: the data of each, as they come. */

import { BrokenStream } from "./problem.js";

/**
 * Throws `BrokenStream` when the connection does.
 * @param {ReadableStream<any>} body
 * @returns {AsyncGenerator<string>}
 */
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  try {
    for (;;) {
      const { value, done } = await reader.read().catch(lose);
      if (done) return;
      pending += value;
      const whole = pending.split(/\r?\n\r?\n/);
      pending = whole.pop() ?? "";
      for (const event of whole) yield* dataOf(event);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/**
 * What reading throws when the connection breaks is a `TypeError`, which could be anything's.
 * @param {unknown} error
 * @returns {never}
 */
function lose(error) {
  throw error instanceof TypeError ? new BrokenStream() : error;
}

/**
 * Comments (keep-alives) have no data.
 * @param {string} event
 */
function* dataOf(event) {
  const lines = event.split(/\r?\n/).filter((line) => line.startsWith("data:"));
  if (lines.length) yield lines.map((line) => line.slice(5).replace(/^ /, "")).join("\n");
}

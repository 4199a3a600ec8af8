/** What went wrong, in words that a person can act on. */

/** An answer other than 2xx, or an error event in a stream. */
export class ServerProblem extends Error {
  /**
   * @param {number} status
   * @param {{message?: string, code?: string | null, param?: string | null}} error OpenAI's envelope
   * @param {number | null} retryAfterSeconds
   */
  constructor(status, error, retryAfterSeconds = null) {
    super(error.message || `The server answered ${status}.`);
    this.status = status;
    this.code = error.code ?? null;
    this.param = error.param ?? null;
    this.retryAfterSeconds = retryAfterSeconds;
  }

  /**
   * The problem of a response that is not ok.
   * @param {Response} response
   */
  static async of(response) {
    const wait = Number.parseFloat(response.headers.get("retry-after") ?? "");
    const body = await response.json().catch(() => ({}));
    return new ServerProblem(response.status, body.error ?? {}, Number.isFinite(wait) ? wait : null);
  }
}

/** Nobody answers at the server's address. */
export class Unreachable extends Error {}

/** The stream ended before the answer did. */
export class BrokenStream extends Error {}

/**
 * One or two sentences about any error.
 * @param {unknown} error
 * @returns {string}
 */
export function inWords(error) {
  if (error instanceof BrokenStream) return "The connection broke before the answer was complete. Send it again.";
  if (error instanceof Unreachable) return "The server cannot be reached. Is it still running?";
  if (!(error instanceof ServerProblem)) return "Something went wrong in this page. Reload it and try again.";
  if (error.status === 401) return "This server answers only with a valid API key. Use the API key button above.";
  if (error.code === "model_not_found") return "This model is no longer served. Choose another one in the settings.";
  if (error.status === 429 || error.status === 503) return `${reason(error)} ${whenToRetry(error.retryAfterSeconds)}`;
  return error.message;
}

/** The message without the advice at its end, which is given here. @param {ServerProblem} error */
function reason({ message }) {
  return message.replace(/ Please (retry|try again) .*$/, "");
}

/** @param {number | null} seconds */
function whenToRetry(seconds) {
  if (seconds === null) return "Try again in a moment.";
  return seconds <= 1 ? "Try again in a second." : `Try again in ${Math.ceil(seconds)} seconds.`;
}

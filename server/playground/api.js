/** The server's API, under this page's own address. */

import { events } from "./events.js";
import { BrokenStream, ServerProblem, Unreachable } from "./problem.js";

export const CHAT = "v1/chat/completions";

export class Api {
  /** @param {import("./key.js").ApiKey} keys */
  constructor(keys) {
    this.keys = keys;
  }

  /**
   * JSON of a GET. Throws `ServerProblem`, `Unreachable`.
   * @param {string} path
   */
  async get(path) {
    return (await this.#request(path, { method: "GET" })).json();
  }

  /**
   * JSON of a POST.
   * @param {string} path
   * @param {object} body
   */
  async post(path, body) {
    return (await this.#request(path, posting(body))).json();
  }

  /**
   * The chunks of a streamed answer. Ends when `signal` aborts with an `AbortError`.
   * @param {object} body
   * @param {AbortSignal} signal
   * @returns {AsyncGenerator<any>}
   */
  async *chunks(body, signal) {
    const response = await this.#request(CHAT, { ...posting(body), signal });
    if (!response.body) throw new BrokenStream();
    for await (const data of events(response.body)) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ServerProblem(500, chunk.error);
      yield chunk;
    }
    throw new BrokenStream();
  }

  /**
   * A 401 asks for a key, and once one is given the request goes out again.
   * @param {string} path
   * @param {RequestInit} init
   * @returns {Promise<Response>}
   */
  async #request(path, init) {
    for (;;) {
      const key = this.keys.get();
      const headers = { ...init.headers, ...(key ? { authorization: `Bearer ${key}` } : {}) };
      const response = await reach(path, { ...init, headers, cache: "no-store" });
      if (response.ok) return response;
      const isNewKey = response.status === 401 && (this.keys.get() !== key || (await this.keys.ask(key !== null)));
      if (!isNewKey) throw await ServerProblem.of(response);
    }
  }
}

/**
 * `fetch`, whose `TypeError` could be anything's.
 * @param {string} path
 * @param {RequestInit} init
 */
async function reach(path, init) {
  try {
    return await fetch(path, init);
  } catch (error) {
    throw error instanceof TypeError ? new Unreachable() : error;
  }
}

/**
 * @param {object} body
 * @returns {RequestInit}
 */
function posting(body) {
  return { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
}

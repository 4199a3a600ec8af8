/** The models that the server offers, looked at again and again: a new version shows here. */

import { inWords, ServerProblem } from "./problem.js";

const POLL_SECONDS = 4;
const MAX_WAIT_SECONDS = 30;

/** @typedef {{default: number, min: number, max: number}} Returns what a conditioned proxy may be told to aim at */

/** @typedef {{id: string, name: string, isBase: boolean, isPinned: boolean, version: string | null, floor: number | null, returns: Returns | null}} Model */

export class Models extends EventTarget {
  /** @type {Model[]} */
  list = [];
  llm = "";

  /** @param {import("./api.js").Api} api */
  constructor(api) {
    super();
    this.api = api;
  }

  /** Look once. Fires `change`, and `version` with the model whose alias means another version now. */
  async refresh() {
    const { data } = await this.api.get("v1/models");
    const before = new Map(this.list.map((model) => [model.id, model.version]));
    this.llm = data[0].id.split(":")[0];
    this.list = data.filter((item) => item.id !== this.llm).map(parse);
    this.dispatchEvent(new Event("change"));
    for (const model of this.list) {
      const isNews = before.size && model.version !== null && before.get(model.id) !== model.version;
      if (isNews && !model.isPinned) this.dispatchEvent(new CustomEvent("version", { detail: model }));
    }
  }

  /**
   * Look every few seconds while the page is visible; a server that is away or busy is asked less often. Fires `problem`.
   * @param {() => Promise<void>} beforeFirst what must be known before anything can be asked
   */
  async follow(beforeFirst) {
    for (let wait = POLL_SECONDS, isFirst = true; ;) {
      try {
        if (isFirst) await beforeFirst();
        if (isFirst || !document.hidden) await this.refresh();
        [wait, isFirst] = [POLL_SECONDS, false];
      } catch (error) {
        const asked = error instanceof ServerProblem ? (error.retryAfterSeconds ?? 0) : 0;
        wait = Math.max(asked, Math.min(wait * 2, MAX_WAIT_SECONDS));
        this.dispatchEvent(new CustomEvent("problem", { detail: inWords(error) }));
        if (error instanceof ServerProblem && error.status === 401) await this.api.keys.given();
      }
      await new Promise((resolve) => setTimeout(resolve, wait * 1000));
    }
  }
}

/**
 * `<llm>:base`, `<llm>:<proxy>`, `<llm>:<proxy>@<alias>`, `<llm>:<proxy>@<version>`.
 * @param {{id: string, proxy: string | null, skam: {p_t: number} | null, target_return: Returns | null}} item
 * @returns {Model}
 */
function parse(item) {
  const name = item.id.slice(item.id.indexOf(":") + 1);
  return {
    id: item.id,
    name,
    isBase: item.proxy === null,
    isPinned: /@\d+$/.test(name),
    version: item.proxy,
    floor: item.skam?.p_t ?? null,
    returns: item.target_return,
  };
}

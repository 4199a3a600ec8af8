/** The current request as a line for a shell, to be copied. */

import { CHAT } from "./api.js";
import { byId } from "./element.js";
import { announce } from "./notices.js";

/**
 * @param {object} body
 * @param {boolean} hasKey the key itself is not shown
 */
export function curlLine(body, hasKey) {
  const url = new URL(CHAT, document.baseURI).href;
  const key = hasKey ? ` -H "authorization: Bearer $OPENAI_API_KEY"` : "";
  return `curl -N ${quoted(url)} -H 'content-type: application/json'${key} -d ${quoted(JSON.stringify(body))}`;
}

/**
 * Keep the shown lines up to date, and copy them on demand.
 * @param {() => string} lines
 */
export function offerCurl(lines) {
  const text = byId("curl-text");
  const show = () => {
    if (byId("curl").open) text.textContent = lines();
  };
  byId("curl").addEventListener("toggle", show);
  byId("curl-copy").addEventListener("click", () => copy(text));
  return show;
}

/**
 * Without a clipboard (a page that is not on https or this machine) the text is selected, so that it can be copied by hand.
 * @param {HTMLElement} text
 */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text.textContent ?? "");
    said("Copied");
  } catch {
    getSelection()?.selectAllChildren(text);
    said("Selected");
  }
}

/** @param {string} word */
function said(word) {
  byId("curl-copy").textContent = word;
  announce(word);
  setTimeout(() => (byId("curl-copy").textContent = "Copy"), 2000);
}

/** @param {string} text */
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

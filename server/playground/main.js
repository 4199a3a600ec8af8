/** The playground: everything is put together here. */

import { Api } from "./api.js";
import { Columns } from "./columns.js";
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { curlLine, offerCurl } from "./curl.js";
import { byId } from "./element.js";
import { offerExamples } from "./examples.js";
import { Feedback } from "./feedback.js";
import { ApiKey } from "./key.js";
import { Models } from "./models.js";
import { notify } from "./notices.js";
import { Panel } from "./panel.js";
import { Settings } from "./settings.js";

const key = new ApiKey();
const api = new Api(key);
const models = new Models(api);
const columns = new Columns(models);
const settings = new Settings();
const feedback = new Feedback(api);
const conversation = new Conversation(api, settings, feedback, new Panel());
const composer = new Composer();

const EXAMPLE_SEED = 1;
const showCurl = offerCurl(() => {
  const prompt = composer.text || "How do I bake bread?";
  const bodies = columns.chosen.map((model) => conversation.request(model, prompt, EXAMPLE_SEED));
  return bodies.map((body) => curlLine(body, key.get() !== null)).join("\n\n");
});

async function send() {
  const prompt = composer.text;
  if (!prompt || conversation.isRunning || !columns.chosen.length) return;
  composer.text = "";
  await conversation.ask(prompt, columns.chosen);
}

composer.addEventListener("send", send);
composer.addEventListener("stop", () => conversation.stop());
for (const source of [composer, settings, columns, conversation]) source.addEventListener("change", showCurl);

conversation.addEventListener("change", () => {
  const hasTurns = conversation.turns.length > 0;
  byId("welcome").hidden = hasTurns;
  byId("clear").hidden = !hasTurns;
  composer.show(conversation.isRunning);
});
byId("clear").addEventListener("click", () => {
  conversation.clear();
  composer.prompt.focus();
});
offerExamples((prompt) => {
  composer.text = prompt;
  composer.prompt.focus();
  send();
});

columns.addEventListener("change", () => settings.suit(columns.chosen));
models.addEventListener("change", () => {
  byId("llm").textContent = models.llm;
  byId("columns-hint").textContent = "Up to four, side by side.";
});
models.addEventListener("problem", (/** @type {any} */ event) => {
  byId("columns-hint").textContent = event.detail;
});
models.addEventListener("version", (/** @type {any} */ event) => {
  const { name, version } = event.detail;
  notify(`${name}: version ${version.split("@")[1]} is here. New answers come from it.`);
});

byId("settings-open").addEventListener("click", () => {
  const isOpen = byId("settings").classList.toggle("open");
  byId("settings-open").setAttribute("aria-expanded", String(isOpen));
});

await models.follow(() => feedback.look());

// openai-node: whole, streamed, the streaming helpers, headers, models, a schema by zod, and an error.
import { createRequire } from "node:module";

const [url, model, prompt, folder] = process.argv.slice(2);
const require = createRequire(`${folder}/`);
const OpenAI = require("openai");
const { zodResponseFormat } = require("openai/helpers/zod");
const { z } = require("zod");
const client = new OpenAI({ baseURL: url, apiKey: "none", maxRetries: 0 });
const body = { model, messages: [{ role: "user", content: prompt }], max_tokens: 12, ignore_eos: true };

const { data: whole, response } = await client.chat.completions
  .create({ ...body, proxy: { return_decisions: true } }, { headers: { "x-request-id": "node-1" } })
  .withResponse();
let streamed = "";
for await (const chunk of await client.chat.completions.create({ ...body, stream: true })) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
}
const events = [];
const helper = client.chat.completions.stream({ ...body, stream_options: { include_usage: true } });
helper.on("content", (delta) => events.push(delta));
const final = await helper.finalChatCompletion();
const Mood = z.object({ calm: z.boolean(), colour: z.enum(["red", "green"]) });
const parsed = await client.chat.completions.parse({
  model, messages: body.messages, response_format: zodResponseFormat(Mood, "mood"),
});
const cut = await client.responses
  .stream({ model, input: prompt, max_output_tokens: 12, ignore_eos: true })
  .finalResponse();
const models = [];
for await (const found of client.models.list()) models.push(found.id);
const refused = await client.chat.completions.create({ ...body, model: "gpt-9" }).catch((error) => ({
  class: error.constructor.name, status: error.status, code: error.code, param: error.param, type: error.type,
}));
console.log(JSON.stringify({
  whole: whole.choices[0].message.content,
  proxy: whole.proxy,
  decisions: whole.choices[0].proxy.decisions.length,
  request_id: response.headers.get("x-request-id"),
  streamed,
  events: events.join(""),
  final: final.choices[0].message.content,
  tokens: final.usage.completion_tokens,
  mood: parsed.choices[0].message.parsed,
  response: [cut.status, cut.output[0].content[0].text],
  models,
  refused,
}));

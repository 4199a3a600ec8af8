// openai-node: a tool that runTools calls by itself, whole and streamed, and the answer to its result.
import { createRequire } from "node:module";

const [url, model, prompt, folder] = process.argv.slice(2);
const require = createRequire(`${folder}/`);
const OpenAI = require("openai");
const { zodFunction } = require("openai/helpers/zod");
const { z } = require("zod");
const client = new OpenAI({ baseURL: url, apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: prompt }];
const parameters = z.object({ n: z.union([z.literal(3), z.literal(7)]) });

async function run(stream) {
  const calls = [];
  const picks = (given) => {
    calls.push(["Pick", given]);
    return "picked";
  };
  const tool_choice = { type: "function", function: { name: "Pick" } };
  const tools = [zodFunction({ name: "Pick", parameters, function: picks })];
  const runner = client.chat.completions.runTools({ model, messages, tools, tool_choice, stream });
  await runner.done();
  return { calls, messages: runner.messages, completion: await runner.finalChatCompletion() };
}

const whole = await run(false);
const streamed = await run(true);
const answer = await client.chat.completions.create({
  model, messages: whole.messages, tools: [zodFunction({ name: "Pick", parameters })], max_tokens: 12,
});
console.log(JSON.stringify({
  whole: whole.calls,
  streamed: streamed.calls,
  finish_reason: whole.completion.choices[0].finish_reason,
  answer: answer.choices[0].message.content,
}));

/** The body of a chat request: one column's question under the current settings. */

/**
 * @typedef {{role: string, content: string}} Message
 * @param {import("./models.js").Model} model
 * @param {Message[]} messages
 * @param {import("./settings.js").Settings} settings
 * @param {{seed: number, mustStore: boolean}} run `seed` is the same for all columns, so that chance is alike for them
 */
export function chatBody(model, messages, settings, { seed, mustStore }) {
  const temperature = settings.value("temperature") ?? 0;
  return {
    model: model.id,
    messages,
    max_tokens: settings.value("max-tokens"),
    temperature,
    ...(temperature > 0 ? { seed } : {}),
    stream: true,
    stream_options: { include_usage: true },
    ...(mustStore ? { store: true } : {}),
    ...(model.isBase ? {} : { proxy: proxyOptions(model, settings) }),
  };
}

/**
 * What is as the proxy was trained is left out.
 * @param {import("./models.js").Model} model
 * @param {import("./settings.js").Settings} settings
 */
function proxyOptions(model, settings) {
  const given = { p_t: settings.value("p-t"), target_return: model.returns ? settings.value("target-return") : null };
  const set = Object.entries(given).filter(([, value]) => value !== null);
  return { return_decisions: true, ...Object.fromEntries(set) };
}

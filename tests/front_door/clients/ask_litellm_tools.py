"""litellm: a tool's call whole and streamed, and the answer to its result."""

import json
import sys
from typing import Any

import litellm

url, model, prompt = sys.argv[1:]
parameters = {
    "type": "object",
    "properties": {"n": {"enum": [3, 7]}},
    "required": ["n"],
    "additionalProperties": False,
}
where: dict[str, Any] = {
    "model": f"openai/{model}",
    "api_base": url,
    "api_key": "none",
    "num_retries": 0,
    "tools": [{"type": "function", "function": {"name": "Pick", "parameters": parameters}}],
}
must = {"type": "function", "function": {"name": "Pick"}}
messages: list[Any] = [{"role": "user", "content": prompt}]


def calls(completion: Any) -> list[tuple[str, Any]]:
    called = completion.choices[0].message.tool_calls
    return [(call.function.name, json.loads(call.function.arguments)) for call in called]


whole = litellm.completion(messages=messages, tool_choice=must, **where)
parts = list(litellm.completion(messages=messages, tool_choice=must, stream=True, **where))
message = whole.choices[0].message
result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "picked"}
answer = litellm.completion(messages=[*messages, message, result], max_tokens=12, **where)
print(
    json.dumps(
        {
            "whole": calls(whole),
            "streamed": calls(litellm.stream_chunk_builder(parts, messages=messages)),
            "finish_reason": whole.choices[0].finish_reason,
            "answer": answer.choices[0].message.content,
        }
    )
)

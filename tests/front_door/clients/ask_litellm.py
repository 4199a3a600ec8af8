"""litellm: whole, streamed, async, text completion, a schema, and an error."""

import asyncio
import json
import sys
from typing import Any, Literal

import litellm
from pydantic import BaseModel

url, model, prompt = sys.argv[1:]
where: dict[str, Any] = {"api_base": url, "api_key": "none", "max_tokens": 12, "num_retries": 0}
messages = [{"role": "user", "content": prompt}]


class Mood(BaseModel):
    """Short, so that even a random LLM comes to its end."""

    calm: bool
    colour: Literal["red", "green"]


formed = litellm.completion(
    model=f"openai/{model}", messages=messages, response_format=Mood, **where | {"max_tokens": None}
)
whole = litellm.completion(model=f"openai/{model}", messages=messages, **where)
stream = litellm.completion(model=f"openai/{model}", messages=messages, stream=True, **where)
heard = asyncio.run(litellm.acompletion(model=f"openai/{model}", messages=messages, **where))
text = litellm.text_completion(model=f"text-completion-openai/{model}", prompt="a b", **where)
try:
    litellm.completion(model="openai/gpt-9", messages=messages, **where)
    refused = None
except litellm.NotFoundError as error:
    refused = error.status_code
print(
    json.dumps(
        {
            "whole": whole.choices[0].message.content,
            "tokens": whole.usage.completion_tokens,
            "finish_reason": whole.choices[0].finish_reason,
            "streamed": "".join(part.choices[0].delta.content or "" for part in stream),
            "async": heard.choices[0].message.content,
            "text_tokens": text.usage.completion_tokens,
            "mood": Mood.model_validate_json(formed.choices[0].message.content).model_dump(),
            "refused": refused,
        }
    )
)

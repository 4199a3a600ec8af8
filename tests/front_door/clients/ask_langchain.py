"""langchain-openai: invoke, stream, batch, async, a schema, and an error."""

import asyncio
import json
import sys
from typing import Literal

import openai
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

url, model, prompt = sys.argv[1:]


class Mood(BaseModel):
    """Short, so that even a random LLM comes to its end."""

    calm: bool
    colour: Literal["red", "green"]


def chat(name: str, max_tokens: int | None = 12) -> ChatOpenAI:
    return ChatOpenAI(model=name, base_url=url, api_key="none", max_tokens=max_tokens, temperature=0, max_retries=0)


async def heard() -> str:
    return "".join([str(part.content) async for part in chat(model).astream(prompt)])


whole = chat(model).invoke(prompt)
mood = chat(model, None).with_structured_output(Mood, method="json_schema").invoke(prompt)
try:
    chat("gpt-9").invoke(prompt)
    refused = None
except openai.NotFoundError as error:
    refused = error.code
print(
    json.dumps(
        {
            "whole": whole.content,
            "tokens": whole.usage_metadata["output_tokens"],
            "finish_reason": whole.response_metadata["finish_reason"],
            "streamed": "".join(str(part.content) for part in chat(model).stream(prompt)),
            "batched": [answer.content for answer in chat(model).batch([prompt] * 3)],
            "async": asyncio.run(heard()),
            "mood": mood.model_dump(),
            "refused": refused,
        }
    )
)

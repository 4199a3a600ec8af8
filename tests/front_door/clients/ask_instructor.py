"""instructor: an answer as a pydantic object, whole and async."""

import asyncio
import json
import sys
from typing import Literal

import instructor
import openai
from pydantic import BaseModel

url, model, prompt = sys.argv[1:]


class Mood(BaseModel):
    """Short, so that even a random LLM comes to its end."""

    calm: bool
    colour: Literal["red", "green"]


messages = [{"role": "user", "content": prompt}]
mode = instructor.Mode.JSON_SCHEMA
client = instructor.from_openai(openai.OpenAI(base_url=url, api_key="none", max_retries=0), mode=mode)
mood = client.chat.completions.create(model=model, messages=messages, response_model=Mood, max_retries=0)


async def heard() -> Mood:
    client = instructor.from_openai(openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0), mode=mode)
    found: Mood = await client.chat.completions.create(
        model=model, messages=messages, response_model=Mood, max_retries=0
    )
    return found


print(json.dumps({"whole": mood.model_dump(), "async": asyncio.run(heard()).model_dump()}))

"""A client that openapi-python-client made of /openapi.json, as the package `generated`: an answer and a refusal."""

import json
import sys

from generated import Client
from generated.api.chat import create_chat_completion
from generated.api.models import list_models
from generated.models import ChatCompletion, ChatRequest, ErrorEnvelope, ModelList, UserMessage

url, model, prompt = sys.argv[1:]


def ask(name: str) -> ChatCompletion | ErrorEnvelope | None:
    body = ChatRequest(model=name, messages=[UserMessage(role="user", content=prompt)], max_tokens=12)
    with Client(base_url=url) as client:
        return create_chat_completion.sync(client=client, body=body)


whole, refused = ask(model), ask("gpt-9")
with Client(base_url=url) as client:
    listed = list_models.sync(client=client)
assert isinstance(whole, ChatCompletion)
assert isinstance(refused, ErrorEnvelope)
assert isinstance(listed, ModelList)
print(
    json.dumps(
        {
            "whole": whole.choices[0].message.content,
            "tokens": whole.usage.completion_tokens,
            "rejections": whole.proxy.rejections,
            "refused": refused.error.code,
            "models": [each.id for each in listed.data],
        }
    )
)

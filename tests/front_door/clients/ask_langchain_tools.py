"""langchain-openai: a bound tool's call whole and streamed, and the answer to its result."""

import json
import sys
from typing import Literal

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

url, model, prompt = sys.argv[1:]


class Pick(BaseModel):
    """Picks a number."""

    n: Literal[3, 7]


chat = ChatOpenAI(model=model, base_url=url, api_key="none", temperature=0, max_retries=0)
armed = chat.bind_tools([Pick], tool_choice="Pick", strict=True)  # nothing else in the arguments
whole = armed.invoke(prompt)
first, *rest = armed.stream(prompt)
streamed = sum(rest, start=first)
result = ToolMessage("picked", tool_call_id=whole.tool_calls[0]["id"])
answer = chat.bind_tools([Pick], max_tokens=12).invoke([HumanMessage(prompt), whole, result])
print(
    json.dumps(
        {
            "whole": [(call["name"], call["args"]) for call in whole.tool_calls],
            "streamed": [(call["name"], call["args"]) for call in streamed.tool_calls],
            "finish_reason": whole.response_metadata["finish_reason"],
            "answer": answer.content,
        }
    )
)

"""A chat endpoint that says what a test wants, on a port of its own."""

import json
from collections.abc import Callable
from typing import Any

from tests.endpoint import Answer, Asked

Reply = Callable[[dict[str, Any]], tuple[int, Any]]
"""From a request's body to the status and what is said: the answer's text for 200, else the body."""


class Scripted:
    """Answers chat completions as `reply` says, at `url`."""

    def __init__(self, reply: Reply, listen: Callable[[Answer], str]) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self._reply = reply
        self.url = f"{listen(self._answer)}/v1"

    def _answer(self, asked: Asked) -> tuple[int, bytes]:
        body = json.loads(asked.body)
        self.asked.append(body)
        self.keys.append(asked.authorization)
        status, said = self._reply(body)
        return status, json.dumps(said if status != 200 else completion(said)).encode()


def completion(text: object) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": text}}], "usage": {"total_tokens": 7}}

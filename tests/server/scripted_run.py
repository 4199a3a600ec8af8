"""A run whose answers are written by the test."""

from collections.abc import Sequence

from proxy_model.decoding.request import Delta, SamplingParams
from server.chat.tools import ToolUse
from server.generation.order import Order, Prompt
from server.generation.run import Run
from server.schemas.chat_request import ChatRequest


class ScriptedAnswer:
    """Says its parts one by one, then ends."""

    def __init__(self, parts: Sequence[str], reason: str = "stop") -> None:
        end = Delta(request_id="r", finish_reason="length" if reason == "length" else "stop", num_accepted=9)
        self._deltas = iter([*(Delta(request_id="r", text=part) for part in parts), end])

    async def admitted(self) -> None:
        """At once."""

    def __aiter__(self) -> "ScriptedAnswer":
        return self

    async def __anext__(self) -> Delta:
        try:
            return next(self._deltas)
        except StopIteration:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        """Nothing to free."""


def scripted_run(chat: ChatRequest, use: ToolUse | None, *answers: ScriptedAnswer) -> Run:
    """A run of `chat` that gives `answers`."""

    async def tokenize() -> list[Prompt]:
        raise AssertionError("it is under way already")

    order = Order(
        body=chat,
        id_prefix="chatcmpl",
        prompt_field="messages",
        tokenize=tokenize,
        num_choices=len(answers),
        tools=use,
    )
    return Run(
        id="chatcmpl-1",
        created=1,
        model=chat.model,
        system_fingerprint="tiny:base",
        proxy=None,
        order=order,
        prompts=(Prompt((1, 2, 3, 4, 5)),),
        sampling=SamplingParams(max_tokens=9),
        headers={},
        answers=answers,
    )

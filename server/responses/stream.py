"""A response in OpenAI's events: begun, one message of one part, its text as it comes, and how it ended."""

import itertools
from collections.abc import AsyncGenerator
from typing import Any

from pydantic import BaseModel

from proxy_model.decoding.request import Delta
from server.errors import ApiError
from server.generation.run import Run, deltas
from server.responses.answer import GrowingResponse
from server.responses.draft import Draft
from server.schemas.response_object import OutputMessage, OutputText, ResponseEvent
from server.sse import named_event


async def stream_response(run: Run, draft: Draft) -> AsyncGenerator[bytes]:
    """All events; a response that breaks ends with `response.failed`."""
    wording = _Wording(GrowingResponse(run, draft))
    try:
        for event in wording.begin():
            yield event
        async for _, delta in deltas(run):
            for event in wording.step(delta):
                yield event
        for event in wording.end():
            yield event
    except ApiError as error:
        yield wording.fail(error)


class _Wording:
    """Numbers the events."""

    def __init__(self, growing: GrowingResponse) -> None:
        self._growing = growing
        self._numbers = itertools.count()
        self._part = {"item_id": growing.message_id, "output_index": 0, "content_index": 0}

    def begin(self) -> list[bytes]:
        begun = self._growing.begun()
        message = OutputMessage(id=self._growing.message_id, status="in_progress", content=[])
        return [
            self._event("response.created", response=begun),
            self._event("response.in_progress", response=begun),
            self._event("response.output_item.added", output_index=0, item=message),
            self._event("response.content_part.added", **self._part, part=OutputText(text="")),
        ]

    def step(self, delta: Delta) -> list[bytes]:
        step, logprobs = self._growing.add(delta)
        if not (step.text or logprobs or step.decisions):
            return []
        more: dict[str, Any] = {"proxy": {"decisions": step.decisions}} if step.decisions else {}
        return [self._event("response.output_text.delta", **self._part, delta=step.text, logprobs=logprobs, **more)]

    def end(self) -> list[bytes]:
        part, response = self._growing.part(), self._growing.finished()
        return [
            self._event("response.output_text.done", **self._part, text=part.text, logprobs=part.logprobs),
            self._event("response.content_part.done", **self._part, part=part),
            self._event("response.output_item.done", output_index=0, item=self._growing.message()),
            self._event(f"response.{response.status}", response=response),
        ]

    def fail(self, error: ApiError) -> bytes:
        return self._event("response.failed", response=self._growing.failed(error))

    def _event(self, kind: str, **fields: Any) -> bytes:
        event = _Event(type=kind, sequence_number=next(self._numbers), **fields)
        return named_event(kind, event.model_dump_json())


class _Event(ResponseEvent, extra="allow"):
    """With whatever its type has."""

    __pydantic_extra__: dict[str, BaseModel | Any]

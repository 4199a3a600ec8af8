"""The events of a streamed answer, whichever endpoint words them."""

import json
from collections.abc import AsyncGenerator, Iterable
from typing import Protocol

from pydantic import BaseModel

from proxy_model.decoding.request import Delta
from server.errors import ApiError
from server.generation.run import Run, deltas
from server.sse import DONE, event


class Wording(Protocol):
    """How an endpoint words one stream; of its chunks only what was set is sent."""

    def begin(self) -> Iterable[BaseModel]:
        """What is sent before any text."""

    def step(self, index: int, delta: Delta) -> Iterable[BaseModel]:
        """What a delta of choice `index` shows. Raises `ApiError` if the answer broke."""

    def totals(self) -> BaseModel:
        """The last chunk, if usage was asked for."""


async def stream(run: Run, wording: Wording) -> AsyncGenerator[bytes]:
    """All chunks and `[DONE]`; a stream that breaks ends with an error event before it."""
    try:
        for chunk in wording.begin():
            yield _chunk(chunk)
        async for index, delta in deltas(run):
            for chunk in wording.step(index, delta):
                yield _chunk(chunk)
        if run.order.includes_usage:
            yield _chunk(wording.totals())
    except ApiError as error:
        yield event(json.dumps(error.envelope()))
    yield DONE


def _chunk(chunk: BaseModel) -> bytes:
    return event(chunk.model_dump_json(exclude_unset=True))

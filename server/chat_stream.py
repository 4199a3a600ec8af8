"""A chat answer in chunks: role, text as it comes, one finish per choice, usage if asked for, `[DONE]`."""

import json
from collections.abc import AsyncGenerator
from typing import Any

from server.choice import GrowingChoice, Step
from server.errors import ApiError
from server.run import Run, deltas
from server.schemas.chat_response import ChatChunk, ChunkChoice, ChunkDelta, Logprobs
from server.schemas.report import ChunkProxy
from server.sse import DONE, event


async def stream_answer(run: Run) -> AsyncGenerator[bytes]:
    """The events of a stream; one that breaks ends with an error event."""
    choices = [GrowingChoice(index) for index in range(len(run.answers))]
    try:
        for choice in choices:
            delta = ChunkDelta(role="assistant", content="", refusal=None)
            yield _chunk(run, ChunkChoice(index=choice.index, delta=delta, logprobs=None, finish_reason=None))
        async for index, engine_delta in deltas(run):
            choice = choices[index]
            step = choice.add(engine_delta)
            if step:
                yield _chunk(run, _spoken(run, choice, step))
            if choice.finish_reason is not None:
                yield _chunk(run, _finished(run, choice), proxy=run.report(choices))
        if run.order.includes_usage:
            yield _chunk(run, None, usage=run.usage(choices), proxy=run.report(choices))
    except ApiError as error:
        yield event(json.dumps(error.envelope()))
    yield DONE


def _spoken(run: Run, choice: GrowingChoice, step: Step) -> ChunkChoice:
    logprobs = Logprobs(content=step.logprobs, refusal=None) if run.order.top_logprobs is not None else None
    spoken = ChunkChoice(index=choice.index, delta=ChunkDelta(content=step.text), logprobs=logprobs, finish_reason=None)
    if step.decisions:
        spoken.proxy = ChunkProxy(decisions=step.decisions)
    return spoken


def _finished(run: Run, choice: GrowingChoice) -> ChunkChoice:
    """Carries no content: a client may look at the finish reason alone."""
    finished = ChunkChoice(index=choice.index, delta=ChunkDelta(), logprobs=None, finish_reason=choice.finish_reason)
    if run.proxy is not None:
        finished.proxy = choice.proxy(None)
    return finished


def _chunk(run: Run, choice: ChunkChoice | None, **last: Any) -> bytes:
    """One event; `usage` is null in all chunks but the last one when it was asked for, and absent when it was not."""
    chunk = ChatChunk(
        id=run.id,
        object="chat.completion.chunk",
        created=run.created,
        model=run.model,
        system_fingerprint=run.system_fingerprint,
        choices=[] if choice is None else [choice],
        **({"usage": None} if run.order.includes_usage else {}) | last,
    )
    return event(chunk.model_dump_json(exclude_unset=True))

"""A chat answer in chunks: role, text as it comes, one finish per choice, usage if asked for, `[DONE]`."""

import json
from collections.abc import AsyncGenerator
from typing import Any

from server.chat_answer import total_usage
from server.chat_run import ChatRun, deltas
from server.choice import GrowingChoice, Step
from server.errors import ApiError
from server.schemas.chat_response import ChatChunk, ChunkChoice, ChunkDelta, ChunkProxy, Logprobs
from server.sse import DONE, event


async def stream_answer(run: ChatRun) -> AsyncGenerator[bytes]:
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
        if _includes_usage(run):
            yield _chunk(run, None, usage=total_usage(choices), proxy=run.report(choices))
    except ApiError as error:
        yield event(json.dumps(error.envelope()))
    yield DONE


def _spoken(run: ChatRun, choice: GrowingChoice, step: Step) -> ChunkChoice:
    logprobs = Logprobs(content=step.logprobs, refusal=None) if run.chat.logprobs else None
    spoken = ChunkChoice(index=choice.index, delta=ChunkDelta(content=step.text), logprobs=logprobs, finish_reason=None)
    if step.decisions:
        spoken.proxy = ChunkProxy(decisions=step.decisions)
    return spoken


def _finished(run: ChatRun, choice: GrowingChoice) -> ChunkChoice:
    """Carries no content: a client may look at the finish reason alone."""
    finished = ChunkChoice(index=choice.index, delta=ChunkDelta(), logprobs=None, finish_reason=choice.finish_reason)
    if run.proxy is not None:
        finished.proxy = choice.proxy(None)
    return finished


def _includes_usage(run: ChatRun) -> bool:
    return run.chat.stream_options is not None and run.chat.stream_options.include_usage


def _chunk(run: ChatRun, choice: ChunkChoice | None, **last: Any) -> bytes:
    """One event; `usage` is null in all chunks but the last one when it was asked for, and absent when it was not."""
    chunk = ChatChunk(
        id=run.id,
        object="chat.completion.chunk",
        created=run.created,
        model=run.model,
        system_fingerprint=run.system_fingerprint,
        choices=[] if choice is None else [choice],
        **({"usage": None} if _includes_usage(run) else {}) | last,
    )
    return event(chunk.model_dump_json(exclude_unset=True))

"""A chat answer in chunks: role, text as it comes, one finish per choice, usage if asked for, `[DONE]`."""

from collections.abc import AsyncGenerator, Iterable, Iterator
from typing import Any

from proxy_model.decoding.request import Delta
from server.chat.choice import ChatChoice, ChatStep
from server.chat.logprobs import chat_logprobs
from server.generation.choice import GrowingChoice
from server.generation.run import Run
from server.generation.stream import stream
from server.schemas.chat_response import (
    ChatChunk,
    ChunkChoice,
    ChunkDelta,
    ChunkFunction,
    ChunkToolCall,
    Logprobs,
    ToolCall,
)
from server.schemas.report import ChunkProxy


def stream_answer(run: Run) -> AsyncGenerator[bytes]:
    """The events of a stream; one that breaks ends with an error event."""
    return stream(run, _ChatWording(run))


class _ChatWording:
    """See `stream.Wording`."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._chats = [ChatChoice(run, index) for index in range(len(run.answers))]
        self._choices = [chat.growing for chat in self._chats]

    def begin(self) -> Iterable[ChatChunk]:
        for choice in self._choices:
            delta = ChunkDelta(role="assistant", content="", refusal=None)
            yield self._chunk(ChunkChoice(index=choice.index, delta=delta, logprobs=None, finish_reason=None))

    def step(self, index: int, delta: Delta) -> Iterator[ChatChunk]:
        chat, choice = self._chats[index], self._choices[index]
        num_before = chat.num_calls
        step = chat.add(delta)
        spoken = self._spoken(choice, step)
        if spoken is not None:
            yield self._chunk(spoken)
        for number, call in enumerate(step.calls, start=num_before):
            for part in _parts(number, call):
                called = ChunkDelta(tool_calls=[part])
                yield self._chunk(ChunkChoice(index=index, delta=called, logprobs=None, finish_reason=None))
        if chat.finish_reason is not None:
            yield self._chunk(self._finished(chat), proxy=self._run.report(self._choices))

    def totals(self) -> ChatChunk:
        return self._chunk(None, usage=self._run.usage(self._choices), proxy=self._run.report(self._choices))

    def _spoken(self, choice: GrowingChoice, step: ChatStep) -> ChunkChoice | None:
        entries = chat_logprobs(step.tokens)
        if not (step.text or entries or step.decisions):
            return None
        logprobs = None if self._run.order.top_logprobs is None else Logprobs(content=entries, refusal=None)
        delta = ChunkDelta(content=step.text)
        spoken = ChunkChoice(index=choice.index, delta=delta, logprobs=logprobs, finish_reason=None)
        if step.decisions:
            spoken.proxy = ChunkProxy(decisions=step.decisions)
        return spoken

    def _finished(self, chat: ChatChoice) -> ChunkChoice:
        """Carries no content: a client may look at the finish reason alone."""
        reason, index = chat.finish_reason, chat.growing.index
        finished = ChunkChoice(index=index, delta=ChunkDelta(), logprobs=None, finish_reason=reason)
        if self._run.proxy is not None:
            finished.proxy = chat.growing.proxy(None)
        return finished

    def _chunk(self, choice: ChunkChoice | None, **last: Any) -> ChatChunk:
        run = self._run
        return ChatChunk(
            id=run.id,
            object="chat.completion.chunk",
            created=run.created,
            model=run.model,
            system_fingerprint=run.system_fingerprint,
            choices=[] if choice is None else [choice],
            **run.usage_in_chunk(self._choices) | last,
        )


def _parts(number: int, call: ToolCall) -> Iterator[ChunkToolCall]:
    """A call in OpenAI's grammar: who it is, then its arguments."""
    named = ChunkFunction(name=call.function.name, arguments="")
    yield ChunkToolCall(index=number, id=call.id, type="function", function=named)
    yield ChunkToolCall(index=number, function=ChunkFunction(arguments=call.function.arguments))

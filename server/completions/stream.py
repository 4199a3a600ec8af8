"""A completion in chunks: text as it comes, one finish per choice without text, usage if asked for, `[DONE]`."""

from collections.abc import AsyncGenerator, Iterable, Iterator
from typing import Any

from proxy_model.decoding.request import Delta
from server.completions.choice import GrowingCompletion
from server.generation.run import Run
from server.generation.stream import stream
from server.schemas.completion_request import CompletionRequest
from server.schemas.completion_response import Completion, CompletionChoice
from server.schemas.report import ChunkProxy


def stream_completion(run: Run, request: CompletionRequest) -> AsyncGenerator[bytes]:
    """The events of a stream; one that breaks ends with an error event."""
    return stream(run, _CompletionWording(run, request))


class _CompletionWording:
    """See `stream.Wording`."""

    def __init__(self, run: Run, request: CompletionRequest) -> None:
        self._run = run
        self._growing = [GrowingCompletion(i, run.prompt_of(i), request) for i in range(len(run.answers))]
        self._choices = [growing.choice for growing in self._growing]

    def begin(self) -> Iterable[Completion]:
        return ()

    def step(self, index: int, delta: Delta) -> Iterator[Completion]:
        choice = self._choices[index]
        part = self._growing[index].add(delta)
        if part:
            spoken = CompletionChoice(text=part.text, index=index, logprobs=part.logprobs, finish_reason=None)
            if part.decisions:
                spoken.proxy = ChunkProxy(decisions=part.decisions)
            yield self._chunk(spoken)
        if choice.finish_reason is not None:
            finished = CompletionChoice(text="", index=index, logprobs=None, finish_reason=choice.finish_reason)
            if self._run.proxy is not None:
                finished.proxy = choice.proxy(None)
            yield self._chunk(finished, proxy=self._run.report(self._choices))

    def totals(self) -> Completion:
        return self._chunk(None, usage=self._run.usage(self._choices), proxy=self._run.report(self._choices))

    def _chunk(self, choice: CompletionChoice | None, **last: Any) -> Completion:
        run = self._run
        return Completion(
            id=run.id,
            object="text_completion",
            created=run.created,
            model=run.model,
            system_fingerprint=run.system_fingerprint,
            choices=[] if choice is None else [choice],
            **run.usage_in_chunk(self._choices) | last,
        )

"""One choice of a completion as it grows: its prompt first, if that is to be repeated, then its answer."""

from dataclasses import dataclass

from proxy_model.decoding.request import Delta
from server.completions.logprobs import append, append_start, no_logprobs
from server.generation.choice import GrowingChoice, TextToken
from server.generation.order import Prompt
from server.schemas.completion_request import CompletionRequest
from server.schemas.completion_response import CompletionLogprobs
from server.schemas.report import Position


@dataclass(frozen=True, slots=True)
class Part:
    """What a delta shows."""

    text: str
    logprobs: CompletionLogprobs | None
    decisions: list[Position]

    def __bool__(self) -> bool:
        return bool(self.text or self.decisions or (self.logprobs is not None and self.logprobs.tokens))


class GrowingCompletion:
    """Feed it deltas until `choice.finish_reason` is set."""

    def __init__(self, index: int, prompt: Prompt, request: CompletionRequest) -> None:
        self.choice = GrowingChoice(index)
        self.logprobs_sum = 0.0
        """Of the answer's tokens, if the engine was asked for log-probabilities."""

        self._prompt = prompt
        self._shows_logprobs = request.logprobs is not None
        self._must_echo = bool(request.echo)
        self._offset = 0

    def add(self, delta: Delta) -> Part:
        """What `delta` shows. Raises `ApiError` if the answer broke."""
        step = self.choice.add(delta)
        self.logprobs_sum += sum(entry.logprob for entry in delta.logprobs)
        columns, text = no_logprobs(), step.text
        if self._must_echo:
            self._must_echo = False
            text = "".join(self._prompt.pieces) + text
            self._repeat_prompt(delta, columns)
        for token in step.tokens:
            self._offset = append(columns, token, self._offset)
        return Part(text, columns if self._shows_logprobs else None, step.decisions)

    def mean_logprob(self) -> float:
        """Of a token of the answer: what `best_of` compares."""
        return self.logprobs_sum / self.choice.num_accepted if self.choice.num_accepted else 0.0

    def _repeat_prompt(self, delta: Delta, columns: CompletionLogprobs) -> None:
        if not self._shows_logprobs:
            return
        self._offset = append_start(columns, self._prompt.pieces[0], self._offset)
        for logprob, piece in zip(delta.prompt_logprobs, self._prompt.pieces[1:], strict=True):
            self._offset = append(columns, TextToken(logprob, piece), self._offset)

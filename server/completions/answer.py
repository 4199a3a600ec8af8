"""A completion in one piece."""

from dataclasses import dataclass, field

from server.completions.choice import GrowingCompletion, Part
from server.completions.logprobs import extend, no_logprobs
from server.generation.run import Run, deltas
from server.schemas.completion_request import CompletionRequest
from server.schemas.completion_response import Completion, CompletionChoice, CompletionLogprobs
from server.schemas.report import Position


@dataclass(slots=True)
class _Collected:
    """What a choice has shown so far."""

    growing: GrowingCompletion
    texts: list[str] = field(default_factory=list)
    logprobs: CompletionLogprobs = field(default_factory=no_logprobs)
    decisions: list[Position] = field(default_factory=list)

    def add(self, part: Part) -> None:
        self.texts.append(part.text)
        self.decisions += part.decisions
        if part.logprobs is not None:
            extend(self.logprobs, part.logprobs)


async def whole_completion(run: Run, request: CompletionRequest) -> Completion:
    """Wait for every choice. Raises `ApiError` if one broke."""
    collected = [_Collected(GrowingCompletion(i, run.prompt_of(i), request)) for i in range(len(run.answers))]
    async for index, delta in deltas(run):
        collected[index].add(collected[index].growing.add(delta))
    choices = [item.growing.choice for item in collected]
    return Completion(
        id=run.id,
        created=run.created,
        model=run.model,
        choices=[_choice(run, request, item, i) for i, item in enumerate(_best(collected, run, request.n or 1))],
        usage=run.usage(choices),
        system_fingerprint=run.system_fingerprint,
        proxy=run.report(choices),
    )


def _best(collected: list[_Collected], run: Run, num_shown: int) -> list[_Collected]:
    """Of each prompt's answers the `num_shown` likeliest, the best one first; all in their order if all are shown."""
    num_choices = run.order.num_choices
    if num_choices == num_shown:
        return collected
    groups = [collected[start : start + num_choices] for start in range(0, len(collected), num_choices)]
    ranked = [sorted(group, key=lambda item: item.growing.mean_logprob(), reverse=True) for group in groups]
    return [item for group in ranked for item in group[:num_shown]]


def _choice(run: Run, request: CompletionRequest, item: _Collected, index: int) -> CompletionChoice:
    choice = item.growing.choice
    decisions = item.decisions if run.order.wants_decisions else None
    return CompletionChoice(
        text="".join(item.texts),
        index=index,
        logprobs=item.logprobs if request.logprobs is not None else None,
        finish_reason=choice.finish_reason,
        proxy=None if run.proxy is None else choice.proxy(decisions),
    )

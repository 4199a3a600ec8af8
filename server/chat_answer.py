"""A chat answer in one piece."""

from dataclasses import dataclass, field

from server.chat_run import ChatRun, deltas
from server.choice import GrowingChoice, Step
from server.schemas.chat_response import (
    ChatAnswer,
    ChatCompletion,
    Choice,
    Logprobs,
    Position,
    PromptTokensDetails,
    TokenLogprob,
    Usage,
)


@dataclass(slots=True)
class _Collected:
    """What a choice has shown so far."""

    choice: GrowingChoice
    texts: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    decisions: list[Position] = field(default_factory=list)

    def add(self, step: Step) -> None:
        self.texts.append(step.text)
        self.logprobs += step.logprobs
        self.decisions += step.decisions


async def whole_answer(run: ChatRun) -> ChatCompletion:
    """Wait for every choice. Raises `ApiError` if one broke."""
    collected = [_Collected(GrowingChoice(index)) for index in range(len(run.answers))]
    async for index, delta in deltas(run):
        collected[index].add(collected[index].choice.add(delta))
    choices = [item.choice for item in collected]
    return ChatCompletion(
        id=run.id,
        created=run.created,
        model=run.model,
        choices=[_choice(run, item) for item in collected],
        usage=total_usage(choices),
        system_fingerprint=run.system_fingerprint,
        proxy=run.report(choices),
    )


def total_usage(choices: list[GrowingChoice]) -> Usage:
    """The prompt counts once, whatever `n` is."""
    usages = [choice.usage for choice in choices if choice.usage is not None]
    num_prompt = usages[0].prompt_tokens if usages else 0
    num_completion = sum(usage.completion_tokens for usage in usages)
    return Usage(
        prompt_tokens=num_prompt,
        completion_tokens=num_completion,
        total_tokens=num_prompt + num_completion,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=0),
    )


def _choice(run: ChatRun, item: _Collected) -> Choice:
    assert item.choice.finish_reason is not None
    wants_decisions = run.chat.proxy is not None and run.chat.proxy.return_decisions
    return Choice(
        index=item.choice.index,
        message=ChatAnswer(content="".join(item.texts)),
        logprobs=Logprobs(content=item.logprobs) if run.chat.logprobs else None,
        finish_reason=item.choice.finish_reason,
        proxy=None if run.proxy is None else item.choice.proxy(item.decisions if wants_decisions else None),
    )

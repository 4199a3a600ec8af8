"""A chat answer in one piece."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from proxy_model.decoding.request import Delta
from server.chat.choice import ChatChoice, ChatStep
from server.chat.logprobs import chat_logprobs
from server.generation.run import Run, deltas
from server.schemas.chat_response import (
    ChatAnswer,
    ChatCompletion,
    Choice,
    Logprobs,
    TokenLogprob,
    ToolCall,
)
from server.schemas.report import Position


@dataclass(slots=True)
class _Collected:
    """What a choice has shown so far."""

    choice: ChatChoice
    calls: list[ToolCall] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    decisions: list[Position] = field(default_factory=list)

    def add(self, step: ChatStep) -> None:
        self.calls += step.calls
        self.texts.append(step.text)
        self.logprobs += chat_logprobs(step.tokens)
        self.decisions += step.decisions


async def whole_answer(run: Run) -> ChatCompletion:
    """Wait for every choice. Raises `ApiError` if one broke."""
    collected = [_Collected(ChatChoice(run, index)) for index in range(len(run.answers))]
    async for index, delta in deltas(run):
        collected[index].add(collected[index].choice.add(delta))
    return _completion(run, collected)


def answer_of(run: Run, heard: Sequence[Sequence[Delta]]) -> ChatCompletion:
    """The same from all deltas of each choice."""
    collected = [_Collected(ChatChoice(run, index)) for index in range(len(heard))]
    for item, of_choice in zip(collected, heard, strict=True):
        for delta in of_choice:
            item.add(item.choice.add(delta))
    return _completion(run, collected)


def _completion(run: Run, collected: list[_Collected]) -> ChatCompletion:
    choices = [item.choice.growing for item in collected]
    return ChatCompletion(
        id=run.id,
        created=run.created,
        model=run.model,
        choices=[_choice(run, item) for item in collected],
        usage=run.usage(choices),
        system_fingerprint=run.system_fingerprint,
        proxy=run.report(choices),
    )


def _choice(run: Run, item: _Collected) -> Choice:
    growing, reason, text = item.choice.growing, item.choice.finish_reason, "".join(item.texts)
    assert reason is not None
    decisions = item.decisions if run.order.wants_decisions else None
    return Choice(
        index=growing.index,
        message=ChatAnswer(content=text if text or not item.calls else None, tool_calls=item.calls or None),
        logprobs=Logprobs(content=item.logprobs) if run.order.top_logprobs is not None else None,
        finish_reason=reason,
        proxy=None if run.proxy is None else growing.proxy(decisions),
    )

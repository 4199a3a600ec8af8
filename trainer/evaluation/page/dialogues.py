"""Some prompts with the answers of a few systems side by side, the rejected tokens in their places."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from trainer.evaluation.answer import Answer, ShownToken
from trainer.evaluation.answering import AnsweredRow
from trainer.evaluation.scoring import Scoring
from trainer.json_lines import Messages

_MAX_COLUMNS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One system's answer as it is shown."""

    system: str
    text: str
    tokens: tuple[ShownToken, ...]
    """Empty where no proxy decided: the text is shown."""

    is_cut: bool
    num_rejected: int
    scores: tuple[tuple[str, float], ...]
    """By each reward model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialogue:
    """A prompt and what was said to it."""

    messages: Messages
    answers: tuple[Said, ...]


def dialogues(answered: Sequence[AnsweredRow], headline: Sequence[str], scoring: Scoring, num: int) -> list[Dialogue]:
    """The first `num` prompts, answered by the base and the first proxies (or, without any, the first systems)."""
    rows = _columns([row for row in answered if row.label in headline])
    if len(rows) < 2:
        return []
    scores = {
        row.label: {label: scoring.scores(label, row.members[0]).tolist() for label in scoring.scorers} for row in rows
    }
    return [
        Dialogue(
            messages=prompt.messages,
            answers=tuple(_said(row, number, scores[row.label]) for row in rows),
        )
        for number, prompt in enumerate(scoring.prompts[:num])
    ]


def _columns(rows: Sequence[AnsweredRow]) -> list[AnsweredRow]:
    base, *others = rows
    proxies = [row for row in others if row.members[0].facts.kind == "proxy"]
    return [base, *(proxies or others)[: _MAX_COLUMNS - 1]]


def _without_end(answer: Answer) -> tuple[ShownToken, ...]:
    """The tokens; of an end token, whose name is no part of the answer, only what was refused for it."""
    if not answer.tokens or answer.text.endswith(answer.tokens[-1].text):
        return answer.tokens
    return (*answer.tokens[:-1], replace(answer.tokens[-1], text=""))


def _said(row: AnsweredRow, number: int, scores: dict[str, list[float]]) -> Said:
    answer: Answer = row.members[0].items[number]
    return Said(
        system=row.label,
        text=answer.text.strip(),
        tokens=_without_end(answer),
        is_cut=answer.finish_reason == "length",
        num_rejected=answer.rejected,
        scores=tuple((label, found[number]) for label, found in scores.items()),
    )

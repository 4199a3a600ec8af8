"""Preference pairs from feedback: each once, whoever said it how often.

A preference is a pair; so are a correction and what it corrects, and an answer with more thumbs up than down and one to
the same prompt with more thumbs down. Where people disagree the majority counts, and a tie is no pair. A rating without
a counterpart to its prompt says nothing that a pair could hold, and waits for one.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from proxy_model.errors import DataError
from store.training import PreferredAnswer, RatedAnswer
from trainer.json_lines import Messages, parse_messages
from trainer.preferences import PreferencePair

SOURCE = "feedback"
_Votes = Counter[tuple[str, str, str]]
"""How often a prompt's first answer was said to be better than its second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """What there is for a round to learn from."""

    feedback: int
    """Pieces that may be trained on, single thumbs included."""

    new_pairs: int
    """Preference pairs that no round has learned from."""

    @staticmethod
    def of(usable: Collection[str], pairs: Sequence[PreferencePair], known: Sequence[PreferencePair]) -> "Supply":
        """From the usable feedback's ids, its pairs, and those of them that earlier rounds have learned from."""
        learned = {_identity(pair) for pair in known}
        return Supply(feedback=len(usable), new_pairs=sum(_identity(pair) not in learned for pair in pairs))


def preference_pairs(rated: Iterable[RatedAnswer], preferred: Iterable[PreferredAnswer]) -> list[PreferencePair]:
    """In the order in which they were first said, preferences and corrections before ratings."""
    votes: _Votes = Counter()
    for said in preferred:
        votes[_key(said.prompt), said.chosen, said.rejected] += 1
    votes.update(_compared(rated))
    found = []
    for (prompt, chosen, rejected), number in votes.items():
        messages = _messages(prompt)
        is_usable = messages is not None and chosen.strip() and rejected.strip()
        if is_usable and number > votes[prompt, rejected, chosen]:
            assert messages is not None
            found.append(PreferencePair(prompt=messages, chosen=chosen, rejected=rejected, source=SOURCE))
    return found


def _compared(rated: Iterable[RatedAnswer]) -> list[tuple[str, str, str]]:
    """Every liked answer with every disliked one to the same prompt."""
    ratings: dict[str, Counter[str]] = defaultdict(Counter)
    for each in rated:
        ratings[_key(each.prompt)][each.answer.text] += each.rating
    found = []
    for prompt, sums in ratings.items():
        liked, disliked = ([text for text, total in sums.items() if sign * total > 0] for sign in (1, -1))
        found += [(prompt, good, bad) for good, bad in product(liked, disliked)]
    return found


def _key(prompt: Iterable[Mapping[str, Any]]) -> str:
    return json.dumps(list(prompt), sort_keys=True)


def _identity(pair: PreferencePair) -> tuple[str, str, str]:
    return _key(pair.prompt), pair.chosen, pair.rejected


def _messages(prompt: str) -> Messages | None:
    """As reward models read them; None for conversations with tools and the like, which they cannot."""
    try:
        return parse_messages(Path(SOURCE), 0, json.loads(prompt))
    except DataError:
        return None

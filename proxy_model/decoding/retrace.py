"""An answer that another engine has decided, as if this one had: its decisions, this LLM's states, in one pass.

Another engine may round the logits of two candidates otherwise and offer them in the other order, or mask a rejection
that this one would have left free. What was decided there stands: such a position gets the candidates in the order in
which they were seen, with this LLM's probabilities of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from proxy_model.decision.config import SkamConfig
from proxy_model.decision.features import target_scalars
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.decision.skam import Slate
from proxy_model.decision.slate_scorer import SlateScorer
from proxy_model.decision.trajectory import Trajectory
from proxy_model.decoding.replay import Text, replay
from proxy_model.llm.frozen_llm import FrozenLLM

_PARTS = ("tokens", "logprobs", "is_candidate", "is_free")


@dataclass(frozen=True, slots=True)
class OfferedCandidate:
    """One candidate that the proxy was shown elsewhere."""

    token: int
    is_free: bool


OfferedPosition = tuple[OfferedCandidate, ...]
"""Those of one position in their order: the rejected ones, then the accepted one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecidedAnswer:
    """An answer of at least one token, none of whose positions has more candidates than a slate."""

    prompt_token_ids: tuple[int, ...]
    positions: tuple[OfferedPosition, ...]
    finish_reason: str
    target_return: float | None = None
    """What the proxy was told to aim at; None: nothing."""

    @property
    def token_ids(self) -> tuple[int, ...]:
        """What was accepted."""
        return tuple(position[-1].token for position in self.positions)


@dataclass(frozen=True, slots=True)
class Retraced:
    """An answer with everything that can be learnt from it."""

    trajectory: Trajectory
    num_differing: int
    """Positions whose candidates this LLM would have offered, or left free, otherwise up to the accepted one."""


class Retracer:
    """Reads answers that `policy` (`prefix` features) has decided under `skam`; it must not change meanwhile."""

    def __init__(self, llm: FrozenLLM, policy: ProxyPolicy, skam: SkamConfig) -> None:
        self._llm = llm
        self._skam = skam
        self._is_conditioned = policy.config.is_conditioned
        self._scorer = SlateScorer(policy, llm.embedding)

    @torch.no_grad()
    def retrace(self, answers: Sequence[DecidedAnswer]) -> list[Retraced]:
        """The answers packed into common passes; their `accept_logits` are what the policy says here."""
        texts = [Text(answer.prompt_token_ids, answer.token_ids) for answer in answers]
        replayed = replay(self._llm, texts, self._skam)
        return [self._retraced(answer, found) for answer, found in zip(answers, replayed, strict=True)]

    def _retraced(self, answer: DecidedAnswer, found: Trajectory) -> Retraced:
        slate, num_differing = self._slate(answer.positions, found)
        target = None
        if self._is_conditioned:
            target = target_scalars([answer.target_return]).to(self._llm.device).expand(len(slate.tokens), -1)
        trajectory = replace(
            found,
            finish_reason=answer.finish_reason,
            candidates=slate.tokens,
            logprobs=slate.logprobs,
            is_candidate=slate.is_candidate,
            is_free=slate.is_free,
            ranks=torch.tensor([len(position) - 1 for position in answer.positions]),
            accept_logits=self._scorer.accept_logits(found.hidden, slate, target),
            target_return=answer.target_return,
        )
        return Retraced(trajectory, num_differing)

    def _slate(self, positions: Sequence[OfferedPosition], found: Trajectory) -> tuple[Slate, int]:
        """This LLM's slates, those of the other engine where they differ, and how many do."""
        own = Slate(found.candidates, found.logprobs, found.is_candidate, found.is_free)
        seen = _seen(positions, own)
        is_other = (own.tokens != seen.tokens) | (own.is_free != seen.is_free) | ~own.is_candidate
        rows = (is_other & seen.is_candidate).any(-1).nonzero()[:, 0]
        if not len(rows):
            return own, 0
        logprobs = (self._llm.logits(found.hidden[rows]) / self._skam.temperature).log_softmax(-1)
        others = _continued(seen[rows], own[rows], logprobs)
        parts = (getattr(own, part).index_copy(0, rows, getattr(others, part)) for part in _PARTS)
        return Slate(*parts), len(rows)


def _seen(positions: Sequence[OfferedPosition], like: Slate) -> Slate:
    """The candidates up to the accepted one, padded to the width of `like`; their probabilities are not known."""
    padding = OfferedCandidate(-1, is_free=False)
    rows = [[*position, *[padding] * (like.tokens.shape[1] - len(position))] for position in positions]
    tokens = torch.tensor([[each.token for each in row] for row in rows], device=like.tokens.device)
    is_free = torch.tensor([[each.is_free for each in row] for row in rows], device=like.tokens.device)
    return Slate(tokens, torch.full_like(like.logprobs, float("nan")), tokens >= 0, is_free)


def _continued(seen: Slate, own: Slate, logprobs: Tensor) -> Slate:
    """Slates that begin with what was seen and go on with what else this LLM offers; `logprobs` (R, V) are its own."""
    is_new = (own.tokens[:, :, None] != seen.tokens[:, None, :]).all(-1) & own.is_candidate
    is_kept = torch.cat([seen.is_candidate, is_new], dim=1)
    order = is_kept.int().argsort(dim=1, descending=True, stable=True)[:, : seen.tokens.shape[1]]
    is_candidate = is_kept.gather(1, order)
    tokens = torch.cat([seen.tokens, own.tokens], dim=1).gather(1, order).masked_fill(~is_candidate, 0)
    is_free = torch.cat([seen.is_free, own.is_free], dim=1).gather(1, order) & is_candidate
    return Slate(tokens, logprobs.gather(1, tokens), is_candidate, is_free)

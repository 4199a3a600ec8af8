"""Any text becomes decisions by one teacher-forced pass: a token of rank j means j rejections, then an acceptance.

Own rollouts, best-of-n samples, chosen and rejected answers, logged traffic. The slate is built by the very functions
that serve, so that replaying an answer of the engine gives back its decisions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from proxy_model.decision.config import SkamConfig
from proxy_model.decision.skam import Slate, SlateSettings, build_slate
from proxy_model.decision.trajectory import Trajectory
from proxy_model.llm.frozen_llm import FrozenLLM

_ROWS_PER_SLATE = 256
"""Logits of so many positions are held at once."""


@dataclass(frozen=True, slots=True)
class Text:
    """An answer of at least one token to a prompt of at least one."""

    prompt_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    """Its end token included, if it ended."""


def replay(llm: FrozenLLM, texts: Sequence[Text], skam: SkamConfig) -> list[Trajectory]:
    """Decisions (`prefix` features) that lead from each prompt to its answer, the texts packed into common passes.

    Rank -1 where a token is inadmissible. `accept_logits` are NaN: nobody has decided yet.
    """
    states = llm.final_states([text.prompt_token_ids + text.token_ids for text in texts])
    return [_decided(llm, text, each, skam) for text, each in zip(texts, states, strict=True)]


def admissible(trajectory: Trajectory) -> Trajectory:
    """Without the positions whose token is inadmissible; nothing is left of an answer that has no other."""
    kept = trajectory.ranks >= 0
    if bool(kept.all()):
        return trajectory
    return replace(
        trajectory,
        token_ids=tuple(token for token, keep in zip(trajectory.token_ids, kept.tolist(), strict=True) if keep),
        hidden=trajectory.hidden[kept],
        candidates=trajectory.candidates[kept],
        logprobs=trajectory.logprobs[kept],
        is_candidate=trajectory.is_candidate[kept],
        is_free=trajectory.is_free[kept],
        ranks=trajectory.ranks[kept],
        accept_logits=trajectory.accept_logits[kept],
    )


@torch.no_grad()
def _decided(llm: FrozenLLM, text: Text, states: Tensor, skam: SkamConfig) -> Trajectory:
    """`states` (N, D) of the whole text."""
    hidden = states[len(text.prompt_token_ids) - 1 : -1].clone()
    slate = _slates(llm, hidden, skam)
    targets = torch.tensor(text.token_ids, device=llm.device)
    is_target = (slate.tokens == targets[:, None]) & slate.is_candidate
    ranks = torch.where(is_target.any(-1), is_target.int().argmax(-1), -1)
    return Trajectory(
        prompt_token_ids=text.prompt_token_ids,
        token_ids=text.token_ids,
        finish_reason="stop" if text.token_ids[-1] in llm.end_token_ids else "length",
        hidden=hidden,
        candidates=slate.tokens,
        logprobs=slate.logprobs,
        is_candidate=slate.is_candidate,
        is_free=slate.is_free,
        ranks=torch.where(_is_reachable(slate.is_free, ranks), ranks, -1),
        accept_logits=torch.full_like(slate.logprobs, float("nan")),
    )


def _slates(llm: FrozenLLM, hidden: Tensor, skam: SkamConfig) -> Slate:
    parts = [
        build_slate(llm.logits(rows), _settings(skam, len(rows), llm.device), skam.max_candidates)
        for rows in hidden.split(_ROWS_PER_SLATE)
    ]
    names = ("tokens", "logprobs", "is_candidate", "is_free")
    return Slate(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def _is_reachable(is_free: Tensor, ranks: Tensor) -> Tensor:
    """(T,) whether every candidate before the accepted one could be rejected."""
    index = torch.arange(is_free.shape[-1], device=is_free.device)
    return (is_free | (index >= ranks[:, None])).all(-1) & (ranks >= 0)


def _settings(skam: SkamConfig, num_rows: int, device: torch.device) -> SlateSettings:
    def rows(value: int | float) -> Tensor:
        return torch.full((num_rows,), value, device=device)

    return SlateSettings(
        temperature=rows(skam.temperature),
        top_p=rows(skam.top_p),
        p_t=rows(skam.p_t),
        max_candidates=rows(skam.max_candidates).long(),
        is_renormalised=rows(float(skam.normalisation == "renormalised")) > 0,
    )

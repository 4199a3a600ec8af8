"""One decode step after the LLM's pass: slate, scores, choice, for rows of any proxies, versions and plain LLM.

    hidden, logits  ->  slate (SKAM)  ->  accept logits (each row under its own proxy)  ->  first accepted

Everything is tensors until `to_host`, the step's only synchronisation.
"""

from collections.abc import Sequence as Rows
from functools import lru_cache

import torch
from torch import Tensor

from proxy_model.decision.bank import LoadedProxy
from proxy_model.decision.choice import Choice, Decided, accepted_at, first_accepted
from proxy_model.decision.config import SkamConfig
from proxy_model.decision.features import normalised, target_scalars
from proxy_model.decision.skam import Slate, SlateSettings, build_sampled_slate, build_slate
from proxy_model.decision.slate_scorer import Share, score_shares
from proxy_model.decoding.sequence import Sequence, SlateNumbers
from proxy_model.transfer import to_device

_PLAIN = SkamConfig(p_t=0.0, top_p=1.0, max_candidates=1)


def decide(hidden: Tensor, logits: Tensor, rows: Rows[Sequence], width: int) -> Decided:
    """Choose the next token of every row from h(prefix) (B, D) and its logits (B, V).

    Rows whose proxy reads the candidate itself get a slate and, as a proposal only, its first candidate.
    """
    slate = _slates(logits, rows, width)
    accept_logits = _score(hidden, slate, rows)
    choice = first_accepted(accept_logits, slate, to_device(_thresholds(rows, width), logits.device))
    is_proposal = torch.tensor(
        [sequence.proxy is not None and sequence.proxy.needs_candidate_pass for sequence in rows]
    )
    return Decided(slate, accept_logits, accepted_at(choice.ranks * ~to_device(is_proposal, logits.device), slate))


def _thresholds(rows: Rows[Sequence], width: int) -> Tensor:
    """(B, K) which an acceptance must exceed: drawn, or one half where decisions are greedy. On the host."""
    thresholds = torch.full((len(rows), width), 0.5)
    for row, sequence in enumerate(rows):
        if sequence.request.params.decision == "sample" and sequence.proxy is not None:
            thresholds[row] = torch.rand(width, generator=sequence.generator)
    return thresholds


def _score(hidden: Tensor, slate: Slate, rows: Rows[Sequence]) -> Tensor:
    """(B, K) accept logits of each row under its own proxy; NaN for the LLM alone and where it must read candidates."""
    shares = [
        Share(proxy.scorer, members, target_of(proxy, [rows[row] for row in members], hidden.device))
        for proxy, members in by_proxy(rows).items()
        if not proxy.needs_candidate_pass
    ]
    if not shares:
        return torch.full(slate.logprobs.shape, float("nan"), device=hidden.device)
    return score_shares(normalised(hidden), slate, shares)


def _slates(logits: Tensor, rows: Rows[Sequence], width: int) -> Slate:
    """Slates of all rows; those with a sampling temperature in a drawn order."""
    settings = _settings(rows, logits.device)
    sampled = [row for row, sequence in enumerate(rows) if sequence.request.params.temperature > 0]
    if not sampled:
        return build_slate(logits, settings, width)
    asked = [rows[row].request.params.temperature for row in sampled]
    keys = [rows[row].noise_key for row in sampled]
    sampling = to_device(torch.tensor(asked), logits.device), to_device(torch.tensor(keys), logits.device)
    if len(sampled) == len(rows):
        return build_sampled_slate(logits, settings, width, *sampling)
    index = to_device(torch.tensor(sampled), logits.device)
    drawn = build_sampled_slate(logits[index], settings[index], width, *sampling)
    slate = build_slate(logits, settings, width)
    parts = ("tokens", "logprobs", "is_candidate", "is_free")
    return Slate(*(getattr(slate, part).index_copy(0, index, getattr(drawn, part)) for part in parts))


def _settings(rows: Rows[Sequence], device: torch.device) -> SlateSettings:
    """Each row's settings: the proxy's own, what the request overrides, and one candidate for the plain LLM."""
    for sequence in rows:
        if sequence.slate_numbers is None:
            sequence.slate_numbers = _row_settings(sequence)
    return _laid_out(tuple(sequence.slate_numbers for sequence in rows), device)


@lru_cache(maxsize=64)
def _laid_out(rows: tuple[SlateNumbers | None, ...], device: torch.device) -> SlateSettings:
    """As tensors; from step to step mostly the same rows."""
    numbers = to_device(torch.tensor(rows, dtype=torch.float32), device)
    return SlateSettings(
        temperature=numbers[:, 0],
        top_p=numbers[:, 1],
        p_t=numbers[:, 2],
        max_candidates=numbers[:, 3].long(),
        is_renormalised=numbers[:, 4] > 0,
        is_whole=all(row is not None and row[1] >= 1 for row in rows),
    )


def skam_temperature(sequence: Sequence) -> float:
    """SKAM's temperature of a row: what the request says, or what the proxy was trained with."""
    if sequence.proxy is None:
        return _PLAIN.temperature
    asked = sequence.request.params.skam_temperature
    return sequence.proxy.skam.temperature if asked is None else asked


def _row_settings(sequence: Sequence) -> SlateNumbers:
    params = sequence.request.params
    if sequence.proxy is None:
        return skam_temperature(sequence), params.top_p, _PLAIN.p_t, _PLAIN.max_candidates, False
    skam = sequence.proxy.skam
    own_top_p = skam.top_p if params.skam_top_p is None else params.skam_top_p
    return (
        skam_temperature(sequence),
        min(own_top_p, params.top_p),
        skam.p_t if params.p_t is None else params.p_t,
        skam.max_candidates,
        skam.normalisation == "renormalised",
    )


def target_of(proxy: LoadedProxy, rows: Rows[Sequence], device: torch.device) -> Tensor | None:
    """(B, 2) what a conditioned proxy is told to aim at in each row."""
    if not proxy.is_conditioned:
        return None
    return to_device(target_scalars([sequence.request.params.target_return for sequence in rows]), device)


def by_proxy(rows: Rows[Sequence]) -> dict[LoadedProxy, list[int]]:
    """Row numbers by the version that decides them."""
    groups: dict[LoadedProxy, list[int]] = {}
    for row, sequence in enumerate(rows):
        if sequence.proxy is not None:
            groups.setdefault(sequence.proxy, []).append(row)
    return groups


def to_host(choice: Choice) -> tuple[list[int], list[int], list[bool]]:
    """Tokens, ranks and forced marks as Python lists, in one transfer."""
    packed = torch.stack([choice.tokens, choice.ranks, choice.is_forced.long()]).tolist()
    return packed[0], packed[1], [bool(mark) for mark in packed[2]]

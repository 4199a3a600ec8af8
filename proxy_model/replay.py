"""Any text becomes decisions by one teacher-forced pass: a token of rank j means j rejections, then an acceptance.

Own rollouts, best-of-n samples, chosen and rejected answers, logged traffic. The slate is built by the very functions
that serve, so that replaying an answer of the engine gives back its decisions.
"""

from collections.abc import Sequence

import torch

from proxy_model.attention import Chunk, PackedStep
from proxy_model.config import SkamConfig
from proxy_model.frozen_llm import FrozenLLM
from proxy_model.skam import SlateSettings, build_slate
from proxy_model.trajectory import Trajectory


@torch.no_grad()
def replay(llm: FrozenLLM, prompt_token_ids: Sequence[int], token_ids: Sequence[int], skam: SkamConfig) -> Trajectory:
    """Decisions (`prefix` features) that lead from the prompt to `token_ids`; rank -1 where a token is inadmissible.

    `accept_logits` are NaN: nobody has decided yet.
    """
    num_prompt, num_tokens = len(prompt_token_ids), len(token_ids)
    text = [*prompt_token_ids, *token_ids]
    step = PackedStep(
        tokens=torch.tensor(text, device=llm.device),
        positions=torch.arange(len(text), device=llm.device),
        slots=torch.zeros(len(text), dtype=torch.long, device=llm.device),
        chunks=(Chunk(0, len(text)),),
    )
    hidden = llm.advance(step)[num_prompt - 1 : -1]
    slate = build_slate(llm.logits(hidden), _settings(skam, num_tokens, llm.device), skam.max_candidates)
    targets = torch.tensor(token_ids, device=llm.device)
    is_target = (slate.tokens == targets[:, None]) & slate.is_candidate
    ranks = torch.where(is_target.any(-1), is_target.int().argmax(-1), -1)
    is_reachable = _is_reachable(slate.is_free, ranks)
    return Trajectory(
        prompt_token_ids=tuple(prompt_token_ids),
        token_ids=tuple(token_ids),
        finish_reason="stop" if token_ids[-1] in llm.end_token_ids else "length",
        hidden=hidden,
        candidates=slate.tokens,
        logprobs=slate.logprobs,
        is_candidate=slate.is_candidate,
        is_free=slate.is_free,
        ranks=torch.where(is_reachable, ranks, -1),
        accept_logits=torch.full_like(slate.logprobs, float("nan")),
    )


def _is_reachable(is_free: torch.Tensor, ranks: torch.Tensor) -> torch.Tensor:
    """(T,) whether every candidate before the accepted one could be rejected."""
    index = torch.arange(is_free.shape[-1], device=is_free.device)
    return (is_free | (index >= ranks[:, None])).all(-1) & (ranks >= 0)


def _settings(skam: SkamConfig, num_rows: int, device: torch.device) -> SlateSettings:
    def rows(value: int | float) -> torch.Tensor:
        return torch.full((num_rows,), value, device=device)

    return SlateSettings(
        temperature=rows(skam.temperature),
        top_p=rows(skam.top_p),
        p_t=rows(skam.p_t),
        max_candidates=rows(skam.max_candidates).long(),
        is_renormalised=rows(float(skam.normalisation == "renormalised")) > 0,
    )

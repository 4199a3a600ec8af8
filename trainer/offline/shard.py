"""Some scored answers as one safetensors file: the tensors of their trajectories, end to end.

Of T positions: hidden (T, D) in the LLM's dtype, candidates, logprobs, is_candidate, is_free (T, K), ranks (T,), and
accept_logits (T, K) unless nobody decided (replays). Of N decisions: candidate_hidden (N, D), where the proxy reads it.
Of B answers: token ids with their lengths, is_cut (stopped at the longest length), scores, the returns that the
proxy was told to aim at (NaN: none), and kinds, where there is another than 0.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from proxy_model.decision.trajectory import Trajectory, decisions
from proxy_model.errors import BadCheckpoint

_DTYPES: Mapping[str, torch.dtype] = {
    "candidates": torch.int32,
    "logprobs": torch.float32,
    "is_candidate": torch.bool,
    "is_free": torch.bool,
    "ranks": torch.int16,
    "prompt_token_ids": torch.int32,
    "token_ids": torch.int32,
    "prompt_lengths": torch.int32,
    "lengths": torch.int32,
    "is_cut": torch.bool,
    "scores": torch.float32,
    "target_returns": torch.float32,
}
_PER_POSITION = ("hidden", "candidates", "logprobs", "is_candidate", "is_free", "ranks")
_PER_SLATE = ("candidates", "logprobs", "is_candidate", "is_free")
_OPTIONAL: Mapping[str, torch.dtype | None] = {
    "accept_logits": torch.float32,
    "candidate_hidden": None,
    "kinds": torch.int16,
}


@dataclass(frozen=True, slots=True)
class Shard:
    """B answers and what is known of them."""

    trajectories: list[Trajectory]
    scores: Tensor
    """(B,)"""

    kinds: Tensor
    """(B,) of their prompts, see `trainer.kinds`."""


def serialise(trajectories: Sequence[Trajectory], scores: Tensor, kinds: Tensor | None = None) -> bytes:
    """The bytes of a shard of at least one answer; `scores` and `kinds` (B,), None: one kind."""
    tensors = {name: torch.cat([getattr(each, name).cpu() for each in trajectories]) for name in _PER_POSITION}
    tensors.update(_answers(trajectories), scores=scores.cpu())
    logits = torch.cat([each.accept_logits.cpu() for each in trajectories])
    if bool(logits.isfinite().any()):
        tensors["accept_logits"] = logits
    if kinds is not None and bool(kinds.any()):
        tensors["kinds"] = kinds.cpu()
    states = [each.candidate_hidden.cpu() for each in trajectories if each.candidate_hidden is not None]
    if states:
        tensors["candidate_hidden"] = torch.cat(states)
    dtypes = {**_DTYPES, "kinds": torch.int16}
    packed = {name: each.to(dtypes.get(name, each.dtype)).contiguous() for name, each in tensors.items()}
    return safetensors.torch.save(packed)


def parse(data: bytes, name: str) -> Shard:
    """What `serialise` packed; `name` is for the message. Raises `BadCheckpoint("format")`."""
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise BadCheckpoint("format", f"{name} is not a safetensors file: {error}") from error
    _check_names(tensors, name)
    _check_shapes(tensors, name)
    _check_values(tensors, name)
    kinds = tensors.get("kinds", torch.zeros(len(tensors["scores"])))
    return Shard(_trajectories(tensors, name), tensors["scores"], kinds.long())


def _answers(trajectories: Sequence[Trajectory]) -> dict[str, Tensor]:
    return {
        "prompt_token_ids": torch.tensor([token for each in trajectories for token in each.prompt_token_ids]),
        "prompt_lengths": torch.tensor([len(each.prompt_token_ids) for each in trajectories]),
        "token_ids": torch.tensor([token for each in trajectories for token in each.token_ids]),
        "lengths": torch.tensor([each.num_positions for each in trajectories]),
        "is_cut": torch.tensor([each.finish_reason == "length" for each in trajectories]),
        "target_returns": torch.tensor([_given(each.target_return) for each in trajectories]),
    }


def _given(target_return: float | None) -> float:
    """NaN stands for none."""
    return math.nan if target_return is None else target_return


def _check_names(tensors: Mapping[str, Tensor], name: str) -> None:
    required = {*_DTYPES, "hidden"}
    if wrong := (tensors.keys() ^ required) - _OPTIONAL.keys():
        raise BadCheckpoint("format", f"{name} lacks or adds {min(wrong)}")
    for key, dtype in {**_DTYPES, **_OPTIONAL}.items():
        if key in tensors and dtype is not None and tensors[key].dtype != dtype:
            raise BadCheckpoint("format", f"{key} of {name} is {tensors[key].dtype}, must be {dtype}")


def _check_shapes(tensors: Mapping[str, Tensor], name: str) -> None:
    num_answers, num_positions = len(tensors["lengths"]), len(tensors["token_ids"])
    width = tensors["candidates"].shape[-1]
    expected: dict[str, tuple[int, ...]] = {
        **dict.fromkeys(("prompt_lengths", "lengths", "is_cut", "scores", "target_returns", "kinds"), (num_answers,)),
        **dict.fromkeys((*_PER_SLATE, "accept_logits"), (num_positions, width)),
        "hidden": (num_positions, tensors["hidden"].shape[-1]),
        "ranks": (num_positions,),
    }
    for key, shape in expected.items():
        if key in tensors and tuple(tensors[key].shape) != shape:
            raise BadCheckpoint("format", f"{key} of {name} is {tuple(tensors[key].shape)}, must be {shape}")
    sums = (("lengths", num_positions), ("prompt_lengths", len(tensors["prompt_token_ids"])))
    if any(int(tensors[key].sum()) != total or int(tensors[key].min()) < 1 for key, total in sums):
        raise BadCheckpoint("format", f"the lengths of {name} are not those of its token ids")


def _check_values(tensors: Mapping[str, Tensor], name: str) -> None:
    """What learning would choke on; accept logits may be NaN where nobody was asked."""
    for key in ("hidden", "scores", "candidate_hidden"):
        if key in tensors and not bool(tensors[key].isfinite().all()):
            raise BadCheckpoint("not_finite", f"{key} of {name} holds NaN or infinity")
    if "kinds" in tensors and int(tensors["kinds"].min()) < 0:
        raise BadCheckpoint("format", f"a kind of {name} is below 0")
    ranks, is_candidate = tensors["ranks"].long(), tensors["is_candidate"]
    is_inside = (ranks >= -1) & (ranks < is_candidate.shape[-1])
    if not bool(is_inside.all()) or not bool((is_candidate.gather(1, ranks.clamp(min=0)[:, None])).all()):
        raise BadCheckpoint("format", f"a rank of {name} is outside of its slate")
    if not bool(tensors["logprobs"][is_candidate].isfinite().all()):
        raise BadCheckpoint("not_finite", f"logprobs of {name} hold NaN or infinity")


def _trajectories(tensors: Mapping[str, Tensor], name: str) -> list[Trajectory]:
    lengths, prompt_lengths = tensors["lengths"].tolist(), tensors["prompt_lengths"].tolist()
    logits = tensors.get("accept_logits", torch.full_like(tensors["logprobs"], float("nan")))
    parts = {key: tensors[key].split(lengths) for key in _PER_POSITION if key not in ("candidates", "ranks")}
    prompts, texts = tensors["prompt_token_ids"].split(prompt_lengths), tensors["token_ids"].split(lengths)
    rows = zip(
        prompts,
        texts,
        tensors["candidates"].long().split(lengths),
        tensors["ranks"].long().split(lengths),
        logits.split(lengths),
        tensors["is_cut"].tolist(),
        tensors["target_returns"].tolist(),
        strict=True,
    )
    made = [
        Trajectory(
            prompt_token_ids=tuple(prompt.tolist()),
            token_ids=tuple(text.tolist()),
            finish_reason="length" if is_cut else "stop",
            candidates=candidates,
            ranks=ranks,
            accept_logits=accept_logits,
            target_return=None if math.isnan(target) else target,
            **{key: part[number] for key, part in parts.items()},
        )
        for number, (prompt, text, candidates, ranks, accept_logits, is_cut, target) in enumerate(rows)
    ]
    return _with_candidate_states(made, tensors.get("candidate_hidden"), name)


def _with_candidate_states(made: list[Trajectory], states: Tensor | None, name: str) -> list[Trajectory]:
    if states is None:
        return made
    counts = [decisions(each).positions.numel() for each in made]
    if sum(counts) != len(states):
        raise BadCheckpoint("format", f"{name} has {len(states)} candidate states for {sum(counts)} decisions")
    parts = zip(made, states.split(counts), strict=True)
    return [replace(each, candidate_hidden=part) for each, part in parts]

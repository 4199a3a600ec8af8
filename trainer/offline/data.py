"""A folder's answers as a run learns from them: whole groups of one prompt's answers, in batches."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from proxy_model.decision.trajectory import Trajectory
from proxy_model.decoding.replay import admissible
from proxy_model.errors import DataError, InvalidParameter
from proxy_model.llm.frozen_llm import FrozenLLM
from trainer.config import TrainConfig
from trainer.kinds import KindMoments
from trainer.offline.folder import ScoredAnswers, learnable_groups, read_data
from trainer.rollout import Rollout


@dataclass(frozen=True, slots=True)
class OfflineData:
    """G answers to each of P prompts, with positions whose token was inadmissible left out."""

    trajectories: tuple[Trajectory, ...]
    scores: Tensor
    """(P * G,) as the reward gave them."""

    group_size: int
    inadmissible_share: float
    """Positions that were left out / positions."""

    kinds: Tensor
    """(P * G,) of the prompts, see `trainer.kinds`."""

    @staticmethod
    def read(config: TrainConfig, llm: FrozenLLM) -> "OfflineData":
        """What `config.data` holds.

        Raises `BadCheckpoint`, `FingerprintMismatch`, `InvalidParameter` for a folder with other SKAM settings or
        features than the run's, and `DataError` where nothing can be learnt.
        """
        assert config.data is not None
        data = OfflineData.of(_matching(config.data, config, llm))
        if config.algorithm == "dpo":
            data = data.paired()
        if not data.trajectories:
            raise DataError(
                config.data,
                0,
                "no prompt has answers that the proxy could have given, and that differ in what is learnt",
            )
        return data

    @staticmethod
    def of(answers: ScoredAnswers) -> "OfflineData":
        """Drop inadmissible positions, and the answers to a prompt together when one of them has no other."""
        kept = [admissible(each) for each in answers.trajectories]
        num_kept, num_all = (sum(each.num_positions for each in some) for some in (kept, answers.trajectories))
        size = answers.description.group_size
        chosen = [index for first in learnable_groups(kept, size) for index in range(first, first + size)]
        trajectories = tuple(kept[index] for index in chosen)
        return OfflineData(trajectories, answers.scores[chosen], size, 1 - num_kept / num_all, answers.kinds[chosen])

    def paired(self) -> "OfflineData":
        """The best and the worst answer to each prompt, in that order; prompts whose answers tie are left out."""
        groups = self.scores.view(-1, self.group_size)
        first = torch.arange(len(groups)) * self.group_size
        pairs = torch.stack([first + groups.argmax(1), first + groups.argmin(1)], dim=1)
        chosen = pairs[groups.amax(1) > groups.amin(1)].flatten()
        trajectories = tuple(self.trajectories[index] for index in chosen.tolist())
        return OfflineData(trajectories, self.scores[chosen], 2, self.inadmissible_share, self.kinds[chosen])

    def best(self) -> tuple[Trajectory, ...]:
        """The best answer to each prompt, the first one of equals."""
        best = self.scores.view(-1, self.group_size).argmax(1).tolist()
        return tuple(self.trajectories[prompt * self.group_size + number] for prompt, number in enumerate(best))

    @property
    def num_prompts(self) -> int:
        """P."""
        return len(self.trajectories) // self.group_size

    @property
    def kinds_of_prompts(self) -> list[int]:
        """P of them."""
        found: list[int] = self.kinds[:: self.group_size].tolist()
        return found

    @property
    def moments(self) -> KindMoments:
        """Of all scores."""
        return KindMoments().updated(self.scores, self.kinds)

    def rollout(self, prompts: Sequence[int]) -> Rollout:
        """The answers to some prompts, in that order, with their scores."""
        started = time.perf_counter()
        chosen = [prompt * self.group_size + number for prompt in prompts for number in range(self.group_size)]
        return Rollout(
            prompts=(),
            texts=(),
            trajectories=tuple(self.trajectories[index] for index in chosen),
            scores=self.scores[torch.tensor(chosen)],
            kinds=self.kinds[torch.tensor(chosen)],
            seconds=time.perf_counter() - started,
        )


def imitated_answers(folder: Path, config: TrainConfig, llm: FrozenLLM) -> tuple[Trajectory, ...]:
    """The best answer to each prompt of a finished folder. Raises as `OfflineData.read`."""
    answers = OfflineData.of(_matching(folder, config, llm)).best()
    if not answers:
        raise DataError(folder, 0, "no prompt has answers that the proxy could have given")
    return answers


def _matching(folder: Path, config: TrainConfig, llm: FrozenLLM) -> ScoredAnswers:
    """A folder of answers by the LLM, SKAM settings and features of a run."""
    found = read_data(folder, llm.fingerprint)
    described = found.description
    if described.skam != config.skam:
        raise InvalidParameter("skam", config.skam, f"as in the data: {described.skam}")
    if described.features != config.shape.features:
        raise InvalidParameter("shape.features", config.shape.features, f"as in the data: {described.features!r}")
    return found

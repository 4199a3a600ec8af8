"""A training run in memory: what it is made of, one iteration of it, and how it is saved and published."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from proxy_model import disk
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.llm.frozen_llm import FrozenLLM
from proxy_model.versions.registry import ProxyRegistry
from trainer.advantages import RunningMoments
from trainer.algorithms import dt
from trainer.algorithms.optimisation import make_optimizer
from trainer.answerer import Answerer
from trainer.config import TrainConfig
from trainer.config_file import config_to_mapping
from trainer.held_out.config import EarlyStoppingConfig
from trainer.held_out.examiner import Examiner, HeldOutScores
from trainer.interruption import Interruption
from trainer.learner import Learner
from trainer.metrics import peak_rss_mib, term_metrics
from trainer.offline.calibration import calibrated
from trainer.offline.data import OfflineData
from trainer.offline.reference import reference_of
from trainer.offline.returns import data_returns
from trainer.parts import Parts, answerer_of, fitting_prompts, new_policy, planned_iterations
from trainer.pruning import Spared, no_versions
from trainer.publisher import Publisher
from trainer.rewards.weighted import WeightedReward
from trainer.rollout import EncodedPrompt, Rollout, derived_seed, prompt_indices
from trainer.saved_settings import SETTINGS_FILE
from trainer.state import Progress, load_best, load_state, save_best, save_state

_UNDISTURBED = Interruption()


@dataclass(slots=True, kw_only=True)
class Run:
    """A run at some iteration. `iterate` until `is_done`."""

    config: TrainConfig
    llm: FrozenLLM
    reward_model: WeightedReward | None
    prompts: list[EncodedPrompt]
    answerer: Answerer | None
    """Who answers the prompts; None offline."""

    data: OfflineData | None
    learner: Learner
    progress: Progress
    num_iterations: int
    publisher: Publisher
    examiner: Examiner | None
    interruption: Interruption
    """Asked before each decode step, whether of a rollout or of an examination, and between scoring and learning."""

    _served: tuple[int, ProxyPolicy] | None = None
    """The iteration whose weights were last made ready to be served, and how they are served."""

    @staticmethod
    def start(
        config: TrainConfig,
        parts: Parts,
        *,
        is_resumed: bool,
        interruption: Interruption = _UNDISTURBED,
        spared: Spared = no_versions,
    ) -> "Run":
        """A new run, its state saved at once, or the one that was saved in `config.output`.

        Raises `OSError` where its versions could not be published.
        """
        data = parts.data
        prompts = fitting_prompts(config, parts) if data is None else []
        policy = new_policy(replace(config, start=None) if is_resumed else config, parts.llm)
        ProxyRegistry(config.registry_folder).make_ready(config.proxy)
        optimizer = make_optimizer(policy, config.algorithm_settings.learning_rate)
        settings = config_to_mapping(config)
        disk.make_folder(config.output)
        reference = None if data is None else reference_of(config.output, policy, is_resumed=is_resumed)
        begun = _begun(config, parts, reference)
        progress = load_state(config.output, policy, optimizer, settings) if is_resumed else begun
        examiner, gatekeeper = _examiners(config, parts, interruption)
        run = Run(
            config=config,
            llm=parts.llm,
            reward_model=parts.reward_model,
            prompts=prompts,
            answerer=answerer_of(config, parts.llm, prompts, interruption) if data is None else None,
            data=data,
            learner=Learner(
                config=config,
                reward_model=parts.reward_model,
                policy=policy,
                optimizer=optimizer,
                reference=reference,
                group_size=config.rollout.responses_per_prompt if data is None else data.group_size,
                embedding=parts.llm.embedding,
                demonstrations=parts.demonstrations,
            ),
            progress=progress,
            num_iterations=planned_iterations(config, len(prompts) if data is None else data.num_prompts),
            publisher=Publisher(
                config=config,
                fingerprint=parts.llm.fingerprint,
                is_resumed=is_resumed,
                examiner=gatekeeper,
                spared=spared,
            ),
            examiner=examiner,
            interruption=interruption,
        )
        _write_settings(config.output, settings)
        if not is_resumed:
            run.save()
        return run

    @property
    def policy(self) -> ProxyPolicy:
        """The weights as learnt so far."""
        return self.learner.policy

    @property
    def is_done(self) -> bool:
        """Whether every planned prompt has been answered, or the held-out judge has seen enough."""
        stopping = self.config.early_stopping
        is_stopped = stopping is not None and self.progress.num_looks_since_best >= stopping.patience
        return is_stopped or self.progress.iteration >= self.num_iterations

    @property
    def offered_iteration(self) -> int:
        """The iteration whose weights are published now: the best of a run with early stopping that is done."""
        is_chosen = self.is_done and self.config.early_stopping is not None
        return self.progress.best_iteration if is_chosen else self.progress.iteration

    def iterate(self) -> dict[str, float]:
        """One batch of prompts, from rollout to update; returns its metrics. Raises `Interrupted` before the update."""
        self.interruption.leave_if_due()
        learning_rate = self._anneal()
        rollout = self._roll_out()
        self.interruption.leave_if_due()
        started = time.perf_counter()
        scores, of_terms = self._score(rollout)
        score_seconds = time.perf_counter() - started
        self.interruption.leave_if_due()
        started = time.perf_counter()
        progress, metrics = self.learner.learn(rollout, scores, self.progress)
        self.progress = replace(
            progress,
            iteration=progress.iteration + 1,
            prompts_seen=progress.prompts_seen + self.config.rollout.prompts_per_iteration,
        )
        return {
            **metrics,
            **term_metrics(of_terms),
            **rollout.metrics,
            "update/learning_rate": learning_rate,
            **self._speeds(rollout, score_seconds, time.perf_counter() - started),
            "progress/iteration": self.progress.iteration,
            "progress/prompts": self.progress.prompts_seen,
        }

    def _speeds(self, rollout: Rollout, score_seconds: float, update_seconds: float) -> dict[str, float]:
        num_decoded = rollout.num_tokens if self.data is None else 0
        seconds = rollout.seconds + score_seconds + update_seconds
        return {
            "speed/tokens_per_second": num_decoded / max(rollout.seconds, 1e-9),
            "speed/learnt_tokens_per_second": rollout.num_tokens / max(seconds, 1e-9),
            "speed/rollout_seconds": rollout.seconds,
            "speed/score_seconds": score_seconds,
            "speed/update_seconds": update_seconds,
            "speed/peak_rss_mib": peak_rss_mib(),
        }

    def look_if_due(self) -> dict[str, float]:
        """Show the held-out judge the policy; returns what that adds to the row.

        It is due before each version that is published, or as often as early stopping says, and at the end.
        """
        if self.examiner is None or not self._is_look_due():
            return {}
        seen = self.examiner.look(self._served_policy(self.progress.iteration), self.config.skam, self.reward_model)
        if self.config.early_stopping is None:
            return seen.metrics
        self._compare_with_best(seen, self.config.early_stopping)
        return {**seen.metrics, "held_out/best_iteration": self.progress.best_iteration}

    def _is_look_due(self) -> bool:
        stopping, iteration = self.config.early_stopping, self.progress.iteration
        every = self.config.publish_every if stopping is None else stopping.every
        return iteration >= self.num_iterations or (every > 0 and iteration % every == 0)

    def _compare_with_best(self, seen: HeldOutScores, stopping: EarlyStoppingConfig) -> None:
        """Keep the weights that the judge likes best, and count the looks since."""
        progress = self.progress
        assert seen.judge is not None, "the settings of early stopping ask for one"
        if progress.best_judge is None or seen.judge > progress.best_judge + stopping.min_gain:
            save_best(self.config.output, self.policy)
            self.progress = replace(
                progress, best_judge=seen.judge, best_iteration=progress.iteration, num_looks_since_best=0
            )
        else:
            self.progress = replace(progress, num_looks_since_best=progress.num_looks_since_best + 1)

    def publish_if_due(self, row: Mapping[str, float]) -> bool:
        """Publish after every `publish_every` iterations and after the last one; `row` goes on the card."""
        every = self.config.publish_every
        is_due = self.is_done or (every > 0 and self.progress.iteration % every == 0)
        if is_due:
            if self.offered_iteration != self.progress.iteration:
                load_best(self.config.output, self.policy)
            self.publisher.publish(self._served_policy(self.offered_iteration), self.offered_iteration, row)
        return is_due

    def save_if_due(self) -> None:
        """Save after every `save_every` iterations and after the last one."""
        if self.is_done or self.progress.iteration % self.config.save_every == 0:
            self.save()

    def save(self) -> None:
        """Replace the saved state."""
        settings = config_to_mapping(self.config)
        save_state(self.config.output, self.policy, self.learner.optimizer, self.progress, settings)

    def _served_policy(self, iteration: int) -> ProxyPolicy:
        """What is published: as it was learnt by `iteration`, or with as many rejections as the settings ask for.

        The judge looks at a version before it is published: what it saw is what is published, made once.
        """
        wanted = self.config.offline.rejections_per_token
        if self.data is None or wanted == 0:
            return self.policy
        if self._served is None or self._served[0] != iteration:
            policy = calibrated(self.policy, self.config.skam, self.data.trajectories, self.llm, wanted)
            self._served = iteration, policy
        return self._served[1]

    def _roll_out(self) -> Rollout:
        """The iteration's answers; offline those that are there. Raises `Interrupted`."""
        config, iteration = self.config, self.progress.iteration
        per_iteration = config.rollout.prompts_per_iteration
        if self.data is not None:
            kinds = self.data.kinds_of_prompts
            return self.data.rollout(prompt_indices(kinds, per_iteration, iteration, config.seed))
        assert self.answerer is not None
        kinds = [prompt.kind for prompt in self.prompts]
        chosen = prompt_indices(kinds, per_iteration, iteration, config.seed)
        prompts = [self.prompts[index] for index in chosen for _ in range(config.rollout.responses_per_prompt)]
        aims = None
        if config.algorithm == "dt":
            aims = dt.aims(len(prompts), iteration, config.dt, derived_seed(config.seed, "aims", iteration))
        return self.answerer.roll_out(self.policy, prompts, iteration=iteration, aims=aims)

    def _score(self, rollout: Rollout) -> tuple[Tensor, dict[str, Tensor]]:
        """(B,) raw scores, and those of each term before its weight. Raises `GraderFailed`."""
        if rollout.scores is not None:
            return rollout.scores.to(self.llm.device, torch.float32), {}
        assert self.reward_model is not None
        of_terms = self.reward_model.scores(rollout.conversations)
        return self.reward_model.total(of_terms).to(self.llm.device, torch.float32), of_terms

    def _anneal(self) -> float:
        """Set and return this iteration's learning rate: linear from its start to 0 after the last one."""
        rate = self.config.algorithm_settings.learning_rate * (1 - self.progress.iteration / self.num_iterations)
        for group in self.learner.optimizer.param_groups:
            group["lr"] = rate
        return rate


def _begun(config: TrainConfig, parts: Parts, reference: ProxyPolicy | None) -> Progress:
    """Before the first iteration: the scores are known where there is a folder of answers."""
    if parts.data is None or reference is None:
        return Progress()
    returns = data_returns(config, parts.data, reference, parts.llm.embedding)
    return Progress(moments=parts.data.moments, return_moments=RunningMoments().updated(returns))


def _examiners(
    config: TrainConfig, parts: Parts, interruption: Interruption
) -> tuple[Examiner | None, Examiner | None]:
    """Who looks at the run while it goes on, and who asks its gates."""
    if parts.examiner is None:
        return None, None
    examiner = replace(parts.examiner, before_step=interruption.leave_if_due)
    is_chosen_by_looks = config.gates is not None and config.early_stopping is not None
    return examiner.halves() if is_chosen_by_looks else (examiner, examiner)


def _write_settings(folder: Path, settings: Mapping[str, object]) -> None:
    disk.make_folder(folder)
    disk.replace_file(folder / SETTINGS_FILE, (json.dumps(settings, indent=2) + "\n").encode())

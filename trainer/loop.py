"""The training run: rollout, score, advantages, update, metrics, state, and now and then a published version.

A run is its settings: every random number is drawn from a seed of (run seed, purpose, iteration), so a run that was
killed and resumed ends with the weights of the unbroken run, bit for bit. It may publish a version a second time, when
the kill fell between publishing and saving.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from proxy_model.bank import ProxyRef
from proxy_model.checkpoint import Checkpoint
from proxy_model.config import PolicyConfig
from proxy_model.engine import Engine, EngineConfig
from proxy_model.errors import DataError, InvalidParameter
from proxy_model.frozen_llm import FrozenLLM, load_llm
from proxy_model.policy import ProxyPolicy
from proxy_model.registry import ProxyRegistry
from trainer.advantages import generalised_advantages, normalise, position_rewards
from trainer.algorithms import ALGORITHMS
from trainer.algorithms.ppo import UpdateStatistics, make_optimizer, pretrain_critic
from trainer.batch import PpoBatch, Targets, flatten, penalties
from trainer.config import TrainConfig, config_to_mapping
from trainer.metrics import answer_metrics, decision_metrics, peak_rss_mib, reward_metrics, update_metrics
from trainer.monitor import warnings
from trainer.prompts import Prompt, load_prompts
from trainer.rewards import RewardModel, load_reward
from trainer.rollout import EncodedPrompt, Rollout, derived_seed, encode_prompts, prompt_indices, roll_out_policy
from trainer.run_log import RunLog
from trainer.state import STATE_FILE, Progress, load_state, save_state

SETTINGS_FILE = "settings.json"
_UPDATES_OF_PROGRESS = Callable[[Mapping[str, float], list[str]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a run is made of, for callers that have it in memory already."""

    llm: FrozenLLM
    reward_model: RewardModel
    prompts: Sequence[Prompt]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """A finished run."""

    iterations: int
    prompts_seen: int
    published: tuple[ProxyRef, ...]
    """Versions published by this call, oldest first; the last one holds the final weights."""

    policy: ProxyPolicy
    metrics: Mapping[str, float]
    """Of the last iteration."""

    warnings: tuple[str, ...]


def train(
    config: TrainConfig,
    *,
    is_resumed: bool = False,
    parts: Parts | None = None,
    on_iteration: _UPDATES_OF_PROGRESS | None = None,
) -> TrainResult:
    """Train a proxy from scratch, or go on with the run in `config.output`.

    `on_iteration(row, warnings)` is called after each iteration. Raises `InvalidParameter` for an output folder that
    exists, or is resumed with other settings, and `DataError` for bad prompts, before anything is computed.
    """
    _check_output(config, is_resumed=is_resumed)
    made = parts if parts is not None else _load_parts(config)
    run = _Run.start(config, made, is_resumed=is_resumed)
    with RunLog(config.output, num_done=run.progress.iteration, tensorboard=config.tensorboard) as log:
        while run.progress.iteration < run.num_iterations:
            row = run.iterate()
            log.write(row)
            run.publish_if_due(log.rows)
            run.save_if_due()
            if on_iteration is not None:
                on_iteration(row, warnings(log.rows))
        return TrainResult(
            iterations=run.progress.iteration,
            prompts_seen=run.progress.prompts_seen,
            published=tuple(run.published),
            policy=run.policy,
            metrics=log.rows[-1] if log.rows else {},
            warnings=tuple(warnings(log.rows)),
        )


def planned_iterations(config: TrainConfig, num_prompts: int) -> int:
    """Iterations that answer `config.num_prompts` prompts, or each of the `num_prompts` in the file once."""
    wanted = config.num_prompts or num_prompts
    return -(-wanted // config.rollout.prompts_per_iteration)


def make_targets(batch: PpoBatch, terminal: Tensor, policy: ProxyPolicy, config: TrainConfig) -> tuple[Targets, Tensor]:
    """Advantages and value targets from each answer's `terminal` reward (B,); also the weighted penalties (B,)."""
    penalty = penalties(batch, config.shaping.penalty, policy.config.initial_acceptance)
    weight = config.shaping.penalty_weight
    rewards = position_rewards(terminal, penalty, batch.lengths, weight)
    with torch.no_grad():
        values = policy.values(batch.hidden)
    ppo = config.ppo
    advantages = generalised_advantages(rewards, values, batch.lengths, ppo.discount, ppo.policy_lambda)
    returns = values + generalised_advantages(rewards, values, batch.lengths, ppo.discount, ppo.value_lambda)
    targets = Targets(advantages=advantages, returns=returns, old_values=values)
    return targets, weight * torch.stack([part.sum() for part in penalty.split(batch.lengths.tolist())])


@dataclass(slots=True, kw_only=True)
class _Run:
    """A run in memory."""

    config: TrainConfig
    llm: FrozenLLM
    reward_model: RewardModel
    prompts: list[EncodedPrompt]
    engine: Engine
    policy: ProxyPolicy
    optimizer: torch.optim.Adam
    progress: Progress
    num_iterations: int
    published: list[ProxyRef] = field(default_factory=list)

    @staticmethod
    def start(config: TrainConfig, parts: Parts, *, is_resumed: bool) -> "_Run":
        prompts = encode_prompts(parts.prompts, parts.llm.tokenizer, config.rollout.max_prompt_tokens)
        if not prompts:
            raise DataError(config.prompts, 0, f"no prompt has at most {config.rollout.max_prompt_tokens} tokens")
        policy = _new_policy(config.shape.policy_config(parts.llm.hidden_size), config.seed).to(parts.llm.device)
        optimizer = make_optimizer(policy, config.ppo)
        settings = config_to_mapping(config)
        progress = load_state(config.output, policy, optimizer, settings) if is_resumed else Progress()
        config.output.mkdir(parents=True, exist_ok=True)
        (config.output / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        run = _Run(
            config=config,
            llm=parts.llm,
            reward_model=parts.reward_model,
            prompts=prompts,
            engine=Engine(parts.llm, _engine_config(config, prompts)),
            policy=policy,
            optimizer=optimizer,
            progress=progress,
            num_iterations=planned_iterations(config, len(prompts)),
        )
        if not is_resumed:
            run.save()
        return run

    def iterate(self) -> dict[str, float]:
        """One batch of prompts from rollout to update; returns its metrics."""
        rollout = self._roll_out()
        started = time.perf_counter()
        scores = self._score(rollout)
        scored = time.perf_counter()
        metrics = self._learn(rollout, scores)
        self.progress = replace(
            self.progress,
            iteration=self.progress.iteration + 1,
            prompts_seen=self.progress.prompts_seen + len(rollout.prompts),
        )
        return {
            **metrics,
            "speed/tokens_per_second": rollout.num_tokens / rollout.seconds,
            "speed/rollout_seconds": rollout.seconds,
            "speed/score_seconds": scored - started,
            "speed/update_seconds": time.perf_counter() - scored,
            "speed/peak_rss_mib": peak_rss_mib(),
            "progress/iteration": self.progress.iteration,
            "progress/prompts": self.progress.prompts_seen,
        }

    def publish_if_due(self, rows: Sequence[Mapping[str, float]]) -> None:
        every, done = self.config.publish_every, self.progress.iteration
        if done == self.num_iterations or (every and done % every == 0):
            self.publish(rows)

    def publish(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Make the current weights the next version of the proxy, and its stable one."""
        card = {
            "settings": config_to_mapping(self.config),
            "iterations": self.progress.iteration,
            "prompts_seen": self.progress.prompts_seen,
            "metrics": dict(rows[-1]) if rows else {},
        }
        checkpoint = Checkpoint(
            policy=self.policy, skam=self.config.skam, fingerprint=dict(self.llm.fingerprint), card=card
        )
        self.published.append(ProxyRegistry(self.config.registry_folder).publish(self.config.proxy, checkpoint))

    def save_if_due(self) -> None:
        if self.progress.iteration % self.config.save_every == 0 or self.progress.iteration == self.num_iterations:
            self.save()

    def save(self) -> None:
        settings = config_to_mapping(self.config)
        save_state(self.config.output, self.policy, self.optimizer, self.progress, settings)

    def _roll_out(self) -> Rollout:
        config, iteration = self.config, self.progress.iteration
        per_iteration = config.rollout.prompts_per_iteration
        chosen = prompt_indices(len(self.prompts), per_iteration, iteration, config.seed)
        prompts = [self.prompts[index] for index in chosen]
        return roll_out_policy(
            self.engine, self.policy, config.skam, prompts, config.rollout, iteration=iteration, seed=config.seed
        )

    def _score(self, rollout: Rollout) -> Tensor:
        """(B,) raw scores; `DataError` is no use here, so a score that is not finite ends the run."""
        scores = torch.as_tensor(self.reward_model.score(rollout.conversations), dtype=torch.float32)
        if not bool(scores.isfinite().all()):
            raise FloatingPointError(f"the reward model gave a score that is not finite: {scores.tolist()}")
        return scores.to(self.llm.device)

    def _learn(self, rollout: Rollout, scores: Tensor) -> dict[str, float]:
        config = self.config
        batch = flatten(rollout.trajectories, self.llm.embedding)
        terminal = self._terminal_rewards(rollout, scores)
        targets, penalty_sums = make_targets(batch, terminal, self.policy, config)
        learning_rate = self._anneal()
        statistics = self._update(batch, targets)
        return {
            **reward_metrics(scores, terminal, penalty_sums),
            **decision_metrics(batch),
            **answer_metrics(batch, rollout.trajectories, config.shape.initial_acceptance),
            **update_metrics(statistics, targets, learning_rate),
        }

    def _terminal_rewards(self, rollout: Rollout, scores: Tensor) -> Tensor:
        """(B,) what each answer's last position receives; the running moments take the scores in first."""
        shaping = self.config.shaping
        self.progress = replace(self.progress, moments=self.progress.moments.updated(scores))
        if shaping.shuffle:
            generator = torch.Generator().manual_seed(self._seed("shuffle"))
            scores = scores[torch.randperm(scores.numel(), generator=generator)]
        is_cut = torch.tensor([each.finish_reason == "length" for each in rollout.trajectories], device=scores.device)
        return normalise(scores, self.progress.moments, shaping.clip) - shaping.cut_penalty * is_cut

    def _update(self, batch: PpoBatch, targets: Targets) -> UpdateStatistics:
        ppo, seed = self.config.ppo, self._seed("update")
        if self.progress.iteration < ppo.critic_pretrain_iterations:
            return pretrain_critic(self.policy, self.optimizer, batch, targets, ppo, seed)
        algorithm = ALGORITHMS[self.config.algorithm]
        return algorithm(self.policy, self.optimizer, batch, targets, ppo, seed)

    def _anneal(self) -> float:
        """The learning rate of this iteration, linear from its start to 0 after the last one."""
        rate = self.config.ppo.learning_rate * (1 - self.progress.iteration / self.num_iterations)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _seed(self, purpose: str) -> int:
        return derived_seed(self.config.seed, purpose, self.progress.iteration)


def _check_output(config: TrainConfig, *, is_resumed: bool) -> None:
    exists = config.output.exists() and any(config.output.iterdir())
    if exists and not is_resumed:
        raise InvalidParameter("output", str(config.output), "a folder that does not exist yet, unless resumed")
    if is_resumed and not (config.output / STATE_FILE).exists():
        raise InvalidParameter("output", str(config.output), f"a folder with a {STATE_FILE} to resume")


def _load_parts(config: TrainConfig) -> Parts:
    """Prompts first: a broken line costs nothing but the reading."""
    prompts = load_prompts(config.prompts)
    llm = load_llm(config.model)
    return Parts(llm=llm, reward_model=load_reward(config.reward, llm), prompts=prompts)


def _new_policy(shape: PolicyConfig, seed: int) -> ProxyPolicy:
    return ProxyPolicy(shape, generator=torch.Generator().manual_seed(derived_seed(seed, "weights")))


def _engine_config(config: TrainConfig, prompts: Sequence[EncodedPrompt]) -> EngineConfig:
    """Room for the longest prompt and its answer, and not for more."""
    longest = max(len(prompt.token_ids) for prompt in prompts)
    return EngineConfig(
        max_running=min(config.rollout.max_running, config.rollout.prompts_per_iteration),
        max_context=longest + config.rollout.max_tokens,
        max_candidates=config.skam.max_candidates,
    )

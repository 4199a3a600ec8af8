"""The training run: rollout, score, advantages, update, metrics, state, and now and then a published version.

A run is its settings: every random number is drawn from a seed of (run seed, purpose, iteration), so a run that was
killed and resumed ends with the weights of the unbroken run, bit for bit, and with the versions of the unbroken run.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from proxy_model.decision.bank import ProxyRef
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.errors import InvalidParameter
from proxy_model.llm.frozen_llm import FrozenLLM, load_llm
from proxy_model.versions.verdicts import Verdict
from trainer.config import TrainConfig
from trainer.held_out.config import MIN_GATED_PROMPTS
from trainer.held_out.examiner import Examiner
from trainer.interruption import Interrupted, Interruption
from trainer.lock import sole_trainer
from trainer.monitor import warnings
from trainer.offline.data import OfflineData, imitated_answers
from trainer.parts import Parts, prompt_limit
from trainer.prompts import load_prompts
from trainer.pruning import Spared, no_versions
from trainer.ptx import Demonstrations
from trainer.rewards.build import RewardBuilder
from trainer.rewards.endpoint import ChatEndpoint
from trainer.rewards.load import load_reward
from trainer.rewards.verdicts import Verdicts
from trainer.rewards.weighted import WeightedReward
from trainer.run import Run
from trainer.run_log import RunLog
from trainer.state import STATE_FILE

logger = logging.getLogger(__name__)

VERDICTS_FILE = "verdicts.jsonl"
"""What grading models said, in the run's folder."""

Watcher = Callable[[Mapping[str, float], list[str]], None]
"""Told of each iteration's metrics and the alarms after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervision:
    """How whoever started a run looks after it."""

    must_stop: Callable[[], bool] = lambda: False
    """Asked before each iteration; once it is true the run is saved and left, to be resumed."""

    must_abort: Callable[[], bool] = lambda: False
    """Asked before each decode step, too; once it is true the run is left as it was last saved."""

    rest: Callable[[], None] = lambda: None
    """Called before each decode step, and between whatever else takes long; it may take its time."""

    spared: Spared = no_versions

    on_publish: Callable[[ProxyRef, Mapping[str, float]], None] = lambda ref, row: None
    """Told of each version that is published, and of the metrics of its iteration."""

    on_verdict: Callable[[ProxyRef, Verdict], None] = lambda ref, verdict: None
    """Told what the gates said of each version that has any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """A run that is finished, or was stopped."""

    is_done: bool
    iterations: int
    prompts_seen: int
    published: tuple[ProxyRef, ...]
    """Versions published by this call, oldest first; the last one holds the final weights."""

    verdicts: Mapping[ProxyRef, Verdict] = field(default_factory=dict)
    """What the gates said of those; empty without gates."""

    policy: ProxyPolicy
    metrics: Mapping[str, float]
    """Of the last iteration; empty before the first."""

    warnings: tuple[str, ...]


_UNATTENDED = Supervision()


def train(
    config: TrainConfig,
    *,
    is_resumed: bool = False,
    parts: Parts | None = None,
    on_iteration: Watcher | None = None,
    supervision: Supervision = _UNATTENDED,
) -> TrainResult:
    """Train a proxy from scratch, or go on with the run in `config.output`.

    `parts` stands in for what the settings name. Raises `InvalidParameter` for an output folder that is not empty, or
    is resumed with other settings, `OutputTaken`, and `DataError` for bad prompts, before anything is computed.
    """
    with sole_trainer(config.output):
        _check_output(config, is_resumed=is_resumed)
        loaded = parts or load_parts(config)
        run = Run.start(
            config,
            loaded,
            is_resumed=is_resumed,
            interruption=Interruption(must_abort=supervision.must_abort, rest=supervision.rest),
            spared=supervision.spared,
        )
        with RunLog(config.output, num_done=run.progress.iteration, tensorboard=config.tensorboard) as log:
            try:
                while not run.is_done and not supervision.must_stop() and not supervision.must_abort():
                    _iterate(run, log, on_iteration, supervision)
            except Interrupted:
                logger.info("what was not saved is dropped")
                return _result(run, log, is_done=False)
            if not run.is_done:
                run.save()
            return _result(run, log, is_done=run.is_done)


def _iterate(run: Run, log: RunLog, on_iteration: Watcher | None, supervision: Supervision) -> None:
    """One iteration, and what it leaves on disk: its row, perhaps a version, the state."""
    row = run.iterate()
    row |= run.look_if_due()
    log.write(row)
    offered = log.rows[run.offered_iteration - 1]
    if run.publish_if_due(offered):
        ref, verdicts = run.publisher.published[-1], run.publisher.verdicts
        supervision.on_publish(ref, offered)
        if ref in verdicts:
            supervision.on_verdict(ref, verdicts[ref])
    run.save_if_due()
    if on_iteration is not None:
        on_iteration(row, warnings(log.rows))


def _result(run: Run, log: RunLog, *, is_done: bool) -> TrainResult:
    return TrainResult(
        is_done=is_done,
        iterations=run.progress.iteration,
        prompts_seen=run.progress.prompts_seen,
        published=tuple(run.publisher.published),
        verdicts=dict(run.publisher.verdicts),
        policy=run.policy,
        metrics=log.rows[-1] if log.rows else {},
        warnings=tuple(warnings(log.rows)),
    )


def _check_output(config: TrainConfig, *, is_resumed: bool) -> None:
    if is_resumed:
        if not (config.output / STATE_FILE).is_file():
            raise InvalidParameter("output", str(config.output), f"a folder with a {STATE_FILE} to resume")
    elif config.output.exists() and (not config.output.is_dir() or any(config.output.iterdir())):
        raise InvalidParameter("output", str(config.output), "a folder that does not exist yet, unless resumed")


def load_parts(config: TrainConfig) -> Parts:
    """Prompts first: a broken line costs nothing but the reading."""
    if config.data is not None:
        llm = load_llm(config.model)
        return Parts(llm=llm, data=OfflineData.read(config, llm), examiner=_examiner(config, llm))
    prompts = [prompt for path in config.prompts for prompt in load_prompts(path)]
    llm = load_llm(config.model)
    prompt_limit(config, llm)
    reward, examiner = _reward(config, llm), _examiner(config, llm)
    if examiner is not None:
        reward.check(prompt.source for prompt in examiner.prompts)
    demonstrations = _demonstrations(config, llm)
    return Parts(llm=llm, reward_model=reward, prompts=prompts, demonstrations=demonstrations, examiner=examiner)


def _examiner(config: TrainConfig, llm: FrozenLLM) -> Examiner | None:
    held_out = config.held_out
    if held_out is None:
        return None
    prompts = load_prompts(held_out.prompts)
    judge = None if held_out.judge is None else load_reward(held_out.judge, llm)
    needed = 1 if config.gates is None else MIN_GATED_PROMPTS * (2 if config.early_stopping is not None else 1)
    return Examiner.of(held_out, config.rollout, prompts, judge, llm, config.seed, min_prompts=needed)


def _demonstrations(config: TrainConfig, llm: FrozenLLM) -> Demonstrations | None:
    if config.ptx is None:
        return None
    answers = imitated_answers(config.ptx.data, config, llm)
    return Demonstrations(answers=answers, weight=config.ptx.weight, embedding=llm.embedding)


def _reward(config: TrainConfig, llm: FrozenLLM) -> WeightedReward:
    """Grading models answer a question once a run: what they said lies in its folder."""
    verdicts = Verdicts(config.output / VERDICTS_FILE)
    endpoint = None if config.judge is None else ChatEndpoint(config.judge, verdicts)
    return RewardBuilder(llm, endpoint).weighted(config.rewards)

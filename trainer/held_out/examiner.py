"""Answers to the held-out prompts by a version and by what it is to replace, and what there is to measure on them."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from proxy_model.decision.bank import ProxyRef
from proxy_model.decision.config import SkamConfig
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.disk import replace_file
from proxy_model.errors import BadCheckpoint, DataError, UnknownProxy
from proxy_model.llm.frozen_llm import FrozenLLM
from proxy_model.versions.registry import ProxyRegistry
from proxy_model.versions.verdicts import State, Verdict
from trainer.batch import flatten, penalties
from trainer.config import RolloutConfig
from trainer.evaluation.answer import Answers
from trainer.evaluation.answer_store import AnswerStore
from trainer.evaluation.answering import Answering
from trainer.evaluation.config import EvaluationConfig
from trainer.evaluation.judgement import readable_texts
from trainer.evaluation.scoring import Scorer, Scoring
from trainer.evaluation.systems import BASE, Row, System
from trainer.evaluation.text_metrics import Dictionary, english_words
from trainer.held_out.config import GatesConfig, HeldOutConfig
from trainer.held_out.gates import Reading, Summary, readings
from trainer.prompts import Prompt
from trainer.rewards.model import RewardModel
from trainer.rewards.progress import reading_progress
from trainer.rollout import EncodedPrompt, derived_seed, encode_prompts, roll_out_policy, room_for_prompt

GATES_FILE = "gates.jsonl"
_LABEL = "judge"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HeldOutScores:
    """One look at a policy: mean scores of its greedy answers, and their mean length in tokens."""

    judge: float | None
    """None where nobody judges but the reward model that trains."""

    reward: float | None
    """By the reward model that trains; None for a run without one."""

    length: float

    @property
    def metrics(self) -> dict[str, float]:
        """Under the names of `trainer.metrics.HELD_OUT_METRICS`."""
        scores = {"held_out/judge": self.judge, "held_out/reward": self.reward}
        return {name: score for name, score in scores.items() if score is not None} | {"held_out/length": self.length}


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What the gates saw of a version."""

    against: str
    prompts: str
    """On how many of those in the file, in words."""

    readings: tuple[Reading, ...]

    @property
    def verdict(self) -> Verdict:
        """Passed if every gate was."""
        failures = tuple(str(each) for each in self.readings if not each.is_passed)
        state: State = "failed" if failures else "passed"
        return Verdict(state=state, against=self.against, failures=failures, prompts=self.prompts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Examiner:
    """Held-out prompts with the judge of the answers to them."""

    llm: FrozenLLM
    judge: RewardModel | None
    prompts: Sequence[EncodedPrompt]
    max_tokens: int
    max_running: int
    seed: int
    sample: str
    """How many of the given prompts are asked, in words."""

    before_step: Callable[[], None] = lambda: None
    """Asked before each decode step; what it raises ends the look or the examination."""

    @classmethod
    def of(
        cls,
        config: HeldOutConfig,
        rollout: RolloutConfig,
        prompts: Sequence[Prompt],
        judge: RewardModel | None,
        llm: FrozenLLM,
        seed: int,
        *,
        min_prompts: int = 1,
    ) -> "Examiner":
        """With the first prompts of a shuffle that fit. Raises `DataError` if fewer than `min_prompts` do.

        Raises `InvalidParameter` where the answers leave no room for a prompt.
        """
        limit = room_for_prompt(llm, rollout.max_prompt_tokens, config.max_tokens, "held_out.max_tokens")
        fitting = encode_prompts(prompts, llm.tokenizer, limit)
        if not fitting:
            raise DataError(config.prompts, 0, f"no prompt has at most {limit} tokens")
        num_given, num_fitting = len(prompts), len(fitting)
        if num_fitting < min_prompts:
            told = f"{num_fitting} of {num_given} prompts have at most {limit} tokens"
            raise DataError(config.prompts, 0, f"{told}; gates need at least {min_prompts}")
        generator = torch.Generator().manual_seed(derived_seed(seed, "held out"))
        order = torch.randperm(len(fitting), generator=generator).tolist()[: config.num_prompts or None]
        return cls(
            llm=llm,
            judge=judge,
            prompts=[fitting[index] for index in order],
            max_tokens=config.max_tokens,
            max_running=rollout.max_running,
            seed=seed,
            sample=f"{len(order)} of {num_given} prompts" + _left_out(num_given - num_fitting, limit),
        )

    def halves(self) -> tuple["Examiner", "Examiner"]:
        """One that looks at a run while it goes on, and one for the gates of what the looks have chosen.

        The best of several looks is flattered by the prompts that it was chosen on.
        """
        looks, gates = self.prompts[::2], self.prompts[1::2] or self.prompts
        return replace(self, prompts=looks), replace(self, prompts=gates, sample=f"half of {self.sample}")

    def look(self, policy: ProxyPolicy, skam: SkamConfig, reward: RewardModel | None) -> HeldOutScores:
        """What judge and reward think of the policy's answers."""
        answers = self._answers([_candidate(policy, skam)])[0]
        judged, rewarded = (
            None if model is None else float(self._scores(answers, model).mean()) for model in (self.judge, reward)
        )
        return HeldOutScores(judged, rewarded, answers.num_tokens / len(answers.items))

    def examine(
        self, policy: ProxyPolicy, skam: SkamConfig, limits: GatesConfig, registry: ProxyRegistry, name: str
    ) -> Examination:
        """Hold a policy against the version of `name` that is stable now, or the LLM alone where there is none."""
        assert self.judge is not None, "the settings of gates ask for one"
        other = stable_system(registry, name, self.llm)
        systems = [other, _candidate(policy, skam)]
        answered = self._answers(systems)
        garble = self._garble_rates(answered) if limits.max_garble_rise is not None else [0.0, 0.0]
        kl = self._kl(policy, skam) if limits.max_kl is not None else None
        reference, candidate = (
            self._summary(answers, self.judge, rate, divergence)
            for answers, rate, divergence in zip(answered, garble, (None, kl), strict=True)
        )
        return Examination(
            against=other.name, prompts=self.sample, readings=tuple(readings(candidate, reference, limits))
        )

    def _summary(self, answers: Answers, judge: RewardModel, garble_rate: float, kl: float | None) -> Summary:
        return Summary(
            name=answers.facts.name,
            scores=self._scores(answers, judge),
            garble_rate=garble_rate,
            length=answers.num_tokens / len(answers.items),
            rejections_per_token=sum(each.rejected for each in answers.items) / answers.num_tokens,
            seconds_per_token=answers.seconds / answers.num_tokens,
            kl=kl,
        )

    def _answers(self, systems: Sequence[System]) -> list[Answers]:
        rows = self._answering({}).rows([Row(each.name, (each,)) for each in systems])
        return [row.members[0] for row in rows]

    def _scores(self, answers: Answers, model: RewardModel) -> Tensor:
        """(B,)."""
        return self._answering({_LABEL: Scorer(model, "")}).scoring.scores(_LABEL, answers)

    def _answering(self, scorers: Mapping[str, Scorer]) -> Answering:
        """`evaluate`'s machinery over these prompts, without a folder and without a bar."""
        progress = reading_progress(Console(quiet=True))
        store = AnswerStore(None, {})
        config = EvaluationConfig(
            prompts=Path(),
            systems=(),
            max_tokens=self.max_tokens,
            max_prompt_tokens=max(len(each.token_ids) for each in self.prompts),
            max_running=self.max_running,
            seed=self.seed,
            num_shown=0,
        )
        scoring = Scoring(llm=self.llm, prompts=self.prompts, scorers=scorers, store=store, progress=progress)
        return Answering(
            llm=self.llm,
            prompts=self.prompts,
            config=config,
            store=store,
            scoring=scoring,
            progress=progress,
            before_step=self.before_step,
        )

    def _garble_rates(self, answered: Sequence[Answers]) -> list[float]:
        """Of each system, the first one's words counting as `Dictionary` says."""
        known = [*english_words(), *(turn["content"] for each in self.prompts for turn in each.messages)]
        dictionary = Dictionary.of(known, readable_texts(answered[0]))
        return [dictionary.garble_rate(readable_texts(each)) for each in answered]

    def _kl(self, policy: ProxyPolicy, skam: SkamConfig) -> float:
        """Mean over positions of log p(token) under the sampled proxy less that under the LLM."""
        longest = max(len(each.token_ids) for each in self.prompts)
        sizes = EngineConfig(
            max_running=self.max_running,
            max_context=longest + self.max_tokens,
            max_candidates=skam.max_candidates,
        )
        rollout = roll_out_policy(
            Engine(self.llm, sizes),
            policy,
            skam,
            self.prompts,
            RolloutConfig(max_tokens=self.max_tokens),
            iteration=0,
            seed=self.seed,
            before_step=self.before_step,
        )
        batch = flatten(rollout.trajectories, self.llm.embedding)
        return float(penalties(batch, "token_kl", policy.config.initial_acceptance).mean())


def note_examination(folder: Path, ref: ProxyRef, seen: Examination) -> None:
    """Add a line to the run's `gates.jsonl`, whole or not at all."""
    path, line = folder / GATES_FILE, {"version": ref.version, **asdict(seen)}
    before = path.read_bytes() if path.exists() else b""
    replace_file(path, before + json.dumps(line).encode() + b"\n")


def stable_system(registry: ProxyRegistry, name: str, llm: FrozenLLM) -> System:
    """The version of `name` that is stable now; the LLM alone where there is none that fits the LLM."""
    try:
        ref = registry.resolve(name)
        checkpoint = registry.verify(ref, llm.fingerprint)
    except UnknownProxy:
        return BASE
    except BadCheckpoint as error:
        logger.warning("the stable version cannot be compared with: %s", error)
        return BASE
    return System(name=f"stable {ref.version}", kind="proxy", policy=checkpoint.policy, skam=checkpoint.skam)


def _left_out(num_prompts: int, limit: int) -> str:
    return f" ({num_prompts} have more than {limit} tokens)" if num_prompts else ""


def _candidate(policy: ProxyPolicy, skam: SkamConfig) -> System:
    return System(name="candidate", kind="proxy", policy=policy, skam=skam)

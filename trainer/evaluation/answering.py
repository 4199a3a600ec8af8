"""Every system's answers to the same prompts, by one engine; what is on disk is not answered again."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from rich.progress import Progress

from proxy_model.decision.bank import ProxyRef
from proxy_model.decision.config import SkamConfig
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.decoding.request import GenerationRequest, SamplingParams
from proxy_model.llm.frozen_llm import FrozenLLM
from trainer.evaluation.answer import Answer, Answers, SystemFacts
from trainer.evaluation.answer_store import AnswerStore
from trainer.evaluation.best_of import best_of
from trainer.evaluation.config import EvaluationConfig
from trainer.evaluation.rerank import Reranker
from trainer.evaluation.scoring import TRAINING_REWARD, Scoring
from trainer.evaluation.systems import Row, System, constant_policy, max_candidates
from trainer.evaluation.timed_engine import TimedEngine
from trainer.rollout import EncodedPrompt, derived_seed

_EVALUATED = ProxyRef(name="evaluated", version=1)


@dataclass(frozen=True, slots=True)
class AnsweredRow:
    """A row of the table with its members' answers."""

    label: str
    members: tuple[Answers, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answering:
    """What answering needs."""

    llm: FrozenLLM
    prompts: Sequence[EncodedPrompt]
    config: EvaluationConfig
    store: AnswerStore
    scoring: Scoring
    progress: Progress
    before_step: Callable[[], None] = lambda: None
    """Asked before each decode step; what it raises ends the answering."""

    def rows(self, rows: Sequence[Row]) -> list[AnsweredRow]:
        """In order; a proxy is loaded only while it answers."""
        sizes = EngineConfig(
            max_running=self.config.max_running,
            max_context=self.config.max_prompt_tokens + self.config.max_tokens,
            max_candidates=max_candidates(rows),
            prefix_cache_tokens=0,  # every row reads the prompts itself, or the first one's times would be longer
        )
        engine = TimedEngine(self.llm, sizes)
        answered: list[AnsweredRow] = []
        proxy: tuple[System, Answers] | None = None
        for row in rows:
            members = []
            for system in row.systems:
                answers = self._answers(engine, _matched(system, proxy))
                members.append(answers)
                if system.kind == "proxy":
                    proxy = (system, answers)
            answered.append(AnsweredRow(row.label, tuple(members)))
        return answered

    def _answers(self, engine: TimedEngine, system: System) -> Answers:
        chooser = {"reward": self.scoring.digest(TRAINING_REWARD)} if system.must_have_reward else {}
        key = self.store.key({**system.identity, **chooser})
        facts = SystemFacts.of(system)
        _, items = self.store.read(key)
        if len(items) < len(self.prompts):
            self.store.begin(key, facts, items)
            for some in self._answered(engine, system, len(items)):
                self.store.append(key, some)
                items += some
        return Answers(key=key, facts=facts, items=tuple(items))

    def _answered(self, engine: TimedEngine, system: System, num_done: int) -> Iterator[list[Answer]]:
        """The answers from `num_done` on, some at a time."""
        if system.kind == "best-of":
            samples = [self._answers(engine, replace(_sampler(system), draw=draw)) for draw in range(system.number)]
            scores = [self.scoring.scores(TRAINING_REWARD, each) for each in samples]
            yield best_of(samples, scores)[num_done:]
            return
        size = 2 * self.config.max_running
        task = self.progress.add_task(_title(system), total=len(self.prompts), completed=num_done)
        with self._answerer(engine, system) as answer:
            for first in range(num_done, len(self.prompts), size):
                numbers = range(first, min(first + size, len(self.prompts)))
                yield answer(numbers)
                self.progress.update(task, completed=numbers.stop)

    @contextmanager
    def _answerer(self, engine: TimedEngine, system: System) -> Iterator["partial[list[Answer]]"]:
        if system.kind == "rerank":
            reranker = Reranker(self.llm, self.scoring.model(TRAINING_REWARD), system.number, system.weight)
            yield partial(_rerank, reranker, self.prompts, self.config)
            return
        if system.llm is not None:
            yield partial(self._generate, TimedEngine(system.llm, engine.config), system, None)
            return
        ref = _load_into(engine, system, self.llm)
        try:
            yield partial(self._generate, engine, system, ref)
        finally:
            if ref is not None:
                engine.unload_proxy(ref)

    def _generate(self, engine: TimedEngine, system: System, ref: ProxyRef | None, numbers: range) -> list[Answer]:
        """Answer i is drawn with a seed of (`config.seed`, i): the same for every system."""
        draw = (system.draw,) if system.draw else ()
        requests = [
            GenerationRequest(
                id=str(number),
                prompt_token_ids=self.prompts[number].token_ids,
                params=SamplingParams(
                    max_tokens=self.config.max_tokens,
                    temperature=system.temperature,
                    top_p=system.top_p,
                    decision=system.decision,
                    target_return=system.target_return,
                    seed=derived_seed(self.config.seed, "answer", number, *draw),
                    return_decisions=ref is not None and number < self.config.num_shown,
                ),
                proxy=ref,
            )
            for number in numbers
        ]
        return engine.answers(requests, self.before_step)


def _rerank(
    reranker: Reranker, prompts: Sequence[EncodedPrompt], config: EvaluationConfig, numbers: range
) -> list[Answer]:
    return reranker.answer([prompts[number].token_ids for number in numbers], config.max_tokens)


def _sampler(system: System) -> System:
    """The plain sampling that a best-of-n chooses from."""
    return replace(system, kind="sample", name=f"{system.name}'s samples", number=1)


def _matched(system: System, proxy: tuple[System, Answers] | None) -> System:
    """A random proxy without a rate takes that of the last proxy, and its SKAM settings."""
    if system.kind != "random":
        return system
    rate, skam = system.accept_rate, SkamConfig()
    if proxy is not None:
        skam = proxy[0].skam or skam
        rate = rate if rate is not None else proxy[1].accept_rate
    return replace(system, skam=skam, accept_rate=min(max(rate or 0.999, 0.001), 0.999))


def _load_into(engine: TimedEngine, system: System, llm: FrozenLLM) -> ProxyRef | None:
    if system.kind in ("base", "sample"):
        return None
    policy = system.policy
    if policy is None:
        assert system.accept_rate is not None
        policy = constant_policy(llm.hidden_size, system.accept_rate)
    engine.load_proxy(_EVALUATED, policy, system.skam or SkamConfig())
    return _EVALUATED


def _title(system: System) -> str:
    return f"{system.name}: answers" + (f" (sample {system.draw + 1})" if system.draw else "")

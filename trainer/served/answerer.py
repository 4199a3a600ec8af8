"""A run's prompts answered by servers: the policy lent to them, their decisions retraced with the run's own LLM."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from proxy_model.decision.bank import ProxyRef
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.decoding.retrace import DecidedAnswer, Retraced, Retracer
from proxy_model.llm.frozen_llm import FrozenLLM
from proxy_model.versions.checkpoint import Checkpoint
from trainer.config import TrainConfig
from trainer.interruption import Interruption
from trainer.rollout import EncodedPrompt, Rollout, derived_seed
from trainer.served.answer import Question
from trainer.served.fleet import Fleet
from trainer.served.lending import Lending

_ANSWERS_PER_PASS = 16
"""Read before the run is asked again whether it goes on."""


@dataclass(frozen=True, slots=True)
class Servers:
    """See `trainer.answerer.Answerer`."""

    llm: FrozenLLM
    config: TrainConfig
    fleet: Fleet
    lending: Lending
    interruption: Interruption

    def roll_out(
        self,
        policy: ProxyPolicy,
        prompts: Sequence[EncodedPrompt],
        *,
        iteration: int,
        aims: Sequence[float | None] | None = None,
    ) -> Rollout:
        """Raises `ServersFailed`, too. `aims` are numbers, or all None."""
        started = time.perf_counter()
        aims = aims or [None] * len(prompts)
        with self.lending.lent(self._checkpoint(policy, iteration, is_told=aims[0] is not None)) as ref:
            questions = self._questions(ref, prompts, iteration, aims)
            answers = self.fleet.ask(questions, self.interruption.leave_if_aborted)
        answered = time.perf_counter()
        retraced = self._retraced(policy, [answer.decided for answer in answers])
        ended = time.perf_counter()
        trajectories = tuple(each.trajectory for each in retraced)
        num_positions = sum(each.num_positions for each in trajectories)
        return Rollout(
            prompts=tuple(prompts),
            texts=tuple(answer.text for answer in answers),
            trajectories=trajectories,
            seconds=ended - started,
            kinds=torch.tensor([prompt.kind for prompt in prompts]),
            metrics={
                "rollout/differing_share": sum(each.num_differing for each in retraced) / num_positions,
                "rollout/retrace_seconds": ended - answered,
            },
        )

    def _checkpoint(self, policy: ProxyPolicy, iteration: int, *, is_told: bool) -> Checkpoint:
        served = policy if is_told else _untold(policy)
        card = {"made_for": f"rollouts of {self.config.proxy}", "iteration": iteration + 1}
        return Checkpoint(served, self.config.skam, dict(self.llm.fingerprint), card)

    def _questions(
        self, ref: ProxyRef, prompts: Sequence[EncodedPrompt], iteration: int, aims: Sequence[float | None]
    ) -> list[Question]:
        return [
            Question(
                prompt_token_ids=prompt.token_ids,
                proxy=ref,
                seed=derived_seed(self.config.seed, iteration + 1, index),
                max_tokens=self.config.rollout.max_tokens,
                max_candidates=self.config.skam.max_candidates,
                target_return=aim,
            )
            for index, (prompt, aim) in enumerate(zip(prompts, aims, strict=True))
        ]

    def _retraced(self, policy: ProxyPolicy, answers: Sequence[DecidedAnswer]) -> list[Retraced]:
        retracer, found = Retracer(self.llm, policy, self.config.skam), []
        for start in range(0, len(answers), _ANSWERS_PER_PASS):
            self.interruption.leave_if_due()
            found += retracer.retrace(answers[start : start + _ANSWERS_PER_PASS])
        return found


def _untold(policy: ProxyPolicy) -> ProxyPolicy:
    """`policy` as it decides when it is told nothing: a server tells a conditioned one its default then."""
    if not policy.config.is_conditioned:
        return policy
    untold = ProxyPolicy(replace(policy.config, is_conditioned=False))
    names = untold.state_dict().keys()
    untold.load_state_dict({name: each for name, each in policy.state_dict().items() if name in names})
    return untold

"""vLLM's part of a step, played by the frozen LLM: rows in any order, prompts in pieces, requests left out for a while.

Every step reads whole texts anew, so nothing but the plugin decides what comes out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import torch

from proxy_model.decision.bank import ProxyBank
from proxy_model.decoding.grammar_compiler import GrammarCompiler
from proxy_model.decoding.request import GenerationRequest
from proxy_model.llm.frozen_llm import FrozenLLM
from vllm_plugin.arguments import to_arguments
from vllm_plugin.batch import BatchDecider, Row
from vllm_plugin.report import ReportedPosition, num_pairs, read_position

WIDTH = 16


@dataclass
class Running:
    """A request as vLLM keeps it."""

    request: GenerationRequest
    read: int = 0
    output: list[int] = field(default_factory=list)
    positions: list[ReportedPosition] = field(default_factory=list)


class StepLoop:
    """Steps over a `BatchDecider`; `seed` decides who takes part in a step, and in which row."""

    def __init__(self, llm: FrozenLLM, bank: ProxyBank, *, seed: int = 0, piece: int = 7) -> None:
        self.decider = BatchDecider(bank, GrammarCompiler(llm), llm.end_token_ids, WIDTH)
        self._llm = llm
        self._random = Random(seed)
        self._piece = piece

    def run(self, requests: Sequence[GenerationRequest]) -> dict[str, Running]:
        """All requests to their ends."""
        everyone = {request.id: Running(request) for request in requests}
        left = dict(everyone)
        while left:
            members = self._random.sample(list(left.values()), self._random.randint(1, len(left)))
            self.step(members)
            left = {name: each for name, each in left.items() if not self._has_ended(each)}
            self.decider.forget(left)
        return everyone

    def step(self, members: Sequence[Running]) -> None:
        """One step of these."""
        for each in members:
            each.read = min(each.read + self._piece, len(each.request.prompt_token_ids))
        texts = [[*each.request.prompt_token_ids[: each.read], *each.output] for each in members]
        hidden = [states[-1:] for states in self._llm.final_states(texts)]
        states = torch.cat(hidden)
        outcome = self.decider.decide([_row(each) for each in members], states, self._llm.logits(states))
        columns = zip(
            members,
            outcome.tokens.tolist(),
            outcome.report.ids.tolist(),
            outcome.report.numbers.tolist(),
            outcome.report.ranks.tolist(),
            strict=True,
        )
        for each, token, ids, numbers, rank in columns:
            if each.read == len(each.request.prompt_token_ids):
                end = 1 + num_pairs(each.request.params, is_proxied=each.request.proxy is not None, width=WIDTH)
                each.output.append(token)
                each.positions.append(read_position(ids[:end], numbers[:end], rank))

    def _has_ended(self, each: Running) -> bool:
        params = each.request.params
        is_end = bool(each.output) and each.output[-1] in self._llm.end_token_ids and not params.ignore_eos
        return is_end or len(each.output) == params.max_tokens


def _row(each: Running) -> Row:
    return Row(
        request_id=each.request.id,
        arguments=to_arguments(each.request),
        prompt_token_ids=each.request.prompt_token_ids,
        output_token_ids=each.output,
        is_unfinished_prompt=each.read < len(each.request.prompt_token_ids),
    )

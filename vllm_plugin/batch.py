"""The rows of a vLLM step, decided as `proxy_model` decides them: processors, slate, scores, first accepted."""

from collections.abc import Container, Mapping
from collections.abc import Sequence as Rows
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from proxy_model.decision.bank import ProxyBank
from proxy_model.decision.choice import Decided
from proxy_model.decoding.decode import decide
from proxy_model.decoding.grammar_compiler import GrammarCompiler
from proxy_model.decoding.logit_processors import LogitProcessors
from proxy_model.decoding.sequence import Sequence
from vllm_plugin.arguments import from_arguments
from vllm_plugin.report import Report, add_scores, add_slate, mark_failed, new_report, num_pairs


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a step, as vLLM keeps it."""

    request_id: str
    arguments: Mapping[str, Any] | None
    """`SamplingParams.extra_args`; None: not a request of ours."""

    prompt_token_ids: Rows[int]
    output_token_ids: Rows[int]
    """What has been handed out of the answer."""

    is_unfinished_prompt: bool
    """vLLM reads a prompt piece by piece and drops what is sampled before its last piece."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What vLLM gets instead of its own sampling."""

    tokens: Int[Tensor, " B"]
    report: Report


class BatchDecider:
    """Keeps the state of every request that a worker has seen and decides for all rows of a step at once.

    The state of a request outlives the steps that it is not in, so a request that vLLM interrupts and resumes goes on
    with the same noise.
    """

    def __init__(
        self, bank: ProxyBank, grammars: GrammarCompiler, end_token_ids: frozenset[int], max_candidates: int
    ) -> None:
        self._bank = bank
        self._grammars = grammars
        self._processors = LogitProcessors(end_token_ids, grammars)
        self._width = max_candidates
        self._sequences: dict[str, Sequence] = {}

    @torch.no_grad()
    def decide(self, rows: Rows[Row], hidden: Float[Tensor, "B D"], logits: Float[Tensor, "B V"]) -> Outcome:
        """Tokens and reports of B rows; unfinished prompts get token 0 and leave no trace."""
        places = [place for place, row in enumerate(rows) if not row.is_unfinished_prompt]
        sequences = [self._up_to_date(rows[place]) for place in places]
        tokens = torch.zeros(len(rows), dtype=torch.long, device=logits.device)
        index = torch.tensor(places, dtype=torch.long, device=logits.device)
        if not places:
            return Outcome(tokens, new_report(tokens, None, index, 1))
        if len(places) < len(rows):
            hidden, logits = hidden[index], logits[index]
        logits = logits.float()
        decided = decide(hidden, self._processors.offered(logits, sequences), sequences, self._width)
        tokens[index] = decided.choice.tokens
        return Outcome(tokens, self._report(tokens, index, sequences, logits, decided))

    def forget(self, alive: Container[str]) -> None:
        """Let go of requests that vLLM does not know any more."""
        for request_id in [known for known in self._sequences if known not in alive]:
            del self._sequences[request_id]

    def _up_to_date(self, row: Row) -> Sequence:
        """The row's state, with every token that has been handed out."""
        sequence = self._sequences.get(row.request_id)
        if sequence is None:
            sequence = self._sequences[row.request_id] = self._begin(row)
        for token in row.output_token_ids[len(sequence.output) :]:
            sequence.accept(token)
        return sequence

    def _begin(self, row: Row) -> Sequence:
        assert row.arguments is not None, "a request that did not come from this server"
        request = from_arguments(row.arguments, request_id=row.request_id, prompt_token_ids=row.prompt_token_ids)
        proxy = None if request.proxy is None else self._bank.get(request.proxy)
        grammar = request.params.grammar
        return Sequence(request, proxy, None if grammar is None else self._grammars.compile(grammar).begin())

    def _report(
        self, tokens: Tensor, index: Tensor, sequences: Rows[Sequence], logits: Tensor, decided: Decided
    ) -> Report:
        widths = [
            num_pairs(sequence.request.params, is_proxied=sequence.proxy is not None, width=self._width)
            for sequence in sequences
        ]
        report = new_report(tokens, decided, index, 1 + max(widths))
        failed = [number for number, each in enumerate(sequences) if each.grammar and each.grammar.has_failed]
        for number in failed:
            mark_failed(report, int(index[number]))
        for number, sequence in enumerate(sequences):
            if widths[number]:
                self._add_details(report, int(index[number]), sequence, logits[number], decided, number)
        return report

    def _add_details(
        self, report: Report, row: int, sequence: Sequence, logits: Tensor, decided: Decided, number: int
    ) -> None:
        params = sequence.request.params
        first = 1
        if params.top_logprobs is not None:
            add_scores(report, row, int(decided.choice.tokens[number]), logits, params.top_logprobs)
            first += 1 + params.top_logprobs
        if params.return_decisions and sequence.proxy is not None:
            add_slate(report, row, first, decided, number)

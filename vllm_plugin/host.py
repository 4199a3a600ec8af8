"""A worker's proxies at work: vLLM's step is left as it is, but for who chooses the tokens.

vLLM 0.32's model runner V1 keeps a persistent batch, samples from the logits of its rows, and drops what it sampled for
prompts that are not read to their end. Here stand all the names of its inside that are relied upon.
"""

import threading
from typing import Any

import torch
from torch import Tensor

from proxy_model.decoding.grammar import GrammarSpec
from proxy_model.decoding.grammar_compiler import GrammarCompiler
from proxy_model.errors import BadGrammar
from vllm_plugin.bank import PREPARING, READY, WorkerBank
from vllm_plugin.batch import BatchDecider, Row
from vllm_plugin.setup import WorkerSetup, WorkerVocabulary

_EMBEDDED_ROWS = 8192

_RUNNER_PARTS = ("input_batch", "requests", "sampler", "sample_tokens", "execute_model_state", "discard_request_mask")


class ProxyHost:
    """Decides in the place of vLLM's sampler. Raises `RuntimeError` on a model runner that it does not know."""

    def __init__(self, runner: Any, setup: WorkerSetup) -> None:
        missing = [name for name in _RUNNER_PARTS if not hasattr(runner, name)]
        if missing:
            raise RuntimeError(f"vLLM's model runner V1 is needed; {type(runner).__name__} has no {missing[0]}")
        self._runner = runner
        self.bank = WorkerBank(setup.fingerprint, _embedding(runner, setup.vocab_size))
        self._grammars = GrammarCompiler(WorkerVocabulary(setup))
        self._compiling: dict[GrammarSpec, str] = {}
        self._decider = BatchDecider(
            self.bank.loaded, self._grammars, frozenset(setup.end_token_ids), setup.max_candidates
        )
        self._hidden: Tensor | None = None
        self._take_over()

    def compile(self, spec: GrammarSpec) -> str:
        """`READY`, `PREPARING`, or what is wrong with the grammar. Ask again while it is being prepared."""
        state = self._compiling.get(spec)
        if state is None:
            self._compiling[spec] = state = PREPARING
            threading.Thread(target=self._compile, args=(spec,), name="grammar", daemon=True).start()
        elif state != PREPARING:
            del self._compiling[spec]
        return state

    def _compile(self, spec: GrammarSpec) -> None:
        try:
            self._grammars.compile(spec)
            self._compiling[spec] = READY
        except BadGrammar as error:
            self._compiling[spec] = error.reason

    def _take_over(self) -> None:
        runner, sample_tokens = self._runner, self._runner.sample_tokens

        def sample_with_hidden_states(grammar_output: Any) -> Any:
            state = runner.execute_model_state
            self._hidden = None if state is None else state.sample_hidden_states
            return sample_tokens(grammar_output)

        runner.sample_tokens = sample_with_hidden_states
        runner.sampler.forward = self._sample
        runner.sampler.gather_logprobs = _gather_logprobs

    def _sample(self, logits: Tensor, sampling_metadata: Any, **_: Any) -> Any:
        """`vllm.v1.sample.sampler.Sampler.forward`, by slates and proxies."""
        from vllm.v1.outputs import LogprobsTensors, SamplerOutput

        assert self._hidden is not None
        outcome = self._decider.decide(self._rows(), self._hidden, logits)
        report = outcome.report
        return SamplerOutput(
            sampled_token_ids=outcome.tokens.int()[:, None],
            logprobs_tensors=LogprobsTensors(report.ids, report.numbers, report.ranks),
        )

    def _rows(self) -> list[Row]:
        runner = self._runner
        self._decider.forget(runner.requests)
        request_ids = runner.input_batch.req_ids
        is_unfinished = runner.discard_request_mask.np[: len(request_ids)].tolist()
        states = [runner.requests[request_id] for request_id in request_ids]
        return [
            Row(
                request_id=state.req_id,
                arguments=state.sampling_params.extra_args,
                prompt_token_ids=state.prompt_token_ids,
                output_token_ids=state.output_token_ids,
                is_unfinished_prompt=is_dropped,
            )
            for state, is_dropped in zip(states, is_unfinished, strict=True)
        ]


def _gather_logprobs(logprobs: Tensor, num_logprobs: int, token_ids: Tensor) -> Any:
    """vLLM's own but for the ranks, which nobody reads: its compiled count of them takes 20 s when it is first used."""
    from vllm.v1.outputs import LogprobsTensors

    chosen, top = token_ids[:, None], logprobs.topk(num_logprobs, dim=-1)
    return LogprobsTensors(
        torch.cat([chosen, top.indices], dim=1).int(),
        torch.cat([logprobs.gather(1, chosen), top.values], dim=1),
        torch.zeros_like(token_ids),
    )


@torch.no_grad()
def _embedding(runner: Any, vocab_size: int) -> Tensor:
    """(V, D) input embeddings, gathered over the ranks where vLLM splits the vocabulary."""
    model = runner.get_model()
    ids = torch.arange(vocab_size, device=runner.device)
    return torch.cat([model.embed_input_ids(part) for part in ids.split(_EMBEDDED_ROWS)])

"""What vLLM hands out of one request, as the deltas that the other engine would have made of it."""

import secrets
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from proxy_model.decoding.emit import Emitter, Scored
from proxy_model.decoding.engine import TOO_COMPLEX
from proxy_model.decoding.request import Delta, GenerationRequest
from proxy_model.decoding.sequence import Sequence
from vllm_plugin.arguments import to_arguments
from vllm_plugin.report import num_pairs, read_position


class AnswerStream:
    """One request's way through vLLM: its prompt and sampling parameters, and the deltas of its outputs."""

    def __init__(self, request: GenerationRequest, emitter: Emitter) -> None:
        if request.params.seed is None:  # every rank must draw the same
            request = replace(request, params=replace(request.params, seed=secrets.randbits(62)))
        self.request = request
        self._emitter = emitter
        self._sequence = Sequence(request, None)

    def prompt(self) -> dict[str, Any]:
        """vLLM's `TokensPrompt`. It keeps prompts of different salts apart, also where they begin alike."""
        scope = self.request.prefix_scope
        salt = {"cache_salt": scope} if scope else {}
        return {"prompt_token_ids": list(self.request.prompt_token_ids), **salt}

    def sampling_fields(self, end_token_ids: frozenset[int], width: int) -> dict[str, Any]:
        """Of vLLM's `SamplingParams`: it reads, counts and stops; the plugin chooses."""
        params = self.request.params
        ends = set(params.stop_token_ids) | (set() if params.ignore_eos else end_token_ids)
        return {
            "temperature": 0.0,
            "max_tokens": max(1, params.max_tokens),
            "ignore_eos": True,
            "stop_token_ids": sorted(ends),
            "detokenize": False,
            "logprobs": num_pairs(params, is_proxied=self.request.proxy is not None, width=width),
            "prompt_logprobs": params.prompt_logprobs,
            "flat_logprobs": True,
            "extra_args": to_arguments(self.request),
            "skip_clone": True,
        }

    def deltas(self, output: Any) -> Iterator[Delta]:
        """Of a `RequestOutput`, up to the answer's last."""
        self._sequence.num_restored = output.num_cached_tokens or 0
        if output.prompt_logprobs is not None:
            self._note_prompt(output.prompt_logprobs)
        completion = output.outputs[0]
        if not self.request.params.max_tokens:
            if completion.token_ids:
                yield self._emitter.read_only(self._sequence)
            return
        rows = completion.logprobs
        for number in range(len(completion.token_ids)):
            pairs = slice(rows.start_indices[number], rows.end_indices[number])
            delta = self._delta(rows.token_ids[pairs], rows.logprobs[pairs], rows.ranks[pairs.start])
            yield delta
            if delta.finish_reason is not None:
                return

    def fail(self, error: str) -> Delta:
        """The last delta of an answer that cannot go on."""
        return self._emitter.fail(self._sequence, error)

    def _delta(self, ids: list[int], numbers: list[float], rank: int) -> Delta:
        position = read_position(ids, numbers, rank)
        self._sequence.num_passes += 1
        return self.fail(TOO_COMPLEX) if position.has_failed else self._emitter.accept(self._sequence, position)

    def _note_prompt(self, rows: Any) -> None:
        """Log-probabilities of the prompt's tokens from the second on; the first entry stands for the first token."""
        for start, end in list(zip(rows.start_indices, rows.end_indices, strict=True))[1:]:
            tokens, values = rows.token_ids[start:end], rows.logprobs[start:end]
            likeliest = tuple(zip(tokens[1:], values[1:], strict=True))
            self._sequence.prompt_logprobs.append(self._emitter.worded(tokens[0], Scored(values[0], likeliest)))

"""llama.cpp as a peer, through llama-cpp-python's bindings of its C functions; runs in an environment that has them."""

import argparse
from collections.abc import Sequence

import llama_cpp
import numpy as np

from benchmarks.peer import answer_jobs

CONTEXT = 512
"""Tokens of a sequence."""

BATCH = 2048
"""Prompt tokens that go in at once."""


class LlamaCpp:
    """Greedy answers to many prompts, one sequence of the cache each."""

    def __init__(self, gguf: str, threads: int, max_running: int) -> None:
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max = CONTEXT * max_running, max_running
        settings.n_batch = settings.n_ubatch = BATCH
        settings.n_threads = settings.n_threads_batch = threads
        model = llama_cpp.llama_model_load_from_file(gguf.encode(), llama_cpp.llama_model_default_params())
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        self._context = llama_cpp.llama_init_from_model(model, settings)
        self._batch = llama_cpp.llama_batch_init(BATCH, 0, 1)

    def run(self, prompts: Sequence[Sequence[int]], tokens: int) -> int:
        """The number of tokens that were given."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        newest = [self._read(number, prompt) for number, prompt in enumerate(prompts)]
        for step in range(tokens - 1):
            positions = [len(prompt) + step for prompt in prompts]
            newest = self._decode(newest, positions, list(range(len(prompts))), [True] * len(prompts))
        return tokens * len(newest)

    def _read(self, number: int, prompt: Sequence[int]) -> int:
        is_last = [False] * (len(prompt) - 1) + [True]
        return self._decode(prompt, list(range(len(prompt))), [number] * len(prompt), is_last)[0]

    def _decode(
        self, tokens: Sequence[int], positions: Sequence[int], sequences: Sequence[int], wants_next: Sequence[bool]
    ) -> list[int]:
        """One pass; the likeliest next tokens where they are wanted."""
        batch = self._batch
        batch.n_tokens = len(tokens)
        for row, (token, position, sequence) in enumerate(zip(tokens, positions, sequences, strict=True)):
            batch.token[row], batch.pos[row], batch.n_seq_id[row] = token, position, 1
            batch.seq_id[row][0], batch.logits[row] = sequence, wants_next[row]
        assert llama_cpp.llama_decode(self._context, batch) == 0
        rows = [row for row, is_wanted in enumerate(wants_next) if is_wanted]
        return [int(np.argmax(self._logits(row))) for row in rows]

    def _logits(self, row: int) -> np.ndarray:
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self._context, row), (self._vocab_size,))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("gguf")
    parser.add_argument("threads", type=int)
    parser.add_argument("max_running", type=int)
    answer_jobs({"plain": LlamaCpp(**vars(parser.parse_args())).run})

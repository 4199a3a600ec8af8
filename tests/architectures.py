"""Random LLMs of several architectures, small enough for a test: each differs where code tends to assume Llama."""

import copy
from typing import Any

import torch
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

_SHAPE: dict[str, Any] = {
    "vocab_size": 1500,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "eos_token_id": 7,
    "bos_token_id": None,
    "pad_token_id": None,
}

_WIDE: dict[str, Any] = {**_SHAPE, "hidden_size": 128, "intermediate_size": 160, "vocab_size": 1536}
"""A shape that the compiled kernels take, in bfloat16."""

ARCHITECTURES: dict[str, PretrainedConfig] = {
    "llama_tied": LlamaConfig(**_SHAPE, tie_word_embeddings=True),
    "llama_untied": LlamaConfig(**_SHAPE, tie_word_embeddings=False),
    "qwen2_with_biases": Qwen2Config(**_SHAPE, tie_word_embeddings=True),
    "qwen3_with_query_norms": Qwen3Config(**_SHAPE, head_dim=24),
    "mistral_sliding": MistralConfig(**_SHAPE, sliding_window=16),
    "gemma2_softcapped": Gemma2Config(
        **_SHAPE, head_dim=16, sliding_window=16, final_logit_softcapping=3.0, attn_logit_softcapping=2.0
    ),
    "llama_wide": LlamaConfig(**_WIDE, tie_word_embeddings=True),
    "qwen2_wide": Qwen2Config(**_WIDE, tie_word_embeddings=True),
    "qwen3_wide": Qwen3Config(**_WIDE, head_dim=96),
    "llama_grouped": LlamaConfig(**{**_WIDE, "num_attention_heads": 16, "num_key_value_heads": 1, "head_dim": 32}),
    "gemma3_sliding": Gemma3TextConfig(**_SHAPE, head_dim=16, sliding_window=16),
}


def random_model(name: str) -> Any:
    """A transformers model with weights large enough that its greedy answers vary from prompt to prompt."""
    from transformers import AutoModelForCausalLM

    config = copy.deepcopy(ARCHITECTURES[name])
    config.initializer_range = 0.2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()

"""A random Llama of two layers that speaks bytes: small enough to train a proxy on in a test."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from proxy_model.llm.frozen_llm import FrozenLLM

END = "<|end|>"


def tiny_llm() -> FrozenLLM:
    """`tiny_parts`, loaded."""
    model, tokenizer = tiny_parts()
    return FrozenLLM(model, tokenizer, "tiny")


def write_tiny_llm(folder: Path) -> Path:
    """`tiny_parts` as a folder that transformers loads."""
    for part in tiny_parts():
        part.save_pretrained(folder)
    return folder


def tiny_parts() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """257 tokens: every byte and an end token; hidden size 32, float32 weights."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: index for index, character in enumerate([*alphabet, END])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        eos_token_id=vocabulary[END],
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        model = LlamaForCausalLM(config)
    _make_ends_likely(model, vocabulary[END])
    return model, tokenizer


@torch.no_grad()
def _make_ends_likely(model: LlamaForCausalLM, end: int) -> None:
    """Every state carries a constant in its first entry, through which the head prefers a few tokens and the end."""
    model.model.embed_tokens.weight[:, 0] = 0.2
    head = model.lm_head.weight
    head.mul_(10)
    head[:, 0] = -1.0
    head[97:107, 0] = 1.0
    head[end, 0] = 1.2

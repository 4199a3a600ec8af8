"""A tiny LLM under a real engine whose steps can be slowed down or made to throw, and proxies to publish for it."""

import threading
import time
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from proxy_model.decision.bank import ProxyRef
from proxy_model.decision.config import PolicyConfig, SkamConfig
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.decoding.request import Delta
from proxy_model.llm.frozen_llm import FrozenLLM
from proxy_model.versions.checkpoint import Checkpoint
from proxy_model.versions.registry import ProxyRegistry

END = "<|end|>"
TEMPLATE = (
    "{% for m in messages %}{{ m['role'][0] }}:{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}a:{% endif %}"
)
CONTEXT = 512


def tiny_model(head_dim: int = 8) -> tuple[Any, Any]:
    """Two layers, hidden size 32, every byte and an end token; ids 0..94 are printable ASCII and preferred."""
    printable = [chr(code) for code in range(0x21, 0x7F)]
    rest = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - set(printable))
    vocabulary = {character: index for index, character in enumerate([*printable, *rest, END])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    make_tokenizer: Any = PreTrainedTokenizerFast
    tokenizer = make_tokenizer(tokenizer_object=backend, eos_token=END, chat_template=TEMPLATE)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=head_dim,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        eos_token_id=vocabulary[END],
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = LlamaForCausalLM(config)
    _prefer(model, range(len(printable)))
    return model, tokenizer


@torch.no_grad()
def _prefer(model: Any, tokens: range) -> None:
    """Every state carries a constant in its first entry, through which the head prefers `tokens`."""
    model.get_input_embeddings().weight[:, 0] = 0.2
    head = model.get_output_embeddings().weight
    head.mul_(25)
    head[:, 0] = -6.0
    head[tokens, 0] = 1.0


def tiny_llm() -> FrozenLLM:
    """As the engine takes it."""
    return FrozenLLM(*tiny_model(), "tiny")


class PacedEngine(Engine):
    """A step takes at least `step_seconds`; `failures` of the next ones throw; `gate` holds steps up while cleared."""

    def __init__(self, llm: FrozenLLM, config: EngineConfig) -> None:
        super().__init__(llm, config)
        self.step_seconds = 0.0
        self.failures = 0
        self.gate = threading.Event()
        self.gate.set()

    def step(self) -> list[Delta]:
        """One step, sooner or later."""
        self.gate.wait()
        time.sleep(self.step_seconds)
        if self.failures:
            self.failures -= 1
            raise RuntimeError("injected")
        return super().step()


def new_policy(seed: int, acceptance: float = 0.8) -> ProxyPolicy:
    """A small proxy for the tiny LLM."""
    config = PolicyConfig(llm_hidden_size=32, hidden_size=8, initial_acceptance=acceptance)
    return ProxyPolicy(config, generator=torch.Generator().manual_seed(seed))


def picky_policy() -> ProxyPolicy:
    """Rejects whatever it may."""
    policy = new_policy(1)
    with torch.no_grad():
        policy.actor.output.bias.fill_(-9.0)
    return policy


def new_checkpoint(llm: FrozenLLM, policy: ProxyPolicy | None = None) -> Checkpoint:
    """A checkpoint that belongs to `llm`; its slates have three candidates, two of which may be rejected."""
    skam = SkamConfig(p_t=0.0, top_p=1.0, max_candidates=3)
    return Checkpoint(policy or new_policy(3), skam, dict(llm.fingerprint), {})


def publish(root: Path, llm: FrozenLLM, name: str = "helpful", *, policy: ProxyPolicy | None = None) -> ProxyRef:
    """Publish a version as stable."""
    return ProxyRegistry(root).publish(name, new_checkpoint(llm, policy))

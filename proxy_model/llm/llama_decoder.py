"""The Llama family's decoder (Llama, SmolLM, Mistral, Qwen2, Qwen3) with nothing but what a step needs.

Leaves out what a general implementation carries. `tests/invariants` holds it equal to transformers' own forward.
`proxy_model.native` computes the same in compiled code on CPUs that have what it takes.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from proxy_model.llm.attention import AttentionShape, PackedStep, attend
from proxy_model.llm.linear import FrozenLinear
from proxy_model.llm.llama_weights import LayerWeights, head_dim, rotary_table


@dataclass(frozen=True, slots=True)
class _Layer:
    input_norm: Tensor
    qkv: FrozenLinear
    query_norm: Tensor | None
    key_norm: Tensor | None
    output: FrozenLinear
    mlp_norm: Tensor
    gate_up: FrozenLinear
    down: FrozenLinear
    shape: AttentionShape

    @staticmethod
    def of(weights: LayerWeights) -> "_Layer":
        return _Layer(
            input_norm=weights.input_norm,
            qkv=FrozenLinear(weights.qkv.weight, weights.qkv.bias),
            query_norm=weights.query_norm,
            key_norm=weights.key_norm,
            output=FrozenLinear(weights.output.weight, weights.output.bias),
            mlp_norm=weights.mlp_norm,
            gate_up=FrozenLinear(weights.gate_up.weight),
            down=FrozenLinear(weights.down.weight),
            shape=AttentionShape(scale=weights.scale),
        )


class LlamaDecoder:
    """Embedding, layers and final norm; the head is `FrozenLLM`'s."""

    def __init__(self, model: Any, max_context: int) -> None:
        config = model.config
        decoder = model.model
        self.head_dim = head_dim(model)
        self.num_heads: int = config.num_attention_heads
        self.num_kv_heads: int = config.num_key_value_heads
        self.epsilon: float = config.rms_norm_eps
        self.embedding: Tensor = decoder.embed_tokens.weight.detach()
        self.final_norm: Tensor = decoder.norm.weight.detach()
        self.layers = [_Layer.of(LayerWeights.of(layer)) for layer in decoder.layers]
        cos, sin = rotary_table(decoder.rotary_emb, max_context, self.embedding)
        self.cos, self.sin = cos[:, None], sin[:, None]

    def forward(self, step: PackedStep, taps: tuple[int, ...] = ()) -> tuple[Tensor, list[Tensor]]:
        """Last hidden states after the final norm (N, D), and the outputs of the layers numbered in `taps` (from 1).

        Where there are taps, layers above the highest one are not run, and the first value is that layer's output.
        """
        num_layers = max(taps, default=len(self.layers))
        cos, sin = self.cos[step.positions], self.sin[step.positions]  # (N, 1, head_dim)
        hidden = F.embedding(step.tokens, self.embedding)
        tapped = {}
        for number, layer in enumerate(self.layers[:num_layers], start=1):
            hidden = hidden + self._attention(step, number - 1, layer, self._norm(hidden, layer.input_norm), cos, sin)
            hidden = hidden + _mlp(layer, self._norm(hidden, layer.mlp_norm))
            if number in taps:
                tapped[number] = hidden
        if num_layers == len(self.layers):
            hidden = self._norm(hidden, self.final_norm)
            tapped[num_layers] = hidden
        return hidden, [tapped[tap] for tap in taps]

    def _attention(
        self, step: PackedStep, index: int, layer: _Layer, hidden: Tensor, cos: Tensor, sin: Tensor
    ) -> Tensor:
        qkv = layer.qkv(hidden).unflatten(-1, (-1, self.head_dim))
        num_rotated = self.num_heads + self.num_kv_heads
        queries_keys, values = qkv[:, :num_rotated], qkv[:, num_rotated:]
        if layer.query_norm is not None and layer.key_norm is not None:
            queries = self._norm(queries_keys[:, : self.num_heads], layer.query_norm)
            queries_keys = torch.cat([queries, self._norm(queries_keys[:, self.num_heads :], layer.key_norm)], dim=1)
        rotated = queries_keys * cos + torch.roll(queries_keys, self.head_dim // 2, dims=-1) * sin
        queries, keys = rotated[:, : self.num_heads], rotated[:, self.num_heads :]
        attended = attend(step, index, queries, keys, values, layer.shape)
        return layer.output(attended.flatten(1))

    def _norm(self, hidden: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(hidden, weight.shape, weight, self.epsilon)


def _mlp(layer: _Layer, hidden: Tensor) -> Tensor:
    gate, up = layer.gate_up(hidden).chunk(2, dim=-1)
    return layer.down(F.silu(gate) * up)

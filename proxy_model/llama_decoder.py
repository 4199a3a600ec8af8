"""The Llama family's decoder (Llama, SmolLM, Mistral, Qwen2, Qwen3) with nothing but what a step needs.

Reads the weights of the model that transformers loaded, joins projections that share an input, and leaves out what a
general implementation carries. `tests/invariants` holds it equal to transformers' own forward.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from proxy_model.attention import AttentionShape, PackedStep, attend
from proxy_model.linear import FrozenLinear

SUPPORTED_MODEL_TYPES = frozenset({"llama", "mistral", "qwen2", "qwen3"})


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


class LlamaDecoder:
    """Embedding, layers and final norm; the head is `FrozenLLM`'s."""

    def __init__(self, model: Any, max_context: int) -> None:
        config = model.config
        decoder = model.model
        self.head_dim: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.num_heads: int = config.num_attention_heads
        self.num_kv_heads: int = config.num_key_value_heads
        self.epsilon: float = config.rms_norm_eps
        self.embedding: Tensor = decoder.embed_tokens.weight.detach()
        self.final_norm: Tensor = decoder.norm.weight.detach()
        self.layers = [self._take(layer) for layer in decoder.layers]
        self.cos, self.sin = _rotary_table(decoder.rotary_emb, max_context, self.embedding)

    @staticmethod
    def supports(model: Any) -> bool:
        """Whether this decoder computes what `model` does: no sliding windows, no MLP biases, plain SiLU."""
        config = model.config
        return (
            config.model_type in SUPPORTED_MODEL_TYPES
            and config.hidden_act == "silu"
            and not getattr(config, "mlp_bias", False)
            and getattr(config, "sliding_window", None) is None
        )

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

    def _take(self, layer: Any) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        has_bias = attention.q_proj.bias is not None
        query_norm, key_norm = getattr(attention, "q_norm", None), getattr(attention, "k_norm", None)
        return _Layer(
            input_norm=layer.input_layernorm.weight.detach(),
            qkv=FrozenLinear(
                torch.cat([projection.weight for projection in projections]),
                torch.cat([projection.bias for projection in projections]) if has_bias else None,
            ),
            query_norm=None if query_norm is None else query_norm.weight.detach(),
            key_norm=None if key_norm is None else key_norm.weight.detach(),
            output=FrozenLinear(attention.o_proj.weight, attention.o_proj.bias),
            mlp_norm=layer.post_attention_layernorm.weight.detach(),
            gate_up=FrozenLinear(torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight])),
            down=FrozenLinear(mlp.down_proj.weight),
            shape=AttentionShape(scale=float(attention.scaling)),
        )


def _mlp(layer: _Layer, hidden: Tensor) -> Tensor:
    gate, up = layer.gate_up(hidden).chunk(2, dim=-1)
    return layer.down(F.silu(gate) * up)


def _rotary_table(rotary: Any, max_context: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines (max_context, 1, head_dim); the sines carry the sign that rotating half of a head asks for."""
    positions = torch.arange(max_context, device=like.device)[None]
    cos, sin = rotary(like[:1], positions)
    half = sin.shape[-1] // 2
    signed = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)
    return cos[0, :, None].to(like.dtype).contiguous(), signed[0, :, None].to(like.dtype).contiguous()

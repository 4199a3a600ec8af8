"""The weights of a Llama-like decoder as both of our decoders take them: projections that share an input are joined."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SUPPORTED_MODEL_TYPES = frozenset({"llama", "mistral", "qwen2", "qwen3"})


def is_plain_llama(model: Any) -> bool:
    """Whether `model` of transformers computes what our decoders do: no sliding windows, no MLP biases, plain SiLU."""
    config = model.config
    return (
        config.model_type in SUPPORTED_MODEL_TYPES
        and config.hidden_act == "silu"
        and not getattr(config, "mlp_bias", False)
        and getattr(config, "sliding_window", None) is None
    )


def head_dim(model: Any) -> int:
    """Width of an attention head."""
    config = model.config
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


@dataclass(frozen=True, slots=True)
class Projection:
    """A weight (num_outputs, num_inputs) and its bias."""

    weight: Tensor
    bias: Tensor | None = None


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One layer's."""

    input_norm: Tensor
    qkv: Projection
    query_norm: Tensor | None
    key_norm: Tensor | None
    output: Projection
    mlp_norm: Tensor
    gate_up: Projection
    """All gates, then all ups."""

    down: Projection
    scale: float
    """Of attention scores."""

    @staticmethod
    def of(layer: Any) -> "LayerWeights":
        """Out of a layer of transformers."""
        attention, mlp = layer.self_attn, layer.mlp
        query_norm, key_norm = getattr(attention, "q_norm", None), getattr(attention, "k_norm", None)
        return LayerWeights(
            input_norm=layer.input_layernorm.weight.detach(),
            qkv=_joined(attention.q_proj, attention.k_proj, attention.v_proj),
            query_norm=None if query_norm is None else query_norm.weight.detach(),
            key_norm=None if key_norm is None else key_norm.weight.detach(),
            output=_joined(attention.o_proj),
            mlp_norm=layer.post_attention_layernorm.weight.detach(),
            gate_up=_joined(mlp.gate_proj, mlp.up_proj),
            down=_joined(mlp.down_proj),
            scale=float(attention.scaling),
        )


def rotary_table(rotary: Any, max_context: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines (max_context, head_dim); the sines carry the sign that rotating half of a head asks for."""
    positions = torch.arange(max_context, device=like.device)[None]
    cos, sin = rotary(like[:1], positions)
    half = sin.shape[-1] // 2
    signed = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)
    return cos[0].to(like.dtype).contiguous(), signed[0].to(like.dtype).contiguous()


def _joined(*projections: Any) -> Projection:
    if len(projections) == 1:
        only = projections[0]
        return Projection(only.weight.detach(), None if only.bias is None else only.bias.detach())
    weight = torch.cat([each.weight.detach() for each in projections])
    has_bias = projections[0].bias is not None
    return Projection(weight, torch.cat([each.bias.detach() for each in projections]) if has_bias else None)

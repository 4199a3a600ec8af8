"""What binds a proxy to an LLM and what a request must know of it, apart from the weights at work.

An engine that runs the LLM in other processes serves under this; `FrozenLLM` is it and the weights.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import torch

from proxy_model.errors import ModelUnavailable
from proxy_model.llm.tokenizer import ChatTokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMIdentity:
    """A causal LM's name, tokenizer, sizes and fingerprint."""

    name: str
    tokenizer: ChatTokenizer
    fingerprint: dict[str, str | int | float]
    vocab_size: int
    hidden_size: int
    max_context: int
    end_token_ids: frozenset[int]
    """Every token that ends an answer."""


@dataclass(frozen=True, slots=True)
class OpenedLLM:
    """A model and a tokenizer as transformers loads them, on the CPU."""

    model: Any
    tokenizer: Any
    name: str
    folder_or_id: str
    """Where they came from, see `ResolvedLLM`."""


def open_llm(source: str, dtype: torch.dtype) -> OpenedLLM:
    """Load the embedded default, a hub id, a local folder or a GGUF file. Raises `ModelUnavailable`."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from proxy_model.llm.source import resolve_llm

    resolved = resolve_llm(source)
    try:
        tokenizer = AutoTokenizer.from_pretrained(resolved.folder_or_id)
        model: Any = AutoModelForCausalLM.from_pretrained(resolved.folder_or_id, dtype=dtype, use_safetensors=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelUnavailable(f"{source} cannot be loaded: {error}") from error
    return OpenedLLM(model, tokenizer, resolved.name, resolved.folder_or_id)


def open_tokenizer(source: str) -> tuple[ChatTokenizer, int]:
    """The tokenizer of what `open_llm` loads, and the most tokens that the LLM reads, without its weights.

    Raises `ModelUnavailable`.
    """
    from transformers import AutoConfig, AutoTokenizer

    from proxy_model.llm.source import resolve_llm

    folder_or_id = resolve_llm(source).folder_or_id
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder_or_id)
        config = AutoConfig.from_pretrained(folder_or_id)
    except (OSError, ValueError, KeyError) as error:
        raise ModelUnavailable(f"{source} cannot be loaded: {error}") from error
    return ChatTokenizer(tokenizer), _max_context(config.get_text_config())


def identity_of(model: Any, tokenizer: Any, name: str) -> LLMIdentity:
    """Of a model and a tokenizer of transformers."""
    config = model.config.get_text_config()
    chat = ChatTokenizer(tokenizer)
    return LLMIdentity(
        name=name,
        tokenizer=chat,
        fingerprint=fingerprint_of(model, chat),
        vocab_size=model.get_output_embeddings().weight.shape[0],
        hidden_size=config.hidden_size,
        max_context=_max_context(config),
        end_token_ids=_end_token_ids(model, tokenizer),
    )


def _max_context(config: Any) -> int:
    """In tokens, of a text model's configuration."""
    return getattr(config, "max_position_embeddings", None) or 2048


def _end_token_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every token that ends an answer, by the generation config, the model's config and the tokenizer."""
    found: set[int] = set()
    for value in (model.generation_config.eos_token_id, model.config.eos_token_id, tokenizer.eos_token_id):
        if value is not None:
            found.update([value] if isinstance(value, int) else value)
    return frozenset(found)


def fingerprint_of(model: Any, tokenizer: ChatTokenizer) -> dict[str, str | int | float]:
    """What binds a proxy to this LLM (METHOD: identity of weights, tokenizer and template; width and tap)."""
    config = {
        key: value
        for key, value in model.config.get_text_config().to_dict().items()
        if isinstance(value, int | float | str | bool)
        and not key.startswith(("_", "transformers", "torch_dtype", "dtype", "use_cache", "output_", "return_"))
    }
    return {
        "llm_architecture": type(model).__name__,
        "llm_config": hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16],
        "llm_weights": _weights_digest(model),
        "llm_dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "tokenizer": tokenizer.digest,
        "chat_template": hashlib.sha256(tokenizer.chat_template.encode()).hexdigest()[:16],
        "hidden_size": model.config.get_text_config().hidden_size,
        "tap": "last",
    }


def _weights_digest(model: Any) -> str:
    """A hash over a sample of every weight, rounded so that it is one for float32, bfloat16 and float16 copies."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        sample = parameter.detach().flatten()[:: max(1, parameter.numel() // 64)][:64]
        digest.update(name.encode())
        digest.update(sample.to("cpu", torch.bfloat16).view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]

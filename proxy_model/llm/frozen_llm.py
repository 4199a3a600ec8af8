"""The frozen LLM: a packed step in, hidden states and logits out. Its weights never change."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from proxy_model.errors import InvalidParameter
from proxy_model.llm.attention import Chunk, PackedStep
from proxy_model.llm.identity import identity_of, open_llm
from proxy_model.llm.kv_cache import KVCache
from proxy_model.llm.linear import FrozenLinear
from proxy_model.llm.llama_decoder import LlamaDecoder
from proxy_model.llm.llama_weights import is_plain_llama
from proxy_model.llm.native_decoder import NativeLlamaDecoder
from proxy_model.llm.native_linear import PackedLinear
from proxy_model.llm.transformers_decoder import TransformersDecoder

_ROWS_PER_READ = 2048
"""Texts that are only read go through the LLM in packs of about this many tokens."""


DecoderKind = Literal["native", "torch", "transformers"]
"""Who computes a pass: compiled kernels, our decoder in torch, or transformers' own code of the architecture."""


class FrozenLLM:
    """A causal LM of transformers as the decode loop sees it."""

    def __init__(self, model: Any, tokenizer: Any, name: str, *, decoder: DecoderKind | None = None) -> None:
        """`decoder` None: the fastest that can."""
        model = model.eval().requires_grad_(False)
        self.name = name
        identity = identity_of(model, tokenizer, name)
        self.max_context = identity.max_context
        self.hidden_size = identity.hidden_size
        self.end_token_ids = identity.end_token_ids
        self.fingerprint = identity.fingerprint
        self.tokenizer = identity.tokenizer
        config = model.config.get_text_config()
        self.num_layers: int = config.num_hidden_layers
        self._softcap: float | None = getattr(config, "final_logit_softcapping", None)
        head = model.get_output_embeddings()
        linear = PackedLinear if PackedLinear.supports(head.weight) else FrozenLinear
        self._head: PackedLinear | FrozenLinear = linear(head.weight, head.bias)
        self.vocab_size: int = self._head.num_outputs
        self.num_parameters = sum(parameter.numel() for parameter in model.parameters())
        self.bytes_per_pass = _bytes_per_pass(model)
        self.decoder_kind = decoder or fastest_decoder(model)
        self._decoder = _decoder(self.decoder_kind, model, self.max_context)
        self.embedding: Tensor = self._decoder.embedding
        self.dtype: torch.dtype = self.embedding.dtype
        self.device: torch.device = self.embedding.device

    @property
    def has_independent_rows(self) -> bool:
        """Whether a pass gives a token the same numbers, to the bit, whatever other rows it has.

        So with compiled kernels. torch sums a chunk in another order than single tokens.
        """
        return self.decoder_kind == "native"

    def new_cache(self, num_slots: int, capacity: int) -> KVCache:
        """Room for `num_slots` sequences of `capacity` tokens."""
        return KVCache(self.num_layers, num_slots, capacity)

    @torch.no_grad()
    def advance(self, step: PackedStep) -> Tensor:
        """One pass over the step's tokens; returns h (N, D), the states after the final norm."""
        return self._decoder.forward(step)[0]

    @torch.no_grad()
    def tapped(self, step: PackedStep, taps: Sequence[int]) -> Tensor:
        """A pass up to the highest layer of `taps`: (N, len(taps), D) float32; the cache gets those layers only."""
        return torch.stack(self._decoder.forward(step, tuple(taps))[1], dim=1).float()

    @torch.no_grad()
    def logits(self, hidden: Tensor) -> Tensor:
        """Unscaled float32 logits (R, V) of states `hidden` (R, D)."""
        logits = self._head(hidden).float()
        return logits if self._softcap is None else torch.tanh(logits / self._softcap) * self._softcap

    def hidden_states(self, sequences: Sequence[Sequence[int]], taps: Sequence[int]) -> list[Tensor]:
        """Read whole texts: one (T_i, len(taps), D) float32 each; tap `num_layers` is after the final norm."""
        if not all(1 <= tap <= self.num_layers for tap in taps):
            raise InvalidParameter("taps", list(taps), f"layer numbers in [1, {self.num_layers}]")
        found: list[Tensor] = []
        for pack in _packs(sequences):
            _, tapped = self._read(pack, tuple(taps))
            stacked = torch.stack(tapped, dim=1).float()  # (N, len(taps), D)
            found.extend(stacked.split([len(sequence) for sequence in pack]))
        return found

    def final_states(self, sequences: Sequence[Sequence[int]]) -> list[Tensor]:
        """Read whole texts: one (T_i, D) each, after the final norm, in the LLM's own dtype."""
        states = [self._read(pack, ())[0].split([len(sequence) for sequence in pack]) for pack in _packs(sequences)]
        return [each for pack in states for each in pack]

    def token_logprobs(self, sequences: Sequence[Sequence[int]], num_prompt: Sequence[int]) -> list[Tensor]:
        """Natural log-probabilities (T_i - num_prompt_i,) of each text's tokens after its prompt, at temperature 1."""
        found: list[Tensor] = []
        done = 0
        for pack in _packs(sequences):
            hidden = self._read(pack, ())[0].split([len(sequence) for sequence in pack])
            for sequence, states in zip(pack, hidden, strict=True):
                start = num_prompt[done]
                logprobs = self.logits(states[start - 1 : -1]).log_softmax(-1)
                targets = torch.tensor(sequence[start:], device=self.device)
                found.append(logprobs.gather(1, targets[:, None])[:, 0])
                done += 1
        return found

    @torch.no_grad()
    def _read(self, pack: Sequence[Sequence[int]], taps: tuple[int, ...]) -> tuple[Tensor, list[Tensor]]:
        chunks, start = [], 0
        for sequence in pack:
            chunks.append(Chunk(start, len(sequence)))
            start += len(sequence)
        step = PackedStep(
            tokens=torch.tensor([token for sequence in pack for token in sequence], device=self.device),
            positions=torch.cat([torch.arange(len(sequence)) for sequence in pack]).to(self.device),
            slots=torch.zeros(start, dtype=torch.long, device=self.device),
            chunks=tuple(chunks),
        )
        return self._decoder.forward(step, taps)


def fastest_decoder(model: Any) -> DecoderKind:
    """The fastest that computes what `model` of transformers does, on the device that it is on."""
    if NativeLlamaDecoder.supports(model):
        return "native"
    return "torch" if is_plain_llama(model) else "transformers"


def _decoder(
    kind: DecoderKind, model: Any, max_context: int
) -> NativeLlamaDecoder | LlamaDecoder | TransformersDecoder:
    if kind == "native":
        return NativeLlamaDecoder(model, max_context)
    return LlamaDecoder(model, max_context) if kind == "torch" else TransformersDecoder(model)


def load_llm(source: str, *, dtype: str = "auto", device: str = "auto", name: str | None = None) -> FrozenLLM:
    """Load the embedded default, a hub id, a local folder or a GGUF file.

    `dtype` is `auto`, `bfloat16`, `float16` or `float32`; `device` is `auto`, `cpu`, `cuda` or `cuda:N`. Raises
    `ModelUnavailable` or `InvalidParameter`.
    """
    torch_device = _device(device)
    opened = open_llm(source, resolve_dtype(dtype, torch_device))
    opened.model.to(torch_device)
    return FrozenLLM(opened.model, opened.tokenizer, name or opened.name)


def _device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.split(":")[0] not in ("cpu", "cuda"):
        raise InvalidParameter("device", device, "'auto', 'cpu', 'cuda' or 'cuda:N'")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InvalidParameter("device", device, "'cpu' on a machine without CUDA")
    return torch.device(device)


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """`auto`: bfloat16 on CUDA and on CPUs that multiply it natively, else float32."""
    names = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
    if dtype == "auto":
        is_native = device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return torch.bfloat16 if is_native else torch.float32
    if dtype not in names:
        raise InvalidParameter("dtype", dtype, f"'auto' or one of {sorted(names)}")
    return names[dtype]


def _bytes_per_pass(model: Any) -> int:
    """Of weights that any pass reads: all of them, but of an embedding that is not the head's, too, only some rows."""
    embedding = model.get_input_embeddings().weight
    is_tied = embedding is model.get_output_embeddings().weight
    total = sum(parameter.nbytes for parameter in model.parameters())
    return int(total if is_tied else total - embedding.nbytes)


def _packs(sequences: Sequence[Sequence[int]]) -> list[list[Sequence[int]]]:
    """Consecutive texts, joined up to `_ROWS_PER_READ` tokens."""
    packs: list[list[Sequence[int]]] = [[]]
    size = 0
    for sequence in sequences:
        if packs[-1] and size + len(sequence) > _ROWS_PER_READ:
            packs.append([])
            size = 0
        packs[-1].append(sequence)
        size += len(sequence)
    return [pack for pack in packs if pack]

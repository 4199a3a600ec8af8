"""`LlamaDecoder` in compiled code: the same weights, laid out for `llama.c`, and the same steps."""

from ctypes import Array, c_double, c_void_p
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from proxy_model.llm.attention import PackedStep
from proxy_model.llm.kv_cache import KVCache
from proxy_model.llm.llama_weights import LayerWeights, Projection, head_dim, is_plain_llama, rotary_table
from proxy_model.llm.native_linear import PANEL, PackedLinear
from proxy_model.native.library import CLayer, CModel, CStep, kernels, load_kernels

GATES = 16

MOST_HEAD_DIM = 256
"""`attention.h`'s."""


class NativeLlamaDecoder:
    """Embedding, layers and final norm; the head is `FrozenLLM`'s."""

    seconds: "Array[c_double] | None" = None
    """Where the time of each of `library.PARTS` is to be added up; None: nowhere."""

    def __init__(self, model: Any, max_context: int) -> None:
        """`model` of transformers as `supports` says."""
        config, decoder = model.config, model.model
        self._kernels = kernels()
        self._kept: list[Tensor | PackedLinear] = []
        self._caches: WeakKeyDictionary[KVCache, tuple[Array[c_void_p], Array[c_void_p]]] = WeakKeyDictionary()
        self.embedding: Tensor = decoder.embed_tokens.weight.detach()
        self._head_dim = head_dim(model)
        self._num_kv_heads: int = config.num_key_value_heads
        self._layers = (CLayer * len(decoder.layers))(*(self._layer(LayerWeights.of(each)) for each in decoder.layers))
        cos, sin = rotary_table(decoder.rotary_emb, max_context, self.embedding)
        self._model = CModel(
            num_layers=len(self._layers),
            hidden_size=config.hidden_size,
            num_heads=config.num_attention_heads,
            num_kv_heads=self._num_kv_heads,
            head_dim=self._head_dim,
            intermediate_size=config.intermediate_size,
            vocab_size=len(self.embedding),
            max_context=len(cos),
            epsilon=config.rms_norm_eps,
            embedding=self._keep(self.embedding),
            final_norm=self._keep(decoder.norm.weight),
            cos=self._keep(cos),
            sin=self._keep(sin),
            layers=self._layers,
        )

    @staticmethod
    def supports(model: Any) -> bool:
        """Whether the kernels are there and take a model of this kind, dtype and shape."""
        config, embedding = model.config, model.get_input_embeddings().weight
        is_native = embedding.device.type == "cpu" and embedding.dtype == torch.bfloat16
        if not is_native or not is_plain_llama(model) or load_kernels() is None:
            return False
        width = (config.num_attention_heads + 2 * config.num_key_value_heads) * head_dim(model)
        is_whole = all(size % PANEL == 0 for size in (config.hidden_size, width, 2 * config.intermediate_size))
        return is_whole and head_dim(model) % 32 == 0 and head_dim(model) <= MOST_HEAD_DIM

    def forward(self, step: PackedStep, taps: tuple[int, ...] = ()) -> tuple[Tensor, list[Tensor]]:
        """As `LlamaDecoder.forward`."""
        num_layers = max(taps, default=len(self._layers))
        hidden = torch.empty(len(step.tokens), self.embedding.shape[1], dtype=torch.bfloat16)
        tapped = {tap: hidden if tap == num_layers else torch.empty_like(hidden) for tap in taps}
        num_siblings = 0 if step.branches is None else step.branches.num_siblings
        siblings = hidden.new_empty(2, num_layers, num_siblings, self._num_kv_heads, self._head_dim)
        tokens, positions, slots = (each.contiguous() for each in (step.tokens, step.positions, step.slots))
        begins, places = self._whole_texts(step) if step.cache is None else (None, positions)
        cache = step.cache or self._scratch(len(step.tokens))
        keys, values = self._addresses(cache)
        c_step = CStep(
            num_rows=len(step.tokens),
            num_layers=num_layers,
            tokens=tokens.data_ptr(),
            positions=positions.data_ptr(),
            slots=slots.data_ptr(),
            places=places.data_ptr(),
            begins=None if begins is None else begins.data_ptr(),
            num_slots=cache.num_slots,
            capacity=cache.capacity,
            keys=keys,
            values=values,
            first_sibling=step.num_decode,
            num_siblings=num_siblings,
            sibling_keys=siblings[0].data_ptr(),
            sibling_values=siblings[1].data_ptr(),
            taps=self._tap_addresses(tapped, num_layers),
            hidden=hidden.data_ptr(),
            seconds=self.seconds,
        )
        self._kernels.llama_step(self._model, c_step, torch.get_num_threads())
        if step.branches is not None and num_siblings:
            for layer in range(num_layers):
                step.branches.keep(layer, siblings[0, layer], siblings[1, layer])
        return hidden, [tapped[tap] for tap in taps]

    def _scratch(self, num_rows: int) -> KVCache:
        """Room for the keys and values of rows that are only read: one layer's, which all layers use in turn."""
        cache = KVCache(1, 1, num_rows)
        cache.reserve(self._num_kv_heads, self._head_dim, torch.bfloat16)
        return cache

    def _addresses(self, cache: KVCache) -> tuple[Array[c_void_p], Array[c_void_p]]:
        """Where each layer's keys and values are."""
        found = self._caches.get(cache)
        if found is None:
            cache.reserve(self._num_kv_heads, self._head_dim, torch.bfloat16)
            layers = [cache.layer(layer % cache.num_layers) for layer in range(len(self._layers))]
            kind = c_void_p * len(layers)
            found = kind(*(keys.data_ptr() for keys, _ in layers)), kind(*(values.data_ptr() for _, values in layers))
            self._caches[cache] = found
        return found

    @staticmethod
    def _whole_texts(step: PackedStep) -> tuple[Tensor, Tensor]:
        """First places that the rows look at, and their own, where every chunk is a text on its own."""
        begins = torch.tensor([chunk.start for chunk in step.chunks])
        counts = torch.tensor([chunk.num_rows for chunk in step.chunks])
        return begins.repeat_interleave(counts), torch.arange(len(step.tokens))

    @staticmethod
    def _tap_addresses(tapped: dict[int, Tensor], num_layers: int) -> Array[c_void_p] | None:
        """Where the outputs of layers below the last go."""
        if not tapped:
            return None
        addresses = (c_void_p * num_layers)()
        for tap, states in tapped.items():
            if tap < num_layers:
                addresses[tap - 1] = states.data_ptr()
        return addresses

    def _layer(self, weights: LayerWeights) -> CLayer:
        gates, ups = weights.gate_up.weight.unflatten(0, (2, -1, GATES))
        gate_up = Projection(torch.stack([gates, ups], dim=1).flatten(0, 2))
        packed = [self._pack(each) for each in (weights.qkv, weights.output, gate_up, weights.down)]
        norms = (weights.input_norm, weights.mlp_norm, weights.query_norm, weights.key_norm)
        return CLayer(*map(self._keep, norms), *(each.c for each in packed), weights.scale)

    def _pack(self, projection: Projection) -> PackedLinear:
        packed = PackedLinear(projection.weight, projection.bias)
        self._kept.append(packed)
        return packed

    def _keep(self, tensor: Tensor | None) -> int | None:
        """The address of a tensor that lives as long as the decoder."""
        if tensor is None:
            return None
        kept = tensor.detach().contiguous()
        self._kept.append(kept)
        return kept.data_ptr()

"""Starts vLLM with the proxies in its workers, or says why that cannot work."""

import gc
import importlib.util
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.errors import InvalidParameter, ModelUnavailable
from proxy_model.llm.frozen_llm import resolve_dtype
from proxy_model.llm.identity import LLMIdentity, identity_of, open_llm
from proxy_model.ranges import TOP_LOGPROBS
from vllm_plugin.lifeline import leave_name
from vllm_plugin.report import MAX_VOCABULARY, max_pairs
from vllm_plugin.setup import WorkerSetup

SUPPORTED = "0.32.0"
"""The plugin stands on this version's insides; see `vllm_plugin.host`."""

_ENVIRONMENT = {
    "VLLM_USE_V2_MODEL_RUNNER": "0",  # V2 has other insides, which the plugin does not know
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}
_DEFAULT_ENVIRONMENT = {
    "VLLM_CONFIGURE_LOGGING": "0",  # its lines go where ours go
    "VLLM_LOGGING_LEVEL": "ERROR",
}
_REFUSED = {
    "speculative_config": "a token must be decided before the next is drafted",
    "pipeline_parallel_size": "only the last stage has the states that proxies read",
    "data_parallel_size": "run replicas behind a load balancer instead",
    "enable_batch_sharded_sampling": "proxies decide whole rows",
    "logits_processors": "requests are processed as the other engine does it",
}
_OWN = (
    "model",
    "tokenizer",
    "skip_tokenizer_init",
    "dtype",
    "max_model_len",
    "max_num_seqs",
    "max_logprobs",
    "worker_extension_cls",
    "async_scheduling",
    "generation_config",
    "disable_log_stats",
)
_BLOCK_TOKENS = 256
"""At least as much as vLLM rounds a sequence's cache up to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmSettings:
    """What to run, and how large."""

    model: str
    dtype: str = "auto"
    device: str = "auto"
    threads: int | None = None
    """Of the worker on a CPU; None: vLLM's own choice."""

    sizes: EngineConfig
    options: Mapping[str, Any]
    """More of vLLM's engine arguments, by their names in Python."""


@dataclass(frozen=True, slots=True)
class OpenedModel:
    """What the server needs to know of the LLM before vLLM has it."""

    identity: LLMIdentity
    folder: str
    arguments: dict[str, Any]
    """vLLM's engine arguments."""

    setup: dict[str, Any]
    """`WorkerSetup` as JSON."""

    max_context: int


def require_vllm(threads: int | None) -> None:
    """Import vLLM under our environment. Raises `InvalidParameter` unless the supported version is installed."""
    needed = f"'local' unless vLLM {SUPPORTED} is installed beside the server"
    if importlib.util.find_spec("vllm") is None:
        raise InvalidParameter("engine", "vllm", f"{needed} (it is not; see docs/vllm.md)")
    prepare_environment(threads)
    import vllm

    if vllm.__version__.partition("+")[0] != SUPPORTED:
        raise InvalidParameter("engine", "vllm", f"{needed} (this is {vllm.__version__}; see docs/vllm.md)")


def open_model(settings: VllmSettings) -> OpenedModel:
    """Load the LLM once to know its identity, and let go of its weights. Raises `ModelUnavailable`."""
    device = _device(settings.device)
    dtype = resolve_dtype(settings.dtype, device)
    opened = open_llm(settings.model, dtype)
    identity = identity_of(opened.model, opened.tokenizer, opened.name)
    cache_bytes = _cache_bytes(opened.model.config.get_text_config(), settings.sizes, dtype)
    folder = opened.folder_or_id
    del opened
    gc.collect()
    if identity.vocab_size >= MAX_VOCABULARY:
        raise ModelUnavailable(f"{settings.model} has a vocabulary of {identity.vocab_size}, too large for this engine")
    max_context = min(settings.sizes.max_context, identity.max_context)
    arguments = _arguments(settings, folder, dtype, max_context)
    arguments = {"enable_prefix_caching": settings.sizes.prefix_cache_tokens > 0} | arguments
    if device.type == "cpu":
        arguments = {"kv_cache_memory_bytes": cache_bytes} | arguments
    setup = WorkerSetup(
        folder=folder,
        fingerprint=identity.fingerprint,
        vocab_size=identity.vocab_size,
        end_token_ids=sorted(identity.end_token_ids),
        max_candidates=settings.sizes.max_candidates,
    )
    return OpenedModel(identity, folder, arguments, asdict(setup), max_context)


def launch(arguments: Mapping[str, Any], stat_logger: Any) -> Any:
    """Start vLLM's processes; returns its `AsyncLLM`. Raises `InvalidParameter`, `ModelUnavailable`."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    try:
        engine_arguments = AsyncEngineArgs(**arguments)
    except TypeError as error:
        raise InvalidParameter("vllm_args", str(error), "names of vLLM's engine arguments") from error
    try:
        return AsyncLLM.from_engine_args(engine_arguments, stat_loggers=[stat_logger])
    except (ValueError, RuntimeError) as error:
        raise ModelUnavailable(f"vLLM does not start: {error}") from error


def generate(engine: Any, request_id: str, prompt: Mapping[str, Any], fields: Mapping[str, Any]) -> Any:
    """Hand a request to an `AsyncLLM`: an iterator of what is new of its answer. Closing it aborts the request."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    params = SamplingParams(output_kind=RequestOutputKind.DELTA, **fields)
    return engine.generate(prompt, params, request_id)


def check_options(options: Mapping[str, Any]) -> None:
    """Raises `InvalidParameter` for what the server sets itself and for what does not combine with proxies."""
    for name, value in options.items():
        if name in _OWN:
            raise InvalidParameter("vllm_args", name, f"without what the server sets itself ({', '.join(_OWN)})")
        if name in _REFUSED and value not in (None, 1, False):
            raise InvalidParameter("vllm_args", name, f"without it: {_REFUSED[name]}")


def prepare_environment(threads: int | None) -> None:
    """Before vLLM is imported."""
    leave_name()
    os.environ.update(_ENVIRONMENT)
    for name, value in _DEFAULT_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"])
    if threads is not None:
        os.environ |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(threads)}


def _arguments(settings: VllmSettings, folder: str, dtype: torch.dtype, max_context: int) -> dict[str, Any]:
    own: dict[str, Any] = {
        "model": folder,
        "skip_tokenizer_init": True,
        "dtype": str(dtype).removeprefix("torch."),
        "max_model_len": max_context,
        "max_num_seqs": settings.sizes.max_running,
        "max_logprobs": max_pairs(settings.sizes.max_candidates, int(TOP_LOGPROBS.high)),
        "worker_extension_cls": "vllm_plugin.worker.ProxyWorker",
        "async_scheduling": False,
        "generation_config": "vllm",
        "disable_log_stats": True,
    }
    return {**settings.options, **own}


def _device(asked: str) -> torch.device:
    """vLLM's build decides; another one cannot be asked for."""
    found = "cuda" if torch.cuda.is_available() else "cpu"
    if asked not in ("auto", found):
        raise InvalidParameter("device", asked, f"'auto' or {found!r} with this build of vLLM")
    return torch.device(found)


def _cache_bytes(config: Any, sizes: EngineConfig, dtype: torch.dtype) -> int:
    """Keys and values of `max_running` sequences as long as they may get, as the other engine takes them."""
    num_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    of_token: int = 2 * config.num_hidden_layers * num_heads * head_dim * dtype.itemsize
    return of_token * sizes.max_running * (sizes.max_context + _BLOCK_TOKENS)

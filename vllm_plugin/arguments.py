"""A request as JSON in vLLM's `SamplingParams.extra_args`: flat scalars and lists, the proxy by name and version."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from proxy_model.decision.bank import ProxyRef
from proxy_model.decoding.grammar import GrammarSpec
from proxy_model.decoding.request import GenerationRequest, SamplingParams

_DEFAULTS = {field.name: field.default for field in fields(SamplingParams)}


def to_arguments(request: GenerationRequest) -> dict[str, Any]:
    """Everything of `request` but its id and its prompt; what has its default is left out."""
    params: dict[str, Any] = {}
    for name, default in _DEFAULTS.items():
        value = getattr(request.params, name)
        if value != default:
            params[name] = _to_json(value)
    proxy = request.proxy
    return {"params": params} | ({} if proxy is None else {"proxy": [proxy.name, proxy.version]})


def from_arguments(
    arguments: Mapping[str, Any], *, request_id: str, prompt_token_ids: Sequence[int]
) -> GenerationRequest:
    """The request again. Raises `InvalidParameter`."""
    proxy = arguments.get("proxy")
    params = {name: _from_json(name, value) for name, value in arguments["params"].items()}
    return GenerationRequest(
        id=request_id,
        prompt_token_ids=tuple(prompt_token_ids),
        params=SamplingParams(**params),
        proxy=None if proxy is None else ProxyRef(name=proxy[0], version=proxy[1]),
    )


def _to_json(value: Any) -> Any:
    if isinstance(value, GrammarSpec):
        return [value.kind, value.text]
    return [_to_json(each) for each in value] if isinstance(value, tuple) else value


def _from_json(name: str, value: Any) -> Any:
    match name:
        case "stop" | "stop_token_ids":
            return tuple(value)
        case "logit_bias":
            return tuple((token, bias) for token, bias in value)
        case "grammar":
            return GrammarSpec(*value)
    return value

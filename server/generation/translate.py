"""From OpenAI's fields to token ids and flat scalars: what each field means to the engine."""

from collections.abc import Sequence
from dataclasses import replace

from proxy_model.decision.bank import ProxyRef
from proxy_model.decoding.request import GenerationRequest, SamplingParams
from server.backends.protocol import Capability
from server.errors import ApiError, invalid
from server.exchange import current
from server.generation.order import Order, Prompt
from server.schemas.generation import GenerationBody, ProxyOptions
from server.service import Serving
from server.validation import out_of_range

_TINY_TOP_P = 1e-6
"""OpenAI allows a top_p of 0, which can only mean the likeliest token."""

_GOLDEN = 0x9E3779B97F4A7C15


def check(body: GenerationBody, capabilities: frozenset[Capability], max_choices: int) -> None:
    """Refuse what no single range can: fields that contradict each other or this engine. Raises `ApiError` 400."""
    if body.stream_options is not None and not body.stream:
        raise invalid(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.", param="stream_options"
        )
    if (body.n or 1) > max_choices:
        raise out_of_range("n", body.n or 1, "<=", max_choices)
    _check_bias(body)
    if body.proxy is not None and body.proxy.return_decisions and "decisions" not in capabilities:
        message = "Invalid value for 'proxy.return_decisions': this engine does not tell its decisions."
        raise invalid(message, param="proxy.return_decisions", code="unsupported_value")
    if body.proxy is not None and body.proxy.target_return is not None and "target_return" not in capabilities:
        raise _not_conditioned()


def engine_requests(
    order: Order, run_id: str, prompts: Sequence[Prompt], proxy: ProxyRef | None, serving: Serving
) -> list[GenerationRequest]:
    """One request per choice, prompt by prompt. Raises `InvalidParameter`, `ApiError` 400."""
    max_context = serving.llm.max_context
    target_return = _target_return(order.body, proxy, serving)
    exchange = current()
    return [
        GenerationRequest(
            id=f"{run_id}-{number * order.num_choices + index}",
            prompt_token_ids=prompt.token_ids,
            params=replace(
                _params(order, max(1, max_context - len(prompt.token_ids)), _seed_of_choice(order.body.seed, index)),
                target_return=target_return,
            ),
            proxy=proxy,
            prediction_token_ids=prompt.prediction[:max_context],
            prefix_scope="" if exchange is None else exchange.holder,
        )
        for number, prompt in enumerate(prompts)
        for index in range(order.num_choices)
    ]


def _params(order: Order, room: int, seed: int | None) -> SamplingParams:
    body = order.body
    proxy = body.proxy or ProxyOptions()
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    return SamplingParams(
        max_tokens=room if order.max_tokens is None else order.max_tokens,
        temperature=body.temperature or 0.0,
        top_p=1.0 if body.top_p is None else max(body.top_p, _TINY_TOP_P),
        seed=seed,
        stop=stop,
        stop_token_ids=tuple(body.stop_token_ids or ()),
        ignore_eos=body.ignore_eos,
        min_tokens=body.min_tokens,
        logit_bias=tuple({int(token): bias for token, bias in (body.logit_bias or {}).items()}.items()),
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        repetition_penalty=1.0 if body.repetition_penalty is None else body.repetition_penalty,
        top_k=body.top_k if (body.top_k or 0) > 0 else None,
        min_p=body.min_p or 0.0,
        grammar=None if order.form is None else order.form.grammar,
        top_logprobs=order.top_logprobs,
        prompt_logprobs=order.prompt_logprobs,
        p_t=proxy.p_t,
        skam_temperature=proxy.temperature,
        skam_top_p=proxy.top_p,
        decision=proxy.decision or "greedy",
        return_decisions=proxy.return_decisions,
    )


def _target_return(body: GenerationBody, proxy: ProxyRef | None, serving: Serving) -> float | None:
    """What the proxy is told: what the request says, else where its dial stands; None where it has none."""
    asked = None if body.proxy is None else body.proxy.target_return
    dial = None if proxy is None else serving.reloader.trained[proxy].policy
    if asked is not None and (dial is None or not dial.is_conditioned):
        raise _not_conditioned()
    return None if dial is None else dial.target_return(asked)


def _not_conditioned() -> ApiError:
    message = "Invalid value for 'proxy.target_return': this model's proxy is not conditioned on a return."
    return invalid(message, param="proxy.target_return", code="unsupported_value")


def _seed_of_choice(seed: int | None, index: int) -> int | None:
    """The first choice has the seed itself, so that it is the answer to `n` = 1; the others are far from it."""
    if seed is None:
        return None
    return ((seed + index * _GOLDEN + (1 << 63)) % (1 << 64)) - (1 << 63)


def _check_bias(body: GenerationBody) -> None:
    for key in body.logit_bias or {}:
        if not (key.isascii() and key.isdecimal() and len(key) < 10):
            message = f"Invalid key in 'logit_bias': {key[:64]}. You should only be submitting non-negative integers."
            raise invalid(message, param="logit_bias")

"""From OpenAI's fields to token ids and flat scalars: what each field means to the engine."""

from proxy_model.bank import ProxyRef
from proxy_model.request import GenerationRequest, SamplingParams
from server.backends.protocol import Capability, LLMCard
from server.errors import invalid
from server.schemas.chat_request import ChatRequest, ProxyOptions

_TINY_TOP_P = 1e-6
"""OpenAI allows a top_p of 0, which can only mean the likeliest token."""

_GOLDEN = 0x9E3779B97F4A7C15


def check(chat: ChatRequest, llm: LLMCard, capabilities: frozenset[Capability], max_choices: int) -> None:
    """Refuse what no single range can: fields that contradict each other or this engine. Raises `ApiError` 400."""
    if chat.stream_options is not None and not chat.stream:
        raise invalid(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.", param="stream_options"
        )
    if chat.top_logprobs and not chat.logprobs:
        raise invalid("The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.", param="top_logprobs")
    if (chat.n or 1) > max_choices:
        message = f"Invalid value for 'n': must be at most {max_choices}."
        raise invalid(message, param="n", code="integer_above_max_value")
    both = (chat.max_tokens, chat.max_completion_tokens)
    if None not in both and both[0] != both[1]:
        raise invalid("Set 'max_completion_tokens' or 'max_tokens', not both.", param="max_tokens")
    _check_token_ids(chat, llm.vocab_size)
    if chat.proxy is not None and chat.proxy.target_return is not None and "target_return" not in capabilities:
        message = "Invalid value for 'proxy.target_return': this model's proxy is not conditioned on a return."
        raise invalid(message, param="proxy.target_return", code="unsupported_value")


def engine_requests(
    chat: ChatRequest, answer_id: str, prompt: tuple[int, ...], proxy: ProxyRef | None, max_context: int
) -> list[GenerationRequest]:
    """One request per choice. Raises `InvalidParameter`."""
    return [
        GenerationRequest(
            id=f"{answer_id}-{index}",
            prompt_token_ids=prompt,
            params=_params(chat, max(1, max_context - len(prompt)), _seed_of_choice(chat.seed, index)),
            proxy=proxy,
        )
        for index in range(chat.n or 1)
    ]


def _params(chat: ChatRequest, room: int, seed: int | None) -> SamplingParams:
    proxy = chat.proxy or ProxyOptions()
    stop = (chat.stop,) if isinstance(chat.stop, str) else tuple(chat.stop or ())
    return SamplingParams(
        max_tokens=chat.max_completion_tokens or chat.max_tokens or room,
        temperature=chat.temperature or 0.0,
        top_p=1.0 if chat.top_p is None else max(chat.top_p, _TINY_TOP_P),
        seed=seed,
        stop=stop,
        stop_token_ids=tuple(chat.stop_token_ids or ()),
        ignore_eos=chat.ignore_eos,
        min_tokens=chat.min_tokens,
        top_logprobs=(chat.top_logprobs or 0) if chat.logprobs else None,
        p_t=proxy.p_t,
        skam_temperature=proxy.temperature,
        skam_top_p=proxy.top_p,
        decision=proxy.decision or "greedy",
        return_decisions=proxy.return_decisions,
    )


def _seed_of_choice(seed: int | None, index: int) -> int | None:
    """The first choice has the seed itself, so that it is the answer to `n` = 1; the others are far from it."""
    if seed is None:
        return None
    return ((seed + index * _GOLDEN + (1 << 63)) % (1 << 64)) - (1 << 63)


def _check_token_ids(chat: ChatRequest, vocab_size: int) -> None:
    for token in chat.stop_token_ids or ():
        if token >= vocab_size:
            raise invalid(
                f"Invalid value for 'stop_token_ids': {token} is not in the vocabulary.", param="stop_token_ids"
            )
    for key in chat.logit_bias or {}:
        if not (key.isascii() and key.isdecimal() and len(key) < 10 and int(key) < vocab_size):
            message = "Invalid value for 'logit_bias': keys must be token ids in the vocabulary."
            raise invalid(message, param="logit_bias")

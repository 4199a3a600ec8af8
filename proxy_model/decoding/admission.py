"""What a request and a proxy must be to run at all, whichever engine runs them."""

from collections.abc import Sequence

from proxy_model.decision.config import NOT_CONDITIONED, PolicyConfig, SkamConfig
from proxy_model.decoding.request import GenerationRequest
from proxy_model.errors import InvalidParameter, PromptTooLong


def check_fits(request: GenerationRequest, *, vocab_size: int, max_context: int) -> None:
    """Raises `PromptTooLong`, and `InvalidParameter` for an empty prompt or tokens that the LLM does not have."""
    num_prompt, params = len(request.prompt_token_ids), request.params
    if num_prompt < 1:
        raise InvalidParameter("prompt", "", "at least one token")
    if num_prompt + params.max_tokens > max_context:
        raise PromptTooLong(num_prompt, params.max_tokens, max_context)
    _check_tokens("prompt", request.prompt_token_ids, vocab_size)
    _check_tokens("stop_token_ids", params.stop_token_ids, vocab_size)
    _check_tokens("logit_bias", [token for token, _ in params.logit_bias], vocab_size)


def check_target(target_return: float | None, *, is_conditioned: bool) -> None:
    """Only a conditioned proxy can be told what to aim at. Raises `InvalidParameter`."""
    if target_return is not None and not is_conditioned:
        raise InvalidParameter("target_return", target_return, NOT_CONDITIONED)


def check_proxy(policy: PolicyConfig, skam: SkamConfig, *, hidden_size: int, max_candidates: int) -> None:
    """A version must be of the LLM's width and within the engine's slates. Raises `InvalidParameter`."""
    if skam.max_candidates > max_candidates:
        raise InvalidParameter("max_candidates", skam.max_candidates, f"at most {max_candidates}")
    if policy.llm_hidden_size != hidden_size:
        raise InvalidParameter("llm_hidden_size", policy.llm_hidden_size, f"{hidden_size}")


def _check_tokens(name: str, token_ids: Sequence[int], vocab_size: int) -> None:
    for token in token_ids:
        if not 0 <= token < vocab_size:
            raise InvalidParameter(name, token, f"token ids in [0, {vocab_size}), which {token} is not")

"""What a completion request orders from the engine, and what would break its callers."""

from proxy_model.llm.tokenizer import ChatTokenizer
from server.errors import invalid
from server.generation.order import Order, Prompt
from server.generation.run import Run, start_run
from server.schemas.completion_request import DEFAULT_MAX_TOKENS, CompletionRequest
from server.service import Service
from server.validation import out_of_range


async def start_completion(service: Service, request: CompletionRequest) -> Run:
    """Queue the answers. Raises `ApiError` and the core's errors; nothing runs then."""
    _check(request, service.settings.max_choices)
    texts = _texts(request)
    num_choices = request.best_of or request.n or 1
    _check_size(len(texts) * num_choices, max(service.settings.max_choices, service.settings.max_waiting))
    vocab_size = service.serving().llm.vocab_size

    async def tokenize() -> list[Prompt]:
        return await service.backend.ask_tokenizer(
            lambda tokenizer: [_prompt(tokenizer, text, request, vocab_size) for text in texts]
        )

    top_logprobs = request.logprobs
    if top_logprobs is None and num_choices > (request.n or 1):
        top_logprobs = 0  # to tell the best ones by
    order = Order(
        body=request,
        id_prefix="cmpl-",
        prompt_field="prompt",
        tokenize=tokenize,
        num_choices=num_choices,
        max_tokens=DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens,
        top_logprobs=top_logprobs,
        prompt_logprobs=request.logprobs if request.echo else None,
    )
    return await start_run(service, order)


def _texts(request: CompletionRequest) -> list[str | list[int]]:
    """The prompts, one by one."""
    prompt = request.prompt
    if prompt is None or isinstance(prompt, str):
        return [prompt or ""]
    token_ids = [token for token in prompt if isinstance(token, int)]
    return [token_ids] if token_ids else [text for text in prompt if not isinstance(text, int)]


def _prompt(tokenizer: ChatTokenizer, text: str | list[int], request: CompletionRequest, vocab_size: int) -> Prompt:
    if isinstance(text, list):
        if max(text) >= vocab_size:
            message = f"Invalid value for 'prompt': token id {max(text)} is out of vocabulary, which has {vocab_size}."
            raise invalid(message, param="prompt")
        return Prompt(tuple(text), tuple(tokenizer.spell(text)) if request.echo else ())
    adds = request.add_special_tokens
    pieces = tokenizer.prompt_pieces(text, add_special_tokens=adds) if request.echo else ()
    token_ids = tokenizer.encode_prompt(text, add_special_tokens=adds) or tokenizer.document_start()
    return Prompt(tuple(token_ids), tuple(pieces))


def _check(request: CompletionRequest, max_choices: int) -> None:
    if request.suffix:
        raise invalid("'suffix' is not supported by this model.", param="suffix", code="unsupported_value")
    if request.max_tokens == 0 and not request.echo:
        raise out_of_range("max_tokens", 0, ">=", 1)
    best_of, n = request.best_of, request.n or 1
    if best_of is None:
        return
    if best_of < n:
        raise invalid(f"Invalid value for 'best_of': must be at least 'n' ({n}).", param="best_of")
    if best_of > max_choices:
        raise out_of_range("best_of", best_of, "<=", max_choices)
    if best_of > n and request.stream:
        raise invalid("'best_of' greater than 'n' cannot be streamed.", param="best_of")


def _check_size(num_answers: int, max_answers: int) -> None:
    if num_answers > max_answers:
        message = f"Invalid value for 'prompt': {num_answers} answers are asked for, at most {max_answers} can be."
        raise invalid(message, param="prompt", code="array_above_max_length")

"""What a conversation orders from the engine, and what would break its callers."""

from server.conversation import check_conversation
from server.errors import ApiError, invalid
from server.order import Order, Prompt
from server.response_format import form_of
from server.run import Run, start_run
from server.schemas.chat_request import ChatRequest
from server.schemas.messages import to_template
from server.service import Service


async def start_chat(service: Service, chat: ChatRequest) -> Run:
    """Queue the answers. Raises `ApiError` and the core's errors; nothing runs then."""
    return await start_run(service, chat_order(service, chat))


def chat_order(service: Service, chat: ChatRequest) -> Order:
    """What `chat` asks of the engine. Raises `ApiError` 400."""
    _check(chat)

    async def tokenize() -> list[Prompt]:
        messages = [to_template(message) for message in chat.messages]
        return [Prompt(tuple(await service.backend.ask_tokenizer(lambda it: it.apply_chat_template(messages))))]

    return Order(
        body=chat,
        id_prefix="chatcmpl-",
        prompt_field="messages",
        tokenize=tokenize,
        num_choices=chat.n or 1,
        max_tokens=chat.max_completion_tokens or chat.max_tokens,
        top_logprobs=(chat.top_logprobs or 0) if chat.logprobs else None,
        form=form_of(chat.response_format, chat.messages),
        ignored=("store",) if chat.store and not service.storage.is_on else (),
    )


def _check(chat: ChatRequest) -> None:
    if chat.top_logprobs and not chat.logprobs:
        raise invalid("The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.", param="top_logprobs")
    both = (chat.max_tokens, chat.max_completion_tokens)
    if None not in both and both[0] != both[1]:
        raise invalid("Set 'max_completion_tokens' or 'max_tokens', not both.", param="max_tokens")
    check_conversation(chat.messages)
    _refuse_breaking(chat)


def _refuse_breaking(chat: ChatRequest) -> None:
    """A caller that asked for tools cannot go on with plain text."""
    if chat.tools:
        raise _unsupported("tools")
    if chat.functions:
        raise _unsupported("functions")
    for index, message in enumerate(chat.messages):
        if message.role == "assistant" and message.tool_calls:
            raise _unsupported(f"messages[{index}].tool_calls")


def _unsupported(param: str, what: str = "") -> ApiError:
    return invalid(f"'{param}'{what} is not supported by this model.", param=param, code="unsupported_value")

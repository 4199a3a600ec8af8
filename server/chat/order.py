"""What a conversation orders from the engine, and what would break its callers."""

from proxy_model.llm.tokenizer import ChatTokenizer
from server.chat.tool_form import calls_form
from server.chat.tools import ToolUse, check_tools, tool_use, unenforced
from server.errors import invalid
from server.generation.conversation import check_conversation
from server.generation.form import Form
from server.generation.order import Order, Prompt
from server.generation.response_format import form_of
from server.generation.run import Run, start_run
from server.schemas.chat_request import ChatRequest
from server.schemas.messages import to_template
from server.service import Service


async def start_chat(service: Service, chat: ChatRequest) -> Run:
    """Queue the answers. Raises `ApiError` and the core's errors; nothing runs then."""
    return await start_run(service, await chat_order(service, chat))


async def chat_order(service: Service, chat: ChatRequest) -> Order:
    """What `chat` asks of the engine. Raises `ApiError` 400."""
    check_chat(chat)
    use = await service.backend.ask_tokenizer(lambda tokenizer: tool_use(chat, tokenizer))

    async def tokenize() -> list[Prompt]:
        return [await service.backend.ask_tokenizer(lambda tokenizer: prompt_of(tokenizer, chat, use))]

    return Order(
        body=chat,
        id_prefix="chatcmpl-",
        prompt_field="messages",
        tokenize=tokenize,
        num_choices=chat.n or 1,
        max_tokens=chat.max_completion_tokens or chat.max_tokens,
        top_logprobs=(chat.top_logprobs or 0) if chat.logprobs else None,
        form=_form(chat, use),
        tools=use,
        ignored=(*_undone(service, chat), *unenforced(chat, use)),
    )


def check_chat(chat: ChatRequest) -> None:
    """Refuse fields that contradict each other. Raises `ApiError` 400."""
    if chat.top_logprobs and not chat.logprobs:
        raise invalid("The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.", param="top_logprobs")
    both = (chat.max_tokens, chat.max_completion_tokens)
    if None not in both and both[0] != both[1]:
        raise invalid("Set 'max_completion_tokens' or 'max_tokens', not both.", param="max_tokens")
    check_conversation(chat.messages)
    check_tools(chat)


def prompt_of(tokenizer: ChatTokenizer, chat: ChatRequest, use: ToolUse | None) -> Prompt:
    """The conversation as the LLM reads it. Raises `InvalidParameter`."""
    messages = [to_template(message) for message in chat.messages]
    tools, answer_start = ([], "") if use is None else (use.shown, use.answer_start)
    prediction = "" if chat.prediction is None else chat.prediction.text()
    return Prompt(
        tuple(tokenizer.apply_chat_template(messages, tools=tools, answer_start=answer_start)),
        prediction=tuple(tokenizer.encode(prediction)),
    )


def _undone(service: Service, chat: ChatRequest) -> list[str]:
    """Fields of `chat` that this server, as it was started, does nothing for."""
    undone = ["store"] if chat.store and not service.storage.is_on else []
    if chat.prediction is not None and "prediction" not in service.backend.capabilities:
        undone.append("prediction")
    return undone


def _form(chat: ChatRequest, use: ToolUse | None) -> Form | None:
    form = form_of(chat.response_format, chat.messages)
    if form is not None and use is not None:
        message = "'response_format' cannot be combined with tools that may be called; set 'tool_choice' to 'none'."
        raise invalid(message, param="response_format", code="unsupported_value")
    return form if use is None else calls_form(use)

"""A response before it is answered: the conversation that it continues, as a chat request."""

import re
from dataclasses import dataclass, replace
from typing import Any

from proxy_model.errors import ProxyRlhfError
from server.body import validated
from server.chat.order import chat_order
from server.errors import ApiError, invalid, to_api_error
from server.generation.run import Run, start_run
from server.schemas.chat_request import ChatRequest
from server.schemas.response_request import LOGPROBS, ResponseRequest
from server.service import Service
from store.completions import Completion, Message

_OWN = set(ResponseRequest.model_fields) - set(ChatRequest.model_fields)
_NOT_IN_CHAT = _OWN | {"store", "metadata", "tools", "tool_choice", "parallel_tool_calls", "top_logprobs"}
_SPELLED = {"max_completion_tokens": "max_output_tokens", "max_tokens": "max_output_tokens"}
_FORMAT = re.compile(r"\bresponse_format(\.json_schema)?\b")
_MESSAGE = re.compile(r"messages(?:\[(\d+)\](.*))?")


@dataclass(slots=True, kw_only=True)
class Draft:
    """What the response says about itself besides its answer."""

    body: ResponseRequest
    earlier: tuple[Message, ...]
    """The conversation before this request, without instructions."""

    is_stored: bool
    completed_at: int | None = None
    """Unix seconds."""

    @property
    def prompt(self) -> list[Message]:
        """All that the LLM reads."""
        return [*self._before(), *({"role": role, "content": text} for role, text in self._said())]

    def chat(self) -> ChatRequest:
        """The same as a chat request. Raises `ApiError` 400."""
        body = self.body
        fields = body.model_dump(by_alias=True, exclude_unset=True, exclude=_NOT_IN_CHAT | set(self.foreign))
        if body.max_output_tokens is not None:
            fields["max_completion_tokens"] = body.max_output_tokens
        if LOGPROBS in (body.include or ()) or body.top_logprobs:
            fields |= {"logprobs": True, "top_logprobs": body.top_logprobs or 0}
        if (wanted := _response_format(body)) is not None:
            fields["response_format"] = wanted
        return validated(fields | {"messages": self.prompt}, ChatRequest)

    @property
    def foreign(self) -> list[str]:
        """Fields of chat requests that mean nothing here."""
        foreign = ChatRequest.model_fields.keys() - {"parallel_tool_calls"}  # which asks for nothing without tools
        return sorted((self.body.model_extra or {}).keys() & foreign)

    def renamed(self, error: ApiError) -> ApiError:
        """An error about the chat request, in the words of this endpoint."""
        message = _FORMAT.sub("text.format", error.message)
        if error.param is None:
            return replace(error, message=message)
        param = self._spelled(error.param)
        return replace(error, param=param, message=message.replace(f"'{error.param}'", f"'{param}'"))

    def _before(self) -> list[Message]:
        instructions = self.body.instructions
        return [*([] if instructions is None else [{"role": "system", "content": instructions}]), *self.earlier]

    def _said(self) -> list[tuple[str, str]]:
        said = self.body.input
        if isinstance(said, str):
            return [("user", said)]
        return [("system" if item.role == "developer" else item.role, item.text()) for item in said]

    def _spelled(self, param: str) -> str:
        found = _MESSAGE.fullmatch(param)
        if found is None:
            return _SPELLED.get(param) or _FORMAT.sub("text.format", param)
        index = int(found[1] or 0) - len(self._before())
        if found[1] is None or index < 0 or isinstance(self.body.input, str):
            return "input"
        return f"input[{index}]{found[2]}"


async def draft_of(service: Service, body: ResponseRequest, owner: str) -> Draft:
    """Look up what is continued. Raises `ApiError` 400 for what cannot be done here, and for an unknown response."""
    _refuse_unsupported(body)
    earlier: tuple[Message, ...] = ()
    if (name := body.previous_response_id) is not None:
        found = await service.storage.call(lambda shelves: shelves.completions.get(owner, "response", name))
        if found is None:
            message = f"Previous response with id '{name[:200]}' not found."
            raise invalid(message, param="previous_response_id", code="previous_response_not_found")
        earlier = _conversation(found)
    return Draft(body=body, earlier=earlier, is_stored=service.storage.is_on and body.store is not False)


async def start_response(service: Service, draft: Draft) -> Run:
    """Queue the answer. Raises `ApiError`; nothing runs then."""
    ignored = {
        "store": draft.body.store is True and not service.storage.is_on,
        "truncation": draft.body.truncation == "auto",
        "include": any(name != LOGPROBS for name in draft.body.include or ()),
        "text.verbosity": draft.body.text is not None and draft.body.text.verbosity not in (None, "medium"),
    }
    try:
        order = await chat_order(service, draft.chat())
        names = (*draft.foreign, *(name for name, is_ignored in ignored.items() if is_ignored))
        return await start_run(service, replace(order, id_prefix="resp_", prompt_field="input", ignored=names))
    except ApiError as error:
        raise draft.renamed(error) from error
    except ProxyRlhfError as error:
        raise draft.renamed(to_api_error(error, "input")) from error


def _conversation(previous: Completion) -> tuple[Message, ...]:
    """What a response leaves to the next one: everything but its instructions."""
    turns = previous.prompt if previous.request.get("instructions") is None else previous.prompt[1:]
    return (*turns, {"role": "assistant", "content": previous.choices[0].text})


def _response_format(body: ResponseRequest) -> dict[str, Any] | None:
    """`text.format` as a chat request has it."""
    wanted = None if body.text is None else body.text.format
    if wanted is None:
        return None
    if wanted.type != "json_schema":
        return {"type": wanted.type}
    return {"type": wanted.type, "json_schema": wanted.model_dump(by_alias=True, exclude={"type"}, exclude_unset=True)}


def _refuse_unsupported(body: ResponseRequest) -> None:
    """Whoever asks for these cannot go on with a plain answer."""
    asked = {
        "background": bool(body.background),
        "conversation": body.conversation is not None,
        "prompt": body.prompt is not None,
        "tools": bool(body.tools),
        "tool_choice": body.tool_choice not in (None, "auto", "none"),
        "n": body.n not in (None, 1),
    }
    for name, is_asked in asked.items():
        if is_asked:
            raise invalid(f"'{name}' is not supported by this server.", param=name, code="unsupported_value")

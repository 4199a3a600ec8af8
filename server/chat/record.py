"""What is kept of a chat answer that was asked to be stored."""

from typing import Any

from proxy_model.llm.tokenizer import Message
from server.chat.answer import answer_of
from server.chat.order import start_chat
from server.generation.recording import Heard, Record, recorded
from server.generation.run import Run
from server.schemas.chat_request import ChatRequest
from server.schemas.messages import ChatMessage, to_template
from server.service import Service

_NOT_IN_REQUEST = {"messages", "metadata", "store"}


async def start_stored_chat(service: Service, chat: ChatRequest, owner: str) -> Run:
    """`start_chat`, and the answer is kept if `store` says so."""
    run = await start_chat(service, chat)
    if not (chat.store and service.storage.is_on):
        return run
    record = Record(
        kind="chat.completion",
        owner=owner,
        request=chat.model_dump(mode="json", exclude=_NOT_IN_REQUEST, exclude_unset=True),
        items=tuple(_item(f"{run.id}-{index}", message) for index, message in enumerate(chat.messages)),
        prompt=tuple(_prompt(chat)),
        metadata=chat.metadata or {},
        body=_body,
    )
    return recorded(run, service.storage, record)


def _prompt(chat: ChatRequest) -> list[Message]:
    return [to_template(message) for message in chat.messages]


def _body(run: Run, heard: Heard) -> dict[str, Any]:
    return answer_of(run, heard).model_dump(mode="json")


def _item(item_id: str, message: ChatMessage) -> dict[str, Any]:
    """A message as the list of a completion's messages shows it: its text, and the parts if it came in parts."""
    sent = message.model_dump(mode="json", exclude_none=True)
    parts = sent["content"] if isinstance(sent.get("content"), list) else None
    shown = {"content": message.text() if sent.get("content") is not None else None, "content_parts": parts}
    return {"name": None, "refusal": None} | sent | shown | {"id": item_id}

"""A response as it grows, and in one piece."""

import time
from collections.abc import Sequence
from typing import Any

from proxy_model.decoding.request import Delta
from server.chat.logprobs import chat_logprobs
from server.errors import ApiError
from server.generation.choice import GrowingChoice, Step
from server.generation.recording import Heard, Record, recorded
from server.generation.run import Run, deltas
from server.responses.draft import Draft, start_response
from server.schemas.chat_response import TokenLogprob
from server.schemas.report import Position
from server.schemas.response_object import (
    IncompleteDetails,
    InputTokensDetails,
    OutputMessage,
    OutputText,
    ResponseFailure,
    ResponseObject,
    ResponseProxy,
    ResponseUsage,
    Status,
)
from server.schemas.response_request import InputMessage, ResponseRequest
from server.service import Service

_NOT_IN_REQUEST = {"input", "metadata", "store"}


class GrowingResponse:
    """Feed it the deltas of its only choice."""

    def __init__(self, run: Run, draft: Draft) -> None:
        self.message_id = f"msg_{run.id.removeprefix('resp_')}"
        self._run = run
        self._draft = draft
        self._choice = GrowingChoice(0)
        self._texts: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._decisions: list[Position] = []

    def add(self, delta: Delta) -> tuple[Step, list[TokenLogprob]]:
        """What `delta` shows. Raises `ApiError` if the answer broke."""
        step = self._choice.add(delta)
        logprobs = chat_logprobs(step.tokens)
        self._texts.append(step.text)
        self._logprobs += logprobs
        self._decisions += step.decisions
        return step, logprobs

    def begun(self) -> ResponseObject:
        """Before any text."""
        return self._shown("in_progress", [])

    def finished(self) -> ResponseObject:
        """After the last delta."""
        is_whole = self._choice.finish_reason == "stop"
        if is_whole and self._draft.completed_at is None:
            self._draft.completed_at = int(time.time())
        shown = self._shown("completed" if is_whole else "incomplete", [self.message()])
        shown.completed_at = self._draft.completed_at
        shown.incomplete_details = None if is_whole else IncompleteDetails()
        usage = self._run.usage([self._choice])
        shown.usage = ResponseUsage(
            input_tokens=usage.prompt_tokens,
            input_tokens_details=InputTokensDetails(cached_tokens=usage.prompt_tokens_details.cached_tokens),
            output_tokens=usage.completion_tokens,
            total_tokens=usage.total_tokens,
        )
        return shown

    def failed(self, error: ApiError) -> ResponseObject:
        """When it broke; nothing of it is kept."""
        self._draft.is_stored = False
        shown = self._shown("failed", [self.message()])
        shown.error = ResponseFailure(message=error.envelope()["error"]["message"] or "")
        return shown

    def message(self) -> OutputMessage:
        """The answer so far."""
        status = "completed" if self._choice.finish_reason == "stop" else "incomplete"
        return OutputMessage(id=self.message_id, status=status, content=[self.part()])

    def part(self) -> OutputText:
        """Its text so far."""
        return OutputText(text="".join(self._texts), logprobs=self._logprobs)

    def _shown(self, status: Status, output: list[OutputMessage]) -> ResponseObject:
        run, body = self._run, self._draft.body
        return ResponseObject(
            id=run.id,
            created_at=run.created,
            status=status,
            instructions=body.instructions,
            max_output_tokens=body.max_output_tokens,
            model=run.model,
            output=output,
            previous_response_id=body.previous_response_id,
            store=self._draft.is_stored,
            temperature=run.sampling.temperature,
            text=_text(body),
            tool_choice=body.tool_choice or "auto",
            top_logprobs=body.top_logprobs or 0,
            top_p=run.sampling.top_p,
            user=body.user,
            metadata=body.metadata or {},
            system_fingerprint=run.system_fingerprint,
            proxy=self._proxy(),
        )

    def _proxy(self) -> ResponseProxy | None:
        report = self._run.report([self._choice])
        if report is None:
            return None
        decisions = self._decisions if self._run.order.wants_decisions else None
        return ResponseProxy(**report.model_dump(), decisions=decisions)


async def whole_response(run: Run, draft: Draft) -> ResponseObject:
    """Wait for the answer. Raises `ApiError` if it broke."""
    growing = GrowingResponse(run, draft)
    async for _, delta in deltas(run):
        growing.add(delta)
    return growing.finished()


async def start_stored_response(service: Service, draft: Draft, owner: str) -> Run:
    """`start_response`, and the answer is kept unless `store` is false."""
    run = await start_response(service, draft)
    if not draft.is_stored:
        return run

    def body(run: Run, heard: Heard) -> dict[str, Any]:
        growing = GrowingResponse(run, draft)
        for delta in heard[0]:
            growing.add(delta)
        return growing.finished().model_dump(mode="json", exclude={"metadata"})

    def lost() -> None:
        draft.is_stored = False

    record = Record(
        kind="response",
        owner=owner,
        request=draft.body.model_dump(mode="json", by_alias=True, exclude=_NOT_IN_REQUEST, exclude_unset=True),
        items=tuple(_items(run.id, draft.body.input)),
        prompt=tuple(draft.prompt),
        metadata=draft.body.metadata or {},
        body=body,
        is_demanded=draft.body.store is True,
        on_lost=lost,
    )
    return recorded(run, service.storage, record)


def _text(body: ResponseRequest) -> dict[str, Any]:
    wanted = None if body.text is None else body.text.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return {"format": {"type": "text"}} | (wanted or {})


def _items(run_id: str, said: str | Sequence[InputMessage]) -> list[dict[str, Any]]:
    """The input as the list of input items shows it."""
    messages = [InputMessage(role="user", content=said)] if isinstance(said, str) else said
    return [
        {
            "id": f"msg_{run_id.removeprefix('resp_')}_{index}",
            "type": "message",
            "role": message.role,
            "status": "completed",
            "content": _parts(message),
        }
        for index, message in enumerate(messages)
    ]


def _parts(message: InputMessage) -> list[dict[str, Any]]:
    if not isinstance(message.content, str):
        sent = [part.model_dump(mode="json", exclude_none=True) for part in message.content]
        return [part | ({"annotations": []} if part["type"] == "output_text" else {}) for part in sent]
    if message.role == "assistant":
        return [{"type": "output_text", "text": message.content, "annotations": []}]
    return [{"type": "input_text", "text": message.content}]

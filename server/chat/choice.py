"""One choice of a chat as it grows: text, and calls of tools that are found in it."""

import uuid
from dataclasses import dataclass

from proxy_model.decoding.request import Delta
from server.chat.tool_call_parser import ToolCall as ParsedCall
from server.generation.choice import GrowingChoice, TextToken
from server.generation.run import Run
from server.schemas.chat_response import CalledFunction, ToolCall
from server.schemas.report import FinishReason, Position


@dataclass(frozen=True, slots=True)
class ChatStep:
    """What a delta shows."""

    text: str
    calls: list[ToolCall]
    tokens: list[TextToken]
    """Of all that was generated, calls included."""

    decisions: list[Position]


class ChatChoice:
    """Feed it deltas until `finish_reason` is set."""

    def __init__(self, run: Run, index: int) -> None:
        self.growing = GrowingChoice(index)
        use = run.order.tools
        self._name = f"{run.id}-{index}"
        self._parser = None if use is None else use.parser()
        self._max_calls = None if use is None else use.max_calls
        self.num_calls = 0

    @property
    def finish_reason(self) -> FinishReason | None:
        """`tool_calls` where the answer ended by itself after calls."""
        reason = self.growing.finish_reason
        return "tool_calls" if reason == "stop" and self.num_calls else reason

    def add(self, delta: Delta) -> ChatStep:
        """What `delta` shows. Raises `ApiError` if the answer broke."""
        step = self.growing.add(delta)
        if self._parser is None:
            return ChatStep(step.text, [], step.tokens, step.decisions)
        text, found = self._parser.add(step.text)
        if self.growing.finish_reason is not None:
            rest, last = self._parser.finish()
            text, found = text + rest, found + last
        return ChatStep(text, [call for each in found if (call := self._call(each))], step.tokens, step.decisions)

    def _call(self, call: ParsedCall) -> ToolCall | None:
        """The same answer has the same ids, whoever words it."""
        if self._max_calls is not None and self.num_calls >= self._max_calls:
            return None
        self.num_calls += 1
        call_id = uuid.uuid5(uuid.NAMESPACE_OID, f"{self._name}-{self.num_calls}").hex[:24]
        function = CalledFunction(name=call.name, arguments=call.arguments)
        return ToolCall(id=f"call_{call_id}", type="function", function=function)

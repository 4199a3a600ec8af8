"""Keeps what a run answers: right before its last delta leaves, so that whoever has the whole answer can look it up.

An answer that breaks or that nobody waits for is not kept. When the store is out of order, the answer ends with the
store's error if it was asked to be kept, and goes on with a log line if keeping was only the default.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic_core import to_jsonable_python

from proxy_model.decoding.request import Delta
from proxy_model.errors import StoreUnavailable
from server.backends.protocol import Answer
from server.errors import to_api_error
from server.generation.run import Run
from server.generation.storage import Storage
from store.completions import Completion, Kind, Message, StoredChoice, now

Heard = Sequence[Sequence[Delta]]
"""All deltas of each choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is kept besides the answers themselves."""

    kind: Kind
    owner: str
    request: dict[str, Any]
    items: tuple[dict[str, Any], ...]
    prompt: tuple[Message, ...]
    metadata: Mapping[str, str]
    body: Callable[[Run, Heard], dict[str, Any]]
    """The API's object of a whole answer."""

    is_demanded: bool = True
    """Whether the caller asked for it."""

    on_lost: Callable[[], None] = lambda: None
    """Hears that it was not kept, before the last delta leaves; only if it was not demanded."""


def recorded(run: Run, storage: Storage, record: Record) -> Run:
    """`run`, which keeps itself when it has ended."""
    recorder = _Recorder(run, storage, record)
    return replace(run, answers=tuple(_Heard(answer, recorder, index) for index, answer in enumerate(run.answers)))


class _Recorder:
    """Hears all answers of a run."""

    def __init__(self, run: Run, storage: Storage, record: Record) -> None:
        self._run = run
        self._storage = storage
        self._record = record
        self._heard: list[list[Delta]] = [[] for _ in run.answers]

    async def hear(self, index: int, delta: Delta) -> None:
        """Note a delta, and keep everything when it was the last one of all. Raises `ApiError` 503."""
        self._heard[index].append(delta)
        if all(deltas and deltas[-1].finish_reason in ("stop", "length") for deltas in self._heard):
            await self._keep()

    async def _keep(self) -> None:
        completion = _completion(self._run, self._record, self._heard)
        try:
            await self._storage.call(lambda shelves: shelves.completions.add(completion))
        except StoreUnavailable as error:
            if self._record.is_demanded:
                raise to_api_error(error) from error
            self._record.on_lost()


class _Heard:
    """An answer that tells a recorder what it says."""

    def __init__(self, answer: Answer, recorder: _Recorder, index: int) -> None:
        self._answer = answer
        self._recorder = recorder
        self._index = index

    async def admitted(self) -> None:
        """Wait until the engine has the request."""
        await self._answer.admitted()

    def __aiter__(self) -> "_Heard":
        return self

    async def __anext__(self) -> Delta:
        delta = await anext(self._answer)
        await self._recorder.hear(self._index, delta)
        return delta

    async def aclose(self) -> None:
        """Abort the request if it has not ended."""
        await self._answer.aclose()


def _completion(run: Run, record: Record, heard: Heard) -> Completion:
    return Completion(
        id=run.id,
        kind=record.kind,
        owner=record.owner,
        stored_at=now(),
        model=run.model,
        system_fingerprint=run.system_fingerprint,
        proxy=None if run.proxy is None else run.proxy.name,
        proxy_version=None if run.proxy is None else run.proxy.version,
        request=record.request,
        items=record.items,
        prompt=record.prompt,
        prompt_token_ids=run.prompts[0].token_ids,
        sampling=to_jsonable_python(run.sampling, fallback=str),
        choices=tuple(_choice(deltas) for deltas in heard),
        body=record.body(run, heard),
        metadata=dict(record.metadata),
    )


def _choice(deltas: Sequence[Delta]) -> StoredChoice:
    return StoredChoice(
        text="".join(delta.text for delta in deltas),
        token_ids=tuple(token for delta in deltas for token in delta.token_ids),
        finish_reason=str(deltas[-1].finish_reason),
        num_accepted=sum(delta.num_accepted for delta in deltas),
        num_rejected=sum(delta.num_rejected for delta in deltas),
        num_forced=sum(delta.num_forced for delta in deltas),
    )

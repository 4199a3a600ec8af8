"""vLLM's `AsyncLLM` as the backend uses it, over the tiny LLM and the real plugin, in this process."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from proxy_model.decision.bank import ProxyRef
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.decoding.grammar_compiler import GrammarCompiler
from proxy_model.llm.frozen_llm import FrozenLLM
from proxy_model.llm.identity import LLMIdentity
from server.backends.vllm.launch import OpenedModel
from server.backends.vllm.pulse import Beat
from vllm_plugin.bank import READY, WorkerBank
from vllm_plugin.batch import BatchDecider, Row

WIDTH = EngineConfig().max_candidates


@dataclass
class FlatRows:
    """vLLM's `FlatLogprobs`, what is read of it."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)
    start_indices: list[int] = field(default_factory=list)
    end_indices: list[int] = field(default_factory=list)


@dataclass
class Completion:
    token_ids: list[int]
    logprobs: FlatRows


@dataclass
class Output:
    """vLLM's `RequestOutput`."""

    outputs: list[Completion]
    finished: bool
    num_cached_tokens: int = 3
    prompt_logprobs: None = None


@dataclass
class Request:
    """One that runs."""

    id: str
    prompt: list[int]
    fields: Mapping[str, Any]
    output: list[int] = field(default_factory=list)
    news: "asyncio.Queue[Output | BaseException]" = field(default_factory=asyncio.Queue)


class FakeVllm:
    """Steps while there is something to do and `gate` is set."""

    def __init__(self, llm: FrozenLLM, on_step: Callable[[Beat], None], max_running: int) -> None:
        self.errored = False
        self.aborted: list[str] = []
        self.salts: list[str | None] = []
        self.calls: list[tuple[Any, ...]] = []
        self.refusal: str | None = None
        """What a worker says instead of being ready with a version."""

        self.gate = asyncio.Event()
        self.gate.set()
        self.running: dict[str, Request] = {}
        self._llm = llm
        self._on_step = on_step
        self._max_running = max_running
        self.bank = WorkerBank(llm.fingerprint, llm.embedding)
        self._decider = BatchDecider(self.bank.loaded, GrammarCompiler(llm), llm.end_token_ids, WIDTH)
        self._stepping: asyncio.Task[None] | None = None

    async def collective_rpc(self, method: str, args: Sequence[Any] = ()) -> list[Any]:
        """Two workers that agree."""
        self.calls.append((method, *args))
        await asyncio.sleep(0)
        match method:
            case "proxy_prepare":
                self.bank.prepare(ProxyRef(args[0], args[1]), Path(args[2]))
            case "proxy_state":
                return [self.bank.state(ProxyRef(*args)), self.refusal or READY]
            case "proxy_admit":
                self.bank.admit(ProxyRef(*args))
            case "proxy_unload":
                self.bank.loaded.unload(ProxyRef(*args))
            case "proxy_grammar":
                return [READY, READY]
        return [None, None]

    async def generate(
        self, request_id: str, prompt: Mapping[str, Any], fields: Mapping[str, Any]
    ) -> AsyncIterator[Output]:
        """`AsyncLLM.generate`: aborts when it is closed or cancelled before its end."""
        self.salts.append(prompt.get("cache_salt"))
        request = self.running[request_id] = Request(request_id, prompt["prompt_token_ids"], fields)
        self._stepping = self._stepping or asyncio.create_task(self._step())
        is_finished = False
        try:
            while not is_finished:
                output = await request.news.get()
                if isinstance(output, BaseException):
                    raise output
                is_finished = output.finished
                yield output
        finally:
            self.running.pop(request_id, None)
            if not is_finished:
                self.aborted.append(request_id)

    def drop(self, request_id: str) -> None:
        """End a request without a token, as vLLM does with what it cannot go on with."""
        self.running.pop(request_id).news.put_nowait(Output([Completion([], FlatRows())], finished=True))

    def die(self) -> None:
        """A process of its is gone."""
        self.errored = True
        for request in self.running.values():
            request.news.put_nowait(RuntimeError("EngineDeadError"))

    def shutdown(self) -> None:
        """Leave."""
        self.errored = True

    async def _step(self) -> None:
        while self.running and not self.errored:
            await self.gate.wait()
            members = list(self.running.values())[: self._max_running]
            num_ended = self._decide(members)
            num_left = len(members) - num_ended
            self._on_step(Beat(num_left, len(self.running) - len(members), len(members) / 10, num_ended))
            await asyncio.sleep(0.002)
        self._stepping = None

    def _decide(self, members: Sequence[Request]) -> int:
        """One token for each; returns how many of them it ends."""
        states = torch.cat([each[-1:] for each in self._llm.final_states([m.prompt + m.output for m in members])])
        rows = [Row(m.id, m.fields["extra_args"], m.prompt, m.output, is_unfinished_prompt=False) for m in members]
        outcome = self._decider.decide(rows, states, self._llm.logits(states))
        report, num_ended = outcome.report, 0
        for place, (member, token) in enumerate(zip(members, outcome.tokens.tolist(), strict=True)):
            member.output.append(token)
            end = 1 + member.fields["logprobs"]
            flat = FlatRows(
                report.ids[place, :end].tolist(),
                report.numbers[place, :end].tolist(),
                [int(report.ranks[place]), *range(1, end)],
                [0],
                [end],
            )
            is_over = token in member.fields["stop_token_ids"] or len(member.output) == member.fields["max_tokens"]
            num_ended += is_over
            member.news.put_nowait(Output([Completion([token], flat)], is_over))
            if is_over:
                del self.running[member.id]
        return num_ended


def opened_model(llm: FrozenLLM, max_context: int) -> OpenedModel:
    """What `open_model` finds out about the tiny LLM."""
    identity = LLMIdentity(
        name=llm.name,
        tokenizer=llm.tokenizer,
        fingerprint=llm.fingerprint,
        vocab_size=llm.vocab_size,
        hidden_size=llm.hidden_size,
        max_context=llm.max_context,
        end_token_ids=llm.end_token_ids,
    )
    return OpenedModel(identity, "", {}, {}, max_context)

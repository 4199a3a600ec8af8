"""The backend over vLLM: what it hands out, refuses, aborts and tells of its health. The real vLLM is met elsewhere."""

import asyncio
import importlib.util
import os
import subprocess
import sys
import time
import types
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxy_model.decision.bank import ProxyRef
from proxy_model.decision.config import SkamConfig
from proxy_model.decoding.engine import BROKEN, Engine
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.decoding.grammar import json_schema
from proxy_model.decoding.request import Delta, GenerationRequest, SamplingParams
from proxy_model.errors import EngineDead, EngineFull, InvalidParameter, PromptTooLong, UnknownProxy
from proxy_model.llm.frozen_llm import FrozenLLM
from proxy_model.versions.checkpoint import Checkpoint, write_checkpoint
from server.backends.protocol import OVERDUE, Answer
from server.backends.vllm import backend as module
from server.backends.vllm.backend import VllmBackend
from server.backends.vllm.launch import VllmSettings, check_options, require_vllm
from server.backends.waiting_line import LineLimits
from tests.conftest import steering_policy
from tests.server.fake_vllm import FakeVllm, opened_model

SKAM = SkamConfig(p_t=0.0005, top_p=0.98, max_candidates=12)
STEERING = ProxyRef("steering", 1)
CONTEXT = 256


@pytest.fixture(scope="module")
def folder(llm: FrozenLLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published version."""
    folder = tmp_path_factory.mktemp("proxies") / "1"
    write_checkpoint(folder, Checkpoint(steering_policy(llm), SKAM, dict(llm.fingerprint)))
    return folder


@asynccontextmanager
async def running(
    llm: FrozenLLM, monkeypatch: pytest.MonkeyPatch, *, max_waiting: int = 8, **limits: Any
) -> AsyncIterator[tuple[VllmBackend, FakeVllm]]:
    """A backend that has started, with two slots."""
    engines: list[FakeVllm] = []

    def launch(_: Any, on_step: Any) -> FakeVllm:
        engines.append(FakeVllm(llm, on_step, max_running=2))
        return engines[-1]

    monkeypatch.setattr(module, "require_vllm", lambda _: None)
    monkeypatch.setattr(module, "open_model", lambda _: opened_model(llm, CONTEXT))
    monkeypatch.setattr(module, "stat_logger", lambda on_step: on_step)
    monkeypatch.setattr(module, "launch", launch)
    monkeypatch.setattr(module, "generate", lambda engine, *rest: engine.generate(*rest))
    sizes = EngineConfig(max_running=2, max_waiting=max_waiting, max_context=CONTEXT)
    backend = VllmBackend(VllmSettings(model="tiny", sizes=sizes, options={}), **limits)
    await backend.start()
    try:
        yield backend, engines[0]
    finally:
        engines[0].gate.set()
        await backend.stop()


def request(name: str = "a", proxy: ProxyRef | None = None, prompt: str = "hello", **params: Any) -> GenerationRequest:
    settings: dict[str, Any] = {"max_tokens": 12, "ignore_eos": True} | params
    return GenerationRequest(
        id=name, prompt_token_ids=tuple(prompt.encode()), params=SamplingParams(**settings), proxy=proxy
    )


async def hear(answer: Answer) -> list[Delta]:
    return [delta async for delta in answer]


def check(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run it; a scenario that hangs fails."""
    asyncio.run(asyncio.wait_for(scenario(), 60))


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - it is others' state
        await asyncio.sleep(0.005)


def test_answers_are_those_of_the_engine_and_so_are_the_counts(
    llm: FrozenLLM, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    engine = Engine(llm, EngineConfig(max_context=CONTEXT))
    engine.load_proxy(STEERING, steering_policy(llm), SKAM)
    asked = [
        request("plain"),
        request("steered", STEERING),
        request("drawn", STEERING, temperature=0.9, seed=4, decision="sample"),
        request("stopped", STEERING, stop=("no such text",), min_tokens=3),
        request("formed", STEERING, max_tokens=40, ignore_eos=False, grammar=json_schema({"enum": ["yes", "no"]})),
    ]
    expected = engine.generate(asked)

    async def scenario() -> None:
        async with running(llm, monkeypatch) as (backend, _):
            await backend.load_proxy(STEERING, steering_policy(llm), SKAM, folder)
            heard = await asyncio.gather(*(hear(backend.generate(each)) for each in asked))
            stats = backend.drain_stats()
        for deltas, answer in zip(heard, expected, strict=True):
            assert "".join(delta.text for delta in deltas) == answer.text
            assert deltas[-1].finish_reason == answer.finish_reason
            assert deltas[-1].usage == replace(answer.usage, cached_tokens=3)
        tally = stats.tallies[STEERING]
        assert tally.num_accepted == sum(answer.usage.completion_tokens for answer in expected[1:])
        assert tally.num_rejected == sum(answer.usage.rejected for answer in expected[1:]) > 10
        assert tally.num_forced == sum(answer.usage.forced for answer in expected[1:])
        assert sorted(record.status for record in stats.ended) == ["length", "length", "length", "length", "stop"]
        assert all(record.queue_seconds is not None for record in stats.ended)

    check(scenario)


def test_a_stop_string_ends_the_answer_here_and_aborts_it_there(
    llm: FrozenLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    (whole,) = Engine(llm, EngineConfig(max_context=CONTEXT)).generate([request()])
    stop = whole.text[4:6]

    async def scenario() -> None:
        async with running(llm, monkeypatch) as (backend, engine):
            deltas = await hear(backend.generate(request(stop=(stop,))))
            await until(lambda: engine.aborted == ["a"])
        assert "".join(delta.text for delta in deltas) == whole.text[: whole.text.index(stop)]
        assert deltas[-1].finish_reason == "stop"

    check(scenario)


def test_prompts_are_kept_apart_by_their_scope(llm: FrozenLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with running(llm, monkeypatch) as (backend, engine):
            for scope in ("alice", "bob", ""):
                await hear(backend.generate(replace(request(max_tokens=1), prefix_scope=scope)))
            assert engine.salts == ["alice", "bob", None]

    check(scenario)


def test_closing_an_answer_aborts_it_and_frees_its_place(llm: FrozenLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with running(llm, monkeypatch, max_waiting=0) as (backend, engine):
            answers = [backend.generate(request(name, max_tokens=200)) for name in "ab"]
            await answers[0].__anext__()
            with pytest.raises(EngineFull, match="queue of 0 requests is full"):
                await backend.generate(request("c")).admitted()
            await answers[0].aclose()
            await until(lambda: engine.aborted == ["a"])
            assert len(await hear(backend.generate(request("d")))) == 12
            assert [record.status for record in backend.drain_stats().ended] == ["abort", "length"]

    check(scenario)


def test_what_can_never_run_is_refused_before_vllm_hears_of_it(llm: FrozenLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[tuple[GenerationRequest, type[Exception]]] = [
        (request(max_tokens=300), PromptTooLong),
        (request(prompt="x" * CONTEXT, max_tokens=0), PromptTooLong),
        (request(prompt=""), InvalidParameter),
        (request(stop_token_ids=(100_000,)), InvalidParameter),
        (request(proxy=ProxyRef("nobody", 1)), UnknownProxy),
        (request(target_return=1.0), InvalidParameter),
        (
            GenerationRequest(id="r", prompt_token_ids=(1,), params=SamplingParams(max_tokens=1), record=True),
            InvalidParameter,
        ),
    ]

    async def scenario() -> None:
        async with running(llm, monkeypatch) as (backend, engine):
            for each, error in refused:
                with pytest.raises(error):
                    await backend.generate(each).admitted()
            assert not engine.running

    check(scenario)


def test_who_waits_too_long_is_sent_away(llm: FrozenLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        limits = LineLimits(max_seconds=0.05, num_slots=2)
        async with running(llm, monkeypatch, line_limits=limits) as (backend, engine):
            first = [backend.generate(request(name, max_tokens=60)) for name in "ab"]
            for answer in first:
                await answer.__anext__()
            engine.gate.clear()
            late = await hear(backend.generate(request("c")))
            engine.gate.set()
            assert [(delta.finish_reason, delta.error) for delta in late] == [("error", OVERDUE)]
            assert [len(await hear(answer)) for answer in first] == [59, 59]

    check(scenario)


def test_an_unloaded_version_leaves_the_workers_with_its_last_answer(
    llm: FrozenLLM, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    async def scenario() -> None:
        async with running(llm, monkeypatch) as (backend, engine):
            await backend.load_proxy(STEERING, steering_policy(llm), SKAM, folder)
            answer = backend.generate(request("a", STEERING, max_tokens=40))
            await answer.__anext__()
            await backend.unload_proxy(STEERING)
            with pytest.raises(UnknownProxy):
                await backend.generate(request("b", STEERING)).admitted()
            assert engine.bank.loaded.refs() == [STEERING]
            await hear(answer)
            await until(lambda: engine.bank.loaded.refs() == [])
            assert await backend.list_proxies() == []

    check(scenario)


def test_a_version_that_one_worker_cannot_read_is_not_let_in(
    llm: FrozenLLM, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    async def scenario() -> None:
        async with running(llm, monkeypatch) as (backend, engine):
            engine.refusal = "BadCheckpoint: torn"
            with pytest.raises(InvalidParameter, match=r"readable by every worker.*torn"):
                await backend.load_proxy(STEERING, steering_policy(llm), SKAM, folder)
            assert engine.bank.loaded.refs() == []
            with pytest.raises(InvalidParameter, match="'prefix' over vLLM"):
                await backend.load_proxy(STEERING, steering_policy(llm, "candidate"), SKAM, folder)

    check(scenario)


def test_health_tells_of_a_step_that_does_not_end_and_of_a_death(
    llm: FrozenLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaths: list[BaseException] = []

    async def scenario() -> None:
        async with running(llm, monkeypatch, stall_seconds=0.1, on_death=deaths.append) as (backend, engine):
            answer = backend.generate(request(max_tokens=100))
            await answer.__anext__()
            assert backend.health().state == "running"
            engine.gate.clear()
            await until(lambda: backend.health().state == "stalled")
            engine.gate.set()
            await until(lambda: backend.health().state == "running")
            engine.die()
            deltas = await hear(answer)
            assert (deltas[-1].finish_reason, deltas[-1].error) == ("error", BROKEN)
            assert backend.health().state == "dead"
            with pytest.raises(EngineDead):
                await backend.generate(request("b")).admitted()

    check(scenario)
    assert len(deaths) == 1


def test_an_answer_that_vllm_drops_ends_with_an_error_and_the_others_go_on(
    llm: FrozenLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with running(llm, monkeypatch) as (backend, engine):
            dropped, other = (backend.generate(request(name, max_tokens=60)) for name in "ab")
            await dropped.__anext__()
            engine.drop("a")
            heard = await hear(dropped)
            assert (heard[-1].finish_reason, heard[-1].error) == ("error", BROKEN)
            assert len(await hear(other)) == 60
            assert sorted(record.status for record in backend.drain_stats().ended) == ["error", "length"]
            assert backend.health().state == "running"

    check(scenario)


def test_a_death_is_noticed_when_nobody_asks(llm: FrozenLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    deaths: list[BaseException] = []

    async def scenario() -> None:
        async with running(llm, monkeypatch, on_death=deaths.append) as (backend, engine):
            engine.errored = True
            await until(lambda: deaths)
            assert backend.health().state == "dead"

    check(scenario)


def test_steps_are_measured_and_idle_times_are_not(llm: FrozenLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with running(llm, monkeypatch) as (backend, _):
            began = time.monotonic()
            for name in "ab":
                await hear(backend.generate(request(name, max_tokens=3)))
                await asyncio.sleep(0.3)
            busy_seconds = time.monotonic() - began - 0.6
            steps = backend.drain_stats().step_seconds
            assert steps.count == 6
            assert 0 < steps.total <= busy_seconds

    check(scenario)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"speculative_config": {"method": "ngram"}}, "decided before the next is drafted"),
        ({"pipeline_parallel_size": 2}, "only the last stage"),
        ({"data_parallel_size": 2}, "behind a load balancer"),
        ({"max_model_len": 100}, "the server sets itself"),
    ],
)
def test_what_does_not_combine_is_refused_at_the_start(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        check_options(options)
    check_options({"tensor_parallel_size": 2, "pipeline_parallel_size": 1, "enforce_eager": True})


def test_another_version_of_vllm_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    other = types.ModuleType("vllm")
    other.__spec__ = importlib.util.spec_from_loader("vllm", None)
    other.__version__ = "0.31.2"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", other)

    with pytest.raises(InvalidParameter, match=r"0\.32\.0 is installed.*this is 0\.31\.2"):
        require_vllm(None)

    other.__version__ = "0.32.0+cpu"  # type: ignore[attr-defined]
    require_vllm(None)


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="it is installed here")
def test_without_vllm_the_start_is_refused_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cli.main", "serve", "--engine", "vllm", "--home", str(tmp_path), "--port", "0"]

    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    assert ended.returncode == 2
    assert "engine must be 'local' unless vLLM 0.32.0 is installed" in ended.stderr
    assert "Traceback" not in ended.stderr

"""proxy.return_decisions: the numbers that the engine decided by, at every token, streamed and not."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import torch

from proxy_model.decision.trajectory import Trajectory
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.decoding.request import Finished, GenerationRequest, SamplingParams
from tests.conftest import steer
from tests.server.conftest import RunningServer, chat_body, eventually
from tests.server.fakes import CONTEXT, new_checkpoint, new_policy, publish

ASKED: dict[str, Any] = {"return_decisions": True, "p_t": 0.006}
FIELDS: dict[str, Any] = {"model": "tiny:helpful", "max_tokens": 24, "proxy": ASKED}


@pytest.fixture
def server(start: Callable[..., RunningServer]) -> RunningServer:
    """With a proxy that rejects now and then."""
    running = start()
    publish(running.proxies, running.llm, policy=steer(new_policy(4)))
    eventually(lambda: running.service.serving().reloader.table.names() == ["helpful"])
    return running


def recorded(server: RunningServer, *, temperature: float = 0.0, seed: int | None = None) -> Finished:
    """The same answer by an engine of our own, which writes down what it does."""
    engine = Engine(server.llm, EngineConfig(max_running=1, max_context=CONTEXT))
    ref = server.service.serving().reloader.table.resolve("helpful")
    checkpoint = new_checkpoint(server.llm, steer(new_policy(4)))
    engine.load_proxy(ref, checkpoint.policy, checkpoint.skam)
    prompt = server.llm.tokenizer.apply_chat_template([{"role": "user", "content": "hello"}])
    params = SamplingParams(max_tokens=24, p_t=0.006, temperature=temperature, seed=seed)
    request = GenerationRequest(id="r", prompt_token_ids=tuple(prompt), params=params, proxy=ref, record=True)
    [answer] = engine.generate([request])
    return answer


def seen(trajectory: Trajectory) -> list[list[tuple[int, float, float | None, bool]]]:
    """(token, probability, acceptance probability, free) of every candidate up to the accepted one, by position."""
    positions = []
    for row, rank in enumerate(trajectory.ranks.tolist()):
        columns = range(rank + 1)
        free = [bool(trajectory.is_free[row, column]) for column in columns]
        accept = [float(torch.sigmoid(trajectory.accept_logits[row, column])) for column in columns]
        positions.append(
            [
                (
                    int(trajectory.candidates[row, column]),
                    float(trajectory.logprobs[row, column].exp()),
                    accept[column] if free[column] else None,
                    free[column],
                )
                for column in columns
            ]
        )
    return positions


def told(positions: list[dict[str, Any]]) -> list[list[tuple[int, float, float | None, bool]]]:
    """The same of an answer's JSON."""
    keys = ("token_id", "prob", "accept_prob", "is_free")
    return [[tuple(seen[key] for key in keys) for seen in position["candidates"]] for position in positions]


def streamed(server: RunningServer, **fields: Any) -> list[dict[str, Any]]:
    """The chunks' choices."""
    response = httpx.post(f"{server.url}/v1/chat/completions", json=chat_body(stream=True, **fields), timeout=60)
    events = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line][:-1]
    return [choice for event in events for choice in json.loads(event)["choices"]]


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.2, "seed": 5}])
def test_decisions_are_the_numbers_that_the_engine_decided_by(server: RunningServer, sampling: dict[str, Any]) -> None:
    expected = recorded(server, **sampling)

    choice = server.chat(**FIELDS, **sampling).json()["choices"][0]

    assert expected.trajectory is not None
    positions = choice["proxy"]["decisions"]
    assert choice["message"]["content"] == expected.text
    assert told(positions) == seen(expected.trajectory)
    lengths = {len(position["candidates"]) for position in positions}
    assert lengths == {1, 2, 3}, "the proxy must reject now and then for this to show anything"
    assert all(p["candidates"][-1]["is_accepted"] for p in positions)
    assert not any(candidate["is_accepted"] for p in positions for candidate in p["candidates"][:-1])


def test_probabilities_are_those_of_the_llm_alone(server: RunningServer) -> None:
    expected = recorded(server)
    assert expected.trajectory is not None
    tokens = (*expected.trajectory.prompt_token_ids, *expected.token_ids)
    [states] = server.llm.hidden_states([tokens], taps=[server.llm.num_layers])
    probs = server.llm.logits(states[:, 0]).softmax(-1)

    positions = server.chat(**FIELDS).json()["choices"][0]["proxy"]["decisions"]

    first = len(expected.trajectory.prompt_token_ids) - 1
    for row, position in enumerate(positions):
        for candidate in position["candidates"]:
            own = float(probs[first + row, candidate["token_id"]])
            assert candidate["prob"] == pytest.approx(own, rel=1e-3)


def test_counts_are_those_of_the_decisions(server: RunningServer) -> None:
    proxy = server.chat(**FIELDS).json()["choices"][0]["proxy"]

    chosen = [position["candidates"] for position in proxy["decisions"]]
    assert proxy["accepted"] == len(chosen) == 24
    assert proxy["rejections"] == sum(len(candidates) - 1 for candidates in chosen)
    assert proxy["forced"] == sum(not candidates[-1]["is_free"] for candidates in chosen)


@pytest.mark.parametrize("fields", [{}, {"temperature": 1.9, "seed": 3}, {"stop": ["~~", "}"], "max_tokens": 40}])
def test_every_chunk_carries_the_decisions_of_its_text(server: RunningServer, fields: dict[str, Any]) -> None:
    asked = FIELDS | fields
    whole = server.chat(**asked).json()["choices"][0]

    parts = streamed(server, **asked)

    decisions: list[dict[str, Any]] = []
    for part in parts:
        positions = (part.get("proxy") or {}).get("decisions") or []
        assert "".join(position["text"] for position in positions) == (part["delta"].get("content") or "")
        decisions += positions
    assert decisions == whole["proxy"]["decisions"]
    assert "".join(position["text"] for position in decisions) == whole["message"]["content"]
    assert len(decisions) == whole["proxy"]["accepted"]


def test_a_stop_strings_tokens_are_told_without_text(server: RunningServer) -> None:
    content = server.chat(**FIELDS).json()["choices"][0]["message"]["content"]
    stop = content[6:8]

    choice = server.chat(**FIELDS | {"stop": stop}).json()["choices"][0]

    texts = [position["text"] for position in choice["proxy"]["decisions"]]
    kept = content.index(stop)
    assert choice["message"]["content"] == content[:kept]
    assert texts == [*content[:kept], "", ""]


def test_nothing_is_told_unasked_or_by_the_llm_alone(server: RunningServer) -> None:
    unasked = server.chat(**FIELDS | {"proxy": None}).json()["choices"][0]
    base = server.chat(**FIELDS | {"model": "tiny:base"})

    assert unasked["proxy"]["decisions"] is None
    assert base.json()["choices"][0]["proxy"] is None
    assert all("proxy" not in part or "decisions" not in part["proxy"] for part in streamed(server, model="tiny:base"))


def test_an_engine_that_cannot_tell_refuses(server: RunningServer) -> None:
    server.service.backend.capabilities = frozenset({"logprobs"})

    response = server.chat(**FIELDS)

    assert response.status_code == 400
    assert response.json()["error"]["param"] == "proxy.return_decisions"


def test_the_openapi_document_describes_decisions(server: RunningServer) -> None:
    document = httpx.get(f"{server.url}/openapi.json").json()

    schemas = document["components"]["schemas"]
    candidate = schemas["Candidate"]["properties"]
    assert set(candidate) == {"token_id", "token", "bytes", "prob", "accept_prob", "is_free", "is_accepted"}
    assert "not asked" in candidate["accept_prob"]["description"]
    assert "description" in schemas["ProxyOptions"]["properties"]["return_decisions"]
    assert "ChunkProxy" in json.dumps(schemas["ChunkChoice"])

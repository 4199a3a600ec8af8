"""The OpenAPI document is one that clients can be generated from: closed, named, and complete about refusals."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.llm.frozen_llm import FrozenLLM
from server.app import create_app
from server.backends.local import LocalBackend
from server.settings import Settings

OPEN = {"/health", "/ready"}
"""Whatever else is there asks for a key."""


@pytest.fixture(scope="module")
def document(llm: FrozenLLM, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of an application that was never started."""
    settings = Settings(home=tmp_path_factory.mktemp("home"))
    return create_app(LocalBackend(lambda: Engine(llm, EngineConfig())), settings).openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(method, path, operation), for all."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def test_every_reference_points_at_a_schema_and_every_schema_is_used(document: dict[str, Any]) -> None:
    names = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))

    assert names == document["components"]["schemas"].keys()


def test_operations_have_names_of_their_own(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]

    assert "createChatCompletion" in names
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]+([A-Z][a-z]*)*", name) for name in names)


def test_every_operation_names_its_key(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        schemes = {scheme for requirement in operation.get("security", []) for scheme in requirement}
        expected = {"adminKey"} if path.startswith("/admin") else set() if path in OPEN else {"apiKey"}
        assert schemes - {"adminKey"} | (schemes & expected) == expected, f"{method} {path}"


def test_every_operation_declares_its_refusals(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        responses = operation["responses"]
        expected = {"500", "503"} | ({"401", "403", "429"} if operation.get("security") else set())
        expected |= {"400", "413"} if "requestBody" in operation else set()
        assert expected <= responses.keys(), f"{method} {path}"
        assert "422" not in responses, f"{method} {path}"
        for status in responses.keys() - {"200"}:
            schema = responses[status]["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/ErrorEnvelope"}
            assert ("Retry-After" in responses[status].get("headers", {})) == (status in ("429", "503"))


def test_every_answer_has_a_schema(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        for content_type, content in operation["responses"]["200"]["content"].items():
            schema = content.get("schema") or content.get("itemSchema")
            assert schema, f"{method} {path} {content_type}"


def test_a_chat_is_answered_by_json_or_by_events(document: dict[str, Any]) -> None:
    content = document["paths"]["/v1/chat/completions"]["post"]["responses"]["200"]["content"]

    assert content["application/json"]["schema"] == {"$ref": "#/components/schemas/ChatCompletion"}
    done, json_text = content["text/event-stream"]["itemSchema"]["properties"]["data"]["anyOf"]
    assert done == {"const": "[DONE]"}
    assert json_text["contentSchema"]["anyOf"][0] == {"$ref": "#/components/schemas/ChatChunk"}


def test_the_version_is_the_packages(document: dict[str, Any]) -> None:
    declared = re.search(r'^version = "(.+)"', Path("pyproject.toml").read_text(), re.MULTILINE)

    assert declared is not None
    assert document["info"]["version"] == declared[1]

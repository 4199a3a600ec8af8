"""/v1/files by the stock SDK and by hand."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest

from store.files import CHUNK_BYTES
from tests.server.conftest import RunningServer

Start = Callable[..., RunningServer]
MINE, YOURS = "sk-mine-1111", "sk-yours-2222"
LINES = b'{"prompt": [{"role": "user", "content": "hello"}]}\n' * 3


@pytest.fixture
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def post(server: RunningServer, **parts: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/files", **parts)


def test_a_file_goes_in_and_comes_out(client: openai.OpenAI) -> None:
    content = bytes(range(256)) * 3000
    assert len(content) > 2 * CHUNK_BYTES

    kept = client.files.create(file=("a b\u00e9.jsonl", content), purpose="fine-tune")

    assert (kept.bytes, kept.filename, kept.purpose, kept.status) == (
        768_000,
        "a b\u00e9.jsonl",
        "fine-tune",
        "processed",
    )
    assert client.files.retrieve(kept.id) == kept
    assert client.files.content(kept.id).read() == content
    assert client.files.wait_for_processing(kept.id) == kept
    assert client.files.delete(kept.id).deleted
    with pytest.raises(openai.NotFoundError, match="no file of that id"):
        client.files.content(kept.id)


def test_lists_are_paged_by_the_sdk(client: openai.OpenAI) -> None:
    kept = [client.files.create(file=(f"{number}.jsonl", LINES), purpose="fine-tune").id for number in range(3)]
    client.files.create(file=("x", LINES), purpose="batch")

    assert [each.id for each in client.files.list(purpose="fine-tune", limit=2)] == kept[::-1]
    assert [each.id for each in client.files.list(purpose="fine-tune", order="asc")] == kept
    assert client.files.list(limit=1).has_more


def test_a_file_may_expire(client: openai.OpenAI) -> None:
    kept = client.files.create(
        file=("a", LINES), purpose="user_data", expires_after={"anchor": "created_at", "seconds": 3600}
    )

    assert kept.expires_at == kept.created_at + 3600


def test_files_are_their_keys_own(start: Start) -> None:
    server = start(api_keys=(MINE, YOURS))
    mine, yours = (openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) for key in (MINE, YOURS))
    kept = mine.files.create(file=("a", LINES), purpose="fine-tune")

    for call in (yours.files.retrieve, yours.files.content, yours.files.delete):
        with pytest.raises(openai.NotFoundError):
            call(kept.id)
    assert list(yours.files.list()) == []
    assert mine.files.retrieve(kept.id) == kept
    mine.close()
    yours.close()


@pytest.mark.parametrize(
    ("parts", "param", "code"),
    [
        ({"files": {"file": ("a", LINES)}}, "purpose", "missing_required_parameter"),
        ({"data": {"purpose": "fine-tune"}, "files": {"other": ("a", LINES)}}, "other", "unknown_parameter"),
        ({"data": {"purpose": "fine-tune"}, "files": {"file": (None, "text")}}, "file", "missing_required_parameter"),
        ({"data": {"purpose": "fine-tune"}, "files": {"file": ("a", b"")}}, "file", "invalid_value"),
        ({"data": {"purpose": "evil"}, "files": {"file": ("a", LINES)}}, "purpose", "invalid_value"),
        ({"data": {"purpose": "fine-tune", "x": "1"}, "files": {"file": ("a", LINES)}}, "x", "unknown_parameter"),
        (
            {
                "data": {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "3599"},
                "files": {"file": ("a", LINES)},
            },
            "expires_after.seconds",
            "integer_below_min_value",
        ),
        (
            {
                "data": {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "soon"},
                "files": {"file": ("a", LINES)},
            },
            "expires_after.seconds",
            "invalid_type",
        ),
        ({"json": {"purpose": "fine-tune"}}, None, "unsupported_content_type"),
        ({"content": b"no form", "headers": {"content-type": "multipart/form-data"}}, None, "invalid_form"),
        ({"content": b"--a\r\n", "headers": {"content-type": "multipart/form-data; boundary=b"}}, None, "invalid_form"),
    ],
)
def test_what_is_no_upload_is_refused_by_name(
    server: RunningServer, parts: dict[str, Any], param: str | None, code: str
) -> None:
    answer = post(server, **parts)

    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == (param, code), error


def test_a_file_that_is_too_large_is_refused_with_or_without_its_length(start: Start) -> None:
    server = start(max_file_bytes=1000)
    form = {"data": {"purpose": "fine-tune"}}

    assert post(server, **form, files={"file": ("a", b"x" * 1000)}).status_code == 200
    assert post(server, **form, files={"file": ("a", b"x" * 1001)}).status_code == 413
    large = post(server, **form, files={"file": ("a", b"x" * 1_000_000)})
    assert large.status_code == 413
    assert large.json()["error"]["code"] == "request_too_large"
    assert len(httpx.get(f"{server.url}/v1/files").json()["data"]) == 1


def test_without_a_store_there_are_no_files(start: Start) -> None:
    server = start(store=False)

    answer = post(server, data={"purpose": "fine-tune"}, files={"file": ("a", LINES)})

    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "store_disabled")

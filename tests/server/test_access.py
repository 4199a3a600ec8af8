"""Keys by name, from settings and from files that change under a running server."""

import hmac
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from proxy_model.errors import InvalidParameter
from proxy_model.json_log import JsonFormatter
from server.access.api_keys import KeyLimits, Keyring, parse_keys
from server.access.keys import Access, KeySources
from tests.server.conftest import RunningServer, eventually

ALICE, BOB = "sk-alice-0001", "sk-bob-000002"
BOB_HOLDER = "sha256:e9be38b9c627292bd28a57839381b5a56eebed82937b48aa8a25e5cd38013c29"
"""`printf sk-bob-000002 | sha256sum`."""


def sources(api: Path | None, *, keys: tuple[str, ...] = (), admin: Path | None = None) -> KeySources:
    return KeySources(api_keys=keys, api_keys_file=api, admin_key=None, admin_key_file=admin)


def rewrite(file: Path, text: str) -> None:
    """Another modification time even where the clock of the file system is coarse."""
    before = file.stat().st_mtime_ns
    file.write_text(text)
    os.utime(file, ns=(before + 1_000_000, before + 1_000_000))


def status(server: RunningServer, key: str, path: str = "/v1/models") -> int:
    return httpx.get(server.url + path, headers={"authorization": f"Bearer {key}"}).status_code


def test_a_line_is_a_name_a_key_and_limits() -> None:
    text = f"# who: which\nalice:{ALICE} requests_per_minute=60 max_running=4\n\n{BOB}, sk:with-a-colon\n"

    keys = parse_keys(text, "api_keys_file")

    assert [key.name for key in keys] == ["alice", "key-2", "sk"]
    assert [key.holder for key in keys] == ["alice", BOB_HOLDER, "sk"]
    assert keys[0].limits == KeyLimits(requests_per_minute=60, max_running=4)
    assert keys[0].limits.otherwise(KeyLimits(requests_per_minute=9, tokens_per_minute=7)) == KeyLimits(
        requests_per_minute=60, tokens_per_minute=7, max_running=4
    )
    assert ALICE not in repr(keys)
    assert BOB_HOLDER not in repr(keys)


@pytest.mark.parametrize(
    "line",
    ["short", "alice:short", "sk-with-ümlaut", f"{ALICE} rpm=6", f"{ALICE} max_running=0", f"{ALICE} max_running"],
)
def test_a_bad_line_is_refused_without_its_key(line: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        parse_keys(f"{BOB}\n{line}", "api_keys_file")

    assert refused.value.name == "api_keys_file"
    assert "key 2" in str(refused.value)
    assert line.split()[0] not in str(refused.value)


def test_every_key_is_compared_whatever_was_found_before(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def counting(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return compare(one, other)

    monkeypatch.setattr("server.access.api_keys.hmac.compare_digest", counting)
    keyring = Keyring(parse_keys(f"alice:{ALICE},bob:{BOB},carol:sk-carol-0003", "api_keys"), is_configured=True)

    found = [keyring.find(key) for key in (ALICE, "x", "y" * 5000)]

    assert [key and key.name for key in found] == ["alice", None, None]
    assert compared == [(32, 32)] * 9


def test_a_key_that_is_written_to_the_file_opens_and_one_that_left_does_not(
    start: Callable[..., RunningServer], tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    file.write_text(f"alice:{ALICE}\n")
    server = start(api_keys_file=file, api_keys=("sk-settings-1",))
    assert [status(server, key) for key in (ALICE, BOB, "sk-settings-1")] == [200, 401, 200]

    rewrite(file, f"bob:{BOB}\n")

    eventually(lambda: status(server, BOB) == 200, "the new key")
    assert [status(server, key) for key in (ALICE, "sk-settings-1")] == [401, 200]


def test_an_admin_key_from_a_file_is_replaced_without_a_restart(
    start: Callable[..., RunningServer], tmp_path: Path
) -> None:
    file = tmp_path / "admin"
    file.write_text("admin-old-0001\n")
    server = start(admin_key_file=file)
    assert status(server, "admin-old-0001", "/admin/proxies") == 200

    rewrite(file, "admin-new-0001\n")

    eventually(lambda: status(server, "admin-new-0001", "/admin/proxies") == 200, "the new key")
    assert status(server, "admin-old-0001", "/admin/proxies") == 401


@pytest.mark.parametrize("broken", ["short", f"alice:{ALICE}\nbob:{BOB} no=1", "admin-key-0001"])
def test_a_file_that_goes_bad_changes_nothing(tmp_path: Path, broken: str, caplog: pytest.LogCaptureFixture) -> None:
    file, admin = tmp_path / "keys", tmp_path / "admin"
    file.write_text(ALICE)
    admin.write_text("admin-key-0001")
    access = Access(sources(file, admin=admin))

    rewrite(file, broken)
    access.refresh()

    assert access.api.find(ALICE) is not None
    assert access.api.find(BOB) is None
    assert "the old ones stay" in caplog.text
    assert BOB not in caplog.text


def test_an_unreadable_file_changes_nothing_and_an_emptied_one_shuts_the_door(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(ALICE)
    access = Access(sources(file))

    file.unlink()
    access.refresh()
    after_deletion = access.api.find(ALICE)
    file.write_text("")
    access.refresh()

    assert after_deletion is not None
    assert access.api.find(ALICE) is None
    assert access.api


@pytest.mark.parametrize("text", [None, "", "# nobody yet\n"])
def test_a_server_does_not_start_without_the_keys_that_it_was_promised(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "keys"
    if text is not None:
        file.write_text(text)

    with pytest.raises(InvalidParameter) as refused:
        Access(sources(file))

    assert refused.value.name == "api_keys_file"


def test_the_log_says_whose_request_it_was_and_never_the_key(
    start: Callable[..., RunningServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = start(api_keys=(f"alice:{ALICE}",))

    with caplog.at_level(logging.INFO):
        assert status(server, ALICE) == 200
        eventually(lambda: any(record.message == "request" for record in caplog.records))

    lines = [JsonFormatter().format(record) for record in caplog.records]
    assert [json.loads(line)["key"] for line in lines if '"request"' in line] == ["alice"]
    assert not any(ALICE in line for line in lines)


def test_metrics_on_a_port_of_their_own_are_gone_from_the_main_one(start: Callable[..., RunningServer]) -> None:
    server = start(metrics_port=0, api_keys=(f"alice:{ALICE}",))
    headers = {"authorization": f"Bearer {ALICE}"}

    assert httpx.get(f"{server.url}/metrics", headers=headers).status_code == 404
    assert httpx.get(server.metrics_url).status_code == 401
    assert "num_requests_running" in httpx.get(server.metrics_url, headers=headers).text
    other = httpx.get(server.metrics_url.replace("/metrics", "/v1/models"), headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (404, "unknown_url")

"""A worker ends with its server, and only with that one."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from vllm_plugin import lifeline


@pytest.fixture
def server() -> "Iterator[subprocess.Popen[bytes]]":
    """A process that waits."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_the_end_comes_with_the_server_s(server: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(lifeline.VARIABLE, f"{server.pid}@{socket.gethostname()}")
    monkeypatch.setattr(lifeline, "_LOOK_SECONDS", 0.01)
    ended = threading.Event()

    lifeline.end_with_server(ended.set)

    assert not ended.wait(0.2)
    server.kill()
    server.wait()
    assert ended.wait(10)


def test_the_server_leaves_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(lifeline.VARIABLE, raising=False)
    monkeypatch.setattr(os, "environ", dict(os.environ))

    lifeline.leave_name()

    assert os.environ[lifeline.VARIABLE] == f"{os.getpid()}@{socket.gethostname()}"


@pytest.mark.parametrize("name", ["", "1@another-machine"])
def test_without_a_server_on_this_machine_there_is_nothing_to_watch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(lifeline.VARIABLE, name)

    lifeline.end_with_server()

    assert "lifeline" not in [thread.name for thread in threading.enumerate()]

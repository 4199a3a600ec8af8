"""How many processor threads a server takes."""

import os

import pytest
import torch

from server.launch import _spared_threads


@pytest.mark.parametrize(
    ("torch_would", "processors", "taken"), [(2, 2, 1), (1, 1, 1), (4, 8, 4), (8, 8, 7), (1, 16, 1)]
)
def test_one_processor_is_left_to_http(
    torch_would: int, processors: int, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: torch_would)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)))

    assert _spared_threads() == taken

"""How many processor threads a server takes."""

import os

import pytest

from proxy_model.llm.frozen_llm import DecoderKind
from server.launch import default_threads


@pytest.mark.parametrize("decoder", ["torch", "transformers"])
@pytest.mark.parametrize(
    ("torch_would", "processors", "taken"), [(2, 2, 1), (1, 1, 1), (4, 8, 4), (8, 8, 7), (1, 16, 1), (16, 16, 15)]
)
def test_one_processor_is_left_to_http(
    torch_would: int, processors: int, taken: int, decoder: DecoderKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)))

    assert default_threads(torch_would, decoder) == taken


@pytest.mark.parametrize(
    ("torch_would", "processors", "taken"), [(2, 2, 2), (1, 2, 1), (1, 1, 1), (3, 3, 2), (4, 8, 4), (16, 16, 15)]
)
def test_compiled_kernels_take_both_of_two(
    torch_would: int, processors: int, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)))

    assert default_threads(torch_would, "native") == taken

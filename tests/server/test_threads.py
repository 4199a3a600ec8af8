"""How many processors the LLM gets where nobody says."""

import pytest

from proxy_model.frozen_llm import DecoderKind
from server.launch import default_threads


@pytest.mark.parametrize(
    ("processors", "decoder", "threads"),
    [
        (1, "native", 1),
        (2, "native", 2),  # a second core brings more than HTTP loses
        (3, "native", 2),
        (16, "native", 15),
        (1, "torch", 1),
        (2, "torch", 1),  # two threads that meet after every operator are slower through HTTP than one
        (2, "transformers", 1),
        (16, "torch", 15),
    ],
)
def test_a_processor_is_left_to_http_where_that_is_faster(processors: int, decoder: DecoderKind, threads: int) -> None:
    assert default_threads(processors, decoder) == threads

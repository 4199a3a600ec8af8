"""What runs beside the trainer."""

from collections.abc import Callable, Iterator

import pytest

from tests.trainer.scripted_endpoint import Reply, Scripted


@pytest.fixture
def scripted() -> Iterator[Callable[[Reply], Scripted]]:
    """Starts endpoints, which end with the test."""
    started: list[Scripted] = []

    def start(reply: Reply) -> Scripted:
        started.append(Scripted(reply))
        return started[-1]

    yield start
    for each in started:
        each.close()

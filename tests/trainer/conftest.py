"""What runs beside the trainer."""

from collections.abc import Callable

import pytest

from tests.endpoint import Answer
from tests.trainer.scripted_endpoint import Reply, Scripted


@pytest.fixture
def scripted(listen: Callable[[Answer], str]) -> Callable[[Reply], Scripted]:
    """Starts endpoints, which end with the test."""
    return lambda reply: Scripted(reply, listen)

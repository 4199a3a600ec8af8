"""Threads that are kept from work by other programs are done without for a while."""

import time
from concurrent.futures import ThreadPoolExecutor
from ctypes import CDLL, c_double, c_int

import pytest
import torch
from torch import Tensor

from proxy_model.llm.native_linear import PackedLinear
from proxy_model.native.build import library
from tests.conftest import needs_kernels


def _team() -> CDLL:
    team = CDLL(str(library()))
    team.count_work.argtypes = (c_int, c_double, c_double, c_double)
    team.count_work.restype = None
    team.team_size.argtypes = (c_int, c_double)
    return team


@needs_kernels
@pytest.mark.parametrize(
    ("num_threads", "elapsed", "waited", "is_alone"),
    [
        (2, 0.06, 0.02, False),  # two threads that work 2/3 of the time: 1.13 times as fast as one
        (2, 0.06, 0.03, True),  # half of the time: .85
        (2, 0.04, 0.04, False),  # too short to judge by
        (16, 0.06, 0.05, False),  # a sixth of the time: still 1.9
        (16, 0.06, 0.056, True),  # .77
    ],
)
def test_a_thread_works_alone_for_a_second_where_that_is_faster_than_waiting(
    num_threads: int, elapsed: float, waited: float, is_alone: bool
) -> None:
    team = _team()

    def sizes() -> list[int]:
        team.count_work(num_threads, elapsed, waited, 10.0)
        return [team.team_size(num_threads, at) for at in (10.9, 11.1)]

    with ThreadPoolExecutor(1) as fresh:
        assert fresh.submit(sizes).result() == [1 if is_alone else num_threads, num_threads]


@needs_kernels
def test_alone_a_thread_computes_what_it_does_with_others() -> None:
    generator = torch.Generator().manual_seed(3)
    weight = PackedLinear(torch.randn(640, 96, generator=generator).bfloat16(), None)
    rows = torch.randn(5, 96, generator=generator).bfloat16()

    def products() -> tuple[Tensor, Tensor]:
        torch.set_num_threads(2)
        together = weight(rows)
        team.count_work(2, 1.0, 1.0, time.monotonic())
        assert team.team_size(2, time.monotonic()) == 1
        return together, weight(rows)

    team, before = _team(), torch.get_num_threads()
    try:
        with ThreadPoolExecutor(1) as fresh:
            together, alone = fresh.submit(products).result()
    finally:
        torch.set_num_threads(before)
    assert torch.equal(together, alone)

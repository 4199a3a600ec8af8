"""Which decoding sequences are read together."""

import itertools

import pytest

from proxy_model.llm.decode_runs import DecodeRun, decode_runs


@pytest.mark.parametrize(
    ("lengths", "runs"),
    [
        ((), []),
        ((64,), [(0, 1, 64)]),
        ((64, 128, 64, 192), [(0, 4, 192)]),  # 64 + 128 wasted tokens are less than a run
        ((64, 64, 2048, 64, 64), [(0, 2, 64), (2, 3, 2048), (3, 5, 64)]),  # a long one stands alone
        ((2048, 1984, 64, 64), [(0, 2, 2048), (2, 4, 64)]),
        ((512, 64, 512, 64, 512), [(0, 5, 512)]),  # each 448 wasted tokens would take two more runs to save
    ],
)
def test_neighbours_are_read_together_unless_they_differ_by_more_than_a_run_costs(
    lengths: tuple[int, ...], runs: list[tuple[int, int, int]]
) -> None:
    found = decode_runs(lengths, 400)

    assert found == tuple(DecodeRun(*run) for run in runs)


def cost(lengths: tuple[int, ...], cuts: tuple[int, ...], run_cost: int) -> int:
    """Of the runs that end at `cuts` and at the end."""
    total, start = 0, 0
    for stop in (*cuts, len(lengths)):
        total += run_cost + max(lengths[start:stop]) * (stop - start)
        start = stop
    return total


@pytest.mark.parametrize("seed", range(6))
def test_no_other_cut_is_cheaper(seed: int) -> None:
    lengths = tuple(64 * ((row * row * (seed + 3) + 7 * seed) % 23 + 1) for row in range(9))

    found = decode_runs(lengths, 300)

    found_cost = sum(300 + run.length * (run.stop - run.start) for run in found)
    all_cuts = itertools.chain.from_iterable(itertools.combinations(range(1, 9), number) for number in range(9))
    assert found_cost == min(cost(lengths, cuts, 300) for cuts in all_cuts)

"""SKAM by numbers worked out by hand."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from proxy_model.decision.choice import first_accepted
from proxy_model.decision.config import SkamConfig
from proxy_model.decision.noise import noise_key
from proxy_model.decision.skam import Slate, SlateSettings, build_sampled_slate, build_slate, top_tokens
from proxy_model.errors import InvalidParameter

PROBS = [0.05, 0.5, 0.0, 0.3, 0.15]  # tokens 1, 3, 4, 0 in order; token 2 is impossible
LOGITS = torch.tensor([[math.log(p) if p else float("-inf") for p in PROBS]])


def settings(
    *, top_p: float = 1.0, p_t: float = 0.0, temperature: float = 1.0, k: int = 5, renormalised: bool = False
) -> SlateSettings:
    return SlateSettings(
        temperature=torch.tensor([temperature]),
        top_p=torch.tensor([top_p]),
        p_t=torch.tensor([p_t]),
        max_candidates=torch.tensor([k]),
        is_renormalised=torch.tensor([renormalised]),
    )


def candidates(slate: Slate) -> list[int]:
    return slate.tokens[slate.is_candidate].tolist()


def test_candidates_come_in_descending_probability() -> None:
    slate = build_slate(LOGITS, settings(), 4)

    assert candidates(slate) == [1, 3, 4, 0]
    assert slate.logprobs[0].exp().tolist() == pytest.approx([0.5, 0.3, 0.15, 0.05])


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [
        (0.4, [1]),  # the first candidate alone reaches .4
        (0.5 + 1e-3, [1, 3]),  # .5 is short of it, .8 is not
        (0.81, [1, 3, 4]),
        (1.0, [1, 3, 4, 0]),  # no filter at all
    ],
)
def test_the_nucleus_is_the_smallest_set_that_reaches_top_p(top_p: float, expected: list[int]) -> None:
    assert candidates(build_slate(LOGITS, settings(top_p=top_p), 4)) == expected


@pytest.mark.parametrize(
    ("p_t", "free"),
    [
        # means of what is left: .25 (4 left), .1667 (3), .1 (2), then the last one is always forced
        (0.0, [True, True, True, False]),
        (0.09, [True, True, True, False]),
        (0.11, [True, True, False, False]),
        (0.2, [True, False, False, False]),
        (0.26, [False, False, False, False]),
    ],
)
def test_reject_is_masked_once_the_mean_of_the_rest_is_at_most_p_t(p_t: float, free: list[bool]) -> None:
    assert build_slate(LOGITS, settings(p_t=p_t), 4).is_free[0].tolist() == free


def test_renormalised_the_mean_is_one_over_the_number_left() -> None:
    # 1/4, 1/3, 1/2: a threshold of .3 masks reject while four are left, and no longer with three
    slate = build_slate(LOGITS, settings(p_t=0.3, renormalised=True), 4)

    assert slate.is_free[0].tolist() == [False, True, True, False]


def test_the_last_of_k_candidates_is_always_accepted() -> None:
    slate = build_slate(LOGITS, settings(k=2), 4)

    assert candidates(slate) == [1, 3]
    assert slate.is_free[0].tolist() == [True, False, False, False]


def test_temperature_flattens_the_probabilities() -> None:
    slate = build_slate(LOGITS, settings(temperature=2.0), 4)

    roots = [math.sqrt(p) for p in (0.5, 0.3, 0.15, 0.05)]
    assert slate.logprobs[0].exp().tolist() == pytest.approx([root / sum(roots) for root in roots])


def test_switched_off_filters_hold_where_float_sums_round() -> None:
    """One token takes everything: its mass rounds to 1 and the rest underflows to 0."""
    logits = torch.tensor([[0.0, 200.0, -300.0, 100.0]])

    slate = build_slate(logits, settings(top_p=1.0, p_t=0.0), 4)

    assert candidates(slate) == [1, 3, 0, 2]
    assert slate.is_free[0].tolist() == [True, True, True, False]


def test_ties_go_to_the_lower_token_id_whatever_the_vocabulary() -> None:
    for size in (10, 5000, 49152):
        logits = torch.randint(0, 4, (3, size), generator=torch.Generator().manual_seed(size)).float()
        expected = [
            sorted(range(size), key=lambda token, row=row: (-row[token], token))[:8]  # type: ignore[misc]
            for row in logits.tolist()
        ]

        assert top_tokens(logits, 8).tolist() == expected


def test_top_tokens_orders_negative_and_infinite_logits() -> None:
    logits = torch.full((1, 2000), float("-inf"))
    logits[0, 1500], logits[0, 3], logits[0, 700] = -3.5, -0.25, 0.125

    assert top_tokens(logits, 4).tolist() == [[700, 3, 1500, 0]]


def test_the_drawn_order_follows_the_temperature_s_probabilities() -> None:
    """First places over 4,000 draws: within 4 standard errors (a false alarm in 16,000 runs)."""
    num_draws = 4000
    keys = torch.tensor([noise_key(17, position) for position in range(num_draws)])
    many = SlateSettings(
        temperature=torch.ones(num_draws),
        top_p=torch.full((num_draws,), 0.9),
        p_t=torch.zeros(num_draws),
        max_candidates=torch.full((num_draws,), 5),
        is_renormalised=torch.zeros(num_draws, dtype=torch.bool),
    )

    slate = build_sampled_slate(LOGITS.expand(num_draws, -1), many, 4, torch.ones(num_draws), keys)

    first = torch.bincount(slate.tokens[:, 0], minlength=5) / num_draws
    for token, prob in ((1, 0.5 / 0.95), (3, 0.3 / 0.95), (4, 0.15 / 0.95), (0, 0.0)):  # token 0 is outside of .9
        assert abs(first[token] - prob) <= 4 * math.sqrt(0.25 / num_draws) * (prob > 0)
    assert {len(set(row)) for row in slate.tokens[:, :3].tolist()} == {3}, "drawn without replacement"


def _walk(accept_logits: list[float], free: list[bool], uniforms: list[float]) -> int:
    tokens = torch.tensor([[40, 30, 20]])
    slate = Slate(tokens, torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool), torch.tensor([free]))
    choice = first_accepted(torch.tensor([accept_logits]), slate, torch.tensor([uniforms]))
    assert choice.tokens.tolist() == [[40, 30, 20][choice.ranks.item()]]  # type: ignore[index]
    return int(choice.ranks)


@pytest.mark.parametrize(
    ("accept_logits", "free", "uniforms", "rank"),
    [
        ([0.1, 9.0, 9.0], [True, True, False], [0.5, 0.5, 0.5], 0),  # greedy accepts above one half
        ([-0.1, 9.0, 9.0], [True, True, False], [0.5, 0.5, 0.5], 1),
        ([-0.1, -9.0, -9.0], [True, True, False], [0.5, 0.5, 0.5], 2),  # the last one is forced
        ([-9.0, -9.0, -9.0], [True, False, False], [0.5, 0.5, 0.5], 1),  # SKAM forces the second
        ([float("nan")] * 3, [False, False, False], [0.5, 0.5, 0.5], 0),
        ([-1.0, 9.0, 9.0], [True, True, False], [0.2, 0.5, 0.5], 0),  # sigmoid(-1) = .269 > .2
        ([-1.0, 9.0, 9.0], [True, True, False], [0.3, 0.5, 0.5], 1),
    ],
)
def test_the_first_accepted_candidate_comes_out(
    accept_logits: list[float], free: list[bool], uniforms: list[float], rank: int
) -> None:
    assert _walk(accept_logits, free, uniforms) == rank


@pytest.mark.parametrize(
    ("name", "value"),
    [("p_t", -0.1), ("p_t", 1.5), ("top_p", 0.0), ("top_p", 1.01), ("temperature", 0.0), ("max_candidates", 0)],
)
def test_settings_out_of_range_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(InvalidParameter) as refused:
        SkamConfig(**{name: value})  # type: ignore[arg-type]

    assert refused.value.name == name


def test_rows_with_other_settings_do_not_disturb_each_other() -> None:
    one = build_slate(LOGITS, settings(top_p=0.6), 4)
    two = SlateSettings(
        temperature=torch.tensor([1.0, 3.0]),
        top_p=torch.tensor([0.6, 1.0]),
        p_t=torch.tensor([0.0, 0.2]),
        max_candidates=torch.tensor([5, 3]),
        is_renormalised=torch.tensor([False, True]),
    )

    both = build_slate(LOGITS.expand(2, -1), two, 4)

    parts: list[tuple[Tensor, Tensor]] = [(one.tokens, both.tokens), (one.is_free, both.is_free)]
    for alone, together in parts:
        assert torch.equal(alone[0], together[0])
    assert both.is_candidate[1].tolist() == [True, True, True, False]


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_probabilities_are_the_same_to_the_bit_alone_and_in_a_batch() -> None:
    logits = 3 * torch.randn(64, 49152, generator=torch.Generator().manual_seed(1))
    one = settings(k=16)
    many = SlateSettings(
        temperature=one.temperature.expand(64),
        top_p=one.top_p.expand(64),
        p_t=one.p_t.expand(64),
        max_candidates=one.max_candidates.expand(64),
        is_renormalised=one.is_renormalised.expand(64),
    )

    together = build_slate(logits, many, 16).logprobs

    alone = [build_slate(logits[row : row + 1], one, 16).logprobs for row in range(64)]
    assert torch.equal(torch.cat(alone), together)

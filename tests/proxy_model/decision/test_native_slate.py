"""What compiled code finds in a vocabulary is what torch finds there."""

import pytest
import torch
from torch import Tensor

from proxy_model.decision import native_slate as native
from proxy_model.decision import skam
from proxy_model.decision.noise import gumbel_noise, noise_key
from tests.conftest import needs_kernels

pytestmark = needs_kernels

WIDTH = 16
SIZES = (16, 70, 1500, 49152, 49157)


def _logits(size: int, num_rows: int = 5, spread: float = 3.0) -> Tensor:
    return spread * torch.randn(num_rows, size, generator=torch.Generator().manual_seed(size))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("num_threads", [1, 3])
def test_the_likeliest_tokens_and_their_log_probabilities(size: int, num_threads: int) -> None:
    logits, temperature = _logits(size), torch.tensor([1.0, 0.5, 2.0, 1.0, 0.01])
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)

    tokens, logprobs = native.likeliest(logits, temperature, WIDTH)

    torch.set_num_threads(before)
    expected = skam.likeliest(logits, temperature, WIDTH)
    assert torch.equal(tokens, expected[0])
    torch.testing.assert_close(logprobs, expected[1], rtol=1e-5, atol=2e-5)


def test_ties_go_to_the_lower_id_and_what_is_forbidden_comes_last() -> None:
    logits = torch.randint(0, 3, (4, 5000), generator=torch.Generator().manual_seed(1)).float()
    logits[3] = float("-inf")
    logits[3, [4000, 17, 999]] = torch.tensor([-50.0, -80.0, -50.0])

    tokens, logprobs = native.likeliest(logits, torch.ones(4), WIDTH)

    assert torch.equal(tokens[:3], skam.top_tokens(logits[:3], WIDTH))
    assert tokens[3, :3].tolist() == [999, 4000, 17]
    assert logprobs[3].isinf().tolist() == [False] * 3 + [True] * 13
    torch.testing.assert_close(logprobs[3, :2].exp(), torch.full((2,), 0.5))


@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.9999, 0.3, 1e-6])
@pytest.mark.parametrize("size", SIZES)
def test_a_drawn_order_is_the_reference_s(size: int, top_p: float) -> None:
    logits, count = _logits(size, 40), 40
    keys = torch.tensor([noise_key(seed, seed % 3) for seed in range(count)])
    settings = torch.full((count,), 1.0), WIDTH, torch.full((count,), 0.8), torch.full((count,), top_p), keys

    tokens, logprobs = native.drawn(logits, *settings)

    expected, expected_logprobs = skam.drawn(logits, *settings)
    is_there = logprobs > float("-inf")
    assert torch.equal(is_there, expected_logprobs > float("-inf"))
    assert torch.equal(tokens[is_there], expected[is_there])
    torch.testing.assert_close(logprobs[is_there], expected_logprobs[is_there], rtol=1e-5, atol=2e-5)
    if top_p == 1e-6:
        assert is_there.sum(1).tolist() == [1] * count
    elif top_p == 1.0:
        assert bool(is_there.all())


def test_a_flat_vocabulary_s_nucleus_is_all_that_it_takes() -> None:
    logits = torch.zeros(1, 3000)
    logits[0, 2000:] = float("-inf")
    one = torch.ones(1)

    tokens, logprobs = native.drawn(logits, one, WIDTH, one, torch.tensor([0.005]), torch.tensor([5]))

    assert sorted(tokens[0, :10].tolist()) == list(range(10)), "ten of two thousand, those with the lowest ids"
    assert (logprobs[0] > float("-inf")).tolist() == [True] * 10 + [False] * 6


def test_a_mass_that_rounding_never_reaches_takes_every_token_that_there_is() -> None:
    logits = torch.linspace(0.0, -200.0, 3000)[None].clone()
    logits[0, 1000:] = float("-inf")
    one = torch.ones(1)

    tokens, logprobs = native.drawn(logits, one, WIDTH, 20 * one, torch.tensor([1 - 2**-24]), torch.tensor([5]))

    assert bool((logprobs > float("-inf")).all())
    assert int(tokens.max()) < 1000


def test_the_noise_is_gumbel_s_and_no_two_keys_or_tokens_share_it() -> None:
    seeds = (0, 1, -1, 0x9E3779B97F4A7C15 - (1 << 64))  # seeds of choices lie that far apart
    keys = torch.tensor([noise_key(seed, position) for seed in seeds for position in (0, 1, 2)])

    noise = gumbel_noise(keys, 200_000)

    assert noise.isfinite().all()
    for row in noise:
        torch.testing.assert_close(row.mean(), torch.tensor(0.5772), rtol=0, atol=0.015)
        torch.testing.assert_close(row.std(), torch.tensor(1.2825), rtol=0, atol=0.015)
        assert abs(float(torch.corrcoef(torch.stack([row[:-1], row[1:]]))[0, 1])) < 0.01
    assert float(torch.corrcoef(noise).fill_diagonal_(0).abs().max()) < 0.01

"""Biases, penalties and filters by numbers worked out by hand, and against transformers' own processors."""

import math
from typing import Any

import pytest
import torch
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
)

from proxy_model.decision.bank import LoadedProxy, ProxyRef
from proxy_model.decision.config import PolicyConfig, SkamConfig
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.grammar_compiler import GrammarCompiler
from proxy_model.decoding.logit_processors import LogitProcessors
from proxy_model.decoding.request import GenerationRequest, SamplingParams
from proxy_model.decoding.sequence import Sequence
from proxy_model.errors import InvalidParameter
from proxy_model.llm.frozen_llm import FrozenLLM

INF = float("inf")
NO_TEXT: Any = torch.tensor([[0]])


def sequence(
    prompt: tuple[int, ...] = (1,), output: tuple[int, ...] = (), proxy: LoadedProxy | None = None, **params: Any
) -> Sequence:
    request = GenerationRequest(id="x", prompt_token_ids=prompt, params=SamplingParams(max_tokens=9, **params))
    made = Sequence(request, proxy)
    for token in output:
        made.accept(token)
    return made


def offered(small_llm: FrozenLLM, logits: torch.Tensor, *rows: Sequence) -> torch.Tensor:
    return LogitProcessors(frozenset({4}), GrammarCompiler(small_llm)).offered(logits, rows)


def test_presence_and_frequency_penalties_are_openai_s_formula_over_the_answer_alone(small_llm: FrozenLLM) -> None:
    logits = torch.tensor([[1.0, 2.0, -3.0, 4.0, 0.5]])
    row = sequence((0, 0, 4), (3, 2, 3, 3), presence_penalty=0.25, frequency_penalty=0.5)

    # token 3 stands there three times: 4 - 3 * .5 - .25; token 2 once: -3 - .5 - .25; the prompt's 0 and 4 stay
    assert offered(small_llm, logits, row).tolist() == [[1.0, 2.0, -3.75, 2.25, 0.5]]


def test_negative_penalties_favour_what_was_said(small_llm: FrozenLLM) -> None:
    row = sequence((0,), (1, 1), presence_penalty=-1.5, frequency_penalty=-0.25)

    assert offered(small_llm, torch.tensor([[1.0, 2.0, 3.0]]), row).tolist() == [[1.0, 4.0, 3.0]]


def test_the_repetition_penalty_is_that_of_transformers_over_prompt_and_answer(small_llm: FrozenLLM) -> None:
    logits = torch.randn(1, 40, generator=torch.Generator().manual_seed(3)) * 4
    row = sequence((3, 9, 9, 17), (21, 3), repetition_penalty=1.7)
    expected = RepetitionPenaltyLogitsProcessor(1.7)(torch.tensor([[3, 9, 9, 17, 21, 3]]), logits.clone())

    found = offered(small_llm, logits, row)

    assert torch.equal(found, expected)
    assert (found != logits).sum() == 4


def test_biases_are_added_before_the_penalties(small_llm: FrozenLLM) -> None:
    row = sequence((2,), (1,), logit_bias=((2, 3.0), (0, -100.0)), repetition_penalty=2.0, presence_penalty=0.5)

    # token 2: (-1 + 3) / 2; token 1: -4 * 2 - .5
    assert offered(small_llm, torch.tensor([[1.0, -4.0, -1.0]]), row).tolist() == [[-99.0, -8.5, 1.0]]


@pytest.mark.parametrize("k", [1, 3, 40, 1000])
def test_top_k_is_that_of_transformers(small_llm: FrozenLLM, k: int) -> None:
    logits = torch.randn(1, 40, generator=torch.Generator().manual_seed(5))
    expected = TopKLogitsWarper(k)(NO_TEXT, logits.clone())

    assert torch.equal(offered(small_llm, logits, sequence(top_k=k)), expected)


@pytest.mark.parametrize(("min_p", "temperature"), [(0.1, 1.0), (0.3, 0.5), (0.02, 2.0), (1.0, 1.0)])
def test_min_p_is_that_of_transformers_at_the_request_s_temperature(
    small_llm: FrozenLLM, min_p: float, temperature: float
) -> None:
    logits = torch.randn(1, 40, generator=torch.Generator().manual_seed(7)) * 2
    expected = MinPLogitsWarper(min_p)(NO_TEXT, logits / temperature) > -INF

    found = offered(small_llm, logits, sequence(min_p=min_p, temperature=temperature)) > -INF

    assert torch.equal(found, expected)
    assert 1 <= int(found.sum()) < 40


def test_min_p_in_the_paper_s_order_is_taken_at_skam_s_temperature(small_llm: FrozenLLM) -> None:
    policy = ProxyPolicy(PolicyConfig(llm_hidden_size=small_llm.hidden_size, hidden_size=8))
    proxy = LoadedProxy(ProxyRef("p", 1), policy, SkamConfig(temperature=2.0), small_llm.embedding)
    logits = torch.tensor([[0.0, 2.0 * math.log(0.11), 2.0 * math.log(0.09), 2.0 * math.log(0.3)]])

    assert offered(small_llm, logits, sequence(proxy=proxy, min_p=0.1)).gt(-INF).tolist() == [[True, True, False, True]]
    cold = sequence(proxy=proxy, min_p=0.1, skam_temperature=1.0)
    assert offered(small_llm, logits, cold).gt(-INF).tolist() == [[True, False, False, False]]


def test_nothing_ends_an_answer_before_its_minimum_length(small_llm: FrozenLLM) -> None:
    logits = torch.ones(1, 6)
    short = sequence((0,), (1, 2), min_tokens=3, stop_token_ids=(5,))
    long_enough = sequence((0,), (1, 2, 3), min_tokens=3, stop_token_ids=(5,))

    assert offered(small_llm, logits, short).tolist() == [[1.0, 1.0, 1.0, 1.0, -INF, -INF]]
    assert offered(small_llm, logits, long_enough) is logits


def test_rows_that_ask_for_nothing_cost_nothing_and_keep_their_logits(small_llm: FrozenLLM) -> None:
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(1))
    before = logits.clone()
    plain = sequence((1, 2), (3,), temperature=0.7, top_p=0.9, ignore_eos=True)

    assert offered(small_llm, logits, plain, plain, plain) is logits
    assert (plain.counts, plain.grammar, plain.has_processors) == (None, None, False)
    mixed = offered(small_llm, logits, plain, sequence((1,), (2,), frequency_penalty=1.0), plain)
    assert torch.equal(mixed[[0, 2]], before[[0, 2]])
    assert (mixed[1] != before[1]).nonzero().flatten().tolist() == [2]
    assert torch.equal(logits, before), "reported log-probabilities are taken from these"


def test_rows_with_everything_are_processed_as_if_alone(small_llm: FrozenLLM) -> None:
    logits = torch.randn(6, 60, generator=torch.Generator().manual_seed(2)) * 3
    rows = [
        sequence((1, 2), (3, 3), presence_penalty=0.5, top_k=7),
        sequence((4,), (), min_p=0.2, temperature=0.5),
        sequence((5, 6, 7), (1, 2, 1, 1), repetition_penalty=0.6, frequency_penalty=1.1, top_k=20, min_tokens=8),
        sequence((1,), (2,)),
        sequence((1,), (2,), logit_bias=((7, 5.5), (8, -100.0)), min_tokens=2, stop_token_ids=(9, 10)),
        sequence((8, 9), (10,), repetition_penalty=1.3, min_p=0.01),
    ]

    together = offered(small_llm, logits, *rows)

    for row, each in enumerate(rows):
        assert torch.equal(together[row], offered(small_llm, logits[row : row + 1], each)[0])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("presence_penalty", 2.01),
        ("frequency_penalty", -2.01),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", 10.5),
        ("top_k", 0),
        ("min_p", 1.01),
        ("min_p", -0.1),
        ("logit_bias", ((3, 100.5),)),
    ],
)
def test_numbers_out_of_range_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidParameter) as refused:
        SamplingParams(max_tokens=3, **{name: value})  # type: ignore[arg-type]

    assert refused.value.name == name


@pytest.mark.parametrize("params", [{"logit_bias": ((1500, 1.0),)}, {"stop_token_ids": (-1,)}])
def test_tokens_outside_of_the_vocabulary_are_refused(small_llm: FrozenLLM, params: dict[str, Any]) -> None:
    request = GenerationRequest(id="x", prompt_token_ids=(1,), params=SamplingParams(max_tokens=3, **params))

    with pytest.raises(InvalidParameter) as refused:
        Engine(small_llm).submit(request)

    assert refused.value.name == next(iter(params))

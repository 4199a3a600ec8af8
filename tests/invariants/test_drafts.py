"""Answers that are drafted ahead are those of the plain loop, to the bit, in fewer passes."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from proxy_model.decision.bank import ProxyRef
from proxy_model.decision.config import SkamConfig
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.decoding.grammar import GrammarSpec
from proxy_model.decoding.request import Finished, GenerationRequest, SamplingParams
from proxy_model.errors import InvalidParameter
from proxy_model.llm.attention import PackedStep
from proxy_model.llm.frozen_llm import FrozenLLM
from tests.architectures import random_model
from tests.conftest import needs_kernels, steering_policy
from tests.tiny_tokenizer import byte_tokenizer

pytestmark = needs_kernels

SKAM = SkamConfig(p_t=0.0005, top_p=0.98, max_candidates=12)
STEERING, READER = ProxyRef("steering", 1), ProxyRef("reader", 1)
TOKENS = 24
PROMPTS = [
    tuple(torch.randint(8, 1400, (length,), generator=torch.Generator().manual_seed(length)).tolist())
    for length in (3, 17, 40, 9, 64, 28, 5, 33, 12)
]


@pytest.fixture(scope="module")
def llm() -> FrozenLLM:
    return FrozenLLM(random_model("llama_grouped").to(torch.bfloat16), byte_tokenizer(), "wide")


def _engine(llm: FrozenLLM, draft_tokens: int, **sizes: int) -> Engine:
    defaults = {"max_running": 4, "prefill_tokens": 48, "num_staging": 2, "max_context": 128, "draft_rows": 12}
    engine = Engine(llm, EngineConfig(**{**defaults, "draft_tokens": draft_tokens, **sizes}))
    engine.load_proxy(STEERING, steering_policy(llm), SKAM)
    engine.load_proxy(READER, steering_policy(llm, "candidate"), SKAM)
    return engine


def _request(index: int, proxy: ProxyRef | None = None, **params: object) -> GenerationRequest:
    defaults: dict[str, object] = {"max_tokens": TOKENS, "seed": 11, "ignore_eos": True}
    settings = SamplingParams(**{**defaults, **params})  # type: ignore[arg-type]
    return GenerationRequest(
        id=str(index), prompt_token_ids=PROMPTS[index], params=settings, proxy=proxy, record=proxy is not None
    )


def _half_right(requests: Sequence[GenerationRequest], answers: Sequence[Finished]) -> list[GenerationRequest]:
    """With a prediction each that is wrong at every seventh token."""
    return [
        replace(
            request,
            prediction_token_ids=tuple(8 if place % 7 == 6 else token for place, token in enumerate(answer.token_ids)),
        )
        for request, answer in zip(requests, answers, strict=True)
    ]


def _seen(answer: Finished) -> tuple[object, ...]:
    """All that an answer shows; its passes and drafts are not among it."""
    usage = answer.usage
    return answer.text, answer.token_ids, answer.finish_reason, answer.logprobs, usage.rejected, usage.forced


def _assert_equal_to_the_bit(answers: Sequence[Finished], expected: Sequence[Finished]) -> None:
    for answer, other in zip(answers, expected, strict=True):
        assert _seen(answer) == _seen(other)
        mine, its = answer.trajectory, other.trajectory
        if mine is not None and its is not None:
            assert torch.equal(mine.hidden, its.hidden)
            assert torch.equal(mine.accept_logits.nan_to_num(), its.accept_logits.nan_to_num())


MIXED = [
    _request(0),
    _request(1, STEERING, temperature=0.9, decision="sample", top_logprobs=2),
    _request(2, STEERING, p_t=0.0),
    _request(3, temperature=1.3, top_p=0.9, seed=3),
    _request(4, READER),
    _request(5, STEERING, repetition_penalty=1.3, frequency_penalty=0.4, min_tokens=4),
    _request(6, STEERING, grammar=GrammarSpec("regex", "[a-z]{3,40}"), ignore_eos=False),
    _request(7, top_logprobs=3, max_tokens=1),
    _request(8, STEERING, decision="sample", stop=("a", "e"), ignore_eos=False),
]


def test_drafts_change_no_answer_whatever_it_asks_for(llm: FrozenLLM) -> None:
    plain = _engine(llm, 0).generate(MIXED)

    drafted = _engine(llm, 5).generate(_half_right(MIXED, plain))

    _assert_equal_to_the_bit(drafted, plain)
    passes = [(answer.usage.passes, len(answer.token_ids)) for answer in drafted]
    assert all(mine < number for mine, number in passes[:4])
    assert passes[4][0] > passes[4][1]  # the one that has the LLM read candidates drafts nothing
    assert any(answer.usage.drafted_tokens > answer.usage.accepted_drafts for answer in drafted)


def test_an_answer_that_was_foretold_takes_a_pass_for_every_draft(llm: FrozenLLM) -> None:
    request = _request(2, STEERING)
    [plain] = _engine(llm, 0).generate([request])

    [drafted] = _engine(llm, 5).generate([replace(request, prediction_token_ids=plain.token_ids)])

    assert drafted.token_ids == plain.token_ids
    assert plain.usage.passes == TOKENS
    assert drafted.usage.passes == 1 + -(-(TOKENS - 1) // 6)  # the prompt's, then five drafted tokens and one more each
    assert drafted.usage.accepted_drafts == TOKENS - drafted.usage.passes
    assert drafted.usage.drafted_tokens == drafted.usage.accepted_drafts


def test_a_foretelling_that_is_wrong_costs_no_pass(llm: FrozenLLM) -> None:
    request = _request(2, temperature=1.0)
    [plain] = _engine(llm, 0).generate([request])

    [drafted] = _engine(llm, 5).generate([replace(request, prediction_token_ids=(9,) * TOKENS)])

    assert _seen(drafted) == _seen(plain)
    assert drafted.usage.passes <= plain.usage.passes


def test_an_answer_that_repeats_itself_is_drafted_from_itself(llm: FrozenLLM) -> None:
    biased = _request(3, logit_bias=((40, 100.0),))

    [answer] = _engine(llm, 5).generate([biased])

    assert answer.token_ids == (40,) * TOKENS
    assert answer.usage.passes < TOKENS / 3


def test_a_draft_that_ends_the_answer_leaves_nothing_behind(llm: FrozenLLM) -> None:
    request = _request(4, STEERING)
    [plain] = _engine(llm, 0).generate([request])
    stopping = replace(request, params=replace(request.params, stop_token_ids=(plain.token_ids[9],)))
    [expected] = _engine(llm, 0).generate([stopping])

    engine = _engine(llm, 5)
    [drafted] = engine.generate([replace(stopping, prediction_token_ids=plain.token_ids)])

    _assert_equal_to_the_bit([drafted], [expected])
    assert drafted.finish_reason == "stop"
    assert not engine.has_work


def test_drafts_end_with_the_context(llm: FrozenLLM) -> None:
    prompt = (PROMPTS[4] * 2)[: 128 - TOKENS]
    params = SamplingParams(max_tokens=TOKENS, ignore_eos=True)
    request = GenerationRequest(id="full", prompt_token_ids=prompt, params=params)
    [plain] = _engine(llm, 0).generate([request])

    [drafted] = _engine(llm, 9).generate([replace(request, prediction_token_ids=plain.token_ids * 2)])

    assert drafted.token_ids == plain.token_ids


def test_a_pass_takes_no_more_rows_than_it_is_given(llm: FrozenLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [_request(index, logit_bias=((40, 100.0),)) for index in range(4)]
    engine = _engine(llm, 5, draft_rows=7)
    rows: list[int] = []

    def advance(step: PackedStep) -> Tensor:
        rows.append(step.tokens.numel())
        return FrozenLLM.advance(llm, step)

    monkeypatch.setattr(llm, "advance", advance)
    answers = engine.generate(requests)

    assert max(rows[6:]) == 7  # behind the prompts: four tokens and three drafted ones
    assert all(answer.usage.accepted_drafts > 0 for answer in answers)


def test_nothing_is_drafted_where_a_row_depends_on_the_others() -> None:
    model = random_model("llama_grouped").to(torch.bfloat16)
    engine = _engine(FrozenLLM(model, byte_tokenizer(), "torch", decoder="torch"), 5)

    [answer] = engine.generate([_request(3, logit_bias=((40, 100.0),))])

    assert not engine.drafts
    assert answer.usage.passes == TOKENS
    assert answer.usage.drafted_tokens == 0


@pytest.mark.parametrize("name", ["draft_tokens", "draft_rows"])
def test_a_negative_size_is_refused(name: str) -> None:
    with pytest.raises(InvalidParameter, match=name):
        EngineConfig(**{name: -1})

"""Candidates that are read side by side are decided on as if they had been read one after the other."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from proxy_model.decision.bank import ProxyRef
from proxy_model.decision.config import PolicyConfig, SkamConfig
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.decoding.request import Finished, GenerationRequest, SamplingParams
from proxy_model.errors import InvalidParameter
from proxy_model.llm.attention import PackedStep
from proxy_model.llm.frozen_llm import FrozenLLM
from tests.architectures import ARCHITECTURES, random_model
from tests.conftest import steering_policy
from tests.tiny_tokenizer import byte_tokenizer

SKAM = SkamConfig(p_t=0.0005, top_p=0.98, max_candidates=12)
CANDIDATE, BOTH, PREFIX = (ProxyRef(name, 1) for name in ("candidate", "both", "prefix"))
TOKENS = 24
LENGTHS = (3, 60, 17, 40, 9, 100)
PROMPTS = [
    tuple(torch.randint(8, 1400, (length,), generator=torch.Generator().manual_seed(length)).tolist())
    for length in LENGTHS
]


def _llm(name: str, dtype: torch.dtype) -> FrozenLLM:
    return FrozenLLM(random_model(name).to(dtype), byte_tokenizer(), name)


def _engine(llm: FrozenLLM, candidate_rows: int, candidates_per_pass: int = 16) -> Engine:
    sizes = EngineConfig(
        max_running=5, candidate_rows=candidate_rows, candidates_per_pass=candidates_per_pass, max_context=256
    )
    engine = Engine(llm, sizes)
    for seed, ref in enumerate((CANDIDATE, BOTH, PREFIX)):
        engine.load_proxy(ref, steering_policy(llm, ref.name, seed=seed), SKAM)  # type: ignore[arg-type]
    return engine


def _requests(proxies: Sequence[ProxyRef | None], **settings: object) -> list[GenerationRequest]:
    params = SamplingParams(max_tokens=TOKENS, seed=5, ignore_eos=True, **settings)  # type: ignore[arg-type]
    return [
        GenerationRequest(id=str(index), prompt_token_ids=prompt, params=params, proxy=ref, record=True)
        for index, (prompt, ref) in enumerate(zip(PROMPTS, list(proxies) * len(PROMPTS), strict=False))
    ]


def _equal(answer: Finished, expected: Finished) -> bool:
    """To the bit: the tokens, the states before them, those of all candidates, and what the proxy said of each."""
    mine, other = answer.trajectory, expected.trajectory
    assert mine is not None
    assert other is not None
    pairs = [(mine.hidden, other.hidden), (mine.accept_logits.nan_to_num(), other.accept_logits.nan_to_num())]
    if mine.candidate_hidden is not None and other.candidate_hidden is not None:
        pairs.append((mine.candidate_hidden, other.candidate_hidden))
    return answer.token_ids == expected.token_ids and all(torch.equal(*pair) for pair in pairs)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_decisions_are_those_of_the_walk(name: str) -> None:
    llm = _llm(name, torch.float32)
    requests = _requests([CANDIDATE, BOTH, CANDIDATE, PREFIX, None])

    walked, beside = (_engine(llm, rows).generate(requests) for rows in (1, 64))

    assert [answer.token_ids for answer in beside] == [answer.token_ids for answer in walked]
    assert [answer.usage.rejected for answer in beside] == [answer.usage.rejected for answer in walked]
    for request, slow, fast in zip(requests, walked, beside, strict=True):
        reads_candidates = request.proxy in (CANDIDATE, BOTH)
        assert slow.usage.passes == TOKENS + (1 + slow.usage.rejected if reads_candidates else 0)
        assert TOKENS + reads_candidates <= fast.usage.passes <= slow.usage.passes
    assert sum(answer.usage.rejected for answer in walked) > 40
    assert sum(answer.usage.passes for answer in beside) < 6 * (TOKENS + 1) + 12


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.9, "decision": "sample"}])
@pytest.mark.parametrize(("candidate_rows", "candidates_per_pass"), [(3, 16), (64, 3), (64, 16)])
def test_states_and_scores_are_those_of_the_walk_to_the_bit(
    candidate_rows: int, candidates_per_pass: int, settings: dict[str, object]
) -> None:
    llm = _llm("llama_untied", torch.bfloat16)
    requests = _requests([CANDIDATE, BOTH, CANDIDATE], **settings)

    walked = _engine(llm, 1).generate(requests)
    beside = _engine(llm, candidate_rows, candidates_per_pass).generate(requests)

    assert all(_equal(*pair) for pair in zip(beside, walked, strict=True))
    passes = [sum(answer.usage.passes for answer in answers) for answers in (beside, walked)]
    assert passes[0] < passes[1]


@pytest.mark.parametrize("proxy", [CANDIDATE, BOTH])
def test_decisions_that_are_shown_are_those_that_are_recorded(proxy: ProxyRef) -> None:
    llm = _llm("llama_tied", torch.bfloat16)
    request = _requests([proxy], temperature=0.9, decision="sample", return_decisions=True)[1]
    engine = _engine(llm, 16)
    trajectory = engine.generate([request])[0].trajectory
    assert trajectory is not None
    engine.submit(replace(request, record=False))

    shown = []
    while engine.has_work:
        shown += [position for delta in engine.step() for position in delta.decisions]

    assert len(shown) == TOKENS
    assert sum(len(position.candidates) - 1 for position in shown) > 5
    for position, logits, is_free in zip(shown, trajectory.accept_logits, trajectory.is_free, strict=True):
        for index, candidate in enumerate(position.candidates):
            expected = pytest.approx(float(logits[index].sigmoid())) if is_free[index] else None
            assert candidate.accept_prob == expected


def test_a_batch_of_siblings_and_settled_tokens_answers_as_each_alone() -> None:
    llm = _llm("qwen2_with_biases", torch.bfloat16)
    requests = _requests([None, CANDIDATE, PREFIX, BOTH])

    together = _engine(llm, 8).generate(requests)

    for answer, request in zip(together, requests, strict=True):
        assert _equal(answer, _engine(llm, 8).generate([request])[0])


def test_a_sibling_that_is_accepted_at_the_end_of_the_context_has_its_place() -> None:
    llm = _llm("llama_tied", torch.bfloat16)
    prompt = (PROMPTS[5] * 3)[: 256 - TOKENS]
    params = SamplingParams(max_tokens=TOKENS, ignore_eos=True, decision="sample", temperature=0.9, seed=12)
    request = GenerationRequest(id="full", prompt_token_ids=prompt, params=params, proxy=CANDIDATE, record=True)

    walked, beside = (_engine(llm, rows).generate([request])[0] for rows in (1, 12))

    assert walked.usage.rejected > 5
    assert _equal(beside, walked)


@pytest.mark.parametrize(("proxy", "most"), [("neutral", 1), ("candidate", 4)])
def test_only_who_rejects_gets_more_rows(
    small_llm: FrozenLLM, monkeypatch: pytest.MonkeyPatch, proxy: str, most: int
) -> None:
    engine = Engine(small_llm, EngineConfig(max_running=1, max_context=256))
    neutral = ProxyPolicy(PolicyConfig(llm_hidden_size=small_llm.hidden_size, features="candidate"))
    engine.load_proxy(ProxyRef("neutral", 1), neutral, SKAM)
    engine.load_proxy(CANDIDATE, steering_policy(small_llm, "candidate", seed=0), SKAM)
    num_rows: list[int] = []
    advance = small_llm.advance

    def counted(step: PackedStep) -> torch.Tensor:
        num_rows.append(len(step.tokens))
        return advance(step)

    monkeypatch.setattr(small_llm, "advance", counted)
    engine.generate(_requests([ProxyRef(proxy, 1)])[:1])

    assert (num_rows[0], num_rows[1]) == (len(PROMPTS[0]), 1)
    assert max(num_rows[1:]) == most


def test_one_row_is_the_least(small_llm: FrozenLLM) -> None:
    for name in ("candidate_rows", "candidates_per_pass"):
        with pytest.raises(InvalidParameter, match=rf"{name}.*0"):
            EngineConfig(**{name: 0})
    answers = _engine(small_llm, 2).generate(_requests([CANDIDATE]))

    assert [len(answer.token_ids) for answer in answers] == [TOKENS] * len(PROMPTS)

"""The actor as it serves: right, and the same for a row whatever else is in the batch."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from proxy_model.decision.config import FeatureMode, PolicyConfig
from proxy_model.decision.features import DecisionFeatures, normalised, slate_scalars, target_scalars
from proxy_model.decision.native_scorer import NativeScorer
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.decision.skam import Slate, SlateSettings, build_slate
from proxy_model.decision.slate_scorer import Share, SlateScorer, score_shares

NUM_ROWS, SIZE, WIDTH = 48, 576, 16


@pytest.fixture(params=["compiled", "torch"], autouse=True)
def who_computes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test here holds for both."""
    if request.param == "torch":
        monkeypatch.setattr(NativeScorer, "supports", staticmethod(lambda prefix: False))


@pytest.fixture(scope="module")
def policy() -> ProxyPolicy:
    """As wide as the demo's, its output layer far from version 0's."""
    generator = torch.Generator().manual_seed(3)
    policy = ProxyPolicy(PolicyConfig(llm_hidden_size=SIZE), generator=generator)
    torch.nn.init.normal_(policy.actor.output.weight, generator=generator)
    torch.nn.init.normal_(policy.actor.scalars.bias, generator=generator)
    return policy.requires_grad_(False)


@pytest.fixture(scope="module")
def embedding() -> torch.Tensor:
    return torch.randn(1000, SIZE, generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def hidden() -> torch.Tensor:
    return torch.randn(NUM_ROWS, SIZE, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def slate() -> Slate:
    logits = 3 * torch.randn(NUM_ROWS, 1000, generator=torch.Generator().manual_seed(6))
    settings = SlateSettings(
        temperature=torch.ones(NUM_ROWS),
        top_p=torch.full((NUM_ROWS,), 0.9),
        p_t=torch.full((NUM_ROWS,), 0.005),
        max_candidates=torch.full((NUM_ROWS,), WIDTH),
        is_renormalised=torch.zeros(NUM_ROWS, dtype=torch.bool),
    )
    return build_slate(logits, settings, WIDTH)


@pytest.fixture(scope="module")
def dial() -> ProxyPolicy:
    """The same, conditioned on a return."""
    generator = torch.Generator().manual_seed(8)
    policy = ProxyPolicy(PolicyConfig(llm_hidden_size=SIZE, is_conditioned=True), generator=generator)
    torch.nn.init.normal_(policy.actor.output.weight, generator=generator)
    return policy.requires_grad_(False)


@pytest.fixture(scope="module")
def target() -> torch.Tensor:
    """Every third row is given none."""
    values = torch.randn(NUM_ROWS, generator=torch.Generator().manual_seed(9)).tolist()
    return target_scalars([None if row % 3 == 0 else value for row, value in enumerate(values)])


@pytest.mark.parametrize("num_rows", [2, 3, 7, 32, 33, NUM_ROWS])
def test_a_row_scores_the_same_to_the_bit_alone_and_in_a_batch(
    policy: ProxyPolicy, embedding: torch.Tensor, hidden: torch.Tensor, slate: Slate, num_rows: int
) -> None:
    scorer = SlateScorer(policy, embedding)

    together = scorer.accept_logits(hidden[:num_rows], slate[slice(0, num_rows)])

    alone = [scorer.accept_logits(hidden[row : row + 1], slate[slice(row, row + 1)]) for row in range(num_rows)]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("num_rows", [2, 3, 7, 32, 33, NUM_ROWS])
def test_a_row_of_a_conditioned_proxy_scores_the_same_to_the_bit_alone_and_in_a_batch(
    dial: ProxyPolicy,
    embedding: torch.Tensor,
    hidden: torch.Tensor,
    slate: Slate,
    target: torch.Tensor,
    num_rows: int,
) -> None:
    scorer = SlateScorer(dial, embedding)

    together = scorer.accept_logits(hidden[:num_rows], slate[slice(0, num_rows)], target[:num_rows])

    for row in range(num_rows):
        one = slice(row, row + 1)
        assert torch.equal(together[one], scorer.accept_logits(hidden[one], slate[one], target[one])), row


def test_it_scores_as_the_policy_that_is_trained(
    policy: ProxyPolicy, embedding: torch.Tensor, hidden: torch.Tensor, slate: Slate
) -> None:
    found = SlateScorer(policy, embedding).accept_logits(hidden, slate)

    scalars = slate_scalars(slate.logprobs, slate.is_candidate)
    features = DecisionFeatures(
        hidden.repeat_interleave(WIDTH, dim=0), embedding[slate.tokens].flatten(0, 1), scalars.flatten(0, 1)
    )
    torch.testing.assert_close(found.flatten(), policy.accept_logits(features), rtol=1e-5, atol=1e-4)


def test_candidates_that_are_all_unlikely_score_as_the_policy_that_is_trained(
    policy: ProxyPolicy, hidden: torch.Tensor
) -> None:
    """Less likely than what padding counts as, so that padding is the likeliest of the slate."""
    embedding = torch.randn(60_000, SIZE, generator=torch.Generator().manual_seed(4))
    one = SlateSettings(
        temperature=torch.ones(1),
        top_p=torch.ones(1),
        p_t=torch.zeros(1),
        max_candidates=torch.tensor([4]),
        is_renormalised=torch.zeros(1, dtype=torch.bool),
    )
    flat = build_slate(torch.zeros(1, 60_000), one, WIDTH)

    found = SlateScorer(policy, embedding).accept_logits(hidden[:1], flat)

    scalars = slate_scalars(flat.logprobs, flat.is_candidate)
    features = DecisionFeatures(hidden[:1].expand(WIDTH, -1), embedding[flat.tokens[0]], scalars[0])
    torch.testing.assert_close(found[0], policy.accept_logits(features), rtol=1e-5, atol=1e-4)
    assert flat.is_candidate[0].tolist() == [True] * 4 + [False] * 12


def test_a_conditioned_proxy_scores_as_the_policy_that_is_trained(
    dial: ProxyPolicy, embedding: torch.Tensor, hidden: torch.Tensor, slate: Slate, target: torch.Tensor
) -> None:
    found = SlateScorer(dial, embedding).accept_logits(hidden, slate, target)

    features = DecisionFeatures(
        hidden.repeat_interleave(WIDTH, dim=0),
        embedding[slate.tokens].flatten(0, 1),
        slate_scalars(slate.logprobs, slate.is_candidate).flatten(0, 1),
        target.repeat_interleave(WIDTH, dim=0),
    )
    torch.testing.assert_close(found.flatten(), dial.accept_logits(features), rtol=1e-5, atol=1e-4)


def _version(
    seed: int, hidden_size: int = 256, *, features: FeatureMode = "prefix", is_conditioned: bool = False
) -> ProxyPolicy:
    generator = torch.Generator().manual_seed(seed)
    config = PolicyConfig(
        llm_hidden_size=SIZE, features=features, hidden_size=hidden_size, is_conditioned=is_conditioned
    )
    policy = ProxyPolicy(config, generator=generator)
    torch.nn.init.normal_(policy.actor.output.weight, generator=generator)
    torch.nn.init.normal_(policy.actor.output.bias, generator=generator)
    return policy.requires_grad_(False)


def test_rows_of_many_versions_score_to_the_bit_as_alone_and_rows_of_none_not_at_all(
    embedding: torch.Tensor, hidden: torch.Tensor, slate: Slate, target: torch.Tensor
) -> None:
    """Two versions are as wide, one is narrower, one is conditioned; their rows lie across each other's."""
    versions = [_version(1), _version(2), _version(3, 96), _version(4, is_conditioned=True)]
    scorers = [SlateScorer(version, embedding) for version in versions]
    rows = [[0, 5, 6, 47], [1, 2, 46], [3, 4, 44], [10, 8, 9, 45]]
    aims = [None, None, None, target[rows[3]]]
    shares = [Share(*share) for share in zip(scorers, rows, aims, strict=True)]

    scores = score_shares(normalised(hidden), slate, shares)

    for share in shares:
        for number, row in enumerate(share.rows):
            one = slice(row, row + 1)
            aim = None if share.target is None else share.target[number : number + 1]
            alone = share.scorer.accept_logits(hidden[one], slate[one], aim)
            assert torch.equal(scores[one], alone), row
    unasked = [row for row in range(NUM_ROWS) if not any(row in members for members in rows)]
    assert len(unasked) == 34
    assert scores[unasked].isnan().all()


@dataclass(frozen=True, slots=True)
class Read:
    """Candidates that the LLM has read, one of each slate, and the version that decides on them."""

    policy: ProxyPolicy
    vectors: list[torch.Tensor]
    slate: Slate
    ranks: torch.Tensor
    target: torch.Tensor | None

    def logits(self, rows: slice) -> torch.Tensor:
        """Of some of them."""
        scorer = SlateScorer(self.policy, torch.zeros(1000, SIZE))
        part, target = self.slate[rows], None if self.target is None else self.target[rows]
        vectors = [vector[rows] for vector in self.vectors]
        return scorer.candidate_logits(vectors, part.logprobs, part.is_candidate, self.ranks[rows], target)


class _Allocated(TorchDispatchMode):
    """The storages that operations write, by address, in bytes; all are kept, so that no address comes twice."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._kept: list[torch.Tensor] = []

    @property
    def sizes(self) -> list[int]:
        storages = [tensor.untyped_storage() for tensor in self._kept]
        return list({each.data_ptr(): each.nbytes() for each in storages}.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self._kept += [each for each in tree_leaves(found) if isinstance(each, torch.Tensor)]
        return found


def test_a_version_takes_the_memory_of_its_table_and_little_more() -> None:
    """While it is made, too: what is taken for a moment, the allocator keeps."""
    vocabulary, size = 40_000, 64
    embedding = torch.zeros(vocabulary, size, dtype=torch.bfloat16)
    policy = ProxyPolicy(PolicyConfig(llm_hidden_size=size, hidden_size=32))

    with _Allocated() as allocated:
        SlateScorer(policy, embedding)

    *others, table, given = sorted(allocated.sizes)
    assert (given, table) == (embedding.nbytes, 4 * vocabulary * 32)
    assert max(others) <= 4 * 512 * size


@pytest.fixture(params=["candidate", "both", "both, told"])
def read(request: pytest.FixtureRequest, hidden: torch.Tensor, slate: Slate, target: torch.Tensor) -> Read:
    features, _, told = request.param.partition(", ")
    policy = _version(11, features=features, is_conditioned=bool(told))
    after = torch.randn(NUM_ROWS, SIZE, generator=torch.Generator().manual_seed(12))
    vectors = [after] if features == "candidate" else [hidden, after]
    return Read(policy, vectors, slate, torch.arange(NUM_ROWS) * 5 % WIDTH, target if told else None)


def test_candidates_that_were_read_score_as_the_policy_that_is_trained(read: Read) -> None:
    found = read.logits(slice(None))

    scalars = slate_scalars(read.slate.logprobs, read.slate.is_candidate)[torch.arange(NUM_ROWS), read.ranks]
    features = DecisionFeatures(read.vectors[0], read.vectors[-1], scalars, read.target)
    torch.testing.assert_close(found, read.policy.accept_logits(features), rtol=1e-5, atol=1e-4)


def test_a_candidate_that_was_read_scores_the_same_to_the_bit_alone_and_in_a_batch(read: Read) -> None:
    together = read.logits(slice(None))

    alone = [read.logits(slice(row, row + 1)) for row in range(NUM_ROWS)]
    assert torch.equal(together, torch.cat(alone))

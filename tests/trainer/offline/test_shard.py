"""What goes into a shard comes out of it, and nothing that could not have gone in."""

from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import safetensors.torch
import torch
from torch import Tensor

from proxy_model.decision.trajectory import Trajectory
from proxy_model.errors import BadCheckpoint
from tests.trainer.trajectories import trajectory_by_hand
from trainer.offline.shard import parse, serialise

SCORES = torch.tensor([2.5, -1.0])


def two_answers() -> list[Trajectory]:
    """The second was cut, and its second token is inadmissible."""
    first = trajectory_by_hand()
    return [
        first,
        replace(first, prompt_token_ids=(8, 9), finish_reason="length", ranks=torch.tensor([1, -1]), target_return=1.5),
    ]


def assert_equal(old: Trajectory, new: Trajectory) -> None:
    for name in (each.name for each in fields(Trajectory)):
        before, after = getattr(old, name), getattr(new, name)
        if isinstance(before, Tensor):
            torch.testing.assert_close(after, before, rtol=0, atol=0, equal_nan=True, msg=name)
        else:
            assert after == before, name


def test_answers_come_back_as_they_were() -> None:
    answers = two_answers()

    found = parse(serialise(answers, SCORES), "shard")

    assert found.scores.tolist() == [2.5, -1.0]
    assert found.kinds.tolist() == [0, 0]
    assert len(found.trajectories) == 2
    for old, new in zip(answers, found.trajectories, strict=True):
        assert_equal(old, new)


def test_the_states_of_candidates_go_to_the_answers_that_visited_them() -> None:
    """The first answer visits three candidates, the second, whose last position has no decision, two."""
    states = torch.arange(10.0).view(5, 2)
    first, second = two_answers()
    answers = [replace(first, candidate_hidden=states[:3]), replace(second, candidate_hidden=states[3:])]

    found = parse(serialise(answers, SCORES), "shard").trajectories

    assert_equal(answers[0], found[0])
    assert_equal(answers[1], found[1])


def test_kinds_are_stored_where_there_are_several() -> None:
    data = serialise(two_answers(), SCORES, torch.tensor([0, 3]))

    assert parse(data, "shard").kinds.tolist() == [0, 3]
    assert "kinds" not in safetensors.torch.load(serialise(two_answers(), SCORES, torch.tensor([0, 0])))


def test_logits_that_nobody_gave_are_not_stored() -> None:
    answers = [replace(each, accept_logits=torch.full_like(each.logprobs, float("nan"))) for each in two_answers()]

    data = serialise(answers, SCORES)

    assert "accept_logits" not in safetensors.torch.load(data)
    assert bool(parse(data, "shard").trajectories[1].accept_logits.isnan().all())


def _set(name: str, index: int, value: float) -> Callable[[dict[str, Tensor]], None]:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors[name].view(-1)[index] = value

    return change


def _cut(name: str) -> Callable[[dict[str, Tensor]], None]:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors[name] = tensors[name][1:].clone()

    return change


@pytest.mark.parametrize(
    ("change", "reason", "said"),
    [
        (lambda tensors: tensors.pop("ranks"), "format", "ranks"),
        (lambda tensors: tensors.update(more=torch.zeros(1)), "format", "more"),
        (lambda tensors: tensors.update(scores=tensors["scores"].double()), "format", "float64"),
        (_cut("scores"), "format", "scores"),
        (_cut("hidden"), "format", "hidden"),
        (_cut("is_free"), "format", "is_free"),
        (_set("lengths", 0, 3), "format", "lengths"),
        (_set("prompt_lengths", 0, 2), "format", "lengths"),
        (_set("ranks", 0, 3), "format", "rank"),  # beyond the slate
        (_set("ranks", 1, 2), "format", "rank"),  # on its padding
        (_set("ranks", 0, -2), "format", "rank"),
        (_set("hidden", 0, float("inf")), "not_finite", "hidden"),
        (_set("scores", 0, float("nan")), "not_finite", "scores"),
        (_set("logprobs", 0, float("nan")), "not_finite", "logprobs"),
    ],
)
def test_what_learning_would_choke_on_is_refused(
    change: Callable[[dict[str, Tensor]], object], reason: str, said: str
) -> None:
    tensors = safetensors.torch.load(serialise(two_answers(), SCORES))
    change(tensors)

    with pytest.raises(BadCheckpoint, match=said) as caught:
        parse(safetensors.torch.save(tensors), "shard")

    assert caught.value.reason == reason


def test_half_a_shard_is_refused() -> None:
    with pytest.raises(BadCheckpoint, match="not a safetensors file"):
        parse(serialise(two_answers(), SCORES)[:-5], "shard")

from dataclasses import replace
from math import exp, log

import pytest
import torch

from tests.trainer.trajectories import trajectory_by_hand
from trainer.batch import action_logprobs, flatten, kl_to_prior, penalties

EMBEDDING = torch.arange(16.0).view(8, 2)


def log_sigmoid(logit: float) -> float:
    return -log(1 + exp(-logit))


def test_a_batch_lists_the_visited_decisions_in_order() -> None:
    batch = flatten([trajectory_by_hand(), trajectory_by_hand()], EMBEDDING)

    assert batch.lengths.tolist() == [2, 2]
    assert batch.position.tolist() == [0, 0, 1, 2, 2, 3]
    assert batch.is_accept.tolist() == [False, True, True] * 2
    assert batch.is_free.tolist() == [True, False, True] * 2
    assert batch.candidate[:3].tolist() == [[8.0, 9.0], [10.0, 11.0], [4.0, 5.0]]
    assert batch.scalars[:3, 0].tolist() == pytest.approx([0, 1 / 16, 0])
    assert batch.hidden.dtype == torch.float32
    assert batch.hidden[1].tolist() == [3.0, 5.0]


def test_gaps_and_log_probabilities_are_those_of_the_accepted_candidate() -> None:
    batch = flatten([trajectory_by_hand()], EMBEDDING)

    assert batch.gaps.tolist() == pytest.approx([0.75, 0.0])
    assert batch.token_logprobs.tolist() == pytest.approx([-1.25, -0.25])
    assert batch.ranks.tolist() == [1, 0]


def test_old_log_probabilities_are_of_the_action_and_zero_where_forced() -> None:
    batch = flatten([trajectory_by_hand()], EMBEDDING)

    assert batch.old_logprobs.tolist() == pytest.approx([log_sigmoid(-0.75), 0.0, log_sigmoid(2.0)])


def test_read_candidates_replace_embeddings() -> None:
    states = torch.tensor([[9.0, 1.0], [8.0, 2.0], [7.0, 3.0]])

    batch = flatten([replace(trajectory_by_hand(), candidate_hidden=states)], EMBEDDING)

    assert batch.candidate.tolist() == states.tolist()


def test_a_batch_refuses_states_that_do_not_fit_the_decisions() -> None:
    with pytest.raises(ValueError, match="2 candidate states for 3 decisions"):
        flatten([replace(trajectory_by_hand(), candidate_hidden=torch.zeros(2, 2))], EMBEDDING)


def test_a_batch_refuses_tokens_outside_their_slate() -> None:
    with pytest.raises(ValueError, match="in its slate"):
        flatten([replace(trajectory_by_hand(), ranks=torch.tensor([1, -1]))], EMBEDDING)


def test_action_log_probabilities_tell_accepts_from_rejects() -> None:
    logprobs = action_logprobs(torch.tensor([2.0, 2.0]), torch.tensor([True, False]))

    assert logprobs.tolist() == pytest.approx([-0.126928, -2.126928])


def test_kl_to_the_prior_is_zero_at_the_prior_and_counts_both_actions() -> None:
    logits = torch.tensor([log(0.8 / 0.2), log(0.3 / 0.7)])

    assert kl_to_prior(logits, 0.8).tolist() == pytest.approx(
        [0.0, 0.3 * log(0.3 / 0.8) + 0.7 * log(0.7 / 0.2)], abs=1e-6
    )


def test_each_penalty_measures_a_positions_drift() -> None:
    batch = flatten([trajectory_by_hand()], EMBEDDING)
    kl = kl_to_prior(torch.tensor([0.75, 2.0]), 0.9).tolist()

    assert penalties(batch, "gap", 0.9).tolist() == pytest.approx([0.75, 0.0])
    assert penalties(batch, "action_kl", 0.9).tolist() == pytest.approx(kl)
    assert penalties(batch, "token_kl", 0.9).tolist() == pytest.approx(
        [log_sigmoid(-0.75) + 1.25, log_sigmoid(2.0) + 0.25]
    )
    assert penalties(batch, "none", 0.9).tolist() == [0.0, 0.0]

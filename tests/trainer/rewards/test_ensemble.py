import math
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from proxy_model.errors import InvalidParameter, ModelUnavailable
from tests.trainer.rewards.test_terms import Fixed
from tests.trainer.tiny_llm import tiny_llm, tiny_parts
from trainer.rewards import bradley_terry
from trainer.rewards.build import RewardBuilder
from trainer.rewards.classifier import ClassifierReward
from trainer.rewards.ensemble import Ensemble
from trainer.rewards.linear_head import fit_head
from trainer.rewards.model import Conversation
from trainer.rewards.terms import parse_terms, terms_to_json

USER = [{"role": "user", "content": "Hello?"}]


def test_an_ensemble_believes_what_its_members_agree_on() -> None:
    members = (Fixed(1.0, 4.0), Fixed(3.0, 0.0), Fixed(2.0, 2.0))

    scores = Ensemble(members, 0.5).score([])

    spread = math.sqrt(2 / 3), math.sqrt(8 / 3)
    assert scores.tolist() == pytest.approx([2 - 0.5 * spread[0], 2 - 0.5 * spread[1]])


def test_calibration_error_is_the_weighted_gap_of_the_bins() -> None:
    margins = torch.tensor([math.log(9.0), math.log(9.0), -math.log(9.0), math.log(1.5)])  # .9 three times, .6 once

    assert bradley_terry.calibration_error(margins) == pytest.approx((abs(2 - 2.7) + abs(1 - 0.6)) / 4)


def test_new_pairs_draw_an_old_head_only_as_far_as_they_speak() -> None:
    old = torch.tensor([1.0, -2.0])
    differences = torch.tensor([[1.0, 0.0], [2.0, 0.0]])  # nothing about the second feature

    fitted = bradley_terry.fit(differences, 0.1, old)

    assert fitted[1] == pytest.approx(-2.0)
    assert fitted[0] > 1.05
    assert torch.allclose(bradley_terry.fit(differences, 1e4, old), old, atol=1e-3)


def test_a_head_that_starts_from_another_keeps_its_standardisation() -> None:
    generator = torch.Generator().manual_seed(0)
    chosen, rejected = (torch.randn(20, 1, 3, generator=generator) for _ in range(2))
    first, _ = fit_head(chosen, rejected, torch.zeros(20, 2, 1), l2=[0.1], length_control=0.0, seed=0)

    again, _ = fit_head(chosen + 5, rejected, torch.zeros(20, 2, 1), l2=[0.1], length_control=0.0, seed=0, start=first)

    assert again.standardisation is first.standardisation
    assert not torch.allclose(again.weights, first.weights)


def test_a_classifier_scores_each_answer_by_itself(tmp_path: Path) -> None:
    _, tokenizer = tiny_parts()
    tokenizer.save_pretrained(tmp_path)
    config = LlamaConfig(
        vocab_size=257, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    config.num_labels = 1
    LlamaForSequenceClassification(config).save_pretrained(tmp_path)
    (term,) = parse_terms([{"type": "classifier", "model": str(tmp_path)}])
    model = RewardBuilder(tiny_llm()).build(term.source)
    talks = [Conversation(USER, answer) for answer in ("yes", "no, not at all", "")]

    together = model.score(talks)

    assert torch.allclose(together, torch.cat([model.score([each]) for each in talks]), atol=1e-5)
    assert len(set(together.tolist())) == 3
    assert model.score([]).shape == (0,)
    assert parse_terms(terms_to_json([term])) == (term,)


def test_what_is_no_classifier_or_no_ensemble_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="cannot be loaded"):
        ClassifierReward(str(tmp_path))
    for table in ({"folders": ["a"]}, {"folders": ["a", "b"], "pessimism": -1}):
        with pytest.raises(InvalidParameter, match="at least"):
            parse_terms([{"type": "ensemble", **table}])

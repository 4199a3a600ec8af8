import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from proxy_model.errors import GraderFailed, InvalidParameter
from tests.trainer.runs import small_config
from trainer.config_file import config_from_mapping, config_to_mapping, read_config
from trainer.metrics import term_metrics
from trainer.rewards.model import Conversation
from trainer.rewards.terms import parse_terms, terms_to_json
from trainer.rewards.weighted import WeightedReward, WeightedTerm

DEMO = Path(__file__).parents[3] / "demo"

TALKS = [
    Conversation([{"role": "user", "content": "?"}], "yes", source="help_base"),
    Conversation([{"role": "user", "content": "!"}], "no", source="harm_base"),
]

TABLES = """
output = "out"
prompts = "p.jsonl"
proxy = "calm"

[[rewards]]
type = "trained"
folder = "demo/rewards/harmless"

[[rewards]]
type = "length"
per_token = -0.01
name = "short"
weight = 2
sources = ["ask", "hh_"]

[[rewards]]
type = "json"
weight = -0.5
"""


class Fixed:
    """Scores that are known."""

    def __init__(self, *scores: float) -> None:
        self.scores = scores

    def score(self, conversations: Sequence[Conversation]) -> Tensor:
        return torch.tensor(self.scores)


def test_tables_of_rewards_become_terms_with_names_and_weights(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(TABLES)

    terms = read_config(path).rewards

    assert [(term.name, term.source.type, term.weight, term.sources) for term in terms] == [
        ("harmless", "trained", 1.0, ()),
        ("short", "length", 2.0, ("ask", "hh_")),
        ("json", "json", -0.5, ()),
    ]
    assert parse_terms(json.loads(json.dumps(terms_to_json(terms)))) == terms


def test_settings_survive_their_way_through_json(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run", iterations=1)

    assert config_from_mapping(json.loads(json.dumps(config_to_mapping(config)))) == config


@pytest.mark.parametrize("name", ["harmless", "helpful"])
def test_the_shipped_settings_name_rewards_that_are_shipped(name: str) -> None:
    terms = read_config(DEMO / f"{name}.toml", output=Path("out")).rewards

    assert terms[0].name == name
    for term in terms:
        assert term.source.type == "trained"
        assert (DEMO / "rewards" / term.name / "manifest.json").is_file()


@pytest.mark.parametrize(
    ("tables", "named", "says"),
    [
        ([{"type": "oracle"}], "rewards[0].type", "'trained'"),
        ([{"folder": "x"}], "rewards[0].type", "'string_check'"),
        ([{"type": "trained"}], "rewards[0].folder", "the path of a folder"),
        ([{"type": "trained", "folder": "x", "l2": 1}], "rewards[0].l2", "left out"),
        ([{"type": "json"}, {"type": "json"}], "rewards.name", "different"),
        ([{"type": "json"}, {"type": "length"}], "rewards[1].target", "only one"),
        ([{"type": "json", "weight": 0}], "weight", "other than 0"),
        ([{"type": "json", "weight": math.inf}], "weight", "other than 0"),
        ([{"type": "json", "weight": "1"}], "rewards[0].weight", "a number"),
        ([{"type": "json", "sources": []}], "rewards[0].sources", "left out"),
        ([{"type": "json", "sources": "hh_"}], "rewards[0].sources", "a list"),
        ([{"type": "json", "sources": [""]}], "rewards[0].sources", "how sources begin"),
        (["json"], "rewards[0]", "a table"),
        ("json", "rewards", "a list of tables"),
        ([], "rewards", "given"),
    ],
)
def test_bad_tables_are_refused_by_name(tables: object, named: str, says: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        config_from_mapping({"output": "o", "prompts": "p", "proxy": "x", "rewards": tables})

    assert refused.value.name == named
    assert says in str(refused.value)


def test_each_term_is_reported_before_its_weight_and_the_sum_after() -> None:
    kind = WeightedTerm(name="kind", weight=1.0, model=Fixed(1.0, 4.0))
    long = WeightedTerm(name="long", weight=-0.5, model=Fixed(2.0, 8.0))
    both = WeightedReward((kind, long))

    scores = both.scores(TALKS)

    assert both.total(scores).tolist() == [0.0, 0.0]
    assert term_metrics(scores) == {"reward/term/kind": 2.5, "reward/term/long": 5.0}


def test_a_term_that_is_not_finite_fails_by_its_name() -> None:
    broken = WeightedTerm(name="odd", weight=1.0, model=Fixed(1.0, math.nan))

    with pytest.raises(GraderFailed, match="'odd' failed: it gave a score that is not finite"):
        WeightedReward((broken,)).scores(TALKS)


def test_a_term_scores_only_the_prompts_that_it_is_for() -> None:
    calm = WeightedTerm(name="calm", weight=2.0, model=Fixed(3.0), sources=("harm",))
    kind = WeightedTerm(name="kind", weight=-1.0, model=Fixed(1.0, 4.0), sources=("help", "harm"))
    rare = WeightedTerm(name="rare", weight=1.0, model=Fixed(), sources=("rare",))
    reward = WeightedReward((calm, kind, rare))

    scores = reward.scores(TALKS)

    assert reward.total(scores).tolist() == [-1.0, 2.0]
    assert scores["calm"].isnan().tolist() == [True, False]
    assert term_metrics(scores) == {"reward/term/calm": 3.0, "reward/term/kind": 2.5}

import json
from pathlib import Path

import pytest

from proxy_model.errors import DataError
from trainer.preferences import PreferencePair, deal, load_preferences

USER = [{"role": "user", "content": "Hi"}]
SHIPPED = Path(__file__).parents[2] / "data"


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def pair(first_turn: str) -> PreferencePair:
    return PreferencePair(prompt=[{"role": "user", "content": first_turn}], chosen="a", rejected="b")


def test_pairs_of_several_files_come_in_order(tmp_path: Path) -> None:
    one = write(tmp_path / "1.jsonl", {"prompt": USER, "chosen": "a", "rejected": "b", "source": "s", "margin": 0.5})
    two = write(tmp_path / "2.jsonl", {"prompt": USER, "chosen": "c", "rejected": "d"})

    pairs = load_preferences([two, one])

    assert [(each.chosen, each.rejected, each.source) for each in pairs] == [("c", "d", ""), ("a", "b", "s")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": USER, "chosen": "a"}, "'rejected' is missing"),
        ({"prompt": USER, "chosen": "a", "rejected": ["b"]}, "'rejected' must be a string that is not blank"),
        ({"prompt": USER, "chosen": " ", "rejected": "b"}, "'chosen' must be a string that is not blank"),
        ({"prompt": USER, "chosen": "a", "rejected": "a"}, "'chosen' and 'rejected' are equal"),
        ({"prompt": USER, "chosen": "a", "rejected": "b", "label": 1}, "'label' is not a known key"),
    ],
)
def test_a_broken_pair_is_named_with_file_number_and_reason(row: object, reason: str, tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", {"prompt": USER, "chosen": "a", "rejected": "b"}, row)

    with pytest.raises(DataError) as caught:
        load_preferences([path])

    assert (caught.value.path, caught.value.line_number) == (path, 2)
    assert reason in caught.value.reason


def test_reward_and_judge_never_see_the_same_first_turn() -> None:
    pairs = [pair(f"question {number}") for number in range(400)]

    reward, judge = deal(pairs, "reward"), deal(pairs, "judge")

    assert {each.prompt[0]["content"] for each in reward}.isdisjoint(each.prompt[0]["content"] for each in judge)
    assert len(reward) + len(judge) == 400
    assert 250 < len(reward) < 310  # 280 expected, deviation 9.2: a good hash fails this once in 900 choices of it
    assert deal(pairs, "all") == pairs


def test_case_and_spaces_of_the_first_turn_do_not_move_a_pair_to_the_other_half() -> None:
    halves = [(pair(f"Question {n}").half, pair(f"  question  {n}\n").half) for n in range(50)]

    assert all(first == second for first, second in halves)
    assert len(set(halves)) == 2


@pytest.mark.parametrize("name", sorted(path.name for path in SHIPPED.glob("*_pairs_*.jsonl.gz")))
def test_shipped_pairs_are_sound_and_free_of_non_commercial_sources(name: str) -> None:
    pairs = load_preferences([SHIPPED / name])

    assert {each.source.split("_")[0] for each in pairs} <= {"hh", "pandalm"}


def test_no_shipped_test_dialogue_starts_as_a_shipped_training_dialogue_does() -> None:
    def starts(pattern: str) -> set[str]:
        pairs = load_preferences(sorted(SHIPPED.glob(pattern)))
        return {" ".join(each.prompt[0]["content"].lower().split()) for each in pairs}

    train, test = starts("*_pairs_train*.jsonl.gz"), starts("*_pairs_test.jsonl.gz")

    assert len(train) > 4000
    assert train.isdisjoint(test)

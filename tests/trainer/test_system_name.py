from pathlib import Path

import pytest

from proxy_model.errors import InvalidParameter
from trainer.evaluation.system_name import Kind, parse_row


@pytest.mark.parametrize(
    ("text", "kind", "number", "rate", "options"),
    [
        ("base", "base", None, None, {}),
        ("base:sample", "sample", None, None, {}),
        ("base:sample:temperature=.5:top_p=0.9", "sample", None, None, {"temperature": 0.5, "top_p": 0.9}),
        ("best-of:16", "best-of", 16, None, {}),
        ("rerank:10:weight=3", "rerank", 10, None, {"weight": 3.0}),
        ("accept-all", "accept-all", None, None, {}),
        ("random", "random", None, None, {}),
        ("random:.75", "random", None, 0.75, {}),
        ("helpful@6:p_t=.015:temperature=2:decision=sample", "proxy", None, None,
         {"p_t": 0.015, "temperature": 2.0, "decision": "sample"}),
        ("helpful@6:return=+2", "proxy", None, None, {"return": 2.0}),
    ],
)  # fmt: skip
def test_each_kind_is_spelled_as_documented(
    text: str, kind: Kind, number: int | None, rate: float | None, options: dict[str, float | str]
) -> None:
    (row,) = parse_row(text)

    (member,) = row.members
    assert row.label == text
    assert (member.kind, member.number, member.accept_rate, member.options) == (kind, number, rate, options)
    assert member.source == ("helpful@6" if kind == "proxy" else "")


def test_a_label_joins_the_seeds_of_one_system() -> None:
    (row,) = parse_row("ppo=runs/0/ppo:p_t=.1,runs/1/ppo:p_t=.1,a@2")

    assert row.label == "ppo"
    assert [each.source for each in row.members] == ["runs/0/ppo", "runs/1/ppo", "a@2"]
    assert [each.options for each in row.members] == [{"p_t": 0.1}, {"p_t": 0.1}, {}]


def test_several_values_are_a_row_for_each_combination() -> None:
    rows = parse_row("s=a:p_t=.1/.01:temperature=.5/1:top_p=.9")

    assert [row.label for row in rows] == [
        "s:p_t=.1:temperature=.5", "s:p_t=.1:temperature=1", "s:p_t=.01:temperature=.5", "s:p_t=.01:temperature=1",
    ]  # fmt: skip
    assert rows[2].members[0].options == {"p_t": 0.01, "temperature": 0.5, "top_p": 0.9}
    assert rows[2].members[0].text == "a:p_t=.01:temperature=.5:top_p=.9"


def test_a_folder_may_have_an_equals_sign_in_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "lr=1,2"
    folder.mkdir()

    (row,) = parse_row(str(folder))

    assert [each.source for each in row.members] == [str(folder)]


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("best-of", "N in"),
        ("best-of:1", "N in"),
        ("best-of:2.5", "N in"),
        ("rerank:x", "K in"),
        ("rerank:10:weight=0", "weight in"),
        ("base:sample:temperature=0", "temperature in"),
        ("base:p_t=.1", "none"),
        ("random:1", "accept-all"),
        ("random:nan", "accept rate"),
        ("helpful:p_t=2", "p_t in"),
        ("helpful:return=+4.5", "return in [-4.0, 4.0]"),
        ("helpful:target=2", "decision, p_t"),
        ("helpful:decision=dice", "greedy"),
        ("helpful:p_t=.1:p_t=.2", "NAME"),
        ("helpful:p_t=.1:fast", "NAME"),
        ("helpful@", "NAME"),
        ("sample", "NAME"),
        ("s=a:p_t=.1/.2,b", "same values"),
        ("s=", "NAME"),
        ("s=a,", "NAME"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_would(text: str, allowed: str) -> None:
    with pytest.raises(InvalidParameter, match="systems") as refusal:
        parse_row(text)

    assert allowed in str(refusal.value)

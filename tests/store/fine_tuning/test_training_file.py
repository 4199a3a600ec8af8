"""Training files line by line: good rows of either form, and bad ones by number and reason."""

import json
from functools import partial
from typing import Any

import pytest

from store.fine_tuning.rows import answer_row, held_out_row, pair_row, prompt_row
from store.fine_tuning.training_file import MAX_LINE_BYTES, check_file, read_rows

USER = {"role": "user", "content": "hello"}
GOOD = {"messages": [USER]}
PROMPT = partial(prompt_row, fields=[])


def lines(*rows: Any) -> bytes:
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


def pieces(content: bytes, size: int) -> list[bytes]:
    return [content[start : start + size] for start in range(0, len(content), size)]


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_rows_come_out_however_the_file_is_cut(size: int) -> None:
    developer = {"role": "developer", "content": "Be kind."}
    long = {"messages": [developer, USER, {"role": "assistant", "content": "hi"}, {"role": "user", "content": "é?"}]}
    content = lines({"prompt": [USER], "source": "x"}, b"", b"  \r", long)[:-1]

    rows = list(read_rows(pieces(content, size), PROMPT))

    assert [(number, row["prompt"]) for number, row in rows] == [
        (1, [USER]),
        (4, [{"role": "system", "content": "Be kind."}, *long["messages"][1:]]),
    ]
    assert rows[0][1]["item"]["source"] == "x"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"{", "not JSON"),
        (b"\xff{}", "not UTF-8"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "half a character"),
        ([1], "object is expected, got list"),
        ({}, "either 'messages' or 'prompt'"),
        ({"messages": [USER], "prompt": [USER]}, "either 'messages' or 'prompt'"),
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "'messages'[0].role must be"),
        ({"messages": [{"role": "user", "content": " "}]}, "not blank"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "not blank"),
        ({"prompt": [USER, {"role": "assistant", "content": "x"}]}, "end with user"),
        ({"prompt": [USER, USER]}, "alternate"),
        (b'{"a": "' + b"x" * MAX_LINE_BYTES + b'"}', "longer than"),
        ({"messages": [USER], "answer": {"long": "a"}}, "'answer.short', which is missing"),
        ({"messages": [USER], "answer": "a"}, "'answer.short', which is missing"),
    ],
)
def test_a_bad_line_is_named_with_its_reason(row: Any, reason: str) -> None:
    good = {**GOOD, "answer": {"short": "a"}}
    content = lines(*[good] * 10, row, *[good] * 5)

    report = check_file(pieces(content, 1000), partial(prompt_row, fields=["answer.short"]))

    assert (report.num_rows, report.num_bad) == (16, 1)
    assert report.offenders[0][0] == 11
    assert reason in report.offenders[0][1]
    assert reason in str(report.problem)


def test_the_first_ten_offenders_are_named_and_the_others_counted() -> None:
    report = check_file([lines(*[{}] * 13, *[GOOD] * 20)], PROMPT)

    assert report.problem is not None
    assert report.problem.startswith("13 of 33 lines cannot be used: line 1: a row has")
    assert "line 10: " in report.problem
    assert "line 11: " not in report.problem
    assert report.problem.endswith("; and 3 more")


def test_a_file_needs_ten_rows() -> None:
    assert check_file([lines(*[GOOD] * 9)], PROMPT).problem == "The file has 9 rows; at least 10 are needed"
    assert check_file([lines(*[GOOD] * 10)], PROMPT).problem is None
    assert check_file([], PROMPT).problem == "The file has 0 rows; at least 10 are needed"


HELLO = {"role": "assistant", "content": "hi"}
BYE = {"role": "assistant", "content": "bye"}
PAIR = {"input": {"messages": [USER]}, "preferred_output": [HELLO], "non_preferred_output": [BYE]}


def test_an_answer_is_the_last_turn_of_its_conversation() -> None:
    turns = [{"role": "developer", "content": "Be kind."}, USER, {**HELLO, "weight": 0}, USER, {**BYE, "weight": 1}]

    row = answer_row({"messages": turns})

    assert row["prompt"] == [{"role": "system", "content": "Be kind."}, USER, HELLO, USER]
    assert row["answer"] == "bye"


def test_pairs_are_read_in_openais_form_and_in_ours() -> None:
    wanted = {"prompt": [USER], "chosen": "hi", "rejected": "bye"}

    assert pair_row(PAIR) == wanted
    assert pair_row({**PAIR, "input": {"messages": [USER], "tools": [], "parallel_tool_calls": True}}) == wanted
    assert pair_row({"prompt": [USER], "chosen": "hi", "rejected": "bye", "source": "x", "margin": 2}) == wanted


@pytest.mark.parametrize(
    "row",
    [
        GOOD,
        {"prompt": [USER], "source": "x"},
        {"messages": [USER, HELLO]},
        PAIR,
        {"prompt": [USER], "chosen": "a", "rejected": "b"},
    ],
)
def test_the_prompt_is_held_out_of_a_row_of_any_form(row: dict[str, Any]) -> None:
    assert held_out_row(row)["prompt"] == [USER]
    assert "answer" not in held_out_row(row)


def test_a_row_that_is_held_out_is_checked_as_one_that_is_learnt_from() -> None:
    report = check_file([lines(*[GOOD] * 10, {**PAIR, "preferred_output": []}, {"messages": []})], held_out_row)

    assert report.problem is not None
    assert [number for number, _ in report.offenders] == [11, 12]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (GOOD, "at least two messages"),
        ({"messages": [USER, USER]}, "'messages'[1] must be an assistant's turn"),
        ({"messages": [USER, {**HELLO, "content": " "}]}, "'messages'[1].content must be a string that is not blank"),
        ({"messages": [USER, {**HELLO, "content": None, "tool_calls": []}]}, "nothing else"),
        ({"messages": [USER, {**HELLO, "weight": 0}]}, "weight 0"),
        ({"messages": [USER, {**HELLO, "weight": 2}]}, "nothing else"),
        ({"messages": [HELLO, HELLO]}, "end with user"),
        ({"prompt": [USER], "answer": "x"}, "'messages' is missing"),
        ({"messages": [USER, HELLO], "answer": "x"}, "'answer' is not a known key"),
    ],
)
def test_a_row_without_an_answer_to_learn_is_refused(row: Any, reason: str) -> None:
    report = check_file([lines(*[{"messages": [USER, HELLO]}] * 10, row)], answer_row)

    assert [number for number, _ in report.offenders] == [11]
    assert reason in report.offenders[0][1]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({**PAIR, "non_preferred_output": [{**HELLO, "content": " hi\n"}]}, "the two answers are equal"),
        ({"prompt": [USER], "chosen": "a", "rejected": "a"}, "the two answers are equal"),
        ({"prompt": [USER], "chosen": "a", "rejected": ""}, "'rejected' must be a string that is not blank"),
        ({"prompt": [USER], "chosen": "a"}, "'rejected' is missing"),
        ({"prompt": [USER], "chosen": "a", "rejected": "b", "score": 1}, "'score' is not a known key"),
        ({**PAIR, "preferred_output": []}, "'preferred_output' must be a list of one message"),
        ({**PAIR, "preferred_output": [HELLO, BYE]}, "'preferred_output' must be a list of one message"),
        ({**PAIR, "preferred_output": [USER]}, "'preferred_output'[0] must be an assistant's turn"),
        ({**PAIR, "input": {"messages": [USER, HELLO]}}, "'input.messages' must alternate"),
        ({**PAIR, "input": [USER]}, "'input' must be an object"),
        ({**PAIR, "input": {"messages": [USER], "tools": [{"type": "function"}]}}, "'input.tools' must be empty"),
        ({"input": {"messages": [USER]}, "preferred_output": [HELLO]}, "'non_preferred_output' is missing"),
    ],
)
def test_a_pair_that_prefers_nothing_is_refused(row: Any, reason: str) -> None:
    report = check_file([lines(*[PAIR] * 10, row)], pair_row)

    assert [number for number, _ in report.offenders] == [11]
    assert reason in report.offenders[0][1]

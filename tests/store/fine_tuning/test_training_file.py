"""Training files line by line: good rows of either form, and bad ones by number and reason."""

import json
from typing import Any

import pytest

from store.fine_tuning.training_file import MAX_LINE_BYTES, check_file, read_rows

USER = {"role": "user", "content": "hello"}
GOOD = {"messages": [USER]}


def lines(*rows: Any) -> bytes:
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


def pieces(content: bytes, size: int) -> list[bytes]:
    return [content[start : start + size] for start in range(0, len(content), size)]


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_rows_come_out_however_the_file_is_cut(size: int) -> None:
    developer = {"role": "developer", "content": "Be kind."}
    long = {"messages": [developer, USER, {"role": "assistant", "content": "hi"}, {"role": "user", "content": "é?"}]}
    content = lines({"prompt": [USER], "source": "x"}, b"", b"  \r", long)[:-1]

    rows = list(read_rows(pieces(content, size), []))

    assert [row.messages for row in rows] == [
        [USER],
        [{"role": "system", "content": "Be kind."}, *long["messages"][1:]],
    ]
    assert rows[0].item["source"] == "x"


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

    report = check_file(pieces(content, 1000), ["answer.short"])

    assert (report.num_rows, report.num_bad) == (16, 1)
    assert report.offenders[0][0] == 11
    assert reason in report.offenders[0][1]
    assert reason in str(report.problem)


def test_the_first_ten_offenders_are_named_and_the_others_counted() -> None:
    report = check_file([lines(*[{}] * 13, *[GOOD] * 20)], [])

    assert report.problem is not None
    assert report.problem.startswith("13 of 33 lines cannot be used: line 1: a row has")
    assert "line 10: " in report.problem
    assert "line 11: " not in report.problem
    assert report.problem.endswith("; and 3 more")


def test_a_file_needs_ten_rows() -> None:
    assert check_file([lines(*[GOOD] * 9)], []).problem == "The file has 9 rows; at least 10 are needed"
    assert check_file([lines(*[GOOD] * 10)], []).problem is None
    assert check_file([], []).problem == "The file has 0 rows; at least 10 are needed"

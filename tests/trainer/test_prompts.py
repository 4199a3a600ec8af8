import gzip
import json
from pathlib import Path

import pytest

from proxy_model.errors import DataError
from trainer.prompts import keep_sources, load_prompts

GOOD = '{"prompt": [{"role": "user", "content": "Hi"}], "source": "a"}'


def test_prompts_come_in_the_order_of_the_file_from_plain_and_packed_files_alike(tmp_path: Path) -> None:
    other = '{"prompt": [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Grüße"}]}'
    plain, packed = tmp_path / "p.jsonl", tmp_path / "p.jsonl.gz"
    plain.write_text(f"{GOOD}\n\n{other}\n", encoding="utf-8")
    packed.write_bytes(gzip.compress(plain.read_bytes()))

    prompts = load_prompts(plain)

    assert prompts == load_prompts(packed)
    assert [prompt.source for prompt in prompts] == ["a", ""]
    assert prompts[1].messages == [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Grüße"}]
    assert keep_sources(prompts, "a") == prompts[:1]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not JSON"),
        ("[1]", "a JSON object is expected, got list"),
        ('{"source": "a"}', "'prompt' is missing"),
        ('{"prompt": "Hi"}', "must be a list of at least one message"),
        ('{"prompt": []}', "must be a list of at least one message"),
        ('{"prompt": [{"role": "user"}]}', "'prompt'[0] must have 'role' and 'content'"),
        ('{"prompt": [{"role": "tool", "content": "x"}]}', "'prompt'[0].role must be system, user or assistant"),
        ('{"prompt": [{"role": "user", "content": " "}]}', "'prompt'[0].content must be a string that is not blank"),
        ('{"prompt": [{"role": "user", "content": 1}]}', "'prompt'[0].content must be a string that is not blank"),
        ('{"prompt": [{"role": "assistant", "content": "x"}]}', "must alternate user and assistant"),
        ('{"prompt": [{"role": "system", "content": "x"}]}', "must alternate user and assistant"),
        (
            '{"prompt": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}',
            "end with user, got ['user', 'assistant']",
        ),
        ('{"prompt": [{"role": "user", "content": "x"}], "promt": 1}', "'promt' is not a known key"),
        ('{"prompt": [{"role": "user", "content": "x"}], "source": 1}', "'source' must be a string"),
    ],
)
def test_a_broken_line_is_named_with_file_number_and_reason(line: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(f"{GOOD}\n\n{line}\n{GOOD}\n", encoding="utf-8")

    with pytest.raises(DataError) as caught:
        load_prompts(path)

    assert caught.value.line_number == 3
    assert str(caught.value).startswith(f"{path}, line 3: ")
    assert reason in caught.value.reason


def test_bytes_that_are_not_utf8_are_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(GOOD.encode() + b'\n{"prompt": [{"role": "user", "content": "\xff"}]}\n')

    with pytest.raises(DataError, match="line 2: not UTF-8"):
        load_prompts(path)


def test_a_packed_file_that_ends_early_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl.gz"
    rows = [json.dumps({"prompt": [{"role": "user", "content": f"{n} {n * 7919}"}]}) for n in range(2000)]
    path.write_bytes(gzip.compress("\n".join(rows).encode())[:-100])

    with pytest.raises(DataError, match="cannot be read"):
        load_prompts(path)


@pytest.mark.parametrize("content", [b"", b"\n\n"], ids=["nothing", "empty lines"])
def test_a_file_without_rows_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(content)

    with pytest.raises(DataError, match="holds no row"):
        load_prompts(path)


def test_a_missing_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        load_prompts(tmp_path / "none.jsonl")


def test_a_line_of_a_megabyte_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(GOOD + "\n" + "x" * (1 << 20) + "xx\n")

    with pytest.raises(DataError, match="line 2: the line is longer than 1048576 bytes"):
        load_prompts(path)


def test_a_row_may_carry_what_a_grader_compares_with(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row = {"prompt": [{"role": "user", "content": "2 + 2?"}], "item": {"answer": 4, "deep": {"er": ["x"]}}}
    path.write_text(json.dumps(row) + "\n")

    assert load_prompts(path)[0].item == row["item"]

    path.write_text(json.dumps({**row, "item": 4}) + "\n")
    with pytest.raises(DataError, match="line 1: 'item' must be an object"):
        load_prompts(path)

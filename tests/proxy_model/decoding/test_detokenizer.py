"""Text comes out only when it is certain."""

from itertools import product

import pytest

from proxy_model.decoding.detokenizer import Detokenizer


def test_a_character_split_over_tokens_comes_out_whole() -> None:
    detokenizer = Detokenizer()
    parts = ["é€🙂".encode()[index : index + 1] for index in range(9)]

    shown = [detokenizer.add(part) for part in parts]

    assert shown == ["", "é", "", "", "€", "", "", "", "🙂"]


def test_bytes_that_never_become_a_character_show_at_the_end() -> None:
    detokenizer = Detokenizer()

    assert detokenizer.add("a€".encode()[:2]) == "a"
    assert detokenizer.finish() == "\ufffd"


@pytest.mark.parametrize(
    ("parts", "stop", "expected"),
    [
        (["Hello ST", "OP there"], ["STOP"], "Hello "),
        (["Hello S", "T", "O", "P", " x"], ["STOP"], "Hello "),
        (["Hello STO", "NE"], ["STOP"], "Hello STONE"),  # a false start is shown
        (["aab", "aac"], ["aac"], "aab"),
        (["abab", "abc!"], ["ababc"], "ab"),  # the stop string overlaps itself
        (["one\n", "\ntwo"], ["\n\n", "two"], "one"),  # the earliest of several wins
        (["x STO"], ["STOP"], "x STO"),  # held back, then shown at the end
    ],
)
def test_stop_strings_never_show_not_even_in_part(parts: list[str], stop: list[str], expected: str) -> None:
    detokenizer = Detokenizer(stop)

    shown = ""
    for part in parts:
        shown += detokenizer.add(part.encode())
        assert expected.startswith(shown)
        if detokenizer.is_stopped:
            break

    assert shown + detokenizer.finish() == expected


def test_any_cutting_of_a_text_gives_the_same_answer() -> None:
    text = "né STOP"
    raw = text.encode()
    for cuts in product([False, True], repeat=len(raw) - 1):
        detokenizer, piece, shown = Detokenizer(["STOP"]), b"", ""
        for index, byte in enumerate(raw):
            piece += bytes([byte])
            if index == len(raw) - 1 or cuts[index]:
                shown, piece = shown + detokenizer.add(piece), b""
        assert shown + detokenizer.finish() == "né "
        assert detokenizer.is_stopped

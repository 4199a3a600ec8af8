"""Entries of log-probabilities leave in step with the text and join to it."""

from proxy_model.detokenizer import Detokenizer
from proxy_model.request import TokenLogprob
from server.token_text import TokenTexts


def entry(data: bytes, logprob: float = -0.5) -> TokenLogprob:
    return TokenLogprob(1, "?", data, logprob)


def texts(texts: TokenTexts, entries: list[TokenLogprob], shown: str, *, is_last: bool = False) -> list[str]:
    return [found.token for found in texts.add(entries, shown, is_last=is_last)]


def test_a_character_of_two_tokens_belongs_to_the_second() -> None:
    tokens = TokenTexts()

    assert texts(tokens, [entry(b"a")], "a") == ["a"]
    assert texts(tokens, [entry(b"\xc3")], "") == [""]
    assert texts(tokens, [entry(b"\xa9b")], "\u00e9b") == ["\u00e9b"]


def test_entries_wait_for_text_that_is_held_back() -> None:
    tokens = TokenTexts()

    assert texts(tokens, [entry(b"x")], "x") == ["x"]
    assert texts(tokens, [entry(b"E")], "") == []
    assert texts(tokens, [entry(b"N")], "") == []
    assert texts(tokens, [entry(b"o")], "ENo") == ["E", "N", "o"]


def test_a_stop_string_takes_its_entries_along_and_cuts_the_one_that_it_began_in() -> None:
    tokens = TokenTexts()

    assert texts(tokens, [entry(b"x")], "x") == ["x"]
    assert texts(tokens, [entry(b" yE")], " y") == []
    assert texts(tokens, [entry(b"ND")], "", is_last=True) == [" y"]


def test_bytes_that_never_became_a_character_show_as_in_the_text() -> None:
    tokens, detokenizer = TokenTexts(), Detokenizer()
    shown = detokenizer.add(b"a") + detokenizer.add(b"\xe2\x82") + detokenizer.finish()

    found = texts(tokens, [entry(b"a"), entry(b"\xe2\x82")], shown, is_last=True)

    assert shown == "a\ufffd"
    assert found == ["a", "\ufffd"]


def test_tokens_without_text_have_no_entry_and_impossible_ones_a_number() -> None:
    tokens = TokenTexts()

    [found] = tokens.add([entry(b""), entry(b"a", float("-inf"))], "a", is_last=True)

    assert (found.token, found.logprob, found.bytes) == ("a", -9999.0, [97])

"""What is told about tokens leaves in step with the text and joins to it."""

from proxy_model.decoding.detokenizer import Detokenizer
from proxy_model.decoding.request import Delta, TokenLogprob
from server.chat.logprobs import chat_logprobs
from server.generation.choice import GrowingChoice
from server.generation.token_text import TokenTexts


def texts(tokens: TokenTexts[bytes], entries: list[bytes], shown: str, *, is_last: bool = False) -> list[str]:
    return [text for _, text in tokens.add([(data, data) for data in entries], shown, is_last=is_last)]


def test_a_character_of_two_tokens_belongs_to_the_second() -> None:
    tokens: TokenTexts[bytes] = TokenTexts()

    assert texts(tokens, [b"a"], "a") == ["a"]
    assert texts(tokens, [b"\xc3"], "") == []
    assert texts(tokens, [b"\xa9b"], "\u00e9b") == ["", "\u00e9b"]


def test_entries_wait_for_text_that_is_held_back() -> None:
    tokens: TokenTexts[bytes] = TokenTexts()

    assert texts(tokens, [b"x"], "x") == ["x"]
    assert texts(tokens, [b"E"], "") == []
    assert texts(tokens, [b"N"], "") == []
    assert texts(tokens, [b"o"], "ENo") == ["E", "N", "o"]


def test_a_stop_string_cuts_the_entry_that_it_began_in_and_leaves_the_others_no_text() -> None:
    tokens: TokenTexts[bytes] = TokenTexts()

    assert texts(tokens, [b"x"], "x") == ["x"]
    assert texts(tokens, [b" yE"], " y") == []
    assert texts(tokens, [b"ND"], "", is_last=True) == [" y", ""]


def test_bytes_that_never_became_a_character_show_as_in_the_text() -> None:
    tokens: TokenTexts[bytes] = TokenTexts()
    detokenizer = Detokenizer()
    shown = detokenizer.add(b"a") + detokenizer.add(b"\xe2\x82") + detokenizer.finish()

    found = texts(tokens, [b"a", b"\xe2\x82"], shown, is_last=True)

    assert shown == "a\ufffd"
    assert found == ["a", "\ufffd"]


def test_broken_bytes_before_an_end_token_belong_to_the_token_that_has_them() -> None:
    tokens: TokenTexts[bytes] = TokenTexts()

    assert texts(tokens, [b"a"], "a") == ["a"]
    assert texts(tokens, [b"\xe2\x82"], "") == []
    assert texts(tokens, [b""], "\ufffd", is_last=True) == ["\ufffd", ""]


def test_logprobs_of_tokens_without_text_have_no_entry_and_impossible_ones_a_number() -> None:
    entries = (TokenLogprob(1, "<end>", b"", -0.5), TokenLogprob(2, "a", b"a", float("-inf")))

    step = GrowingChoice(0).add(Delta(request_id="r", text="a", logprobs=entries, finish_reason="stop"))
    [found] = chat_logprobs(step.tokens)

    assert (found.token, found.logprob, found.bytes) == ("a", -9999.0, [97])


def test_logprobs_that_a_stop_string_took_along_have_no_entry() -> None:
    choice = GrowingChoice(0)
    entries = [TokenLogprob(1, text.decode(), text, -0.5) for text in (b"x", b" yE", b"ND")]

    choice.add(Delta(request_id="r", text="x", logprobs=(entries[0],)))
    choice.add(Delta(request_id="r", text=" y", logprobs=(entries[1],)))
    last = choice.add(Delta(request_id="r", logprobs=(entries[2],), finish_reason="stop"))

    assert [token.text for token in last.tokens] == [" y"]

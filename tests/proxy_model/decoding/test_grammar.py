"""Grammars over byte-level and SentencePiece vocabularies: what may come next, what is refused, what is kept."""

import json
import threading
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from proxy_model.decoding.grammar import ANY_JSON_OBJECT, GrammarSpec, json_schema
from proxy_model.decoding.grammar_compiler import GrammarCompiler, GrammarState
from proxy_model.decoding.logit_processors import unpacked
from proxy_model.decoding.request import SamplingParams
from proxy_model.errors import BadGrammar, InvalidParameter
from proxy_model.llm.frozen_llm import FrozenLLM
from tests.sentencepiece_tokenizer import sentencepiece_tokenizer

POINT = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "x": {"type": "integer"}},
    "required": ["name", "x"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def piece_llm() -> FrozenLLM:
    """A random Llama over a SentencePiece-like vocabulary, with more logits than tokens."""
    tokenizer = sentencepiece_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer) + 13,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        eos_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return FrozenLLM(LlamaForCausalLM(config), tokenizer, "pieces")


def allowed(llm: FrozenLLM, compiler: GrammarCompiler, state: GrammarState) -> set[int]:
    mask = unpacked(compiler.allowed([state]), llm.vocab_size)
    assert mask.shape == (1, llm.vocab_size)
    return set(mask[0].nonzero().flatten().tolist())


def follow(llm: FrozenLLM, compiler: GrammarCompiler, state: GrammarState, text: str) -> None:
    """Walk to the end of `text` by the longest allowed tokens."""
    left = text.encode()
    while left:
        fitting = [t for t in allowed(llm, compiler, state) if left.startswith(llm.tokenizer.token_bytes(t) or b"\xff")]
        assert fitting, f"nothing leads to {left!r}"
        best = max(fitting, key=lambda token: len(llm.tokenizer.token_bytes(token)))
        state.advance(best)
        left = left[len(llm.tokenizer.token_bytes(best)) :]


def next_texts(llm: FrozenLLM, compiler: GrammarCompiler, state: GrammarState) -> set[bytes]:
    return {llm.tokenizer.token_bytes(token) for token in allowed(llm, compiler, state)}


def test_an_end_comes_only_where_the_grammar_may_end(small_llm: FrozenLLM) -> None:
    compiler = GrammarCompiler(small_llm)
    state = compiler.compile(GrammarSpec("regex", "ab?")).begin()

    assert next_texts(small_llm, compiler, state) == {b"a"}
    follow(small_llm, compiler, state, "a")
    assert next_texts(small_llm, compiler, state) == {b"b", b""}
    assert 7 in allowed(small_llm, compiler, state)
    follow(small_llm, compiler, state, "b")
    assert allowed(small_llm, compiler, state) == {7}


def test_a_schema_leaves_the_value_s_tokens_and_nothing_else(small_llm: FrozenLLM) -> None:
    compiler = GrammarCompiler(small_llm)
    state = compiler.compile(json_schema(POINT)).begin()

    follow(small_llm, compiler, state, '{"name":"é","x":')

    digits = {str(digit).encode() for digit in range(10)}
    assert next_texts(small_llm, compiler, state) == digits | {b"-", b" ", b"\n"}


def test_a_sentencepiece_vocabulary_is_followed_by_the_bytes_that_are_shown(piece_llm: FrozenLLM) -> None:
    compiler = GrammarCompiler(piece_llm)
    state = compiler.compile(json_schema(POINT)).begin()
    assert next_texts(piece_llm, compiler, state) <= {b"{", b'{"'}

    follow(piece_llm, compiler, state, '{"name": "a\U0001f600b", "x": -17}')

    assert allowed(piece_llm, compiler, state) == {2}


def test_whitespace_is_bounded(small_llm: FrozenLLM) -> None:
    compiler = GrammarCompiler(small_llm)
    state = compiler.compile(ANY_JSON_OBJECT).begin()

    follow(small_llm, compiler, state, "{\n" + " " * 40)

    assert next_texts(small_llm, compiler, state) == {b'"', b"}"}


def test_states_of_one_grammar_do_not_disturb_each_other(small_llm: FrozenLLM) -> None:
    compiler = GrammarCompiler(small_llm)
    compiled = compiler.compile(GrammarSpec("regex", "abc|bcd"))
    one, other = compiled.begin(), compiled.begin()

    follow(small_llm, compiler, one, "ab")

    both = unpacked(compiler.allowed([one, other]), small_llm.vocab_size)
    assert [small_llm.tokenizer.token_bytes(int(token)) for token in both[0].nonzero()] == [b"c"]
    assert {small_llm.tokenizer.token_bytes(int(token)) for token in both[1].nonzero()} == {b"a", b"b"}


def test_a_lark_grammar_is_followed(small_llm: FrozenLLM) -> None:
    compiler = GrammarCompiler(small_llm)
    state = compiler.compile(GrammarSpec("lark", 'start: "x" inner\ninner: "(" inner ")" | "y"')).begin()

    follow(small_llm, compiler, state, "x((y")

    assert next_texts(small_llm, compiler, state) == {b")"}


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (GrammarSpec("json_schema", '{"type": "objekt"}'), "Invalid type: objekt"),
        (GrammarSpec("json_schema", "[]"), "JSON object"),
        (GrammarSpec("json_schema", '{"$ref": "http://127.0.0.1:9/x"}'), "127.0.0.1"),
        (GrammarSpec("json_schema", '{"$ref": "#"}'), "no text satisfies it"),
        (GrammarSpec("json_schema", '{"type": "array", "uniqueItems": true}'), "uniqueItems"),
        (GrammarSpec("json_schema", '{"x-guidance": {"lenient": true}, "uniqueItems": true}'), "uniqueItems"),
        (GrammarSpec("json_schema", '{"type": "string", "pattern": "(?=a)b"}'), "look-around"),
        (GrammarSpec("regex", "a("), "unclosed group"),
        (GrammarSpec("lark", "nonsense"), "Expected"),
    ],
)
def test_what_cannot_be_followed_is_refused_with_the_reason(
    small_llm: FrozenLLM, spec: GrammarSpec, reason: str
) -> None:
    with pytest.raises(BadGrammar) as refused:
        GrammarCompiler(small_llm).compile(spec)

    assert reason in refused.value.reason
    assert "\n" not in refused.value.reason
    assert len(refused.value.reason) <= 300


def test_a_schema_that_explodes_is_refused_soon_and_without_its_inside(small_llm: FrozenLLM) -> None:
    options = [
        {"type": "object", "properties": {f"p{i}": {"type": "integer"}}, "required": [f"p{i}"]} for i in range(4)
    ]
    schema = {"allOf": [{"anyOf": [dict(each, title=f"{i}") for each in options]} for i in range(9)]}

    with pytest.raises(BadGrammar) as refused:
        GrammarCompiler(small_llm).compile(json_schema(schema))

    assert "backtrace" not in refused.value.reason


def test_large_and_deep_schemas_are_refused_before_they_are_compiled() -> None:
    deep: dict[str, Any] = {}
    for _ in range(48):
        deep = {"not": deep}

    with pytest.raises(BadGrammar, match="48 levels"):
        json_schema(deep)
    with pytest.raises(BadGrammar, match="65536 bytes"):
        json_schema({"description": "é" * 40_000})
    assert json.loads(json_schema(deep["not"]).text) == deep["not"]


def test_a_grammar_that_is_in_use_is_compiled_once(small_llm: FrozenLLM) -> None:
    compiler = GrammarCompiler(small_llm)
    first = compiler.compile(json_schema(POINT))

    for index in range(80):
        compiler.compile(GrammarSpec("regex", f"a{index}"))

    assert compiler.compile(json_schema(dict(POINT))) is first


def test_threads_compile_side_by_side(small_llm: FrozenLLM) -> None:
    compiler = GrammarCompiler(small_llm)
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(compiler.compile(json_schema(POINT)))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 6
    assert len(set(map(id, found))) == 1


def test_ignoring_the_end_and_keeping_a_form_contradict_each_other() -> None:
    with pytest.raises(InvalidParameter, match="ignore_eos"):
        SamplingParams(max_tokens=3, grammar=ANY_JSON_OBJECT, ignore_eos=True)

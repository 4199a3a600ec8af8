import json
from typing import Any

import pytest

from proxy_model.errors import InvalidParameter
from store.fine_tuning.graders import GRADERS, MultiGrader, ScoreModelGrader, grader_to_json, item_fields, parse_grader

EQUAL = {
    "type": "string_check",
    "name": "same",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
    "operation": "eq",
}
ALIKE = {**EQUAL, "type": "text_similarity", "evaluation_metric": "rouge_l", "reference": "{{item.text.long}}"}
del ALIKE["operation"]
SCORE = {
    "type": "score_model",
    "name": "kind",
    "model": "judge",
    "input": [
        {"role": "developer", "content": "Rate from 1 to 5."},
        {"role": "user", "content": [{"type": "input_text", "text": "{{item.question}}"}], "type": "message"},
    ],
    "range": [1, 5],
    "sampling_params": {"temperature": 0, "max_completions_tokens": 16},
}
MULTI = {
    "type": "multi",
    "name": "all",
    "graders": {"same": EQUAL, "alike": ALIKE, "kind": SCORE},
    "calculate_output": "0.5 * same + 0.5 * alike * (kind - 1) / 4",
}
REWARD = {"type": "reward_model", "name": "calm", "model": "calm-1"}
LENGTH = {"type": "length", "name": "short", "upper_bound": 40}
DISTINCT = {"type": "distinct", "name": "fresh", "n": 3}
KEYWORDS = {"type": "keywords", "name": "words", "wanted": ["please"], "forbidden": ["damn", "hell"]}
SCHEMA = {"type": "json", "name": "form", "schema": {"type": "object", "required": ["a"]}}
REGEX = {"type": "regex", "name": "number", "pattern": r"\b\d+\b"}
ALL: list[dict[str, Any]] = [EQUAL, ALIKE, SCORE, MULTI, REWARD, LENGTH, DISTINCT, KEYWORDS, SCHEMA, REGEX]


def test_every_kind_of_grader_is_tried_here() -> None:
    assert {each["type"] for each in ALL} == set(GRADERS)


@pytest.mark.parametrize("value", ALL, ids=lambda each: each["type"])
def test_a_grader_survives_its_way_through_json(value: dict[str, Any]) -> None:
    grader = parse_grader(value)

    written = json.loads(json.dumps(grader_to_json(grader)))

    assert parse_grader(written) == grader
    assert value.keys() <= written.keys()
    assert written["type"] == value["type"]


def test_parts_of_text_become_text_and_what_is_left_out_has_its_default() -> None:
    grader = parse_grader({**SCORE, "range": [0, 1]})

    assert isinstance(grader, ScoreModelGrader)
    assert grader.input[1].content == "{{item.question}}"
    assert grader == parse_grader({name: value for name, value in SCORE.items() if name != "range"})


def test_the_fields_of_all_templates_are_collected() -> None:
    assert item_fields(parse_grader(MULTI)) == {"answer", "text.long", "question"}
    assert item_fields(parse_grader(LENGTH)) == frozenset()


@pytest.mark.parametrize(
    ("value", "parameter", "says"),
    [
        ("eq", "grader", "a grader object"),
        ({"name": "x"}, "grader.type", "string_check"),
        ({"type": "python", "name": "x", "source": "..."}, "grader.type", "execute code are refused"),
        ({"type": ["json"], "name": "x"}, "grader.type", "one of"),
        ({**EQUAL, "operation": "neq"}, "grader.operation", "'ilike'"),
        ({**EQUAL, "reference": 3}, "grader.reference", "a text"),
        ({**EQUAL, "input": "{{sample.oops}}"}, "grader.input", "sample.output_text"),
        ({**EQUAL, "pass": 1}, "grader.pass", "'operation'"),
        ({**EQUAL, "name": " "}, "grader.name", "a name"),
        ({name: EQUAL[name] for name in ("type", "name", "input")}, "grader.reference", "given"),
        ({**ALIKE, "evaluation_metric": "cosine"}, "grader.evaluation_metric", "fuzzy_match"),
        ({**SCORE, "input": []}, "grader.input", "at least one message"),
        ({**SCORE, "input": "rate"}, "grader.input", "a list of messages"),
        ({**SCORE, "input": [{"role": "tool", "content": "x"}]}, "grader.input[0].role", "developer"),
        (
            {**SCORE, "input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "grader.input[0].content",
            "text",
        ),
        ({**SCORE, "range": [5, 1]}, "grader.range", "the lower one first"),
        ({**SCORE, "range": [0, float("nan")]}, "grader.range", "the lower one first"),
        ({**SCORE, "range": [0]}, "grader.range", "two numbers"),
        ({**SCORE, "range": [0, 10**400]}, "grader.range", "the lower one first"),
        ({**SCORE, "model": ""}, "grader.model", "name of a model"),
        ({**SCORE, "sampling_params": {"temperature": 3}}, "grader.sampling_params.temperature", "[0, 2]"),
        ({**SCORE, "sampling_params": {"top_k": 3}}, "grader.sampling_params", "top_p"),
        ({**MULTI, "graders": {"a": MULTI}, "calculate_output": "a"}, "grader.graders", "none of them multi"),
        ({**MULTI, "graders": {}}, "grader.graders", "1 to 20"),
        ({**MULTI, "graders": {"a": {**EQUAL, "operation": "x"}}}, "grader.graders.a.operation", "'eq'"),
        ({**MULTI, "calculate_output": "same + other"}, "grader.calculate_output", "['alike', 'kind', 'same']"),
        ({**MULTI, "calculate_output": "same"}, "grader.graders", "left out"),
        ({**MULTI, "calculate_output": "open('x')"}, "grader.calculate_output", "a formula"),
        ({**REWARD, "model": None}, "grader.model", "name of a reward model"),
        ({"type": "length", "name": "x"}, "grader.target", "only one of them"),
        ({**LENGTH, "target": 3}, "grader.target", "only one of them"),
        ({**LENGTH, "upper_bound": 0}, "grader.upper_bound", "at least 1"),
        ({"type": "length", "name": "x", "per_token": float("inf")}, "grader.per_token", "[-1000, 1000]"),
        ({"type": "keywords", "name": "x"}, "grader.wanted", "or else `forbidden`"),
        ({**KEYWORDS, "wanted": "please"}, "grader.wanted", "list"),
        ({**KEYWORDS, "forbidden": [""]}, "grader.forbidden", "list"),
        ({**SCHEMA, "schema": "object"}, "grader.schema", "JSON schema"),
        ({**SCHEMA, "schema": {"type": "objekt"}}, "grader.schema", '"objekt" is not valid'),
        ({**SCHEMA, "schema": {"pattern": "("}}, "grader.schema", 'is not a "regex"'),
        ({**SCHEMA, "schema": {"$ref": "https://example.invalid/a.json"}}, "grader.schema", "is not allowed"),
        ({**SCHEMA, "schema": {"$ref": "#/nowhere"}}, "grader.schema", "does not exist"),
        ({**REGEX, "pattern": "("}, "grader.pattern", "regular expression"),
        ({**REGEX, "pattern": "a" * 1001}, "grader.pattern", "at most 1000"),
    ],
)
def test_a_bad_grader_is_refused_by_the_dotted_name(value: object, parameter: str, says: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        parse_grader(value)

    assert refused.value.name == parameter
    assert says in str(refused.value)


def test_the_members_of_a_multi_are_graders_of_their_own() -> None:
    multi = parse_grader(MULTI)

    assert isinstance(multi, MultiGrader)
    assert multi.graders["same"] == parse_grader(EQUAL)

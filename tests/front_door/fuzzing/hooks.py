"""What schemathesis can't know: the names of what is there, and what no refusal may tell."""

import functools
import operator
import os
import re
from collections.abc import Sequence
from typing import Any

import schemathesis
from hypothesis import strategies as st
from schemathesis import Case, CheckContext, HookContext, Response

_LLM = os.environ["FUZZ_LLM"]
_VERSIONS = range(1, int(os.environ["FUZZ_VERSIONS"]) + 2)
"""Of each proxy; the last one does not exist."""

_KNOWN: dict[str, Sequence[str]] = {
    "model": (_LLM, f"{_LLM}:base", f"{_LLM}:harmless"),
    "name": ("helpful", "harmless"),
}

_PROXY = {
    "enabled": st.booleans(),
    "p_t": st.floats(0, 1),
    "temperature": st.floats(0.1, 100),
    "top_p": st.floats(0.01, 1),
    "decision": st.sampled_from(["greedy", "sample"]),
    "return_decisions": st.booleans(),
}
_SHARED = {
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0, 1),
    "seed": st.integers(-(1 << 63), (1 << 63) - 1),
    "ignore_eos": st.booleans(),
    "min_p": st.floats(0, 1),
    "presence_penalty": st.floats(-2, 2),
    "proxy": st.fixed_dictionaries({}, optional=_PROXY),
}
_LENGTH = st.integers(1, 40)
_STOP = st.lists(st.text(min_size=1, max_size=4), max_size=4)
_SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
_FORM = st.sampled_from(
    [{"type": "json_object"}, {"type": "json_schema", "json_schema": {"name": "a", "schema": _SCHEMA}}]
)
_TOOLS = st.just([{"type": "function", "function": {"name": "look", "parameters": _SCHEMA}}])
_TOOL_CHOICE = st.sampled_from(["none", "auto", "required", {"type": "function", "function": {"name": "look"}}])
_MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "system", "assistant"]), "content": st.text(max_size=9)}),
    min_size=1,
    max_size=4,
)
_FIELDS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "/v1/chat/completions": st.fixed_dictionaries(
        {"stream": st.booleans(), "store": st.booleans()},
        optional=_SHARED
        | {"n": st.integers(1, 4), "max_tokens": _LENGTH, "stop": _STOP}
        | {"messages": _MESSAGES, "response_format": _FORM, "tools": _TOOLS, "tool_choice": _TOOL_CHOICE},
    ),
    "/v1/completions": st.fixed_dictionaries(
        {"stream": st.booleans()},
        optional=_SHARED | {"n": st.integers(1, 4), "max_tokens": _LENGTH, "stop": _STOP, "echo": st.booleans()},
    ),
    "/v1/responses": st.fixed_dictionaries(
        {"stream": st.booleans()},
        optional=_SHARED | {"max_output_tokens": _LENGTH, "input": st.one_of(st.text(max_size=9), _MESSAGES)},
    ),
}
"""Good values, by the path of the operation."""

_LOGPROBS = st.sampled_from([{}, {"logprobs": True}, {"logprobs": True, "top_logprobs": 3}])
_OPINIONS = ("rating", "correction", "preference")
_ID = re.compile(r'"id": ?"([A-Za-z0-9_-]+)"')
_NUM_KNOWN = 64
_STORING = {
    "/v1/chat/completions": "completion_id",
    "/v1/responses": "response_id",
    "/v1/feedback": "feedback_id",
    "/v1/files": "file_id",
    "/v1/fine_tuning/jobs": "fine_tuning_job_id",
}
"""The parameter that takes the ids of what is made there."""

_STORED: dict[str, list[str]] = {name: [] for name in _STORING.values()}
"""Ids of what is stored by now."""

_GRADER = {"type": "length", "name": "short", "target": 20}
_METHOD = {"type": "reinforcement", "reinforcement": {"grader": _GRADER, "hyperparameters": {"batch_size": 8}}}

_INSIDE = re.compile(rf"Traceback|File \"|\.py\b|site-packages|0x[0-9a-f]{{8}}|{re.escape(os.environ['FUZZ_HOME'])}")


@schemathesis.hook
def before_generate_body(context: HookContext, strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Most optional fields are absent from what schemathesis draws; add good values of some, so that more happens."""
    path = "" if context.operation is None else context.operation.path
    if path not in _FIELDS:
        return strategy
    logprobs = _LOGPROBS if path == "/v1/chat/completions" else st.just({})
    return st.builds(_with_fields, strategy, _FIELDS[path], logprobs)


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: Any) -> None:
    """Ask for what exists: random names would all end at a 404."""
    for part in (case.body, case.path_parameters):
        if isinstance(part, dict):
            _name_known(part)
    if isinstance(case.body, dict) and case.path in _MEANT and _is_good(case):
        case.body = _MEANT[case.path](case.body)


@schemathesis.hook
def after_call(context: HookContext, case: Case[Any], response: Response) -> None:
    """Note what is stored now, and what no longer is."""
    if response.status_code != 200:
        return
    if case.method == "DELETE":
        for ids in _STORED.values():
            ids[:] = [known for known in ids if known not in case.formatted_path]
    elif case.method == "POST" and case.path in _STORING and _is_kept(case):
        ids = _STORED[_STORING[case.path]]
        ids += _ID.findall(response.text)[:1]
        del ids[:-_NUM_KNOWN]


@schemathesis.check
def refusals_tell_nothing_of_the_inside(context: CheckContext, response: Response, case: Case[Any]) -> None:
    """No traceback, no path, no address; what the caller sent may come back."""
    if response.status_code >= 400:
        found = _INSIDE.search(response.text)
        assert found is None or found[0] in f"{case.body!r}{case.formatted_path}", response.text[:500]


def _with_fields(body: Any, *fields: dict[str, Any]) -> Any:
    """What was drawn stays as it is."""
    return functools.reduce(operator.or_, fields) | body if isinstance(body, dict) else body


def _is_good(case: Case[Any]) -> bool:
    return case.meta is not None and case.meta.generation.mode.is_positive


def _with_one_opinion(body: dict[str, Any]) -> dict[str, Any]:
    """No schema says that there is exactly one, or which fields go with it."""
    answers = _STORED["completion_id"] or ["chatcmpl-none"]
    preference = {"chosen_id": answers[0], "rejected_id": answers[-1]}
    opinion = next((name for name in _OPINIONS if body.get(name) is not None), "rating")
    rest = {name: body[name] for name in body.keys() - {*_OPINIONS, "completion_id", "choice"}}
    if opinion == "preference":
        return rest | {"preference": preference}
    return rest | {"completion_id": answers[-1], opinion: body.get(opinion) or 1}


def _with_a_method(body: dict[str, Any]) -> dict[str, Any]:
    """Without one there is nothing to do; and what is always refused is left out."""
    refused = ("validation_file", "hyperparameters", "integrations")
    return {name: body[name] for name in body.keys() - {*refused}} | {"method": body.get("method") or _METHOD}


_MEANT = {"/v1/feedback": _with_one_opinion, "/v1/fine_tuning/jobs": _with_a_method}
"""What makes sense of bodies that are good by their schema, by the path of the operation."""


def _is_kept(case: Case[Any]) -> bool:
    store = case.body.get("store") if isinstance(case.body, dict) else False
    asks = case.path in ("/v1/chat/completions", "/v1/responses")
    return not asks or store is True or (case.path == "/v1/responses" and store is None)


def _name_known(part: dict[str, Any]) -> None:
    for name, known in (_KNOWN | _STORED).items():
        _take(part, name, known)
    _take(part, "previous_response_id", _STORED["response_id"])
    _take(part, "training_file", _STORED["file_id"])
    if type(part.get("version")) is int and part["version"] > 0:
        part["version"] = _VERSIONS[part["version"] % len(_VERSIONS)]


def _take(part: dict[str, Any], name: str, known: Sequence[str]) -> None:
    given = part.get(name)
    if isinstance(given, str) and known:
        part[name] = known[len(given) % len(known)]

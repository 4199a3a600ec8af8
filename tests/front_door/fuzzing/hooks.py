"""What schemathesis can't know: the names of what is there, and what no refusal may tell."""

import functools
import operator
import os
import re
from typing import Any

import schemathesis
from hypothesis import strategies as st
from schemathesis import Case, CheckContext, HookContext, Response

_LLM = os.environ["FUZZ_LLM"]
_KNOWN = {"model": (_LLM, f"{_LLM}:base", f"{_LLM}:harmless"), "name": ("helpful", "harmless")}

_PROXY = {
    "enabled": st.booleans(),
    "p_t": st.floats(0, 1),
    "temperature": st.floats(0.1, 100),
    "top_p": st.floats(0.01, 1),
    "decision": st.sampled_from(["greedy", "sample"]),
    "return_decisions": st.booleans(),
}
_FIELDS = {
    "n": st.integers(1, 4),
    "max_tokens": st.integers(1, 40),
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0, 1),
    "seed": st.integers(-(1 << 63), (1 << 63) - 1),
    "stop": st.lists(st.text(min_size=1, max_size=4), max_size=4),
    "ignore_eos": st.booleans(),
    "proxy": st.fixed_dictionaries({}, optional=_PROXY),
}
_LOGPROBS = st.sampled_from([{}, {"logprobs": True}, {"logprobs": True, "top_logprobs": 3}])

_INSIDE = re.compile(rf"Traceback|File \"|\.py\b|site-packages|0x[0-9a-f]{{8}}|{re.escape(os.environ['FUZZ_HOME'])}")


@schemathesis.hook
def before_generate_body(context: HookContext, strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Most optional fields are absent from what schemathesis draws; add good values of some, so that more happens."""
    if context.operation is None or context.operation.path != "/v1/chat/completions":
        return strategy
    fields = st.fixed_dictionaries({"stream": st.sampled_from([True, False])}, optional=_FIELDS)
    return st.builds(_with_fields, strategy, fields, _LOGPROBS)


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: Any) -> None:
    """Ask for what exists: random names would all end at a 404."""
    if isinstance(case.body, dict):
        for field, names in _KNOWN.items():
            given = case.body.get(field)
            if isinstance(given, str):
                case.body[field] = names[len(given) % len(names)]


@schemathesis.check
def refusals_tell_nothing_of_the_inside(context: CheckContext, response: Response, case: Case[Any]) -> None:
    """No traceback, no path, no address; what the caller sent may come back."""
    if response.status_code >= 400:
        found = _INSIDE.search(response.text)
        assert found is None or found[0] in f"{case.body!r}{case.formatted_path}", response.text[:500]


def _with_fields(body: Any, *fields: dict[str, Any]) -> Any:
    """What was drawn stays as it is."""
    return functools.reduce(operator.or_, fields) | body if isinstance(body, dict) else body

"""What a row of a training file holds, by method, and what the trainer reads of it.

reinforcement   {"messages": [..., a user's turn], "reference": "..."}    a prompt, and what graders' templates ask for
                {"prompt": [...], "source": "..."}                        the same as in `data/`
supervised      {"messages": [..., an assistant's turn]}                  the last turn is the answer that is learnt
dpo             {"input": {"messages": [...]}, "preferred_output": [turn], "non_preferred_output": [turn]}
                {"prompt": [...], "chosen": "...", "rejected": "..."}     the same as in `data/`
validation file of reinforcement the same, of the others any of these
"""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from store.fine_tuning.conversation import BadRow, Messages, parse_conversation
from store.fine_tuning.graders import item_fields
from store.fine_tuning.specification import Method

RowParser = Callable[[Mapping[str, Any]], dict[str, Any]]
"""From a line's object to the row as the trainer reads it. Raises `BadRow`."""

_PROMPT_KEYS = ("messages", "prompt")
_OUTPUTS = ("preferred_output", "non_preferred_output")
_INPUT_KEYS = {"messages", "tools", "parallel_tool_calls"}
_PAIR_KEYS = {"prompt", "chosen", "rejected", "source", "margin"}


def row_parser(method: Method) -> RowParser:
    """Of the rows that `method` learns from."""
    if method.grader is not None:
        return partial(prompt_row, fields=item_fields(method.grader))
    return answer_row if method.type == "supervised" else pair_row


def held_out_parser(method: Method) -> RowParser:
    """Of the rows of a validation file: what the grader asks for, if there is one, or the prompt of any form."""
    return held_out_row if method.grader is None else row_parser(method)


def prompt_row(found: Mapping[str, Any], fields: Collection[str]) -> dict[str, Any]:
    """A prompt, with the whole line for templates; `fields` are what it must have, dotted."""
    keys = [key for key in _PROMPT_KEYS if key in found]
    if len(keys) != 1:
        raise BadRow("a row has either 'messages' or 'prompt'")
    messages = _prompt(found[keys[0]], keys[0])
    for name in sorted(fields):
        _require_field(found, name)
    return {"prompt": messages, "item": dict(found)}


def held_out_row(found: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a validation file: the prompt of any of the forms, whose answers are not read."""
    if "input" in found or "chosen" in found:
        return {"prompt": pair_row(found)["prompt"]}
    turns = found.get("messages")
    if isinstance(turns, list) and turns and isinstance(turns[-1], dict) and turns[-1].get("role") == "assistant":
        return {"prompt": answer_row(found)["prompt"]}
    return prompt_row(found, ())


def answer_row(found: Mapping[str, Any]) -> dict[str, Any]:
    """A conversation whose last turn is learnt."""
    _require_only(found, {"messages"})
    turns = found["messages"]
    if not isinstance(turns, list) or len(turns) < 2:
        raise BadRow("'messages' must be a list of at least two messages, the last one the answer")
    *before, last = [_without_weight(turn) for turn in turns]
    if isinstance(turns[-1], dict) and turns[-1].get("weight") == 0:
        raise BadRow("the last turn, which is learnt, has the weight 0")
    return {"prompt": _prompt(before, "messages"), "answer": _answer(last, f"'messages'[{len(before)}]")}


def pair_row(found: Mapping[str, Any]) -> dict[str, Any]:
    """Two answers to a prompt, one of which was preferred."""
    row = _openai_pair(found) if "input" in found else _own_pair(found)
    if row["chosen"].strip() == row["rejected"].strip():
        raise BadRow("the two answers are equal")
    return row


def _openai_pair(found: Mapping[str, Any]) -> dict[str, Any]:
    _require_only(found, {"input", *_OUTPUTS})
    asked = found["input"]
    if not isinstance(asked, dict) or "messages" not in asked or asked.keys() - _INPUT_KEYS:
        raise BadRow("'input' must be an object of 'messages'")
    if asked.get("tools"):
        raise BadRow("'input.tools' must be empty: a proxy is not trained on calls of tools")
    chosen, rejected = (_output(found[name], name) for name in _OUTPUTS)
    return {"prompt": _prompt(asked["messages"], "input.messages"), "chosen": chosen, "rejected": rejected}


def _own_pair(found: Mapping[str, Any]) -> dict[str, Any]:
    _require_only(found, {"prompt", "chosen", "rejected"}, _PAIR_KEYS)
    answers = {name: _text(found[name], f"{name!r}") for name in ("chosen", "rejected")}
    return {"prompt": _prompt(found["prompt"], "prompt"), **answers}


def _output(found: Any, name: str) -> str:
    if not isinstance(found, list) or len(found) != 1:
        raise BadRow(f"{name!r} must be a list of one message")
    return _answer(_without_weight(found[0]), f"{name!r}[0]")


def _answer(turn: Any, place: str) -> str:
    if not isinstance(turn, dict) or turn.get("role") != "assistant" or turn.keys() != {"role", "content"}:
        raise BadRow(f"{place} must be an assistant's turn of 'role' and 'content' and nothing else")
    return _text(turn["content"], f"{place}.content")


def _text(found: Any, place: str) -> str:
    if not isinstance(found, str) or not found.strip():
        raise BadRow(f"{place} must be a string that is not blank")
    return found


def _prompt(found: Any, name: str) -> Messages:
    """A developer's turn is the system's under a newer name."""
    if isinstance(found, list):
        found = [
            {**turn, "role": "system"} if isinstance(turn, dict) and turn.get("role") == "developer" else turn
            for turn in found
        ]
    return parse_conversation(found, name)


def _without_weight(turn: Any) -> Any:
    """OpenAI's mark of the assistant's turns that are learnt; here it is always the last one."""
    if not isinstance(turn, dict) or turn.get("role") != "assistant" or turn.get("weight") not in (0, 1):
        return turn
    return {key: value for key, value in turn.items() if key != "weight"}


def _require_only(found: Mapping[str, Any], required: set[str], allowed: set[str] | None = None) -> None:
    if missing := required - found.keys():
        raise BadRow(f"{min(missing)!r} is missing")
    if unknown := found.keys() - (allowed or required):
        raise BadRow(f"{min(unknown)!r} is not a known key")


def _require_field(row: Mapping[str, Any], name: str) -> None:
    here: Any = row
    for part in name.split("."):
        if not isinstance(here, Mapping) or part not in here:
            raise BadRow(f"the grader asks for the field {name!r}, which is missing")
        here = here[part]

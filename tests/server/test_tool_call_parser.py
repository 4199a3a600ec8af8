"""Calls of tools are found in the text, however it is cut into pieces; what is no call stays text."""

import pytest

from server.chat.tool_call_parser import Marks, ToolCall, ToolCallParser

HERMES = Marks("<tool_call>", "</tool_call>\n<tool_call>", "</tool_call>", "name", "arguments")
MISTRAL = Marks("[", ",", "]", "name", "arguments")
LLAMA = Marks("", "", "", "name", "parameters")

ADD = '{"name": "add", "arguments": {"a": 1, "b": "}\\"{"}}'
ADDED = ToolCall("add", '{"a": 1, "b": "}\\"{"}')
LOOK = '{"name": "look", "arguments": {}}'
LOOKED = ToolCall("look", "{}")


def parsed(marks: Marks, text: str, size: int, *, is_in_call: bool = False) -> tuple[str, list[ToolCall]]:
    parser = ToolCallParser(marks, is_in_call=is_in_call)
    parts = [parser.add(text[start : start + size]) for start in range(0, len(text), size)] + [parser.finish()]
    return "".join(shown for shown, _ in parts), [call for _, calls in parts for call in calls]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    ("marks", "text", "shown", "calls"),
    [
        (HERMES, "No call at all. ", "No call at all. ", []),
        (HERMES, f"<tool_call>\n{ADD}\n</tool_call>", "", [ADDED]),
        (HERMES, f"Let me see.\n<tool_call>\n{ADD}\n</tool_call>", "Let me see.", [ADDED]),
        (HERMES, f"<tool_call>{ADD}</tool_call>\n<tool_call>\n{LOOK}\n</tool_call>\n", "", [ADDED, LOOKED]),
        (HERMES, f"<tool_call>{ADD}</tool_call>\n\n\n<tool_call>{LOOK}</tool_call>", "", [ADDED, LOOKED]),
        (HERMES, f"<tool_call>\n{ADD}", "", [ADDED]),
        (HERMES, f"<tool_call>\n{ADD}\n</tool_call>\nDone.", "Done.", [ADDED]),
        (HERMES, "a <tool_ca b", "a <tool_ca b", []),
        (HERMES, 'a<tool_call>{"name": "cut', 'a<tool_call>{"name": "cut', []),
        (HERMES, "<tool_call>{name}</tool_call>", "<tool_call>{name}</tool_call>", []),
        (HERMES, '<tool_call>{"name": 5}</tool_call>', '<tool_call>{"name": 5}</tool_call>', []),
        (HERMES, "<tool_call>none</tool_call>", "<tool_call>none</tool_call>", []),
        (HERMES, '<tool_call>{"name": "x", "arguments": "{}"}', "", [ToolCall("x", "{}")]),
        (MISTRAL, f" [{ADD}, {LOOK}]", "", [ADDED, LOOKED]),
        (MISTRAL, "[1] is a footnote {", "[1] is a footnote {", []),
        (MISTRAL, f"See [{ADD}]", f"See [{ADD}]", []),
        (LLAMA, '{"name": "add", "parameters": {"a": 1}}', "", [ToolCall("add", '{"a": 1}')]),
        (LLAMA, 'So: {"name": "add"}', 'So: {"name": "add"}', []),
        (LLAMA, '{"no": "name"}', '{"no": "name"}', []),
        (LLAMA, "", "", []),
    ],
)
def test_calls_leave_and_text_stays(marks: Marks, text: str, shown: str, calls: list[ToolCall], size: int) -> None:
    assert parsed(marks, text, size) == (shown, calls)


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_an_answer_may_begin_inside_of_a_call(size: int) -> None:
    assert parsed(HERMES, f"{ADD}\n</tool_call>\n<tool_call>\n{LOOK}\n</tool_call>", size, is_in_call=True) == (
        "",
        [ADDED, LOOKED],
    )
    assert parsed(MISTRAL, f"{ADD}, {LOOK}]", size, is_in_call=True) == ("", [ADDED, LOOKED])


def test_text_is_not_held_back_longer_than_it_may_be_a_call() -> None:
    parser = ToolCallParser(HERMES, is_in_call=False)

    assert parser.add("Hi <tool") == ("Hi", [])
    assert parser.add("box>") == (" <toolbox>", [])
    assert parser.add(f"<tool_call>{ADD}") == ("", [ADDED])

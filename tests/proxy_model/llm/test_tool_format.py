"""How a chat template writes calls of tools is found by asking it."""

from typing import Any

import pytest

from proxy_model.llm.tokenizer import ChatTokenizer
from proxy_model.llm.tool_format import ToolFormat
from tests import tool_templates
from tests.server.fakes import TEMPLATE
from tests.tiny_tokenizer import byte_tokenizer


def tokenizer_with(template: str) -> ChatTokenizer:
    tokenizer: Any = byte_tokenizer()
    tokenizer.chat_template = template
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|calls|>"]})
    return ChatTokenizer(tokenizer)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (
            tool_templates.HERMES,
            ToolFormat("<tool_call>\n", "\n</tool_call>\n<tool_call>\n", "\n</tool_call>", "name", "arguments"),
        ),
        (tool_templates.MISTRAL, ToolFormat("<|calls|> [", ", ", "]", "name", "arguments")),
        (tool_templates.LLAMA, ToolFormat("", None, "", "name", "parameters")),
        (tool_templates.PYTHONIC, None),
        (tool_templates.CHATML, None),
        (TEMPLATE, None),
        ("{{ raise_exception('never') }}", None),
    ],
    ids=["hermes", "mistral", "llama", "no JSON", "no tools", "plain", "broken"],
)
def test_the_template_tells(template: str, expected: ToolFormat | None) -> None:
    assert tokenizer_with(template).tool_format == expected


def test_special_tokens_are_not_visible() -> None:
    assert tokenizer_with(tool_templates.MISTRAL).visible("<|calls|> [") == " ["
